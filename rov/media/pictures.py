"""Reads single picture files: checks them before they are decoded, and refuses those that would mislead."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from rov.errors import UserError
from rov.media.files import IMAGES, PIXELS_MAX, must_be_file
from rov.media.headers import kind_of, size_of
from rov.media.jpeg import damaged
from rov.types import Image

BYTES_MAX = 512_000_000
"""A larger file is not taken for a picture."""
UNREADABLE = {
    "HEIC": ("HEIC", "convert it to JPEG (on an iPhone: Settings, Camera, Formats, Most Compatible)"),
    "AVIF": ("AVIF", "convert it to JPEG"),
    "film": ("a film", "name it as one, *.mp4"),
}
"""Types that OpenCV cannot decode, or not in every build; and what to do."""


def read_image(path: Path, *, stored: bool = False) -> Image:
    """Decode a picture file to (H, W, 3) BGR, 8 bits a channel, rotated by its EXIF; of several pictures the first.
    `stored`: ignore the EXIF rotation. Raises UserError for a file that is no picture, too large, or so damaged that
    part of it would be grey."""
    must_be_file(path)
    if path.stat().st_size > BYTES_MAX:
        raise UserError(f"{path}: is too large for a picture: {path.stat().st_size / 1e6:.0f} MB")
    return decode_image(path.read_bytes(), str(path), stored=stored)


def write_image(path: Path, image: Image, quality: int = 95) -> None:
    """Write a JPEG. Raises UserError when it cannot be written: OpenCV's own writer only returns False."""
    data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
    try:
        path.write_bytes(data)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from None


def decode_image(data: bytes, name: str, *, stored: bool = False) -> Image:
    """As `read_image`, from memory; `name` is for error messages."""
    kind = kind_of(data)
    width, height = size_of(data, kind)
    if width * height > PIXELS_MAX:
        raise UserError(
            f"{name}: is too large: {width}×{height} are {width * height / 1e6:.0f} megapixels,"
            f" {PIXELS_MAX / 1e6:.0f} are the most"
        )
    if kind == "JPEG" and damaged(data):
        raise UserError(f"{name}: cannot be read as an image: it is damaged or truncated, part of it would be grey")
    try:
        flags = cv2.IMREAD_COLOR | stored * cv2.IMREAD_IGNORE_ORIENTATION
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        if image is None and kind == "JPEG":  # complete except for the end marker
            image = cv2.imdecode(np.frombuffer(data + b"\xff\xd9", np.uint8), flags)
    except cv2.error as error:
        raise UserError(f"{name}: cannot be read as an image: {error.err}") from None
    if image is None:
        raise UserError(f"{name}: cannot be read as an image{_why(kind, name)}")
    return np.asarray(image, np.uint8)


def _why(kind: str, name: str) -> str:
    """Why OpenCV does not decode a file of this kind, as the rest of the error message."""
    if not kind:
        return ""
    if kind not in UNREADABLE:
        return f": its {kind} is damaged, truncated, or of a rare variant"
    suffix = Path(name).suffix
    disguise = f" under the name of a {suffix}" if suffix.lower() in IMAGES - {".tif", ".tiff"} else ""
    return f": it is {UNREADABLE[kind][0]}{disguise}; {UNREADABLE[kind][1]}"
