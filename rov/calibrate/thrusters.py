"""Fits a thruster's curve to measured points by gradient descent; and the test that turns each thruster alone, by hand.

The curve, per direction: no thrust within the dead band, then a cubic of the command beyond its edge, never falling.
`vehicle.thrusters` names the file.
"""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec
import numpy as np

from rov.errors import UserError
from rov.motion.thrusters import COMMANDS, NEUTRAL_US, SPAN_US, CurveFile, ThrustTable
from rov.types import Floats

POINTS_MIN = 6
"""Measured points per direction; fewer leave the four parameters of the curve to chance."""
STEPS, RATE = 3000, 0.02
"""Steps of the descent, and its initial rate: on the T200's points, more steps change no thrust by 0.01 N."""
DEADMAN_NS = 700_000_000
"""The key must repeat within this: a terminal repeats a held key first after 0.5 s, then about 30 times a second."""
TURN_MAX = 0.2
"""Largest command while turning by hand: 1580 µs, about 4 N of a T200 at 16 V."""
RAMP = 0.05
"""How fast that command grows while the key is held, full scales per second: slow enough to see where it starts."""


class Point(NamedTuple):
    """One measurement. Voltage and current are None where they were not measured."""

    pwm_us: float
    force_n: float
    voltage_v: float | None
    current_a: float | None


class DirectionFit(NamedTuple):
    """One direction of a thruster: thrust = x (a + b x + c x²) N, x = command beyond the dead band, at least 0."""

    edge: float
    cubic: tuple[float, float, float]

    def __call__(self, command: Floats) -> Floats:
        x = np.maximum(0.0, command - self.edge)
        a, b, c = self.cubic
        return np.maximum.accumulate(np.maximum(0.0, x * (a + x * (b + x * c))))


class ThrusterFit(NamedTuple):
    """The table at one voltage, its error (N) at the measured points, and the dead band (µs)."""

    table: ThrustTable
    rms_n: float
    worst_n: float
    points: int
    dead_us: tuple[float, float]


def read_points(path: Path) -> list[Point]:
    """Read a CSV with the columns pwm_us, force_n and, where measured, voltage_v, current_a. Raises UserError."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read as a CSV file: {error}") from None
    if not rows or not {"pwm_us", "force_n"} <= set(rows[0]):
        raise UserError(
            f"{path}: needs a first line with pwm_us,force_n and optionally voltage_v,current_a, then points"
        )
    points = []
    for line, row in enumerate(rows, 2):
        try:
            pwm, force = float(row["pwm_us"]), float(row["force_n"])
            voltage, current = (float(row[key]) if row.get(key) else None for key in ("voltage_v", "current_a"))
        except (TypeError, ValueError):
            raise UserError(f"{path}:{line}: is not a line of numbers") from None
        if not all(math.isfinite(each) for each in (pwm, force, voltage or 0.0, current or 0.0)):
            raise UserError(f"{path}:{line}: is not finite")
        if not NEUTRAL_US - SPAN_US <= pwm <= NEUTRAL_US + SPAN_US:
            raise UserError(f"{path}:{line}: {pwm:g} us is outside 1100 to 1900")
        points.append(Point(pwm, force, voltage, current))
    return points


def fit(points: list[Point], voltage_v: float, currents: Callable[[Floats, float], Floats]) -> list[ThrusterFit]:
    """Fit a table per voltage (rounded to 1 V; `voltage_v` where none was measured). `currents` (command, V) -> A is
    used where none were measured. Raises UserError for too few points or a wrong sign."""
    groups: defaultdict[float, list[Point]] = defaultdict(list)
    for point in points:
        groups[round(point.voltage_v if point.voltage_v is not None else voltage_v)].append(point)
    return [_fit_one(group, float(voltage), currents) for voltage, group in sorted(groups.items())]


def _fit_one(points: list[Point], voltage: float, currents: Callable[[Floats, float], Floats]) -> ThrusterFit:
    command = np.array([(point.pwm_us - NEUTRAL_US) / SPAN_US for point in points])
    force = np.array([point.force_n for point in points])
    directions, modelled, thrust = [], np.zeros_like(force), np.zeros_like(COMMANDS)
    for sign, name in ((1.0, "above"), (-1.0, "below")):
        mine = sign * command > 0
        if mine.sum() < POINTS_MIN:
            raise UserError(
                f"{int(mine.sum())} points {name} 1500 us at {voltage:g} V are too few: {POINTS_MIN} is the least"
            )
        if sign * force[mine].sum() <= 0:
            raise UserError(
                f"the thrust {name} 1500 us at {voltage:g} V has the wrong sign: more than 1500 us is ahead, positive"
            )
        direction = descend(sign * command[mine], sign * force[mine])
        order = np.argsort(sign * command[mine])
        fitted = np.empty(order.size)
        fitted[order] = direction(sign * command[mine][order])
        modelled[mine] = sign * fitted
        there = sign * COMMANDS > 0
        rising = COMMANDS[there][:: int(sign)]
        thrust[there] = sign * direction(sign * rising)[:: int(sign)]
        directions.append(direction)
    wrong = modelled - force
    current = _measured_currents(points, thrust)
    if current is None:
        current = currents(COMMANDS, voltage)
    table = ThrustTable(
        voltage_v=voltage,
        pwm_us=tuple(float(each) for each in np.round(NEUTRAL_US + SPAN_US * COMMANDS, 1)),
        force_n=tuple(float(each) for each in np.round(thrust, 3)),
        current_a=tuple(float(each) for each in np.round(current, 3)),
    )
    dead = NEUTRAL_US - SPAN_US * directions[1].edge, NEUTRAL_US + SPAN_US * directions[0].edge
    return ThrusterFit(table, math.sqrt(float(np.mean(wrong**2))), float(np.abs(wrong).max()), len(points), dead)


def _measured_currents(points: list[Point], thrust: Floats) -> Floats | None:
    """The current in A at each of COMMANDS, 0 where there is no thrust; None when no point has one."""
    measured = [
        ((point.pwm_us - NEUTRAL_US) / SPAN_US, point.current_a) for point in points if point.current_a is not None
    ]
    if not measured:
        return None
    at, amps = (np.array(each, float) for each in zip(*sorted(measured), strict=True))
    current = np.asarray(np.interp(COMMANDS, at, np.maximum(amps, 0.0)))
    current[thrust == 0] = 0.0
    return current


def descend(command: Floats, force: Floats) -> DirectionFit:
    """Fit one direction: commands (N,) 0..1 and thrusts (N,) in N that grow with them. Gradient descent on the mean
    squared error: Adam (Kingma & Ba 2015) on the edge and the cubic's three factors, its rate decaying to 0."""
    scale = float(np.abs(force).max()) or 1.0
    wanted = force / scale
    moving = command[wanted > 0.02]
    parts = np.array([max(0.0, float(moving.min()) - 0.02) if moving.size else 0.05, 0.3, 1.0, 0.0])
    mean, square = np.zeros(4), np.zeros(4)
    for step in range(1, STEPS + 1):
        edge, a, b, c = parts
        x = np.maximum(0.0, command - edge)
        wrong = x * (a + x * (b + x * c)) - wanted
        slopes = np.stack([-1.0 * (x > 0) * (a + x * (2 * b + x * 3 * c)), x, x**2, x**3])
        gradient = 2 * (slopes * wrong).mean(axis=1)
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        stride = mean / (1 - 0.9**step) / (np.sqrt(square / (1 - 0.999**step)) + 1e-12)
        parts = parts - RATE * (1 + math.cos(math.pi * step / STEPS)) / 2 * stride
        parts[0] = min(max(parts[0], 0.0), 0.5)
    return DirectionFit(float(parts[0]), (float(parts[1]) * scale, float(parts[2]) * scale, float(parts[3]) * scale))


