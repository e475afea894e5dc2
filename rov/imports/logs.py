"""What an autopilot's log says of the vehicle and its pilot: a `.tlog` of the ground station, or a `.BIN` of ArduSub.

Times are ns since the autopilot booted: its own clock, which nobody sets. What carries no such stamp (the pilot's
sticks, the heartbeat) gets the time of the last message that did, plus what passed since on the ground station's clock,
unless that clock jumped. pymavlink reads the files; what it cannot read is counted.
"""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from pymavlink import DFReader, mavutil

from rov.errors import UserError
from rov.messages import AnyCommand, Arm, Disarm, Mode, SetMode, Sticks, VehicleState
from rov.vision.footage import must_be_file

MS, US = 1_000_000, 1_000
"""In ns."""
SINCE_MAX_NS = 2_000 * MS
"""A message without a stamp is at most this much later than the last stamped one; more is a clock that jumped."""
RESTART_NS = 5_000 * MS
"""A stamp this far back is an autopilot that started anew; one less far is a message that came late."""
AUTOPILOT = 1
"""Component number of the autopilot."""
SESSION = "log"
"""Whose commands these are."""
MODES = {0: Mode.MANUAL, 1: Mode.MANUAL, 2: Mode.HOLD, 9: Mode.SURFACE, 16: Mode.HOLD, 19: Mode.MANUAL, 21: Mode.HOLD}
"""ArduSub's STABILIZE, ACRO, ALT_HOLD, SURFACE, POSHOLD, MANUAL, SURFTRAK; GUIDED, AUTO and CIRCLE are no pilot's."""
MODE_NAMES = {0: "STABILIZE", 1: "ACRO", 2: "ALT_HOLD", 3: "AUTO", 4: "GUIDED", 7: "CIRCLE", 9: "SURFACE",
              16: "POSHOLD", 19: "MANUAL", 20: "MOTOR_DETECT", 21: "SURFTRAK"}  # fmt: skip
RC_NEUTRAL, RC_SPAN = 1500.0, 400.0
"""µs."""
DEPTHS_M = (-20.0, 11_000.0)
"""Depths that are believed; a barometer in air reads a few metres off, above the water."""


class Log(NamedTuple):
    """One log. `states` and `commands` are in order of time; `dropped` counts what was left out, by reason."""

    path: Path
    states: list[VehicleState]
    commands: list[AnyCommand]
    dropped: Counter[str]
    notes: list[str]

    @property
    def first_t(self) -> int:
        return min(each[0].t for each in (self.states, self.commands) if each)


def read(path: Path, progress: Callable[[float], None] = lambda share: None) -> Log:
    """Read a `.tlog` or `.BIN`. `progress` hears the share done. Raises UserError when there is no telemetry in it."""
    must_be_file(path)
    reader = _Reader(path)
    try:
        messages = _bin(path) if path.suffix.lower() == ".bin" else _tlog(path)
        hear = reader.bin if path.suffix.lower() == ".bin" else reader.tlog
        for share, message in messages:
            kind = message.get_type()
            if kind == "BAD_DATA":
                reader.dropped["BAD_DATA: bytes that are no message, or one with a wrong checksum"] += 1
            elif not kind.startswith("UNKNOWN"):
                hear(kind, message)
            progress(share)
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, EOFError, struct.error) as error:
        # pymavlink's parsers stumble like this over what is no log; what was read until then counts
        reader.notes.append(f"reading ended early, at something that is no log: {type(error).__name__}")
    if not reader.states:
        raise UserError(f"{path}: no attitude in it: not a telemetry log of an autopilot, or cut off at its start")
    if reader.jumps:
        reader.notes.append(f"the ground station's clock jumped {reader.jumps} times; the autopilot's was used")
    commands = [msgspec.structs.replace(each, seq=number) for number, each in enumerate(reader.commands)]
    return Log(path, reader.states, commands, reader.dropped, reader.notes)


def _tlog(path: Path) -> Iterator[tuple[float, Any]]:
    log = mavutil.mavlogfile(str(path), robust_parsing=True, planner_format=False)
    try:
        while (message := log.recv_msg()) is not None:
            yield log.percent / 100, message
    finally:
        log.close()


