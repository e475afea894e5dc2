"""Translates a ground station's log (.tlog): MAVLink of the vehicle, its pilot's sticks, and other senders."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

from rov.errors import UserError
from rov.imports.clocks import BootClocks
from rov.imports.log_builder import LogBuilder
from rov.imports.survey import GROUND_STATION, LogSystem, SurveyedVehicle, chosen, listed, vehicle
from rov.imports.tlog import Tlog, TlogRecord
from rov.link.vehicle_state import level_of, volts_of

MS = 1_000_000
STAMPED = {"ATTITUDE", "SCALED_PRESSURE", "SCALED_PRESSURE2", "SCALED_PRESSURE3", "GLOBAL_POSITION_INT",
           "LOCAL_POSITION_NED", "RC_CHANNELS", "NAMED_VALUE_FLOAT", "NAMED_VALUE_INT"}  # fmt: skip
"""Messages with `time_boot_ms`."""
FROM_ANYBODY = {"DISTANCE_SENSOR", "STATUSTEXT", "RANGEFINDER", "VISION_POSITION_DELTA"}
"""Messages that count also from other components of the vehicle."""
WANTED = STAMPED | FROM_ANYBODY | {
    "HEARTBEAT", "VFR_HUD", "SYS_STATUS", "BATTERY_STATUS", "MANUAL_CONTROL", "SERVO_OUTPUT_RAW", "PARAM_VALUE",
    "GPS_GLOBAL_ORIGIN",
}  # fmt: skip
INVALID = 10_000
"""An axis beyond this (32767) is one that the joystick does not have."""
OUTPUTS = 16


def survey(log: Tlog, progress: Callable[[float], None]) -> dict[tuple[int, int], LogSystem]:
    """The first reading: all senders in the log, by (system, component)."""
    senders: defaultdict[tuple[int, int], LogSystem] = defaultdict(LogSystem)
    steered: defaultdict[int, int] = defaultdict(int)
    for record in log:
        progress(record.share)
        message, kind = record.frame.message, record.frame.message.get_type()
        if kind == "MANUAL_CONTROL":
            steered[message.target] += 1
            continue
        sender = senders[record.frame.sender]
        sender.messages += 1
        if kind in STAMPED:
            sender.clocks.assign(message.time_boot_ms * MS, record.wall, record.frame.sequence)
        _learn(sender, kind, message)
    for (system, _), sender in senders.items():
        sender.sticks = steered[system] + steered[0]
    return dict(senders)


def _learn(sender: LogSystem, kind: str, message: Any) -> None:
    match kind:
        case "ATTITUDE":
            sender.attitudes += 1
        case "HEARTBEAT":
            sender.type = message.type
        case "SCALED_PRESSURE" | "SCALED_PRESSURE2" | "SCALED_PRESSURE3":
            sender.pressure(kind, message.press_abs * 100)
        case "GLOBAL_POSITION_INT":
            sender.height(kind, message.relative_alt / 1000)
        case "VFR_HUD":
            sender.height(kind, message.alt)
        case "BATTERY_STATUS":
            sender.battery(message.id, volts_of(message), message.battery_function)
        case "GPS_GLOBAL_ORIGIN":
            m = message
            sender.origin = f"{m.latitude / 1e7:.7f} {m.longitude / 1e7:.7f} {m.altitude / 1000:.2f}"
        case "PARAM_VALUE":
            sender.parameters[str(message.param_id)] = message.param_value


def read(
    log: Tlog,
    name: str,
    progress: Callable[[float], None],
    system: int | None,
    surface_pa: float | None,
    density: float | None,
) -> tuple[LogBuilder, list[str]]:
    """Read the log of one system, twice, with notes on what was chosen. Raises UserError when it has no attitude."""
    senders = survey(log, lambda share: progress(share / 2))
    who = chosen(senders, system)
    if who is None:
        if system is not None and senders:
            raise UserError(f"{name}: no attitude of system {system} in it; there are: {listed(senders)}")
        raise UserError(f"{name}: no attitude in it: not a telemetry log of an autopilot, or cut off at its start")
    sender = senders[who]
    translation = TlogTranslation(who, vehicle(sender, surface_pa, density))
    for record in log:
        progress(0.5 + record.share / 2)
        translation.receive(record)
    translation.end()
    notes = []
    if len({number for (number, _), each in senders.items() if each.attitudes}) > 1:
        notes.append(f"vehicles in this log: system {listed(senders)}; taken: {who[0]}; --system takes another")
    if translation.clocks.jumps:
        notes.append(f"the ground station's clock jumped {translation.clocks.jumps} times; the autopilot's was used")
    return translation.builder, notes


class TlogTranslation:
    """The second reading: passes the messages of one vehicle to a LogBuilder."""

    def __init__(self, who: tuple[int, int], known: SurveyedVehicle):
        self.who, self.known = who, known
        self.clocks = BootClocks()
        self.builder = LogBuilder(known)
        self.texts: dict[tuple[tuple[int, int], int], list[Any]] = {}
        """Chunks of long texts, by (sender, text id)."""

    def receive(self, record: TlogRecord) -> None:
        """Translate one frame of any sender."""
        message, kind = record.frame.message, record.frame.message.get_type()
        if kind == "MANUAL_CONTROL":
            return self._sticks(record, message)
        if record.frame.sender == self.who:
            return self._own(record, kind, message)
        if record.frame.sender[0] == self.who[0] and kind in FROM_ANYBODY:
            t = self.known.timeline.since(self.clocks, record.wall)
            if t is not None:
                self._measured(kind, message, t, t)
                self._texts(record, kind, message, t)

    def _own(self, record: TlogRecord, kind: str, message: Any) -> None:
        if kind in STAMPED:
            stamp = message.time_boot_ms * MS
            t = self.known.timeline.at(self.clocks.assign(stamp, record.wall, record.frame.sequence), stamp)
            if t is None:
                self.builder.dropped["messages of another vehicle of this number, or with a wrong time"] += 1
                return
            self.builder.clock(t, record.wall)
        else:
            t = self.known.timeline.since(self.clocks, record.wall, record.frame.sequence)
            if t is None:
                return
        self._controlled(kind, message, t)
        self._measured(kind, message, t, t)
        self._texts(record, kind, message, t)

    def _controlled(self, kind: str, message: Any, t: int) -> None:
        """Add commands and thruster outputs."""
        match kind:
            case "HEARTBEAT" if message.type != GROUND_STATION:
                self.builder.arming(t, bool(message.base_mode & 128))  # MAV_MODE_FLAG_SAFETY_ARMED
                self.builder.moding(t, message.custom_mode)
            case "RC_CHANNELS" if not self.known.sticks:
                m = message
                self.builder.channels(t, m.chan3_raw, m.chan4_raw, m.chan5_raw, m.chan6_raw)
            case "SERVO_OUTPUT_RAW" if message.port == 0:
                self.builder.drive(t, [getattr(message, f"servo{n + 1}_raw") for n in range(OUTPUTS)])

    def _measured(self, kind: str, message: Any, measured_t: int, t: int) -> None:
        if kind == "STATUSTEXT":
            return
        fits = self.builder.telemetry.update(message, t, measured_t)
        if kind == "ATTITUDE":
            self.builder.state(t, fits)
        elif not fits:
            self.builder.dropped[f"{kind} out of any range"] += 1

    def _texts(self, record: TlogRecord, kind: str, message: Any, t: int) -> None:
        """Add a text once it is complete; texts of more than 50 characters come in chunks."""
        if kind != "STATUSTEXT":
            return
        number = getattr(message, "id", 0)
        if not number:
            return self.builder.add_text(t, level_of(message.severity), message.text)
        chunks = self.texts.setdefault((record.frame.sender, number), [])
        if message.chunk_seq == 0:
            self._end_text(chunks, t)
        chunks.append(message)
        if len(message.text) < 50:
            self._end_text(chunks, t)

    def _end_text(self, chunks: list[Any], t: int) -> None:
        if chunks:
            text = "".join(each.text for each in sorted(chunks, key=lambda each: int(each.chunk_seq)))
            self.builder.add_text(t, level_of(chunks[0].severity), text)
            chunks.clear()

    def end(self) -> None:
        """Add the texts whose last chunk never came."""
        for chunks in self.texts.values():
            self._end_text(chunks, self.builder.states[-1].t if self.builder.states else 0)

    def _sticks(self, record: TlogRecord, m: Any) -> None:
        """Add the pilot's sticks; z is 0..1000, 500 neutral, up positive."""
        if m.target not in (0, self.who[0]):
            return
        t = self.known.timeline.since(self.clocks, record.wall)
        if t is None:
            self.builder.dropped["sticks before the first telemetry"] += 1
            return
        x, y, z, r = [None if abs(each) > INVALID else each for each in (m.x, m.y, m.z, m.r)]
        axes = [None if each is None else each / 1000 for each in (x, y, r)]
        self.builder.stick(t, (axes[0], axes[1], None if z is None else (500 - z) / 500, axes[2]))
        self.builder.pressed(t, m.buttons | getattr(m, "buttons2", 0) << 16)
