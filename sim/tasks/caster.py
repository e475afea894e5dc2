"""A range caster without shading: from a pose to ranges along 16 × 12 rays, for thousands of vehicles at once.

Balls are met by two products of matrices, rods by one more; both are exact. Ranges are in m along the ray.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rov.steering.policy_input import COLUMNS, ROWS
from sim.tasks.rows import take
from sim.tasks.solids import NOWHERE_M, Solids

FAR_M = 100.0
"""Range of endless water."""
MISS = 1e6
"""m of range per m that a ray misses by."""
CHUNK = 64
"""Vehicles cast at once on a CPU, so that they fit its caches."""


class Cast(NamedTuple):
    """What the rays meet first."""

    range: Tensor
    """(N, ROWS, COLUMNS) m; FAR_M where there is only water."""
    rod: Tensor
    """(N, R, ROWS, COLUMNS) bool: this rod is met."""
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
    unit: Tensor = made / made.square().sum(-1, keepdim=True).sqrt()
    return unit


def cast(solids: Solids, rays: Tensor, position: Tensor, turn: Tensor) -> Cast:
    """Cast rays (N, M, 3) in body axes from position (N, 3), with turn (N, 3, 3) from body to world."""
    n, size = len(rays), CHUNK if rays.device.type == "cpu" else len(rays)
    walled = bool((solids.walls.abs() < NOWHERE_M).any())
    parts = [
        _cast(take(solids, rows), rays[rows], position[rows], turn[rows], walled)
        for rows in (slice(i, i + size) for i in range(0, n, size))
    ]
    whole = (torch.cat(each) for each in zip(*parts, strict=True))
    return Cast(*(each.reshape(*each.shape[:-1], ROWS, COLUMNS) for each in whole))


def _cast(solids: Solids, rays: Tensor, position: Tensor, turn: Tensor, walled: bool) -> tuple[Tensor, Tensor, Tensor]:
    # Things before rays, (N, B, M): the rays are the contiguous ones, which is many times as fast.
    world = turn @ rays.transpose(1, 2)  # (N, 3, M)
    dz = world[:, 2]
    up, down = position[:, 2:3].clamp(min=0), (solids.bottom - position[:, 2])[:, None].clamp(min=0)
    best = flat = torch.where(dz > 0, down, up) / dz.abs().clamp(min=1e-3)  # the surface is seen, too
    best = best.clamp(max=FAR_M)
    if walled:
        best = torch.minimum(best, _to_walls(solids.walls, position, world))
    if solids.balls.shape[1]:
        to = solids.balls[..., :3] - position[:, None]  # (N, B, 3)
        along = to @ world  # (N, B, M)
        depth = along * along - (to.square().sum(-1) - solids.balls[..., 3].square())[..., None]
        best = torch.minimum(best, _near(along, depth).amin(1))
    rods = _to_rods(solids.rods, position, world)
    if rods.shape[1]:
        best = torch.minimum(best, rods.amin(1))
    return best, rods <= best[:, None], (dz < 0) & (best >= flat)


def _near(along: Tensor, depth: Tensor) -> Tensor:
    """Where rays meet balls: `along` to the nearest point, less the half chord, whose square is `depth`; far away
    behind the origin and where a ray misses. Without masks and roots of negatives, which take a hundred times as long.
    """
    return along - depth.clamp(min=0).sqrt_() + MISS * ((-depth).clamp_(min=0) + (-along).clamp_(min=0))


def _to_rods(rods: Tensor, position: Tensor, world: Tensor) -> Tensor:
    """(N, R, M) ranges to the sides of rods; their ends are open."""
    axis, half, radius = rods[..., 3:6], rods[..., 6:7], rods[..., 7]
    to = rods[..., :3] - position[:, None]  # (N, R, 3)
    offset = (to * axis).sum(-1)  # (N, R)
    slant = axis @ world  # (N, R, M)
    flat = (1 - slant * slant).clamp_(min=1e-6)
    along = (to @ world).sub_(slant * offset[..., None])
    inside = radius.square() - (to.square().sum(-1) - offset.square())
    near = _near(along, along * along + flat * inside[..., None]) / flat
    return near + MISS * ((near * slant - offset[..., None]).abs_() - half).clamp_(min=0)


def _to_walls(walls: Tensor, position: Tensor, world: Tensor) -> Tensor:
    """(N, M) ranges to the walls from inside."""
    level = world[:, :2]
    safe = torch.where(level.abs() < 1e-6, 1e-6, level)
    low, high = walls[:, 0::2] - position[:, :2], walls[:, 1::2] - position[:, :2]  # (N, 2)
    return torch.maximum(low[..., None] / safe, high[..., None] / safe).amin(1)
