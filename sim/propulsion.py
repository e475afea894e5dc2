"""Thrusters and the battery behind them, batched: commands −1..1 to thrust and current by the measured curves.

Thrust is bollard thrust: the tables were measured without inflow, so a moving thruster is somewhat too strong.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rov.motion.thrusters import COMMANDS, Curve

CELLS = 4
CELL_EMPTY_V, CELL_SLOPE_V = 3.5, 0.7
"""Open voltage of a cell is about a straight line over its charge: 3.5 to 4.2 V … (a judgement, within 0.15 V)"""
KNEE_V, KNEE = 0.3, 25.0
"""… but falls by another 0.3 V over the last few percent."""
RESISTANCE = 0.03
"""Ω: 18650 cells of about 30 mΩ, 4 in series of 6 in parallel are 20 mΩ; the rest is wiring. A judgement."""
CAPACITY_C = 18.0 * 3600
"""18 Ah, the battery that Blue Robotics sells for this vehicle."""
HOTEL_W = 15.0
"""Power of computer, camera and autopilot; lights off. A judgement."""


class Tables(NamedTuple):
    """A `Curve` as coefficients of bilinear interpolation: in a cell of the grid, force and current are
    a + b x + c y + d x y, with x and y in 0..1 along the command and the voltage."""

    cells: Tensor
    """((V − 1) · 200, 8): a b c d of the force in N, then of the current in A."""
    voltages: Tensor
    """(V,)."""
    widths: Tensor
    """(V − 1,) V."""


def tables(curve: Curve, dtype: torch.dtype, device: torch.device | str) -> Tables:
    """The tensors of a curve. A curve measured at a single voltage is used at every voltage."""
    coefficients = []
    for measured in (curve.forces, curve.currents):
        grid = torch.tensor(measured, dtype=torch.float64)
        grid = grid.repeat(2, 1) if len(grid) == 1 else grid
        a = grid[:-1, :-1]
        b, c = grid[:-1, 1:] - a, grid[1:, :-1] - a
        coefficients += [a, b, c, grid[1:, 1:] - a - b - c]
    cells = torch.stack(coefficients, dim=-1).reshape(-1, 8)
    voltages = torch.tensor(curve.voltages, dtype=torch.float64)
    voltages = torch.cat([voltages, voltages + 1]) if len(voltages) == 1 else voltages
    return Tables(*(each.to(device, dtype) for each in (cells, voltages, voltages.diff())))


def thrust(tables: Tables, commands: Tensor, volts: Tensor) -> tuple[Tensor, Tensor]:
    """Commands (n, N) −1..1 at volts (N,) -> thrust in N and current in A, (n, N) each; clamped to the tables."""
    (a, b, c, d, e, f, g, h), x, y, _ = _cells(tables, commands, volts)
    return a + b * x + (c + d * x) * y, e + f * x + (g + h * x) * y


def draw(tables: Tables, commands: Tensor, charge: Tensor, guess: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As `thrust`, from a battery with `charge` C (N,) drawn: thrust (n, N) N, current (N,) A and voltage (N,) V.

    Voltage and current depend on each other: one Newton step from the voltage `guess` (N,), exact where the tables are
    linear in between. It makes a sudden full thrust independent of the time step."""
    (_, _, _, _, e, f, g, h), x, y, width = _cells(tables, commands, guess)
    amperes = (e + f * x + (g + h * x) * y).sum(0)
    steeper = (g + h * x).sum(0) / width
    volts = guess + (voltage(charge, amperes + HOTEL_W / guess) - guess) / (1 + RESISTANCE * steeper)
    force, each = thrust(tables, commands, volts)
    return force, each.sum(0) + HOTEL_W / volts, volts


def _cells(tables: Tables, commands: Tensor, volts: Tensor) -> tuple[tuple[Tensor, ...], Tensor, Tensor, Tensor]:
    """The 8 coefficients of the cells of these commands and volts, x, y, and the width of the cell in V."""
    steps = len(COMMANDS) - 1
    row = torch.searchsorted(tables.voltages[1:-1], volts, right=True)
    width = tables.widths[row]
    y = ((volts - tables.voltages[row]) / width).clamp(0.0, 1.0)
    place = (commands.clamp(-1.0, 1.0) + 1.0) * (steps / 2)
    column = place.detach().long().clamp(max=steps - 1)
    return tables.cells[column + row * steps].unbind(-1), place - column, y, width


def voltage(charge: Tensor, current: Tensor) -> Tensor:
    """Voltage (N,) of the battery with `charge` C drawn from it, at `current` A."""
    left = 1.0 - charge / CAPACITY_C
    cell = CELL_EMPTY_V + CELL_SLOPE_V * left - KNEE_V * torch.exp(-KNEE * left.clamp(min=0.0))
    return (CELLS * cell - RESISTANCE * current).clamp(min=1.0)
