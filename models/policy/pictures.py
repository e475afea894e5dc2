"""Small pictures from the renderer, each with its inverse range and its pipeline on the policy's map: what the encoder
learns from, drawn from worlds of `sim/worlds` with other water, light and lens."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from rov.steering.encoder import HEIGHT, WIDTH
from rov.steering.policy_input import INVERSE_RANGE_MAX, ROWS
from rov.types import Floats
from sim.scene.ground import FAR
from sim.scene.render import Renderer, Shots
from sim.scene.things import LABELS
from sim.tasks.scenes import Look, scene
from sim.tasks.sea import Sea
from sim.viewpoints import CLEARANCE, quaternion
from sim.world import RealisedWorld, Spread, World, load, realise

FINE = 2
"""Pictures are rendered this many times finer and averaged: a frame shrunk to 64×48 has no jagged edges."""
FIRST_TEST_SEED = 1_000_000
NEAREST, FARTHEST = 0.35, 7.0
"""Range of distances to what a view aims at, m."""


class Labelled(NamedTuple):
    """N pictures; saved as arrays of these names."""

    pictures: Tensor
    """(N, 3, HEIGHT, WIDTH) uint8, R G B."""
    inverse_range: Tensor
    """(N, ROWS, COLUMNS) float16, 1/m, the mean over the cell."""
    pipeline: Tensor
    """(N, ROWS, COLUMNS) float16, share of the cell."""


class Draw(NamedTuple):
    """What `draw` needs: picklable, for a worker process."""

    world: str
    """A name in `sim/worlds`; after `TASK:`, the course of a task in that world's water and light."""
    waters: tuple[str, ...]
    """Of `varied`; none: the world as it is."""
    night: float
    seed: int
    views: int


def draw(what: Draw) -> Labelled:
    """Pictures of one scene, the same on every machine up to rounding."""
    random = np.random.Generator(np.random.PCG64([what.seed, 300]))
    task, _, world = what.world.rpartition(":")
    night = bool(random.random() < what.night)
    made = varied(load(world), what.waters, night, random) if what.waters else load(world)
    place = realise(made, what.seed)
    place = at_task(task, place, what.seed) if task else place
    position, attitude, turning = views(place, random, what.views)
    renderer = Renderer([place.scene], place.lens(FINE * WIDTH, FINE * HEIGHT))
    t = torch.from_numpy(random.uniform(0, 600, what.views))
    return labelled(renderer, renderer.render(position, attitude, t, turning))


def at_task(task: str, place: RealisedWorld, seed: int) -> RealisedWorld:
    """The course of a task in the water and light of a world."""
    sea = Sea(task, "nominal", 1, seed)
    sea.reset()
    made = scene(task, sea.course, 0, Look(place.name, seed, place))
    start, walls = (0.0, 0.0, float(sea.course.depth)), (-FAR, FAR, -FAR, FAR)
    return replace(place, scene=made, bottom=made.ground.bottom, start=start, walls=walls)


def varied(world: World, waters: tuple[str, ...], night: bool, random: np.random.Generator) -> World:
    """The world with any of the waters, by day or by its lamps, over other ground, through another lens and sensor: in
    wider ranges than any world has, for a place that nobody drew should look like one of them."""
    change = msgspec.structs.replace
    water = change(
        world.water,
        type=list(waters),
        turbidity=Spread(log_uniform=(0.3, 2.5)),
        veil=Spread(log_uniform=(0.07, 0.7)),
        warm=Spread(uniform=(-0.6, 0.5)),
        snow=Spread(uniform=(0.0, 8.0)),
    )
    light = change(
        world.light,
        day=0.0 if night else Spread(log_uniform=(0.3, 1.6)),
        sun=Spread(uniform=(0.0, 0.7)),
        caustics=Spread(uniform=(0.0, 1.0)),
        lamps=Spread(log_uniform=(0.6, 2.0)) if night else Spread(choice=[0.0, 0.0, 0.0, 0.5]),
    )
    # Shrinking a frame averages its noise; what is left is small.
    camera = change(
        world.camera,
        hfov_deg=Spread(uniform=(60.0, 95.0)),
        brightness=Spread(uniform=(0.3, 0.76)),
        white=Spread(uniform=(0.0, 0.95)),
        saturation=Spread(uniform=(0.8, 1.7)),
        contrast=Spread(uniform=(0.0, 0.9)),
        soft=Spread(uniform=(0.5, 1.8)),
        vignette=Spread(uniform=(0.05, 0.3)),
        noise=Spread(uniform=(0.2, 2.0)),
    )
    colour, wall = (_tinted(float(np.exp(random.uniform(*np.log((0.1, 0.65))))), random) for _ in range(2))
    other = _tinted(float(np.mean(colour) * random.uniform(0.4, 0.9)), random)
    ground = change(world.ground, colour=colour, other=other, wall=wall)
    return change(world, water=water, light=light, camera=camera, ground=ground)


