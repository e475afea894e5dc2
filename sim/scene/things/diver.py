"""A diver."""

from __future__ import annotations

import math

from sim.scene.shapes import Paint, Thing, Vector, ball, fin, rod, rotation
from sim.scene.things.variation import BLACK, STEEL, Random, shade, tossed


def diver(random: Random, at: Vector, bottom: float, scale: float) -> list[Thing]:
    """Swims prone, kicking, 1.9 m with fins."""
    suit = Paint(shade(random, (0.03, 0.03, 0.035), 0.3), rough=0.4)
    skin = Paint(shade(random, (0.45, 0.3, 0.22), 0.3))
    bright: tuple[Vector, ...] = ((0.6, 0.55, 0.05), (0.05, 0.2, 0.5), (0.5, 0.08, 0.05), (0.04, 0.04, 0.04))
    blade = Paint(bright[random.integers(4)], rough=0.2)
    tank = Paint(((0.6, 0.55, 0.1), STEEL, (0.7, 0.7, 0.7))[random.integers(3)], rough=0.2, gloss=0.5)
    kick, phase = float(random.uniform(0.5, 0.9)), float(random.uniform(0, 6))
    parts = [
        ball((0.34, 0.19, 0.13), (0.15, 0, 0), suit),
        ball((0.24, 0.17, 0.12), (-0.15, 0, 0.01), suit),
        ball((0.13, 0.095, 0.12), (0.6, 0, -0.03), suit),
        ball((0.06, 0.075, 0.06), (0.68, 0, 0.02), Paint((0.08, 0.09, 0.1), gloss=1.0)),
        ball((0.05, 0.06, 0.06), (0.67, 0, 0.08), skin),
        rod((0.38, 0, -0.2), (-0.22, 0, -0.2), 0.09, tank),
        ball((0.1, 0.088, 0.088), (0.38, 0, -0.2), tank),
        rod((0.45, 0.02, -0.2), (0.66, 0.1, -0.02), 0.016, Paint(BLACK)),
    ]
    for side in (-1.0, 1.0):
        arm = {"hinge": (0.4, side * 0.2, 0.0), "axis": (0.0, 1.0, 0.0), "swing": 0.25, "hertz": kick / 2}
        parts += [
            rod((0.4, side * 0.2, 0), (0.45, side * 0.34, 0.25), 0.06, suit, 0.8, phase=side, **arm),
            rod((0.45, side * 0.34, 0.25), (0.72, side * 0.22, 0.3), 0.048, suit, 0.7, phase=side, **arm),
            ball((0.08, 0.04, 0.03), (0.78, side * 0.2, 0.3), skin, phase=side, **arm),
        ]
        at_hip = {"hinge": (-0.3, side * 0.1, 0.0), "axis": (0.0, 1.0, 0.0), "hertz": kick}
        beat = phase + (math.pi if side > 0 else 0.0)
        parts += [
            rod((-0.28, side * 0.1, 0), (-0.72, side * 0.13, 0.03), 0.095, suit, 0.72, swing=0.3, phase=beat, **at_hip),
            rod(
                (-0.7, side * 0.13, 0.03),
                (-1.12, side * 0.13, 0),
                0.066,
                suit,
                0.7,
                swing=0.36,
                phase=beat - 0.3,
                **at_hip,
            ),
            fin(
                (-1.08, side * 0.13, 0),
                (-1.68, side * 0.15, 0),
                0.22,
                (0, 0, 1),
                blade,
                swing=0.42,
                phase=beat - 0.6,
                **at_hip,
            ),
        ]
    if random.random() < 0.5:
        orbit = float(random.uniform(2.0, 5.0))
        moves = {"orbit": orbit, "speed": float(random.choice((-1, 1))) * 0.4 / orbit, "phase": phase}
    else:
        moves = {"phase": phase}
    turn = rotation(pitch=float(random.normal(0, 0.2))) if "orbit" in moves else tossed(random, 0.5)
    return [Thing("diver", tuple(parts), at, turn, bob=0.08, bob_hertz=0.1, size=0.5, **moves)]
