"""What the detector takes for fish: stones on the ground around the course of who follows one. They lie still, so their
tracks last for as long as they are in sight."""

from __future__ import annotations

import torch

from sim.tasks.course import Course, Targets, fish, kicks, uniform
from sim.tasks.found import TrackerMemory
from sim.tasks.found import start_tracker as start
from sim.tasks.noise import TrackNoise
from sim.tasks.solids import NOWHERE_M

MOST = 4
AROUND_M = 7.0
"""North, south, east and west of the start."""
HEIGHT_M = (0.1, 0.35)


def around(course: Course, noise: TrackNoise, random: torch.Generator) -> Targets:
    """(N, MOST) stones on the ground, NOWHERE_M where there is none; (N, 0) where the noise has none at all."""
    n, some = len(course.depth), MOST if noise.stones else 0
    still = torch.zeros(n, some, 3, device=course.depth.device)
    there = (uniform(random, 0.0, 1.0, n, some) < noise.stones / MOST) & fish(course).any(1, keepdim=True)
    height = uniform(random, *HEIGHT_M, n, some)
    deep = course.solids.bottom[:, None] - height / 2
    place = torch.cat([uniform(random, -AROUND_M, AROUND_M, n, some, 2), deep[..., None]], dim=-1)
    return Targets(torch.where(there[..., None], place, NOWHERE_M), still, still[..., 0], height)


def start_tracker(course: Course, stones: Targets, random: torch.Generator) -> TrackerMemory:
    """Before the first picture, of the targets and of the stones, of which the detector is as sure as of fish."""
    none = stones.height < 0
    return start(torch.cat([kicks(course), none], 1), torch.cat([fish(course), ~none], 1), random)
