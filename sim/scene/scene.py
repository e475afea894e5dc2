"""A concrete scene, drawn from a world by a seed, and many scenes as tensors."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rov.types import Floats
from sim.scene.shapes import Part, Thing
from sim.scene.things import LABELS
from sim.scene.water import Water, water

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Ground:
    """The bottom, at `bottom` m, and the walls of a basin."""

    kind: Literal["tiles", "sand", "mud"] = "sand"
    bottom: float = 5.0
    colour: Colour = (0.45, 0.4, 0.3)
    other: Colour = (0.3, 0.26, 0.18)
    relief: float = 0.0
    """Standard deviation of the bottom's height, m."""
    walls: tuple[float, float, float, float] | None = None
    """North from, to, east from, to, m."""
    wall: Colour = (0.35, 0.45, 0.5)
    waves: float = 0.08
    """Slope of the surface's waves, rad."""
    seed: int = 0


@dataclass(frozen=True)
class Light:
    sun: float = 0.5
    """Share of the daylight that is direct."""
    elevation: float = 1.0
    """Of the sun's rays in the water, rad above the horizon."""
    azimuth: float = 0.0
    day: float = 1.0
    """Daylight at the surface; 0 at night."""
    caustics: float = 0.6
    lamps: float = 0.0
    """Lamps beside the camera: light on a target 1 m ahead, relative to a bright day at the surface."""


@dataclass(frozen=True)
class Sensor:
    """The camera behind the lens; see sensor.py."""

    brightness: float = 0.45
    """Mean that the automatic exposure aims at, as a share of full scale."""
    gain_max: float = 8.0
    white: float = 0.3
    """Strength of the white balance: 1 makes the mean grey."""
    saturation: float = 1.15
    contrast: float = 0.2
    noise: float = 1.5
    """Standard deviation in levels of 255, at mid-grey and full gain."""
    soft: float = 0.7
    """Standard deviation of the lens' and the codec's blur, in pixels of a picture 640 wide."""
    vignette: float = 0.15
    """Light lost in the corners."""
    shutter: float = 0.01
    """Exposure time, s."""


@dataclass(frozen=True)
class Scene:
    things: tuple[Thing, ...] = ()
    ground: Ground = field(default_factory=Ground)
    light: Light = field(default_factory=Light)
    water: Water = field(default_factory=lambda: water("IB", 1.0, 0.3))
    sensor: Sensor = field(default_factory=Sensor)
    seed: int = 0


class Things(NamedTuple):
    """All things of all scenes, (S, I, …), padded with empty ones."""

    at: Tensor
    turn: Tensor
    motion: Tensor
    """(S, I, 5): orbit, speed, phase, bob, bob's rad/s."""
    size: Tensor
    label: Tensor
    """Index into LABELS, −1 without one."""


class Parts(NamedTuple):
    """All parts of all scenes, (S, P, …); an empty one has half-size 0."""

    thing: Tensor
    half: Tensor
    at: Tensor
    turn: Tensor
    hinge: Tensor
    spin: Tensor
    """(S, P, 3, 3): the axis' cross product as a matrix."""
    swing: Tensor
    """(S, P, 3): amplitude, rad/s, phase."""
    form: Tensor
    """(S, P, 6): a, b, low, high, box, bump."""
    paint: Tensor
    """(S, P, 16): see `_paint`."""


def _cross(axis: tuple[float, float, float]) -> Floats:
    x, y, z = np.array(axis) / np.linalg.norm(axis)
    return np.array(((0, -z, y), (z, 0, -x), (-y, x, 0)))


def _paint(part: Part) -> list[float]:
    p = part.paint
    stripes = (2 * math.pi * p.stripes) if p.stripes else 0.0
    return [*p.one, *(p.two or p.one), *p.along, p.shift, p.mottle, p.rough, p.scale, stripes, p.gloss, p.opaque]


