"""The addresses that strangers reach, as their processes read them from the configuration that `rov run` checked."""

from __future__ import annotations

from pathlib import Path

import msgspec

from rov import toml
from rov.bus.endpoints import COMMANDS, PUBLIC


class PublicEndpoints(msgspec.Struct, frozen=True):
    """Section [bus] of the configuration, with the schema's defaults."""

    public: str = PUBLIC
    commands: str = COMMANDS
    keys: str = ""
    """Folder of keys; empty: no keys."""


class _Checked(msgspec.Struct, frozen=True):
    """The rest of the file is for others."""

    bus: PublicEndpoints = PublicEndpoints()


def load(path: Path) -> PublicEndpoints:
    """Read [bus] from a configuration that has been checked: without the schema, whose import takes as long as
    all the rest of these processes' start. Raises TomlError."""
    return toml.load(path, _Checked).bus
