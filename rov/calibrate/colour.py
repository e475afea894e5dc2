"""Measures white balance by depth: from a grey or white patch, or assuming that pictures are grey on average.

The gains make the means of the three channels equal; green, which water absorbs least, stays unchanged. A dive gives a
row per metre of depth, each the median over its pictures, so that one red starfish does not tint it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from rov.errors import UserError
from rov.optics.colour import GAIN_MAX, BalanceFile, BalanceRow
from rov.types import Floats, Image

DARK, BRIGHT = 8, 247
"""Levels outside tell nothing about colour: noise in the dark, and clipped light."""
SHARE_MIN = 0.05
"""Share of the pixels that must be between them."""
FRAMES_MIN = 3
"""Pictures that a depth needs to get a row."""


class Patch(NamedTuple):
    """A rectangle in pixels that shows something grey or white."""

    x: int
    y: int
    width: int
    height: int


def parse_patch(text: str) -> Patch:
    """Parse `x,y,width,height` in pixels. Raises UserError."""
    parts = text.split(",")
    if len(parts) != 4 or not all(part.strip().isdecimal() for part in parts) or min(map(int, parts[2:])) < 1:
        raise UserError(f"--patch {text}: must look like 400,300,60,60: x, y, width and height in pixels")
    return Patch(*map(int, parts))


def measure(image: Image, patch: Patch | None) -> Floats | None:
    """The gains (3,) blue, green, red that make this picture grey; None when it is too dark or too bright. Raises
    UserError when the patch is not inside the picture."""
    if patch is not None:
        image = image[patch.y : patch.y + patch.height, patch.x : patch.x + patch.width]
        if image.shape[:2] != (patch.height, patch.width):
            raise UserError(f"the patch {','.join(map(str, patch))} is not inside the picture")
    pixels = image.reshape(-1, 3)
    good = ((pixels >= DARK) & (pixels <= BRIGHT)).all(axis=1)
    if good.mean() < SHARE_MIN:
        return None
    mean = pixels[good].mean(axis=0)
    return np.asarray((mean[1] / mean).clip(1 / GAIN_MAX, GAIN_MAX))


def rows(measured: Iterable[tuple[float, Floats]]) -> tuple[BalanceRow, ...]:
    """A row per metre from (depth in m, gains); if no depth has enough pictures, one row for all. Raises UserError
    without any measurement."""
    deep: defaultdict[int, list[tuple[float, Floats]]] = defaultdict(list)
    everything = list(measured)
    if not everything:
        raise UserError("no picture is bright enough to measure colour")
    for depth, gains in everything:
        deep[round(depth)].append((depth, gains))
    groups = [group for _, group in sorted(deep.items()) if len(group) >= FRAMES_MIN] or [everything]
    answer = []
    for group in groups:
        blue, green, red = np.median([gains for _, gains in group], axis=0)
        depth = float(np.mean([depth for depth, _ in group]))
        answer.append(BalanceRow(round(depth, 2), round(float(blue), 3), round(float(green), 3), round(float(red), 3)))
    return tuple(answer)


def write(path: Path, source: str, found: tuple[BalanceRow, ...]) -> None:
    """Write the file that `camera.colour` names. Raises UserError."""
    try:
        path.write_bytes(msgspec.toml.encode(BalanceFile(source, found)))
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from None
