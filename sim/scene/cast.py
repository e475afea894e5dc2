"""Rays against parts. Each part is tried only by the rays inside its box on the screen: one list of (ray, part) pairs
for all cameras and all parts, so that the number of tensor operations does not grow with the scene.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sim.scene import textures
from sim.scene.lens import Lens
from sim.scene.scene import Parts

NEAR = 0.03
"""Nothing is drawn closer than this, m."""
MARGIN = 2
"""Pixels around a projected box, for the lens' curvature between its points."""


class Screen(NamedTuple):
    """The lens as the projection of boxes needs it."""

    lens: Lens
    left: float
    top: float
    right: float
    bottom: float
    """Largest extents of the picture in the pinhole's plane."""


class Hits(NamedTuple):
    """Pairs that met, in no order."""

    ray: Tensor
    """Index into the flat (N, H, W)."""
    part: Tensor
    """Index into the flat (N, P)."""
    range: Tensor
    """m along the ray."""


def screen_boxes(screen: Screen, corners: Tensor) -> Tensor:
    """(…, 8, 3) corners in camera axes to (…, 4) pixels x0 y0 x1 y1, the last ones outside; empty when out of view."""
    lens = screen.lens
    x, y, z = corners.unbind(-1)
    ahead = z > NEAR
    some, every = ahead.any(-1), ahead.all(-1)
    z = z.clamp(min=NEAR)
    u, v = x / z, y / z
    u0 = torch.where(every, u.amin(-1), screen.left).clamp(screen.left, screen.right)
    u1 = torch.where(every, u.amax(-1), screen.right).clamp(screen.left, screen.right)
    v0 = torch.where(every, v.amin(-1), screen.top).clamp(screen.top, screen.bottom)
    v1 = torch.where(every, v.amax(-1), screen.bottom).clamp(screen.top, screen.bottom)
    zero = torch.zeros_like(u0)
    um, vm = torch.minimum(torch.maximum(zero, u0), u1), torch.minimum(torch.maximum(zero, v0), v1)
    us = torch.stack((u0, um, u1, u0, um, u1, u0, um, u1), -1)
    vs = torch.stack((v0, v0, v0, vm, vm, vm, v1, v1, v1), -1)
    k1, k2, p1, p2, k3 = lens.distortion
    r2 = us * us + vs * vs
    radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
    px = lens.fx * (us * radial + 2 * p1 * us * vs + p2 * (r2 + 2 * us * us)) + lens.cx
    py = lens.fy * (vs * radial + p1 * (r2 + 2 * vs * vs) + 2 * p2 * us * vs) + lens.cy
    x0 = (px.amin(-1).floor() - MARGIN).clamp(0, lens.width)
    y0 = (py.amin(-1).floor() - MARGIN).clamp(0, lens.height)
    x1 = (px.amax(-1).ceil() + MARGIN + 1).clamp(0, lens.width)
    y1 = (py.amax(-1).ceil() + MARGIN + 1).clamp(0, lens.height)
    seen = some & (u1 > u0) & (v1 > v0)
    return torch.stack((x0, y0, torch.where(seen, x1, x0), y1), -1).long()


def pairs(boxes: Tensor, width: int, height: int) -> tuple[Tensor, Tensor]:
    """All pixels of (N, P, 4) boxes: indices into the flat (N, H, W), and into the flat (N, P).

    The list's length must be known to the host: the one wait for the device per picture, however many cameras.
    """
    n, p, _ = boxes.shape
    x0, y0, x1, y1 = boxes.reshape(-1, 4).unbind(-1)
    wide = (x1 - x0).clamp(min=0)
    count = wide * (y1 - y0).clamp(min=0)
    ends = count.cumsum(0)
    total = int(ends[-1])
    owner = torch.repeat_interleave(torch.arange(n * p, device=boxes.device), count, output_size=total)
    first = x0 + y0 * width + torch.arange(n, device=boxes.device).repeat_interleave(p) * (width * height)
    local = torch.arange(total, device=boxes.device) - (ends - count)[owner]
    across = wide[owner]
    row = torch.div(local, across, rounding_mode="floor")
    return first[owner] + row * (width - across) + local, owner


