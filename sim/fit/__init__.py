"""System identification: a vehicle's parameters from recorded dives, by gradients through the simulator.

Multiple shooting: the dives are cut into windows of a few seconds, each starts from the measured state, and all are
simulated at once. Levenberg–Marquardt changes damping, added mass, thrust scale and delay, and buoyancy until the
predictions match the measurements; and with them the constant errors of each dive's instruments, which would otherwise
be taken for damping. Every parameter is its start value times e^θ, with a prior on θ, so that parameters which the
dives do not show keep their start value; the curvature gives the uncertainty. The water is assumed still. A parameter
that is 0 at the start stays 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from sim.fit.least_squares import descend, spreads
from sim.fit.prediction import FLAWS, NAMES, Problem, predict, spread_out
from sim.fit.report import Result, compared, errors, numbers, traces, write
from sim.fit.windows import SHALLOW_M, WINDOW_S, FitError, cut, join
from sim.parameters import Parameters
from sim.sensors import Suite
from sim.vehicle import DT, model

__all__ = ["FLAWS", "NAMES", "WINDOW_S", "FitError", "Result", "compared", "fit", "pose", "spreads", "write"]

HORIZONS_S = (0.5, 1.5, WINDOW_S)
"""Predictions of half a second are fitted first: from a poor start the long ones have many local minima."""
WINDOWS_MAX = 80
"""Most windows used, chosen evenly."""
PRIOR, BUOYANCY_PRIOR = 0.5, 0.01
"""Standard deviation of θ: start values are right within a factor of about 1.6, the buoyancy within 1 %."""
START_ERROR = {"with DVL": (0.03, 0.03, 0.03), "without": (0.5, 0.5, 0.1)}
"""Standard deviation of u, v, w at a window's start, m/s; without a DVL w comes from the depth, u and v do not."""
_SUITE = Suite()
FLAW_PRIOR = (
    *[_SUITE.gyro_bias] * 3,
    *[_SUITE.tilt_bias] * 2,
    *[_SUITE.hard_iron / math.sqrt(2)] * 2,
    _SUITE.dvl_scale,
)
"""Standard deviation of FLAWS: those of the simulated instruments."""


@torch.no_grad()
def fit(paths: list[Path], start: Parameters, report: Callable[[float, float], object] = lambda *_: None) -> Result:
    """Fit a vehicle to dives; `report` gets horizon (s) and cost of each iteration. Raises FitError."""
    problem = pose(paths, start)
    x = torch.zeros_like(problem.prior)
    before = predict(problem, spread_out(problem, x))
    for horizon in HORIZONS_S:
        x = descend(problem._replace(steps=round(horizon / DT)), x, report)
    after, size = predict(problem, spread_out(problem, x)), len(NAMES)
    return Result(
        numbers(start, x[:size]),
        dict(zip(NAMES, spreads(problem, x).tolist(), strict=False)),
        errors(before, problem.windows),
        errors(after, problem.windows),
        x[size : size + len(FLAWS) * problem.dives].reshape(-1, len(FLAWS)).numpy(),
        len(problem.windows.dive),
        traces(before, after, problem.windows),
    )


def pose(paths: list[Path], start: Parameters) -> Problem:
    """The least-squares problem of these dives. Raises FitError."""
    vehicle = model(start, torch.float64)
    found = [window for number, path in enumerate(paths) for window in cut(path, vehicle, number)]
    if len(found) < 3:
        which = f"{WINDOW_S:g} s without holes, below {SHALLOW_M} m and not too steep"
        raise FitError(f"{', '.join(map(str, paths))}: fewer than three windows of {which}; record a longer dive")
    chosen = np.linspace(0, len(found) - 1, min(len(found), WINDOWS_MAX)).round().astype(int)
    windows = join([found[i] for i in chosen])
    loose = START_ERROR["with DVL" if windows.dvl else "without"]
    prior = [PRIOR] * (len(NAMES) - 1) + [BUOYANCY_PRIOR]
    prior += [*FLAW_PRIOR] * (int(windows.dive.max()) + 1) + [*loose] * len(windows.dive)
    added = torch.tensor(start.added_mass, dtype=torch.float64)[:, None]
    return Problem(vehicle, added, windows, torch.tensor(prior, dtype=torch.float64))
