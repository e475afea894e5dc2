"""Fits the noise of the maps: how wrong the encoder is of ranges and pipelines, and what it says of that."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec
import torch
from torch import Tensor

from models.policy.sights import Cells
from sim.tasks.noise import RangeNoise
from sim.tasks.picture_maps import seen, uncertainty

SEEN_WELL, FEW_CELLS = 2.0, 30
"""Optical depth up to which a pipeline is seen well, and cells of it that are too few."""
FEW_PLACES, ENOUGH = 6, 200
"""Places below which haze is not fitted; cells of a place from which on it counts."""
NEAR, TAIL = 0.2, 6.0
"""Inverse range from which on a cell counts fully, 1/m; degrees of freedom of the likelihood."""
FAR = 0.12
"""Inverse range below which a cell shows how hazy a place is, 1/m."""
BEST, WORST, SIGMA = 0.1, 0.9, 1.2816
"""Quantiles of the places, and where a normal's 0.9 lies, in standard deviations."""
LEAST_HAZE, LEAST_GROWTH = 0.003, 1.05
"""1/m; and from the median to the worst."""


def fit_range(every: list[Cells], pipes: list[Cells], dt: Tensor, before: RangeNoise) -> RangeNoise:
    """The most likely numbers of the maps' noise model, by gradients on its likelihood (Student's t: a few cells are
    wrong by far), after the haze of each place. Cells count by how near their things are: most of every picture is
    endless water. Where it fades is not fitted: nothing is there to be seen, and nothing is what is said."""
    hazes, before = fit_haze(every, before)
    clear = [
        cells._replace(said=(cells.said - haze[:, None, None]).clamp(min=0))
        for cells, haze in zip(every, hazes, strict=True)
    ]
    cells = Cells(*(torch.cat([each.flatten() for each in some])[::7] for some in zip(*clear, strict=True)))
    keep = cells.plain
    cells = Cells(*(each[keep] for each in cells))
    weight = (cells.inverse / NEAR).clamp(0.3, 3.0)
    names = ("share", "half", "floor", "unseen_error")
    logs = torch.tensor([math.log(getattr(before, name)) for name in names], requires_grad=True)
    fixed: dict[str, Any] = msgspec.structs.asdict(before)
    optimiser = torch.optim.Adam([logs], lr=0.03)
    for _ in range(500):
        mean, spread = expected(fixed | dict(zip(names, logs.exp().unbind(0), strict=True)), cells)
        off = (cells.said - mean).square() / spread
        value = (0.5 * spread.log() + 0.5 * (TAIL + 1) * torch.log1p(off / TAIL)) * weight
        optimiser.zero_grad()
        value.mean().backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    fitted = before
    for name, number in zip(names, logs.exp().tolist(), strict=True):
        fitted = msgspec.structs.replace(fitted, **{name: number})
    return said_of_it(persistence(fit_pipeline(fitted, pipes), clear, dt), every, hazes)


def fit_haze(every: list[Cells], before: RangeNoise) -> tuple[list[Tensor], RangeNoise]:
    """(N,) 1/m of each item: by how much a place's far things are said to be nearer than in a clear one; what is said
    of far things there, and the median and the spread of the haze: a lognormal above a least value has it by three of
    its quantiles, of which the worst counts most, for a policy has to bear a place that looks like a wall all over."""
    said, over = [], []
    for cells in every:
        far = (cells.inverse < FAR) & cells.running
        clear = torch.sigmoid((before.fade - cells.depth) / before.fade_width)
        rest = torch.where(far, cells.said - clear * cells.inverse, torch.nan)
        over.append(rest.nanmean((0, 2, 3)))
        said += [each for each, seen in zip(over[-1], far.sum((0, 2, 3)), strict=True) if seen > ENOUGH]
    if len(said) < FEW_PLACES:
        return [torch.zeros_like(each) for each in over], before
    low, median, worst = torch.stack(said).quantile(torch.tensor([BEST, 0.5, WORST])).tolist()
    up, down = (max(each, LEAST_HAZE) for each in (worst - median, median - low))
    growth = max(up / down, LEAST_GROWTH)  # e to the spread times SIGMA
    unseen = max(median - down / (1 - 1 / growth), LEAST_HAZE)
    haze = max(median - unseen, LEAST_HAZE)
    spread = math.log(max((haze + up) / haze, LEAST_GROWTH)) / SIGMA
    hazes = [(each - unseen).nan_to_num().clamp(min=0) for each in over]
    return hazes, msgspec.structs.replace(before, unseen=unseen, haze=haze, haze_place=spread)


