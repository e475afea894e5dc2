"""Augmentation of training pictures: other position, other size, other company, other water.

A training picture is composed of pieces: a picture of the set, moved, scaled, tilted and mirrored, seen through a
window. One piece fills the whole, or four share it (a mosaic), and objects are pasted through round windows. `plan`
draws the pieces and computes their boxes (numpy, cheap); `compose` and `water` make the pixels of a whole batch (torch,
on any device).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

CELL = 8
"""Windows begin and end at whole cells of the heat map, px."""
INSIDE = 0.4
"""Least share of a box that must be seen for it to stay a label."""
SMALLEST = 3.0
"""Least side of a label, px."""
GREY = 127.0
"""What the detector sees beside a picture."""


class Augmentation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far training pictures are changed. Shares are of the pictures, 0 to 1."""

    smaller: float = 0.6
    larger: float = 1.7
    """Range of the scale, drawn evenly in its logarithm; 1 fits the picture into its window."""
    tilt: float = 4.0
    """Standard deviation of the roll, degrees."""
    mirror: float = 0.5
    mosaic: float = 0.25
    """Share that shows four pictures."""
    paste: float = 0.3
    """Share into which one to three buoys of other pictures are pasted."""
    colour: float = 1.0
    """Strength of changed saturation, exposure, cast and contrast; 0: none."""
    veil: float = 0.4
    """Share seen through backscatter."""
    blur: float = 0.3
    noise: float = 0.4


@dataclass(frozen=True)
class Source:
    """What `plan` must know of a picture of the set."""

    height: int
    width: int
    boxes: Floats
    """(N, 4) x1 y1 x2 y2, px."""
    kinds: Ints


class Plan(NamedTuple):
    """A batch to be made: P pieces in the order in which they are laid, M boxes."""

    row: Ints
    """(P,) which training picture."""
    source: Ints
    """(P,) which picture of the set."""
    matrix: NDArray[np.float64]
    """(P, 2, 3) from its pixels to those of the training picture."""
    window: Floats
    """(P, 4) x1 y1 x2 y2 of what is seen of it."""
    opacity: Floats
    """(P,) 0: the window is a rectangle; else it is round, with this opacity."""
    boxes: Floats
    """(M, 4) in the training picture."""
    box_row: Ints
    kinds: Ints
    kept: NDArray[np.bool_]
    """(M,) False: too little of it is seen; it is neither a label nor background."""


def plan(
    sources: list[Source],
    cutouts: Ints,
    drawn: Ints,
    others: Ints,
    size: int,
    how: Augmentation,
    rng: np.random.Generator,
) -> Plan:
    """Pieces and boxes of a batch. `drawn` (B,) are the pictures; further ones of a mosaic are among `others`;
    `cutouts` (K, 2) picture and box of every object that may be pasted."""
    count = len(drawn)
    mosaic = rng.random(count) < how.mosaic
    windows, rows = _windows(mosaic, size, rng)
    chosen = others[rng.integers(len(others), size=len(rows))]
    first = np.r_[True, rows[1:] != rows[:-1]]
    chosen[first] = drawn
    sides = np.array([(sources[i].width, sources[i].height) for i in chosen], np.float64)
    matrix = _matrices(sides, windows, how, rng)
    boxes = np.concatenate([sources[i].boxes for i in chosen])
    piece = np.repeat(np.arange(len(chosen)), [len(sources[i].boxes) for i in chosen])
    moved, kept = _move(boxes, matrix[piece], windows[piece])
    made = Plan(
        rows, chosen, matrix, windows.astype(np.float32), np.zeros(len(rows), np.float32),
        moved, rows[piece], np.concatenate([sources[i].kinds for i in chosen]), kept,
    )  # fmt: skip
    return _paste(made, sources, cutouts, np.flatnonzero(rng.random(count) < how.paste), size, rng)


