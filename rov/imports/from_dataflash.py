"""An autopilot's own log (DataFlash, .BIN), read: by the same rules as MAVLink of a live vehicle.

Sources: ArduPilot's LogStructure.h and ArduSub's Log.cpp. What MAVLink calls SCALED_PRESSURE, 2 and 3 are the
barometers 0, 1 and 2 here; CTUN.Alt is the height above where it began, as relative_alt is.
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
"""Older logs have a record for each barometer; newer ones its number in `I`."""
HEIGHTS = {"CTUN.Alt": "Alt", "CTUN.BAlt": "BAlt"}
"""The filter's height, and the barometer's."""
WANTED = {"ATT", "IMU", "CTUN", "BAT", "CURR", "RCIN", "RCOU", "ARM", "MODE", "MSG", "ERR", "EV", "RFND", "POS", "GPS",
          "XKF1", "ORGN", "PARM", *BARO}  # fmt: skip
LEAK_SUBSYSTEM = 26
"""Of ERR: its leak failsafe; code 0 says that it is over."""
ARMED, DISARMED = 10, 11
"""EV of logs that have no ARM."""
GPS_EPOCH, WEEK_S, LEAP_S = 315_964_800, 604_800, 18
"""s: of GPS time in UTC, of a week, and what UTC is behind it by now."""
GOOD = 4
"""RFND.Stat of a distance that counts; older logs have none."""
CHANNELS = 14


def survey(log: DataFlash, progress: Callable[[float], None]) -> LogSystem:
    """What must be known before the log can be read."""
    speaker = LogSystem()
    for row in log:
        progress(row.share)
        speaker.messages += 1
        speaker.clocks.assign(row.stamp, None)
        try:
            _learn(speaker, row.kind, row.fields)
        except (KeyError, TypeError, ValueError):  # described otherwise than we know it; counted when it is heard
            continue
    return speaker


def _learn(speaker: LogSystem, kind: str, fields: dict[str, Any]) -> None:
    match kind:
        case "ATT":
            speaker.attitudes += 1
        case "BARO" | "BAR2" | "BAR3":
            if (number := fields.get("I", BARO[kind])) < len(BAROMETERS):
                speaker.pressure(BAROMETERS[number], fields["Press"])
        case "CTUN":
            for source, column in HEIGHTS.items():
                if column in fields:
                    speaker.height(source, fields[column])
        case "BAT" | "CURR":
            speaker.battery(battery_number(fields), fields["Volt"])
        case "ORGN":
            speaker.origin = f"{fields['Lat']:.7f} {fields['Lng']:.7f} {fields['Alt']:.2f}"
        case "PARM":
            speaker.parameters[fields["Name"]] = fields["Value"]


def battery_number(fields: dict[str, Any]) -> int:
    """`Inst` since ArduPilot 4.1, `Instance` before; before that there was one."""
    return int(fields.get("Inst", fields.get("Instance", 0)))


def read(
    log: DataFlash, name: str, progress: Callable[[float], None], surface_pa: float | None, density: float | None
) -> LogBuilder:
    """The log of the vehicle that wrote it. Raises UserError when there is nothing of it."""
    speaker = survey(log, lambda share: progress(share / 2))
    if not speaker.attitudes:
        raise UserError(f"{name}: no attitude in it: not a telemetry log of an autopilot, or cut off at its start")
    translation = DataFlashTranslation(vehicle(speaker, surface_pa, density))
    for row in log:
        progress(0.5 + row.share / 2)
        translation.receive(row)
    return translation.builder


class DataFlashTranslation:
    """The second reading."""

    def __init__(self, known: SurveyedVehicle):
        self.known = known
        self.clocks = BootClocks()
        self.builder = LogBuilder(known)
        self.rates = (0.0, 0.0, 0.0)

    def receive(self, row: DataFlashRecord) -> None:
        """One record."""
        t = self.known.timeline.at(self.clocks.assign(row.stamp, None), row.stamp)
        if t is None:
            self.builder.dropped["records with a wrong time"] += 1
            return
        try:
            fits = self._measured(row.kind, row.fields, t) and self._said(row.kind, row.fields, t)
        except (KeyError, TypeError, ValueError):
            self.builder.dropped[f"{row.kind} without what is looked for in it"] += 1
            return
        if not fits and row.kind != "ATT":
            self.builder.dropped[f"{row.kind} out of any range"] += 1

    def _measured(self, kind: str, fields: dict[str, Any], t: int) -> bool:
        """What becomes state; False where it makes no sense."""
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

    def _said(self, kind: str, fields: dict[str, Any], t: int) -> bool:
        """What becomes commands, outputs, events and UTC."""
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
