"""White balance by depth: each channel's gain before the network sees the picture, as `rov calibrate colour` wrote it.

Water absorbs red first, and more of it with every metre: the file has one row per depth, and gains are interpolated
between rows. A picture of unknown depth gets the shallowest row: it changes least.
"""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import msgspec
import numpy as np

from rov import toml
from rov.errors import UserError
from rov.types import Image

GAIN_MAX = 4.0
"""A channel that would need more holds only noise."""
DEPTH_STEP_M = 0.1
"""The balance changes in steps of this depth; smaller steps hardly change a picture's 256 levels."""


class BalanceRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The channels' gains at one depth."""

    depth_m: float
    blue: float
    green: float
    red: float


class BalanceFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A colour calibration."""

    source: str
    balance: tuple[BalanceRow, ...]


class WhiteBalance:
    """Applies a colour calibration."""

    def __init__(self, rows: tuple[BalanceRow, ...]):
        self.depths = np.array([row.depth_m for row in rows])
        self.gains = np.array([[row.blue, row.green, row.red] for row in rows])
        self._table: tuple[float, Image] | None = None

    def gain(self, depth: float | None) -> list[float]:
        """Gains of blue, green, red at a depth in m; None: unknown."""
        at = self.depths[0] if depth is None else depth
        return [float(np.interp(at, self.depths, self.gains[:, channel])) for channel in range(3)]

    def apply(self, image: Image, depth: float | None) -> Image:
        """The balanced picture; (H, W, 3) BGR in and out."""
        step = round((self.depths[0] if depth is None else depth) / DEPTH_STEP_M) * DEPTH_STEP_M
        if self._table is None or self._table[0] != step:
            levels = np.arange(256)[:, None] * np.array(self.gain(step))
            self._table = step, np.asarray(levels.round().clip(0, 255).reshape(1, 256, 3), np.uint8)
        return np.asarray(cv2.LUT(image, self._table[1]), np.uint8)


def load(path: Path) -> WhiteBalance:
    """Read a colour calibration. Raises UserError with what is wrong."""
    try:
        file = toml.load(path, BalanceFile)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    rows = file.balance
    if (
        not rows
        or not all(math.isfinite(row.depth_m) for row in rows)
        or any(b.depth_m <= a.depth_m for a, b in zip(rows, rows[1:], strict=False))
    ):
        raise UserError(f"{path}: needs one [[balance]] per depth_m, from the shallowest down")
    for row in rows:
        if not all(1 / GAIN_MAX <= gain <= GAIN_MAX for gain in (row.blue, row.green, row.red)):
            raise UserError(f"{path}: at {row.depth_m:g} m: gains must be {1 / GAIN_MAX:g} to {GAIN_MAX:g}")
    return WhiteBalance(rows)
