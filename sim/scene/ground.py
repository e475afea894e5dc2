"""The background: the bottom with its relief, a basin's walls, and the surface seen from below."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sim.scene import textures
from sim.scene.scene import Ground

WAVES = 5
"""Number of sines of the relief, and of the surface."""
MARCH = 6
"""Ray-marching steps towards the relief; each is as long as the steepest slope allows."""
FAR = 1e4
"""Range of a miss, m."""
SNELL = 0.661
"""Cosine, from the vertical, of the edge of Snell's window: sqrt(1 − 1/1.333²)."""
SKY = (1.25, 1.35, 1.45)
"""Radiance of the sky through the window, relative to a white target under it."""


class Grounds(NamedTuple):
    """Grounds of one kind, as (S, …) tensors."""

    kind: str
    bottom: Tensor
    colour: Tensor
    other: Tensor
    wall: Tensor
    walls: Tensor
    relief: Tensor
    """(S, 4, WAVES): amplitude, north and east wave numbers, phase."""
    steepest: Tensor
    height: Tensor
    """Largest height of the relief, m."""
    swell: Tensor
    """(S, 5, WAVES): slope, north and east wave numbers, phase, rad/s."""
    shift: Tensor
    """(S, 2) shift of the textures."""
    flat: bool
    walled: bool


class GroundHits(NamedTuple):
    """(N, M) unless said otherwise."""

    range: Tensor
    """To the first hit, the surface included; FAR where there is only water."""
    path: Tensor
    """Length of the light's path: for a reflection in the surface, on to the bottom."""
    albedo: Tensor
    """(3, N, M)"""
    normal: tuple[Tensor, Tensor, Tensor]
    point: tuple[Tensor, Tensor, Tensor]
    """In world axes, m."""
    sky: Tensor
    """Share of light that comes through the surface."""
    floor: Tensor
    """True where the bottom is hit directly."""


def stack(grounds: list[Ground], device: torch.device) -> Grounds:
    kinds = {each.kind for each in grounds}
    assert len(kinds) == 1, "the rows of one renderer share one kind of bottom"
    reliefs, swells, shifts = [], [], []
    for each in grounds:
        random = np.random.Generator(np.random.PCG64([each.seed, 7]))
        reliefs.append(_relief(each))
        length = np.exp(random.uniform(np.log(0.25), np.log(2.5), WAVES))
        angle, k = random.normal(0, 1.0, WAVES), 2 * np.pi / length
        slope = np.full(WAVES, each.waves * np.sqrt(2 / WAVES))
        swells.append((slope, k * np.cos(angle), k * np.sin(angle), random.uniform(0, 6.28, WAVES), np.sqrt(9.81 * k)))
        shifts.append(random.uniform(0, 1, 2))
    relief, swell = np.array(reliefs), np.array(swells)
    walls = [each.walls or (-FAR, FAR, -FAR, FAR) for each in grounds]

    def tensor(values: object) -> Tensor:
        return torch.tensor(np.array(values), dtype=torch.float32, device=device)

    return Grounds(
        kinds.pop(),
        tensor([each.bottom for each in grounds]),
        tensor([each.colour for each in grounds]),
        tensor([each.other for each in grounds]),
        tensor([each.wall for each in grounds]),
        tensor(walls),
        tensor(relief),
        tensor((np.abs(relief[:, 0]) * np.hypot(relief[:, 1], relief[:, 2])).sum(1)),
        tensor(np.abs(relief[:, 0]).sum(1)),
        tensor(swell),
        tensor(shifts),
        flat=all(each.relief == 0 for each in grounds),
        walled=any(each.walls is not None for each in grounds),
    )


def _relief(ground: Ground) -> NDArray[np.float64]:
    """(4, WAVES): amplitude, north and east wave numbers, phase."""
    random = np.random.Generator(np.random.PCG64([ground.seed, 8]))
    length = np.exp(random.uniform(np.log(1.2), np.log(12.0), WAVES))
    angle = random.uniform(0, 2 * np.pi, WAVES)
    amplitude = length / np.sqrt((length**2).sum() / 2) * ground.relief
    k = 2 * np.pi / length
    return np.stack((amplitude, k * np.cos(angle), k * np.sin(angle), random.uniform(0, 6.28, WAVES)))


def depth(ground: Ground, north: float, east: float) -> float:
    """Depth of the bottom at one place, m."""
    a, kx, ky, phase = _relief(ground)
    return ground.bottom - float((a * np.sin(kx * north + ky * east + phase)).sum())


