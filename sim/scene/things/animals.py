"""Animals: starfish, fish, jellyfish, sharks, rays."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from sim.scene.shapes import Paint, Part, Thing, Vector, ball, fin, rod, rotation
from sim.scene.things.variation import BLACK, Random, shade, tossed


def starfish(random: Random, at: Vector, bottom: float, scale: float) -> list[Thing]:
    r = 0.13 * scale
    colours: tuple[Vector, ...] = ((0.55, 0.16, 0.06), (0.6, 0.5, 0.35), (0.45, 0.12, 0.2))
    colour = shade(random, colours[random.integers(3)])
    paint = Paint(colour, shade(random, colour, 0.4), mottle=0.9, rough=0.6, scale=0.6)
    arms = []
    for i in range(5):
        angle = 2 * math.pi * i / 5 + random.normal(0, 0.1)
        tip = (r * math.cos(angle), r * math.sin(angle), 0.02 * r)
        arms.append(rod((0, 0, -0.08 * r), tip, 0.26 * r, paint, 0.25))
    parts = (*arms, ball((0.3 * r, 0.3 * r, 0.2 * r), paint=paint))
    return [Thing("starfish", parts, (at[0], at[1], bottom - 0.05 * r), tossed(random, 0.15), size=0.7 * r)]


def _fish_parts(random: Random, r: float, phase: float) -> tuple[Part, ...]:
    """A fish of length 2 r."""
    backs: tuple[Vector, ...] = (
        (0.12, 0.16, 0.2),
        (0.25, 0.2, 0.1),
        (0.5, 0.4, 0.08),
        (0.15, 0.2, 0.35),
        (0.3, 0.12, 0.06),
    )
    back = shade(random, backs[random.integers(len(backs))])
    belly = shade(random, (0.6, 0.6, 0.58), 0.12)
    if random.random() < 0.35:
        skin = Paint(back, belly, (1.0, 0, 0.0), 0.5, rough=0.2, stripes=float(random.uniform(0.8, 2.0)), gloss=0.3)
    else:
        skin = Paint(back, belly, (0, 0, 0.9), 0.45, mottle=0.3, rough=0.25, scale=0.8, gloss=0.4)
    deep, thick = float(random.uniform(0.26, 0.55)), float(random.uniform(0.11, 0.17))
    fins = Paint(shade(random, back, 0.3), rough=0.3, opaque=0.85)
    hertz = float(random.uniform(1.5, 3.0))
    wag = {"axis": (0.0, 0.0, 1.0), "hertz": hertz}
    return (
        ball((0.72 * r, thick * r, deep * r), (0.18 * r, 0, 0), skin),
        rod(
            (-0.2 * r, 0, 0),
            (-0.72 * r, 0, 0),
            0.6 * deep * r,
            skin,
            0.3,
            hinge=(-0.1 * r, 0, 0),
            swing=0.12,
            phase=phase,
            **wag,
        ),
        *(
            fin(
                (-0.68 * r, 0, 0),
                (-1.05 * r, 0, side * 0.22 * r),
                0.26 * r,
                (0, 1, 0),
                fins,
                hinge=(-0.5 * r, 0, 0),
                swing=0.35,
                phase=phase - 0.8,
                **wag,
            )
            for side in (-1, 1)
        ),
        fin((0.15 * r, 0, -0.6 * deep * r), (-0.2 * r, 0, -1.3 * deep * r), 0.45 * r, (0, 1, 0), fins),
        fin((0.1 * r, 0, 0.6 * deep * r), (-0.15 * r, 0, 1.15 * deep * r), 0.25 * r, (0, 1, 0), fins),
        *(
            ball(
                (0.05 * r, 0.03 * r, 0.05 * r),
                (0.66 * r, side * thick * 0.72 * r, -0.12 * deep * r),
                Paint(BLACK, gloss=0.8),
            )
            for side in (-1, 1)
        ),
    )


def fish(random: Random, at: Vector, bottom: float, scale: float) -> list[Thing]:
    """One fish that swims in a circle."""
    parts = _fish_parts(random, 0.12 * scale * float(random.uniform(0.7, 1.4)), float(random.uniform(0, 6)))
    orbit = float(random.uniform(0.8, 3.0))
    speed = float(random.choice((-1, 1)) * random.uniform(0.15, 0.5)) / orbit
    return [Thing("fish", parts, at, orbit=orbit, speed=speed, phase=float(random.uniform(0, 6.28)), bob=0.1, size=0.0)]


def school(random: Random, at: Vector, bottom: float, scale: float) -> list[Thing]:
    """Six to fourteen fish alike, on neighbouring circles."""
    orbit, speed = float(random.uniform(1.5, 4.0)), float(random.choice((-1, 1)) * random.uniform(0.2, 0.5))
    parts = _fish_parts(random, 0.08 * scale * float(random.uniform(0.7, 1.4)), 0.0)
    middle, made = float(random.uniform(0, 6.28)), []
    for _ in range(int(random.integers(6, 15))):
        ring = orbit * float(random.uniform(0.75, 1.25))
        spot = (at[0], at[1], at[2] + float(random.normal(0, 0.25)))
        phase = middle + float(random.normal(0, 0.25))
        made.append(Thing("fish", parts, spot, orbit=ring, speed=speed / orbit, phase=phase, bob=0.08, size=0.0))
    return made


def jellyfish(random: Random, at: Vector, bottom: float, scale: float) -> list[Thing]:
    r = 0.14 * scale * float(random.uniform(0.6, 1.3))
    colours: tuple[Vector, ...] = ((0.6, 0.62, 0.65), (0.6, 0.35, 0.12), (0.55, 0.35, 0.45))
    colour = shade(random, colours[random.integers(3)], 0.15)
    clear = Paint(
        colour,
        (0.8, 0.8, 0.8),
        (0, 0, -0.6),
        0.2,
        mottle=0.5,
        rough=0.4,
        scale=0.6,
        gloss=0.2,
        opaque=float(random.uniform(0.35, 0.65)),
    )
    arms = Paint(colour, rough=0.6, scale=1.5, opaque=0.55)
    beat, phase = float(random.uniform(0.3, 0.7)), float(random.uniform(0, 6))
    parts = [
        ball((r, r, 0.85 * r), paint=clear, high=0.15),
        ball((0.45 * r, 0.45 * r, 0.3 * r), (0, 0, -0.2 * r), arms),
    ]
    for i in range(7):
        angle = 2 * math.pi * i / 7
        x, y = 0.6 * r * math.cos(angle), 0.6 * r * math.sin(angle)
        long = r * float(random.uniform(1.2, 2.6))
        parts.append(
            rod(
                (x, y, 0),
                (0.7 * x, 0.7 * y, long),
                0.05 * r,
                arms,
                0.3,
                hinge=(x, y, 0.0),
                axis=(-math.sin(angle), math.cos(angle), 0.0),
                swing=0.25,
                hertz=beat,
                phase=phase + i,
            )
        )
    return [
        Thing(
            "jellyfish",
            tuple(parts),
            at,
            rotation(*random.normal(0, 0.3, 2)),
            orbit=0.4,
            speed=0.05,
            phase=phase,
            bob=0.25,
            bob_hertz=beat / 4,
            size=0.0,
        )
    ]


def shark(random: Random, at: Vector, bottom: float, scale: float) -> list[Thing]:
    r, phase = 0.8 * scale, float(random.uniform(0, 6))
    skin = Paint(shade(random, (0.2, 0.21, 0.22), 0.2), (0.6, 0.6, 0.58), (0, 0, 1.4), 0.2, mottle=0.25, rough=0.2)
    dark = Paint(shade(random, (0.2, 0.21, 0.22), 0.2), rough=0.2)
    wag = {"axis": (0.0, 0.0, 1.0), "hertz": 0.6, "phase": phase}
    parts = (
        ball((0.62 * r, 0.13 * r, 0.15 * r), (0.3 * r, 0, 0), skin),
        rod((0.1 * r, 0, 0), (-0.85 * r, 0, -0.03 * r), 0.135 * r, skin, 0.2, hinge=(0.1 * r, 0, 0), swing=0.12, **wag),
        fin(
            (-0.8 * r, 0, 0),
            (-1.15 * r, 0, -0.3 * r),
            0.16 * r,
            (0, 1, 0),
            dark,
            hinge=(0.1 * r, 0, 0),
            swing=0.18,
            **wag,
        ),
        fin(
            (-0.8 * r, 0, 0),
            (-0.98 * r, 0, 0.16 * r),
            0.12 * r,
            (0, 1, 0),
            dark,
            hinge=(0.1 * r, 0, 0),
            swing=0.18,
            **wag,
        ),
        fin((0.12 * r, 0, -0.32 * r), (0.2 * r, 0, -0.08 * r), 0.26 * r, (0, 1, 0), dark),
        *(
            fin(
                (0.2 * r, side * 0.42 * r, 0.12 * r), (0.36 * r, side * 0.08 * r, 0.05 * r), 0.22 * r, (0, 0.2, 1), dark
            )
            for side in (-1, 1)
        ),
    )
    orbit = float(random.uniform(2.0, 4.0))
    speed = float(random.choice((-1, 1)) * random.uniform(0.3, 0.6)) / orbit
    return [Thing("shark", parts, at, orbit=orbit, speed=speed, phase=phase, bob=0.1, bob_hertz=0.05, size=0.4)]


def stingray(random: Random, at: Vector, bottom: float, scale: float) -> list[Thing]:
    r, phase = 0.35 * scale, float(random.uniform(0, 6))
    colour = shade(random, ((0.14, 0.13, 0.12), (0.3, 0.25, 0.18))[random.integers(2)])
    skin = Paint(colour, (0.6, 0.58, 0.55), (0, 0, 1.5), -0.4, mottle=0.4, rough=0.4, scale=0.5)
    parts = [ball((0.62 * r, 0.42 * r, 0.13 * r), paint=skin)]
    for side in (-1, 1):
        flap = {"hinge": (0.0, 0.0, 0.0), "axis": (float(side), 0.0, 0.0), "swing": 0.3, "hertz": 0.5, "phase": phase}
        wing = rod((0, side * 0.15 * r, 0), (-0.12 * r, side * 1.05 * r, -0.05 * r), 0.55 * r, skin, 0.08, **flap)
        parts.append(_flat(wing, 0.12))
    parts.append(
        rod((-0.5 * r, 0, 0), (-1.7 * r, 0, 0), 0.035 * r, skin, 0.2, hinge=(-0.5 * r, 0, 0), swing=0.2, hertz=0.3)
    )
    resting = random.random() < 0.5
    z = bottom - 0.08 * r if resting else min(at[2], bottom - 0.3)
    orbit = 0.0 if resting else float(random.uniform(1.0, 2.5))
    return [
        Thing(
            "stingray",
            tuple(parts),
            (at[0], at[1], z),
            tossed(random) if resting else np.eye(3),
            orbit=orbit,
            speed=0.0 if resting else 0.25 / orbit,
            phase=phase,
            size=0.8 * r,
        )
    ]


def _flat(part: Part, share: float) -> Part:
    """The part, thin along the world's z."""
    z = part.turn[:, 2]
    y = np.array((0.0, 0.0, 1.0)) - z[2] * z
    y /= np.linalg.norm(y)
    half = (part.half[0], share * part.half[1], part.half[2])
    return replace(part, turn=np.stack((np.cross(y, z), y, z), 1), half=half)
