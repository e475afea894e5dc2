"""Boxes that were drawn in another form of a picture (as its camera stored it, or in a smaller copy), put into the
upright picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from models.coco import Box
from models.data.errors import DataError, Findings
from models.data.sizes import orientation

ASPECT_TOLERANCE = 0.01
"""Boxes drawn in a smaller copy of a picture are scaled up when its sides differ by no more than this in proportion."""


def placing(
    stated: tuple[int, int], size: tuple[int, int], path: Path, where: str, findings: Findings
) -> Callable[[Box], Box]:
    """From a box in the picture as the labels state its size ((0, 0): they do not) to one in the upright picture of
    `size`. Raises DataError when they cannot be the same picture."""
    width, height = stated
    if not width or not height or stated == size:
        return lambda box: box
    turned = orientation(path.read_bytes())
    if turned >= 5 and (height, width) == size:
        findings.note("a picture was labelled as its camera stored it; its boxes were turned upright", where)
        return lambda box: turn(box, turned, width, height)
    x, y = size[0] / width, size[1] / height
    if abs(x / y - 1) > ASPECT_TOLERANCE:
        raise DataError(f"width and height are {width}×{height}, and the picture has {size[0]}×{size[1]}")
    findings.note("a picture was labelled in another size; its boxes were scaled", where)
    return lambda box: (box[0] * x, box[1] * y, box[2] * x, box[3] * y)


def turn(box: Box, turned: int, width: int, height: int) -> Box:
    """A box in a picture of this EXIF orientation, stored with this width and height -> in the upright picture."""
    points = [_turned(x, y, turned, width, height) for x, y in (box[:2], box[2:])]
    (x1, x2), (y1, y2) = sorted(x for x, _ in points), sorted(y for _, y in points)
    return x1, y1, x2, y2


def _turned(x: float, y: float, turned: int, width: int, height: int) -> tuple[float, float]:
    """EXIF 2.32, section 4.6.4, tag Orientation: where the 0th row and column of the stored picture are."""
    match turned:
        case 2:
            return width - x, y
        case 3:
            return width - x, height - y
        case 4:
            return x, height - y
        case 5:
            return y, x
        case 6:
            return height - y, x
        case 7:
            return height - y, width - x
        case 8:
            return y, width - x
    return x, y
