"""The catalogue: what can be in the water, each built of parts from a random generator, a place and a scale.
Long because it is a list: a function for each thing, none of which knows another, and the table of their names.

Things face x, with y to their right and z down; lengths in m. Colours are linear reflectances, judged from pictures.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from sim.scene.shapes import Paint, Part, Thing, Vector, ball, fin, plank, rod, rods, rotation

Random = np.random.Generator
Maker = Callable[[Random, Vector, float, float], list[Thing]]

BUOYS: dict[str, Vector] = {"red": (0.75, 0.04, 0.03), "green": (0.05, 0.6, 0.14), "yellow": (0.75, 0.62, 0.05)}
BLACK: Vector = (0.02, 0.02, 0.02)
STEEL: Vector = (0.45, 0.46, 0.47)


def _turn(random: Random, tilt: float = 0.0) -> np.ndarray:
    roll, pitch = random.uniform(-tilt, tilt, 2)
    return rotation(roll, pitch, random.uniform(-math.pi, math.pi))


def _shade(random: Random, colour: Vector, spread: float = 0.25) -> Vector:
    """The colour, a little lighter or darker and a little off."""
    factor = math.exp(random.normal(0, spread)) * np.exp(random.normal(0, spread / 3, 3))
    r, g, b = np.clip(np.array(colour) * factor, 0.01, 0.9)
    return (float(r), float(g), float(b))


def _buoy(colour: str) -> Maker:
    def make(random: Random, at: Vector, bottom: float, scale: float) -> list[Thing]:
        x, y, z = at
        r = 0.11 * scale
        skin = Paint(_shade(random, BUOYS[colour], 0.12), rough=0.12, gloss=0.25)
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
        _shade(random, ((0.75, 0.25, 0.03), (0.7, 0.55, 0.06))[random.integers(2)], 0.15), rough=0.3, gloss=0.2
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
    paint = Paint(_shade(random, (0.45, 0.62, 0.1), 0.15), rough=0.4)
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
            _turn(random),
            size=0.4,
        )
    ]


ROCKS: tuple[Vector, ...] = (
    (0.32, 0.26, 0.2),
    (0.2, 0.17, 0.14),
    (0.42, 0.4, 0.36),
    (0.35, 0.22, 0.18),
    (0.16, 0.17, 0.13),
)


def rock(random: Random, at: Vector, bottom: float, scale: float) -> list[Thing]:
    r = scale * float(random.uniform(0.6, 1.4)) * 0.18
    colour = _shade(random, ROCKS[random.integers(len(ROCKS))])
    paint = Paint(colour, _shade(random, colour, 0.35), mottle=1.6, rough=0.75, scale=0.22)
    lobes = []
    for i in range(int(random.integers(2, 4))):
        half = r * random.uniform(0.55, 1.0, 3) * np.array((1.15, 0.9, 0.75))
        shift = random.normal(0, 0.3 * r, 3) * (i > 0) * np.array((1, 1, 0.4))
        lobes.append(
            ball(tuple(half), tuple(shift), paint, bump=float(random.uniform(0.2, 0.45)), turn=_turn(random, 0.6))
        )
    return [Thing("rock", tuple(lobes), (at[0], at[1], bottom - 0.35 * r), _turn(random, 0.2), size=1.25 * r)]


def boulders(random: Random, at: Vector, bottom: float, scale: float) -> list[Thing]:
    """Rocky ground: too large and too many to be objects; it has no class."""
    made = []
    for _ in range(int(random.integers(3, 6))):
        r = scale * float(random.uniform(0.3, 0.9))
        colour = _shade(random, ROCKS[random.integers(len(ROCKS))])
        paint = Paint(colour, _shade(random, (0.2, 0.14, 0.2), 0.5), mottle=2.0, rough=0.9, scale=0.6)
        half = r * random.uniform(0.6, 1.1, 3)
        spot = np.array(at[:2]) + random.normal(0, 0.9 * scale, 2)
        part = ball(tuple(half), paint=paint, bump=0.5, turn=_turn(random, 0.8))
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
    colour = _shade(random, colours[random.integers(5)])
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
    return [Thing("", tuple(parts), (at[0], at[1], bottom), _turn(random), size=r)]


def weed(random: Random, at: Vector, bottom: float, scale: float) -> list[Thing]:
    colour = _shade(random, (0.1, 0.2, 0.04), 0.4)
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


def bottle(random: Random, at: Vector, bottom: float, scale: float) -> list[Thing]:
    glass: tuple[Vector, ...] = ((0.5, 0.56, 0.56), (0.1, 0.25, 0.08), (0.45, 0.5, 0.6))
    body = Paint(
        _shade(random, glass[random.integers(3)], 0.15),
        rough=0.35,
        scale=0.4,
        gloss=0.8,
        opaque=float(random.uniform(0.4, 0.8)),
    )
    labels: tuple[Vector, ...] = ((0.08, 0.07, 0.25), (0.5, 0.06, 0.05), (0.1, 0.3, 0.55), (0.7, 0.7, 0.66))
    label = Paint(
        _shade(random, labels[random.integers(4)]), (0.75, 0.75, 0.75), (0, 0.5, 0.3), mottle=0.7, rough=0.1, scale=0.8
    )
    r = 0.034 * scale
    parts = (
        rod((-3.4 * r, 0, 0), (1.4 * r, 0, 0), r, body),
        rod((-2.2 * r, 0, 0), (0.3 * r, 0, 0), 1.03 * r, label),
        rod((1.4 * r, 0, 0), (3.0 * r, 0, 0), r, body, 0.38),
        rod((3.0 * r, 0, 0), (3.5 * r, 0, 0), 0.45 * r, Paint(labels[random.integers(4)])),
    )
    return [Thing("bottle", parts, (at[0], at[1], bottom - 0.9 * r), _turn(random, 0.25), size=2.2 * r)]


def can(random: Random, at: Vector, bottom: float, scale: float) -> list[Thing]:
    r = 0.033 * scale
    colours: tuple[Vector, ...] = ((0.5, 0.05, 0.05), STEEL, (0.1, 0.2, 0.45), (0.3, 0.2, 0.12))
    side = Paint(
        _shade(random, colours[random.integers(4)]), STEEL, (0.3, 0.3, 0), mottle=1.2, rough=0.4, scale=0.6, gloss=0.7
    )
    lid = Paint(STEEL, rough=0.4, gloss=1.0)
    parts = (
        rod((-1.7 * r, 0, 0), (1.5 * r, 0, 0), r, side),
        rod((1.5 * r, 0, 0), (1.8 * r, 0, 0), r, lid, 0.82),
        rod((-1.7 * r, 0, 0), (-1.9 * r, 0, 0), r, lid, 0.85),
    )
    return [Thing("metal", parts, (at[0], at[1], bottom - 0.9 * r), _turn(random, 0.3), size=1.4 * r)]


def bag(random: Random, at: Vector, bottom: float, scale: float) -> list[Thing]:
    colours: tuple[Vector, ...] = ((0.7, 0.7, 0.68), (0.05, 0.05, 0.06), (0.2, 0.35, 0.55), (0.6, 0.5, 0.42))
    colour = _shade(random, colours[random.choice(4, p=(0.45, 0.25, 0.15, 0.15))], 0.15)
    lit = (min(colour[0] * 1.5, 0.9), min(colour[1] * 1.5, 0.9), min(colour[2] * 1.5, 0.9))
    paint = Paint(
        colour, lit, (0, 0, 0.0), mottle=1.4, rough=0.5, scale=0.18, gloss=0.5, opaque=float(random.uniform(0.75, 1))
    )
    r = 0.17 * scale
    parts = [ball((r, 0.75 * r, 0.55 * r), paint=paint, bump=0.5, turn=_turn(random, 0.4))]
    for _ in range(2):
        lobe = random.uniform(0.35, 0.7, 3) * r
        at_lobe = random.normal(0, 0.5 * r, 3) * np.array((1, 1, 0.3))
        parts.append(ball(tuple(lobe), tuple(at_lobe), paint, bump=0.5, turn=_turn(random, 0.6)))
    handle = fin(
        (0.6 * r, 0, -0.2 * r), (1.5 * r, 0.2 * r, -0.6 * r), 0.5 * r, (0, 0.3, 1), paint, swing=0.3, hertz=0.2
    )
    afloat = random.random() < 0.35
    z = bottom - (float(random.uniform(0.5, 1.5)) if afloat else 0.35 * r)
    moves = {"bob": 0.1, "orbit": 0.2, "speed": 0.1} if afloat else {}
    return [Thing("bag", (*parts, handle), (at[0], at[1], z), _turn(random, 0.9 if afloat else 0.2), size=r, **moves)]


def starfish(random: Random, at: Vector, bottom: float, scale: float) -> list[Thing]:
    r = 0.13 * scale
    colours: tuple[Vector, ...] = ((0.55, 0.16, 0.06), (0.6, 0.5, 0.35), (0.45, 0.12, 0.2))
    colour = _shade(random, colours[random.integers(3)])
    paint = Paint(colour, _shade(random, colour, 0.4), mottle=0.9, rough=0.6, scale=0.6)
    arms = []
    for i in range(5):
        angle = 2 * math.pi * i / 5 + random.normal(0, 0.1)
        tip = (r * math.cos(angle), r * math.sin(angle), 0.02 * r)
        arms.append(rod((0, 0, -0.08 * r), tip, 0.26 * r, paint, 0.25))
    parts = (*arms, ball((0.3 * r, 0.3 * r, 0.2 * r), paint=paint))
    return [Thing("starfish", parts, (at[0], at[1], bottom - 0.05 * r), _turn(random, 0.15), size=0.7 * r)]


def _fish_parts(random: Random, r: float, phase: float) -> tuple[Part, ...]:
    """A fish of length 2 r."""
    backs: tuple[Vector, ...] = (
        (0.12, 0.16, 0.2),
        (0.25, 0.2, 0.1),
        (0.5, 0.4, 0.08),
        (0.15, 0.2, 0.35),
        (0.3, 0.12, 0.06),
    )
    back = _shade(random, backs[random.integers(len(backs))])
    belly = _shade(random, (0.6, 0.6, 0.58), 0.12)
    if random.random() < 0.35:
        skin = Paint(back, belly, (1.0, 0, 0.0), 0.5, rough=0.2, stripes=float(random.uniform(0.8, 2.0)), gloss=0.3)
    else:
        skin = Paint(back, belly, (0, 0, 0.9), 0.45, mottle=0.3, rough=0.25, scale=0.8, gloss=0.4)
    deep, thick = float(random.uniform(0.26, 0.55)), float(random.uniform(0.11, 0.17))
    fins = Paint(_shade(random, back, 0.3), rough=0.3, opaque=0.85)
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
        fin(
            (-0.68 * r, 0, 0),
            (-1.05 * r, 0, -0.22 * r),
            0.26 * r,
            (0, 1, 0),
            fins,
            hinge=(-0.5 * r, 0, 0),
            swing=0.35,
            phase=phase - 0.8,
            **wag,
        ),
        fin(
            (-0.68 * r, 0, 0),
            (-1.05 * r, 0, 0.22 * r),
            0.26 * r,
            (0, 1, 0),
            fins,
            hinge=(-0.5 * r, 0, 0),
            swing=0.35,
            phase=phase - 0.8,
            **wag,
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
    """One fish on its round."""
    parts = _fish_parts(random, 0.12 * scale * float(random.uniform(0.7, 1.4)), float(random.uniform(0, 6)))
    orbit = float(random.uniform(0.8, 3.0))
    speed = float(random.choice((-1, 1)) * random.uniform(0.15, 0.5)) / orbit
    return [Thing("fish", parts, at, orbit=orbit, speed=speed, phase=float(random.uniform(0, 6.28)), bob=0.1, size=0.0)]


def school(random: Random, at: Vector, bottom: float, scale: float) -> list[Thing]:
    """Six to fourteen alike, on neighbouring rounds."""
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
    colour = _shade(random, colours[random.integers(3)], 0.15)
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
    skin = Paint(_shade(random, (0.2, 0.21, 0.22), 0.2), (0.6, 0.6, 0.58), (0, 0, 1.4), 0.2, mottle=0.25, rough=0.2)
    dark = Paint(_shade(random, (0.2, 0.21, 0.22), 0.2), rough=0.2)
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
    colour = _shade(random, ((0.14, 0.13, 0.12), (0.3, 0.25, 0.18))[random.integers(2)])
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
            _turn(random) if resting else np.eye(3),
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


def diver(random: Random, at: Vector, bottom: float, scale: float) -> list[Thing]:
    """Swims prone, kicking, 1.9 m with fins."""
    suit = Paint(_shade(random, (0.03, 0.03, 0.035), 0.3), rough=0.4)
    skin = Paint(_shade(random, (0.45, 0.3, 0.22), 0.3))
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
    turn = rotation(pitch=float(random.normal(0, 0.2))) if "orbit" in moves else _turn(random, 0.5)
    return [Thing("diver", tuple(parts), at, turn, bob=0.08, bob_hertz=0.1, size=0.5, **moves)]


def pipeline(random: Random, at: Vector, bottom: float, scale: float) -> list[Thing]:
    """30 m of coated pipe, half buried here and there, with joints."""
    r = 0.2 * scale
    coat = Paint(
        _shade(random, (0.2, 0.17, 0.12), 0.3),
        _shade(random, (0.1, 0.14, 0.07), 0.3),
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


CATALOGUE: dict[str, Maker] = {
    **{f"buoy_{colour}": _buoy(colour) for colour in BUOYS},
    "gate": gate,
    "channel": channel,
    "marker": marker,
    "rock": rock,
    "boulders": boulders,
    "coral": coral,
    "weed": weed,
    "bottle": bottle,
    "can": can,
    "bag": bag,
    "starfish": starfish,
    "fish": fish,
    "school": school,
    "jellyfish": jellyfish,
    "shark": shark,
    "stingray": stingray,
    "diver": diver,
    "pipeline": pipeline,
    "pile": pile,
}
"""What a world's `[[things]]` may name."""
LABELS = (
    "buoy_red",
    "buoy_green",
    "buoy_yellow",
    "gate_post",
    "channel",
    "bottle",
    "bag",
    "metal",
    "rock",
    "fish",
    "jellyfish",
    "shark",
    "stingray",
    "starfish",
    "diver",
    "pipeline",
)
"""Classes of the labels; the first fourteen are the detector's."""
