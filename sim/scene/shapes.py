"""Shapes: every thing is a set of parts with one form of equation, so that one kernel casts them all.

In its own frame, scaled to a half-size of one, a part is the region x² + y² + a z² + b z ≤ 1 and low ≤ z ≤ high:
a ball (a = 1), a cylinder (a = 0), a cone (a = −k², b = 2k); or a box, |x|, |y|, |z| ≤ 1. Unequal half-sizes
make discs, fins and planks. Parts belong to a thing, which has a place and moves; a part may swing about a hinge.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from rov.types import Floats

Vector = tuple[float, float, float]
ZERO: Vector = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Paint:
    """Two colours (reflectances R G B, linear) and how they mix over a part's own frame, −1..1."""

    one: Vector
    two: Vector | None = None
    along: Vector = ZERO
    """Gradient of the mix per half-size: with 1 a colour turns into the other over one half-size."""
    shift: float = 0.0
    mottle: float = 0.0
    """Share of noise in the mix."""
    rough: float = 0.15
    """Share of noise in the brightness."""
    scale: float = 1.0
    """Repeats of the noise over a half-size."""
    stripes: float = 0.0
    """Stripes per half-size along `along`."""
    gloss: float = 0.0
    opaque: float = 1.0


@dataclass(frozen=True)
class Part:
    half: Vector
    a: float = 1.0
    b: float = 0.0
    low: float = -1.0
    high: float = 1.0
    box: bool = False
    bump: float = 0.0
    """Depth of dents as a share of the radius."""
    at: Vector = ZERO
    turn: Floats = field(default_factory=lambda: np.eye(3))
    paint: Paint = Paint((0.5, 0.5, 0.5))
    hinge: Vector = ZERO
    axis: Vector = (0.0, 0.0, 1.0)
    swing: float = 0.0
    """Amplitude in rad, about `axis` through `hinge`."""
    hertz: float = 0.0
    phase: float = 0.0


@dataclass(frozen=True)
class Thing:
    """Parts around one place. Moves on a circle of `orbit` m at `speed` rad/s, bobs by `bob` m."""

    label: str
    """Class; empty for things without one (a cable, a weed)."""
    parts: tuple[Part, ...]
    at: Vector
    turn: Floats = field(default_factory=lambda: np.eye(3))
    orbit: float = 0.0
    speed: float = 0.0
    phase: float = 0.0
    bob: float = 0.0
    bob_hertz: float = 0.1
    size: float = 1.0
    """Radius of its shadow on the bottom, m; 0 casts none."""


def rotation(roll: float = 0.0, pitch: float = 0.0, yaw: float = 0.0) -> Floats:
    """Body to world, radians: yaw first, then pitch, then roll."""
    cr, sr, cp, sp, cy, sy = (f(x) for x in (roll, pitch, yaw) for f in (math.cos, math.sin))
    return np.array(
        [
            [cp * cy, sr * sp * cy - cr * sy, cr * sp * cy + sr * sy],
            [cp * sy, sr * sp * sy + cr * cy, cr * sp * sy - sr * cy],
            [-sp, sr * cp, cr * cp],
        ]
    )


def towards(direction: Vector) -> Floats:
    """A rotation that turns z to `direction`."""
    z = np.array(direction) / np.linalg.norm(direction)
    x = np.cross(z, (0.0, 0.0, 1.0) if abs(z[2]) < 0.9 else (1.0, 0.0, 0.0))
    x /= np.linalg.norm(x)
    return np.stack((x, np.cross(z, x), z), 1)


def ball(half: Vector, at: Vector = ZERO, paint: Paint | None = None, **more: object) -> Part:
    return Part(half, at=at, paint=paint or Paint((0.5, 0.5, 0.5)), **more)  # type: ignore[arg-type]


def rod(start: Vector, end: Vector, radius: float, paint: Paint, tip: float = 1.0, **more: object) -> Part:
    """From one point to another; `tip` is the radius at the end as a share of that at the start."""
    a, b = np.array(start), np.array(end)
    length = float(np.linalg.norm(b - a))
    # (1 + s z) with radius r0 (1 - k (z + 1) / 2): scaled so that the radius at z = 0 is one.
    middle = (1 + tip) / 2
    k = (1 - tip) / (1 + tip)
    half = (radius * middle, radius * middle, length / 2)
    centre = (a + b) / 2
    return Part(
        half,
        a=-k * k,
        b=2 * k,
        at=(float(centre[0]), float(centre[1]), float(centre[2])),
        turn=towards((float((b - a)[0]), float((b - a)[1]), float((b - a)[2]))),
        paint=paint,
        **more,  # type: ignore[arg-type]
    )


def rods(start: Vector, end: Vector, radius: float, paint: Paint, pieces: int) -> tuple[Part, ...]:
    """A long rod in pieces: parts that are small on the screen are cast faster."""
    points = np.linspace(start, end, pieces + 1)
    return tuple(rod(tuple(a), tuple(b), radius, paint) for a, b in zip(points[:-1], points[1:], strict=True))


def plank(half: Vector, at: Vector, paint: Paint, turn: Floats | None = None, **more: object) -> Part:
    return Part(half, box=True, at=at, paint=paint, turn=np.eye(3) if turn is None else turn, **more)  # type: ignore[arg-type]


def fin(root: Vector, tip: Vector, breadth: float, thin: Vector, paint: Paint, **more: object) -> Part:
    """A flat cone from a narrow `root` to a broad `tip`; `thin` is the direction in which it is thin."""
    a, b = np.array(root), np.array(tip)
    z = (b - a) / np.linalg.norm(b - a)
    y = np.array(thin) - np.dot(thin, z) * z
    y /= np.linalg.norm(y)
    centre, half = (a + b) / 2, float(np.linalg.norm(b - a)) / 2
    return Part(
        (breadth / 3.6, 0.05 * breadth, half),
        a=-0.64,
        b=-1.6,
        at=(float(centre[0]), float(centre[1]), float(centre[2])),
        turn=np.stack((np.cross(y, z), y, z), 1),
        paint=paint,
        **more,  # type: ignore[arg-type]
    )
