"""Decodes still pictures to BGR: compressed ones, and raw bytes in each encoding that ROS names."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rov.dives.pictures import EncodedPicture, Pixels
from rov.media.files import PIXELS_MAX
from rov.media.headers import kind_of, size_of
from rov.media.jpeg import damaged
from rov.types import Image

BYTES: dict[str, tuple[int, int]] = {
    "rgb8": (3, cv2.COLOR_RGB2BGR), "bgr8": (3, -1), "8uc3": (3, -1),
    "rgba8": (4, cv2.COLOR_RGBA2BGR), "bgra8": (4, cv2.COLOR_BGRA2BGR), "8uc4": (4, cv2.COLOR_BGRA2BGR),
    "mono8": (1, cv2.COLOR_GRAY2BGR), "8uc1": (1, cv2.COLOR_GRAY2BGR),
    "bayer_rggb8": (1, cv2.COLOR_BayerBG2BGR), "bayer_bggr8": (1, cv2.COLOR_BayerRG2BGR),
    "bayer_gbrg8": (1, cv2.COLOR_BayerGR2BGR), "bayer_grbg8": (1, cv2.COLOR_BayerGB2BGR),
    "uyvy": (2, cv2.COLOR_YUV2BGR_UYVY), "yuv422": (2, cv2.COLOR_YUV2BGR_UYVY),
    "yuyv": (2, cv2.COLOR_YUV2BGR_YUY2), "yuv422_yuy2": (2, cv2.COLOR_YUV2BGR_YUY2),
}  # fmt: skip
"""8-bit encodings: bytes a pixel, and OpenCV's code (-1: BGR already), which names Bayer patterns by the second row."""
WIDE = {"mono16": "mono8", "rgb16": "rgb8", "bgr16": "bgr8", "rgba16": "rgba8", "bgra16": "bgra8"} | {
    f"bayer_{order}16": f"bayer_{order}8" for order in ("rggb", "bggr", "gbrg", "grbg")
}
"""16-bit encodings, of which the upper 8 bits are used."""
PLANES = {"nv12": cv2.COLOR_YUV2BGR_NV12, "nv21": cv2.COLOR_YUV2BGR_NV21}


def decoded(picture: EncodedPicture) -> Image | str:
    """A still picture as BGR (height, width, 3), or why it cannot be decoded."""
    if picture.pixels is not None:
        return from_bytes(picture.data, picture.pixels)
    kind = kind_of(picture.data)
    width, height = size_of(picture.data, kind)
    if width * height > PIXELS_MAX:
        return f"it is {width} × {height} pixels large"
    try:
        image = cv2.imdecode(np.frombuffer(picture.data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        return str(error.err)
    if image is None or (kind == "JPEG" and _breaks_off(picture.data)):
        return "it is damaged"
    return np.asarray(image, np.uint8)


def _breaks_off(jpeg: bytes) -> bool:
    """Whether a JPEG is cut off (OpenCV fills the rest with grey). One with its end marker is not checked further."""
    return not jpeg.rstrip(b"\0").endswith(b"\xff\xd9") and damaged(jpeg)


def from_bytes(data: bytes, pixels: Pixels) -> Image | str:
    """An uncompressed picture as BGR, or why it cannot be read."""
    width, height, step = pixels.width, pixels.height, pixels.step
    name = pixels.encoding.strip().lower()
    narrow = WIDE.get(name, name)
    if narrow not in BYTES and narrow not in PLANES:
        return f"{pixels.encoding!r} is no colour or grey that is known here"
    if not width or not height or width * height > PIXELS_MAX:
        return f"it is {width} × {height} pixels large"
    if narrow in PLANES:
        return planar(data, pixels, PLANES[narrow])
    per_pixel, code = BYTES[narrow]
    row = width * per_pixel * (2 if name in WIDE else 1)
    step = step or row
    if step < row or len(data) < step * (height - 1) + row:
        return f"it has {len(data)} bytes, too few for {width} × {height} pixels of {pixels.encoding}"
    rows = np.lib.stride_tricks.as_strided(np.frombuffer(data, np.uint8), (height, row), (step, 1))
    values: NDArray[Any] = rows
    if name in WIDE:
        values = (np.ascontiguousarray(rows).view(">u2" if pixels.big_endian else "<u2") >> 8).astype(np.uint8)
    return to_bgr(values.reshape(height, width, per_pixel) if per_pixel > 1 else values, code)


def planar(data: bytes, pixels: Pixels, code: int) -> Image | str:
    """NV12 or NV21: a plane of brightness, then one of colour at half the size."""
    width, height = pixels.width & ~1, pixels.height & ~1
    if pixels.step not in (0, width) or len(data) < width * height * 3 // 2:
        return f"it has {len(data)} bytes, too few for {width} × {height} pixels of {pixels.encoding}"
    return to_bgr(np.frombuffer(data, np.uint8)[: width * height * 3 // 2].reshape(height * 3 // 2, width), code)


def to_bgr(values: NDArray[Any], code: int) -> Image | str:
    values = np.ascontiguousarray(values)
    if code < 0:
        return values
    try:
        return np.asarray(cv2.cvtColor(values, code), np.uint8)
    except cv2.error as error:  # such as an odd width where two pixels share a colour
        return str(error.err)
