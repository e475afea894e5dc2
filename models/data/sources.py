"""Where foreign labels are and how they are stored: found out, read, and completed by what is known of the pictures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple, cast

import msgspec

from models import coco
from models.coco import Labelled
from models.data import boxes_table, coco_files, voc, yolo
from models.data.card import FILE, Card, read_card
from models.data.errors import DataError, Findings
from models.data.finding import PictureFinder
from models.data.scenes import finder, folder
from models.data.sets import ANNOTATIONS
from rov.media.files import IMAGES, VIDEOS

Format = Literal["coco", "yolo", "voc", "csv", "table", "film"]


class Source(NamedTuple):
    """Foreign labels, and how to read them."""

    path: Path
    """A folder, a .json or a .csv."""
    format: Format
    images: Path | None = None
    """The folder of the pictures, where it is another."""
    names: Sequence[str] = ()
    """Classes by number, for YOLO."""
    scenes: str = ""
    """See models/data/scenes.py; empty: as the labels say, else by folders."""

    @property
    def pictures(self) -> Path:
        return self.images or (self.path if self.path.is_dir() else self.path.parent)


def identify(path: Path) -> tuple[Format, Path]:
    """How the labels at a path are stored, and the file or folder that holds them. Raises DataError where that cannot
    be told."""
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    suffix = path.suffix.lower()
    if path.is_dir():
        return _in_folder(path)
    if suffix == ".json":
        return "coco", path
    if suffix in (".csv", ".tsv"):
        return "csv" if boxes_table.is_boxes(boxes_table.table(path, Findings())) else "table", path
    if suffix in VIDEOS or suffix == ".mcap":
        return "film", path
    if suffix in (".zip", ".gz", ".tar", ".7z"):
        raise DataError(f"{path}: is packed; unpack it and name the folder")
    raise DataError(f"{path}: neither COCO (.json), a table (.csv), a dive (.mcap), a film, nor a folder")


def _in_folder(path: Path) -> tuple[Format, Path]:
    files = sorted(each for each in path.rglob("*") if each.is_file())
    of: defaultdict[str, list[Path]] = defaultdict(list)
    for each in files:
        of[each.suffix.lower()].append(each)
    pictures = {each.stem for suffix in IMAGES for each in of[suffix]}
    if not pictures:
        raise DataError(f"{path}: holds no pictures")
    if of[".xml"]:
        return "voc", path
    if any(each.stem in pictures for each in of[".txt"]):
        return "yolo", path
    for suffix, format_ in ((".json", "coco"), (".csv", "csv")):
        if len(of[suffix]) == 1:
            return cast(Format, format_), of[suffix][0]
        if of[suffix]:
            listed = ", ".join(str(each.relative_to(path)) for each in of[suffix][:5])
            raise DataError(f"{path}: name the one file to import: {listed}; merge the sets afterwards")
    raise DataError(f"{path}: no labels in it that are known: COCO .json, YOLO .txt, VOC .xml or a .csv")


def read(source: Source, findings: Findings) -> tuple[list[Labelled], list[str]]:
    """The labelled pictures, named by their path below `source.pictures`, and the classes. Raises DataError."""
    scene = finder(source.scenes, source.pictures) if source.scenes else folder
    named: list[str] = []
    match source.format:
        case "yolo":
            names = dict(enumerate(source.names)) or yolo.names_of(source.path, findings)
            pictures = yolo.read(source.path, names, scene, findings)
            named = list(names.values())
        case "voc":
            pictures = voc.read(source.path, scene, findings)
        case "coco":
            pictures, named = coco_files.read(source.path, PictureFinder(source.pictures), scene, findings)
        case "csv":
            pictures = boxes_table.read(source.path, PictureFinder(source.pictures), scene, findings)
        case _:
            raise DataError(f"{source.path}: has no labels of pictures")
    found = sorted({name for each in pictures for _, name in each.objects} - set(named))
    return pictures, named + found


def inherited(card: Card, source: Source) -> Card:
    """What the card does not say and that of the pictures does: frames of a dive that were labelled since."""
    origins = origins_of(source)
    if len(origins) != 1:
        return card
    before = read_card(origins[0] / FILE)
    texts = (
        "about",
        "creator",
        "source",
        "version",
        "licence",
        "collected",
        "intent",
        "bias",
        "people",
        "use",
        "misuse",
    )
    steps = [*(before.transformations or []), *(card.transformations or [])]
    filled = {key: getattr(card, key) or getattr(before, key) for key in texts}
    return msgspec.structs.replace(card, transformations=steps or None, **filled)


def origins_of(source: Source) -> list[Path]:
    """The folders of the sets that the pictures lie in."""
    if source.format not in ("coco", "csv", "voc", "yolo"):
        return []
    above = [each for each in (source.pictures.parent,) if (each / FILE).is_file()]
    return above or sorted(path.parent for path in source.pictures.rglob(FILE))


def remembered(pictures: list[Labelled], source: Source) -> list[Labelled]:
    """Pictures that lie in a set, such as frames of a dive, with their scene and time there."""
    known = {
        (origin / each.picture.file_name).resolve(): each.picture
        for origin in origins_of(source)
        if read_card(origin / FILE).layout == "coco"
        for each in coco.read(origin / ANNOTATIONS)
    }
    found = []
    for each in pictures:
        before = known.get((source.pictures / each.picture.file_name).resolve())
        if before and not source.scenes and before.scene:
            each = each._replace(picture=msgspec.structs.replace(each.picture, scene=before.scene, t=before.t))
        found.append(each)
    return found


def stated(card: Card, source: Source) -> Card:
    """What the card does not say and the labels do: COCO's info and licences, Roboflow's part of data.yaml."""
    said: dict[str, str] = {}
    if source.format == "coco":
        file = coco.contents(source.path)
        said = {"about": file.info.description or "", "creator": file.info.contributor or "",
                "source": file.info.url or "", "licence": ", ".join(file.licences)}  # fmt: skip
    elif source.format == "yolo":
        said = yolo.origin(source.path)
    return msgspec.structs.replace(card, **{key: text for key, text in said.items() if text and not getattr(card, key)})