def rows(ground: Grounds, pick: Callable[[Tensor], Tensor]) -> Grounds:
    """The grounds with `pick` applied to every tensor."""
    picked: dict[str, Any] = {k: pick(v) for k, v in ground._asdict().items() if isinstance(v, Tensor)}
    return ground._replace(**picked)


def height(ground: Grounds, x: Tensor, y: Tensor) -> Tensor:
    """Height of the relief above the mean bottom at (N, M) places, m."""
    a, kx, ky, phase = ground.relief[..., None].unbind(1)
    return (a * torch.sin(_phases(kx, ky, phase, x, y))).sum(1)


def intersect(ground: Grounds, origin: Tensor, direction: Tensor, t: Tensor) -> GroundHits:
    """Cast (3, N, M) rays from (N, 3) at time t (N,) s."""
    dx, dy, dz = direction.unbind(0)
    ox, oy, oz = (each[:, None] for each in origin.unbind(1))
    up = dz < -1e-3
    to_surface = torch.where(up, oz / (-dz).clamp(min=1e-3), FAR)
    if ground.walled:
        to_wall, _ = _walls(ground, ox, oy, dx, dy)
        up = up & (to_surface < to_wall)
        to_surface = torch.where(up, to_surface, FAR)

    # A ray that hits the surface goes on as its reflection; the part that gets through Snell's window sees the sky.
    start = to_surface * up
    px, py = ox + start * dx, oy + start * dy
    sx, sy = _slope(ground, px, py, t)
    fade = 1 / (1 + start * 0.15)
    sx, sy = sx * fade, sy * fade
    incidence = (dz.abs() + sx * dx + sy * dy).clamp(0.02, 1.0)
    through = ((incidence - SNELL) / 0.05 + 0.5).clamp(0, 1) * up
    bend = 2 * incidence * up
    mx, my = dx - bend * sx, dy - bend * sy
    mz = torch.where(up, (-dz).clamp(min=0.02), dz)
    mirror = torch.rsqrt(mx * mx + my * my + mz * mz)
    mx, my, mz = mx * mirror, my * mirror, mz * mirror
    pz = oz * ~up

    bottom = ground.bottom[:, None]
    down = mz > 1e-3
    steep = mz.clamp(min=1e-3)
    if ground.flat:
        reach = (bottom - pz) / steep
    else:
        reach = (bottom - ground.height[:, None] - pz).clamp(min=0) / steep
        rate = steep + ground.steepest[:, None] * 0.7 * (1 - steep * steep).clamp(min=0).sqrt()
        for _ in range(MARCH):
            gap = bottom - height(ground, px + reach * mx, py + reach * my) - (pz + reach * mz)
            reach = reach + gap / rate
        reach = reach.clamp(min=0)
    reach = torch.where(down, reach, FAR).clamp(max=FAR)
    wall, across = torch.zeros_like(down), torch.zeros_like(down)
    if ground.walled:
        to_wall, across = _walls(ground, px, py, mx, my)
        wall = to_wall < reach
        reach = torch.minimum(to_wall, reach)
    x, y, z = px + reach * mx, py + reach * my, pz + reach * mz
    nothing = reach >= FAR
    path = torch.where(nothing, FAR, start + reach)
    albedo = _paint(ground, x, y, z, wall, across, path)
    nx, ny, nz = torch.zeros_like(x), torch.zeros_like(x), -1.0 * ~wall
    if not ground.flat:
        a, kx, ky, phase = ground.relief[..., None].unbind(1)
        wave = a * torch.cos(_phases(kx, ky, phase, x, y))
        nx, ny = -(kx * wave).sum(1), -(ky * wave).sum(1)
        size = torch.rsqrt(nx * nx + ny * ny + 1)
        nx, ny, nz = nx * size, ny * size, nz * size
    if ground.walled:
        nx, ny = torch.where(wall, -mx.sign() * across, nx), torch.where(wall, -my.sign() * ~across, ny)
    seen = torch.where(up, to_surface, path)
    return GroundHits(seen, path, albedo, (nx, ny, nz), (x, y, z), through, ~(up | wall | nothing))


