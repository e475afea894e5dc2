"""Viewpoints of a data set's pictures, as a vehicle meets things: near and far, seldom centred, sometimes none."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch

from sim.scene import scene
from sim.world import RealisedWorld

NOTHING = 0.1
"""Share of the pictures that aim at nothing."""
NEAREST, FARTHEST = 0.6, 7.0
"""Range of distances to the target, m; less where the water is turbid."""
LONG = 3.0
"""A thing longer than this, m, is viewed part by part."""
CLEARANCE = 0.35
"""Least distance to bottom, walls and surface, m."""


class Viewpoint(NamedTuple):
    position: tuple[float, float, float]
    """NED, m."""
    attitude: tuple[float, float, float, float]
    """w x y z, body to world."""
    t: float
    """s."""
    turning: tuple[float, float, float]
    """rad/s in the body."""


def view(place: RealisedWorld, random: np.random.Generator) -> Viewpoint:
    """One view of a world: draws the target's class first, then the thing, so that rare classes are as frequent."""
    t = float(random.uniform(0, 600))
    aim, distance = _aim(place, random, t)
    for _ in range(20):  # until it is inside the basin
        bearing = random.uniform(-math.pi, math.pi)
        rise = abs(random.normal(0, 0.3)) if place.bottom - aim[2] < 0.4 else random.normal(0, 0.15)
        rise = min(rise, 1.2)
        flat = distance * math.cos(rise)
        eye = aim - np.array((flat * math.cos(bearing), flat * math.sin(bearing), distance * math.sin(rise)))
        north0, north1, east0, east1 = place.walls
        if north0 + CLEARANCE < eye[0] < north1 - CLEARANCE and east0 + CLEARANCE < eye[1] < east1 - CLEARANCE:
            break
        distance *= 0.9
    eye[2] = min(max(eye[2], CLEARANCE), place.bottom - CLEARANCE)
    to = aim - eye
    half = math.radians(place.hfov_deg) / 2
    yaw = math.atan2(to[1], to[0]) + random.uniform(-0.75, 0.75) * half
    pitch = math.atan2(-to[2], math.hypot(to[0], to[1])) + random.uniform(-0.5, 0.5) * half
    roll = random.normal(0, 0.06)
    turning = random.normal(0, 0.25, 3)
    return Viewpoint(
        (float(eye[0]), float(eye[1]), float(eye[2])),
        quaternion(float(roll), min(max(pitch, -1.3), 0.6), float(yaw)),
        t,
        (float(turning[0]), float(turning[1]), float(turning[2])),
    )


def _aim(place: RealisedWorld, random: np.random.Generator, t: float) -> tuple[np.ndarray, float]:
    things = [(i, thing) for i, thing in enumerate(place.scene.things) if thing.label]
    far = min(FARTHEST, 1.1 / float(place.scene.water.blurred.min()))
    distance = math.exp(random.uniform(math.log(NEAREST), math.log(max(far, 2 * NEAREST))))
    if not things or random.random() < NOTHING:
        spot = np.array(place.start) + random.normal(0, 2, 3) * np.array((1, 1, 0.2))
        return spot, distance
    kinds = sorted({thing.label for _, thing in things})
    kind = kinds[int(random.integers(len(kinds)))]
    i = [i for i, thing in things if thing.label == kind]
    chosen = i[int(random.integers(len(i)))]
    every, _ = scene.stack([place.scene], torch.device("cpu"))
    at, turn = scene.places(every, torch.tensor([t]))
    parts = place.scene.things[chosen].parts
    part = np.array(parts[int(random.integers(len(parts)))].at)
    spread = max(max(abs(x) for x in p.at) for p in parts)
    near = 1.0 if spread > LONG else max(1.0, 2 * spread)
    return at[0, chosen].double().numpy() + turn[0, chosen].double().numpy() @ part, distance * near


def quaternion(roll: float, pitch: float, yaw: float) -> tuple[float, float, float, float]:
    """w x y z, body to world."""
    cr, sr, cp, sp, cy, sy = (f(x / 2) for x in (roll, pitch, yaw) for f in (math.cos, math.sin))
    return (
        cr * cp * cy + sr * sp * sy,
        sr * cp * cy - cr * sp * sy,
        cr * sp * cy + sr * cp * sy,
        cr * cp * sy - sr * sp * cy,
    )
