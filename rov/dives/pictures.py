"""Pictures in MCAP files, ours and others': Foxglove's and ROS's messages as protobuf, JSON, CDR or ROS 1.

    foxglove.CompressedImage, .CompressedVideo, .RawImage     protobuf, json, cdr (BlueOS's recorder, ROS 2), ros1
    sensor_msgs/CompressedImage, /Image                       cdr, json, ros1

What a message says of its format is not always what is in it: a picture that stands alone is known by its first bytes.
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
"""What reading a message that is malformed raises."""
STAMP_NS = 10_000_000_000
"""A picture's own stamp is believed when it is this near to the time it was logged at; else it is of another clock."""
VIDEO_NAMES = {"h264": "h264", "avc": "h264", "h265": "h265", "hevc": "h265", "vp8": "vp8", "vp9": "vp9", "av1": "av1"}
STILLS = {"jpeg", "jpg", "png", "webp", "compressed", ""}
"""Words of a format that promise a picture which stands alone."""


class Pixels(NamedTuple):
    """How the bytes of a picture without compression lie: `encoding` as ROS calls it, `step` bytes a row."""

    width: int
    height: int
    encoding: str
    step: int
    big_endian: bool = False


class EncodedPicture(NamedTuple):
    """One picture with its capture time; `format` is jpeg, png or webp, whole in itself; h264, h265, vp8, vp9 or av1:
    one packet of a stream, for `rov.media.h264_decoder`, decoded in order from a key frame on; or raw: `pixels` says how."""

    t: int
    data: bytes
    format: str
    pixels: Pixels | None = None


class PictureMessage(NamedTuple):
    """What a message of a picture says, whichever way it was written."""

    stamp: int
    """Of its capture, ns; of whatever clock."""
    data: bytes
    format: str
    pixels: Pixels | None = None


Read: TypeAlias = Callable[[int, bytes], EncodedPicture]
"""Log time and bytes of a message -> the picture. Raises one of UNREADABLE."""


def kind_of(schema: Schema | None) -> str:
    """The kind of picture that a schema describes, as `foxglove.CompressedImage`; "" for anything else. ROS 1, ROS 2
    and Foxglove spell the same names differently."""
    words = words_of(schema)
    package = words[0].removesuffix("_msgs") if words else ""
    name = f"{package}.{words[-1]}" if words else ""
    return name if name in PROTOBUF or name in FIELDS else ""


def words_of(schema: Schema | None) -> list[str]:
    """The parts of a schema's name."""
    return re.split(r"[./:]+", schema.name) if schema else []


def reader(channel: Channel, schema: Schema | None) -> Read | None:
    """How to read a channel's pictures; None where it holds none, or in a way that is not known here."""
    kind = kind_of(schema)
    say: Callable[[bytes], PictureMessage] | None = None
    match channel.message_encoding:
        case "protobuf" if kind in PROTOBUF:
            say = partial(from_protobuf, PROTOBUF[kind])
        case "json" if kind:
            say = from_json
        case "cdr" if kind in FIELDS:
            say = lambda data: FIELDS[kind](cdr(data), False)  # noqa: E731
        case "ros1" if kind in FIELDS:
            say = lambda data: FIELDS[kind](ros1(data), True)  # noqa: E731
    return partial(picture, say, kind.endswith("CompressedVideo")) if say else None


def picture(say: Callable[[bytes], PictureMessage], video: bool, log_t: int, data: bytes) -> EncodedPicture:
    """The picture in a message. Raises one of UNREADABLE."""
    said = say(data)
    t = said.stamp if said.stamp > 0 and abs(said.stamp - log_t) <= STAMP_NS else log_t
    if not said.data:
        raise msgspec.ValidationError("a picture without data")
    if said.pixels:
        return EncodedPicture(t, said.data, "raw", said.pixels)
    return EncodedPicture(t, said.data, format_of(said.format.strip().lower(), said.data, video))


def format_of(name: str, data: bytes, video: bool) -> str:
    """What is in the data. ROS writes `jpeg`, but also `rgb8; jpeg compressed bgr8`. Raises msgspec.ValidationError."""
    words = re.split(r"[^a-z0-9.]+", name)
    promised = next((VIDEO_NAMES[word] for word in words if word in VIDEO_NAMES), "")
    if promised and (video or promised not in ("h264", "h265") or data.startswith((b"\0\0\1", b"\0\0\0\1"))):
        return promised
    known = video or promised or "compresseddepth" in words
    if known or not (still := still_of(data)):
        if not known and STILLS & set(words) and "depth" not in name:
            return "png" if "png" in words else "webp" if "webp" in words else "jpeg"  # so it says; it may be damaged
        raise msgspec.ValidationError(f"a picture of format {name!r}")
    return still


def still_of(data: bytes) -> str:
    """The format of a picture that stands alone, by its first bytes."""
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if data.startswith(b"\x89PNG\r\n"):
        return "png"
    return "webp" if data.startswith(b"RIFF") and data[8:12] == b"WEBP" else ""


# ---- the ways of writing it ------------------------------------------------------------------------------------------


def from_protobuf(kind: Any, data: bytes) -> PictureMessage:
    said = kind.FromString(data)
    stamp = said.timestamp.seconds * 1_000_000_000 + said.timestamp.nanos
    if kind is RawImage:
        return PictureMessage(stamp, said.data, "", Pixels(said.width, said.height, said.encoding, said.step))
    return PictureMessage(stamp, said.data, said.format)


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
    said = JSON.decode(data)
    stamp = said.timestamp if said.timestamp.sec else said.header.stamp
    pixels = Pixels(said.width, said.height, said.encoding, said.step, bool(said.is_bigendian))
    t = stamp.sec * 1_000_000_000 + stamp.nsec + stamp.nanosec
    return PictureMessage(t, said.data, said.format, pixels if said.encoding else None)


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
    """ROS's CompressedImage; `first`: of ROS 1, whose header has a number more."""
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
