"""The addresses that strangers reach, as their processes read them from the configuration that `rov run` checked."""

from __future__ import annotations

from pathlib import Path

import msgspec

from rov import toml


class PublicEndpoints(msgspec.Struct, frozen=True):
    """Section [bus] of the configuration."""

    public: str
    commands: str
    keys: str
    """Folder of keys; empty: no keys."""


class _Checked(msgspec.Struct, frozen=True):
    """The rest of the file is for others."""

    bus: PublicEndpoints


def load(path: Path) -> PublicEndpoints:
    """Read [bus] from a whole configuration that has been checked: without the schema, whose import takes as long as
    all the rest of these processes' start. Raises TomlError."""
    return toml.load(path, _Checked).bus
