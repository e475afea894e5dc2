"""Easy, nominal and hard conditions, the same for all tasks, and how the test's differ from the training's.

The test draws from wider ranges of hulls (see hulls.py), turbidity and fields of view: the tails were never trained on.
Of delays the training has more than the test.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch

from sim.propulsion import CAPACITY_C
from sim.tasks.course import Conditions, uniform
from sim.vehicle import DT

LevelName = Literal["easy", "nominal", "hard"]
Split = Literal["train", "test"]


class Level(NamedTuple):
    """Ranges, uniform unless said otherwise."""

    current: tuple[float, float]
    """m/s, in any direction."""
    gust: tuple[float, float]
    """Standard deviation per axis, m/s."""
    attenuation: tuple[float, float]
    """1/m, log-uniform."""
    late_s: tuple[float, float]
    """From a frame to its setpoint."""
    behind_s: tuple[float, float]
    """From a command to the thrusters."""
    clutter: float
    """Scale of how many things are in the way: 1 is nominal."""


LEVELS: dict[str, Level] = {
    "easy": Level((0.0, 0.05), (0.0, 0.0), (0.1, 0.25), (0.03, 0.09), (0.0, 0.02), 0.5),
    "nominal": Level((0.0, 0.15), (0.0, 0.05), (0.12, 0.45), (0.03, 0.19), (0.0, 0.06), 1.0),
    "hard": Level((0.1, 0.25), (0.03, 0.08), (0.25, 0.7), (0.03, 0.19), (0.0, 0.06), 1.4),
}
HFOV_DEG = {"train": (65.0, 90.0), "test": (62.0, 94.0)}
CLEARER = {"train": 1.0, "test": 0.9}
"""The test's attenuation reaches below and above the training's by this factor."""
LATER = {"train": 1.4, "test": 1.0}
"""The training's setpoints come later than the test's, by this factor at most: 266 ms, short of the age (300 ms) at
which the vehicle no longer uses them. A computer that is busy has such delays."""
GUST_S = (5.0, 15.0)
RATE_TICKS = (3, 6)
"""Frames come every 60 to 120 ms: 8 to 16 Hz."""


def delays_s(level: Level, split: str) -> tuple[float, float]:
    """The least and the longest delay from a frame to its setpoint."""
    low, high = level.late_s
    return low, high * LATER[split]


def conditions(level: Level, split: str, n: int, random: torch.Generator, night: bool = False) -> Conditions:
    """The conditions of `n` vehicles."""
    speed, towards = uniform(random, *level.current, n), uniform(random, -math.pi, math.pi, n)
    low, high = level.attenuation
    low, high = low * CLEARER[split], high / CLEARER[split]
    half = torch.deg2rad(uniform(random, *HFOV_DEG[split], n)) / 2
    wide = half.tan()
    return Conditions(
        current=torch.stack([speed * towards.cos(), speed * towards.sin()], dim=1),
        gust=uniform(random, *level.gust, n),
        gust_s=uniform(random, *GUST_S, n),
        attenuation=uniform(random, math.log(low), math.log(high), n).exp(),
        night=torch.full((n,), night, device=random.device),
        view=torch.stack([wide, 0.75 * wide], dim=1),
        late=(uniform(random, *delays_s(level, split), n) / DT).round(),
        behind=(uniform(random, *level.behind_s, n) / DT).round().long(),
        charge=uniform(random, 0.0, 0.7 * CAPACITY_C, n),
    )
