"""System identification: the vehicle's numbers from recorded dives, by gradients through the simulator.

Multiple shooting: the dive is cut into windows of a few seconds, each starts from what was measured, and all are
simulated at once. Damping, added mass, thrust scale and delay, and the buoyancy are changed by Levenberg–Marquardt
until the windows end up where the vehicle did. Every number is the start's times e^θ, with a prior on θ, so that what
the dive does not show stays where it was; the curvature says how well the rest is known. The water is taken to be
still. A number that is 0 at the start stays 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd import forward_ad

from rov.dives.dive import Dive
from rov.errors import UserError
from rov.messages import ThrusterCommand, VehicleState
from sim.parameters import Parameters
from sim.propulsion import thrust
from sim.sensors import quaternion
from sim.vehicle import DT, Model, advance, model, rotation, still

Floats = NDArray[np.float64]

WINDOW_S = 3.0
HORIZONS_S = (0.5, 1.5, WINDOW_S)
"""Predictions of half a second are fitted first: from a poor start the long ones have many wrong answers."""
WINDOWS_MAX = 80
"""Evenly chosen from a longer dive."""
COMPARE_EVERY = 5
"""Steps: predictions are compared at 10 Hz."""
WARM_UP = 10
"""Steps before a window in which the thrusters' lag forgets how it began."""
GAP_S = 0.25
"""A window with a longer hole in it is not used."""
SHALLOW_M = 0.3
"""Nor is one nearer to the surface, where the hull comes out."""
STEEP_RAD = 1.2
"""Nor one with a steeper pitch: roll and yaw are not known there."""
ERRORS = {"attitude": 0.02, "rates": 0.02, "depth": 0.01, "velocity": 0.03}
"""What a prediction may be off by, sensors and model together, in rad, rad/s, m, m/s: the weights. A judgement."""
START_ERROR = {"with DVL": (0.03, 0.03, 0.03), "without": (0.5, 0.5, 0.1)}
"""Standard deviation of u, v, w at a window's start, m/s; without a DVL w comes from the depth, u and v do not."""
PRIOR, BUOYANCY_PRIOR = 0.5, 0.01
"""Standard deviation of θ: the start's numbers are right within a factor of about 1.6, its buoyancy within 1 %."""
OUTLIER = 5.0
"""Errors of so many standard deviations begin to count less (Cauchy): a tug at the tether, a touch of the ground."""
STEPS_MAX, ENOUGH = 15, 1e-3
"""Iterations for each horizon; it is done when one improves the cost by less than this share."""
KNOWN, ROUGH = 0.05, 0.2
"""A number is `well` known below this standard deviation of θ, `roughly` below that; else the dive does not show it."""

AXES = ("surge", "sway", "heave", "roll", "pitch", "yaw")
NAMES = (
    *(f"{what} {axis}" for what in ("added_mass", "linear_damping", "quadratic_damping") for axis in AXES),
    "thrust_scale",
    "thrust_delay_s",
    "buoyancy_n",
)
"""What is fitted, in the order of θ."""


class FitError(UserError):
    """The dives cannot be used."""


class Windows(NamedTuple):
    """W windows of a dive. float64."""

    forces: Tensor
    """(motors, W, WARM_UP + steps) thrust by the curve at the recorded voltage, without lag, N."""
    attitude: Tensor
    """(4, W, steps + 1)."""
    rates: Tensor
    """(3, W, steps + 1)."""
    depth: Tensor
    """(W, steps + 1)."""
    velocity: Tensor
    """(3, W, steps + 1) over ground; at the start where there is no DVL: 0, 0, from the depth."""
    dvl: bool


class Result(NamedTuple):
    """What a fit found."""

    parameters: Parameters
    spread: dict[str, float]
    """Standard deviation of each θ, about the relative error; the prior's where the dive shows nothing."""
    before: dict[str, float]
    """RMS error of the windows' predictions by kind, rad, rad/s, m, m/s."""
    after: dict[str, float]
    windows: int
    traces: dict[str, tuple[Floats, Floats, Floats]]
    """Measured, predicted before and after, over all windows."""

    def verdict(self, name: str) -> str:
        """How well a number is known from this dive."""
        spread = self.spread[name]
        return "well" if spread < KNOWN else "roughly" if spread < ROUGH else "no: the dive hardly shows it"