def write(path: Path, source: str, fits: list[ThrusterFit]) -> None:
    """Write the curve file that `vehicle.thrusters` reads. Raises UserError."""
    file = CurveFile(source=source, table=tuple(each.table for each in fits))
    try:
        path.write_bytes(msgspec.toml.encode(file))
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from None


# ---- one thruster at a time --------------------------------------------------------------------------------------


class TurnLink(Protocol):
    """The part of a link that the turn test uses."""

    @property
    def live(self) -> bool: ...
    def send(self, values: tuple[float, ...], armed: bool, t: int) -> None: ...


class Verdict(NamedTuple):
    """What the person saw at one output: which thruster turned (0: none), whether in the right direction, and the
    commands (−1..1) ahead and astern at which it began."""

    output: int
    turned: int
    ahead: bool
    starts: tuple[float | None, float | None]


class TurnTest:
    """Turns one output, and only while a key is held. Call `step` at the link's rate; time in ns.

    Keys: hold f for ahead, b for astern; m marks where it begins to turn. Enter: the right thruster in the right
    direction; r: the right one in the wrong direction; 1 to 9: that one turned instead; n: none did; q: end.
    """

    def __init__(self, outputs: int):
        self.outputs = outputs
        self.output = 0
        self.verdicts: list[Verdict] = []
        self.aborted = False
        self.direction, self.command = 1, 0.0
        self.held_t: int | None = None
        self.starts: list[float | None] = [None, None]

    @property
    def done(self) -> bool:
        return self.aborted or self.output >= self.outputs

    def press(self, key: str, t: int) -> None:
        """Handle a key that was pressed, or repeated, at `t`."""
        if self.done:
            return
        if key in ("f", "b"):
            direction = 1 if key == "f" else -1
            if direction != self.direction:
                self.direction, self.command = direction, 0.0
            self.held_t = t
        elif key == "m" and self.command:
            self.starts[0 if self.command > 0 else 1] = self.command
        elif key == "q":
            self.aborted = True
        elif key in ("\r", "\n", "r", "n") or (key.isdecimal() and 0 < int(key) <= self.outputs):
            turned = int(key) if key.isdecimal() else 0 if key == "n" else self.output + 1
            self.verdicts.append(Verdict(self.output + 1, turned, key != "r", (self.starts[0], self.starts[1])))
            self.output += 1
            self._begin()
        else:  # any other key stops
            self.held_t = None

    def step(self, t: int, dt: float) -> tuple[float, ...]:
        """The command to send now, one value per output: at most one is not 0, and that only while a key is held."""
        held = self.held_t is not None and t - self.held_t < DEADMAN_NS and not self.done
        self.command = self.direction * min(abs(self.command) + RAMP * dt, TURN_MAX) if held else 0.0
        return tuple(self.command if each == self.output else 0.0 for each in range(self.outputs))

    def _begin(self) -> None:
        self.direction, self.command, self.held_t, self.starts = 1, 0.0, None, [None, None]


def advice(verdicts: list[Verdict]) -> list[str]:
    """What to change on the vehicle: one sentence for each output that is not as the frame requires."""
    sentences = []
    for each in verdicts:
        if each.turned == 0:
            sentences.append(f"output {each.output}: nothing turned; check its ESC, its plug and its propeller")
        elif each.turned != each.output:
            sentences.append(
                f"output {each.output} turns thruster {each.turned}: plug that one into output {each.turned}"
            )
        elif not each.ahead:
            sentences.append(f"thruster {each.output} turns the wrong way: swap two of its three wires")
    return sentences
