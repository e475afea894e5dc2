"""Predictions: the windows simulated with other vehicle parameters and instrument errors."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sim.fit.windows import WARM_UP, WINDOW_S, Windows
from sim.sensors import quaternion
from sim.vehicle import DT, Model, advance, rotation, still

AXES = ("surge", "sway", "heave", "roll", "pitch", "yaw")
NAMES = (
    *(f"{what} {axis}" for what in ("added_mass", "linear_damping", "quadratic_damping") for axis in AXES),
    "thrust_scale",
    "thrust_delay_s",
    "buoyancy_n",
)
"""Fitted parameters of the vehicle, in the order of θ."""
FLAWS = ("gyro p", "gyro q", "gyro r", "roll", "pitch", "iron ahead", "iron to starboard", "dvl scale")
"""Fitted errors of the instruments, constant per dive: rad/s, rad, rad, share. `sim.sensors` draws such errors."""
COMPARE_EVERY = 5
"""Steps between comparisons, which are at 10 Hz."""
ERRORS = {"attitude": 0.02, "rates": 0.02, "depth": 0.01, "velocity": 0.03}
"""Expected error of a prediction, sensors and model together, in rad, rad/s, m, m/s: the weights. A judgement."""


class Problem(NamedTuple):
    """The data, the start values and the priors of a fit."""

    vehicle: Model
    added: Tensor
    """(6, 1) added mass of the start values."""
    windows: Windows
    prior: Tensor
    """(X,) standard deviation of each unknown: θ (P), the flaws of each dive (8 a dive), u, v, w at each window's start
    (3 a window)."""
    steps: int = round(WINDOW_S / DT)
    """Length of the predictions, steps of DT."""

    @property
    def dives(self) -> int:
        return int(self.windows.dive.max()) + 1


class Guess(NamedTuple):
    """The unknowns, per window."""

    theta: Tensor
    """(P, W) logarithm of each parameter over its start value."""
    flaws: Tensor
    """(8, W) in the order of FLAWS."""
    speed: Tensor
    """(3, W) added to the measured velocity at the start, m/s."""


def spread_out(problem: Problem, x: Tensor) -> Guess:
    """The unknowns (X,) per window: all windows share θ, the windows of a dive share its flaws."""
    windows = problem.windows
    size, flaws = len(NAMES), len(FLAWS) * problem.dives
    theta = x[:size, None].expand(-1, len(windows.dive))
    return Guess(
        theta, x[size : size + flaws].reshape(-1, len(FLAWS))[windows.dive].T, x[size + flaws :].reshape(-1, 3).T
    )


def predict(problem: Problem, guess: Guess) -> Tensor:
    """(channels, W, times) weighted errors of the windows' predictions."""
    vehicle, windows = problem.vehicle, without(problem.windows, guess.flaws)
    grown = guess.theta.exp()
    more = problem.added * (grown[0:6] - 1.0)
    mass = vehicle.body.mass[:, :, None] + torch.diag_embed(more.T).permute(1, 2, 0)
    body = vehicle.body._replace(
        mass=mass,
        inverse=torch.linalg.inv(mass.permute(2, 0, 1)).permute(1, 2, 0),
        linear=vehicle.body.linear * grown[6:12],
        quadratic=vehicle.body.quadratic * grown[12:18],
        weight=vehicle.body.weight[:, :, None],
        buoyancy=vehicle.body.buoyancy[:, :, None] * grown[20],
    )
    moving = vehicle._replace(body=body)
    water = still(vehicle, surface=False)
    half = torch.exp(-0.5 * DT / (vehicle.delay * grown[19]))
    forces = vehicle.scale * grown[18] * windows.forces.permute(2, 0, 1)  # (times, motors, W)
    lagged = forces[0]
    for wanted in forces[:WARM_UP]:
        lagged = wanted + half * half * (lagged - wanted)

    start = windows.velocity[:, :, 0] + guess.speed
    zero = torch.zeros_like(windows.depth[:, 0])
    place = torch.stack([zero, zero, windows.depth[:, 0]])
    packed = torch.cat([place, start, windows.rates[:, :, 0], quaternion(windows.angles[:, :, 0].T).T])
    found = []
    for number, wanted in enumerate(forces[WARM_UP : WARM_UP + problem.steps], 1):
        middle = wanted + half * (lagged - wanted)
        after = wanted + half * (middle - wanted)
        wrenches = [vehicle.effect @ each for each in (lagged, middle, after)]
        packed = advance(packed, wrenches, moving, water, water.current, DT)
        lagged = after
        if number % COMPARE_EVERY == 0:
            found.append(_difference(packed, windows, number))
    return torch.stack(found, dim=-1)


def without(windows: Windows, flaws: Tensor) -> Windows:
    """The windows as measured without these flaws (8, W)."""
    gyro, tilt, (ahead, starboard, scale) = flaws[0:3], flaws[3:5], flaws[5:8]
    heading = windows.angles[2]
    iron = starboard[:, None] * heading.cos() - ahead[:, None] * heading.sin()
    return windows._replace(
        angles=windows.angles - torch.cat([tilt[:, :, None].expand(-1, -1, heading.shape[1]), iron[None]]),
        rates=windows.rates - gyro[:, :, None],
        velocity=windows.velocity / (1 + scale)[:, None] if windows.dvl else windows.velocity,
    )


def _difference(packed: Tensor, windows: Windows, number: int) -> Tensor:
    """(channels, W) predicted less measured, over ERRORS; the attitude as a rotation vector in body axes."""
    measured = quaternion(windows.angles[:, :, number].T).T
    turned = (rotation(measured)[:, :, None] * rotation(packed[9:13])[:, None]).sum(0)  # (3, 3, W): measuredᵀ predicted
    twist = 0.5 * torch.stack([turned[2, 1] - turned[1, 2], turned[0, 2] - turned[2, 0], turned[1, 0] - turned[0, 1]])
    parts = [
        twist / ERRORS["attitude"],
        (packed[6:9] - windows.rates[:, :, number]) / ERRORS["rates"],
        (packed[2:3] - windows.depth[None, :, number]) / ERRORS["depth"],
    ]
    if windows.dvl:
        parts.append((packed[3:6] - windows.velocity[:, :, number]) / ERRORS["velocity"])
    return torch.cat(parts)