class Problem(NamedTuple):
    """What is to be fitted, and what is believed before."""

    vehicle: Model
    added: Tensor
    """(6, 1) the start's added mass."""
    windows: Windows
    prior: Tensor
    """(P,) standard deviation of each θ."""
    loose: Tensor
    """(3,) standard deviation of u, v, w at each start."""
    steps: int = round(WINDOW_S / DT)
    """How far the windows are predicted."""


def pose(paths: list[Path], start: Parameters) -> Problem:
    """The problem that these dives pose. Raises FitError."""
    vehicle = model(start, torch.float64)
    found = [window for path in paths for window in cut(path, vehicle)]
    if len(found) < 3:
        which = f"{WINDOW_S:g} s without holes, below {SHALLOW_M} m and not too steep"
        raise FitError(f"{', '.join(map(str, paths))}: fewer than three windows of {which}; record a longer dive")
    chosen = np.linspace(0, len(found) - 1, min(len(found), WINDOWS_MAX)).round().astype(int)
    windows = join([found[i] for i in chosen])
    prior = torch.full((len(NAMES),), PRIOR, dtype=torch.float64)
    prior[-1] = BUOYANCY_PRIOR
    loose = windows.velocity.new_tensor(START_ERROR["with DVL" if windows.dvl else "without"])
    return Problem(vehicle, torch.tensor(start.added_mass, dtype=torch.float64)[:, None], windows, prior, loose)


@torch.no_grad()
def fit(paths: list[Path], start: Parameters, tell: Callable[[float, float], object] = lambda *_: None) -> Result:
    """Fit a vehicle to dives; `tell` hears of each iteration's horizon (s) and cost. Raises FitError."""
    problem = pose(paths, start)
    size, windows = len(NAMES), problem.windows
    count = windows.forces.shape[1]
    theta, speed = torch.zeros(size, dtype=torch.float64), torch.zeros(3, count, dtype=torch.float64)
    before = predict(problem, theta, speed)
    for horizon in HORIZONS_S:
        theta, speed = descend(problem._replace(steps=round(horizon / DT)), theta, speed, tell)
    residual = predict(problem, theta, speed)
    spread = spreads(problem, theta, speed)
    return Result(
        numbers(start, theta),
        dict(zip(NAMES, spread.tolist(), strict=True)),
        errors(before, windows),
        errors(residual, windows),
        count,
        traces(before, residual, windows),
    )


def descend(
    problem: Problem, theta: Tensor, speed: Tensor, tell: Callable[[float, float], object]
) -> tuple[Tensor, Tensor]:
    """Levenberg–Marquardt from θ and the starting velocities."""
    size, damping = len(theta), 1e-3
    now = cost(problem, predict(problem, theta, speed), theta, speed)
    for _ in range(STEPS_MAX):
        tell(problem.steps * DT, now)
        matrix, pull = normal(problem, theta, speed)
        then = math.inf
        while not then < now and damping < 1e6:
            move = torch.linalg.solve(matrix + damping * torch.diag(matrix.diag()), -pull)
            next_theta = theta + move[:size].clamp(-0.5, 0.5)
            next_speed = speed + move[size:].reshape(-1, 3).T
            then = cost(problem, predict(problem, next_theta, next_speed), next_theta, next_speed)
            damping = max(damping / 5, 1e-9) if then < now else damping * 8
        if not then < now:
            break
        theta, speed = next_theta, next_speed
        gained, now = (now - then) / now, then
        if gained < ENOUGH:
            break
    return theta, speed


# ---- the dive --------------------------------------------------------------------------------------------------


