"""Structures: buoys, gates, a channel, a pipeline, piles."""

from __future__ import annotations

import math

import numpy as np

from sim.scene.shapes import Paint, Part, Thing, Vector, ball, plank, rod, rods, rotation
from sim.scene.things.variation import BLACK, Maker, Random, shade, tossed

BUOYS: dict[str, Vector] = {"red": (0.75, 0.04, 0.03), "green": (0.05, 0.6, 0.14), "yellow": (0.75, 0.62, 0.05)}


def buoy(colour: str) -> Maker:
    def make(random: Random, at: Vector, bottom: float, scale: float) -> list[Thing]:
        x, y, z = at
        r = 0.11 * scale
        skin = Paint(shade(random, BUOYS[colour], 0.12), rough=0.12, gloss=0.25)
        body = (
            ball((r, r, 1.25 * r), paint=skin),
            rod((0, 0, 0.95 * r), (0, 0, 1.6 * r), 0.62 * r, Paint(BLACK), 0.2),
        )
        line = rods((0, 0, 1.5 * r), (0, 0, max(bottom - z, 1.6 * r)), 0.006, Paint(BLACK), 4)
        anchor = plank((0.12, 0.12, 0.06), (0, 0, bottom - z - 0.05), Paint((0.25, 0.25, 0.25), rough=0.5))
        sway = {"bob": 0.02, "bob_hertz": 0.15, "phase": float(random.uniform(0, 6))}
        return [
            Thing(f"buoy_{colour}", body, at, **sway),  # type: ignore[arg-type]
            Thing("", (*line, anchor), (x, y, z), size=0.15),
        ]

    return make


def gate(random: Random, at: Vector, bottom: float, scale: float) -> list[Thing]:
    """Two posts hanging from a beam on floats, 3 m apart, orange or yellow."""
    x, y, z = at
    yaw = random.normal(0, 0.15)
    paint = Paint(
        shade(random, ((0.75, 0.25, 0.03), (0.7, 0.55, 0.06))[random.integers(2)], 0.15), rough=0.3, gloss=0.2
    )
    wide, high, thick = 1.5 * scale, 1.2 * scale, 0.05
    side = np.array((-math.sin(yaw), math.cos(yaw), 0.0)) * wide
    made = []
    for sign in (-1, 1):
        foot = (float(x + sign * side[0]), float(y + sign * side[1]), z)
        post = (
            *rods((0, 0, -high / 2), (0, 0, high / 2), thick, paint, 2),
            rod((0, 0, high / 2), (0, 0, high / 2 + 0.1), thick * 1.1, Paint(BLACK)),
        )
        made.append(Thing("gate_post", post, foot, size=0.0))
    beam = rods((0, -wide, 0), (0, wide, 0), 0.035, Paint((0.6, 0.6, 0.6)), 4)
    made.append(Thing("", beam, (x, y, z - high / 2), rotation(yaw=yaw), size=0.0))
    for sign in (-1, 1):
        line = rods((0, 0, 0), (0, 0, bottom - z - high / 2), 0.006, Paint(BLACK), 3)
        made.append(Thing("", line, (float(x + sign * side[0]), float(y + sign * side[1]), z + high / 2), size=0.2))
    return made


def channel(random: Random, at: Vector, bottom: float, scale: float) -> list[Thing]:
    """A U of yellow-green tube, open at the top, 2.4 m wide."""
    paint = Paint(shade(random, (0.45, 0.62, 0.1), 0.15), rough=0.4)
    w, h = 1.2 * scale, 0.6 * scale
    tube = (
        *rods((0, -w, h), (0, w, h), 0.04, paint, 3),
        *rods((0, -w, -h), (0, -w, h), 0.035, paint, 2),
        *rods((0, w, -h), (0, w, h), 0.035, paint, 2),
    )
    stays = tuple(
        p for y in (-w, w) for p in rods((0, y, h), (0, y, max(bottom - at[2], h + 0.1)), 0.005, Paint(BLACK), 2)
    )
    turn = rotation(yaw=random.normal(0, 0.2))
    return [Thing("channel", tube, at, turn, size=0.0), Thing("", stays, at, turn, size=0.0)]


def marker(random: Random, at: Vector, bottom: float, scale: float) -> list[Thing]:
    """The orange plank on the bottom that points along the course. It has no class."""
    paint = Paint((0.8, 0.3, 0.04), rough=0.2)
    return [
        Thing(
            "",
            (plank((0.6 * scale, 0.08 * scale, 0.02), (0, 0, 0), paint),),
            (at[0], at[1], bottom - 0.35),
            tossed(random),
            size=0.4,
        )
    ]


def pipeline(random: Random, at: Vector, bottom: float, scale: float) -> list[Thing]:
    """30 m of coated pipe, half buried here and there, with joints."""
    r = 0.2 * scale
    coat = Paint(
        shade(random, (0.2, 0.17, 0.12), 0.3),
        shade(random, (0.1, 0.14, 0.07), 0.3),
        (0, -0.5, 0),
        -0.2,
        mottle=1.5,
        rough=0.8,
        scale=1.2,
    )
    joint = Paint((0.32, 0.3, 0.27), rough=0.7, scale=0.5)
    parts: list[Part] = []
    for x in np.arange(-15.0, 15.0, 1.5):
        parts.append(rod((float(x), 0, 0), (float(x) + 1.5, 0, 0), r, coat))
        if round(x / 1.5) % 4 == 0:
            parts.append(rod((float(x) - 0.12, 0, 0), (float(x) + 0.12, 0, 0), 1.12 * r, joint))
    turn = rotation(yaw=float(random.normal(0, 0.1)))
    return [Thing("pipeline", tuple(parts), (at[0], at[1], bottom - 0.55 * r), turn, size=0.0)]


def pile(random: Random, at: Vector, bottom: float, scale: float) -> list[Thing]:
    """A pier's pile, overgrown; it has no class."""
    wood = Paint((0.14, 0.11, 0.07), (0.25, 0.26, 0.16), (0, 0, 0.3), mottle=1.6, rough=0.9, scale=1.0)
    return [Thing("", rods((0, 0, -bottom), (0, 0, 0.1), 0.16 * scale, wood, 6), (at[0], at[1], bottom), size=0.25)]
