"""Fills entries of a card from texts as `KEY=TEXT`."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from models.data.card import ENTRIES, SPLITS, Absent, Card, Step
from models.data.errors import DataError

TEXTS = (
    "name", "about", "creator", "source", "version", "licence", "collected", "intent", "labelling", "bias", "people",
    "use", "misuse", "scenes",
)  # fmt: skip


def filled(card: Card, texts: Iterable[str]) -> Card:
    """The card with these entries set: `licence=MIT`, `absent.classes=diver,fish`, `unknown.SCENE=rock`,
    `transformations=what was done` (added to those there are), `classes.OURS=THEIRS`. Raises
    DataError."""
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise DataError(f"--set {text}: wants KEY=TEXT, as licence=CC-BY-4.0")
        card = _set(card, key.strip(), value.strip())
    return card


def _set(card: Card, key: str, value: str) -> Card:
    first, _, rest = key.partition(".")
    listed = [each.strip() for each in value.split(",") if each.strip()]
    if key in TEXTS:
        return msgspec.structs.replace(card, **{key: value})
    if key == "transformations":
        done = [] if value in ("", "[]", "none") else [Step(value)]
        return msgspec.structs.replace(card, transformations=[*(card.transformations or []), *done])
    if key == "classes":
        return msgspec.structs.replace(card, classes={each: each for each in listed})
    if first in ("classes", "columns") and rest:
        return msgspec.structs.replace(card, **{first: getattr(card, first) | {rest: value}})
    if key in ("absent", "absent.classes"):
        return msgspec.structs.replace(card, absent=Absent(listed, card.absent.why))
    if key == "absent.why":
        return msgspec.structs.replace(card, absent=Absent(card.absent.classes, value))
    if first == "unknown" and rest:
        return msgspec.structs.replace(card, unknown=card.unknown | {rest: listed})
    if first == "split" and rest in SPLITS:
        return msgspec.structs.replace(card, split=card.split | {rest: listed})
    known = ", ".join([*ENTRIES, "absent.classes", "unknown.SCENE", "split.train", "columns.NAME"])
    raise DataError(f"--set {key}: is no entry of a card; there are {known}")