def cut(path: Path, vehicle: Model) -> list[Windows]:
    """The usable windows of a dive, at the simulator's pace."""
    heard: list[VehicleState] = []
    sent: list[ThrusterCommand] = []
    with Dive(path) as dive:
        for topic in ("vehicle", "thrusters"):
            dive.require(topic)
        for record in dive.messages({"vehicle", "thrusters"}):
            if isinstance(record.data, VehicleState):
                heard.append(record.data)
            elif isinstance(record.data, ThrusterCommand):
                sent.append(record.data)
    heard = [each for each in heard if each.attitude_t is not None and each.depth_t is not None]
    motors = vehicle.effect.shape[1]
    if not heard or any(len(each.values) != motors for each in sent):
        raise FitError(f"{path}: needs attitude and depth, and commands for {motors} motors, the frame's of --start")
    if not any(each.armed for each in sent):
        raise FitError(f"{path}: the vehicle was never armed; nothing moved it")

    first = max(heard[0].t, sent[0].t)
    grid = first + np.arange(0, min(heard[-1].t, sent[-1].t) - first, round(DT * 1e9))
    t = np.array([each.t for each in sent])
    held = np.searchsorted(t, grid, side="right") - 1
    commands = np.array([each.values if each.armed else (0.0,) * motors for each in sent])[held]
    volts = np.array([each.battery_v or 4 * 4.0 for each in heard])
    angles = np.unwrap([(each.roll, each.pitch, each.yaw) for each in heard], axis=0)
    attitude_t = [each.attitude_t or 0 for each in heard]
    attitude = quaternion(torch.tensor(_at(grid, attitude_t, angles))).T
    rates = torch.tensor(_at(grid, attitude_t, np.array([each.rates for each in heard]))).T
    depth = _at(grid, [each.depth_t or 0 for each in heard], np.array([[each.depth] for each in heard]))[:, 0]
    heave = np.gradient(_smooth(depth), DT)
    tracked = [each for each in heard if each.velocity_t is not None]
    dvl = len(tracked) > len(heard) / 2
    if dvl:
        at = [each.velocity_t or 0 for each in tracked]
        velocity = torch.tensor(_at(grid, at, np.array([each.velocity for each in tracked]))).T
    else:
        velocity = torch.tensor(np.stack([0 * heave, 0 * heave, heave]))
    curve = thrust(
        vehicle.curve, torch.tensor(commands).T, torch.tensor(_at(grid, [e.t for e in heard], volts[:, None]))[:, 0]
    )
    forces = curve[0]

    steps = round(WINDOW_S / DT)
    holes = np.diff([each.t for each in heard], append=heard[-1].t) / 1e9 > GAP_S
    bad = np.interp(grid, [each.t for each in heard], holes.astype(float)) > 0
    pitch = _at(grid, attitude_t, angles)[:, 1]
    bad |= (depth < SHALLOW_M) | (np.abs(pitch) > STEEP_RAD) | (np.searchsorted(t, grid - GAP_S * 1e9) > held)
    found = []
    for begin in range(WARM_UP, len(grid) - steps, steps):
        if not bad[begin : begin + steps + 1].any():
            inside = slice(begin, begin + steps + 1)
            found.append(
                Windows(
                    forces[:, None, begin - WARM_UP : begin + steps],
                    attitude[:, None, inside],
                    rates[:, None, inside],
                    torch.tensor(depth)[None, inside],
                    velocity[:, None, inside],
                    dvl,
                )
            )
    return found


def join(found: list[Windows]) -> Windows:
    """One batch of windows; with a velocity only where every one has it."""
    return Windows(
        torch.cat([each.forces for each in found], dim=1),
        torch.cat([each.attitude for each in found], dim=1),
        torch.cat([each.rates for each in found], dim=1),
        torch.cat([each.depth for each in found]),
        torch.cat([each.velocity for each in found], dim=1),
        all(each.dvl for each in found),
    )


def _at(grid: NDArray[np.int64], t: list[int], values: Floats) -> Floats:
    """Values (n, k) measured at `t`, at the grid's times; the same measurement repeated counts once."""
    times, first = np.unique(t, return_index=True)
    columns = [np.interp(grid - times[0], times - times[0], column) for column in values[first].T]
    return np.stack(columns, axis=1)


def _smooth(values: Floats) -> Floats:
    """A running mean over 0.3 s, the ends held."""
    wide = np.pad(values, 7, mode="edge")
    return np.convolve(wide, np.full(15, 1 / 15), mode="valid")


# ---- the prediction --------------------------------------------------------------------------------------------


def predict(problem: Problem, theta: Tensor, speed: Tensor) -> Tensor:
    """(channels, W, times) weighted errors of the windows' predictions. `theta` (P,) or (P, W); `speed` (3, W) is
    added to the measured velocity at each start."""
    vehicle, windows = problem.vehicle, problem.windows
    grown = (theta[:, None] if theta.dim() == 1 else theta).exp()
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

    start = windows.velocity[:, :, 0] + speed
    zero = torch.zeros_like(windows.depth[:, 0])
    place = torch.stack([zero, zero, windows.depth[:, 0]])
    packed = torch.cat([place, start, windows.rates[:, :, 0], windows.attitude[:, :, 0]])
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


