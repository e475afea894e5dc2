"""How alike pictures are: the same picture stored twice, and frames of one scene seconds apart."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from rov.types import Image

SIDE = 24
"""Pictures are compared at SIDE × SIDE, where noise and compression are gone and things are still in place."""
LIKE = 0.95
"""Correlation from which two pictures are called nearly the same (see `fingerprint_of`)."""
ROWS = 512
"""Pictures compared with all others at a time: bounds the memory."""


def fingerprint_of(image: Image) -> NDArray[np.float32]:
    """A vector of length 1 whose product with that of another picture is the correlation of their brightness, after
    slow changes over the picture (light, water) are removed: 1 for the same, about 0 for others."""
    grey = cv2.resize(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    grey32 = np.asarray(grey, np.float32)
    detail = grey32 - np.asarray(cv2.GaussianBlur(grey32, (0, 0), SIDE / 6), np.float32)
    flat = (detail - detail.mean()).ravel()
    return np.asarray(flat / max(float(np.linalg.norm(flat)), 1e-6), np.float32)


def alike(fingerprints: NDArray[np.float32], least: float = LIKE) -> Iterator[tuple[int, int, float]]:
    """Every pair (i < j) of pictures that correlate at least so much: (N, SIDE²) -> i, j, correlation."""
    for start in range(0, len(fingerprints), ROWS):
        block = fingerprints[start : start + ROWS] @ fingerprints[start:].T
        for row, column in np.argwhere(block >= least):
            if column > row:
                yield start + int(row), start + int(column), float(block[row, column])


def same_bytes(paths: Sequence[Path]) -> dict[str, list[int]]:
    """sha256 -> the numbers of the files that have it, where there are several."""
    found: dict[str, list[int]] = {}
    for number, path in enumerate(paths):
        found.setdefault(hashlib.sha256(path.read_bytes()).hexdigest(), []).append(number)
    return {digest: numbers for digest, numbers in found.items() if len(numbers) > 1}
