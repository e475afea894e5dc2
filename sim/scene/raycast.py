"""Ray casting of parts. Each part is tested only against the rays inside its box on the screen: one list of (ray, part)
pairs for all cameras and parts, so that the number of tensor operations does not grow with the scene.

Pairs look up their data by index_select from tables of columns: indexing in brackets takes six times as long.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sim.scene import textures
from sim.scene.lens import Lens

NEAR = 0.03
"""Nothing is drawn closer than this, m."""
MARGIN = 2
"""Pixels added around a projected box, for the distortion between its projected points."""


EDGES = tuple((i, i + bit) for bit in (1, 2, 4) for i in range(8) if not i & bit)
"""Pairs of corners of a box."""
LAST = 2**32 - 1
"""Above every part's number."""


class Screen(NamedTuple):
    """Lens data for the projection of boxes."""

    lens: Lens
    left: float
    top: float
    right: float
    bottom: float
    """Extent of the picture on the pinhole's plane."""
    reach: float
    """Of the lens, on that plane."""
    signs: Tensor
    """(8, 3) of a box's corners."""
    edges: tuple[Tensor, Tensor]
    """(12,) each: corners where the edges begin, and where they end."""


class Hits(NamedTuple):
    """Pairs that hit, in no order."""

    ray: Tensor
    """Index into the flat (N, H, W)."""
    part: Tensor
    """Index into the flat (N, P)."""
    range: Tensor
    """m along the ray."""


def screen(lens: Lens, plane: Tensor, device: torch.device) -> Screen:
    """`plane` (2, H·W): where the lens' rays cross the plane 1 m ahead."""
    low, high = plane.amin(1).tolist(), plane.amax(1).tolist()
    signs = torch.tensor([[x, y, z] for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0)], device=device)
    begin, end = (torch.tensor([edge[i] for edge in EDGES], device=device) for i in (0, 1))
    return Screen(lens, low[0], low[1], high[0], high[1], lens.reach, signs, (begin, end))


def screen_boxes(screen: Screen, corners: Tensor) -> Tensor:
    """(…, 8, 3) corners in camera axes to (…, 4) pixels x0 y0 x1 y1, the last ones exclusive; empty when out of view.

    A box that reaches behind the camera is clipped at NEAR: its corners ahead and its clipped edges count.
    """
    lens = screen.lens
    z = corners[..., 2:]
    ahead = z > NEAR
    a, b = (corners.index_select(-2, end) for end in screen.edges)
    share = (NEAR - a[..., 2:]) / (b[..., 2:] - a[..., 2:])
    cut = (a[..., 2:] > NEAR) != (b[..., 2:] > NEAR)
    points = torch.cat((corners[..., :2] / z, torch.lerp(a[..., :2], b[..., :2], share) / NEAR), -2)
    counts = torch.cat((ahead, cut), -2)
    u0, v0 = torch.where(counts, points, torch.inf).amin(-2).unbind(-1)
    u1, v1 = torch.where(counts, points, -torch.inf).amax(-2).unbind(-1)
    u0, u1 = u0.clamp(screen.left, screen.right), u1.clamp(screen.left, screen.right)
    v0, v1 = v0.clamp(screen.top, screen.bottom), v1.clamp(screen.top, screen.bottom)
    um, vm = torch.minimum(u0.clamp(min=0), u1), torch.minimum(v0.clamp(min=0), v1)
    us = torch.stack((u0, um, u1, u0, um, u1, u0, um, u1), -1)
    vs = torch.stack((v0, v0, v0, vm, vm, vm, v1, v1, v1), -1)
    px, py = _distorted(screen, us, vs)
    x0 = (px.amin(-1).floor() - MARGIN).clamp(0, lens.width)
    y0 = (py.amin(-1).floor() - MARGIN).clamp(0, lens.height)
    x1 = (px.amax(-1).ceil() + MARGIN + 1).clamp(0, lens.width)
    y1 = (py.amax(-1).ceil() + MARGIN + 1).clamp(0, lens.height)
    seen = (u1 > u0) & (v1 > v0)
    return torch.stack((x0, y0, torch.where(seen, x1, x0), y1), -1).long()


