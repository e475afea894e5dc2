"""H.264 and HEVC in dives: packets out of a file without decoding them, pictures into packets, packets into pictures.

One message of `foxglove.CompressedVideo` is one picture as Annex B, in the order they are shown (so without B-frames),
and each key frame carries the parameter sets that a decoder starts with. Times are ns.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from av.bitstream import BitStreamFilterContext
from av.error import FFmpegError
from av.video.codeccontext import VideoCodecContext

from rov.vision.footage import Image

FORMATS = {"h264": "h264", "h265": "hevc"}
"""Foxglove's names of the formats we can decode, and FFmpeg's of their decoders."""
ANNEX_B = {"h264": ("h264", "h264_mp4toannexb"), "hevc": ("h265", "hevc_mp4toannexb")}
"""FFmpeg's codec: Foxglove's format, and the filter that makes Annex B of what stands in an MP4."""
KEY_FRAME_S = 1.0
"""A reader who jumps into a recorded dive waits this long at most for a whole picture."""
NS = Fraction(1, 1_000_000_000)


class Packet(NamedTuple):
    """One compressed picture: t in ns from the start of the video, Annex B."""

    t: int
    data: bytes
    key: bool


def copyable(path: Path) -> str:
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
        self.codec.options = {"flags": "low_delay"}
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


class VideoEncoder:
    """Pictures in, one H.264 packet each at once: no B-frames, no look-ahead, parameter sets with every key frame."""

    def __init__(self, width: int, height: int, fps: float, quality: int = 23, preset: str = "ultrafast"):
        """Width and height must be even. `quality` is x264's constant rate factor: 18 looks like the original, 28 is
        small. Raises FFmpegError when this build has no H.264 encoder."""
        codec = av.CodecContext.create("libx264", "w")
        assert isinstance(codec, VideoCodecContext)
        codec.width, codec.height, codec.pix_fmt = width, height, "yuv420p"
        codec.time_base, codec.framerate = NS, Fraction(fps).limit_denominator(1001)
        codec.gop_size, codec.max_b_frames, codec.thread_count = max(1, round(fps * KEY_FRAME_S)), 0, 1
        codec.options = {
            "preset": preset,
            "tune": "zerolatency",
            "crf": str(quality),
            "x264-params": "repeat-headers=1:annexb=1",
        }
        self.codec = codec

    def encode(self, t: int, image: Image) -> bytes:
        """One picture as Annex B; `t` must grow."""
        frame = av.VideoFrame.from_ndarray(image, format="bgr24")
        frame.pts, frame.time_base = t, NS
        return b"".join(bytes(packet) for packet in self.codec.encode(frame))
