"""Reads picture messages of MCAP files, by rov and other tools: Foxglove and ROS, in protobuf, JSON, CDR or ROS 1.

    foxglove.CompressedImage, .CompressedVideo, .RawImage     protobuf, json, cdr (BlueOS's recorder, ROS 2), ros1
    sensor_msgs/CompressedImage, /Image                       cdr, json, ros1

The `format` field is not always right, so the format of a still picture is taken from its first bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import msgspec
from foxglove_schemas_protobuf.CompressedImage_pb2 import CompressedImage
from foxglove_schemas_protobuf.CompressedVideo_pb2 import CompressedVideo
from foxglove_schemas_protobuf.RawImage_pb2 import RawImage
from google.protobuf.message import DecodeError
from mcap.records import Channel, Schema

from rov.dives.cdr import Fields, cdr, ros1

UNREADABLE = (msgspec.DecodeError, DecodeError, UnicodeDecodeError, ValueError)
"""What reading a malformed message raises."""
STAMP_NS = 10_000_000_000
"""A picture's own stamp is used when this near to its log time; otherwise it is of another clock."""
VIDEO_NAMES = {"h264": "h264", "avc": "h264", "h265": "h265", "hevc": "h265", "vp8": "vp8", "vp9": "vp9", "av1": "av1"}
STILLS = {"jpeg", "jpg", "png", "webp", "compressed", ""}
"""Words in `format` that name a still picture."""


class Pixels(NamedTuple):
    """Layout of an uncompressed picture: `encoding` by its ROS name, `step` in bytes a row."""

    width: int
    height: int
    encoding: str
    step: int
    big_endian: bool = False


class EncodedPicture(NamedTuple):
    """One picture with its capture time `t` in ns. `format` is jpeg, png or webp for a still picture; h264, h265, vp8,
    vp9 or av1 for one packet of a stream, which `rov.media.h264_decoder` decodes in order from a key frame on; or raw,
    laid out as `pixels`."""

    t: int
    data: bytes
    format: str
    pixels: Pixels | None = None


class PictureMessage(NamedTuple):
    """The fields of a picture message, whatever its encoding."""

    stamp: int
    """Capture time in ns, of an unknown clock."""
    data: bytes
    format: str
    pixels: Pixels | None = None


Read: TypeAlias = Callable[[int, bytes], EncodedPicture]
"""Log time and bytes of a message -> the picture. Raises one of UNREADABLE."""


def kind_of(schema: Schema | None) -> str:
    """The picture type of a schema, such as `foxglove.CompressedImage`; "" for any other schema. ROS 1, ROS 2 and
    Foxglove spell the same names differently."""
    words = words_of(schema)
    package = words[0].removesuffix("_msgs") if words else ""
    name = f"{package}.{words[-1]}" if words else ""
    return name if name in PROTOBUF or name in FIELDS else ""


def words_of(schema: Schema | None) -> list[str]:
    """The parts of a schema's name, such as `sensor_msgs`, `msg`, `Image`."""
    return re.split(r"[./:]+", schema.name) if schema else []


def reader(channel: Channel, schema: Schema | None) -> Read | None:
    """The reader of a channel's pictures; None where it holds none, or in an unsupported encoding."""
    kind = kind_of(schema)
    parse: Callable[[bytes], PictureMessage] | None = None
    match channel.message_encoding:
        case "protobuf" if kind in PROTOBUF:
            parse = partial(from_protobuf, PROTOBUF[kind])
        case "json" if kind:
            parse = from_json
        case "cdr" if kind in FIELDS:
            parse = lambda data: FIELDS[kind](cdr(data), False)  # noqa: E731
        case "ros1" if kind in FIELDS:
            parse = lambda data: FIELDS[kind](ros1(data), True)  # noqa: E731
    return partial(picture, parse, kind.endswith("CompressedVideo")) if parse else None


def picture(parse: Callable[[bytes], PictureMessage], video: bool, log_t: int, data: bytes) -> EncodedPicture:
    """The picture in a message. Raises one of UNREADABLE."""
    message = parse(data)
    t = message.stamp if message.stamp > 0 and abs(message.stamp - log_t) <= STAMP_NS else log_t
    if not message.data:
        raise msgspec.ValidationError("a picture without data")
    if message.pixels:
        return EncodedPicture(t, message.data, "raw", message.pixels)
    return EncodedPicture(t, message.data, format_of(message.format.strip().lower(), message.data, video))


