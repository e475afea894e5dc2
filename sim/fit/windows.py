"""Windows of dives: commands and measurements, resampled to the simulator's interval."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rov.dives.dive import Dive
from rov.errors import UserError
from rov.messages import ThrusterCommand, VehicleState
from rov.types import Floats
from sim.propulsion import thrust
from sim.vehicle import DT, Model

WINDOW_S = 3.0
WARM_UP = 10
"""Steps before a window, in which the thrusters' lag settles."""
GAP_S = 0.25
"""A window with a longer gap is not used."""
SHALLOW_M = 0.3
"""Nor is one nearer to the surface than this, where the hull comes out of the water."""
STEEP_RAD = 1.2
"""Nor one with a steeper pitch: roll and yaw are ill-defined there."""


class FitError(UserError):
    """The dives cannot be used."""


class Windows(NamedTuple):
    """W windows of some dives, as measured. float64."""

    forces: Tensor
    """(motors, W, WARM_UP + steps) thrust by the curve at the recorded voltage, without lag, N."""
    angles: Tensor
    """(3, W, steps + 1) roll, pitch, yaw, rad."""
    rates: Tensor
    """(3, W, steps + 1) rad/s."""
    depth: Tensor
    """(W, steps + 1) m."""
    velocity: Tensor
    """(3, W, steps + 1) over ground, m/s; without a DVL: 0, 0, and the rate of the depth."""
    dive: Tensor
    """(W,) the number of the window's dive."""
    dvl: bool


def cut(path: Path, vehicle: Model, number: int) -> list[Windows]:
    """The usable windows of a dive, marked with its `number`. Raises FitError."""
    states: list[VehicleState] = []
    sent: list[ThrusterCommand] = []
    with Dive(path) as dive:
        for topic in ("vehicle", "thrusters"):
            dive.require(topic)
        for record in dive.messages({"vehicle", "thrusters"}):
            if isinstance(record.data, VehicleState):
                states.append(record.data)
            elif isinstance(record.data, ThrusterCommand):
                sent.append(record.data)
    states = [each for each in states if each.attitude_t is not None and each.depth_t is not None]
    motors = vehicle.effect.shape[1]
    if not states or any(len(each.values) != motors for each in sent):
        raise FitError(f"{path}: needs attitude and depth, and commands for {motors} motors, the frame's of --start")
    if not any(each.armed for each in sent):
        raise FitError(f"{path}: the vehicle was never armed; nothing moved it")

    first = max(states[0].t, sent[0].t)
    grid = first + np.arange(0, min(states[-1].t, sent[-1].t) - first, round(DT * 1e9))
    t = np.array([each.t for each in sent])
    held = np.searchsorted(t, grid, side="right") - 1
    commands = np.array([each.values if each.armed else (0.0,) * motors for each in sent])[held]
    volts = np.array([each.battery_v or 4 * 4.0 for each in states])
    angles = np.unwrap([(each.roll, each.pitch, each.yaw) for each in states], axis=0)
    attitude_t = [each.attitude_t or 0 for each in states]
    turned = torch.tensor(_at(grid, attitude_t, angles)).T
    rates = torch.tensor(_at(grid, attitude_t, np.array([each.rates for each in states]))).T
    depth = _at(grid, [each.depth_t or 0 for each in states], np.array([[each.depth] for each in states]))[:, 0]
    heave = np.gradient(_smooth(depth), DT)
    tracked = [each for each in states if each.velocity_t is not None]
    dvl = len(tracked) > len(states) / 2
    if dvl:
        at = [each.velocity_t or 0 for each in tracked]
        velocity = torch.tensor(_at(grid, at, np.array([each.velocity for each in tracked]))).T
    else:
        velocity = torch.tensor(np.stack([0 * heave, 0 * heave, heave]))
    curve = thrust(
        vehicle.curve, torch.tensor(commands).T, torch.tensor(_at(grid, [e.t for e in states], volts[:, None]))[:, 0]
    )
    forces = curve[0]

    steps = round(WINDOW_S / DT)
    holes = np.diff([each.t for each in states], append=states[-1].t) / 1e9 > GAP_S
    bad = np.interp(grid, [each.t for each in states], holes.astype(float)) > 0
    bad |= (
        (depth < SHALLOW_M) | (np.abs(turned[1].numpy()) > STEEP_RAD) | (np.searchsorted(t, grid - GAP_S * 1e9) > held)
    )
    found = []
    for begin in range(WARM_UP, len(grid) - steps, steps):
        if not bad[begin : begin + steps + 1].any():
            inside = slice(begin, begin + steps + 1)
            found.append(
                Windows(
                    forces[:, None, begin - WARM_UP : begin + steps],
                    turned[:, None, inside],
                    rates[:, None, inside],
                    torch.tensor(depth)[None, inside],
                    velocity[:, None, inside],
                    torch.tensor([number]),
                    dvl,
                )
            )
    return found


def join(found: list[Windows]) -> Windows:
    """One batch of windows; `dvl` only if all have it."""
    return Windows(
        torch.cat([each.forces for each in found], dim=1),
        torch.cat([each.angles for each in found], dim=1),
        torch.cat([each.rates for each in found], dim=1),
        torch.cat([each.depth for each in found]),
        torch.cat([each.velocity for each in found], dim=1),
        torch.cat([each.dive for each in found]),
        all(each.dvl for each in found),
    )


def _at(grid: NDArray[np.int64], t: list[int], values: Floats) -> Floats:
    """Values (n, k) measured at `t`, at the grid's times; repeated measurements count once."""
    times, first = np.unique(t, return_index=True)
    columns = [np.interp(grid - times[0], times - times[0], column) for column in values[first].T]
    return np.stack(columns, axis=1)


def _smooth(values: Floats) -> Floats:
    """A running mean over 0.3 s, the ends held."""
    wide = np.pad(values, 7, mode="edge")
    return np.convolve(wide, np.full(15, 1 / 15), mode="valid")
