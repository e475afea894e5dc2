"""What the displacement of pictures would say: a similarity fitted to the flow of a textured scene, with failures."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from sim.tasks.course import Conditions, wrapped
from sim.tasks.noise import DisplacementNoise

TURNED_RAD = 0.35
"""Against the key frame: a heading farther off than this finds nothing."""


class Frame(NamedTuple):
    """A picture as the displacement remembers it."""

    near: Tensor
    """(N, M) 1/m along the optical axis."""
    weight: Tensor
    """(N, M) how much of a cell's texture is seen, 0..1."""
    position: Tensor
    """(N, 3)."""
    turn: Tensor
    """(N, 3, 3) body to world."""
    heading: Tensor
    """(N,)."""


class DriftMemory(NamedTuple):
    last: Frame
    key: Frame
    keyed: Tensor
    """(N,) bool: there is a key frame."""
    lost: Tensor
    """(N, 2) bool: in a burst of failures, frame to frame and against the key frame."""


def start_drift(frame: Frame) -> DriftMemory:
    off = torch.zeros(len(frame.position), 2, dtype=torch.bool, device=frame.position.device)
    return DriftMemory(frame, frame, off[:, 0], off)


def flow(rays: Tensor, view: Tensor, before: Frame, position: Tensor) -> Tensor:
    """(N, 4) dx, dy where the texture is (share of the picture's width), log scale, roll: the weighted affine fit to
    the flow of a still scene from `before` to `position`, rotation taken out; read as `rov.steering.displacement` does,
    scale and roll from horizontal lines."""
    t = torch.bmm((position - before.position)[:, None], before.turn)[:, 0]  # (N, 3) in the axes of before
    x, y = rays[..., 1] / rays[..., 0], rays[..., 2] / rays[..., 0]
    u = (x * t[:, :1] - t[:, 1:2]) * before.near
    v = (y * t[:, :1] - t[:, 2:3]) * before.near
    w = before.weight / before.weight.sum(1, keepdim=True).clamp(min=1e-6)
    dx, dy = (w * u).sum(1), (w * v).sum(1)
    xc = w * (x - (w * x).sum(1, keepdim=True))
    spread = (xc * x).sum(1).clamp(min=1e-6)
    scale, roll = (xc * u).sum(1) / spread, (xc * v).sum(1) / spread
    width = 2 * view[:, 0]
    return torch.stack([dx / width, dy / width, torch.log1p(scale.clamp(-0.7, 3.0)), roll], dim=1)


def displacement(
    noise: DisplacementNoise,
    conditions: Conditions,
    rays: Tensor,
    frame: Frame,
    memory: DriftMemory,
    dt: float,
    random: torch.Generator,
) -> tuple[Tensor, Tensor, DriftMemory]:
    """(N, 5) frame to frame and (N, 5) against the key frame, as in `Sources`, `dt` s after the last picture. Where no
    vehicle has a key frame, zeros."""
    device = random.device
    said, lost = [], []
    pictures = (memory.last, memory.key) if bool(memory.keyed.any()) else (memory.last,)
    for i, before in enumerate(pictures):
        moved = flow(rays, conditions.view, before, frame.position)
        far = torch.hypot(moved[:, 0], moved[:, 1])
        chance = torch.sigmoid((before.weight.mean(1) - noise.clear) / 0.04) * torch.sigmoid((noise.reach - far) / 0.03)
        if i:
            turned = wrapped(frame.heading - before.heading).abs()
            chance = chance * memory.keyed * (turned < TURNED_RAD)
        dice = torch.rand(len(far), generator=random, device=device)
        end = 1 - math.exp(-dt / noise.lost_s)
        begin = ((1 - chance) / chance.clamp(min=1e-3) * end).clamp(max=1.0)
        gone = torch.where(memory.lost[:, i], dice > end * (chance > 0.02), dice < begin)
        error = noise.keyed_error if i else noise.error
        spread = torch.tensor([error, error, noise.scale_error, noise.roll_error], device=device)
        mess = torch.randn(len(far), 5, generator=random, device=device)
        moved = moved + mess[:, :4] * spread * (1 + 5 * far)[:, None]
        moved = torch.where(gone[:, None], 3 * mess[:, :4] * spread, moved)
        sure = torch.where(gone, 0.05, 0.6 + 0.4 * chance) + 0.05 * mess[:, 4]
        said.append(torch.cat([moved, sure.clamp(0.0, 1.0)[:, None]], dim=1))
        lost.append(gone)
    if len(said) < 2:
        said.append(torch.zeros_like(said[0]))
        lost.append(memory.lost[:, 1])
    keyed = torch.where(memory.keyed[:, None], said[1], 0.0)
    return said[0], keyed, memory._replace(last=frame, lost=torch.stack(lost, dim=1))


def latest(before: Frame, frame: Frame, now: Tensor) -> Frame:
    """`before`, with the rows of `frame` where `now` (N,) bool."""
    pairs = zip(before, frame, strict=True)
    return Frame(*(torch.where(now.reshape(-1, *[1] * (a.dim() - 1)), b, a) for a, b in pairs))


def take_key(memory: DriftMemory, frame: Frame, now: Tensor) -> DriftMemory:
    """The memory with `frame` as the key frame where `now` (N,) bool."""
    return memory._replace(key=latest(memory.key, frame, now), keyed=memory.keyed | now)
