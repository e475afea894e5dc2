"""Thruster curves: thrust and current of a command at a battery voltage, and the command for a wanted thrust.

A command is −1..1 on the wire, 1100..1900 µs. Thrust is far from linear in it, has a dead band, is weaker astern, and
grows with the voltage. The inverse makes it linear, so that allocated forces keep their direction.
"""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import numpy as np

from rov import toml
from rov.errors import UserError
from rov.types import Floats

NEUTRAL_US, SPAN_US = 1500.0, 400.0
"""Pulse width of command 0, and from there to ±1 (Blue Robotics Basic ESC)."""
CELL_FULL_V = 4.2
"""A full lithium-ion cell. Assumed where the voltage is unknown, because that commands the least."""
CREEP_N = 0.1
"""Wanted thrusts below this, in N, give commands inside the dead band, in proportion, so that noise around zero does
not jump across it. The least measured thrust is 0.4 N."""
COMMANDS: Floats = np.linspace(-1.0, 1.0, 201)
"""The grid of all curves: 0.01 is 4 µs, the spacing of the published tables."""


class CurveError(UserError):
    """A thruster curve cannot be used."""


class ThrustTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Thrust and current at one voltage, as measured."""

    voltage_v: float
    pwm_us: tuple[float, ...]
    force_n: tuple[float, ...]
    current_a: tuple[float, ...]


class CurveFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A thruster curve file."""

    source: str
    table: tuple[ThrustTable, ...]


class Curve:
    """The curves of one thruster: forces (V, 201) in N and currents (V, 201) in A at `voltages` (V,) over COMMANDS."""

    def __init__(self, voltages: Floats, forces: Floats, currents: Floats, full_v: float):
        self.voltages = voltages
        self.forces = np.stack([_monotone(row) for row in forces])
        self.currents = currents
        self.full_v = full_v
        self._inverses: dict[tuple[float | None, float], tuple[float, Floats, Floats]] = {}

    def force(self, command: Floats | float, voltage: float | None) -> Floats:
        """Thrust in N of commands −1..1; ahead positive."""
        return np.asarray(np.interp(command, COMMANDS, self._at(self.forces, voltage)))

    def current(self, command: Floats | float, voltage: float | None) -> Floats:
        """Current in A of commands −1..1."""
        return np.asarray(np.interp(command, COMMANDS, self._at(self.currents, voltage)))

    def reference(self, voltage: float | None, limit: float = 1.0) -> float:
        """The thrust in N that commands within ±`limit` reach both ways: the weaker one, astern on a T200."""
        return min(float(self.force(limit, voltage)), -float(self.force(-limit, voltage)))

    def command(self, fraction: Floats | float, voltage: float | None, limit: float = 1.0) -> Floats:
        """The commands within ±`limit` for fractions −1..1 of `reference`. Monotone, sign kept, 0 is exactly neutral.

        One reference for both ways and all thrusters keeps the direction of the wrench exact; the extra thrust ahead
        is not used. A NaN passes through: the guard catches it.
        """
        voltage = None if voltage is None else round(voltage, 2)  # so that mV of noise need no new inverse
        return self.commands_for(np.asarray(fraction) * self._inverted(voltage, limit)[0], voltage, limit)

    def commands_for(self, thrust: Floats, voltage: float | None, limit: float = 1.0) -> Floats:
        """The commands within ±`limit` for thrusts in N; less where dead band or limit prevent that, never more."""
        _, thrusts, commands = self._inverted(voltage, limit)
        command = np.interp(thrust, thrusts, commands).clip(-limit, limit)
        # for a thrust just below 0, rounding in `interp` can give a command above 0
        return np.asarray(np.where(np.sign(command) * np.sign(thrust) < 0, 0.0, command))

    def _inverted(self, voltage: float | None, limit: float) -> tuple[float, Floats, Floats]:
        """The inverse at a voltage. That changes slowly, so the last two are cached: the pilot's and its guard's."""
        key = (voltage, limit)
        if key not in self._inverses:
            self._inverses = dict([*self._inverses.items()][-1:]) | {key: self._inverse(*key)}
        return self._inverses[key]

    def _inverse(self, voltage: float | None, limit: float) -> tuple[float, Floats, Floats]:
        """The reference, and thrusts from full astern to full ahead with their commands."""
        forces = self._at(self.forces, voltage)
        middle = forces.size // 2
        ahead, up = _one_way(forces[middle:])
        astern, down = _one_way(-forces[middle::-1])
        thrusts = np.concatenate([-astern[:0:-1], ahead])
        return self.reference(voltage, limit), thrusts, np.concatenate([-down[:0:-1], up])

    def _at(self, rows: Floats, voltage: float | None) -> Floats:
        """(V, 201) -> (201,) interpolated at a voltage, clamped to those of the tables."""
        if voltage is None or not math.isfinite(voltage) or voltage <= 0:
            voltage = self.full_v
        place = float(np.interp(voltage, self.voltages, np.arange(self.voltages.size)))
        low = min(int(place), self.voltages.size - 1)
        high = min(low + 1, self.voltages.size - 1)
        return np.asarray(rows[low] + (place - low) * (rows[high] - rows[low]))


