"""YOLO's labels: a .txt for each picture, a line for each object: class number, then the centre, width and height of
its box, or the corners of its outline, as shares of the picture's width and height.

Reads what Ultralytics, Darknet, Roboflow, CVAT and Label Studio write. A picture without a label file, or with an empty
one, shows nothing of the classes.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from models.coco import EVERY, Box, Labelled, Picture
from models.data.boxes import fit
from models.data.errors import DataError, Findings
from models.data.scenes import SceneOf
from models.data.sizes import upright_size
from models.data.texts import read_text
from rov.errors import UserError
from rov.media.files import images_in

SHARE_MAX = 1.5
"""Larger numbers are pixels, not shares of the picture."""


def read(root: Path, names: dict[int, str], scene_of: SceneOf, findings: Findings) -> list[Labelled]:
    """The pictures below a folder, in the order of their names. `names`: the classes by number; empty: those that the
    folder names. Raises DataError when it holds no pictures or labels, or no names."""
    paths = images_in(root)
    if not paths:
        raise DataError(f"{root}: holds no pictures")
    by_number = names or names_of(root, findings)
    found, used = [], set()
    for path in paths:
        labels = label_file(path, root)
        if labels:
            used.add(labels)
        if picture := _read(path, root, labels, by_number, scene_of, findings):
            found.append(picture)
    if not used:
        raise DataError(f"{root}: no picture has a label file: expected labels/NAME.txt beside images/NAME.jpg")
    for orphan in sorted(_label_files(root) - used):
        findings.note("a label file without a picture was left out", orphan)
    return found


def label_file(picture: Path, root: Path) -> Path | None:
    """The labels of a picture: in the folder `labels` instead of `images`, or beside it."""
    name = picture.stem + ".txt"
    parts = picture.relative_to(root).parts
    places = [
        root.joinpath(*parts[:i], "labels", *parts[i + 1 : -1], name)
        for i in reversed(range(len(parts) - 1))
        if parts[i].lower() in ("images", "image", "jpegimages")
    ]
    if root.name.lower() == "images":
        places.append(root.parent.joinpath("labels", *parts[:-1], name))
    places += [picture.parent / name, picture.parent / "labels" / name, root / "labels" / name]
    return next((place for place in places if place.is_file()), None)


def names_of(root: Path, findings: Findings) -> dict[int, str]:
    """The classes by number, from data.yaml, classes.txt or obj.names. Raises DataError."""
    for path in _yaml_files(root):
        if names := _from_yaml(path, findings):
            return names
    lists = ("classes.txt", "labels.txt")
    for path in sorted(root.rglob("*")):
        if path.suffix != ".names" and path.name.lower() not in lists:
            continue
        lines = [line.strip() for line in read_text(path, findings).splitlines()]
        while lines and not lines[-1]:
            lines.pop()
        return dict(enumerate(lines))
    raise DataError(f"{root}: no data.yaml, classes.txt or obj.names says what the classes are: give --names fish,rock")


def origin(root: Path) -> dict[str, str]:
    """Source and licence, where Roboflow wrote them into data.yaml."""
    for path in _yaml_files(root):
        about = _yaml(path, Findings()).get("roboflow")
        if isinstance(about, dict):
            return {"source": str(about.get("url", "")), "licence": str(about.get("license", ""))}
    return {}


def _yaml_files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.suffix.lower() in (".yaml", ".yml") and path.is_file())


def _yaml(path: Path, findings: Findings) -> dict[str, Any]:
    """The mapping in a file; empty when it is something else. Raises DataError."""
    try:
        content: Any = yaml.safe_load(read_text(path, findings))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise DataError(f"{path}{where}: no YAML: {getattr(error, 'problem', None) or error}") from None
    return content if isinstance(content, dict) else {}


def _from_yaml(path: Path, findings: Findings) -> dict[int, str]:
    names = _yaml(path, findings).get("names")
    if isinstance(names, list):
        return {number: str(name) for number, name in enumerate(names)}
    if isinstance(names, dict) and all(str(number).isdecimal() for number in names):
        return {int(number): str(name) for number, name in names.items()}
    if names is not None:
        raise DataError(f"{path}: names: must be a list of classes, or number: class")
    return {}


def _read(
    path: Path, root: Path, labels: Path | None, names: dict[int, str], scene_of: SceneOf, findings: Findings
) -> Labelled | None:
    name = PurePosixPath(path.relative_to(root)).as_posix()
    try:
        size = upright_size(path)
    except UserError as error:
        findings.wrong.append(str(error))
        return None
    picture = Labelled(Picture(0, name, *size, scene=scene_of(name)), [], set())
    for number, line in enumerate(read_text(labels, findings).splitlines() if labels else (), 1):
        if not line.strip():
            continue
        where = f"{labels}, line {number}"
        try:
            kind, box = _object(line, size)
            if kind not in names:
                known = ", ".join(f"{each} {names[each]}" for each in sorted(names))
                raise ValueError(f"class {kind} has no name; there are {known}")
        except ValueError as error:
            findings.wrong.append(f"{where}: {error}")
            picture.unknown.add(EVERY)
            continue
        if inside := fit(box, size, where, findings):
            picture.objects.append((inside, names[kind]))
    return picture


def _object(line: str, size: tuple[int, int]) -> tuple[int, Box]:
    """The class and box (px) of a line. Raises ValueError."""
    words = line.split()
    try:
        kind, *numbers = (float(word.replace(",", ".")) for word in words)
    except ValueError:
        raise ValueError(f"{_short(line)!r}: must be numbers: class x y width height") from None
    if not kind.is_integer() or kind < 0:
        raise ValueError(f"{words[0]} is no class number")
    if len(numbers) not in (4, 5) and (len(numbers) < 6 or len(numbers) % 2):
        raise ValueError(f"has {len(words)} numbers; a box has 5 (class x y width height), an outline 7, 9, 11 …")
    if not all(-SHARE_MAX <= number <= SHARE_MAX for number in numbers):
        raise ValueError(f"{_short(line)!r}: must be shares of the picture, 0 to 1, and no pixels")
    if len(numbers) < 6:  # the fifth is a score
        x, y, w, h = numbers[:4]
        x1, y1, x2, y2 = x - w / 2, y - h / 2, x + w / 2, y + h / 2
    else:
        xs, ys = numbers[0::2], numbers[1::2]
        x1, y1, x2, y2 = min(xs), min(ys), max(xs), max(ys)
    return int(kind), (x1 * size[0], y1 * size[1], x2 * size[0], y2 * size[1])


def _label_files(root: Path) -> set[Path]:
    """Files that look like labels: their first line is numbers, or they are empty."""
    found = set()
    for path in root.rglob("*.txt"):
        with path.open("rb") as file:
            if path.parent.name.lower() == "labels" or re.match(rb"\s*\d+(\s+[\d.eE+-]+){4,}\s*$", file.readline(4096)):
                found.add(path)
    return found


def _short(line: str) -> str:
    return line if len(line) <= 60 else line[:57] + "…"
