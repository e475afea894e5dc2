"""Boxes from a table (CSV): a line for each object, with the picture, the class and the box. The columns may be named
as TensorFlow, RetinaNet or Kaggle name them; without a first line of names they are picture, x1, y1, x2, y2,
class. A line without a box says that its picture shows nothing of the classes.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

from models.coco import EVERY, Box, Labelled, Picture
from models.data.boxes import fit
from models.data.errors import DataError, Findings
from models.data.finding import PictureFinder
from models.data.scenes import SceneOf
from models.data.sizes import upright_size
from models.data.texts import read_text
from rov.errors import UserError
from rov.media.files import IMAGES

SYNONYMS = {
    "picture": ("image", "picture", "filename", "file_name", "file", "path", "image_path", "img", "frame",
                "source_image", "image_id", "imageid", "image_name"),
    "class": ("class", "label", "name", "category", "class_name", "label_name", "species", "type"),
    "x1": ("x1", "xmin", "x_min", "left"), "y1": ("y1", "ymin", "y_min", "top"),
    "x2": ("x2", "xmax", "x_max", "right"), "y2": ("y2", "ymax", "y_max", "bottom"),
    "x": ("x", "bbox_x"), "y": ("y", "bbox_y"),
    "w": ("w", "width", "bbox_width", "box_width"), "h": ("h", "height", "bbox_height", "box_height"),
    "scene": ("scene", "clip", "site", "dive"),
}  # fmt: skip
"""Our name of a column, and the names that it has elsewhere, in lower case."""
HEADLESS = {name: i for i, name in enumerate(("picture", "x1", "y1", "x2", "y2", "class"))}
"""RetinaNet's order."""


def table(path: Path, findings: Findings) -> list[list[str]]:
    """The rows of a CSV, with whatever separates its columns. Raises DataError when it is empty or no table."""
    text = read_text(path, findings)
    first = next((line for line in text.splitlines() if line.strip()), "")
    separator = max(",;\t|", key=first.count)
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator))
    except csv.Error as error:
        raise DataError(f"{path}: no table: {error}") from None
    if not first:
        raise DataError(f"{path}: is empty")
    return rows


def columns(row: list[str]) -> dict[str, int]:
    """Where the columns that we know are, by the first line of a table; empty when it names no picture."""
    names = [cell.strip().lower().replace(" ", "_") for cell in row]
    found = {}
    for ours, theirs in SYNONYMS.items():
        for name in theirs:
            if name in names:
                found[ours] = names.index(name)
                break
    return found if "picture" in found else {}


def is_boxes(rows: list[list[str]]) -> bool:
    """Whether a table is one of boxes."""
    at, first = columns(rows[0]).keys(), rows[0]
    boxes = {"class", "x1", "y1", "x2", "y2"} <= at or {"class", "w", "h"} <= at
    return boxes or (not at and len(first) == len(HEADLESS) and Path(first[0]).suffix.lower() in IMAGES)


def read(path: Path, finder: PictureFinder, scene_of: SceneOf, findings: Findings) -> list[Labelled]:
    """The pictures in the order in which the table names them. Raises DataError."""
    rows = table(path, findings)
    at = columns(rows[0])
    numbered = list(enumerate(rows, 1))[1 if at else 0 :]
    at = at or HEADLESS
    found: dict[Path, Labelled] = {}
    for number, row in numbered:
        where = f"{path}, line {number}"
        if not any(cell.strip() for cell in row):
            continue
        picture = None
        try:
            picture = _picture(row, at, finder, scene_of, found)
            if entry := _object(row, at):
                box = fit(entry[0], picture.picture.size, where, findings)
                picture.objects.extend([(box, entry[1])] if box else [])
        except (ValueError, UserError) as error:
            findings.wrong.append(f"{where}: {error}")
            if picture:
                picture.unknown.add(EVERY)
    return list(found.values())


def _cell(row: list[str], at: dict[str, int], key: str) -> str:
    return row[at[key]].strip() if key in at and at[key] < len(row) else ""


def _picture(
    row: list[str], at: dict[str, int], finder: PictureFinder, scene_of: SceneOf, found: dict[Path, Labelled]
) -> Labelled:
    """Raises ValueError, UserError."""
    name = _cell(row, at, "picture")
    if not name:
        raise ValueError("names no picture")
    path = finder.find(name)
    if path not in found:
        relative = finder.relative(path)
        scene = _cell(row, at, "scene") or scene_of(relative)
        found[path] = Labelled(Picture(0, relative, *upright_size(path), scene=scene), [], set())
    return found[path]


def _object(row: list[str], at: dict[str, int]) -> tuple[Box, str] | None:
    """The box and class of a row; None where it has neither. Raises ValueError that names the column."""
    corners = "x2" in at or "w" not in at
    keys = ("x1", "y1", "x2", "y2") if corners else ("x" if "x" in at else "x1", "y" if "y" in at else "y1", "w", "h")
    cells, name = [_cell(row, at, key) for key in keys], _cell(row, at, "class")
    if not any(cells):
        return None
    if not name:
        raise ValueError("has a box, and no class")
    numbers = []
    for key, cell in zip(keys, cells, strict=True):
        try:
            numbers.append(float(cell.replace(",", ".")))
        except ValueError:
            raise ValueError(f"column {key}: {cell!r} is no number") from None
    x1, y1, x2, y2 = numbers if corners else (*numbers[:2], numbers[0] + numbers[2], numbers[1] + numbers[3])
    return (x1, y1, x2, y2), name