def _bin(path: Path) -> Iterator[tuple[float, Any]]:
    log = DFReader.DFReader_binary(str(path))
    try:
        while (message := log.recv_msg()) is not None:
            yield log.percent / 100, message
    finally:
        log.close()


class _Reader:
    """Puts a log's messages together."""

    def __init__(self, path: Path):
        self.path = path
        self.states: list[VehicleState] = []
        self.commands: list[AnyCommand] = []
        self.dropped: Counter[str] = Counter()
        self.notes: list[str] = []
        self.known: dict[str, Any] = {}
        """Everything of VehicleState that was heard so far."""
        self.t = -1
        """Of the newest stamped message."""
        self.base = 0
        """Added to stamps: grows when the autopilot starts anew."""
        self.wall: float | None = None
        """The ground station's clock at the newest stamped message, s."""
        self.jumps = 0
        self.mode = -1
        self.sticks = False
        """Whether the pilot's own sticks were heard: what the receiver makes of them is then not needed."""

    # ---- time ----------------------------------------------------------------------------------------------------

    def stamped(self, stamp_ns: int, wall: float | None) -> int:
        """The time of a message with a stamp."""
        t = self.base + stamp_ns
        if t < self.t - RESTART_NS:
            self.notes.append(f"the autopilot started anew {self.t / 1e9:.1f} s after its first start")
            self.base += self.t - t + 1_000 * MS
            t = self.base + stamp_ns
        if t >= self.t:
            if self.wall is not None and wall is not None and abs((wall - self.wall) - (t - self.t) / 1e9) > 5.0:
                self.jumps += 1
            self.t, self.wall = t, wall
        return t

    def arrived(self, wall: float) -> int | None:
        """The time of a message without a stamp; None while there is nothing to place it by."""
        if self.t < 0 or self.wall is None:
            return None
        since = int((wall - self.wall) * 1e9)
        return self.t + min(max(since, 0), SINCE_MAX_NS)

    # ---- what both kinds say -------------------------------------------------------------------------------------

    def know(self, what: str, **news: Any) -> None:
        """Take in what is finite."""
        if all(math.isfinite(value) for value in news.values() if isinstance(value, float)):
            self.known.update(news)
        else:
            self.dropped[f"{what}: not finite"] += 1

    def attitude(self, t: int, angles: tuple[float, float, float], rates: tuple[float, float, float]) -> None:
        """Each attitude makes a state of everything known."""
        if not all(map(math.isfinite, (*angles, *rates))):
            self.dropped["attitude: not finite"] += 1
        elif self.states and t <= self.states[-1].t:
            self.dropped["attitude: not newer than the one before"] += 1
        else:
            roll, pitch, yaw = angles
            self.states.append(
                VehicleState(t=t, attitude_t=t, roll=roll, pitch=pitch, yaw=yaw, rates=rates, **self.known)
            )

    def depth(self, t: int, depth: float) -> None:
        if DEPTHS_M[0] < depth < DEPTHS_M[1]:
            self.know("depth", depth_t=t, depth=depth)
        else:
            self.dropped["depth: out of any range"] += 1

    def armed(self, t: int, armed: bool) -> None:
        if armed != self.known.get("armed"):
            kind: Any = Arm if armed else Disarm
            self.command(kind(t=t, session=SESSION, seq=0))
            self.known["armed"] = armed

    def moded(self, t: int, number: int) -> None:
        if number == self.mode:
            return
        self.mode = number
        if number in MODES:
            self.command(SetMode(t=t, session=SESSION, seq=0, mode=MODES[number]))
        else:
            self.notes.append(f"mode {MODE_NAMES.get(number, number)} at {t / 1e9:.1f} s is none of ours: left out")

    def stick(self, t: int, surge: float, sway: float, heave: float, yaw: float) -> None:
        values = [min(max(each, -1.0), 1.0) for each in (surge, sway, heave, yaw)]
        surge, sway, heave, yaw = values
        self.command(Sticks(t=t, session=SESSION, seq=0, surge=surge, sway=sway, heave=heave, yaw=yaw))

    def command(self, command: AnyCommand) -> None:
        """Take one; one that arrived out of order counts as said when the one before it was."""
        t = max(command.t, self.commands[-1].t) if self.commands else command.t
        self.commands.append(msgspec.structs.replace(command, t=t))

    def channels(self, t: int, throttle: float, yaw: float, forward: float, lateral: float) -> None:
        """The pilot's sticks as the receiver's channels have them, µs."""
        if all(800 <= each <= 2200 for each in (throttle, yaw, forward, lateral)):
            up, right, ahead, side = ((each - RC_NEUTRAL) / RC_SPAN for each in (throttle, yaw, forward, lateral))
            self.stick(t, ahead, side, -up, right)

    # ---- a .tlog -------------------------------------------------------------------------------------------------

    def tlog(self, kind: str, m: Any) -> None:
        """One MAVLink message of the ground station's log."""
        wall = float(m._timestamp)
        if kind == "MANUAL_CONTROL":
            t = self.arrived(wall)
            if t is None:
                self.dropped["sticks before the first telemetry"] += 1
                return
            if not self.sticks:
                self.sticks, self.commands = True, [each for each in self.commands if not isinstance(each, Sticks)]
            self.stick(
                t, m.x / 1000, m.y / 1000, -(m.z - 500) / 500, m.r / 1000
            )  # z: 0..1000, 500 neutral, up positive
            return
        if m.get_srcComponent() != AUTOPILOT:
            return
        if kind == "ATTITUDE":
            t = self.stamped(m.time_boot_ms * MS, wall)
            self.attitude(t, (m.roll, m.pitch, m.yaw), (m.rollspeed, m.pitchspeed, m.yawspeed))
        elif kind == "HEARTBEAT":
            if (t := self.arrived(wall)) is not None:
                self.armed(t, bool(m.base_mode & mavutil.mavlink.MAV_MODE_FLAG_SAFETY_ARMED))
                self.moded(t, m.custom_mode)
        elif kind == "VFR_HUD":
            if (t := self.arrived(wall)) is not None:
                self.depth(t, -float(m.alt))
        elif kind == "SYS_STATUS":
            if m.voltage_battery not in (0, 0xFFFF):
                self.know("battery", battery_v=m.voltage_battery / 1e3)
        elif kind == "SCALED_PRESSURE":  # the first one sits in the hull
            self.stamped(m.time_boot_ms * MS, wall)
            self.know("hull", hull_pressure_kpa=m.press_abs / 10, hull_temperature_c=m.temperature / 100)
        elif kind == "RC_CHANNELS" and not self.sticks:
            t = self.stamped(m.time_boot_ms * MS, wall)
            self.channels(t, m.chan3_raw, m.chan4_raw, m.chan5_raw, m.chan6_raw)
        elif kind == "STATUSTEXT" and "leak" in str(m.text).lower():
            self.know("leak", leak=True)

    # ---- a .BIN --------------------------------------------------------------------------------------------------

    def bin(self, kind: str, m: Any) -> None:
        """One record of the autopilot's own log."""
        stamp = getattr(m, "TimeUS", None)
        if stamp is None:
            return
        t = self.stamped(int(stamp) * US, None)
        if kind == "IMU" and getattr(m, "I", 0) == 0:
            self.rates = (float(m.GyrX), float(m.GyrY), float(m.GyrZ))
        elif kind == "ATT":
            roll, pitch, yaw = (math.radians(float(each)) for each in (m.Roll, m.Pitch, m.Yaw))
            yaw = (yaw + math.pi) % (2 * math.pi) - math.pi
            self.attitude(t, (roll, pitch, yaw), getattr(self, "rates", (0.0, 0.0, 0.0)))
        elif kind == "CTUN":
            self.depth(t, -float(m.Alt))
        elif kind == "BAT" and getattr(m, "Instance", 0) == 0:
            self.know("battery", battery_v=float(m.Volt))
        elif kind == "RCIN":
            self.channels(t, m.C3, m.C4, m.C5, m.C6)
        elif kind == "ARM":
            self.armed(t, bool(m.ArmState))
        elif kind == "MODE":
            self.moded(t, int(m.ModeNum))