def format_of(name: str, data: bytes, video: bool) -> str:
    """The format of the data, by its name (ROS: `jpeg`, or `rgb8; jpeg compressed bgr8`) and its first bytes. Raises
    msgspec.ValidationError for an unknown one."""
    words = re.split(r"[^a-z0-9.]+", name)
    promised = next((VIDEO_NAMES[word] for word in words if word in VIDEO_NAMES), "")
    if promised and (video or promised not in ("h264", "h265") or data.startswith((b"\0\0\1", b"\0\0\0\1"))):
        return promised
    known = video or promised or "compresseddepth" in words
    if known or not (still := still_of(data)):
        if not known and STILLS & set(words) and "depth" not in name:
            return (
                "png" if "png" in words else "webp" if "webp" in words else "jpeg"
            )  # by its name; the data may be damaged
        raise msgspec.ValidationError(f"a picture of format {name!r}")
    return still


def still_of(data: bytes) -> str:
    """The format of a still picture by its first bytes; "" when unknown."""
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if data.startswith(b"\x89PNG\r\n"):
        return "png"
    return "webp" if data.startswith(b"RIFF") and data[8:12] == b"WEBP" else ""


# ---- the encodings --------------------------------------------------------------------------------------------------


def from_protobuf(kind: Any, data: bytes) -> PictureMessage:
    m = kind.FromString(data)
    stamp = m.timestamp.seconds * 1_000_000_000 + m.timestamp.nanos
    if kind is RawImage:
        return PictureMessage(stamp, m.data, "", Pixels(m.width, m.height, m.encoding, m.step))
    return PictureMessage(stamp, m.data, m.format)


class Stamp(msgspec.Struct):
    sec: int = 0
    nsec: int = 0
    nanosec: int = 0


class Header(msgspec.Struct):
    stamp: Stamp = msgspec.field(default_factory=Stamp)


class JsonPicture(msgspec.Struct):
    """Foxglove's and ROS's fields together; data are base64."""

    data: bytes
    format: str = ""
    timestamp: Stamp = msgspec.field(default_factory=Stamp)
    header: Header = msgspec.field(default_factory=Header)
    width: int = 0
    height: int = 0
    encoding: str = ""
    step: int = 0
    is_bigendian: int = 0


JSON = msgspec.json.Decoder(JsonPicture)


def from_json(data: bytes) -> PictureMessage:
    m = JSON.decode(data)
    stamp = m.timestamp if m.timestamp.sec else m.header.stamp
    pixels = Pixels(m.width, m.height, m.encoding, m.step, bool(m.is_bigendian))
    t = stamp.sec * 1_000_000_000 + stamp.nsec + stamp.nanosec
    return PictureMessage(t, m.data, m.format, pixels if m.encoding else None)


def compressed(fields: Fields, _: bool) -> PictureMessage:
    """Foxglove's CompressedImage and CompressedVideo."""
    stamp, _frame = fields.time(), fields.text()
    data = fields.blob()
    return PictureMessage(stamp, data, fields.text())


def raw(fields: Fields, _: bool) -> PictureMessage:
    """Foxglove's RawImage."""
    stamp, _frame = fields.time(), fields.text()
    width, height, encoding, step = fields.u32(), fields.u32(), fields.text(), fields.u32()
    return PictureMessage(stamp, fields.blob(), "", Pixels(width, height, encoding, step))


def ros_compressed(fields: Fields, first: bool) -> PictureMessage:
    """ROS's CompressedImage; `first`: of ROS 1, whose header has one more number."""
    stamp = ros_header(fields, first)
    form = fields.text()
    return PictureMessage(stamp, fields.blob(), form)


def ros_raw(fields: Fields, first: bool) -> PictureMessage:
    """ROS's Image."""
    stamp = ros_header(fields, first)
    height, width, encoding = fields.u32(), fields.u32(), fields.text()
    big, step = bool(fields.u8()), fields.u32()
    return PictureMessage(stamp, fields.blob(), "", Pixels(width, height, encoding, step, big))


def ros_header(fields: Fields, first: bool) -> int:
    if first:
        fields.u32()
    stamp, _frame = fields.time(), fields.text()
    return stamp


PROTOBUF: dict[str, Any] = {
    "foxglove.CompressedImage": CompressedImage,
    "foxglove.CompressedVideo": CompressedVideo,
    "foxglove.RawImage": RawImage,
}
FIELDS: dict[str, Callable[[Fields, bool], PictureMessage]] = {
    "foxglove.CompressedImage": compressed,
    "foxglove.CompressedVideo": compressed,
    "foxglove.RawImage": raw,
    "sensor.CompressedImage": ros_compressed,
    "sensor.Image": ros_raw,
}