def _difference(packed: Tensor, windows: Windows, number: int) -> Tensor:
    """(channels, W) predicted less measured, over ERRORS; the attitude as a rotation vector in body axes."""
    measured = windows.attitude[:, :, number]
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


# ---- least squares ---------------------------------------------------------------------------------------------


def jacobian(problem: Problem, theta: Tensor, speed: Tensor) -> tuple[Tensor, Tensor]:
    """Errors (m, W), and their derivatives (P + 3, m, W) by each θ and by each window's own starting velocity.

    Exact, by forward differentiation: the batch is repeated once for each number, and each copy carries its tangent."""
    count, size = problem.windows.forces.shape[1], len(NAMES)
    copies = size + 3
    repeated = join([problem.windows] * copies)
    unit = torch.eye(copies, dtype=theta.dtype).repeat_interleave(count, dim=1)  # (P + 3, copies · W)
    with forward_ad.dual_level():
        out = predict(
            problem._replace(windows=repeated),
            forward_ad.make_dual(theta[:, None].expand(-1, copies * count).contiguous(), unit[:size].contiguous()),  # type: ignore[no-untyped-call]
            forward_ad.make_dual(speed.repeat(1, copies), unit[size:].contiguous()),  # type: ignore[no-untyped-call]
        )
        primal, tangent = forward_ad.unpack_dual(out)  # type: ignore[no-untyped-call]
    assert tangent is not None
    shaped = tangent.reshape(-1, copies, count, tangent.shape[-1]).permute(1, 0, 3, 2).reshape(copies, -1, count)
    return primal[:, :count].permute(0, 2, 1).reshape(-1, count), shaped


def normal(problem: Problem, theta: Tensor, speed: Tensor) -> tuple[Tensor, Tensor]:
    """The normal equations' matrix, the Fisher information with the prior's, and half the gradient of the cost; in the
    order of θ, then each window's u, v, w."""
    residual, slopes = jacobian(problem, theta, speed)
    weight = (1 + (residual / OUTLIER).square()).rsqrt()
    residual, slopes = residual * weight, slopes * weight
    size, count = len(NAMES), residual.shape[1]
    shared, own = slopes[:size], slopes[size:]
    total = size + 3 * count
    matrix, pull = theta.new_zeros(total, total), theta.new_zeros(total)
    matrix[:size, :size] = torch.einsum("pmw,qmw->pq", shared, shared) + torch.diag(problem.prior**-2)
    pull[:size] = torch.einsum("pmw,mw->p", shared, residual) + theta / problem.prior**2
    across = torch.einsum("pmw,imw->pwi", shared, own).reshape(size, -1)
    matrix[:size, size:], matrix[size:, :size] = across, across.T
    blocks = torch.einsum("imw,jmw->wij", own, own) + torch.diag(problem.loose**-2)
    matrix[size:, size:] = torch.block_diag(*blocks)  # type: ignore[no-untyped-call]
    pull[size:] = (torch.einsum("imw,mw->wi", own, residual) + (speed / problem.loose[:, None] ** 2).T).reshape(-1)
    return matrix, pull


def spreads(problem: Problem, theta: Tensor, speed: Tensor) -> Tensor:
    """(P,) standard deviation of each θ, the starting velocities not known either: by the inverse of the curvature."""
    matrix, _ = normal(problem, theta, speed)
    variance: Tensor = torch.linalg.inv(matrix).diag()
    return variance[: len(theta)].clamp(min=0).sqrt()


def cost(problem: Problem, residual: Tensor, theta: Tensor, speed: Tensor) -> float:
    """What is made least: the squared errors, and those against the priors."""
    prior = (theta / problem.prior).square().sum() + (speed / problem.loose[:, None]).square().sum()
    return float(OUTLIER**2 * (residual / OUTLIER).square().log1p().sum() + prior)


# ---- what comes of it ------------------------------------------------------------------------------------------


