"""The configuration a dive was recorded with, and the files it names, as attachments: written and read back.

    rover.toml                      every key, as it was when the recording began, without passwords
    camera.calibration.yaml, …      the file that this key names

Weights are recorded as a hash in the metadata only: they are large, and rov ships them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pydantic
import tomli_w
from mcap.records import Attachment

from rov import toml
from rov.config.live import Values, live_keys, values_of
from rov.config.schema import Config
from rov.dives.dive import Dive
from rov.errors import UserError
from rov.messages import ActiveSettings
from rov.printing import hide_passwords
from rov.resources import ResourceError, find_resource
from rov.vision.model_card import load_card

NAME = "rover.toml"
FILES = ("camera.calibration", "camera.colour", "vehicle.thrusters")
"""Keys whose file is attached."""
FILE_BYTES_MAX = 1_000_000
HERE = {
    "perception.weights", "perception.device", "perception.precision", "perception.threads", "perception.batch",
    "steering.policy", "steering.encoder",
    "camera.source", "camera.width", "camera.height", "camera.fps", "camera.fourcc", "camera.latency_ms",
}  # fmt: skip
"""Keys of the computer, or of stages before the recording: a replay takes them from its own configuration."""
HERE_TOO = ("bus", "compute", "link", "recording")
"""Sections whose keys a replay takes from its own configuration, too."""
SENT = "link.kind"
"""But for this key: it decides what the pilot sends, thrusters or an autopilot's axes."""
DIFFERENCES_MAX = 8
"""How many differing keys are named at most."""


def attachments(config: Config) -> Iterator[Attachment]:
    """The attachments of a dive that is recorded with this configuration."""
    yield _attachment(NAME, "application/toml", tomli_w.dumps(public(config)).encode())
    for key in FILES:
        if name := value_of(config, key):
            try:
                path = find_resource(name, Path())
                data = path.read_bytes()
            except (ResourceError, OSError):
                continue  # the stage that needs the file reports it
            if len(data) <= FILE_BYTES_MAX:
                yield _attachment(key + path.suffix, "text/plain", data)


def _attachment(name: str, kind: str, data: bytes) -> Attachment:
    return Attachment(create_time=0, log_time=0, name=name, media_type=kind, data=data)


def public(config: Config) -> dict[str, Any]:
    """The configuration as tables, without the user names and passwords in addresses."""
    tables: dict[str, Any] = config.model_dump()
    for table in tables.values():
        table.update({key: hide_passwords(each) for key, each in table.items() if isinstance(each, str)})
    return tables


def value_of(config: Config, key: str) -> Any:
    section, _, name = key.partition(".")
    return getattr(getattr(config, section), name)


# ---- reading it back -------------------------------------------------------------------------------------------------


class DiveOrigin:
    """The configuration a dive was recorded with; `config` is None where the dive does not hold one."""

    def __init__(self, dive: Dive, base: Config, folder: Path):
        """`base` gives the keys that a replay takes from here. Attached files are written into `folder`."""
        self.notes: list[str] = []
        """Sentences about what could not be used."""
        self.metadata = dive.metadata
        self.values = first_settings(dive)
        """Live keys, as they were when the dive began."""
        files = {each.name: each.data for each in dive.file.attachments() if len(each.data) <= FILE_BYTES_MAX}
        self.whole = NAME in files
        """Whether all keys were recorded, not only the live ones."""
        tables = self._tables(files[NAME]) if self.whole else {}
        for key in FILES:
            for name, data in files.items():
                if re.fullmatch(re.escape(key) + r"\.\w+", name) and not _same(tables, key, data):
                    (folder / name).write_bytes(data)
                    _set(tables, key, str(folder / name))
        for key, value in self.values.items():
            _set(tables, key, value)
        self.config = self._config(tables, base) if tables else None

    def _tables(self, text: bytes) -> dict[str, Any]:
        try:
            return toml.parse(text.decode())
        except (UserError, UnicodeDecodeError) as error:
            self.notes.append(f"its {NAME} cannot be read: {error}")
            self.whole = False
            return {}

    def _config(self, tables: dict[str, Any], base: Config) -> Config | None:
        """The recorded values where this version of rov has the key and allows the value; `base` for the rest."""
        merged = base.model_dump()
        self._take_weights(tables, merged)
        for section, table in tables.items():
            for name, value in table.items() if isinstance(table, dict) else ():
                key = f"{section}.{name}"
                if key in live_keys() and not here(key):
                    merged[section][name] = value
        for _ in range(2):
            try:
                return Config.model_validate(merged)
            except pydantic.ValidationError as error:
                for each in error.errors():
                    section, name = str(each["loc"][0]), str(each["loc"][-1])
                    was = f"{section}.{name} = {merged[section][name]!r}"
                    self.notes.append(f"it was recorded with {was}, which is not allowed here; it was not taken")
                    merged[section][name] = value_of(base, f"{section}.{name}")
        return None

    def _take_weights(self, tables: dict[str, Any], merged: dict[str, Any]) -> None:
        """Use the recorded weights where this computer has them."""
        perception = tables.get("perception")
        name = perception.get("weights") if isinstance(perception, dict) else None
        wanted = self.metadata.get("weights_sha256")
        try:
            if isinstance(name, str) and wanted and load_card(find_resource(name)).weights_sha256 == wanted:
                merged["perception"]["weights"] = name
        except UserError:
            pass  # this computer's weights are used, and `weights_note` reports it


def weights_note(dive: Dive, weights_sha256: str) -> str:
    """A sentence when a dive was recorded with other weights; "" when the same, or not recorded."""
    was = dive.metadata.get("weights_sha256", weights_sha256)
    same = was == weights_sha256
    return "" if same else f"the weights are not those it was recorded with: {weights_sha256[:12]}, were {was[:12]}"


def here(key: str) -> bool:
    """Whether a replay takes this key from its own configuration."""
    return key in HERE or key.partition(".")[0] in HERE_TOO and key != SENT


def _same(tables: dict[str, Any], key: str, data: bytes) -> bool:
    """Whether the file that the configuration names is here, with the recorded content."""
    section, _, name = key.partition(".")
    table = tables.get(section)
    path = table.get(name) if isinstance(table, dict) else None
    try:
        return isinstance(path, str) and find_resource(path, Path()).read_bytes() == data
    except (UserError, OSError):
        return False


def _set(tables: dict[str, Any], key: str, value: Any) -> None:
    section, _, name = key.partition(".")
    table = tables.setdefault(section, {})
    if isinstance(table, dict):
        table[name] = value


def first_settings(dive: Dive) -> Values:
    """The live keys in a dive's first `settings` message; empty where there is none."""
    first = next(dive.messages(["settings"]), None) if dive.readable.get("settings") else None
    try:
        return values_of(first.data.settings) if first and isinstance(first.data, ActiveSettings) else {}
    except msgspec.DecodeError:
        return {}


def differences(now: Config, origin: DiveOrigin) -> str:
    """A sentence on how a configuration differs from the recorded keys; "" where it does not."""
    if origin.config is None:
        return ""
    known = live_keys() if origin.whole else origin.values
    found = []
    for key in known:
        is_now, was = value_of(now, key), value_of(origin.config, key)
        if not here(key) and is_now != was and key not in FILES:
            found.append(f"{key} is {is_now!r}, was {was!r}")
    more = f" and {len(found) - DIFFERENCES_MAX} more" if len(found) > DIFFERENCES_MAX else ""
    named = "; ".join(found[:DIFFERENCES_MAX])
    return f"the configuration is not the one recorded: {named}{more}" if found else ""
