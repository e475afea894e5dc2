"""JPEGs that come one by one from a camera: whole ones as pictures, damaged ones as nothing.

A bad cable or link cuts a picture off or garbles it; most decoders then fill the rest with grey, green or the picture
before. FFmpeg's can be told to refuse such a one.
"""

from __future__ import annotations

import av
from av.error import FFmpegError
from av.video.codeccontext import VideoCodecContext

from rov.media.convert import Converter
from rov.media.files import PIXELS_MAX
from rov.types import Image

TRIES = 30
"""When so many pictures in a row, from the first one on, are refused but could be decoded in some way, then this camera
builds all of its JPEGs so, and they are taken as they are."""


class JpegDecoder:
    """The decoder of one camera's stream."""

    def __init__(self) -> None:
        self.convert = Converter()
        self.strict, self.lenient = _codec("explode"), _codec("ignore_err")
        self.refused: int | None = 0
        """Pictures since the first one, while none was whole; None once one was."""

    def decode(self, jpeg: bytes) -> Image | None:
        """The picture; None for one that came damaged."""
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
    """Whether a part of a JPEG is missing or unreadable. One that FFmpeg does not know at all is not said to be."""
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
