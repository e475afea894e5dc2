"""H.264 and HEVC in dives: packets out of a file without decoding them, packets into pictures (`film` makes them).

One message of `foxglove.CompressedVideo` is one picture as Annex B, in the order they are shown (so without B-frames),
and each key frame carries the parameter sets that a decoder starts with. Times are ns.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, NamedTuple

import av
import numpy as np
from av.bitstream import BitStreamFilterContext
from av.error import FFmpegError
from av.video.codeccontext import VideoCodecContext

from rov.media.files import PIXELS_MAX, Image

Format = Literal["h264", "h265", ""]
FORMATS = {"h264": "h264", "h265": "hevc", "vp8": "vp8", "vp9": "vp9", "av1": "libdav1d"}
"""Foxglove's names of the formats we can decode, and FFmpeg's of their decoders."""
ANNEX_B: dict[str, tuple[Format, str]] = {"h264": ("h264", "h264_mp4toannexb"), "hevc": ("h265", "hevc_mp4toannexb")}
"""FFmpeg's codec: Foxglove's format, and the filter that makes Annex B of what stands in an MP4."""
NS = Fraction(1, 1_000_000_000)


class Packet(NamedTuple):
    """One compressed picture: t in ns from the start of the video, Annex B."""

    t: int
    data: bytes
    key: bool


def copyable(path: Path) -> Format:
    """The format (h264, h265) in which a video's packets can go into a dive as they are; "" when they cannot: another
    codec, pictures stored in another order than they are shown, or no key frame at the start."""
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                return ""
            stream = container.streams.video[0]
            name = stream.codec_context.name
            if name not in ANNEX_B:
                return ""
            last, first = None, True
            for packet in container.demux(stream):
                if packet.size == 0:
                    continue
                if packet.pts is None or (first and not packet.is_keyframe):
                    return ""
                if last is not None and packet.pts <= last:
                    return ""
                last, first = packet.pts, False
            return ANNEX_B[name][0] if last is not None else ""
    except FFmpegError:
        return ""


def packets(path: Path) -> Iterator[Packet]:
    """The pictures of a `copyable` video, none decoded. A file that breaks off ends early."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        bits = BitStreamFilterContext(ANNEX_B[stream.codec_context.name][1], stream)
        start = None
        demuxed = container.demux(stream)
        while True:
            try:
                packet = next(demuxed, None)
                done = packet is None or packet.size == 0
                filtered = bits.filter(None if done else packet)
            except FFmpegError:
                return
            for each in filtered:
                if each.pts is None:
                    continue
                start = each.pts if start is None else start
                assert each.time_base is not None
                yield Packet(int((each.pts - start) * each.time_base / NS), bytes(each), each.is_keyframe)
            if done:
                return


class VideoDecoder:
    """Packets of one stream in, pictures out. Before the first key frame there are none."""

    def __init__(self, format: str):  # noqa: A002  the message's own name for it
        self.codec = av.CodecContext.create(FORMATS[format], "r")
        assert isinstance(self.codec, VideoCodecContext)
        self.codec.thread_count = 1  # more would hold pictures back
        self.codec.options = {"flags": "low_delay", "max_pixels": str(PIXELS_MAX)}
        self.broken = 0
        """Packets that could not be decoded."""

    def decode(self, t: int, data: bytes) -> list[tuple[int, Image]]:
        """The pictures (t, (H, W, 3) BGR) that this packet completes: its own, unless the stream holds some back."""
        packet = av.Packet(data)
        packet.pts = packet.dts = t
        packet.time_base = NS
        return self._pictures(packet)

    def flush(self) -> list[tuple[int, Image]]:
        """What was held back."""
        return self._pictures(None)

    def _pictures(self, packet: av.Packet[Any] | None) -> list[tuple[int, Image]]:
        assert isinstance(self.codec, VideoCodecContext)
        try:
            frames = self.codec.decode(packet)
        except FFmpegError:
            self.broken += 1
            return []
        return [(int(f.pts), np.asarray(f.to_ndarray(format="bgr24"), np.uint8)) for f in frames if f.pts is not None]
