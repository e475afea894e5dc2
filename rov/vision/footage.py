"""Pictures from files: videos with the time of each frame, single images, folders of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from rov.errors import UserError

VIDEOS = {".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v", ".ts", ".mpg", ".mpeg", ".h264", ".hevc", ".264", ".265"}
IMAGES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"}

Image = NDArray[np.uint8]
"""(H, W, 3) BGR."""


class Shot(NamedTuple):
    """One picture with its capture time: t in ns, image (H, W, 3) BGR; `jpeg` where it already came compressed."""

    frame_id: int
    t: int
    image: Image
    jpeg: bytes | None = None


class Video:
    """A video file. Opened means: its first frame was decoded."""

    def __init__(self, path: Path):
        """Raises UserError when it is no video, or none that can be decoded."""
        must_be_file(path)
        self.path = path
        self.capture = cv2.VideoCapture(str(path))
        opened, first = self.capture.read() if self.capture.isOpened() else (False, None)
        if not opened or first is None:
            raise UserError(
                f"{path}: cannot be read as a video: not one, cut off before its index, or of unknown codec"
            )
        self.first: Image = np.asarray(first, np.uint8)
        self.height, self.width = self.first.shape[:2]
        fps = self.capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if 0.1 < fps < 1000 else 25.0
        self.declared = max(0, int(self.capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        """Frames that the file's header promises; 0 where it does not say."""

    def shots(self) -> Iterator[Shot]:
        """Every frame that can be decoded. Times are the file's own while they advance, else counted from its rate."""
        image: Image | None = self.first
        t, frame_id = -1, 0
        while image is not None:
            stamp = int(self.capture.get(cv2.CAP_PROP_POS_MSEC) * 1e6)
            t = stamp if stamp > t else t + int(1e9 / self.fps)
            yield Shot(frame_id, t, image)
            ok, following = self.capture.read()
            image = np.asarray(following, np.uint8) if ok else None
            frame_id += 1
        self.capture.release()


def must_be_file(path: Path) -> None:
    """Raises UserError unless this is a file with something in it."""
    if not path.exists():
        raise UserError(f"{path}: no such file")
    if path.is_dir():
        raise UserError(f"{path}: is a directory; name a file in it")
    if path.stat().st_size == 0:
        raise UserError(f"{path}: the file is empty")


def read_image(path: Path) -> Image:
    """Decode one image. Raises UserError."""
    must_be_file(path)
    try:
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    except cv2.error as error:  # refuses pictures beyond its pixel limit
        raise UserError(f"{path}: cannot be decoded: {error.err}") from None
    if image is None:
        raise UserError(f"{path}: cannot be read as an image")
    return np.asarray(image, np.uint8)


def images_in(folder: Path) -> list[Path]:
    """All images below a folder, in the order of their names."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGES and path.is_file())