def stack(scenes: list[Scene], device: torch.device) -> tuple[Things, Parts]:
    """Tensors of the scenes' things and their parts."""

    def tensor(rows: list[list[object]], empty: object) -> Tensor:
        most = max(1, max(len(row) for row in rows))
        padded = [[*row, *[empty] * (most - len(row))] for row in rows]
        return torch.tensor(np.array(padded), dtype=torch.float32, device=device)

    things = [list(scene.things) for scene in scenes]
    parts = [[(i, part) for i, thing in enumerate(row) for part in thing.parts] for row in things]
    zero, one = [0.0] * 3, np.eye(3)
    return (
        Things(
            tensor([[t.at for t in row] for row in things], zero),
            tensor([[t.turn for t in row] for row in things], one),
            tensor(
                [[[t.orbit, t.speed, t.phase, t.bob, 2 * math.pi * t.bob_hertz] for t in row] for row in things],
                [0.0] * 5,
            ),
            tensor([[t.size for t in row] for row in things], 0.0),
            tensor([[LABELS.index(t.label) if t.label else -1 for t in row] for row in things], -1).long(),
        ),
        Parts(
            tensor([[i for i, _ in row] for row in parts], 0).long(),
            tensor([[p.half for _, p in row] for row in parts], zero),
            tensor([[p.at for _, p in row] for row in parts], zero),
            tensor([[p.turn for _, p in row] for row in parts], one),
            tensor([[p.hinge for _, p in row] for row in parts], zero),
            tensor([[_cross(p.axis) for _, p in row] for row in parts], np.zeros((3, 3))),
            tensor([[[p.swing, 2 * math.pi * p.hertz, p.phase] for _, p in row] for row in parts], zero),
            tensor([[[p.a, p.b, p.low, p.high, float(p.box), p.bump] for _, p in row] for row in parts], [0.0] * 6),
            tensor([[_paint(p) for _, p in row] for row in parts], [0.0] * 16),
        ),
    )


def places(things: Things, t: Tensor) -> tuple[Tensor, Tensor]:
    """Positions (N, I, 3) and rotations (N, I, 3, 3) of things at times t (N,) s."""
    orbit, speed, phase, bob, beat = things.motion.unbind(-1)
    t = t[:, None]
    angle = speed * t + phase
    x, y, z = things.at.unbind(-1)
    # `at` is the position of a thing at rest, and the centre of one that circles.
    at = torch.stack((x + orbit * angle.cos(), y + orbit * angle.sin(), z + bob * (beat * t + phase).sin()), -1)
    ahead = torch.where(orbit > 0, angle + math.pi / 2 * speed.sign(), torch.zeros_like(angle))
    c, s, zero = ahead.cos()[..., None], ahead.sin()[..., None], torch.zeros_like(ahead)[..., None]
    rows = things.turn.expand(ahead.shape[0], -1, -1, -1)
    turn = torch.stack(
        (c * rows[..., 0, :] - s * rows[..., 1, :], s * rows[..., 0, :] + c * rows[..., 1, :], rows[..., 2, :] + zero),
        -2,
    )
    return at, turn


def poses(parts: Parts, at: Tensor, turn: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Centres (N, P, 3) and rotations (N, P, 3, 3) of the parts of things at (N, I, 3), turned (N, I, 3, 3)."""
    n, p = at.shape[0], parts.thing.shape[1]
    thing = parts.thing.expand(n, p)
    amplitude, beat, phase = parts.swing.unbind(-1)
    angle = amplitude * (beat * t[:, None] + phase).sin()
    # Rodrigues' rotation
    turned, back = angle.sin()[..., None, None], (1 - angle.cos())[..., None, None]
    swung = torch.eye(3, device=angle.device) + turned * parts.spin + back * _times(parts.spin, parts.spin)
    arm = parts.at - parts.hinge
    offset = parts.hinge + _apply(swung, arm)
    whole = torch.gather(turn, 1, thing[..., None, None].expand(n, p, 3, 3))
    centre = torch.gather(at, 1, thing[..., None].expand(n, p, 3)) + _apply(whole, offset)
    return centre, _times(whole, _times(swung, parts.turn.expand(n, p, 3, 3)))


def _apply(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix * vector[..., None, :]).sum(-1)


def _times(a: Tensor, b: Tensor) -> Tensor:
    return (a[..., :, :, None] * b[..., None, :, :]).sum(-2)
