"""Tasks as scenes for the renderer: the same things at the same places, in the water and light of a world."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import cv2
import msgspec
import numpy as np
import torch
from torch import Tensor

from rov.types import Floats
from sim.scene.scene import Scene, Things
from sim.scene.shapes import Paint, Part, Thing, Vector, ball, rods, rotation
from sim.scene.things.animals import fish
from sim.scene.things.bottom import ROCKS, weed
from sim.scene.things.built import pipeline
from sim.scene.things.diver import diver
from sim.scene.things.variation import BLACK, Random, shade, tossed
from sim.tasks.course import SMALLEST_DIVER_M, Course
from sim.tasks.solids import NOWHERE_M
from sim.world import RealisedWorld, Spread, load, realise

RELIEF_M = 0.04
"""Largest standard deviation of the bottom's height: the sea that moves the vehicle has a flat one."""
WEEDS = 6
PHASES, SLICES = 16, 17
"""Of a swing, and of a part, for the height of things that move."""


class Look(NamedTuple):
    """Water, light, bottom and camera of one episode."""

    world: str
    seed: int
    place: RealisedWorld

    @property
    def attenuation(self) -> float:
        """1/m, in green."""
        return float(self.place.scene.water.blurred[1])

    @property
    def night(self) -> bool:
        return self.place.scene.light.day == 0


def look(world: str, seed: int, turbidity: tuple[float, float] | None = None) -> Look:
    """The look that a seed draws from a world of sim/worlds or a file; its things and its course are left out.
    `turbidity`: drawn from this range instead of the world's own. Raises WorldError."""
    drawn = load(world)
    if turbidity:
        water = msgspec.structs.replace(drawn.water, turbidity=Spread(log_uniform=turbidity))
        drawn = msgspec.structs.replace(drawn, water=water)
    place = realise(drawn, seed)
    return Look(place.name, seed, place)


def label(height: float) -> str:
    """The detector's class of a target that is `height` m high."""
    return "diver" if height >= SMALLEST_DIVER_M else "fish"


def scene(task: str, course: Course, row: int, look: Look) -> Scene:
    """The scene of one vehicle's course. In `follow` the first thing is the target."""
    random = np.random.Generator(np.random.PCG64([look.seed, 300]))
    bottom = float(course.solids.bottom[row])
    things: list[Thing] = []
    if task == "follow":
        things += _target(random, course, row, bottom)
    if task == "inspect":
        things += _pipe(random, course.solids.rods[row, 0].tolist(), bottom)
    if task == "transit":
        things += _gates(random, course.solids.rods[row].tolist(), bottom)
    balls = course.solids.balls[row, int(course.target_ball) :]
    things += [_rock(random, each.tolist()) for each in balls if _there(each)]
    things += _weeds(random, float(course.goal[row, 0].nan_to_num(float(course.heading[row]))), bottom)
    ground = look.place.scene.ground
    ground = replace(ground, bottom=bottom, relief=min(ground.relief, RELIEF_M), walls=None, seed=look.seed)
    return replace(look.place.scene, things=tuple(things), ground=ground, seed=look.seed)


def _there(place: Tensor) -> bool:
    return abs(float(place[0])) < NOWHERE_M / 2


def _rock(random: Random, at: list[float]) -> Thing:
    """A boulder as large as the ball that is bumped into; its dents go inwards only."""
    north, east, down, radius = at
    colour = shade(random, ROCKS[random.integers(len(ROCKS))])
    paint = Paint(colour, shade(random, colour, 0.4), mottle=1.8, rough=0.85, scale=0.4)
    part = ball((radius, radius, radius), paint=paint, bump=float(random.uniform(0.1, 0.3)), turn=tossed(random, 0.8))
    return Thing("", (part,), (north, east, down), size=1.1 * radius)


def _target(random: Random, course: Course, row: int, bottom: float) -> list[Thing]:
    north, east, down = course.targets.position[row, 0].tolist()
    height = float(course.targets.height[row, 0])
    if label(height) == "diver":
        made = diver(random, (north, east, down), bottom, 1.0)
    else:
        made = fish(random, (north, east, down), bottom, 1.0)
    scale = height / tall(made[0].parts)
    ahead, down_by = middle(made[0].parts)
    parts = tuple(_scaled(_moved(part, (-ahead, 0.0, -down_by)), scale) for part in made[0].parts)
    turn = rotation(yaw=heading(course, row))
    return [replace(made[0], parts=parts, at=(north, east, down), turn=turn, orbit=0.0, speed=0.0, bob=0.0)]


def tall(parts: Sequence[Part]) -> float:
    """Mean height in m of the box around the parts while they swing, as somebody sees it who lies beside: a diver's
    fins make it half as high again as the diver at rest."""
    boxes = _boxes(parts)
    return float((boxes[:, 1, 2] - boxes[:, 0, 2]).mean())


def middle(parts: Sequence[Part]) -> tuple[float, float]:
    """Mean place of that box's middle in the thing's frame, m ahead and down: a diver's is 0.37 m behind the origin. A
    detector says where the box is, so there is the target."""
    ahead, _, down = _boxes(parts).mean((0, 1)).tolist()
    return ahead, down