def corners(centre: Tensor, turn: Tensor, half: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """(N, P, 8, 3) corners of the parts' boxes."""
    x, y, z = (turn * half[..., None, :]).unbind(-1)
    low_z, high_z = low[..., None] * z, high[..., None] * z
    return torch.stack(
        [centre + sx * x + sy * y + sz for sx in (-1, 1) for sy in (-1, 1) for sz in (low_z, high_z)], -2
    )


class Table(NamedTuple):
    """What pairs look up of their part, (columns, N·P)."""

    matrix: tuple[Tensor, ...]
    """World to the part's own frame, nine numbers by row."""
    origin: tuple[Tensor, Tensor, Tensor]
    """The camera in that frame."""
    form: tuple[Tensor, ...]


def table(parts: Parts, centre: Tensor, turn: Tensor, camera: Tensor) -> Table:
    """For parts at `centre`, seen from `camera` (N, 3)."""
    n, p = centre.shape[:2]
    half = parts.half.clamp(min=1e-6)
    matrix = turn.transpose(-1, -2) / half[..., :, None]
    origin = (matrix * (camera[:, None] - centre)[..., None, :]).sum(-1)
    form = parts.form.expand(n, p, 6)
    return Table(
        tuple(matrix.reshape(n * p, 9).t().contiguous().unbind(0)),
        tuple(origin.reshape(n * p, 3).t().contiguous().unbind(0)),  # type: ignore[arg-type]
        tuple(form.reshape(n * p, 6).t().contiguous().unbind(0)),
    )


def meet(table: Table, ray: Tensor, part: Tensor, direction: Tensor, bumpy: bool, tile: Tensor) -> Hits:
    """The pairs whose ray meets its part from outside. `direction` (3, N·H·W)."""
    m = table.matrix
    dx, dy, dz = direction[0][ray], direction[1][ray], direction[2][ray]
    lx = m[0][part] * dx + m[1][part] * dy + m[2][part] * dz
    ly = m[3][part] * dx + m[4][part] * dy + m[5][part] * dz
    lz = m[6][part] * dx + m[7][part] * dy + m[8][part] * dz
    ox, oy, oz = (o[part] for o in table.origin)
    a, b, low, high, box, bump = (f[part] for f in table.form)
    infinite = torch.full_like(lx, torch.inf)

    qa = lx * lx + ly * ly + a * lz * lz
    qa = torch.where(qa.abs() < 1e-9, 1e-9, qa)
    qb = ox * lx + oy * ly + (a * oz + 0.5 * b) * lz
    qc = ox * ox + oy * oy + (a * oz + b) * oz - 1
    if bumpy:  # the radius is dented where the ray passes closest
        s = -qb / qa
        x, y, z = ox + s * lx, oy + s * ly, oz + s * lz
        size = torch.rsqrt(x * x + y * y + z * z + 1e-9)
        u, v = (0.11 * x + 0.08 * z) * size, (0.11 * y - 0.06 * z) * size
        dent = bump * (textures.sample(tile, u, v)[0] - 0.1).clamp(0, 1)
        qc = qc + 1 - (1 - dent) ** 2
    disc = qb * qb - qa * qc
    root = disc.clamp(min=0).sqrt()
    first, second = (-qb - root) / qa, (-qb + root) / qa

    lz = torch.where(lz.abs() < 1e-9, 1e-9, lz)
    z0, z1 = (low - oz) / lz, (high - oz) / lz
    enter_z, leave_z = torch.minimum(z0, z1), torch.maximum(z0, z1)

    # With qa < 0 (along a cone, inwards) what lies outside the roots is inside the cone; the slab tells which side.
    start, end = torch.minimum(first, second), torch.maximum(first, second)
    before = enter_z <= start
    enter = torch.where(qa > 0, first, torch.where((disc < 0) | before, -infinite, end))
    leave = torch.where(qa > 0, second, torch.where((disc < 0) | ~before, infinite, start))
    missed = (qa > 0) & (disc < 0)

    boxed = box > 0.5
    wx, wy = torch.where(lx.abs() < 1e-9, 1e-9, lx), torch.where(ly.abs() < 1e-9, 1e-9, ly)
    x_in, x_out = -(1 / wx).abs() - ox / wx, (1 / wx).abs() - ox / wx
    y_in, y_out = -(1 / wy).abs() - oy / wy, (1 / wy).abs() - oy / wy
    enter = torch.maximum(torch.where(boxed, torch.maximum(x_in, y_in), enter), enter_z)
    leave = torch.minimum(torch.where(boxed, torch.minimum(x_out, y_out), leave), leave_z)
    hit = (enter < leave) & (enter > NEAR) & ~(missed & ~boxed)
    where = hit.nonzero()[:, 0]
    return Hits(ray[where], part[where], enter[where])


def nearest(hits: Hits, behind: Tensor) -> Hits:
    """One hit a ray, in front of the flat `behind`; of two at one distance the part of higher number."""
    depth = behind.clone().scatter_reduce_(0, hits.ray, hits.range, "amin")
    front = (hits.range <= depth[hits.ray]).nonzero()[:, 0]
    ray, part, distance = hits.ray[front], hits.part[front], hits.range[front]
    winner = torch.full_like(behind, -1, dtype=torch.long).scatter_reduce_(0, ray, part, "amax")
    keep = (winner[ray] == part).nonzero()[:, 0]
    return Hits(ray[keep], part[keep], distance[keep])


def surface(table: Table, hits: Hits, direction: Tensor) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
    """Where hits lie in their part's own frame, and the normals (3, K) in the world, towards the ray's origin."""
    m = [each[hits.part] for each in table.matrix]
    d = [direction[i][hits.ray] for i in range(3)]
    o = [each[hits.part] for each in table.origin]
    x, y, z = (o[i] + hits.range * (m[3 * i] * d[0] + m[3 * i + 1] * d[1] + m[3 * i + 2] * d[2]) for i in range(3))
    a, b, low, high, box, _ = (each[hits.part] for each in table.form)
    gx, gy, gz = x, y, a * z + 0.5 * b
    capped = ((z - high).abs() < 1e-3) & (high < 1 - 1e-6) | ((z - low).abs() < 1e-3) & (a < 0.5)
    capped |= ((z - high).abs() < 1e-3) & (a < 0.5)
    ax, ay, az = x.abs(), y.abs(), z.abs()
    zero = torch.zeros_like(x)
    boxed = box > 0.5
    face_x, face_y = (ax >= ay) & (ax >= az), (ay > ax) & (ay >= az)
    gx = torch.where(boxed, torch.where(face_x, x, zero), torch.where(capped, zero, gx))
    gy = torch.where(boxed, torch.where(face_y, y, zero), torch.where(capped, zero, gy))
    gz = torch.where(boxed, torch.where(face_x | face_y, zero, z), torch.where(capped, z - 0.5 * (low + high), gz))
    normal = torch.stack([m[i] * gx + m[3 + i] * gy + m[6 + i] * gz for i in range(3)])
    normal = normal / normal.norm(dim=0).clamp(min=1e-9)
    facing = (normal * torch.stack(d)).sum(0)
    return (x, y, z), torch.where(facing > 0, -normal, normal)
