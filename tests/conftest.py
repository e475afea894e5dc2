"""Shared by the tests: local data, found as the product finds it, and small things made by hand."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path

# Two threads that share a busy core with other work are many times slower than one: here, and in what tests start. Said
# to torch by the environment: not every process of the tests needs it, and to import it takes two seconds.
os.environ["OMP_NUM_THREADS"] = "1"

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from models.data import data_root
from rov.config.schema import Config, load
from rov.resources import find_resource
from rov.types import Image

# Time limits on single examples only measure how busy a shared machine is.
settings.register_profile("rov", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("rov")

cv2.setNumThreads(1)


@pytest.fixture(scope="session")
def rov_data() -> Path:
    """The folder of local data; skips where it is missing."""
    root = data_root()
    if not (root / "PROVENANCE.md").is_file():
        pytest.skip(f"no local data at {root} (set ROV_DATA)")
    return root


@pytest.fixture
def swept() -> Iterator[None]:
    """For tests that measure processor time: what thousands of others have left is not searched for garbage in it."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="session")
def config() -> Config:
    return load(find_resource("rover.toml"))


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A 2 s video, 20 frames of 160×120 at 10 fps: a red disc that crosses blue water."""
    return make_clip(tmp_path / "clip.avi", frames=20)


def make_clip(path: Path, frames: int, size: tuple[int, int] = (160, 120), fps: float = 10.0) -> Path:
    fourcc = cv2.VideoWriter.fourcc(*("MJPG" if path.suffix == ".avi" else "mp4v"))
    writer = cv2.VideoWriter(str(path), fourcc, fps, size)
    for i in range(frames):
        writer.write(disc(size, i / max(frames - 1, 1)))
    writer.release()
    return path


def disc(size: tuple[int, int], along: float) -> Image:
    width, height = size
    image = np.full((height, width, 3), (120, 90, 20), np.uint8)
    cv2.circle(image, (int(width * (0.1 + 0.8 * along)), height // 2), height // 6, (30, 30, 200), -1)
    return image