def _distorted(screen: Screen, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels of points on the pinhole's plane; points beyond the lens' reach land outside the picture."""
    lens = screen.lens
    r2 = u * u + v * v
    if lens.model == "equidistant":
        k1, k2, k3, k4 = lens.distortion
        r = r2.sqrt().clamp(min=1e-9)
        angle = r.atan()
        a2 = angle * angle
        scale = angle / r * (1 + a2 * (k1 + a2 * (k2 + a2 * (k3 + a2 * k4))))
        return lens.fx * u * scale + lens.cx, lens.fy * v * scale + lens.cy
    k1, k2, p1, p2, k3 = lens.distortion
    within = r2.clamp(max=screen.reach**2)
    radial = 1 + within * (k1 + within * (k2 + within * k3))
    px = lens.fx * (u * radial + 2 * p1 * u * v + p2 * (r2 + 2 * u * u)) + lens.cx
    py = lens.fy * (v * radial + p1 * (r2 + 2 * v * v) + 2 * p2 * u * v) + lens.cy
    return px, py


def pairs(boxes: tuple[Tensor, Tensor], width: int, height: int) -> list[tuple[Tensor, Tensor]]:
    """All pixels of boxes (N, P, 4) and (N, I, 4): for each, indices into the flat (N, H, W), and into the flat (N, P).

    The host needs the lengths of the lists: the first of two synchronisations with the device per picture, for any
    number of cameras; the other is in `meet`.
    """
    n, device = boxes[0].shape[0], boxes[0].device
    per_row = [each.shape[1] for each in boxes]
    x0, y0, x1, y1 = torch.cat([each.reshape(-1, 4) for each in boxes]).unbind(-1)
    rows = torch.arange(n, device=device) * (width * height)
    corner = x0 + y0 * width + torch.cat([rows.repeat_interleave(each) for each in per_row])
    wide = (x1 - x0).clamp(min=0)
    count = wide * (y1 - y0).clamp(min=0)
    ends = count.cumsum(0)
    half = n * per_row[0]
    split, total = torch.stack((ends[half - 1], ends[-1])).tolist()
    owner = torch.repeat_interleave(count, output_size=total)
    columns = torch.stack((wide, corner - ends + count)).index_select(1, owner)
    across, first = columns.unbind(0)
    local = torch.arange(total, device=device)
    row = torch.div(local - (ends - count).index_select(0, owner), across, rounding_mode="floor")
    ray = first + row * (width - across) + local
    return [(ray[:split], owner[:split]), (ray[split:], owner[split:] - half)]


def corners(screen: Screen, half: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """(…, 8, 3) corners of the boxes around parts, in their own axes."""
    at = screen.signs * half[..., None, :]
    at[..., 2] = torch.where(screen.signs[:, 2] > 0, high[..., None], low[..., None]) * half[..., None, 2]
    return at


def table(half: Tensor, centre: Tensor, turn: Tensor, camera: Tensor) -> Tensor:
    """(12, N·P) per part at `centre`, for a camera at `camera` (N, 3): the matrix from world to the part's own frame,
    row by row, and the camera's position in that frame."""
    matrix = turn.transpose(-1, -2) / half.clamp(min=1e-6)[..., :, None]
    origin = (matrix * (camera[:, None] - centre)[..., None, :]).sum(-1)
    return torch.cat((matrix.flatten(2), origin), -1).reshape(-1, 12).t().contiguous()


def meet(table: Tensor, form: Tensor, ray: Tensor, part: Tensor, direction: Tensor, bumpy: bool, tile: Tensor) -> Hits:
    """The pairs whose ray meets its part from outside. `direction` (3, N·H·W); `form` (6, N·P) or, the same for all
    rows, (6, P): a, b, low, high, box, bump."""
    dx, dy, dz = direction.index_select(1, ray).unbind(0)
    m = table.index_select(1, part).unbind(0)
    lx = m[0] * dx + m[1] * dy + m[2] * dz
    ly = m[3] * dx + m[4] * dy + m[5] * dz
    lz = m[6] * dx + m[7] * dy + m[8] * dz
    ox, oy, oz = m[9:]
    a, b, low, high, box, bump = form.index_select(1, _kind(part, form)).unbind(0)

    qa = lx * lx + ly * ly + a * lz * lz
    qa = torch.where(qa.abs() < 1e-9, 1e-9, qa)
    qb = ox * lx + oy * ly + (a * oz + 0.5 * b) * lz
    qc = ox * ox + oy * oy + (a * oz + b) * oz - 1
    if bumpy:  # the radius is reduced by the dent where the ray passes closest
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

    # With qa < 0 (along a cone, inwards) the cone is outside the roots; the slab decides on which side.
    start, end = torch.minimum(first, second), torch.maximum(first, second)
    before = enter_z <= start
    enter = torch.where(qa > 0, first, torch.where((disc < 0) | before, -torch.inf, end))
    leave = torch.where(qa > 0, second, torch.where((disc < 0) | ~before, torch.inf, start))
    missed = (qa > 0) & (disc < 0)

    boxed = box > 0.5
    wx, wy = torch.where(lx.abs() < 1e-9, 1e-9, lx), torch.where(ly.abs() < 1e-9, 1e-9, ly)
    x_in, x_out = -(1 / wx).abs() - ox / wx, (1 / wx).abs() - ox / wx
    y_in, y_out = -(1 / wy).abs() - oy / wy, (1 / wy).abs() - oy / wy
    enter = torch.maximum(torch.where(boxed, torch.maximum(x_in, y_in), enter), enter_z)
    leave = torch.minimum(torch.where(boxed, torch.minimum(x_out, y_out), leave), leave_z)
    hit = (enter < leave) & (enter > NEAR) & ~(missed & ~boxed)
    where = hit.nonzero()[:, 0]
    return Hits(*(each.index_select(0, where) for each in (ray, part, enter)))


def nearest(hits: Hits, rays: int) -> Hits:
    """Each hit replaced by the nearest of its ray; of two at the same range, the part with the higher number. Later
    steps may process all of them and overwrite one with its copy, without a synchronisation to count the rays."""
    # Positive floats sort like their bits as integers.
    key = (hits.range.view(torch.int32).long() << 32) + (LAST - hits.part)
    first = torch.full((rays,), torch.iinfo(torch.int64).max, device=key.device)
    key = first.scatter_reduce_(0, hits.ray, key, "amin").index_select(0, hits.ray)
    return Hits(hits.ray, LAST - (key & LAST), (key >> 32).int().view(torch.float32))


def surface(
    table: Tensor, form: Tensor, hits: Hits, direction: Tensor
) -> tuple[tuple[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]:
    """Where hits lie in their part's own frame, and the normals (K,) each in the world, towards the ray's origin.
    `direction` (3, K)."""
    m = table.index_select(1, hits.part).unbind(0)
    d = direction.unbind(0)
    x, y, z = (m[9 + i] + hits.range * (m[3 * i] * d[0] + m[3 * i + 1] * d[1] + m[3 * i + 2] * d[2]) for i in range(3))
    a, b, low, high, box, _ = form.index_select(1, _kind(hits.part, form)).unbind(0)
    gx, gy, gz = x, y, a * z + 0.5 * b
    top = (z - high).abs() < 1e-3
    capped = top & (high < 1 - 1e-6) | (top | ((z - low).abs() < 1e-3)) & (a < 0.5)
    ax, ay, az = x.abs(), y.abs(), z.abs()
    boxed = box > 0.5
    face_x, face_y = (ax >= ay) & (ax >= az), (ay > ax) & (ay >= az)
    gx = torch.where(boxed, x * face_x, gx * ~capped)
    gy = torch.where(boxed, y * face_y, gy * ~capped)
    gz = torch.where(boxed, z * ~(face_x | face_y), torch.where(capped, z - 0.5 * (low + high), gz))
    normal = [m[i] * gx + m[3 + i] * gy + m[6 + i] * gz for i in range(3)]
    facing = normal[0] * d[0] + normal[1] * d[1] + normal[2] * d[2]
    size = (normal[0] ** 2 + normal[1] ** 2 + normal[2] ** 2).sqrt().clamp(min=1e-9)
    flip = torch.where(facing > 0, -1.0, 1.0) / size
    return (x, y, z), (normal[0] * flip, normal[1] * flip, normal[2] * flip)


def _kind(part: Tensor, columns: Tensor) -> Tensor:
    """Indices into columns that may be shared by all rows."""
    return torch.remainder(part, columns.shape[1])
