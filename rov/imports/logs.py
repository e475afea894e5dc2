"""Reads an autopilot's log of vehicle and pilot: a `.tlog` of the ground station, or a `.BIN` of ArduSub.

Times are ns since the autopilot booted, a clock that is never set. Messages without such a stamp (the pilot's sticks,
the heartbeat) get the time of the last stamped message plus what passed since on the ground station's clock, unless
that clock jumped. Unreadable records are counted. A log is read twice: the first reading finds vehicles and water.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from rov.errors import UserError
from rov.imports import from_dataflash, from_tlog
from rov.imports.dataflash import DataFlash
from rov.imports.log_builder import LogBuilder
from rov.imports.tlog import Tlog
from rov.media.files import must_be_file
from rov.messages import AnyCommand, Clock, Event, Message, ThrusterCommand, VehicleState

READ_MIN = 0.05
"""Least share of the file's bytes that must be readable."""

STEP = 0.005
"""Least share of the work between two progress reports."""


class Log(NamedTuple):
    """One log; each kind of message in order of time. `dropped` counts what was left out, by reason."""

    path: Path
    states: list[VehicleState]
    commands: list[AnyCommand]
    events: list[Event]
    thrusters: list[ThrusterCommand]
    """The autopilot's outputs, at its own rate."""
    clocks: list[Clock]
    """UTC once a second, where the log has it."""
    dropped: Counter[str]
    notes: list[str]
    about: dict[str, str]
    """How the log was read, as metadata for the dive."""

    @property
    def topics(self) -> dict[str, Sequence[Message]]:
        """All messages by topic."""
        return {
            "vehicle": self.states,
            "commands": self.commands,
            "events": self.events,
            "thrusters": self.thrusters,
            "clock": self.clocks,
        }

    @property
    def first_t(self) -> int:
        return min(each[0].t for each in self.topics.values() if each)


def read(
    path: Path,
    progress: Callable[[float], None] = lambda share: None,
    *,
    system: int | None = None,
    surface_pa: float | None = None,
    density: float | None = None,
) -> Log:
    """Read a `.tlog` or `.BIN`. `progress` receives the share done, 0..1. `system`: the MAVLink system to take, where
    there are several. `surface_pa` (Pa) and `density` (kg/m³) of the water replace what the log shows. Raises UserError
    when the log has no telemetry."""
    must_be_file(path)
    progress = seldom(progress)
    dropped: Counter[str] = Counter()
    notes: list[str] = []
    if path.suffix.lower() == ".bin":
        records = DataFlash(path, from_dataflash.WANTED)
        builder = from_dataflash.read(records, str(path), progress, surface_pa, density)
        size, unread = len(records.data), records.unread
    else:
        tlog = Tlog(path, from_tlog.WANTED)
        builder, notes = from_tlog.read(tlog, str(path), progress, system, surface_pa, density)
        dropped, size, unread = spoiled(tlog), len(tlog.data), tlog.unread
    if not builder.states or unread > (1 - READ_MIN) * size:
        raise UserError(f"{path}: too damaged to be read: {unread} of {size} bytes belong to no message")
    if unread:
        dropped[f"bytes that belong to no message, of {size}"] = unread
    return _finished(path, builder, dropped, notes)


def seldom(progress: Callable[[float], None]) -> Callable[[float], None]:
    """A progress function that passes on only visible steps: drawing a bar takes longer than reading a record."""
    shown = -1.0

    def report(share: float) -> None:
        nonlocal shown
        if share - shown >= STEP:
            shown = share
            progress(share)

    return report


def spoiled(log: Tlog) -> Counter[str]:
    """Frames at a valid position that cannot be read, by reason, and of how many frames."""
    total = sum(log.counts.values())
    words = {
        "wrong checksum": "messages with a wrong checksum",
        "unknown": "messages of a kind that is not known",
    }
    return Counter({f"{text}, of {total}": log.counts[name] for name, text in words.items() if log.counts[name]})


def _finished(path: Path, builder: LogBuilder, dropped: Counter[str], notes: list[str]) -> Log:
    timeline = builder.vehicle.timeline
    found = [f"the autopilot restarted {t / 1e9:.1f} s after its first start" for t in timeline.restarts]
    found += [f"{text} ({number} times)" if number > 1 else text for text, number in builder.noted.items()]
    commands = [msgspec.structs.replace(each, seq=number) for number, each in enumerate(builder.commands)]
    water = builder.vehicle.water
    about = {"depth_from": ", ".join(water.sources), "battery": str(builder.vehicle.battery)}
    if builder.vehicle.origin:
        about["origin"] = builder.vehicle.origin
    if water.by_pressure:
        about |= {"surface_pa": f"{water.surface_pa:.0f}", "density": f"{water.density:.1f}"}
    return Log(
        path,
        builder.states,
        commands,
        sorted(builder.events, key=lambda each: each.t),
        builder.thrusters,
        builder.clocks,
        dropped + builder.dropped,
        [*notes, *water.notes, *found],
        about,
    )
