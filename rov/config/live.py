"""Live settings: which keys may change while the daemon runs, and how a change is described and applied.

    rover.toml -> supervisor: reads, checks         -> `config_edit`: the saved values
               -> pilotd: knows whether it is armed -> `settings`: the values in force, which all processes follow

Control loops parse nothing: a change is a copy of the frozen configuration with other values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, NamedTuple, TypeAlias

import msgspec
from pydantic import ValidationError

from rov.config.schema import Config
from rov.messages import Setting

Value: TypeAlias = bool | int | float | str
Values: TypeAlias = dict[str, Value]

COMMANDED = (
    "steering.target", "steering.size", "task.name", "task.heading_deg", "task.depth", "task.distance", "task.height",
    "task.target_height",
)  # fmt: skip
"""Keys that operators can set, too (`SetTarget`, `SetTask`)."""


class Key(NamedTuple):
    """How a change of one key takes effect."""

    live: bool
    safer: str
    """`lower` or `higher` for a safety key, else empty."""


@cache
def live_keys() -> Mapping[str, Key]:
    """Every key of the configuration, as `guard.gain`, live or not."""
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
    """The values of all live keys, as a message carries them."""
    return tuple(Setting(key, msgspec.json.encode(value).decode()) for key, value in values(config).items())


def values_of(sent: Iterable[Setting]) -> Values:
    """The values in a message, of the keys that are live here; unknown keys of another version are left out."""
    return {
        each.key: msgspec.json.decode(each.value)
        for each in sent
        if each.key in live_keys() and live_keys()[each.key].live
    }


def differences(old: Values, new: Values) -> Values:
    """The entries of `new` that are missing or different in `old`."""
    return {key: value for key, value in new.items() if old.get(key) != value}


def with_values(config: Config, changes: Values) -> Config:
    """The configuration with these keys changed. Fast enough for control loops: values are not checked."""
    sections: dict[str, dict[str, Value]] = {}
    for key, value in changes.items():
        section, _, name = key.partition(".")
        sections.setdefault(section, {})[name] = value
    changed = {section: getattr(config, section).model_copy(update=table) for section, table in sections.items()}
    return config.model_copy(update=changed)


def flaw(changes: Values) -> str:
    """What the schema says against values of these keys, as a sentence; "" when it allows them."""
    for key, value in changes.items():
        section, _, name = key.partition(".")
        model: Any = Config.model_fields[section].annotation
        try:
            model.__pydantic_validator__.validate_assignment(model.model_construct(), name, value)
        except ValidationError as error:
            return f"{key} = {value}: {error.errors()[0]['msg'].lower()}"
    return ""


def is_looser(key: str, old: Any, new: Any) -> bool:
    """Does this change of a safety key move away from the safer side?"""
    match live_keys()[key].safer:
        case "lower":
            return bool(new > old)
        case "higher":
            return bool(new < old)
    return False
