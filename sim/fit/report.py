"""The result of a fit: parameters, their uncertainty, and the plot."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import torch
from torch import Tensor

from rov.types import Floats
from sim.fit.prediction import AXES, COMPARE_EVERY, ERRORS, NAMES
from sim.fit.windows import WINDOW_S, FitError, Windows
from sim.parameters import Parameters
from sim.vehicle import DT

KNOWN, ROUGH = 0.05, 0.2
"""A parameter is known `well` below the first standard deviation of θ, `roughly` below the second, else not."""


class Result(NamedTuple):
    """The result of a fit."""

    parameters: Parameters
    spread: dict[str, float]
    """Standard deviation of each θ, about the relative error; that of the prior where the dives show nothing."""
    before: dict[str, float]
    """RMS error of the windows' predictions by kind, rad, rad/s, m, m/s."""
    after: dict[str, float]
    flaws: Floats
    """(dives, 8) instrument errors per dive, in the order of FLAWS."""
    windows: int
    traces: dict[str, tuple[Floats, Floats, Floats]]
    """Measured, predicted before and after, over all windows."""

    def verdict(self, name: str) -> str:
        """How well a parameter is known."""
        spread = self.spread[name]
        return "well" if spread < KNOWN else "roughly" if spread < ROUGH else "no: the dive hardly shows it"


def numbers(start: Parameters, theta: Tensor) -> Parameters:
    """The start values, each times its e^θ."""
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
    """Name, start value and fitted value of each parameter."""

    def flat(each: Parameters) -> list[float]:
        lists = (*each.added_mass, *each.linear_damping, *each.quadratic_damping)
        return [*lists, each.thrust_scale, each.thrust_delay_s, each.buoyancy_n]

    return list(zip(NAMES, flat(start), flat(fitted), strict=True))


def errors(residual: Tensor, windows: Windows) -> dict[str, float]:
    """RMS error by kind, in its unit."""
    parts = dict(zip(ERRORS, torch.split(residual, [3, 3, 1, 3] if windows.dvl else [3, 3, 1]), strict=False))
    return {kind: float(part.square().mean().sqrt()) * ERRORS[kind] for kind, part in parts.items()}


def traces(before: Tensor, after: Tensor, windows: Windows) -> dict[str, tuple[Floats, Floats, Floats]]:
    """Curves to plot: measured, predicted before, predicted after."""
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
    """Write the vehicle to `path`, with the uncertainties as comments, and the plot beside it. Raises FitError."""
    head = [
        f"# Fitted to {result.windows} windows of {WINDOW_S:g} s. RMS error of their predictions, before and after:"
    ]
    head += [f"#   {kind}: {result.before[kind]:.4g} -> {result.after[kind]:.4g}" for kind in result.after]
    head.append("# How well each number is known, one standard deviation:")
    head += [f"#   {name}: {100 * spread:.1f} %, {result.verdict(name)}" for name, spread in result.spread.items()]
    head.append("# Errors of the instruments, taken out; of the compass the largest error:")
    for number, (p, q, r, roll, pitch, ahead, starboard, scale) in enumerate(result.flaws.tolist(), 1):
        angles = " ".join(f"{math.degrees(each):+.2f}" for each in (roll, pitch, math.hypot(ahead, starboard)))
        head.append(
            f"#   dive {number}: gyro {p:+.4f} {q:+.4f} {r:+.4f} rad/s; roll, pitch, compass {angles} degrees;"
            f" DVL {100 * scale:+.1f} %"
        )
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
    axes[-1].set_xlabel(f"time in the windows, s; a new one starts every {WINDOW_S:g} s")
    figure.savefig(path, dpi=110)
