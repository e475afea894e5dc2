"""Labelled pictures for training. Every set has a card (`models/datasets/*.toml`): its origin, its bias, the classes
that it labels. Training refuses a set without a card.
"""

from __future__ import annotations

import csv
import hashlib
import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from models import coco
from rov import toml
from rov.errors import UserError
from rov.media.pictures import read_image
from rov.resources import checkout

CLASSES = (
    "buoy_red", "buoy_green", "buoy_yellow", "gate_post", "channel", "bottle", "bag", "metal", "rock",
    "fish", "jellyfish", "shark", "stingray", "starfish", "diver", "pipeline",
)  # fmt: skip
"""Classes of the shipped detector, in the order of its heat maps."""

Split = Literal["train", "val", "test"]

RENDERED_VAL = 8
"""Every n-th picture of a rendered set is for validation."""


class DataError(UserError):
    """A data set is missing, has no card, or contradicts its card."""


class Absent(msgspec.Struct, forbid_unknown_fields=True):
    classes: list[str]
    why: str


class Card(msgspec.Struct, forbid_unknown_fields=True):
    """A data card; the fields are explained in the files, `models/datasets/*.toml`."""

    name: str
    path: str
    layout: Literal["voc", "yolo"]
    groups: Literal["scenes", "prefix", "folder"]
    source: str
    commit: str
    licence: str
    about: str
    bias: str
    classes: dict[str, str]
    absent: Absent
    unknown: dict[str, list[str]]
    split: dict[Split, list[str]]
    names: list[str] = []

    def known(self, group: str, classes: Sequence[str] = CLASSES) -> NDArray[np.bool_]:
        """(classes,) True where pictures of this group are labelled for the class; else a missing box means nothing."""
        known = (set(self.classes) | set(self.absent.classes)) - set(self.unknown.get(group, []))
        return np.array([name in known for name in classes])


@dataclass(frozen=True)
class Sample:
    """One labelled picture."""

    path: Path
    set_name: str
    group: str
    boxes: NDArray[np.float32]
    """(N, 4) x1 y1 x2 y2 in pixels."""
    kinds: NDArray[np.int64]
    """(N,) indices into CLASSES."""
    known: NDArray[np.bool_]


def data_root() -> Path:
    """The folder of local data: $ROV_DATA, else ../shared/data beside the checkout."""
    return Path(os.environ.get("ROV_DATA") or checkout() / ".." / "shared" / "data").resolve()


def cards() -> dict[str, Path]:
    return {path.stem: path for path in sorted((checkout() / "models" / "datasets").glob("*.toml"))}


def load_card(name: str) -> Card:
    """The card of a set. Raises DataError where there is none."""
    path = cards().get(name)
    if path is None:
        known = ", ".join(cards())
        raise DataError(f"data set {name!r} has no card in models/datasets or runs/sets; known: {known}")
    try:
        return toml.load(path, Card)
    except (OSError, toml.TomlError) as error:
        raise DataError(str(error)) from None


def rendered(name: str | Path) -> Path | None:
    """The folder of a set with its own card: `runs/sets/NAME`, or NAME itself where it is a folder; else None."""
    for folder in (checkout() / "runs" / "sets" / name, Path(name)):
        if (folder / "dataset.toml").is_file():
            return folder
    return None


def labelled(name: str | Path) -> tuple[str, ...]:
    """The classes that a set labels."""
    if folder := rendered(name):
        return tuple(toml.parse(toml.read_text(folder / "dataset.toml"))["classes"])
    return tuple(load_card(str(name)).classes)


def load(name: str | Path, split: Split, classes: Sequence[str] = CLASSES) -> list[Sample]:
    """All pictures of one split of a set, in the order of their names; labels of other classes are left out."""
    if folder := rendered(name):
        return _coco(folder, split, classes)
    name = str(name)
    card, root = load_card(name), data_root() / load_card(name).path
    if not root.is_dir():
        raise DataError(f"data set {name!r}: {root} is not there; set ROV_DATA to the folder that holds {card.path}")
    wanted = set(card.split[split])
    read = _voc if card.layout == "voc" else _yolo
    return [sample for sample in read(card, root, classes) if sample.group in wanted]


