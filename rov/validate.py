"""Checks of a configuration that need more than the file itself: keys, weights, calibrations, other files it names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from rov import toml
from rov.bus import is_local, keys
from rov.config.schema import Config, ConfigError, load, override
from rov.errors import UserError
from rov.printing import hide_passwords
from rov.resources import find_resource


def load_checked(path: Path, overrides: Sequence[str] = (), *, files: bool = False) -> Config:
    """Read a configuration, apply `section.key=value` settings, and check everything the daemon needs to start.
    `files`: also read the files it names, which may take a second. Raises ConfigError with all problems."""
    config = override(load(path), list(overrides))
    if found := problems(config) + (file_problems(config) if files else []):
        raise ConfigError([f"{path}: {each}" for each in found])
    return config


def problems(config: Config) -> list[str]:
    """One sentence for each problem that the schema cannot find."""
    found = []
    bus = config.bus
    for key, address in (("public", bus.public), ("commands", bus.commands)):
        if not bus.keys and not is_local(address):
            found.append(
                f"bus.{key} = {address!r} would let anybody on the network in; run `rov keys` and set bus.keys to the"
                " folder it names, or bind 127.0.0.1"
            )
    if bus.public == bus.commands:
        found.append(f"bus.commands = {bus.commands!r} is bus.public, too: each needs an endpoint of its own")

    if bus.keys:
        found += _failing("bus.keys", lambda: keys.check(Path(bus.keys)))
    found += target_problems(config)
    return found + _failing("camera.source", lambda: _check_source(config.camera.source))


def target_problems(config: Config) -> list[str]:
    """A sentence when the detector is missing or does not know the target class."""
    target = config.steering.target
    try:
        classes = classes_of(find_resource(config.perception.weights))
    except UserError as error:
        return [f"perception.weights: {error}"]
    if classes and target not in classes:
        return [f"steering.target = {target!r} is no class of the detector; there are {', '.join(classes)}"]
    return []


def doubts(config: Config) -> list[str]:
    """One sentence for each setting that is allowed but was probably forgotten."""
    depth = config.vehicle.max_depth
    if depth == load(find_resource("rover.toml")).vehicle.max_depth:
        return [f"vehicle.max_depth = {depth:g} is that of the default file: set what your housing bears"]
    return []


def file_problems(config: Config) -> list[str]:
    """One sentence for each named file that cannot be used: it would make a process die again and again."""
    from rov.media.films import Video
    from rov.motion import thrusters
    from rov.optics import colour
    from rov.vision import model_card, rectify

    camera, vehicle = config.camera, config.vehicle
    found = _failing("camera.calibration", lambda: rectify.open_lens(camera))
    if camera.colour:
        found += _failing("camera.colour", lambda: colour.load(find_resource(camera.colour, Path())))
    if not _failing("camera.source", lambda: _check_source(camera.source)) and (path := _video(camera.source)):
        found += _failing("camera.source", lambda: Video(path))
    if not target_problems(config):
        found += _failing("perception.weights", lambda: model_card.check(find_resource(config.perception.weights)))
    found += _failing("recording.folder", lambda: _check_folder(Path(config.recording.folder)))
    return found + _failing(
        "vehicle.thrusters", lambda: thrusters.load(find_resource(vehicle.thrusters), vehicle.battery_cells)
    )


def _failing(key: str, check: Callable[[], object]) -> list[str]:
    """The problem that a check of this key finds, as a list of at most one sentence."""
    try:
        check()
    except UserError as error:
        return [f"{key}: {hide_passwords(str(error))}"]
    except (OSError, ValueError) as error:  # a name too long, a folder without permission to read
        return [f"{key}: cannot be used: {hide_passwords(str(error))}"]
    return []


def _check_folder(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise UserError(f"{path}: is no folder; dives go into one")


def _video(source: str) -> Path | None:
    """The video that a source names; None for others."""
    from rov.media.sources import parse_camera_source

    if source.startswith("process:"):
        return None
    parsed = parse_camera_source(source)
    return Path(parsed.target) if parsed.kind == "file" else None


def _check_source(source: str) -> None:
    from rov.media.sources import check_source  # imported here: it loads FFmpeg, which pilotd does not need

    check_source(source)


def classes_of(weights: Path) -> tuple[str, ...]:
    """The classes on the card of a weights file; none without a readable card, which loading the weights will report.
    It does not use the network's loader, because that imports torch."""
    try:
        card = toml.parse(toml.read_text(weights.with_suffix(".toml")))
    except (OSError, toml.TomlError):
        return ()
    names = card.get("classes")
    return tuple(map(str, names)) if isinstance(names, list) else ()
