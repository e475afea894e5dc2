"""A picture's file type and size from its first bytes, before anything is decoded."""

from __future__ import annotations

import struct
from collections.abc import Iterator

SIGNATURES = (
    (b"\xff\xd8\xff", "JPEG"), (b"\x89PNG\r\n\x1a\n", "PNG"), (b"BM", "BMP"), (b"GIF8", "GIF"),
    (b"II*\0", "TIFF"), (b"MM\0*", "TIFF"), (b"II+\0", "TIFF"), (b"MM\0+", "TIFF"),
    (b"\0\0\0\x0cjP  ", "JP2"), (b"\xff\x4f\xff\x51", "JP2"), (b"\x1a\x45\xdf\xa3", "film"),
)  # fmt: skip
"""Signatures at the start of a file, and the type each stands for."""
BRANDS = {b"heic": "HEIC", b"heix": "HEIC", b"hevc": "HEIC", b"heim": "HEIC", b"mif1": "HEIC", b"msf1": "HEIC",
          b"avif": "AVIF", b"avis": "AVIF"}  # fmt: skip
"""Brands of picture files in an MP4 container."""
JPEG_FRAMES = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
"""Markers of a JPEG's frame header."""
NO_LENGTH = {0x01, *range(0xD0, 0xD9)}
"""Markers of a JPEG that have no length field."""


def kind_of(data: bytes) -> str:
    """JPEG, PNG, BMP, GIF, TIFF, WebP, JP2, HEIC, AVIF, film; "" for others."""
    for start, kind in SIGNATURES:
        if data.startswith(start):
            return kind
    if data[:4] == b"RIFF":
        return {b"WEBP": "WebP", b"AVI ": "film"}.get(data[8:12], "")
    if data[4:8] == b"ftyp":
        return BRANDS.get(data[8:12], "film")
    return ""


def size_of(data: bytes, kind: str) -> tuple[int, int]:
    """Width and height; (0, 0) where the header does not say."""
    try:
        match kind:
            case "PNG":
                return _two(">II", data, 16)
            case "JPEG":
                return _jpeg(data)
            case "BMP":
                width, height = _two("<ii", data, 18)
                return abs(width), abs(height)
            case "GIF":
                return _two("<HH", data, 6)
            case "WebP":
                return _webp(data)
            case "TIFF":
                return _tiff(data)
            case "JP2":
                return _jp2(data)
            case "HEIC" | "AVIF":
                return max(_spatial_extents(data), default=(0, 0))
    except (struct.error, IndexError):
        pass  # truncated within its header: the decoder will report it
    return 0, 0


def _two(layout: str, data: bytes, at: int) -> tuple[int, int]:
    first, second = struct.unpack_from(layout, data, at)
    return first, second


def _jpeg(data: bytes) -> tuple[int, int]:
    at = 2
    while data[at] == 0xFF:
        marker = data[at + 1]
        if marker in JPEG_FRAMES:
            height, width = _two(">HH", data, at + 5)
            return width, height
        at += 1 if marker == 0xFF else 2 if marker in NO_LENGTH else 2 + struct.unpack_from(">H", data, at + 2)[0]
    return 0, 0


def _webp(data: bytes) -> tuple[int, int]:
    match data[12:16]:
        case b"VP8X":
            return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
        case b"VP8L":
            (bits,) = struct.unpack_from("<I", data, 21)
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8 ":
            width, height = _two("<HH", data, 26)
            return width & 0x3FFF, height & 0x3FFF
    return 0, 0


def _tiff(data: bytes) -> tuple[int, int]:
    """Size of the first page."""
    order, big = ("<" if data[:2] == b"II" else ">"), data[2:4] in (b"+\0", b"\0+")
    (at,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    (number,) = struct.unpack_from(order + ("Q" if big else "H"), data, at)
    size = {256: 0, 257: 0}
    for entry in range(min(number, 1000)):
        where = at + (8 + 20 * entry if big else 2 + 12 * entry)
        tag, kind = _two(order + "HH", data, where)
        if tag in size:
            layout = {3: "H", 4: "I", 16: "Q"}.get(kind, "I")
            (size[tag],) = struct.unpack_from(order + layout, data, where + (12 if big else 8))
    return size[256], size[257]


def _jp2(data: bytes) -> tuple[int, int]:
    box = data.find(b"ihdr", 0, 4096)
    if box >= 0:
        height, width = _two(">II", data, box + 4)
        return width, height
    return _two(">II", data, data.index(b"\xff\x51") + 6) if b"\xff\x51" in data[:64] else (0, 0)


def _spatial_extents(data: bytes) -> Iterator[tuple[int, int]]:
    """Sizes of all pictures in it, thumbnails too."""
    at = -1
    while (at := data.find(b"ispe", at + 1, 65536)) >= 0:
        yield _two(">II", data, at + 8)
