"""Pascal VOC's labels: an .xml for each picture, with or without `<size>` and `<filename>`. A picture without an .xml
shows nothing of the classes."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from pathlib import Path, PureWindowsPath

from models.coco import EVERY, Box, Labelled, Picture
from models.data.boxes import fit
from models.data.errors import DataError, Findings
from models.data.scenes import SceneOf
from models.data.sizes import upright_size
from rov.errors import UserError
from rov.media.files import images_in

SIDES = ("xmin", "ymin", "xmax", "ymax")


def read(root: Path, scene_of: SceneOf, findings: Findings) -> list[Labelled]:
    """The pictures below a folder, in the order of their names. Raises DataError when it holds no pictures or
    labels."""
    paths = images_in(root)
    if not paths:
        raise DataError(f"{root}: holds no pictures")
    labels = _pair(root, paths, findings)
    if not labels:
        raise DataError(f"{root}: no picture has an .xml of its name")
    found = []
    for path in paths:
        name = path.relative_to(root).as_posix()
        try:
            size = upright_size(path)
        except UserError as error:
            findings.wrong.append(str(error))
            continue
        picture = Labelled(Picture(0, name, *size, scene=scene_of(name)), [], set())
        for each in labels.get(path, ()):
            _objects(each, picture, findings)
        found.append(picture)
    return found


def _pair(root: Path, paths: list[Path], findings: Findings) -> dict[Path, list[Path]]:
    """The label files of each picture: of the same name in the nearest folder, else the one that names the picture."""
    by_stem, by_name = defaultdict(list), defaultdict(list)
    for path in paths:
        by_stem[path.stem].append(path)
        by_name[path.name].append(path)
    found = defaultdict(list)
    for file in sorted(path for path in root.rglob("*") if path.suffix.lower() == ".xml" and path.is_file()):
        candidates = by_stem.get(file.stem) or by_name.get(_named(file), [])
        if not candidates:
            findings.note("a label file without a picture was left out", file)
            continue
        found[max(candidates, key=lambda path: _shared(path, file))].append(file)
    return found


def _shared(a: Path, b: Path) -> int:
    """How many folders two paths share, counted from either end."""
    first, second = a.parent.parts, b.parent.parts
    start = sum(x == y for x, y in zip(first, second, strict=False))
    return start + sum(x == y for x, y in zip(reversed(first), reversed(second), strict=False))


def _named(file: Path) -> str:
    """The name of the picture as the file states it."""
    try:
        root = ElementTree.parse(file).getroot()
    except ElementTree.ParseError:
        return ""  # reported where it is read, if a picture has its name
    return PureWindowsPath((root.findtext("filename") or root.findtext("path") or "").strip()).name


def _objects(file: Path, picture: Labelled, findings: Findings) -> None:
    try:
        root = ElementTree.parse(file).getroot()
    except (
        ElementTree.ParseError,
        LookupError,
        ValueError,
        UnicodeError,
    ) as error:  # LookupError: its encoding
        line = f", line {error.position[0]}" if isinstance(error, ElementTree.ParseError) else ""
        findings.wrong.append(f"{file}{line}: no XML: {error}")
        picture.unknown.add(EVERY)
        return
    for number, node in enumerate(root.iter("object"), 1):
        name = (node.findtext("name") or "").strip()
        where = f"{file}, object {number}" + (f" ({name})" if name else "")
        try:
            if not name:
                raise ValueError("has no <name>")
            if box := fit(_box(node), picture.picture.size, where, findings):
                picture.objects.append((box, name))
        except ValueError as error:
            findings.wrong.append(f"{where}: {error}")
            picture.unknown.add(name or EVERY)


def _box(node: ElementTree.Element) -> Box:
    """Raises ValueError that names the key."""
    values = []
    for side in SIDES:
        text = node.findtext(f"bndbox/{side}")
        if text is None:
            raise ValueError(f"bndbox: has no <{side}>")
        try:
            values.append(float(text))
        except ValueError:
            raise ValueError(f"bndbox: <{side}> is {text.strip()!r}, no number") from None
    x1, y1, x2, y2 = values
    return x1, y1, x2, y2