def load(path: Path, cells: int) -> Curve:
    """Read a curve file, for a battery of `cells` in series. Raises CurveError."""
    try:
        file = toml.load(path, CurveFile)
    except OSError as error:
        raise CurveError(f"{path}: cannot be read: {error.strerror}") from None
    except toml.TomlError as error:
        raise CurveError(str(error)) from None
    voltages = np.array([table.voltage_v for table in file.table])
    if not voltages.size or not np.all(np.diff(voltages, prepend=0.0) > 0):
        raise CurveError(f"{path}: needs one [[table]] per voltage_v, from the lowest up")
    grids = [_gridded(path, table) for table in file.table]
    forces, currents = (np.stack(rows) for rows in zip(*grids, strict=True))
    return Curve(voltages, forces, currents, CELL_FULL_V * cells)


def _gridded(path: Path, table: ThrustTable) -> tuple[Floats, Floats]:
    """A table's force and current over COMMANDS."""
    where = f"{path}: table at {table.voltage_v:g} V"
    pwm, force, current = (np.array(column) for column in (table.pwm_us, table.force_n, table.current_a))
    if not pwm.size == force.size == current.size or not np.isfinite([pwm, force, current]).all():
        raise CurveError(f"{where}: pwm_us, force_n and current_a must have the same number of finite values")
    if not np.all(np.diff(pwm) > 0) or pwm[0] > NEUTRAL_US - SPAN_US or pwm[-1] < NEUTRAL_US + SPAN_US:
        raise CurveError(f"{where}: pwm_us must rise, and cover 1100..1900")
    grid = NEUTRAL_US + SPAN_US * COMMANDS
    forces = np.interp(grid, pwm, force)
    if forces[COMMANDS.size // 2] != 0 or forces[0] >= 0 or forces[-1] <= 0:
        raise CurveError(f"{where}: force_n must be 0 at 1500 us, negative below and positive above")
    return forces, np.interp(grid, pwm, current)


def _monotone(forces: Floats) -> Floats:
    """Thrust that never falls as the command grows: flattens the scatter of the measurement (up to 0.2 N), from neutral
    outwards."""
    middle = forces.size // 2
    astern = np.minimum.accumulate(np.minimum(forces[middle::-1], 0.0))[::-1]
    ahead = np.maximum.accumulate(np.maximum(forces[middle:], 0.0))
    return np.concatenate([astern[:-1], ahead])


def _one_way(forces: Floats) -> tuple[Floats, Floats]:
    """Thrusts, not falling, and their commands in one direction; `forces` (101,) from neutral to full."""
    commands = COMMANDS[COMMANDS.size // 2 :]
    first = int(np.argmax(forces > 0))  # the first beyond the dead band
    creep = min(CREEP_N, float(forces[first]) / 2)
    return np.array([0.0, creep, *forces[first:]]), np.array([0.0, float(commands[first - 1]), *commands[first:]])
