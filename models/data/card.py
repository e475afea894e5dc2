"""A data card, `dataset.toml`: what a set of pictures is, who made it, how, for what, and what it does not show.

Every set has one. Those of sets in ROV_DATA are `models/datasets/*.toml`; all others lie beside their pictures. A card
is complete when every entry of ENTRIES is filled; training refuses a set whose card is not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec
import tomli_w

from models.data.errors import DataError
from rov import toml
from rov.media.files import write_text

FILE = "dataset.toml"
SPLITS: tuple[Split, ...] = ("train", "val", "test")
Split = Literal["train", "val", "test"]

ENTRIES = {
    "name": "a short name, the folder's",
    "about": "what the pictures show, how many, of what size",
    "creator": "who took the pictures and who labelled them: people, team or project",
    "source": "where it is from: address and version, dive files, or the shop it was bought in",
    "licence": "what one may do with it: an SPDX name such as CC-BY-4.0, or 'own pictures'",
    "collected": "how the pictures were taken: vehicle, camera, place, depth, season, how frames were chosen",
    "transformations": "[[transformations]]: what was done to pictures and labels since, and the command; [] for none",
    "intent": "the question it was made to answer",
    "labelling": "who or what drew the boxes, by which rule, what was left out (small, hidden, cut off)",
    "classes": "[classes]: ours = theirs, the classes that are labelled exhaustively",
    "bias": "what it shows too often, too seldom or never: sites, water, light, distances, kinds",
    "people": "people in the pictures: none, or who and whether they agreed",
    "use": "what it is good for",
    "misuse": "what it must not be used for, and what would go wrong",
    "split": "[split]: which scenes are train, val and test (`python -m models.data split`)",
    "hashes": "[hashes]: sha256 of labels and pictures (`python -m models.data card SET --hash`)",
}
"""Every entry of a complete card, in the order of the file, and what belongs into it."""
NOTHING = {"", "?", "-", "todo", "tbd", "fixme", "xxx", "..."}
"""Texts that fill no entry."""


class Step(msgspec.Struct, forbid_unknown_fields=True):
    """One transformation of the pictures or labels."""

    what: str
    command: str = ""
    """The command that did it, where there was one."""


class Absent(msgspec.Struct, forbid_unknown_fields=True):
    """Classes that no picture shows: no box means that there is none."""

    classes: list[str] = []
    why: str = ""


class Hashes(msgspec.Struct, forbid_unknown_fields=True):
    labels: str = ""
    """sha256 of annotations.json, else of the label files in the order of their names."""
    pictures: str = ""
    """sha256 over a line for each picture in the order of names: its name, a tab and its own sha256."""


class Card(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A data card; ENTRIES says what belongs into each text."""

    name: str
    about: str = ""
    creator: str = ""
    source: str = ""
    version: str = ""
    """Commit, release or date of the source."""
    licence: str = ""
    collected: str = ""
    transformations: list[Step] | None = None
    intent: str = ""
    labelling: str = ""
    bias: str = ""
    people: str = ""
    use: str = ""
    misuse: str = ""
    layout: Literal["coco", "voc", "yolo", "table"] = "coco"
    """How labels are stored: annotations.json, an .xml or .txt for each picture; or a table without pictures."""
    path: str = ""
    """For a card in models/datasets: the folder of the set, below ROV_DATA."""
    scenes: str = ""
    """Where the labels do not name the scene of a picture: how to find it (see models/data/scenes.py)."""
    names: list[str] = []
    """Their classes by number, for YOLO labels."""
    columns: dict[str, str] = {}
    """For a table: its columns, and what they are."""
    classes: dict[str, str] = {}
    """Ours = theirs: the classes labelled exhaustively, in all pictures but those of `unknown`."""
    absent: Absent = msgspec.field(default_factory=Absent)
    unknown: dict[str, list[str]] = {}
    """Scene ("*": all) -> classes of `classes` and `absent` that its pictures may show without a label. Where single
    pictures differ, annotations.json says so: `not_exhaustive_category_ids`, as in LVIS."""
    split: dict[Split, list[str]] = {}
    """train, val, test -> scenes; in a set whose pictures each have their own split, empty lists."""
    hashes: Hashes = msgspec.field(default_factory=Hashes)
    rendered: dict[str, Any] = {}
    """For a set of the simulator: how to make it again."""

    def known(self, scene: str) -> set[str]:
        """The classes that pictures of this scene are labelled for; of any other, a missing box means nothing."""
        unknown = {name for key in (scene, "*") for name in self.unknown.get(key, [])}
        return (set(self.classes) | set(self.absent.classes)) - unknown

    def missing(self) -> list[str]:
        """The entries that are not filled."""
        return [entry for entry in ENTRIES if not self._filled(entry)]

    def _filled(self, entry: str) -> bool:
        if entry == "classes" and self.layout == "table":
            return bool(self.columns)
        value = getattr(self, entry)
        match entry:
            case "transformations":
                return value is not None and all(_told(step.what) for step in value)
            case "split":
                return "train" in value
            case "hashes":
                return bool(value.labels and value.pictures) or (self.layout == "table" and bool(value.labels))
        return bool(value) if isinstance(value, dict) else _told(value)

    def must_be_complete(self, path: Path) -> None:
        """Raises DataError that says what is missing and what belongs there."""
        if missing := self.missing():
            lines = [f"{path}: {entry} is missing: {ENTRIES[entry]}" for entry in missing]
            raise DataError("\n".join([*lines, f"{path}: the card is not complete; nothing is trained on such a set"]))


def _told(text: str) -> bool:
    return text.strip().lower() not in NOTHING


def read_card(path: Path) -> Card:
    """A card, complete or not. Raises DataError."""
    try:
        card = toml.load(path, Card)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except toml.TomlError as error:
        raise DataError(f"{error}; a card's entries: {', '.join(ENTRIES)}") from None
    groups = [scene for scenes in card.split.values() for scene in scenes]
    if twice := sorted({scene for scene in groups if groups.count(scene) > 1}):
        raise DataError(f"{path}: split: {', '.join(twice)} is in two splits, so what is measured was learned by heart")
    if both := set(card.classes) & set(card.absent.classes):
        raise DataError(f"{path}: absent.classes: {', '.join(sorted(both))} is labelled, see [classes]")
    return card


def write_card(path: Path, card: Card) -> None:
    """Write a card with a comment above each entry that says what belongs there."""
    values = msgspec.to_builtins(card)
    lines = ["# Data card. Training refuses the set until every entry is filled.", ""]
    tables: list[str] = []
    for key in [*ENTRIES, *(key for key in values if key not in ENTRIES)]:
        value = values[key]
        if key not in ENTRIES and value in ("", [], {}, {"classes": [], "why": ""}):
            continue
        comment = [f"# {ENTRIES[key]}"] if key in ENTRIES else []
        if value is None:
            lines += [*comment, f"# {key} = []", ""]
        elif isinstance(value, dict) or (key == "transformations" and value):
            tables += [*comment, tomli_w.dumps({key: value}, multiline_strings=True).strip() or f"[{key}]", ""]
        else:
            lines += [*comment, tomli_w.dumps({key: value}, multiline_strings=True).strip(), ""]
    part = path.with_suffix(".part")
    write_text(part, "\n".join([*lines, *tables]))
    part.replace(path)
