"""What must be right in a configuration and cannot be seen in it alone: keys, and the classes the detector knows."""

from __future__ import annotations

import sys
from pathlib import Path

from rov.assets import find
from rov.bus import is_local, keys
from rov.config import Config, ConfigError, load
from rov.errors import UserError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def load_checked(path: Path) -> Config:
    """Read a configuration and check all that a daemon would trip over. Raises ConfigError with everything wrong."""
    config = load(path)
    if found := problems(config):
        raise ConfigError([f"{path}: {each}" for each in found])
    return config


def problems(config: Config) -> list[str]:
    """One sentence for each thing that does not fit."""
    found = []
    bus, target = config.bus, config.steering.target
    for key, address in (("public", bus.public), ("commands", bus.commands)):
        if not bus.keys and not is_local(address):
            found.append(
                f"bus.{key} = {address!r} would let anybody on the network in; run `rov keys` and set bus.keys to the"
                " folder it names, or bind 127.0.0.1"
            )
    try:
        if bus.keys:
            keys.check(Path(bus.keys))
    except UserError as error:
        found.append(f"bus.keys: {error}")
    try:
        classes = classes_of(find(config.perception.weights))
        if classes and target not in classes:
            found.append(f"steering.target = {target!r} is no class of the detector; there are {', '.join(classes)}")
    except UserError as error:
        found.append(f"perception.weights: {error}")
    return found


def classes_of(weights: Path) -> tuple[str, ...]:
    """The classes on the card of a weights file; none when it has no readable card, which loading it will say. Here
    without the network's own loader, because that brings torch."""
    try:
        card = tomllib.loads(weights.with_suffix(".toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ()
    names = card.get("classes")
    return tuple(map(str, names)) if isinstance(names, list) else ()