def _windows(mosaic: NDArray[np.bool_], size: int, rng: np.random.Generator) -> tuple[NDArray[np.float64], Ints]:
    """The windows (P, 4) of every picture, and whose they are (P,): one for the whole or four around a point."""
    split = (rng.uniform(0.3, 0.7, (len(mosaic), 2)) * size // CELL * CELL).astype(int)
    windows: list[tuple[int, ...]] = []
    rows: list[int] = []
    for row, ((x, y), four) in enumerate(zip(split, mosaic, strict=True)):
        quarters = [(0, 0, x, y), (x, 0, size, y), (0, y, x, size), (x, y, size, size)]
        windows += quarters if four else [(0, 0, size, size)]
        rows += [row] * (4 if four else 1)
    return np.array(windows, np.float64), np.array(rows)


def _matrices(
    sides: NDArray[np.float64], windows: NDArray[np.float64], how: Augmentation, rng: np.random.Generator
) -> NDArray[np.float64]:
    """(P, 2, 3) that scale, tilt and mirror pictures of these sides (P, 2) and move them about their windows."""
    count = len(sides)
    span = windows[:, 2:] - windows[:, :2]  # (P, 2)
    scale = span.max(1) / sides.max(1) * np.exp(rng.uniform(np.log(how.smaller), np.log(how.larger), count))
    tilt = np.radians(rng.normal(0.0, how.tilt, count))
    turn = np.stack([np.cos(tilt), np.sin(tilt), -np.sin(tilt), np.cos(tilt)], 1).reshape(-1, 2, 2)
    linear = turn * scale[:, None, None]
    linear[rng.random(count) < how.mirror, :, 0] *= -1
    free = np.abs(span - scale[:, None] * sides) / 2 + 0.1 * span
    centre = windows[:, :2] + span / 2 + rng.uniform(-1.0, 1.0, (count, 2)) * free
    offset = centre - np.einsum("pij,pj->pi", linear, sides / 2)
    return np.concatenate([linear, offset[:, :, None]], 2)


def _move(boxes: Floats, matrix: NDArray[np.float64], window: NDArray[np.float64]) -> tuple[Floats, NDArray[np.bool_]]:
    """Boxes (M, 4) under their matrices, cut to their windows, and which of them are still labels."""
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2.0, (boxes[:, 2:] - boxes[:, :2]) / 2.0
    middle = np.einsum("mij,mj->mi", matrix[:, :, :2], centre) + matrix[:, :, 2]
    # The corners of a tilted box overstate the object; the ellipse inside it does not.
    reach = np.sqrt(np.einsum("mij,mj->mi", matrix[:, :, :2] ** 2, half**2))
    full = np.concatenate([middle - reach, middle + reach], 1)
    seen = np.concatenate(
        [full[:, :2].clip(window[:, :2], window[:, 2:]), full[:, 2:].clip(window[:, :2], window[:, 2:])], 1
    )
    sides = seen[:, 2:] - seen[:, :2]
    whole = np.maximum(full[:, 2:] - full[:, :2], 1e-6).prod(1)
    kept = (sides.prod(1) > INSIDE * whole) & (sides.min(1, initial=np.inf) >= SMALLEST)
    some = sides.min(1, initial=np.inf) > 0
    return seen.astype(np.float32), kept & some


def _paste(made: Plan, sources: list[Source], cutouts: Ints, rows: Ints, size: int, rng: np.random.Generator) -> Plan:
    """Add round pieces, each with one object, to these training pictures, beside the objects that are there."""
    pieces: list[tuple[Any, ...]] = []
    boxes: list[tuple[int, Floats, int]] = []
    for row in np.repeat(rows, rng.integers(1, 4, len(rows))) if len(cutouts) else ():
        i, j = cutouts[int(rng.integers(len(cutouts)))]
        x1, y1, x2, y2 = sources[i].boxes[j]
        scale = size * np.exp(rng.uniform(np.log(0.03), np.log(0.35))) / (y2 - y1)  # of the picture's height
        w, h = (x2 - x1) * scale, (y2 - y1) * scale
        if max(w, h) >= size - 1:
            continue
        x, y = rng.uniform(0, size - w), rng.uniform(0, size - h)
        box = np.array([x, y, x + w, y + h], np.float32)
        there = [made.boxes[made.box_row == row], *(b[None] for r, b, _ in boxes if r == row)]
        if iou(box[None], np.concatenate(there)).max(initial=0.0) > 0.02:
            continue
        mirrored = -1.0 if rng.random() < 0.5 else 1.0
        left = x - scale * x1 if mirrored > 0 else x + scale * x2
        pieces.append(
            (row, i, [[mirrored * scale, 0.0, left], [0.0, scale, y - scale * y1]], box, rng.uniform(0.75, 1))
        )
        boxes.append((int(row), box, int(sources[i].kinds[j])))
    if not pieces:
        return made
    return Plan(
        np.append(made.row, [p[0] for p in pieces]),
        np.append(made.source, [p[1] for p in pieces]),
        np.concatenate([made.matrix, np.array([p[2] for p in pieces], np.float64)]),
        np.concatenate([made.window, np.array([p[3] for p in pieces], np.float32)]),
        np.append(made.opacity, np.array([p[4] for p in pieces], np.float32)),
        np.concatenate([made.boxes, np.array([b for _, b, _ in boxes], np.float32)]),
        np.append(made.box_row, [r for r, _, _ in boxes]),
        np.append(made.kinds, [k for _, _, k in boxes]),
        np.append(made.kept, np.ones(len(boxes), bool)),
    )


def compose(pictures: list[Tensor], made: Plan, count: int, size: int, rng: np.random.Generator) -> Tensor:
    """The pixels of a plan: `pictures` (3, H, W) uint8 of the set -> (count, 3, size, size) float32, 0..255."""
    device = pictures[0].device
    ground = np.where(rng.random((count, 1)) < 0.5, rng.uniform(60, 180, (count, 3)), GREY).astype(np.float32)
    out = torch.from_numpy(ground).to(device)[:, :, None, None].repeat(1, 1, size, size)
    depth = np.array([int((made.row[:i] == row).sum()) for i, row in enumerate(made.row)])
    for layer in range(int(depth.max()) + 1):  # within a layer, no training picture has two pieces
        here = np.flatnonzero(depth == layer)
        pixels, seen = _warp([pictures[i] for i in made.source[here]], made.matrix[here], size)
        seen = seen * _through(made.window[here], made.opacity[here], size, device)
        rows = torch.from_numpy(made.row[here]).to(device)
        out[rows] = torch.lerp(out[rows], pixels, seen[:, None])
    return out


def _warp(pictures: list[Tensor], matrix: NDArray[np.float64], size: int) -> tuple[Tensor, Tensor]:
    """Pictures under their matrices (P, 2, 3): (P, 3, size, size), and where they have pixels (P, size, size)."""
    device = pictures[0].device
    height, width = max(p.shape[1] for p in pictures), max(p.shape[2] for p in pictures)
    stacked = torch.zeros(len(pictures), 3, height, width, dtype=torch.uint8, device=device)
    for i, picture in enumerate(pictures):
        stacked[i, :, : picture.shape[1], : picture.shape[2]] = picture
    square = np.concatenate([matrix, np.tile([[[0.0, 0.0, 1.0]]], (len(matrix), 1, 1))], 1)
    back = torch.from_numpy(np.linalg.inv(square)[:, :2]).float().to(device)  # (P, 2, 3)
    at = torch.arange(size, device=device) + 0.5
    # (P, size, size) each: where in its picture every pixel comes from
    x = back[:, 0, 0, None, None] * at + back[:, 0, 1, None, None] * at[:, None] + back[:, 0, 2, None, None]
    y = back[:, 1, 0, None, None] * at + back[:, 1, 1, None, None] * at[:, None] + back[:, 1, 2, None, None]
    wide = torch.tensor([float(p.shape[2]) for p in pictures], device=device)[:, None, None]
    high = torch.tensor([float(p.shape[1]) for p in pictures], device=device)[:, None, None]
    seen = ((x > 0) & (x < wide) & (y > 0) & (y < high)).float()
    x, y = torch.minimum(x.clamp(min=0.5), wide - 0.5), torch.minimum(y.clamp(min=0.5), high - 0.5)
    grid = torch.stack((x * (2 / width) - 1, y * (2 / height) - 1), -1)
    return F.grid_sample(stacked.float(), grid, mode="bilinear", align_corners=False), seen


def _through(window: Floats, opacity: Floats, size: int, device: torch.device) -> Tensor:
    """(P, size, size) how much of a piece is seen: all within its rectangle, or a disc with a soft edge."""
    x1, y1, x2, y2 = torch.from_numpy(window).to(device).T[:, :, None, None]
    round_ = torch.from_numpy(opacity).to(device)[:, None, None]
    at = torch.arange(size, device=device) + 0.5
    x, y = at.expand(1, 1, size), at[:, None].expand(1, size, 1)
    flat = ((x > x1) & (x < x2) & (y > y1) & (y < y2)).float()
    radius = torch.hypot((x - (x1 + x2) / 2) / ((x2 - x1) / 2), (y - (y1 + y2) / 2) / ((y2 - y1) / 2))
    disc = ((1.0 - radius) * 6.0 + 0.3).clamp(0.0, 1.0) * round_  # the edge is seen through water
    return torch.where(round_ > 0, disc, flat)


def water(x: Tensor, how: Augmentation, rng: np.random.Generator) -> Tensor:
    """Other water, light and lens: (B, 3, H, W) BGR 0..255 -> the same. Colours lost with depth, a cast, exposure and
    contrast, backscatter that grows across the picture, blur and noise."""
    count, device = len(x), x.device

    def drawn(values: NDArray[np.float64]) -> Tensor:
        return torch.from_numpy(values.astype(np.float32)).to(device).view(count, -1, 1, 1)

    x = x / 255.0
    if how.colour:
        x = _colours(x, how.colour, rng, drawn)
    if how.veil:
        some = rng.random(count) < how.veil
        veil = drawn(np.where(some, rng.uniform(0.0, 0.6, count), 0.0))
        slope = drawn(rng.uniform(-0.8, 0.8, (count, 2)))
        down = torch.linspace(-1, 1, x.shape[2], device=device)[:, None]
        across = torch.linspace(-1, 1, x.shape[3], device=device)
        veil = (veil * (1 + slope[:, :1] * down + slope[:, 1:] * across)).clamp(0.0, 0.85)
        x = torch.lerp(x, drawn(rng.uniform((0.25, 0.2, 0.0), (0.9, 0.8, 0.5), (count, 3))), veil)
    if how.blur:
        rows = torch.from_numpy(np.flatnonzero(rng.random(count) < how.blur)).to(device)
        soft = F.avg_pool2d(F.avg_pool2d(x[rows], 5, 1, 2, count_include_pad=False), 3, 1, 1, count_include_pad=False)
        x = x.index_copy(0, rows, torch.lerp(x[rows], soft, drawn(rng.uniform(0.2, 1.0, count))[rows]))
    if how.noise:
        rows = torch.from_numpy(np.flatnonzero(rng.random(count) < how.noise)).to(device)
        noise = torch.Generator(device).manual_seed(int(rng.integers(1 << 31)))
        levels = drawn(rng.uniform(1.0, 9.0, count) / 255.0)[rows]
        x = x.index_add(0, rows, levels * torch.randn(x[rows].shape, generator=noise, device=device))
    return x.clamp(0.0, 1.0) * 255.0


def _colours(
    x: Tensor, strength: float, rng: np.random.Generator, drawn: Callable[[NDArray[np.float64]], Tensor]
) -> Tensor:
    """Saturation, exposure curve, colours lost with depth, cast, contrast and brightness."""
    count = len(x)
    keep = drawn(1 + strength * rng.uniform(-0.5, 0.7, count))
    grey = x.mean(1, keepdim=True)
    x = (grey + keep * (x - grey)).clamp(1e-4, 1.0) ** drawn(np.exp(strength * rng.normal(0.0, 0.25, count)))
    deep = (
        (rng.random((count, 1)) < 0.3)
        * rng.uniform(0.0, 1.0, (count, 1))
        * rng.uniform((0, 0, 0.3), (0.5, 0.3, 1.6), (count, 3))
    )
    x = x * drawn(np.exp(strength * (rng.normal(0.0, 0.2, (count, 3)) - deep)))
    mean = x.mean((1, 2, 3), keepdim=True)
    contrast = drawn(np.exp(strength * rng.uniform(np.log(0.6), np.log(1.5), count)))
    bright: Tensor = (x - mean) * contrast + mean + drawn(strength * rng.normal(0.0, 0.05, count))
    return bright


def iou(a: Floats, b: Floats) -> Floats:
    """Intersection over union of every pair: (N, 4), (M, 4) -> (N, M)."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.maximum(high - low, 0).prod(-1)
    size_a, size_b = (a[:, 2:] - a[:, :2]).prod(-1), (b[:, 2:] - b[:, :2]).prod(-1)
    return np.asarray(shared / np.maximum(size_a[:, None] + size_b[None] - shared, 1e-9), np.float32)