def _tinted(grey: float, random: np.random.Generator) -> tuple[float, float, float]:
    """A colour, R G B, about as bright as `grey`."""
    r, g, b = (float(each) for each in (grey * random.uniform(0.7, 1.3, 3)).clip(0.03, 0.8))
    return r, g, b


def views(place: RealisedWorld, random: np.random.Generator, number: int) -> tuple[Tensor, Tensor, Tensor]:
    """Positions (N, 3), attitudes (N, 4) and rates (N, 3) of a nearly level vehicle among the things of a world."""
    things = place.scene.things
    aims = np.array([place.start] * number) + random.normal(0, 2, (number, 3)) * (1, 1, 0.2)
    for i in range(number):
        if things and random.random() < 0.85:
            thing = things[int(random.integers(len(things)))]
            part = thing.parts[int(random.integers(len(thing.parts)))]
            aims[i] = np.array(thing.at) + thing.turn @ np.array(part.at)
    distance = np.exp(random.uniform(math.log(NEAREST), math.log(FARTHEST), number))
    bearing = random.uniform(-math.pi, math.pi, number)
    eyes = aims - distance[:, None] * np.stack((np.cos(bearing), np.sin(bearing), np.zeros(number)), -1)
    # Mostly near the height of what is looked at, and often low over the bottom.
    eyes[:, 2] += random.normal(0, 0.3, number) * distance
    low = random.random(number) < 0.3
    eyes[low, 2] = place.bottom - random.uniform(CLEARANCE, 2.5, int(low.sum()))
    north0, north1, east0, east1 = place.walls
    eyes[:, 0] = eyes[:, 0].clip(north0 + CLEARANCE, north1 - CLEARANCE)
    eyes[:, 1] = eyes[:, 1].clip(east0 + CLEARANCE, east1 - CLEARANCE)
    eyes[:, 2] = eyes[:, 2].clip(CLEARANCE, max(place.bottom - CLEARANCE, 2 * CLEARANCE))
    yaw = np.arctan2(*(aims - eyes)[:, 1::-1].T) + random.uniform(-0.5, 0.5, number)
    attitude = [
        quaternion(float(r), float(p), float(y))
        for r, p, y in zip(random.normal(0, 0.08, number), random.normal(0, 0.12, number), yaw, strict=True)
    ]
    turning = random.normal(0, 0.2, (number, 3))
    return _tensor(eyes), torch.tensor(attitude), _tensor(turning)


def labelled(renderer: Renderer, shots: Shots) -> Labelled:
    """Rendered pictures, FINE times finer than the encoder's, as the encoder's."""
    ahead = renderer.rays[2].view(shots.depth.shape[1:])
    inverse = (ahead / shots.depth).clamp(0, INVERSE_RANGE_MAX)  # of endless water 0
    kinds = renderer.things.label
    rows = torch.arange(len(shots.depth), device=kinds.device) % len(kinds)
    thing = (shots.segmentation.long() - 1).clamp(min=0).flatten(1)
    kind = kinds[rows].gather(1, thing).view_as(shots.segmentation)
    pipeline = (kind == LABELS.index("pipeline")) & (shots.segmentation > 0)
    cell = FINE * HEIGHT // ROWS
    picture = avg_pool2d(shots.image.permute(0, 3, 1, 2).flip(1).float(), FINE)
    return Labelled(
        (picture + 0.5).to(torch.uint8),
        avg_pool2d(inverse[:, None], cell)[:, 0].half(),
        avg_pool2d(pipeline[:, None].float(), cell)[:, 0].half(),
    )


def save(path: Path, pictures: Labelled) -> None:
    """Write a file that is either complete or not there."""
    part = path.with_suffix(".part.npz")
    np.savez(part, **{name: each.numpy() for name, each in pictures._asdict().items()})
    part.replace(path)


def open_all(paths: list[Path]) -> Labelled:
    """The pictures of several files."""
    files = [np.load(path) for path in paths]
    return Labelled(*(torch.cat([torch.from_numpy(file[name]) for file in files]) for name in Labelled._fields))


def _tensor(values: Floats) -> Tensor:
    return torch.from_numpy(np.asarray(values)).float()
