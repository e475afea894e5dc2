"""Shared by the builders of things: their type, a random turn and a random shade."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from sim.scene.shapes import Thing, Vector, rotation

Random = np.random.Generator
Maker = Callable[[Random, Vector, float, float], list[Thing]]
"""Builds things from a random generator, a place (NED, m), the depth of the bottom there and a scale."""

BLACK: Vector = (0.02, 0.02, 0.02)
STEEL: Vector = (0.45, 0.46, 0.47)


def tossed(random: Random, tilt: float = 0.0) -> np.ndarray:
    """Any heading, rolled and pitched by up to `tilt` rad."""
    roll, pitch = random.uniform(-tilt, tilt, 2)
    return rotation(roll, pitch, random.uniform(-math.pi, math.pi))


def shade(random: Random, colour: Vector, spread: float = 0.25) -> Vector:
    """The colour, a little lighter or darker and a little off."""
    factor = math.exp(random.normal(0, spread)) * np.exp(random.normal(0, spread / 3, 3))
    r, g, b = np.clip(np.array(colour) * factor, 0.01, 0.9)
    return (float(r), float(g), float(b))
