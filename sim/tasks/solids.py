"""What a vehicle can bump into: balls, rods, the bottom and walls, batched; and the bump.

The vehicle counts as a ball of HULL_M around its origin. A bump is inelastic: the vehicle is put back to the surface,
and the part of its velocity that goes into it is taken away.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sim.single_vehicle import CLEARANCE_M
from sim.vehicle import State, rotation

HULL_M = CLEARANCE_M
"""Radius of the vehicle for bumps: half its length."""
KEEL_M = 0.13
"""From the origin down to the frame's feet: half its height."""
NOWHERE_M = 1e4
"""Where unused balls and rods are put."""


class Solids(NamedTuple):
    """Solid things around N vehicles, NED in m."""

    balls: Tensor
    """(N, B, 4) centre and radius."""
    ball_velocity: Tensor
    """(N, B, 3) m/s."""
    rods: Tensor
    """(N, R, 8) centre, unit axis, half-length, radius."""
    bottom: Tensor
    """(N,) depth."""
    walls: Tensor
    """(N, 4) north from, to, east from, to."""


class Bump(NamedTuple):
    """What was touched in one interval, (N,) bool each, and the speed into it."""

    ball: Tensor
    """(N, B)."""
    rod: Tensor
    """(N, R)."""
    bottom: Tensor
    wall: Tensor
    speed: Tensor
    """(N,) largest speed into anything, m/s."""

    @property
    def anything(self) -> Tensor:
        """(N,)."""
        return self.ball.any(1) | self.rod.any(1) | self.bottom | self.wall


def gaps(solids: Solids, position: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Distance from points (N, 3) to the surfaces of balls (N, B) and rods (N, R), and the unit vectors away from them,
    (N, B, 3) and (N, R, 3)."""
    off = position[:, None] - solids.balls[..., :3]
    far = off.norm(dim=-1).clamp(min=1e-6)
    centre, axis = solids.rods[..., :3], solids.rods[..., 3:6]
    half, radius = solids.rods[..., 6], solids.rods[..., 7]
    out = position[:, None] - centre
    along = (out * axis).sum(-1)
    along = torch.minimum(torch.maximum(along, -half), half)
    out = out - along[..., None] * axis
    apart = out.norm(dim=-1).clamp(min=1e-6)
    return far - solids.balls[..., 3], apart - radius, off / far[..., None], out / apart[..., None]


def bump(solids: Solids, state: State) -> tuple[State, Bump]:
    """The state after bumps into anything that it reaches, and what it touched."""
    position = state.position
    turn = rotation(state.attitude.T)  # (3, 3, N)
    to_ball, to_rod, from_ball, from_rod = gaps(solids, position)
    balls, rods = to_ball < HULL_M, to_rod < HULL_M
    deep = position[:, 2] + KEEL_M - solids.bottom
    low, high = solids.walls[:, 0::2] + HULL_M, solids.walls[:, 1::2] - HULL_M  # (N, 2)
    level = position[:, :2]
    bottom, wall = deep > 0, ((level < low) | (level > high)).any(1)
    if not bool(balls.any() | rods.any() | bottom.any() | wall.any()):
        return state, Bump(balls, rods, bottom, wall, torch.zeros_like(deep))

    velocity = (turn * state.velocity.T[None]).sum(1).T  # (N, 3) in world axes
    speed = torch.zeros_like(deep)
    into = -((velocity[:, None] - solids.ball_velocity) * from_ball).sum(-1) * balls
    speed = torch.maximum(speed, into.clamp(min=0).amax(1, keepdim=False) if into.shape[1] else speed)
    push = (from_ball * (into.clamp(min=0))[..., None]).sum(1)
    shift = (from_ball * ((HULL_M - to_ball).clamp(min=0) * balls)[..., None]).sum(1)
    into = -(velocity[:, None] * from_rod).sum(-1) * rods
    speed = torch.maximum(speed, into.clamp(min=0).amax(1) if into.shape[1] else speed)
    push = push + (from_rod * into.clamp(min=0)[..., None]).sum(1)
    shift = shift + (from_rod * ((HULL_M - to_rod).clamp(min=0) * rods)[..., None]).sum(1)
    down = velocity[:, 2].clamp(min=0) * bottom
    inside = torch.minimum(torch.maximum(level, low), high)
    outward = torch.where(level < low, -velocity[:, :2], velocity[:, :2]).clamp(min=0) * (inside != level)
    speed = torch.maximum(speed, torch.maximum(down, outward.amax(1)))
    push = push + torch.cat([-outward * torch.sign(level - inside), -down[:, None]], dim=1)
    shift = shift + torch.cat([inside - level, -deep.clamp(min=0)[:, None]], dim=1)
    velocity = velocity + push
    body = (turn * velocity.T[:, None]).sum(0).T
    return state._replace(position=position + shift, velocity=body), Bump(balls, rods, bottom, wall, speed)
