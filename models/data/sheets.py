"""Sheets of sample pictures with their boxes, as people look at them: one for each class, one for each split, and pairs
of pictures that are nearly the same."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from models.coco import Labelled
from models.data.report import Report
from rov.media.overlay import FONT, INK, colour_of
from rov.media.pictures import read_image
from rov.types import Image

TILE = (232, 174)
"""Width and height of a picture on a sheet, px."""
COLUMNS = 5
GAP = 4
QUALITY = 80


def classes(report: Report) -> dict[str, Image]:
    """Class -> pictures that show it, spread over the set; its boxes thick."""
    sheets = {}
    for name in report.found.card.classes:
        having = [i for i, each in enumerate(report.pictures) if any(kind == name for _, kind in each.objects)]
        if having:
            sheets[name] = sheet(report, _spread(having, 2 * COLUMNS), name)
    return sheets


def splits(report: Report) -> dict[str, Image]:
    """Split -> pictures spread over it."""
    return {
        split or "in no split": sheet(
            report, _spread([i for i, s in enumerate(report.splits) if s == split], 3 * COLUMNS)
        )
        for split in dict.fromkeys(report.splits)
    }


def leaks(report: Report) -> Image | None:
    """The likest pairs across splits, one above the other; each picture once."""
    used: set[int] = set()
    pairs = []
    for pair in report.leaks:
        if not {pair.first, pair.second} & used:
            used |= {pair.first, pair.second}
            pairs.append(pair)
    shown = pairs[:COLUMNS]
    if not shown:
        return None
    return sheet(report, [pair.first for pair in shown] + [pair.second for pair in shown], columns=len(shown))


def sheet(report: Report, numbers: Sequence[int], name: str = "", columns: int = COLUMNS) -> Image:
    """These pictures of the report, in rows. `name`: the class whose boxes are thick."""
    tiles = [_tile(report, i, name) for i in numbers]
    columns = min(columns, len(tiles))
    while len(tiles) % columns:
        tiles.append(np.full_like(tiles[0], 255))
    rows = [np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)]
    return np.asarray(np.vstack(rows), np.uint8)


def encoded(image: Image) -> bytes:
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()


def _tile(report: Report, number: int, name: str) -> Image:
    each = report.pictures[number]
    image = read_image(report.found.root / each.picture.file_name)
    scale = min(TILE[0] / image.shape[1], TILE[1] / image.shape[0])
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    tile = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    _draw(tile, each, scale, name)
    caption = f"{report.scenes[number]} {report.splits[number]}".strip()
    cv2.putText(
        tile, caption.encode("ascii", "replace").decode(), (4, size[1] - 6), FONT, 0.38, (0, 0, 0), 3, cv2.LINE_AA
    )
    cv2.putText(tile, caption.encode("ascii", "replace").decode(), (4, size[1] - 6), FONT, 0.38, INK, 1, cv2.LINE_AA)
    out = np.full((TILE[1] + GAP, TILE[0] + GAP, 3), 255, np.uint8)
    out[: size[1], : size[0]] = tile
    return out


def _draw(tile: Image, each: Labelled, scale: float, name: str) -> None:
    for box, kind in each.objects:
        x1, y1, x2, y2 = (round(value * scale) for value in box)
        cv2.rectangle(tile, (x1, y1), (x2, y2), colour_of(kind), 2 if kind == name else 1)


def _spread(numbers: list[int], count: int) -> list[int]:
    """At most so many of the numbers, evenly spread."""
    return [numbers[i * len(numbers) // min(count, len(numbers))] for i in range(min(count, len(numbers)))]
