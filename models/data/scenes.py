"""The scene of a picture: the site, dive or clip that it shows. Sets are split by scenes, because frames of one scene
are nearly the same picture.

How a scene is found, where the labels do not name it:
`one`: all pictures are of one scene. `folder`: the folder of a picture, without `images` and the like. `prefix`: its
name up to the first `_`. `FILE.csv`: a table with the columns image and scene. `re:EXPRESSION`: what the first group of
a regular expression finds in its path.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from models.data.errors import DataError, Findings
from models.data.texts import read_text

PICTURE_FOLDERS = {"images", "image", "imgs", "img", "jpegimages", "obj_train_data", "obj_valid_data", "data", "frames"}
"""Folders, in lower case, that only say that pictures are in them."""

SceneOf = Callable[[str], str]
"""From the path of a picture, relative to its set, to its scene; "" where there is none."""


def folder(name: str) -> str:
    """The folders of a picture that say something: `train/images/a.jpg` -> `train`."""
    parents = PurePosixPath(name).parts[:-1]
    return "/".join(part for part in parents if part.lower() not in PICTURE_FOLDERS and part not in ("/", ".."))


def finder(how: str, root: Path) -> SceneOf:
    """The function for one of the ways above. Raises DataError."""
    if how in ("", "one"):
        return lambda name: ""
    if how == "folder":
        return folder
    if how == "prefix":
        return lambda name: PurePosixPath(name).stem.split("_")[0]
    if how.startswith("re:"):
        return _by_expression(how[3:])
    if how.lower().endswith(".csv"):
        return _by_table(Path(how) if Path(how).is_file() else root / how)
    raise DataError(f"scenes {how!r}: must be one, folder, prefix, FILE.csv or re:EXPRESSION")


def _by_expression(text: str) -> SceneOf:
    try:
        expression = re.compile(text)
    except re.error as error:
        raise DataError(f"scenes re:{text}: no regular expression: {error}") from None
    if expression.groups < 1:
        raise DataError(f"scenes re:{text}: needs a group in brackets, whose text is the scene: re:(.*)_[0-9]+")

    def find(name: str) -> str:
        found = expression.search(name)
        return (found[1] or "") if found else ""

    return find


def _by_table(path: Path) -> SceneOf:
    rows = list(csv.DictReader(io.StringIO(read_text(path, Findings()))))
    if not rows or not {"image", "scene"} <= rows[0].keys():
        raise DataError(f"{path}: needs the columns image and scene in its first line")
    scenes = {row["image"]: row["scene"] for row in rows}
    return lambda name: scenes.get(name) or scenes.get(PurePosixPath(name).name, "")
