"""Translates an autopilot's own log (DataFlash, .BIN) by the same rules as MAVLink of a live vehicle.

Sources: ArduPilot's LogStructure.h and ArduSub's Log.cpp. The barometers 0, 1 and 2 of the log are
MAVLink's SCALED_PRESSURE, SCALED_PRESSURE2 and SCALED_PRESSURE3; CTUN.Alt is the height above the start, like
relative_alt.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from rov.errors import UserError
from rov.imports.clocks import BootClocks
from rov.imports.dataflash import DataFlash, DataFlashRecord
from rov.imports.log_builder import LogBuilder
from rov.imports.survey import LogSystem, SurveyedVehicle, vehicle

BAROMETERS = ("SCALED_PRESSURE", "SCALED_PRESSURE2", "SCALED_PRESSURE3")
BARO = {"BARO": 0, "BAR2": 1, "BAR3": 2}
"""Older logs have a kind of record per barometer; newer ones have its number in `I`."""
HEIGHTS = {"CTUN.Alt": "Alt", "CTUN.BAlt": "BAlt"}
"""The filter's height, and the barometer's."""
WANTED = {"ATT", "IMU", "CTUN", "BAT", "CURR", "RCIN", "RCOU", "ARM", "MODE", "MSG", "ERR", "EV", "RFND", "POS", "GPS",
          "XKF1", "ORGN", "PARM", *BARO}  # fmt: skip
LEAK_SUBSYSTEM = 26
"""ERR subsystem of the leak failsafe; code 0 means that it has ended."""
ARMED, DISARMED = 10, 11
"""EV ids, for logs without ARM records."""
GPS_EPOCH, WEEK_S, LEAP_S = 315_964_800, 604_800, 18
"""In s: start of GPS time in UTC, a week, and the leap seconds that UTC is behind GPS time."""
GOOD = 4
"""RFND.Stat of a valid distance; older logs do not have it."""
CHANNELS = 14


def survey(log: DataFlash, progress: Callable[[float], None]) -> LogSystem:
    """The first reading: what must be known before the records can be translated."""
    sender = LogSystem()
    for row in log:
        progress(row.share)
        sender.messages += 1
        sender.clocks.assign(row.stamp, None)
        try:
            _learn(sender, row.kind, row.fields)
        except (KeyError, TypeError, ValueError):  # an unknown layout; counted in the second reading
            continue
    return sender


def _learn(sender: LogSystem, kind: str, fields: dict[str, Any]) -> None:
    match kind:
        case "ATT":
            sender.attitudes += 1
        case "BARO" | "BAR2" | "BAR3":
            if (number := fields.get("I", BARO[kind])) < len(BAROMETERS):
                sender.pressure(BAROMETERS[number], fields["Press"])
        case "CTUN":
            for source, column in HEIGHTS.items():
                if column in fields:
                    sender.height(source, fields[column])
        case "BAT" | "CURR":
            sender.battery(battery_number(fields), fields["Volt"])
        case "ORGN":
            sender.origin = f"{fields['Lat']:.7f} {fields['Lng']:.7f} {fields['Alt']:.2f}"
        case "PARM":
            sender.parameters[fields["Name"]] = fields["Value"]


def battery_number(fields: dict[str, Any]) -> int:
    """`Inst` since ArduPilot 4.1, `Instance` before, neither in logs with a single battery."""
    return int(fields.get("Inst", fields.get("Instance", 0)))


def read(
    log: DataFlash, name: str, progress: Callable[[float], None], surface_pa: float | None, density: float | None
) -> LogBuilder:
    """Read the whole log, twice. Raises UserError when it has no attitude."""
    sender = survey(log, lambda share: progress(share / 2))
    if not sender.attitudes:
        raise UserError(f"{name}: no attitude in it: not a telemetry log of an autopilot, or cut off at its start")
    translation = DataFlashTranslation(vehicle(sender, surface_pa, density))
    for row in log:
        progress(0.5 + row.share / 2)
        translation.receive(row)
    return translation.builder


class DataFlashTranslation:
    """The second reading: passes each record to a LogBuilder."""

    def __init__(self, known: SurveyedVehicle):
        self.known = known
        self.clocks = BootClocks()
        self.builder = LogBuilder(known)
        self.rates = (0.0, 0.0, 0.0)

    def receive(self, row: DataFlashRecord) -> None:
        """Translate one record; what is malformed or out of range is counted as dropped."""
        t = self.known.timeline.at(self.clocks.assign(row.stamp, None), row.stamp)
        if t is None:
            self.builder.dropped["records with a wrong time"] += 1
            return
        try:
            fits = self._measured(row.kind, row.fields, t) and self._logged(row.kind, row.fields, t)
        except (KeyError, TypeError, ValueError):
            self.builder.dropped[f"{row.kind} without what is looked for in it"] += 1
            return
        if not fits and row.kind != "ATT":
            self.builder.dropped[f"{row.kind} out of any range"] += 1

    def _measured(self, kind: str, fields: dict[str, Any], t: int) -> bool:
        """Update the vehicle's state; False when a value is out of range."""
        telemetry = self.builder.telemetry
        match kind:
            case "IMU" if fields.get("I", 0) == 0:
                self.rates = (fields["GyrX"], fields["GyrY"], fields["GyrZ"])
            case "ATT":
                roll, pitch, yaw = (math.radians(fields[each]) for each in ("Roll", "Pitch", "Yaw"))
                yaw = (yaw + math.pi) % (2 * math.pi) - math.pi if math.isfinite(yaw) else yaw
                self.builder.state(t, telemetry.attitude((roll, pitch, yaw), self.rates, t))
            case "BARO" | "BAR2" | "BAR3":
                number = fields.get("I", BARO[kind])
                celsius = fields.get("Temp", math.nan)
                return number >= len(BAROMETERS) or telemetry.pressure(
                    BAROMETERS[number], fields["Press"], celsius, t, t
                )
            case "CTUN":
                return all(telemetry.height(s, fields[c], t, t) for s, c in HEIGHTS.items() if c in fields)
            case "BAT" | "CURR":
                return telemetry.battery(battery_number(fields), fields["Volt"] or None, t)
            case "RFND" if fields.get("Stat", GOOD) == GOOD:
                distance = fields["Dist"] if "Dist" in fields else fields["Dist1"]
                return telemetry.range(fields.get("Orient", 25), distance, t) or distance == 0
            case "POS":
                return telemetry.place(fields["Lat"], fields["Lng"])
            case "XKF1" if fields.get("C", 0) == 0:
                return telemetry.position(fields["PN"], fields["PE"], t)
        return True

    def _logged(self, kind: str, fields: dict[str, Any], t: int) -> bool:
        """Add commands, thruster outputs, events and UTC."""
        builder = self.builder
        match kind:
            case "RCIN":
                builder.channels(t, *(fields[f"C{n}"] for n in (3, 4, 5, 6)))
            case "RCOU":
                builder.drive(t, [fields.get(f"C{n + 1}", 0) for n in range(CHANNELS)])
            case "ARM":
                builder.arming(t, bool(fields["ArmState"]))
            case "EV" if fields["Id"] in (ARMED, DISARMED):
                builder.arming(t, fields["Id"] == ARMED)
            case "MODE":
                builder.moding(t, int(fields["ModeNum"] if "ModeNum" in fields else fields["Mode"]))
            case "MSG":
                builder.add_text(t, "info", fields["Message"])
            case "ERR":
                self._failed(t, fields["Subsys"], fields["ECode"])
            case "GPS" if fields.get("GWk", 0) > 1000:
                utc = GPS_EPOCH + fields["GWk"] * WEEK_S + fields["GMS"] / 1000 - LEAP_S
                builder.clock(t, utc)
        return True

    def _failed(self, t: int, subsystem: int, code: int) -> None:
        if subsystem == LEAK_SUBSYSTEM:
            self.builder.telemetry.leak(code != 0)
        level = "alarm" if subsystem == LEAK_SUBSYSTEM and code else "warning"
        self.builder.event(t, level, "autopilot_error", f"subsystem {subsystem}, code {code}")
