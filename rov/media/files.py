"""Picture and video files: their suffixes, listing and checking them, and `TimedFrame`, a picture with its time."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rov.errors import UserError

if TYPE_CHECKING:  # numpy would be a third of the start of every command
    from rov.types import Image

VIDEOS = {".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v", ".ts", ".mpg", ".mpeg", ".h264", ".hevc", ".264", ".265"}
IMAGES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"}
PIXELS_MAX = 64_000_000
"""Largest picture. Larger ones are refused before they are decoded: at three bytes a pixel this is 192 MB, and every
stage makes copies. No camera that a rover carries gives more."""


class TimedFrame(NamedTuple):
    """One picture with its capture time: t in ns, image (H, W, 3) BGR; `jpeg` when it arrived compressed."""

    frame_id: int
    t: int
    image: Image
    jpeg: bytes | None = None


def must_be_file(path: Path) -> None:
    """Raises UserError unless this is a file that is not empty."""
    if not path.exists():
        raise UserError(f"{path}: no such file")
    if path.is_dir():
        raise UserError(f"{path}: is a directory; name a file in it")
    if path.stat().st_size == 0:
        raise UserError(f"{path}: the file is empty")


def images_in(folder: Path) -> list[Path]:
    """All images below a folder, in the order of their names."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGES and path.is_file())


def others_in(folder: Path) -> str:
    """A sentence about the files below a folder that `images_in` skips; "" when there are none."""
    kinds: Counter[str] = Counter()
    spelling: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix.lower() not in IMAGES:
            kinds[spelling.setdefault(path.suffix.lower(), path.suffix or "without a suffix")] += 1
    if not kinds:
        return ""
    listed = ", ".join(f"{kind} {number}" for kind, number in kinds.most_common())
    total = sum(kinds.values())
    files = "file of another kind was" if total == 1 else "files of other kinds were"
    return f"{folder}: {total} {files} not looked at: {listed}"


def write_text(path: Path, text: str) -> None:
    """Write a file. Raises UserError."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from None


def shown(path: Path | str) -> str:
    """A file's name as printable text: bytes that are not UTF-8 become replacement characters."""
    return os.fsencode(path).decode("utf-8", "replace")
