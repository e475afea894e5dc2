"""Rocks, corals and weed on the bottom."""

from __future__ import annotations

import numpy as np

from sim.scene.shapes import Paint, Thing, Vector, ball, rod
from sim.scene.things.variation import Random, shade, tossed

ROCKS: tuple[Vector, ...] = (
    (0.32, 0.26, 0.2),
    (0.2, 0.17, 0.14),
    (0.42, 0.4, 0.36),
    (0.35, 0.22, 0.18),
    (0.16, 0.17, 0.13),
)


def rock(random: Random, at: Vector, bottom: float, scale: float) -> list[Thing]:
    r = scale * float(random.uniform(0.6, 1.4)) * 0.18
    colour = shade(random, ROCKS[random.integers(len(ROCKS))])
    paint = Paint(colour, shade(random, colour, 0.35), mottle=1.6, rough=0.75, scale=0.22)
    lobes = []
    for i in range(int(random.integers(2, 4))):
        half = r * random.uniform(0.55, 1.0, 3) * np.array((1.15, 0.9, 0.75))
        shift = random.normal(0, 0.3 * r, 3) * (i > 0) * np.array((1, 1, 0.4))
        lobes.append(
            ball(tuple(half), tuple(shift), paint, bump=float(random.uniform(0.2, 0.45)), turn=tossed(random, 0.6))
        )
    return [Thing("rock", tuple(lobes), (at[0], at[1], bottom - 0.35 * r), tossed(random, 0.2), size=1.25 * r)]


def boulders(random: Random, at: Vector, bottom: float, scale: float) -> list[Thing]:
    """Rocky ground without a class: too large, and too much of it, to be objects."""
    made = []
    for _ in range(int(random.integers(3, 6))):
        r = scale * float(random.uniform(0.3, 0.9))
        colour = shade(random, ROCKS[random.integers(len(ROCKS))])
        paint = Paint(colour, shade(random, (0.2, 0.14, 0.2), 0.5), mottle=2.0, rough=0.9, scale=0.6)
        half = r * random.uniform(0.6, 1.1, 3)
        spot = np.array(at[:2]) + random.normal(0, 0.9 * scale, 2)
        part = ball(tuple(half), paint=paint, bump=0.5, turn=tossed(random, 0.8))
        made.append(Thing("", (part,), (float(spot[0]), float(spot[1]), bottom - 0.1 * r), size=1.2 * r))
    return made


def coral(random: Random, at: Vector, bottom: float, scale: float) -> list[Thing]:
    colours: tuple[Vector, ...] = (
        (0.45, 0.2, 0.25),
        (0.5, 0.35, 0.12),
        (0.25, 0.3, 0.12),
        (0.5, 0.42, 0.35),
        (0.3, 0.15, 0.35),
    )
    colour = shade(random, colours[random.integers(5)])
    paint = Paint(colour, (0.55, 0.5, 0.42), (0, 0, 0.4), -0.2, mottle=0.5, rough=0.7, scale=0.4)
    r, parts = 0.3 * scale, []
    if random.random() < 0.4:  # a boulder coral
        parts.append(ball((r, r, 0.7 * r), paint=Paint(colour, mottle=0.5, rough=0.9, scale=1.2), bump=0.12))
    else:
        for _ in range(int(random.integers(5, 11))):
            lean = random.normal(0, 0.35, 2)
            tip = (float(r * lean[0] * 2), float(r * lean[1] * 2), float(-r * random.uniform(0.7, 1.6)))
            root = (float(r * lean[0] * 0.4), float(r * lean[1] * 0.4), 0.1)
            parts.append(rod(root, tip, 0.13 * r, paint, 0.5))
    return [Thing("", tuple(parts), (at[0], at[1], bottom), tossed(random), size=r)]


def weed(random: Random, at: Vector, bottom: float, scale: float) -> list[Thing]:
    colour = shade(random, (0.1, 0.2, 0.04), 0.4)
    blades = []
    for _ in range(int(random.integers(4, 9))):
        x, y = random.normal(0, 0.1 * scale, 2)
        lean = random.normal(0, 0.15, 2)
        h = scale * float(random.uniform(0.2, 0.7))
        blades.append(
            rod(
                (float(x), float(y), 0.05),
                (float(x + lean[0] * h), float(y + lean[1] * h), -h),
                0.018 * scale,
                Paint(colour, rough=0.5),
                0.25,
                hinge=(float(x), float(y), 0.05),
                axis=(0.7, 0.7, 0.0),
                swing=0.15,
                hertz=0.25,
                phase=float(random.uniform(0, 6)),
            )
        )
    return [Thing("", tuple(blades), (at[0], at[1], bottom), size=0.12 * scale)]
