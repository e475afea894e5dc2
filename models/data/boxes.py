"""Boxes as others drew them, put into their picture: cut at its edges, or left out where nothing remains."""

from __future__ import annotations

import math

from models.coco import Box
from models.data.errors import Findings

SIDE_MIN = 1.0
"""px. A box that is not longer each way is none."""


def fit(box: Box, size: tuple[int, int], where: str, findings: Findings) -> Box | None:
    """The part of a box inside a picture of (width, height) pixels; None where there is none. `where` is for notes."""
    if not all(math.isfinite(value) for value in box):
        findings.wrong.append(f"{where}: {box} is no box")
        return None
    width, height = size
    x1, y1, x2, y2 = box
    if x2 - x1 <= SIDE_MIN or y2 - y1 <= SIDE_MIN:
        findings.note("a box without area was left out", where)
        return None
    inside = (max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height)))
    if inside[2] - inside[0] <= SIDE_MIN or inside[3] - inside[1] <= SIDE_MIN:
        findings.note("a box outside its picture was left out", where)
        return None
    if max(abs(a - b) for a, b in zip(inside, box, strict=True)) > 1.0:
        findings.note("a box that reached out of its picture was cut", where)
    return inside
