"""The size of a picture without decoding it, as `read_image` shows it: turned upright by its EXIF orientation."""

from __future__ import annotations

import struct
from pathlib import Path

from rov.errors import UserError
from rov.media.files import must_be_file
from rov.media.headers import kind_of, size_of

ORIENTATION = 0x0112
"""The EXIF tag of how the camera was held, 1 to 8; from 5 on width and height change places."""


def orientation(data: bytes) -> int:
    """The EXIF orientation of a JPEG's bytes; 1 (upright) where there is none."""
    at = data.find(b"Exif\0\0", 0, 65536)
    if at < 0 or not data.startswith(b"\xff\xd8"):
        return 1
    tiff = data[at + 6 :]
    order = "<" if tiff[:2] == b"II" else ">"
    try:
        (first,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, first)
        for entry in range(min(count, 1000)):
            tag, _, _, value = struct.unpack_from(order + "HHIH", tiff, first + 2 + 12 * entry)
            if tag == ORIENTATION:
                return value if 1 <= value <= 8 else 1
    except struct.error:
        pass  # a damaged header says nothing; the decoder reports a damaged picture
    return 1


def upright_size(path: Path) -> tuple[int, int]:
    """Width and height in pixels. Raises UserError for a file that is no picture."""
    must_be_file(path)
    data = path.read_bytes()
    width, height = size_of(data, kind_of(data))
    if not width or not height:
        raise UserError(f"{path}: cannot be read as an image")
    return (height, width) if orientation(data) >= 5 else (width, height)
