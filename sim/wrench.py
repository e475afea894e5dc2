"""Open loop: integrates a vehicle's equations of motion under given forces, from JSON and CSV to CSV."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path

import msgspec
import torch
from torch import Tensor

from rov.errors import UserError
from sim.parameters import Hull, Three, body
from sim.vehicle import Model, WaterForces, advance, rotation

INPUT = ["t", "X", "Y", "Z", "K", "M", "N"]
OUTPUT = "t x y z qw qx qy qz u v w p q r".split()
TOLERANCE = 1e-8
"""Error limit of every number of the state per step; with rough forces that gave 3e-7 m after 20 s."""
STEP_S = 0.02
"""First trial step."""
SMALLEST_S = 1e-6
"""Smallest step; no physical forces need a finer one."""

Thirteen = tuple[float, float, float, float, float, float, float, float, float, float, float, float, float]


class WrenchError(UserError):
    """The parameters or the forces cannot be used."""


class Trial(Hull, frozen=True, kw_only=True):
    """The JSON file: a hull, the water's motion and where the vehicle starts."""

    current_ned: Three
    """m/s, uniform and constant."""
    state0: Thirteen
    """x y z, qw qx qy qz, u v w over ground, p q r."""


def run(params: Path, table: Path, out: Path, begin: Callable[[int], Callable[[], object]]) -> int:
    """Simulate; returns the number of rows written, one per row of the input. Raises WrenchError.

    `begin` gets the number of intervals and returns a function to call after each."""
    trial = read_trial(params)
    times, wrenches = read_forces(table)
    states = simulate(trial, times, wrenches, begin(len(times) - 1))
    try:
        with out.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(OUTPUT)
            for t, state in zip(times, states.tolist(), strict=True):
                writer.writerow([repr(t), *map(repr, state)])
    except OSError as error:
        raise WrenchError(f"{out}: cannot be written: {error.strerror}") from None
    return len(times)


def read_trial(path: Path) -> Trial:
    try:
        trial = msgspec.json.decode(path.read_bytes(), type=Trial)
    except OSError as error:
        raise WrenchError(f"{path}: cannot be read: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise WrenchError(f"{path}: {error}") from None
    trial.check(path)
    if not all(map(math.isfinite, trial.current_ned + trial.state0)):
        raise WrenchError(f"{path}: current_ned and state0 must be finite")
    if abs(math.hypot(*trial.state0[3:7]) - 1.0) > 1e-3:
        raise WrenchError(f"{path}: state0[3:7] is the quaternion qw qx qy qz and must have length 1")
    return trial


def read_forces(path: Path) -> tuple[list[float], list[list[float]]]:
    """Times and wrenches. Columns are found by their names, in any order."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if any(map(str.strip, row))]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise WrenchError(f"{path}: cannot be read as CSV: {error}") from None
    head = [name.strip() for name in rows[0]] if rows else []
    if missing := [name for name in INPUT if name not in head]:
        raise WrenchError(f"{path}: the first line must name the columns {','.join(INPUT)}; it lacks {missing[0]}")
    if len(rows) < 2:
        raise WrenchError(f"{path}: has no rows below its first line")
    places = [head.index(name) for name in INPUT]
    times: list[float] = []
    wrenches = []
    for number, row in enumerate(rows[1:], 2):
        try:
            if len(row) != len(head):
                raise ValueError
            t, *wrench = (float(row[place]) for place in places)
        except ValueError:
            raise WrenchError(f"{path}: row {number} must have {len(head)} numbers: {','.join(row)}") from None
        if not all(map(math.isfinite, (t, *wrench))):
            raise WrenchError(f"{path}: row {number} is not finite: {','.join(row)}")
        if times and t <= times[-1]:
            raise WrenchError(f"{path}: row {number}: t must grow from row to row, and {t:g} follows {times[-1]:g}")
        times.append(t)
        wrenches.append(wrench)
    return times, wrenches


@torch.inference_mode()
def simulate(
    trial: Trial, times: list[float], wrenches: list[list[float]], tick: Callable[[], object] = lambda: None
) -> Tensor:
    """(rows, 13) states at the times; each wrench holds from its time to the next. float64, with an adaptive step."""
    double = torch.float64
    one = torch.ones(1, dtype=double)
    nothing = torch.empty(0, dtype=double)
    vehicle = Model(body(trial), nothing, nothing, None, 1.0, one, one)  # type: ignore[arg-type]
    current = torch.tensor(trial.current_ned, dtype=double)[:, None]
    water = WaterForces(current, surface=False)
    packed = _packed(torch.tensor(trial.state0, dtype=double), current)
    states = [_unpacked(packed, current)]
    step = STEP_S
    for start, end, wrench in zip(times, times[1:], wrenches, strict=False):
        force = [torch.tensor(wrench, dtype=double)[:, None]] * 3
        left = end - start
        while left > 0:
            h = left if left <= step else left / math.ceil(left / step)
            once = advance(packed, force, vehicle, water, current, h)
            half = advance(packed, force, vehicle, water, current, h / 2)
            twice = advance(half, force, vehicle, water, current, h / 2)
            error = float((twice - once).abs().max()) / 15  # of `twice`, which is of fourth order
            if not math.isfinite(error):
                raise WrenchError(f"the motion is not finite after t = {start:g}: are the forces and masses right?")
            if error <= TOLERANCE or h <= SMALLEST_S:
                packed = twice + (twice - once) / 15
                left = 0.0 if h >= left else left - h
            grown = min(4.0, 0.9 * (TOLERANCE / max(error, 1e-30)) ** 0.2)
            step = max(h * max(grown, 0.1), SMALLEST_S)
        states.append(_unpacked(packed, current))
        tick()
    return torch.stack(states)


def _packed(state: Tensor, current: Tensor) -> Tensor:
    """(13,) in output order -> (13, 1) as `advance` wants it."""
    state = state[:, None]
    attitude = state[3:7] / state[3:7].norm()
    drift = (rotation(attitude) * current[:, None]).sum(0)
    return torch.cat([state[0:3], state[7:10] - drift, state[10:13], attitude])


def _unpacked(packed: Tensor, current: Tensor) -> Tensor:
    attitude = packed[9:13] / packed[9:13].norm()
    drift = (rotation(attitude) * current[:, None]).sum(0)
    return torch.cat([packed[0:3], attitude, packed[3:6] + drift, packed[6:9]]).squeeze(1)
