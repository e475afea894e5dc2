"""A contact sheet: a few pictures of each world with their boxes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from rov.errors import UserError
from sim.dataset import Task, pictures
from sim.world import load

TILE = (320, 240)
COLOURS = ((66, 66, 255), (80, 220, 80), (60, 220, 250), (255, 200, 90), (240, 130, 240), (230, 230, 120))
"""B G R, by class."""
TRIES = 6
"""Pictures tried for one with labels in it."""


def sheet(worlds: list[str], columns: int, seed: int, out: Path, step: Callable[[], None]) -> None:
    """One row of `columns` pictures for each world, as JPEG."""
    rows = []
    for name in worlds:
        world, tiles = load(name), []
        for i in range(columns):
            shown = pictures(Task(world, seed, i, 640, 480, out))[0]
            for again in range(1, TRIES):
                if len(shown.labels) > 1:
                    break
                shown = pictures(Task(world, seed, i + again * columns, 640, 480, out))[0]
            tile = cv2.resize(shown.image, TILE, interpolation=cv2.INTER_AREA)
            for label in shown.labels:
                colour = COLOURS[sum(label.name.encode()) % len(COLOURS)]
                x1, y1, x2, y2 = (round(each / 2) for each in label.box)
                cv2.rectangle(tile, (x1, y1), (x2, y2), colour, 1, cv2.LINE_AA)
                cv2.putText(
                    tile, label.name, (x1, max(8, y1 - 2)), cv2.FONT_HERSHEY_SIMPLEX, 0.3, colour, 1, cv2.LINE_AA
                )
            tiles.append(tile)
            step()
        rows.append(np.hstack(tiles))
    if not cv2.imwrite(str(out), np.vstack(rows), [cv2.IMWRITE_JPEG_QUALITY, 82]):
        raise UserError(f"{out}: cannot be written as a picture; name a .jpg in a folder that exists")
