"""What a trainer takes: labelled pictures, with the classes that each is labelled for."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.coco import EVERY, Labelled
from models.data.boxes import fit
from models.data.card import Card, Split
from models.data.errors import Findings
from models.data.sets import PictureSet, card_of, open_set, scene_of

CLASSES = (
    "buoy_red", "buoy_green", "buoy_yellow", "gate_post", "channel", "bottle", "bag", "metal", "rock",
    "fish", "jellyfish", "shark", "stingray", "starfish", "diver", "pipeline",
)  # fmt: skip
"""Classes of the shipped detector, in the order of its heat maps."""


@dataclass(frozen=True)
class Sample:
    """One labelled picture."""

    path: Path
    set_name: str
    group: str
    """Its scene."""
    boxes: NDArray[np.float32]
    """(N, 4) x1 y1 x2 y2 in pixels."""
    kinds: NDArray[np.int64]
    """(N,) indices into the classes."""
    known: NDArray[np.bool_]
    """(classes,) False where the picture may show objects of a class without a label: there, no box means nothing."""


def load(name: str | Path, split: Split, classes: Sequence[str] = CLASSES) -> list[Sample]:
    """All pictures of one split of a set, in the order of their names; labels of other classes are left out. Raises
    DataError when there is no such set, its card is not complete, or its labels cannot be read."""
    found = open_set(name)
    found.card.must_be_complete(found.card_path)
    return [sample_of(found, each, classes) for each in found.pictures() if found.split_of(each) == split]


def sample_of(found: PictureSet, labelled: Labelled, classes: Sequence[str]) -> Sample:
    """A picture of a set as the trainer takes it."""
    ours = {theirs: name for name, theirs in found.card.classes.items()}
    index = {name: i for i, name in enumerate(classes)}
    scene, size = scene_of(found, labelled), labelled.picture.size
    findings = Findings()  # the set's check tells of them
    objects = [
        (fit(box, size, "", findings) if all(size) else box, index[ours[name]])
        for box, name in labelled.objects
        if ours.get(name) in index
    ]
    kept = [(box, kind) for box, kind in objects if box]
    unknown = {ours.get(name, name) for name in labelled.unknown}
    known = set() if EVERY in unknown else found.card.known(scene) - unknown
    return Sample(
        found.root / labelled.picture.file_name,
        found.card.name,
        scene,
        np.array([box for box, _ in kept], np.float32).reshape(-1, 4),
        np.array([kind for _, kind in kept], np.int64),
        np.array([name in known for name in classes]),
    )


def labelled(name: str | Path) -> tuple[str, ...]:
    """The classes that a set labels."""
    return tuple(load_card(name).classes)


def load_card(name: str | Path) -> Card:
    """The card of a set, complete or not. Raises DataError where there is none."""
    return card_of(name)[0]


def rendered(name: str | Path) -> bool:
    """Whether the simulator made the set."""
    return bool(load_card(name).rendered)


def card_entry(name: str | Path) -> dict[str, Any]:
    """The entry of a set in a model's card: where it is from, its licence, what was trained on, its hashes. How many
    boxes there are of what is on the set's own."""
    card = load_card(name)
    scenes = card.split.get("train", [])
    entry = {"train": scenes or ["pictures of the train split"], "source": card.source, "licence": card.licence}
    rendered = {key: value for key, value in card.rendered.items() if key != "boxes"}
    optional = {"version": card.version, "hashes": msgspec.to_builtins(card.hashes), "rendered": rendered}
    return entry | {key: value for key, value in optional.items() if value}


def fingerprint(samples: list[Sample]) -> str:
    """sha256 over names, picture bytes and labels: identifies exactly the training data."""
    digest = hashlib.sha256()
    for sample in samples:
        digest.update(sample.path.name.encode())
        digest.update(sample.path.read_bytes())
        digest.update(sample.boxes.tobytes() + sample.kinds.tobytes() + sample.known.tobytes())
    return digest.hexdigest()
