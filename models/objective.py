"""What the detector learns: the targets of a batch on the grid of the network's cells, and the losses against them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from models import augment
from rov.vision.network import STRIDE

SPREAD = 0.54
"""Width of a label's Gaussian as a share of its box (Liu et al. 2020, table 2)."""
SEES = 0.3
"""Score above which the start is taken to see an object."""
LEAST = 0.5
"""Least standard deviation of a Gaussian, cells: what is found a cell beside a small object must know its box, too."""
OWN = 0.05
"""Height of the Gaussian down to which a cell learns the box."""


class Targets(NamedTuple):
    """What the network should say, on the grid of its cells."""

    heat: Tensor
    """(B, C, g, g) Gaussians of height 1."""
    mask: Tensor
    """(B, C, g, g) 0 where the class is unknown: in sets that do not label it, and at objects that are cut off."""
    box: Tensor
    """(B, 4, g, g) x1 y1 x2 y2 of the box that owns each cell, px: the smallest one there."""
    weight: Tensor
    """(B, g, g)"""


def targets(made: augment.Plan, known: Tensor, count: int, size: int) -> Targets:
    """The targets of a plan; `known` (pictures of the set, C)."""
    device, classes, cells = known.device, known.shape[1], size // STRIDE
    owner = np.zeros((count, cells, cells), np.int64)
    for row, source, window, opacity in zip(made.row, made.source, made.window, made.opacity, strict=True):
        if not opacity:
            x1, y1, x2, y2 = (window / STRIDE).astype(int)
            owner[row, y1:y2, x1:x2] = source
    mask = known[torch.from_numpy(owner).to(device)].permute(0, 3, 1, 2).reshape(count * classes, cells, cells)
    there = (made.boxes[:, 2:] - made.boxes[:, :2]).min(1, initial=np.inf) > 0
    layer = made.box_row * classes + made.kinds  # of the heat maps, all in one row

    def chosen(which: NDArray[np.bool_]) -> tuple[Tensor, Tensor, Tensor]:
        boxes, rows, layers = made.boxes[which], made.box_row[which], layer[which]
        return tuple(torch.from_numpy(each).to(device) for each in (boxes, rows, layers))  # type: ignore[return-value]

    boxes, _, layers = chosen(there & ~made.kept)
    mask = _at(mask, layers, 1.0 - _touched(boxes, cells), "amin")
    boxes, rows, layers = chosen(there & made.kept)
    mask = _at(mask, layers, _touched(boxes, cells), "amax")  # pasted objects are known
    bump, area = _bumps(boxes, cells), (boxes[:, 2:] - boxes[:, :2]).prod(1)
    heat = _at(torch.zeros_like(mask), layers, bump, "amax")
    own = bump > OWN
    sizes = torch.where(own, area[:, None, None], torch.inf)
    smallest = _at(torch.full((count, cells, cells), torch.inf, device=device), rows, sizes, "amin")
    own = own & (sizes == smallest[rows])
    share = own * bump / (bump * (bump > OWN)).sum((1, 2), keepdim=True) * area.clamp(min=2.0).log()[:, None, None]
    number = torch.zeros_like(smallest).index_add(0, rows, own.float())  # two boxes of one size share a cell
    box = torch.zeros(count, 4, cells, cells, device=device)
    box = box.index_add(0, rows, boxes[:, :, None, None] * own[:, None]) / number.clamp(min=1)[:, None]
    weight = torch.zeros_like(smallest).index_add(0, rows, share)
    return Targets(heat.view(count, classes, cells, cells), mask.view(count, classes, cells, cells), box, weight)


def _at(grids: Tensor, which: Tensor, values: Tensor, how: str) -> Tensor:
    """`grids` (N, g, g) combined with `values` (M, g, g), each at its grid."""
    return grids.scatter_reduce(0, which[:, None, None].expand_as(values), values, how)


