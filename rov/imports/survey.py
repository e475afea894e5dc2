"""The first reading of a log: who speaks in it, on which clocks, with which sensors and batteries."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

from rov.imports.clocks import BootClocks, Timeline
from rov.imports.water import LogWater, water
from rov.link.ardusub.firmware import FRAMES

SUBMARINE, GROUND_STATION = 12, 6
"""MAV_TYPE."""
PAYLOAD = (3, 4)
"""MAV_BATTERY_FUNCTION of batteries that drive nothing: avionics, payload."""
MOTORS = {33 + i: i for i in range(8)} | {82 + i: 8 + i for i in range(4)}
"""SERVOn_FUNCTION of a motor, and which (0 first)."""
THRUSTERS = dict(zip(FRAMES, (6, 6, 8, 8, 3, 5), strict=True))


class Sample(NamedTuple):
    """One reading, of the clock that went then; `number` only grows in a log, whatever its clocks do."""

    clock: int
    number: int
    value: float


class LogSystem:
    """What one sender of a log said that must be known before the rest of it can be read."""

    def __init__(self) -> None:
        self.clocks = BootClocks()
        self.messages = self.attitudes = 0
        self.type = -1
        """MAV_TYPE of its heartbeat; −1 without."""
        self.autopilot = False
        self.pressures: defaultdict[str, list[Sample]] = defaultdict(list)
        self.heights: defaultdict[str, list[Sample]] = defaultdict(list)
        self.parameters: dict[str, float] = {}
        self.batteries: dict[int, bool] = {}
        """Those that know their voltage, by number: does it drive the vehicle?"""
        self.origin = ""
        """Latitude, longitude and height of the zero of its positions."""
        self.sticks = 0
        """How often a ground station steered it."""

    def pressure(self, sensor: str, pascal: float) -> None:
        self.pressures[sensor].append(Sample(self.clocks.current, self.messages, pascal))

    def height(self, source: str, up: float) -> None:
        self.heights[source].append(Sample(self.clocks.current, self.messages, up))

    def battery(self, number: int, volts: float | None, function: int = 0) -> None:
        if volts:
            self.batteries[number] = function not in PAYLOAD

    @property
    def main_battery(self) -> int:
        """The lowest number of those that drive it."""
        driving = [number for number, drives in self.batteries.items() if drives]
        return min(driving or self.batteries or (0,))

    def outputs(self) -> tuple[int, ...]:
        """Output channels (0 first) of the motors, motor 1 first; empty when its parameters do not say."""
        found = {}
        for channel in range(16):
            function = self.parameters.get(f"SERVO{channel + 1}_FUNCTION", 0)
            if function in MOTORS:
                found[MOTORS[int(function)]] = channel
        if found:
            return tuple(channel for _, channel in sorted(found.items()))
        frame = self.parameters.get("FRAME_CONFIG", -1)
        return tuple(range(THRUSTERS[FRAMES[int(frame)]])) if 0 <= frame < len(FRAMES) else ()


class SurveyedVehicle(NamedTuple):
    """Whom a log is read for, and what is known of it beforehand."""

    timeline: Timeline
    water: LogWater
    battery: int
    outputs: tuple[int, ...]
    origin: str
    """Latitude, longitude and height of the zero of its positions; "" where it does not say."""
    sticks: bool
    """Whether a ground station's own sticks are in the log: what a receiver makes of them is then not needed."""


def vehicle(speaker: LogSystem, surface_pa: float | None, density: float | None) -> SurveyedVehicle:
    """Everything that the first reading found about this one."""
    timeline = Timeline(speaker.clocks)
    pressures, heights = (
        {name: [(each.number, each.value) for each in samples if each.clock in timeline.bases] for name, samples in of}
        for of in (speaker.pressures.items(), sorted(speaker.heights.items()))
    )
    judged = water(pressures, heights, speaker.parameters, surface_pa, density)
    return SurveyedVehicle(
        timeline, judged, speaker.main_battery, speaker.outputs(), speaker.origin, speaker.sticks > 0
    )


def chosen(speakers: Mapping[tuple[int, int], LogSystem], system: int | None) -> tuple[int, int] | None:
    """The sender that the log is of: one with attitudes, a submarine before others, then the one heard most, then
    first. None when there is none, of this system if one is named."""
    able = [who for who, each in speakers.items() if each.attitudes and system in (None, who[0])]
    rank = {who: (speakers[who].type == SUBMARINE, speakers[who].attitudes) for who in able}
    return max(able, key=lambda who: rank[who], default=None)


def listed(speakers: Mapping[tuple[int, int], LogSystem]) -> str:
    """The systems of a log that could be its vehicle, in words."""
    systems: dict[int, int] = {}
    for (number, _), each in speakers.items():
        if each.attitudes:
            systems[number] = systems.get(number, 0) + each.attitudes
    return ", ".join(f"{number} ({count} attitudes)" for number, count in sorted(systems.items())) or "none"