def card_entry(name: str | Path) -> dict[str, Any]:
    """The entry of a set in a model's card: its split; for a rendered set, how to make it again."""
    if folder := rendered(name):
        card = toml.parse(toml.read_text(folder / "dataset.toml"))
        return {"train": [f"{RENDERED_VAL - 1} of {RENDERED_VAL} pictures"]} | {
            key: card[key] for key in ("source", "version", "seed", "worlds") if key in card
        }
    return {"train": load_card(str(name)).split["train"]}


def fingerprint(samples: list[Sample]) -> str:
    """sha256 over names, picture bytes and labels: identifies exactly the training data."""
    digest = hashlib.sha256()
    for sample in samples:
        digest.update(sample.path.name.encode())
        digest.update(sample.path.read_bytes())
        digest.update(sample.boxes.tobytes() + sample.kinds.tobytes() + sample.known.tobytes())
    return digest.hexdigest()


def _sample(
    card: Card, path: Path, group: str, labels: list[tuple[str, float, float, float, float]], classes: Sequence[str]
) -> Sample:
    kinds = {foreign: classes.index(name) for name, foreign in card.classes.items() if name in classes}
    kept = [
        (kinds[name], box) for name, *box in labels if name in kinds and box[2] - box[0] > 1 and box[3] - box[1] > 1
    ]
    return Sample(
        path,
        card.name,
        group,
        np.array([box for _, box in kept], np.float32).reshape(-1, 4),
        np.array([kind for kind, _ in kept], np.int64),
        card.known(group, classes),
    )


def _voc(card: Card, root: Path, classes: Sequence[str]) -> Iterator[Sample]:
    with (root / "SCENES.csv").open(newline="") as file:
        scenes = {row["image"]: row["scene"] for row in csv.DictReader(file)}
    for name, scene in sorted(scenes.items()):
        annotation = root / "Annotations" / f"{Path(name).stem}.xml"
        labels = []
        for node in ElementTree.parse(annotation).getroot().iter("object") if annotation.exists() else ():
            x1, y1, x2, y2 = (float(node.findtext(f"bndbox/{key}", "nan")) for key in ("xmin", "ymin", "xmax", "ymax"))
            labels.append((node.findtext("name", ""), max(x1, 0.0), max(y1, 0.0), x2, y2))
        yield _sample(card, root / "Images" / name, scene, labels, classes)


def _yolo(card: Card, root: Path, classes: Sequence[str]) -> Iterator[Sample]:
    for path in sorted(root.rglob("*.jpg")):
        group = path.stem.split("_")[0] if card.groups == "prefix" else path.parent.parent.name
        height, width = read_image(path).shape[:2]
        labels = []
        annotation = path.parent.parent / "labels" / f"{path.stem}.txt"
        for line in annotation.read_text().splitlines() if annotation.exists() else ():
            kind, cx, cy, w, h = (float(word) for word in line.split()[:5])
            box = ((cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height)
            labels.append((card.names[int(kind)], *box))
        yield _sample(card, path, group, labels, classes)


def _coco(folder: Path, split: Split, classes: Sequence[str]) -> list[Sample]:
    """A rendered set, or another COCO set with such a card. Every picture shows its own world, so that pictures can be
    split one by one; it is labelled for all classes of the card, except those shown in crowds."""
    try:
        card = toml.parse(toml.read_text(folder / "dataset.toml"))
        labelled = coco.read(folder / "annotations.json")
    except (OSError, UserError) as error:
        raise DataError(f"{folder}: {error}; make it again with `python -m sim dataset`") from None
    if not isinstance(card.get("name"), str) or not isinstance(card.get("classes"), (dict, list)):
        raise DataError(
            f"{folder / 'dataset.toml'}: needs name and classes; make it again with `python -m sim dataset`"
        )
    return [
        _labelled(folder, card, each, classes)
        for each in labelled
        if split == ("val" if each.picture.id % RENDERED_VAL == 0 else "train")
    ]


def _labelled(folder: Path, card: dict[str, Any], each: coco.Labelled, classes: Sequence[str]) -> Sample:
    objects = [(box, classes.index(name)) for box, name in each.objects if name in classes]
    return Sample(
        folder / each.picture.file_name,
        card["name"],
        each.picture.world or folder.name,
        np.array([box for box, _ in objects], np.float32).reshape(-1, 4),
        np.array([kind for _, kind in objects], np.int64),
        np.array([name in card["classes"] and name not in each.crowded for name in classes]),
    )