def _boxes(parts: Sequence[Part]) -> Floats:
    """(PHASES, 2, 3) least and largest coordinates of all parts while they swing."""
    slowest = min((part.hertz for part in parts if part.swing), default=1.0)
    boxes = []
    for t in np.linspace(0, 1 / slowest, PHASES, endpoint=False):
        ends = np.concatenate([_ends(part, t) for part in parts], axis=1)  # (2, all slices, 3)
        boxes.append(np.stack([ends[0].min(0), ends[1].max(0)]))
    return np.stack(boxes)


def _ends(part: Part, t: float) -> Floats:
    """(2, S, 3) the least and largest coordinates of the slices of a part at `t` s, in the thing's frame; see
    `sim.scene.shapes`."""
    angle = part.swing * math.sin(2 * math.pi * part.hertz * t + part.phase)
    swung = cv2.Rodrigues(angle * np.array(part.axis))[0]
    centre = np.array(part.hinge) + swung @ (np.array(part.at) - np.array(part.hinge))
    x, y, z = (swung @ part.turn * part.half).T  # each half axis, in the thing's frame
    along = np.linspace(part.low, part.high, SLICES)[:, None]
    if part.box:
        wide = np.broadcast_to(abs(x) + abs(y), (SLICES, 3))
    else:
        wide = np.hypot(x, y) * np.sqrt(np.maximum(1 - part.b * along - part.a * along**2, 0))
    inner = centre + z * along
    return np.stack([inner - wide, inner + wide])


def heading(course: Course, row: int) -> float:
    """Where the target of `follow` swims to, rad."""
    north, east, _ = course.targets.velocity[row, 0].tolist()
    return math.atan2(east, north)


def carried(things: Things, position: Tensor, ahead: Tensor) -> Things:
    """The things of S scenes with the first one of each at a position (S, 3), pointing to `ahead` (S,) rad."""
    at, turn = things.at.clone(), things.turn.clone()
    at[:, 0] = position
    zero, one = torch.zeros_like(ahead), torch.ones_like(ahead)
    c, s = ahead.cos(), ahead.sin()
    turn[:, 0] = torch.stack([c, -s, zero, s, c, zero, zero, zero, one], dim=1).reshape(-1, 3, 3)
    return things._replace(at=at, turn=turn)


def _scaled(part: Part, scale: float) -> Part:
    def times(vector: Vector) -> Vector:
        return (vector[0] * scale, vector[1] * scale, vector[2] * scale)

    return replace(part, half=times(part.half), at=times(part.at), hinge=times(part.hinge))


def _moved(part: Part, by: Vector) -> Part:
    def moved(vector: Vector) -> Vector:
        return (vector[0] + by[0], vector[1] + by[1], vector[2] + by[2])

    return replace(part, at=moved(part.at), hinge=moved(part.hinge))


def _gates(random: Random, posts: list[list[float]], bottom: float) -> list[Thing]:
    """The gates of `transit`, as the catalogue's: its rods are all left posts, then all right ones."""
    made: list[Thing] = []
    half = len(posts) // 2
    for left, right in zip(posts[:half], posts[half:], strict=True):
        if abs(left[0]) > NOWHERE_M / 2:
            continue
        orange, yellow = (0.75, 0.25, 0.03), (0.7, 0.55, 0.06)
        paint = Paint(shade(random, (orange, yellow)[random.integers(2)], 0.15), rough=0.3, gloss=0.2)
        for north, east, down, *_, high, thick in (left, right):
            post = rods((0, 0, -high), (0, 0, high), thick, paint, 2)
            line = rods((0, 0, high), (0, 0, max(bottom - down, high + 0.05)), 0.006, Paint(BLACK), 2)
            made += [
                Thing("gate_post", post, (north, east, down), size=0.0),
                Thing("", line, (north, east, down), size=0),
            ]
        top = left[2] - left[6]
        beam = rods((0, 0, 0), (right[0] - left[0], right[1] - left[1], 0), 0.035, Paint((0.6, 0.6, 0.6)), 4)
        made.append(Thing("", beam, (left[0], left[1], top), size=0.0))
    return made


def _pipe(random: Random, rod: list[float], bottom: float) -> list[Thing]:
    """The catalogue's pipeline along the rod."""
    made = pipeline(random, (rod[0], rod[1], bottom), bottom, 1.0)[0]
    return [replace(made, at=(rod[0], rod[1], rod[2]), turn=rotation(yaw=math.atan2(rod[4], rod[3])))]


def _weeds(random: Random, heading: float, bottom: float) -> list[Thing]:
    """Something that grows beside the course; soft, so that nobody bumps into it."""
    made: list[Thing] = []
    for _ in range(int(random.integers(0, WEEDS + 1))):
        along, across = random.uniform(1.5, 13.0), random.choice((-1, 1)) * random.uniform(0.5, 3.0)
        north = along * math.cos(heading) - across * math.sin(heading)
        east = along * math.sin(heading) + across * math.cos(heading)
        made += weed(random, (float(north), float(east), bottom), bottom, float(random.uniform(0.5, 1.2)))
    return made
