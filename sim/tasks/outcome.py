"""What the sea tells: the truth, what is seen, and what a decision led to."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sim.tasks.course import Conditions, Course


class Truth(NamedTuple):
    """What is so; for experts and pages, never for a policy."""

    position: Tensor
    """(N, 3) NED, m."""
    velocity: Tensor
    """(N, 3) over ground, world axes, m/s."""
    heading: Tensor
    """(N,) rad."""
    turn: Tensor
    """(N, 3, 3) body to world."""
    current: Tensor
    """(N, 2) north, east, with the gust, m/s."""
    course: Course
    conditions: Conditions
    known_balls: Tensor
    """(N, B) bool: seen in the last KNOWN_S."""
    known_rods: Tensor
    """(N, R)."""
    known_targets: Tensor
    """(N, K)."""
    key: Tensor
    """(N, 3) position of the key frame; NaN before it is taken."""
    elapsed: Tensor
    """(N,) s."""
    ranges: Tensor
    """(N, 12, 16) m, without noise."""
    our_loops: Tensor
    """(N,) bool: our inner loops; else ArduSub's."""


class Sight(NamedTuple):
    """What is made of a picture: maps (N, 12, 16), tracks and displacements as in `Sources`."""

    inverse_range: Tensor
    log_variance: Tensor
    pipeline: Tensor
    tracks: Tensor
    moved: Tensor
    keyed: Tensor


class Outcome(NamedTuple):
    """What a decision led to, (N,) each."""

    rewards: dict[str, Tensor]
    success: Tensor
    failed: Tensor
    timed_out: Tensor
    done: Tensor
    """Any of the three. With auto-reset the observation that comes with it is the next episode's first."""
    touched: Tensor
    """Bool: something was bumped into."""
    joules: Tensor
    """From the battery, during this decision, hotel load included."""
    seconds: Tensor
    distance: Tensor
    """m over ground, during this decision."""

    @property
    def reward(self) -> Tensor:
        """(N,) the sum of the named rewards."""
        return torch.stack(list(self.rewards.values())).sum(0)
