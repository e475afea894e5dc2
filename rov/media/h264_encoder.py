"""Encodes pictures as H.264 for dives: Annex B without B-frames, so that each packet is one picture, as Foxglove's
CompressedVideo requires. `h264_decoder` reads them back."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext

from rov.types import Image

KEY_FRAMES = 30
"""Pictures from one key frame to the next: after a cut or damage, decoding resumes within 2 s at 15 Hz."""
QUALITY = "23"
"""x264's constant rate factor, its default."""


class H264Encoder:
    """Encodes pictures to packets; a picture of another size starts a new stream with a key frame."""

    def __init__(self, fps: float):
        self.fps = Fraction(round(fps))
        self.codec: VideoCodecContext | None = None
        self.count = 0

    def encode(self, image: Image) -> bytes:
        """The packet of this picture (H, W, 3) BGR. An odd last row or column is cut off: H.264 needs even sizes."""
        height, width = image.shape[0] & ~1, image.shape[1] & ~1
        if self.codec is None or (self.codec.width, self.codec.height) != (width, height):
            self.codec = self._open(width, height)
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image[:height, :width]), format="bgr24")
        frame.pts, self.count = self.count, self.count + 1
        return b"".join(bytes(packet) for packet in self.codec.encode(frame))

    def _open(self, width: int, height: int) -> VideoCodecContext:
        codec = av.CodecContext.create("libx264", "w")
        assert isinstance(codec, VideoCodecContext)
        codec.width, codec.height, codec.pix_fmt = width, height, "yuv420p"
        codec.framerate, codec.thread_count = self.fps, 1
        parameters = f"keyint={KEY_FRAMES}:scenecut=0:repeat-headers=1:annexb=1"
        codec.options = {"preset": "ultrafast", "tune": "zerolatency", "crf": QUALITY, "x264-params": parameters}
        self.count = 0
        return codec
