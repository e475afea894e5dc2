"""What every reported code means: the table `event_codes.toml`, and the look-up of what was printed."""

from __future__ import annotations

import difflib
import re
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from rov import toml
from rov.errors import UserError

TABLE = Path(__file__).with_name("event_codes.toml")
OVER = "_over"
"""End of the code that says that a condition is over."""
_WORD = re.compile(r"[a-z]+(?:_[a-z]+)*")


class EventCode(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One code."""

    levels: tuple[str, ...]
    """The levels it is reported at: info, warning, alarm; error for what a process logs about itself."""
    happened: str
    reaction: str = ""
    """What rov does about it."""
    advice: str = ""
    """What the operator does about it."""


class EventGroup(msgspec.Struct, frozen=True):
    """Codes of one subject, in the order of the table."""

    title: str
    codes: dict[str, EventCode]


@cache
def event_groups() -> tuple[EventGroup, ...]:
    """The table."""
    table = toml.load(TABLE, dict[str, dict[str, Any]])
    return tuple(EventGroup(group.pop("title"), toml.convert(group, dict[str, EventCode])) for group in table.values())


@cache
def event_codes() -> dict[str, EventCode]:
    """Every code by its name."""
    return {name: code for group in event_groups() for name, code in group.codes.items()}


def find_code(text: str) -> str:
    """The first code in what somebody typed or copied from a log line: `leak`, `depth_lost_over`, or
    `12:03:04 alarm pilot depth_lost: …`. Raises UserError when there is none."""
    head, _, _ = text.partition(": ")
    words = [str(word).removesuffix(OVER) for word in _WORD.findall(head)]
    known = event_codes()
    found = [word for word in reversed(words) if word in known]  # the code stands last before the colon
    if found:
        return found[0]
    near = difflib.get_close_matches(words[-1] if words else text, known, 3)
    hint = f"; did you mean {', '.join(near)}?" if near else "; `rov explain` lists all codes"
    raise UserError(f"{text}: holds no code of an event{hint}")
