"""What a check found out about a set."""

from __future__ import annotations

from typing import Literal, NamedTuple

from models.coco import Labelled
from models.data.looks import Looks
from models.data.sets import PictureSet

SMALL = 8.0
"""px at an input of SIZE: smaller objects are hardly learned."""
SIZE = 512
"""The usual side of a network's input, px."""


class Problem(NamedTuple):
    kind: Literal["error", "warning", "note"]
    """error: do not train on it like this. warning: look at it. note: good to know."""
    text: str


class Pair(NamedTuple):
    """Two pictures (numbers) that look nearly the same."""

    first: int
    second: int
    likeness: float


class Report(NamedTuple):
    """What was found; lists go by picture."""

    found: PictureSet
    pictures: list[Labelled]
    """Those that can be decoded, boxes inside, under our class names; others under theirs."""
    splits: list[str]
    scenes: list[str]
    looks: list[Looks]
    leaks: list[Pair]
    """Nearly the same picture in two splits."""
    problems: list[Problem]

    @property
    def errors(self) -> int:
        return sum(each.kind == "error" for each in self.problems)