def _phases(kx: Tensor, ky: Tensor, phase: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """(N, WAVES, M) of waves (S, WAVES, 1) at (N, M)."""
    return torch.addcmul(torch.addcmul(phase, kx, x[:, None]), ky, y[:, None])


def _slope(ground: Grounds, x: Tensor, y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    slope, kx, ky, phase, beat = ground.swell[..., None].unbind(1)
    wave = slope / torch.hypot(kx, ky) * torch.cos(_phases(kx, ky, phase - beat * t[:, None, None], x, y))
    return (kx * wave).sum(1), (ky * wave).sum(1)


def _walls(ground: Grounds, x: Tensor, y: Tensor, dx: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]:
    """Range to the basin's wall from inside it, and whether that wall runs east."""
    north0, north1, east0, east1 = (each[:, None] for each in ground.walls.unbind(1))
    # Of a pair of opposite walls the one ahead has the larger range.
    per_x = 1 / torch.where(dx.abs() < 1e-6, 1e-6, dx)
    per_y = 1 / torch.where(dy.abs() < 1e-6, 1e-6, dy)
    to_x = torch.maximum((north0 - x) * per_x, (north1 - x) * per_x)
    to_y = torch.maximum((east0 - y) * per_y, (east1 - y) * per_y)
    return torch.minimum(to_x, to_y).clamp(0, FAR), to_x < to_y


def _paint(ground: Grounds, x: Tensor, y: Tensor, z: Tensor, wall: Tensor, across: Tensor, path: Tensor) -> Tensor:
    """(3, N, M) reflectances."""
    u, v = x, y
    if ground.walled:  # a wall is painted by the run along it and the depth
        along = torch.where(across, y, x)
        u, v = torch.where(wall, along, x), torch.where(wall, z + 0.37 * along, y)
    sx, sy = ground.shift[:, :1], ground.shift[:, 1:]
    wide, fine = textures.sample(
        textures.noise(x.device),
        torch.stack((u * 0.11 + sx, u * 0.83 + sy)),
        torch.stack((v * 0.11 + sy, v * 0.83 + sx)),
    ).unbind(1)
    fade = 1 / (1 + (0.25 * path) ** 2)
    colour, other, side = (each.t()[..., None] for each in (ground.colour, ground.other, ground.wall))
    if ground.kind == "tiles":
        bright = 1 + 0.25 * (wide[0] - 0.5) + 0.1 * (fine[1] - 0.5) * fade
        mark = _marks(x, y, path)
        floor = colour + (other - colour) * mark
        band = ((0.32 - z) * 12).clamp(0, 1) * (z > 0.05)
        return torch.where(wall, side * (1 - 0.75 * band), floor) * bright
    rough = 0.35 * (fine[0] - 0.5) + 0.45 * (fine[1] - 0.5) * fade
    mix = ((wide[0] - 0.5) * 2.2 + rough + 0.5).clamp(0, 1)
    bright = 1 + 0.5 * (wide[1] - 0.5) * fade + (1.1 if ground.kind == "mud" else 0.8) * rough
    if ground.kind == "sand":
        bend = 9.0 * (wide[0] - 0.5)
        bright = bright + 0.13 * fade * torch.sin(x * 17.0 + y * 6.0 + 2.5 * bend) * (wide[1] * 2).clamp(0, 1)
    else:  # scraps and holes
        scrap = ((fine[0] - 0.76) * 10).clamp(0, 1) - ((0.22 - fine[0]) * 7).clamp(0, 1)
        bright = bright + 0.35 * scrap
    floor = other + (colour - other) * mix
    if ground.walled:
        floor = torch.where(wall, side * (0.6 + 0.8 * mix), floor)
    return floor * bright.clamp(0.15, 2.0)


def _marks(x: Tensor, y: Tensor, path: Tensor) -> Tensor:
    """0..1: black lines along the lanes, 2.5 m apart and 0.25 m wide, every other dashed, with their small tiles."""
    soft = 0.01 + 0.004 * path
    lane = y / 2.5
    across = (lane - lane.round()).abs() * 2.5
    dashed = torch.remainder(lane.round(), 2) > 0.5
    dash = ((x - x.round() * 1.0).abs() < 0.3) | ~dashed
    line = ((0.125 - across) / soft + 0.5).clamp(0, 1) * dash
    grid = torch.maximum((torch.remainder(x * 20, 1) - 0.5).abs(), (torch.remainder(y * 20, 1) - 0.5).abs())
    grout = ((grid - 0.42) * 12).clamp(0, 1) * (1 - path * 0.25).clamp(0, 1)
    return line * (1 - 0.5 * grout)
