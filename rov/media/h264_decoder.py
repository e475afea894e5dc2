"""H.264 and HEVC in dives: copies packets out of a video file, and decodes packets (`h264_encoder` makes new ones).

One `foxglove.CompressedVideo` message is one picture as Annex B, in display order (so without B-frames), and each key
frame carries the parameter sets that a decoder needs to start. Times are ns.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, NamedTuple

import av
from av.bitstream import BitStreamFilterContext
from av.error import FFmpegError
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from rov.errors import UserError
from rov.media.check import ContentCheck
from rov.media.convert import Converter, Turn, turn_of
from rov.media.files import PIXELS_MAX
from rov.media.films import Container, opened
from rov.media.stamps import Stamps
from rov.types import Image

Format = Literal["h264", "h265", ""]
FORMATS = {"h264": "h264", "h265": "hevc", "vp8": "vp8", "vp9": "vp9", "av1": "libdav1d"}
"""Foxglove's names of the formats we can decode, and FFmpeg's of their decoders."""
ANNEX_B: dict[str, tuple[Format, str]] = {"h264": ("h264", "h264_mp4toannexb"), "hevc": ("h265", "hevc_mp4toannexb")}
"""FFmpeg's codec: Foxglove's format, and the filter that converts MP4 packets to Annex B."""
NS = Fraction(1, 1_000_000_000)


class Packet(NamedTuple):
    """One compressed picture: t in ns from the start of the video, Annex B."""

    t: int
    data: bytes
    key: bool


def copyable(path: Path) -> Format:
    """The format (h264, h265) in which a video's packets can be copied into a dive; "" when they cannot: another codec,
    B-frames, pictures that are rotated, hidden or of several sizes, no key frame at the start, or key frames that show
    nothing. Only key frames are decoded."""
    try:
        container, stream = opened(path, [])
        with container:
            return _copyable(container, stream)
    except (FFmpegError, UserError):
        return ""


def _copyable(container: Container, stream: VideoStream) -> Format:
    """Raises av.FFmpegError where the file is truncated or cannot be decoded."""
    name = stream.codec_context.name
    if name not in ANNEX_B:
        return ""
    stream.codec_context.skip_frame = "NONKEY"
    convert, check, sizes = Converter(), ContentCheck(), set()
    last: int | None = None
    for packet in container.demux(stream):
        for frame in packet.decode():
            if turn_of(frame) != Turn():
                return ""
            sizes.add((frame.width, frame.height))
            check.add(convert(frame))
        if packet.size == 0:
            continue
        if packet.pts is None or packet.is_discard or (last is None and not packet.is_keyframe):
            return ""
        if last is not None and packet.pts <= last:
            return ""
        last = packet.pts
    shows = len(sizes) == 1 and not check.black and (not check.same or check.seen == 1)
    return ANNEX_B[name][0] if shows else ""


def packets(path: Path) -> Iterator[Packet]:
    """The packets of a `copyable` video, not decoded. A truncated file ends early."""
    container, stream = opened(path, [])
    with container:
        bits = BitStreamFilterContext(ANNEX_B[stream.codec_context.name][1], stream)
        start = stream.start_time or 0
        stamps = Stamps(round(1e9 / float(stream.guessed_rate or 25)))
        stamped = ((_stamp(each, start), each) for each in _filtered(container, stream, bits))
        for t, each in stamps.steady(stamped):
            yield Packet(t, bytes(each), each.is_keyframe)


def _stamp(packet: av.Packet[Any], start: int) -> int | None:
    return None if packet.pts is None else int((packet.pts - start) * packet.time_base / NS)


def _filtered(container: Container, stream: VideoStream, bits: BitStreamFilterContext) -> Iterator[av.Packet[Any]]:
    demuxed = container.demux(stream)
    while True:
        try:
            packet = next(demuxed, None)
            done = packet is None or packet.size == 0
            yield from bits.filter(None if done else packet)
        except FFmpegError:
            return
        if done:
            return


class VideoDecoder:
    """Decodes the packets of one stream. Before the first key frame there are no pictures."""

    def __init__(self, format: str):  # noqa: A002  the field's name in the message
        self.codec = av.CodecContext.create(FORMATS[format], "r")
        assert isinstance(self.codec, VideoCodecContext)
        self.codec.thread_count = 1  # more would hold pictures back
        self.codec.options = {"flags": "low_delay", "max_pixels": str(PIXELS_MAX)}
        self.convert = Converter()
        self.broken = 0
        """Packets that could not be decoded."""

    def decode(self, t: int, data: bytes) -> list[tuple[int, Image]]:
        """The pictures (t, (H, W, 3) BGR) that this packet completes: its own, unless the decoder holds some back."""
        packet = av.Packet(data)
        packet.pts = packet.dts = t
        packet.time_base = NS
        return self._pictures(packet)

    def flush(self) -> list[tuple[int, Image]]:
        """The pictures that the decoder held back."""
        return self._pictures(None)

    def _pictures(self, packet: av.Packet[Any] | None) -> list[tuple[int, Image]]:
        assert isinstance(self.codec, VideoCodecContext)
        try:
            return [(int(f.pts), self.convert(f)) for f in self.codec.decode(packet) if f.pts is not None]
        except FFmpegError:
            self.broken += 1
            return []