def said_of_it(fitted: RangeNoise, every: list[Cells], hazes: list[Tensor]) -> RangeNoise:
    """How much the encoder says may be error of what is far, in clear places and per haze: from the clearer and the
    hazier third of the places. And what is left of the log variance."""

    def own(cells: Cells) -> Tensor:
        return (uncertainty(fitted, cells.said) * cells.said).square()

    points = []
    for cells, haze in zip(every, hazes, strict=True):
        rest = torch.where((cells.inverse < FAR) & cells.running, cells.log_variance.exp() - own(cells), torch.nan)
        enough = (~rest.isnan()).sum((0, 2, 3)) > ENOUGH
        medians = rest.transpose(0, 1).flatten(1).nanmedian(1).values
        points.append(torch.stack([haze.square(), medians], dim=1)[enough])
    places = torch.cat(points)
    third = len(places) // 3
    if third < 2:
        return fitted
    ordered = places[places[:, 0].argsort()]
    (clear, low), (hazy, high) = (some.median(0).values.tolist() for some in (ordered[:third], ordered[-third:]))
    share = max(high - low, 0.0) / max(hazy - clear, LEAST_HAZE**2)
    floor = max(low - share * clear, LEAST_HAZE**2)
    left = [
        (cells.log_variance - (own(cells) + floor + share * haze.square()[:, None, None]).log()).std()
        for cells, haze in zip(every, hazes, strict=True)
    ]
    return msgspec.structs.replace(
        fitted,
        said_floor=math.sqrt(floor),
        haze_said=math.sqrt(share),
        log_variance_error=torch.stack(left).mean().item(),
    )


def expected(numbers: Mapping[str, Tensor | float], cells: Cells) -> tuple[Tensor, Tensor]:
    """Mean and variance of what is said of the cells, by the model of `sim.tasks.picture_maps`: a factor whose
    logarithm is normal, and something small beside."""
    clear = torch.sigmoid((numbers["fade"] - cells.depth) / numbers["fade_width"])
    log_variance = (numbers["share"] * cells.inverse / (cells.inverse + numbers["half"])).square()
    factor = (log_variance / 2).exp()
    mean = clear * cells.inverse * factor + (1 - clear) * numbers["unseen"]
    spread = (clear * cells.inverse * factor).square() * (log_variance.exp() - 1)
    small = clear * numbers["floor"] + (1 - clear) * numbers["unseen_error"]
    return mean, (spread + small * small).clamp(min=1e-5)


def persistence(fitted: RangeNoise, every: list[Cells], dt: Tensor) -> RangeNoise:
    """How much of the error is alike over a patch, for how long it stays, and how far whole places differ."""
    kept, alike, places = [], [], []
    for cells in every:
        mean, spread = expected(msgspec.structs.asdict(fitted), cells)
        error = ((cells.said - mean) / spread.sqrt()).clamp(-4, 4)
        patch = error.reshape(*error.shape[:2], 3, 4, 4, 4).mean((3, 5))  # (F, N, 3, 4)
        alike.append(patch.var() / error.var().clamp(min=1e-6))
        kept.append((patch[1:] * patch[:-1]).mean() / patch.square().mean().clamp(min=1e-6))
        ratio = (cells.said.clamp(min=0.02) / cells.inverse).log()
        near = (cells.inverse > NEAR) & cells.plain
        places += [ratio[:, i][near[:, i]].mean() for i in range(ratio.shape[1]) if near[:, i].sum() > ENOUGH]
    share, keep = torch.stack(alike).mean().item(), torch.stack(kept).mean().clamp(0.05, 0.98).item()
    return msgspec.structs.replace(
        fitted,
        place=torch.stack(places).std().item() if len(places) > 2 else fitted.place,
        persistent=min(share, 0.95),
        persistent_s=-dt.mean().item() / math.log(keep),
    )


def fit_pipeline(fitted: RangeNoise, pipes: list[Cells]) -> RangeNoise:
    """The log odds that are said of cells without the pipeline, how much higher they are on it, how both differ from
    place to place, and what is left."""
    off, gaps, left = [], [], []
    for cells in pipes:
        odds = torch.logit(cells.probability.clamp(1e-4, 1 - 1e-4))
        for i in range(odds.shape[1]):
            pipe = cells.pipe[:, i] & (cells.depth[:, i] < SEEN_WELL) & cells.running[:, i]
            if pipe.sum() < FEW_CELLS:
                continue
            elsewhere, on = odds[:, i][~cells.pipe[:, i]], odds[:, i][pipe]
            off.append(elsewhere.mean())
            gaps.append((on.mean() - elsewhere.mean()) / seen(fitted, cells.depth[:, i][pipe]).mean())
            left.append((elsewhere.var() + on.var()) / 2)
    if len(off) < 3:
        return fitted
    return msgspec.structs.replace(
        fitted,
        pipeline_off=torch.stack(off).mean().item(),
        pipeline_gap=torch.stack(gaps).mean().item(),
        pipeline_gap_place=torch.stack(gaps).std().item(),
        pipeline_place=torch.stack(off).std().item(),
        pipeline_error=torch.stack(left).mean().sqrt().item(),
    )
