"""What a task lays out for each of N vehicles: where to start, where to go, what is in the way, what can be tracked."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from sim.tasks.solids import NOWHERE_M, Solids

SMALLEST_DIVER_M = 0.42
"""A followed thing lower than this is a fish."""


class Targets(NamedTuple):
    """Things of the goal's class that a detector may find, (N, K, …)."""

    position: Tensor
    """(N, K, 3) NED, m; NOWHERE_M where there is none."""
    velocity: Tensor
    """(N, K, 3) m/s."""
    turning: Tensor
    """(N, K) rad/s of the velocity, clockwise."""
    height: Tensor
    """(N, K) height of the box that it fills, m."""


class Course(NamedTuple):
    """The layout of N vehicles. North and east are relative to the start."""

    goal: Tensor
    """(N, 4) heading rad, depth m, distance m, height m; NaN where the task gives none."""
    told_height: Tensor
    """(N,) m: what the operator says of the first target's height; NaN: nothing."""
    heading: Tensor
    """(N,) at the start, rad."""
    depth: Tensor
    """(N,) at the start, m."""
    length: Tensor
    """(N,) m to go along the goal's heading, or the duration in s of a task that lasts."""
    gates: Tensor
    """(N, G, 3) along the course, across it, half-width, m; NOWHERE_M along where there is none."""
    solids: Solids
    targets: Targets
    target_ball: bool
    """Whether the solids' first ball is the first target."""


class Conditions(NamedTuple):
    """Water, camera and delays of N vehicles."""

    current: Tensor
    """(N, 2) north, east, m/s."""
    gust: Tensor
    """(N,) standard deviation per axis, m/s."""
    gust_s: Tensor
    """(N,) time constant."""
    attenuation: Tensor
    """(N,) of what a picture shows, 1/m: the renderer's `blurred` coefficient in green."""
    night: Tensor
    """(N,) bool: only lamps."""
    view: Tensor
    """(N, 2) tangents of half the horizontal and vertical field of view."""
    late: Tensor
    """(N,) ticks from a frame to its setpoint."""
    behind: Tensor
    """(N,) ticks from a command to the thrusters."""
    charge: Tensor
    """(N,) drawn from the battery at the start, C."""


def divers(targets: Targets) -> Tensor:
    """(N, K) bool: which targets are divers, where they are something to be followed."""
    return targets.height >= SMALLEST_DIVER_M


def kicks(course: Course) -> Tensor:
    """(N, K) which targets are divers: no gate post is one."""
    return divers(course.targets) & course.target_ball


def fish(course: Course) -> Tensor:
    """(N, K) which targets are fish."""
    return ~divers(course.targets) & course.target_ball


def uniform(random: torch.Generator, low: float, high: float, *shape: int) -> Tensor:
    return low + (high - low) * torch.rand(*shape, generator=random, device=random.device)


def normal(random: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=random, device=random.device)


def sign(random: torch.Generator, *shape: int) -> Tensor:
    """−1 or 1."""
    return 2.0 * torch.randint(0, 2, shape, generator=random, device=random.device) - 1.0


def laid(heading: Tensor, along: Tensor, across: Tensor) -> Tensor:
    """(N, K, 2) north and east of places (N, K) along and across headings (N,)."""
    c, s = heading.cos()[:, None], heading.sin()[:, None]
    return torch.stack([along * c - across * s, along * s + across * c], dim=-1)


def progress(heading: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
    """How far positions (N, 3) lie along and across the line through the start at headings (N,), m."""
    c, s = heading.cos(), heading.sin()
    return position[:, 0] * c + position[:, 1] * s, position[:, 1] * c - position[:, 0] * s


def no_rods(n: int, random: torch.Generator) -> Tensor:
    return torch.zeros(n, 0, 8, device=random.device)


def open_water(n: int, random: torch.Generator) -> Tensor:
    """(N, 4) walls that are nowhere."""
    return torch.tensor([-NOWHERE_M, NOWHERE_M, -NOWHERE_M, NOWHERE_M], device=random.device).repeat(n, 1)


def wrapped(angle: Tensor) -> Tensor:
    """The same angle in −π..π."""
    return torch.remainder(angle + math.pi, 2 * math.pi) - math.pi
