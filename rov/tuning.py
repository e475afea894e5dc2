"""Tuning while running: which keys are live, what changed, and from when on a change holds.

    rover.toml -> supervisor: reads, checks         -> `edit`, what is saved
               -> pilotd: knows whether it is armed -> `tuning`, what holds; it and all others follow this

Nothing is parsed on the way: a change is a copy of the frozen configuration with other values in it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, NamedTuple, TypeAlias

import msgspec

from rov.config import Config
from rov.messages import Setting

Value: TypeAlias = bool | int | float | str
Values: TypeAlias = dict[str, Value]

COMMANDED = ("steering.target", "steering.size")
"""Keys that operators set, too (`SetTarget`)."""
EFFECT_NS = 100_000_000
"""Frames follow a change that is older than this when they are captured. It leaves the news time to arrive everywhere,
so that a replay, which knows only times, changes at the same frame."""


class Key(NamedTuple):
    """How a change of one key takes effect."""

    live: bool
    safer: str
    """`lower` or `higher` for a safety key, else empty."""


@cache
def live_keys() -> Mapping[str, Key]:
    """Every key of the configuration, as `guard.gain`."""
    found = {}
    for section, field in Config.model_fields.items():
        model: Any = field.annotation
        for name, each in model.model_fields.items():
            extra = each.json_schema_extra or next(m.json_schema_extra for m in each.metadata if m.json_schema_extra)
            found[f"{section}.{name}"] = Key(extra["apply"] == "live", extra.get("safer", ""))
    return found


def values(config: Config, *, live: bool = True) -> Values:
    """The values of all live keys, or of all others."""
    return {
        key: getattr(getattr(config, section), name)
        for key, how in live_keys().items()
        for section, _, name in [key.partition(".")]
        if how.live is live
    }


def settings(config: Config) -> tuple[Setting, ...]:
    """All live keys, to be sent."""
    return tuple(Setting(key, msgspec.json.encode(value).decode()) for key, value in values(config).items())


def values_of(sent: Iterable[Setting]) -> Values:
    """What was sent: the keys that are live here. Another version's are left out."""
    return {
        each.key: msgspec.json.decode(each.value)
        for each in sent
        if each.key in live_keys() and live_keys()[each.key].live
    }


def differences(old: Values, new: Values) -> Values:
    """What is new or other in `new`."""
    return {key: value for key, value in new.items() if old.get(key) != value}


def with_values(config: Config, changes: Values) -> Config:
    """The configuration with these keys changed. The values must have been checked: this is for control loops."""
    sections: dict[str, dict[str, Value]] = {}
    for key, value in changes.items():
        section, _, name = key.partition(".")
        sections.setdefault(section, {})[name] = value
    changed = {section: getattr(config, section).model_copy(update=table) for section, table in sections.items()}
    return config.model_copy(update=changed)


def is_looser(key: str, old: Any, new: Any) -> bool:
    """Does this change of a safety key move away from the safer side?"""
    match live_keys()[key].safer:
        case "lower":
            return bool(new > old)
        case "higher":
            return bool(new < old)
    return False


class ConfigTimeline:
    """The configuration for each frame, as it is tuned on the way."""

    def __init__(self, config: Config, *, recorded: bool = False):
        """Live, what is heard holds. `recorded`: what is heard first is where the recording began, and only what was
        changed after that is changed here, so that a dive can be replayed with other values."""
        self.config = config
        self.last: Values | None = None if recorded else values(config)
        self.coming: deque[tuple[int, Values]] = deque()

    def add(self, sent: Iterable[Setting], t: int) -> Values:
        """Take the news of `t`; returns what changes with it."""
        news = values_of(sent)
        changed = {} if self.last is None else differences(self.last, news)
        self.last = news
        if changed:
            self.coming.append((t + EFFECT_NS, changed))
        return changed

    def at(self, frame_t: int) -> Config:
        """What holds for a frame captured at `frame_t`. Frames are asked for in order."""
        while self.coming and self.coming[0][0] <= frame_t:
            self.config = with_values(self.config, self.coming.popleft()[1])
        return self.config
