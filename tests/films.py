"""Films for tests, made with PyAV: one picture after another, as wrong as a test wants them."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from rov.types import Image

SIZE = (64, 48)


def grey(level: int, size: tuple[int, int] = SIZE) -> Image:
    return np.full((size[1], size[0], 3), level, np.uint8)


def moving(k: int, size: tuple[int, int] = SIZE) -> Image:
    """A white block on grey that goes right: no two are the same."""
    image = grey(80, size)
    at = (2 * k) % (size[0] - 8)
    image[size[1] // 4 : size[1] // 2, at : at + 8] = 220
    return image


def write_film(
    path: Path,
    images: Iterable[Image],
    codec: str = "libx264",
    *,
    rate: int = 10,
    times: list[int] | None = None,
    options: dict[str, str] | None = None,
    pix_fmt: str = "yuv420p",
    form: dict[str, str] | None = None,
    colours: tuple[int, int] | None = None,
) -> Path:
    """`times`: of each picture, in steps of 1/rate. `colours`: FFmpeg's numbers of matrix and range."""
    pictures = list(images)
    with av.open(f"file:{path}", "w", options=form or {}) as container:
        stream: Any = container.add_stream(codec, rate=rate, options=options or {})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = pix_fmt
        stream.codec_context.time_base = Fraction(1, rate)
        if colours:
            stream.codec_context.colorspace, stream.codec_context.color_range = colours
        for k, image in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), "bgr24")
            if colours:
                frame = frame.reformat(format=pix_fmt, dst_colorspace=colours[0], dst_color_range=colours[1])
                frame.colorspace, frame.color_range = colours
            frame.pts, frame.time_base = (times[k] if times else k), Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def retimed(path: Path, out: Path, at: Any, first: int = 0) -> Path:
    """The same packets with the times `at(k)` (in steps of the first one's length), from number `first` on."""
    with av.open(str(path)) as source, av.open(str(out), "w") as target:
        stream = source.streams.video[0]
        copy = target.add_stream_from_template(stream)
        assert stream.average_rate and stream.time_base
        step = round(1 / stream.average_rate / stream.time_base)
        for packet in source.demux(stream):
            if packet.size and packet.pts is not None and packet.pts >= first * step:
                k = round(packet.pts / step)
                packet.pts, packet.dts = at(k) * step, min(k, at(k)) * step
                packet.stream = copy
                target.mux(packet)
    return out


def turn_header(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Write a display matrix (a, b, c, d) into an MP4's track header."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 44  # version 0: after volume and reserved
    a, b, c, d = matrix
    data[at : at + 36] = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path