def _touched(boxes: Tensor, cells: int) -> Tensor:
    """(M, g, g) 1 in the cells that a box touches."""
    at = torch.arange(cells, device=boxes.device)
    x1, y1, x2, y2 = (boxes / STRIDE).T[:, :, None]
    across, down = (at >= x1.floor()) & (at <= x2.ceil()), (at >= y1.floor()) & (at <= y2.ceil())
    touched: Tensor = (down[:, :, None] & across[:, None, :]).float()
    return touched


def _bumps(boxes: Tensor, cells: int) -> Tensor:
    """(M, g, g) a Gaussian of height 1 at the centre of each box."""
    at = torch.arange(cells, device=boxes.device)
    x1, y1, x2, y2 = (boxes / STRIDE).T[:, :, None]
    cx, cy = ((x1 + x2) / 2).floor().clamp(0, cells - 1), ((y1 + y2) / 2).floor().clamp(0, cells - 1)
    sx, sy = (SPREAD * (x2 - x1) / 6).clamp(min=LEAST), (SPREAD * (y2 - y1) / 6).clamp(min=LEAST)
    gx, gy = torch.exp(-((at - cx) ** 2) / (2 * sx**2)), torch.exp(-((at - cy) ** 2) / (2 * sy**2))
    bumps: Tensor = gy[:, :, None] * gx[:, None, :]
    return bumps


def losses(heat: Tensor, distances: Tensor, want: Targets) -> tuple[Tensor, Tensor]:
    """(classification, box). Penalty-reduced focal loss (Law & Deng 2018, eq. 1); GIoU loss (Rezatofighi 2019)."""
    p = heat.sigmoid().clamp(1e-4, 1 - 1e-4)
    peak = (want.heat == 1).float() * want.mask
    hard = (1 - p).log() * p**2 * (1 - want.heat) ** 4 * want.mask * (1 - peak)
    easy = p.log() * (1 - p) ** 2 * peak
    focal = -(easy.sum() + hard.sum()) / peak.sum().clamp(min=1)

    grid = (torch.arange(want.weight.shape[-1], device=heat.device) + 0.5) * STRIDE
    x, y = grid[None, None, :], grid[None, :, None]
    l, t, r, b = distances.unbind(1)  # noqa: E741  (B, g, g) each
    x1, y1, x2, y2 = x - l, y - t, x + r, y + b
    u1, v1, u2, v2 = want.box.unbind(1)
    shared = (torch.minimum(x2, u2) - torch.maximum(x1, u1)).clamp(min=0) * (
        torch.minimum(y2, v2) - torch.maximum(y1, v1)
    ).clamp(min=0)
    union = (x2 - x1) * (y2 - y1) + (u2 - u1) * (v2 - v1) - shared
    hull = (torch.maximum(x2, u2) - torch.minimum(x1, u1)) * (torch.maximum(y2, v2) - torch.minimum(y1, v1))
    giou = shared / union.clamp(min=1e-6) - (hull - union) / hull.clamp(min=1e-6)
    return focal, ((1 - giou) * want.weight).sum() / want.weight.sum().clamp(min=1e-6)


def remembering(heat: Tensor, distances: Tensor, taught: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
    """How far heat maps (logits) and distances are from those of the start, `taught`, where nothing is labelled, per
    object that the start sees. Heat maps: cross entropy, weighted by their squared difference (Li et al. 2020,
    "Generalized Focal Loss", eq. 5). Distances, where it sees one: the mean of how many times too long or short."""
    want, p = taught[0].sigmoid(), heat.sigmoid()
    cross = F.binary_cross_entropy_with_logits(heat, want, reduction="none")
    there = want * (want > SEES) * (1 - mask)
    sees = there.sum().clamp(min=1)
    times = (distances.clamp(min=0.1).log() - taught[1].clamp(min=0.1).log()).abs().mean(1, keepdim=True)
    return (((p - want) ** 2 * cross * (1 - mask)).sum() + (times * there).sum()) / sees
