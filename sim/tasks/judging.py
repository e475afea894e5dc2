"""What a task's judge is told after every decision, what it keeps per vehicle, and what it says."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sim.tasks.course import Course


class Tally(NamedTuple):
    """What a judge keeps of an episode, (N,)."""

    counted: Tensor
    """s in which being in the band counts."""
    good: Tensor
    """s of these in the band."""
    lost: Tensor
    """s in a row without the target in the picture."""
    along: Tensor
    """m, the farthest along the course."""
    missed: Tensor
    """bool: a gate was missed."""


class Situation(NamedTuple):
    """N vehicles after a decision."""

    course: Course
    before: Tensor
    """(N, 3) position at the decision, NED m."""
    position: Tensor
    """(N, 3)."""
    heading: Tensor
    """(N,) rad, true."""
    key: Tensor
    """(N, 3) where the key frame was taken; NaN before."""
    gap: Tensor
    """(N,) m to the nearest ball or rod, from the vehicle's skin."""
    touched: Tensor
    """(N,) bool: anything, during this decision."""
    in_picture: Tensor
    """(N,) bool: the first target is in the picture, not hidden."""
    joules: Tensor
    """(N,) during this decision."""
    dt: float
    elapsed: Tensor
    """(N,) s since the start, this decision included."""
    tally: Tally


class Verdict(NamedTuple):
    """Success, failure and time-out exclude each other."""

    rewards: dict[str, Tensor]
    """(N,) each, times its scale."""
    success: Tensor
    failed: Tensor
    timed_out: Tensor
    tally: Tally


def start_tally(n: int, device: torch.device) -> Tally:
    zero = torch.zeros(n, device=device)
    return Tally(zero, zero, zero, zero, zero > 1)


def scaled(scales: dict[str, float], named: dict[str, Tensor]) -> dict[str, Tensor]:
    """Named rewards times the scales of the same names."""
    assert scales.keys() == named.keys()
    return {name: scales[name] * value for name, value in named.items()}
