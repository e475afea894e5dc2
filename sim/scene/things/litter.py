"""Litter: bottles, cans, bags."""

from __future__ import annotations

import numpy as np

from sim.scene.shapes import Paint, Thing, Vector, ball, fin, rod
from sim.scene.things.variation import STEEL, Random, shade, tossed


def bottle(random: Random, at: Vector, bottom: float, scale: float) -> list[Thing]:
    glass: tuple[Vector, ...] = ((0.5, 0.56, 0.56), (0.1, 0.25, 0.08), (0.45, 0.5, 0.6))
    body = Paint(
        shade(random, glass[random.integers(3)], 0.15),
        rough=0.35,
        scale=0.4,
        gloss=0.8,
        opaque=float(random.uniform(0.4, 0.8)),
    )
    labels: tuple[Vector, ...] = ((0.08, 0.07, 0.25), (0.5, 0.06, 0.05), (0.1, 0.3, 0.55), (0.7, 0.7, 0.66))
    label = Paint(
        shade(random, labels[random.integers(4)]), (0.75, 0.75, 0.75), (0, 0.5, 0.3), mottle=0.7, rough=0.1, scale=0.8
    )
    r = 0.034 * scale
    parts = (
        rod((-3.4 * r, 0, 0), (1.4 * r, 0, 0), r, body),
        rod((-2.2 * r, 0, 0), (0.3 * r, 0, 0), 1.03 * r, label),
        rod((1.4 * r, 0, 0), (3.0 * r, 0, 0), r, body, 0.38),
        rod((3.0 * r, 0, 0), (3.5 * r, 0, 0), 0.45 * r, Paint(labels[random.integers(4)])),
    )
    return [Thing("bottle", parts, (at[0], at[1], bottom - 0.9 * r), tossed(random, 0.25), size=2.2 * r)]


def can(random: Random, at: Vector, bottom: float, scale: float) -> list[Thing]:
    r = 0.033 * scale
    colours: tuple[Vector, ...] = ((0.5, 0.05, 0.05), STEEL, (0.1, 0.2, 0.45), (0.3, 0.2, 0.12))
    side = Paint(
        shade(random, colours[random.integers(4)]), STEEL, (0.3, 0.3, 0), mottle=1.2, rough=0.4, scale=0.6, gloss=0.7
    )
    lid = Paint(STEEL, rough=0.4, gloss=1.0)
    parts = (
        rod((-1.7 * r, 0, 0), (1.5 * r, 0, 0), r, side),
        rod((1.5 * r, 0, 0), (1.8 * r, 0, 0), r, lid, 0.82),
        rod((-1.7 * r, 0, 0), (-1.9 * r, 0, 0), r, lid, 0.85),
    )
    return [Thing("metal", parts, (at[0], at[1], bottom - 0.9 * r), tossed(random, 0.3), size=1.4 * r)]


def bag(random: Random, at: Vector, bottom: float, scale: float) -> list[Thing]:
    colours: tuple[Vector, ...] = ((0.7, 0.7, 0.68), (0.05, 0.05, 0.06), (0.2, 0.35, 0.55), (0.6, 0.5, 0.42))
    colour = shade(random, colours[random.choice(4, p=(0.45, 0.25, 0.15, 0.15))], 0.15)
    lit = (min(colour[0] * 1.5, 0.9), min(colour[1] * 1.5, 0.9), min(colour[2] * 1.5, 0.9))
    paint = Paint(
        colour, lit, (0, 0, 0.0), mottle=1.4, rough=0.5, scale=0.18, gloss=0.5, opaque=float(random.uniform(0.75, 1))
    )
    r = 0.17 * scale
    parts = [ball((r, 0.75 * r, 0.55 * r), paint=paint, bump=0.5, turn=tossed(random, 0.4))]
    for _ in range(2):
        lobe = random.uniform(0.35, 0.7, 3) * r
        at_lobe = random.normal(0, 0.5 * r, 3) * np.array((1, 1, 0.3))
        parts.append(ball(tuple(lobe), tuple(at_lobe), paint, bump=0.5, turn=tossed(random, 0.6)))
    handle = fin(
        (0.6 * r, 0, -0.2 * r), (1.5 * r, 0.2 * r, -0.6 * r), 0.5 * r, (0, 0.3, 1), paint, swing=0.3, hertz=0.2
    )
    afloat = random.random() < 0.35
    z = bottom - (float(random.uniform(0.5, 1.5)) if afloat else 0.35 * r)
    moves = {"bob": 0.1, "orbit": 0.2, "speed": 0.1} if afloat else {}
    return [Thing("bag", (*parts, handle), (at[0], at[1], z), tossed(random, 0.9 if afloat else 0.2), size=r, **moves)]
