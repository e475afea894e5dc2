"""Finds and opens data sets: by the name of a card in models/datasets, by the name of a folder in runs/sets, or by the
path of a folder with its own card."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from models import coco
from models.coco import Labelled
from models.data import voc, yolo
from models.data.card import FILE, Card, read_card
from models.data.errors import DataError, Findings
from models.data.scenes import finder
from rov.errors import UserError
from rov.resources import checkout

ANNOTATIONS = "annotations.json"
TABLE = "table.csv"


def data_root() -> Path:
    """The folder of local data: $ROV_DATA, else ../shared/data beside the checkout."""
    return Path(os.environ.get("ROV_DATA") or checkout() / ".." / "shared" / "data").resolve()


def cards() -> dict[str, Path]:
    """Name -> card, of the sets in ROV_DATA."""
    return {path.stem: path for path in sorted((checkout() / "models" / "datasets").glob("*.toml"))}


class PictureSet(NamedTuple):
    """A set on disk."""

    card: Card
    card_path: Path
    root: Path
    """The folder that the names of its pictures start from."""

    def pictures(self, findings: Findings | None = None) -> list[Labelled]:
        """All pictures with their labels, in order; classes by the names of the source. `findings` collects what is
        odd; without it what cannot be read raises DataError."""
        found = findings or Findings()
        match self.card.layout:
            case "table":
                raise DataError(f"{self.root}: is a table without pictures")
            case "coco":
                pictures = _coco(self.root)
            case "voc":
                pictures = voc.read(self.root, finder(self.card.scenes, self.root), found)
            case "yolo":
                pictures = yolo.read(
                    self.root, dict(enumerate(self.card.names)), finder(self.card.scenes, self.root), found
                )
        if findings is None:
            found.must_be_right(self.root)
        return pictures

    def split_of(self, labelled: Labelled) -> str:
        """train, val, test, or "": in no split."""
        if labelled.picture.split:
            return labelled.picture.split
        scene = scene_of(self, labelled)
        return next((split for split, scenes in self.card.split.items() if scene in scenes), "")


def scene_of(found: PictureSet, labelled: Labelled) -> str:
    """The scene of a picture; the set's name where it has none."""
    return labelled.picture.scene or found.card.name


def own_folder(name: str | Path) -> Path | None:
    """The folder of a set that has its own card: `runs/sets/NAME`, or NAME itself; else None."""
    for folder in (checkout() / "runs" / "sets" / name, Path(name)):
        if (folder / FILE).is_file():
            return folder
    return None


def card_of(name: str | Path) -> tuple[Card, Path]:
    """The card of a set, complete or not, and its file. Raises DataError where there is none."""
    if folder := own_folder(name):
        return read_card(folder / FILE), folder / FILE
    path = cards().get(str(name))
    if path is not None:
        return read_card(path), path
    if Path(name).is_dir():
        raise DataError(f"{name}: has no card, {FILE}; `python -m models.data import` makes a set of foreign labels")
    raise DataError(f"data set {name!r} has no card in models/datasets or runs/sets; known: {', '.join(cards())}")


def open_set(name: str | Path) -> PictureSet:
    """A set by its name or folder; its card need not be complete. Raises DataError when there is none."""
    card, path = card_of(name)
    root = data_root() / card.path if card.path else path.parent
    if not root.is_dir():
        raise DataError(f"data set {name!r}: {root} is not there; set ROV_DATA to the folder that holds {card.path}")
    return PictureSet(card, path, root)


def _coco(root: Path) -> list[Labelled]:
    try:
        return coco.read(root / ANNOTATIONS)
    except UserError as error:
        raise DataError(str(error)) from None
