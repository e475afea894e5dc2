"""COCO's labels, one .json for all pictures, as CVAT, Label Studio, Roboflow and FiftyOne write them."""

from __future__ import annotations

from pathlib import Path

import msgspec

from models import coco
from models.coco import Labelled
from models.data.boxes import fit
from models.data.errors import DataError, Findings
from models.data.finding import PictureFinder
from models.data.placing import placing
from models.data.scenes import SceneOf
from models.data.sizes import upright_size
from rov.errors import UserError


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
    try:
        place = placing(each.picture.size, size, path, where, findings)
    except DataError as error:
        raise DataError(f"{each.picture.file_name}: {error}") from None
    name = finder.relative(path)
    picture = msgspec.structs.replace(
        each.picture, file_name=name, width=size[0], height=size[1], scene=each.picture.scene or scene_of(name)
    )
    objects = [(fit(place(box), size, f"{where}, {kind}", findings), kind) for box, kind in each.objects]
    return Labelled(picture, [(box, kind) for box, kind in objects if box], each.unknown)
