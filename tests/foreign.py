"""Recordings as other tools write them, made here: (topic, times and messages) by the public MCAP library."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import cv2
import numpy as np
from mcap.writer import Writer
from numpy.typing import NDArray

T0 = 1_700_000_000_000_000_000
STEP = 100_000_000


class Topic(NamedTuple):
    """One channel: what its schema is called and in which language it is, how its messages are written, and these."""

    name: str
    schema: str
    language: str
    encoding: str
    messages: list[bytes]
    metadata: dict[str, str] = {}


def write(path: Path, topics: Iterable[Topic], times: list[int] | None = None, **options: Any) -> Path:
    """A file with these topics; the messages of each are logged at T0 and every 100 ms, or at `times`."""
    with path.open("wb") as stream:
        writer = Writer(stream, **options)
        writer.start()
        lines = []
        for topic in topics:
            schema = writer.register_schema(topic.schema, topic.language, b"") if topic.schema else 0
            channel = writer.register_channel(topic.name, topic.encoding, schema, topic.metadata)
            at = times or [T0 + k * STEP for k in range(len(topic.messages))]
            lines += [(t, channel, data) for t, data in zip(at, topic.messages, strict=False)]
        for t, channel, data in sorted(lines, key=lambda line: line[0]):
            writer.add_message(channel, t, data, t)
        writer.finish()  # type: ignore[no-untyped-call]
    return path


# ---- ways of writing a message -----------------------------------------------------------------------------------


def cdr(*fields: int | str | bytes | tuple[int, int], big: bool = False, kind: int | None = None) -> bytes:
    """CDR: numbers of 32 bits (of 8, as (value, 1)), texts and bytes."""
    order: Any = "big" if big else "little"
    data = bytearray()
    for field in fields:
        if isinstance(field, tuple):
            data += field[0].to_bytes(field[1], order)
            continue
        data += bytes(-len(data) % 4)
        if isinstance(field, int):
            data += field.to_bytes(4, order)
        else:
            content = field.encode() + b"\0" if isinstance(field, str) else field
            data += len(content).to_bytes(4, order) + content
    return bytes([0, (0 if big else 1) if kind is None else kind, 0, 0]) + bytes(data)


def ros1(*fields: int | str | bytes | tuple[int, int]) -> bytes:
    data = b""
    for field in fields:
        if isinstance(field, tuple):
            data += field[0].to_bytes(field[1], "little")
        elif isinstance(field, int):
            data += field.to_bytes(4, "little")
        else:
            content = field.encode() if isinstance(field, str) else field
            data += len(content).to_bytes(4, "little") + content
    return data


def stamp(t: int) -> tuple[int, int]:
    return t // 10**9, t % 10**9


# ---- pictures ----------------------------------------------------------------------------------------------------


def image(k: int, width: int = 64, height: int = 48) -> NDArray[np.uint8]:
    """(H, W, 3) BGR: the upper half blue, the lower half red, both brighter from picture to picture."""
    found = np.zeros((height, width, 3), np.uint8)
    found[: height // 2, :, 0] = found[height // 2 :, :, 2] = 100 + 5 * k
    return found


def compressed(k: int, suffix: str = ".jpg") -> bytes:
    return bytes(cv2.imencode(suffix, image(k))[1].tobytes())


def packets(count: int, codec: str = "libx264", group: int = 10, **options: str) -> list[bytes]:
    """A film of `image`, one packet each."""
    encoder: Any = av.CodecContext.create(codec, "w")
    encoder.width, encoder.height, encoder.pix_fmt = 64, 48, "yuv420p"
    encoder.time_base = Fraction(1, 10)
    encoder.options = {"bf": "0", "g": str(group), "tune": "zerolatency", "x264-params": "scenecut=0", **options}
    found = []
    for k in range(count):
        frame = av.VideoFrame.from_ndarray(image(k), "bgr24")
        frame.pts = k
        found += [bytes(packet) for packet in encoder.encode(frame)]
    return found + [bytes(packet) for packet in encoder.encode(None)]


def ros2_compressed(count: int = 20, form: str = "jpeg", suffix: str = ".jpg", **options: Any) -> list[bytes]:
    return [
        cdr(*stamp(options.get("at", lambda k: T0 + k * STEP)(k)), "cam", form, compressed(k, suffix),
            big=options.get("big", False))
        for k in range(count)
    ]  # fmt: skip


def json_picture(k: int, **fields: Any) -> bytes:
    sec, nsec = stamp(T0 + k * STEP)
    data = base64.b64encode(compressed(k)).decode()
    return json.dumps({"timestamp": {"sec": sec, "nsec": nsec}, "format": "jpeg", "data": data} | fields).encode()


def ros2(messages: list[bytes], name: str = "/camera/image_raw/compressed") -> Topic:
    return Topic(name, "sensor_msgs/msg/CompressedImage", "ros2msg", "cdr", messages)