def numbers(start: Parameters, theta: Tensor) -> Parameters:
    """The start's parameters, each times its e^θ."""
    grown = theta.exp().tolist()

    def lists(name: str, at: int) -> tuple[float, ...]:
        return tuple(
            float(f"{old * new:.5g}") for old, new in zip(getattr(start, name), grown[at : at + 6], strict=True)
        )

    return msgspec.structs.replace(
        start,
        source=f"fitted from: {start.source}",
        added_mass=lists("added_mass", 0),
        linear_damping=lists("linear_damping", 6),
        quadratic_damping=lists("quadratic_damping", 12),
        thrust_scale=float(f"{start.thrust_scale * grown[18]:.5g}"),
        thrust_delay_s=float(f"{start.thrust_delay_s * grown[19]:.5g}"),
        buoyancy_n=float(f"{start.buoyancy_n * grown[20]:.6g}"),
    )


def compared(start: Parameters, fitted: Parameters) -> list[tuple[str, float, float]]:
    """Each number's name, its start and what was found."""

    def flat(each: Parameters) -> list[float]:
        lists = (*each.added_mass, *each.linear_damping, *each.quadratic_damping)
        return [*lists, each.thrust_scale, each.thrust_delay_s, each.buoyancy_n]

    return list(zip(NAMES, flat(start), flat(fitted), strict=True))


def errors(residual: Tensor, windows: Windows) -> dict[str, float]:
    """RMS by kind, in its unit."""
    parts = dict(zip(ERRORS, torch.split(residual, [3, 3, 1, 3] if windows.dvl else [3, 3, 1]), strict=False))
    return {kind: float(part.square().mean().sqrt()) * ERRORS[kind] for kind, part in parts.items()}


def traces(before: Tensor, after: Tensor, windows: Windows) -> dict[str, tuple[Floats, Floats, Floats]]:
    """Measured, and predicted before and after, of what can be plotted."""
    inside = slice(COMPARE_EVERY, None, COMPARE_EVERY)
    rows = [(f"{axis} rate, rad/s", windows.rates[i], 3 + i, ERRORS["rates"]) for i, axis in enumerate(AXES[3:])]
    rows.append(("depth, m", windows.depth, 6, ERRORS["depth"]))
    if windows.dvl:
        rows += [(f"{axis}, m/s", windows.velocity[i], 7 + i, ERRORS["velocity"]) for i, axis in enumerate(AXES[:3])]
    found = {}
    for name, measured, row, scale in rows:
        seen = measured[:, inside]
        curves = (seen, seen + before[row] * scale, seen + after[row] * scale)
        found[name] = tuple(curve.reshape(-1).numpy() for curve in curves)
    return found  # type: ignore[return-value]


def write(result: Result, path: Path) -> None:
    """`vehicle.toml`, with what is known of each number above it, and the plot beside it. Raises FitError."""
    head = [
        f"# Fitted to {result.windows} windows of {WINDOW_S:g} s. RMS error of their predictions, before and after:"
    ]
    head += [f"#   {kind}: {result.before[kind]:.4g} -> {result.after[kind]:.4g}" for kind in result.after]
    head.append("# How well each number is known, one standard deviation:")
    head += [f"#   {name}: {100 * spread:.1f} %, {result.verdict(name)}" for name, spread in result.spread.items()]
    try:
        path.write_text("\n".join(head) + "\n" + msgspec.toml.encode(result.parameters).decode())
        plot(result, path.with_suffix(".png"))
    except OSError as error:
        raise FitError(f"{path}: cannot be written: {error.strerror}") from None


def plot(result: Result, path: Path) -> None:
    """Measured and predicted, window after window."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 1.8 * len(result.traces)), layout="constrained")
    axes: Any = figure.subplots(len(result.traces), 1, sharex=True, squeeze=False)[:, 0]
    for ax, (name, (measured, before, after)) in zip(axes, result.traces.items(), strict=True):
        seconds = np.arange(len(measured)) * DT * COMPARE_EVERY
        ax.plot(seconds, before, color="tab:orange", lw=0.8, label="before")
        ax.plot(seconds, after, color="tab:blue", lw=1.0, label="after")
        ax.plot(seconds, measured, color="black", lw=0.8, ls=":", label="measured")
        ax.set_ylabel(name)
        low, high = float(measured.min()), float(measured.max())
        ax.set_ylim(low - 0.3 * (high - low) - 1e-3, high + 0.3 * (high - low) + 1e-3)
    axes[0].legend(loc="upper right", ncols=3)
    axes[-1].set_xlabel(f"time in the windows, s; each starts anew after {WINDOW_S:g} s")
    figure.savefig(path, dpi=110)
