"""Decodes a camera's JPEGs one by one, and refuses damaged ones.

A bad cable or link truncates or garbles a picture; most decoders then fill the rest with grey, green or the picture
before. FFmpeg's decoder can be told to refuse it.
"""

from __future__ import annotations

import av
from av.error import FFmpegError
from av.video.codeccontext import VideoCodecContext

from rov.media.convert import Converter
from rov.media.files import PIXELS_MAX
from rov.types import Image

TRIES = 30
"""If the first TRIES pictures are all refused but can be decoded leniently, this camera writes non-standard JPEGs, and
they are decoded leniently from then on."""


class JpegDecoder:
    """The decoder of one camera's stream."""

    def __init__(self) -> None:
        self.convert = Converter()
        self.strict, self.lenient = _codec("explode"), _codec("ignore_err")
        self.refused: int | None = 0
        """Pictures refused since the start, while none was whole; None once one was."""

    def decode(self, jpeg: bytes) -> Image | None:
        """The picture (H, W, 3) BGR; None for a damaged one."""
        if self.refused is None or self.refused < TRIES:
            image = self._with(self.strict, jpeg)
            if image is not None:
                self.refused = None
            elif self.refused is not None:
                self.refused += self._with(self.lenient, jpeg) is not None
            return image
        return self._with(self.lenient, jpeg)

    def _with(self, codec: VideoCodecContext, jpeg: bytes) -> Image | None:
        try:
            frames = codec.decode(av.Packet(jpeg)) if jpeg else []
            return self.convert(frames[-1]) if frames else None
        except FFmpegError:
            return None


def damaged(jpeg: bytes) -> bool:
    """Whether a part of a JPEG is missing or unreadable. False for one that FFmpeg cannot decode at all."""
    return not _decodes(jpeg, "explode") and _decodes(jpeg, "ignore_err")


def _decodes(jpeg: bytes, errors: str) -> bool:
    try:
        return bool(_codec(errors, lowres="3").decode(av.Packet(jpeg)))
    except FFmpegError:
        return False


def _codec(errors: str, **more: str) -> VideoCodecContext:
    codec = av.CodecContext.create("mjpeg", "r")
    assert isinstance(codec, VideoCodecContext)
    codec.options = {"err_detect": errors, "max_pixels": str(PIXELS_MAX), **more}
    codec.thread_count = 1  # each picture comes out at once
    return codec
