"""The first reading of a log: its senders, with their clocks, sensors, batteries and parameters."""

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
"""MAV_BATTERY_FUNCTION of batteries that do not drive the thrusters: avionics, payload."""
MOTORS = {33 + i: i for i in range(8)} | {82 + i: 8 + i for i in range(4)}
"""SERVOn_FUNCTION of a motor -> its index, 0 first."""
THRUSTERS = dict(zip(FRAMES, (6, 6, 8, 8, 3, 5), strict=True))


class Sample(NamedTuple):
    """One sensor reading with the clock that was current; `number` only grows, even when clocks restart."""

    clock: int
    number: int
    value: float


class LogSystem:
    """What must be known of one sender before its messages can be translated."""

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
        """Batteries with a voltage, by number: whether each drives the thrusters."""
        self.origin = ""
        """Latitude, longitude and height of the origin of its positions."""
        self.sticks = 0
        """Number of stick messages from a ground station."""

    def pressure(self, sensor: str, pascal: float) -> None:
        self.pressures[sensor].append(Sample(self.clocks.current, self.messages, pascal))

    def height(self, source: str, up: float) -> None:
        self.heights[source].append(Sample(self.clocks.current, self.messages, up))

    def battery(self, number: int, volts: float | None, function: int = 0) -> None:
        if volts:
            self.batteries[number] = function not in PAYLOAD

    @property
    def main_battery(self) -> int:
        """The lowest number of the batteries that drive the thrusters."""
        driving = [number for number, drives in self.batteries.items() if drives]
        return min(driving or self.batteries or (0,))

    def outputs(self) -> tuple[int, ...]:
        """Output channels (0 first) of the motors, motor 1 first; empty when the parameters do not show them."""
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
    """The vehicle whose messages are translated, as the first reading found it."""

    timeline: Timeline
    water: LogWater
    battery: int
    outputs: tuple[int, ...]
    origin: str
    """Latitude, longitude and height of the origin of its positions; "" where unknown."""
    sticks: bool
    """Whether the log has a ground station's sticks; RC channels are then not needed."""


def vehicle(sender: LogSystem, surface_pa: float | None, density: float | None) -> SurveyedVehicle:
    """Everything that the first reading found about this vehicle."""
    timeline = Timeline(sender.clocks)
    pressures, heights = (
        {name: [(each.number, each.value) for each in samples if each.clock in timeline.bases] for name, samples in of}
        for of in (sender.pressures.items(), sorted(sender.heights.items()))
    )
    judged = water(pressures, heights, sender.parameters, surface_pa, density)
    return SurveyedVehicle(timeline, judged, sender.main_battery, sender.outputs(), sender.origin, sender.sticks > 0)


def chosen(senders: Mapping[tuple[int, int], LogSystem], system: int | None) -> tuple[int, int] | None:
    """The sender that the log is about: one with attitudes (of `system`, if given), submarines first, then the one with
    most attitudes, then the first. None when there is none."""
    able = [who for who, each in senders.items() if each.attitudes and system in (None, who[0])]
    rank = {who: (senders[who].type == SUBMARINE, senders[who].attitudes) for who in able}
    return max(able, key=lambda who: rank[who], default=None)


def listed(senders: Mapping[tuple[int, int], LogSystem]) -> str:
    """The systems of a log that send attitudes, in words."""
    systems: dict[int, int] = {}
    for (number, _), each in senders.items():
        if each.attitudes:
            systems[number] = systems.get(number, 0) + each.attitudes
    return ", ".join(f"{number} ({count} attitudes)" for number, count in sorted(systems.items())) or "none"
