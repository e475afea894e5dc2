"""COCO's labels, one .json for all pictures, as CVAT, Label Studio, Roboflow and FiftyOne write them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from models import coco
from models.coco import Box, Labelled
from models.data.boxes import fit
from models.data.errors import Findings
from models.data.finding import PictureFinder
from models.data.scenes import SceneOf
from models.data.sizes import orientation, upright_size
from rov.errors import UserError

ASPECT_TOLERANCE = 0.01
"""Boxes drawn in a smaller copy of a picture are scaled up when its sides differ by no more than this in proportion."""


def read(path: Path, finder: PictureFinder, scene_of: SceneOf, findings: Findings) -> tuple[list[Labelled], list[str]]:
    """The pictures in the order of the file, under their names below the finder's folder, and the classes. Raises
    UserError when it is no COCO file."""
    file = coco.contents(path)
    found: dict[str, Labelled] = {}
    for _ in range(file.empty):
        findings.note("an object without area was left out", path)
    for number, each in enumerate(file.pictures, 1):
        where = f"{path}, image {number} ({each.picture.file_name})"
        try:
            picture = _placed(each, finder, scene_of, where, findings)
        except UserError as error:
            findings.wrong.append(f"{path}, image {number}: {error}")
            continue
        name = picture.picture.file_name
        if name in found:
            findings.wrong.append(f"{where}: another image is the same picture, {found[name].picture.file_name}")
        found[name] = picture
    return list(found.values()), file.classes


def _placed(each: Labelled, finder: PictureFinder, scene_of: SceneOf, where: str, findings: Findings) -> Labelled:
    """A picture whose boxes fit its file. Raises UserError when there is no such picture."""
    path = finder.find(each.picture.file_name)
    size = upright_size(path)
    place = _placing(each.picture.size, size, path, where, findings)
    name = finder.relative(path)
    picture = msgspec.structs.replace(
        each.picture, file_name=name, width=size[0], height=size[1], scene=each.picture.scene or scene_of(name)
    )
    objects = [(fit(place(box), size, f"{where}, {kind}", findings), kind) for box, kind in each.objects]
    return Labelled(picture, [(box, kind) for box, kind in objects if box], each.unknown)


def _placing(
    stated: tuple[int, int], size: tuple[int, int], path: Path, where: str, findings: Findings
) -> Callable[[Box], Box]:
    """From a box in the picture as the file states its size to one in the upright picture."""
    width, height = stated
    if not width or not height or stated == size:
        return lambda box: box
    turned = orientation(path.read_bytes())
    if turned >= 5 and (height, width) == size:
        findings.note("a picture was labelled as its camera stored it; its boxes were turned upright", where)
        return lambda box: turn(box, turned, width, height)
    x, y = size[0] / width, size[1] / height
    if abs(x / y - 1) > ASPECT_TOLERANCE:
        findings.wrong.append(f"{where}: width and height are {width}×{height}, and the picture is {size[0]}×{size[1]}")
    else:
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
