"""A range caster without shading: from a pose to ranges along 16 × 12 rays, for thousands of vehicles at once.

Balls are met by two products of matrices, rods by one more; both are exact. Ranges are in m along the ray.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rov.steering.policy_input import COLUMNS, ROWS
from sim.tasks.solids import Solids

FAR_M = 100.0
"""Range of endless water."""


class Cast(NamedTuple):
    """What the rays meet first."""

    range: Tensor
    """(N, ROWS, COLUMNS) m; FAR_M where there is only water."""
    rod: Tensor
    """(N, ROWS, COLUMNS) index of the rod that is met, or −1."""
    surface: Tensor
    """(N, ROWS, COLUMNS) bool: the water's surface, from below."""


def rays(view: Tensor) -> Tensor:
    """(N, ROWS · COLUMNS, 3) unit rays through the cells of a pinhole picture, in body axes (forward, starboard, down).
    `view` (N, 2): tangents of half the horizontal and vertical field of view."""
    across = (2 * torch.arange(COLUMNS, device=view.device) + 1) / COLUMNS - 1
    down = (2 * torch.arange(ROWS, device=view.device) + 1) / ROWS - 1
    y = (view[:, :1] * across)[:, None, :].expand(-1, ROWS, -1)
    z = (view[:, 1:] * down)[:, :, None].expand(-1, -1, COLUMNS)
    made = torch.stack([torch.ones_like(y), y, z], dim=-1).flatten(1, 2)
    return made / made.norm(dim=-1, keepdim=True)


def cast(solids: Solids, rays: Tensor, position: Tensor, turn: Tensor) -> Cast:
    """Cast rays (N, M, 3) in body axes from position (N, 3), with turn (N, 3, 3) from body to world."""
    n, m, _ = rays.shape
    world = torch.bmm(rays, turn.transpose(1, 2))  # (N, M, 3)
    dz = world[..., 2]
    up, down = position[:, 2:3].clamp(min=0), (solids.bottom - position[:, 2])[:, None].clamp(min=0)
    best = flat = torch.where(dz > 0, down, up) / dz.abs().clamp(min=1e-3)  # the surface is seen, too
    best = torch.minimum(best, _to_walls(solids.walls, position, world)).clamp(max=FAR_M)

    if solids.balls.shape[1]:
        to = solids.balls[..., :3] - position[:, None]  # (N, B, 3)
        along = torch.bmm(world, to.transpose(1, 2))  # (N, M, B)
        inside = solids.balls[..., 3].square() - to.square().sum(-1)
        depth = along.square() + inside[:, None]
        near = along - depth.clamp(min=0).sqrt()
        best = torch.minimum(best, torch.where((depth > 0) & (near > 0), near, FAR_M).amin(-1))

    rod = torch.full((n, m), -1, device=rays.device)
    if solids.rods.shape[1]:
        nearest, which = _to_rods(solids.rods, position, world).min(-1)
        rod = torch.where(nearest < best, which, rod)
        best = torch.minimum(best, nearest)
    surface = (dz < 0) & (best >= flat)
    return Cast(*(each.reshape(n, ROWS, COLUMNS) for each in (best, rod, surface)))


def _to_rods(rods: Tensor, position: Tensor, world: Tensor) -> Tensor:
    """(N, M, R) ranges to the sides of rods; their ends are open."""
    axis, half, radius = rods[..., 3:6], rods[..., 6], rods[..., 7]
    to = rods[..., :3] - position[:, None]  # (N, R, 3)
    offset = (to * axis).sum(-1)  # (N, R)
    slant = torch.bmm(world, axis.transpose(1, 2))  # (N, M, R)
    flat = (1 - slant.square()).clamp(min=1e-6)
    along = torch.bmm(world, to.transpose(1, 2)) - slant * offset[:, None]
    inside = radius.square() - (to.square().sum(-1) - offset.square())
    depth = along.square() + flat * inside[:, None]
    near = (along - depth.clamp(min=0).sqrt()) / flat
    place = near * slant - offset[:, None]
    return torch.where((depth > 0) & (near > 0) & (place.abs() < half[:, None]), near, FAR_M)


def _to_walls(walls: Tensor, position: Tensor, world: Tensor) -> Tensor:
    """(N, M) ranges to the walls from inside."""
    level = world[..., :2]
    safe = torch.where(level.abs() < 1e-6, 1e-6, level)
    low, high = walls[:, None, 0::2] - position[:, None, :2], walls[:, None, 1::2] - position[:, None, :2]
    return torch.maximum(low / safe, high / safe).amin(-1)
