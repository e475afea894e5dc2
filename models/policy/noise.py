"""The stage that fits the sea's noise to what encoder, detector and tracker say of rendered pictures: sights.py."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor

from models.policy.recipe import NoiseRecipe, claim
from models.policy.sights import Cells, Sights, Watched, watch
from models.policy.workers import quiet
from sim.tasks.found import HIDDEN_S, hit_chance
from sim.tasks.noise import FILE, Noise, RangeNoise, TrackNoise, load
from sim.tasks.picture_maps import uncertainty

Progress = Callable[[str, int, int], None]
SEEN_WELL, FEW_CELLS = 2.0, 30
"""Optical depth up to which a pipeline is seen well, and cells of it that are too few."""
FEW_SIGHTS, FEW_TARGETS = 10, 6
"""Sights of a target from which on its mean counts, and such targets below which sizes are not fitted."""
ENOUGH = 200
"""Sights of targets without which the tracks' noise is not fitted."""
NEAR, TAIL = 0.2, 6.0
"""Inverse range from which on a cell counts fully, 1/m; degrees of freedom of the likelihood."""
FAR = 0.12
"""Inverse range below which a cell shows how hazy a place is, 1/m."""
CLEAREST, WORST, WORST_SIGMA = 0.1, 0.9, 1.2816
"""Quantiles of the places, the first without haze; and where a normal's 0.9 lies, in standard deviations."""
LEAST_HAZE = 0.003
"""1/m."""
MAD = 1.4826
"""Of a normal's median absolute deviation, its standard deviation."""


def run(recipe: NoiseRecipe, folder: Path, encoder: Path, workers: int, progress: Progress) -> Path:
    """Watch and fit; returns the noise file."""
    claim(folder, recipe)
    jobs = [(task, world, seed) for seed in range(recipe.seeds) for world in recipe.worlds for task in recipe.tasks]
    seen_by: dict[str, list[Watched]] = {}
    with ProcessPoolExecutor(max(1, workers), mp_context=get_context("spawn"), initializer=quiet) as pool:
        futures = [pool.submit(watch, recipe, encoder, *job) for job in jobs]
        for number, (job, future) in enumerate(zip(jobs, futures, strict=True)):
            seen_by.setdefault(job[0], []).append(future.result())
            progress("watching", number + 1, len(jobs))
    every = [each for some in seen_by.values() for each in some]
    pipes = [each.cells for task, some in seen_by.items() if task == "inspect" for each in some]
    before = load()
    made = Noise(
        f"fitted to {sum(each.dt.numel() * recipe.vehicles for each in every)} rendered pictures",
        fit_range([each.cells for each in every], pipes, torch.cat([each.dt for each in every]), before.range),
        fit_tracks(
            [each for task, some in seen_by.items() if task != "inspect" for each in some],
            seen_by.get("follow", []),
            before.tracks,
        ),
        before.displacement,
    )
    path = folder / "noise.toml"
    path.write_text(written(made))
    return path


def written(noise: Noise) -> str:
    """The numbers in the words of the shipped file, which says what they mean."""
    lines, table = [], {"source": json.dumps(noise.source)}
    for line in FILE.read_text().splitlines():
        if line.startswith("["):
            numbers = msgspec.to_builtins(getattr(noise, line[1:].partition("]")[0]))
            table = {name: f"{value:.3g}" for name, value in numbers.items()}
        name, is_number, rest = line.partition(" = ")
        _, is_remark, remark = rest.partition("#")
        if is_number:
            line = f"{name} = {table.pop(name)}" + (f"  # {remark.strip()}" if is_remark and name != "source" else "")
        lines.append(line)
    return "\n".join(lines) + "\n"


def fit_range(every: list[Cells], pipes: list[Cells], dt: Tensor, before: RangeNoise) -> RangeNoise:
    """The most likely numbers of the maps' noise model, by gradients on its likelihood (Student's t: a few cells are
    wrong by far), after the haze of each place. Cells count by how near their things are: most of every picture is
    endless water. Where it fades is not fitted: nothing is there to be seen, and nothing is what is said."""
    hazes, before = fit_haze(every, before)
    hazy, every = (
        every,
        [
            cells._replace(said=(cells.said - haze[:, None, None]).clamp(min=0))
            for cells, haze in zip(every, hazes, strict=True)
        ],
    )
    cells = Cells(*(torch.cat([each.flatten() for each in some])[::7] for some in zip(*every, strict=True)))
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
    fitted = msgspec.structs.replace(fitted, target_shown=fit_target(every, before.target_shown))
    return said_of_it(persistence(fit_pipeline(fitted, pipes), every, dt), hazy, hazes)


def fit_haze(every: list[Cells], before: RangeNoise) -> tuple[list[Tensor], RangeNoise]:
    """(N,) 1/m of each item: by how much a place's far things are said to be nearer than those of the clearest tenth of
    the places; and what is said of far things there, with the median and the spread of the rest. The spread is that of
    the worst tenth: a place that looks like a wall all over is what a policy has to bear."""
    said, over = [], []
    for cells in every:
        far = (cells.inverse < FAR) & cells.running
        clear = torch.sigmoid((before.fade - cells.depth) / before.fade_width)
        rest = torch.where(far, cells.said - clear * cells.inverse, torch.nan)
        over.append(rest.nanmean((0, 2, 3)))
        said += [each for each, seen in zip(over[-1], far.sum((0, 2, 3)), strict=True) if seen > ENOUGH]
    if len(said) < FEW_TARGETS:
        return [torch.zeros_like(each) for each in over], before
    clearest, median, worst = torch.stack(said).quantile(torch.tensor([CLEAREST, 0.5, WORST])).tolist()
    hazes = [(each - clearest).nan_to_num().clamp(min=0) for each in over]
    median, worst = (max(each - clearest, LEAST_HAZE) for each in (median, worst))
    spread = math.log(worst / median) / WORST_SIGMA
    changed = {"unseen": max(clearest, LEAST_HAZE), "haze": median, "haze_place": spread}
    return hazes, msgspec.structs.replace(before, **changed)


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


def fit_target(every: list[Cells], before: float) -> float:
    """The largest share of a followed thing's nearness that its cells show: twice the mean, for it is drawn evenly."""
    shares = []
    for cells in every:
        more = cells.inverse - cells.behind
        on = (more > NEAR) & cells.running & (cells.depth < SEEN_WELL)
        share = (cells.said - cells.behind) / more.clamp(min=NEAR)
        shares += [share[:, i][on[:, i]].median() for i in range(share.shape[1]) if on[:, i].sum() > FEW_CELLS]
    return min(max(2 * torch.stack(shares).mean().item(), 0.0), 1.0) if len(shares) > 2 else before


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
    """The log odds that are said of cells without the pipeline, how they differ from place to place, how much higher
    they are on it, and what is left."""
    off, gaps, left = [], [], []
    for cells in pipes:
        odds = torch.logit(cells.probability.clamp(1e-4, 1 - 1e-4))
        for i in range(odds.shape[1]):
            pipe = cells.pipe[:, i] & (cells.depth[:, i] < SEEN_WELL) & cells.running[:, i]
            if pipe.sum() < FEW_CELLS:
                continue
            elsewhere, on = odds[:, i][~cells.pipe[:, i]], odds[:, i][pipe]
            off.append(elsewhere.mean())
            gaps.append(on.mean() - elsewhere.mean())
            left.append((elsewhere.var() + on.var()) / 2)
    if len(off) < 3:
        return fitted
    return msgspec.structs.replace(
        fitted,
        pipeline_off=torch.stack(off).mean().item(),
        pipeline_gap=torch.stack(gaps).mean().item(),
        pipeline_place=torch.stack(off).std().item(),
        pipeline_error=torch.stack(left).mean().sqrt().item(),
    )


def fit_tracks(watched: list[Watched], followed: list[Watched], before: TrackNoise) -> TrackNoise:
    """A logistic regression of hits, the mean length of misses, errors of the boxes, and tracks of nothing. Sizes are
    those of what is followed: there they say the distance."""
    parts = [Sights(*(each.flatten(0, 2) for each in w.sights)) for w in watched]
    flat = Sights(*(torch.cat(each) for each in zip(*parts, strict=True)))
    there = flat.inside
    if int((there & flat.hit).sum()) < ENOUGH:
        return before
    inputs = torch.stack(
        [torch.ones_like(flat.depth), flat.log_size.clamp(max=1.5), flat.depth, flat.edge.float(), flat.turning], dim=1
    )[there]
    hit = flat.hit[there].float()
    names = ("base", "per_log_size", "per_optical_depth", "at_edge", "per_turning")
    usual = torch.tensor([getattr(before, name) for name in names])
    weights = usual.clone().requires_grad_()
    optimiser = torch.optim.Adam([weights], lr=0.05)
    for _ in range(400):
        value = torch.nn.functional.binary_cross_entropy_with_logits(inputs @ weights, hit)
        value = value + 1e-3 * (weights - usual).square().mean()  # what was not seen stays as it was
        optimiser.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    good = there & flat.hit
    error = torch.cat([_beside_own_median(w.sights).flatten() for w in watched])[good].abs()
    height = 0.75 * 0.1 * flat.log_size[good].exp()  # of the box, share of the picture's width
    large = height > height.median()
    small_box, large_box = (MAD * error[rows].median().item() for rows in (~large, large))
    small_height, large_height = (height[rows].mean().item() for rows in (~large, large))
    slope = max(0.0, (large_box - small_box) / max(large_height - small_height, 1e-3))
    changed = dict(zip(names, weights.tolist(), strict=True))
    changed["per_turning"] = min(changed["per_turning"], 0.0)  # who turns to a target sees it well: not by turning
    changed |= {"bearing_error": slope, "bearing_floor": max(small_box - slope * small_height, 5e-4)}
    changed |= fit_sizes(followed)
    changed["burst_s"] = bursts(watched)
    changed |= fit_sure(watched, msgspec.structs.replace(before, **changed))
    begins = sum(((w.sights.ghosts[1:, :, 0] > 0) & (w.sights.ghosts[:-1, :, 0] == 0)).sum().item() for w in watched)
    frames = sum((w.sights.ghosts[..., 0] > 0).sum().item() for w in watched)
    dt = torch.cat([w.dt for w in watched]).mean().item()
    total = sum(w.sights.ghosts[..., 0].numel() for w in watched) * dt
    changed["false_per_s"] = begins / total
    changed["false_s"] = max(frames * dt / max(begins, 1) - HIDDEN_S, 0.1)  # the tracker keeps it for a while
    return msgspec.structs.replace(before, **changed)


def _beside_own_median(sights: Sights) -> Tensor:
    """(F, N, K) errors of the bearing around the median of each target's: what stays is no noise of the frames."""
    seen = torch.where(sights.inside & sights.hit, sights.off[..., 0], torch.nan)
    return seen - seen.nanmedian(0, keepdim=True).values


def fit_sizes(watched: list[Watched]) -> dict[str, float]:
    """How wrong the boxes' log sizes are: on average and by size, by a straight line through the targets' medians; from
    target to target, by what the line leaves; and from frame to frame, of those without fins: what these do is in
    `sim.tasks.found` as geometry, and `sights` has only left out its mean. And how much too wide they are for that."""
    points, still = [], []
    for sights in (each.sights for each in watched):
        good = sights.inside & sights.hit
        for vehicle, target in good.any(0).nonzero().tolist():
            rows = good[:, vehicle, target]
            if rows.sum() >= FEW_SIGHTS:
                size, (_, off, wide) = sights.log_size[rows, vehicle, target], sights.off[rows, vehicle, target].T
                points.append(torch.stack([size.clamp(-1.5, 1.5).mean(), off.median(), wide.median()]))
                still += [] if sights.kicks[:, vehicle, target].any() else [off - off.median()]
    if len(points) < FEW_TARGETS:
        return {}
    size, off, wide = torch.stack(points).unbind(1)
    slope = ((size - size.mean()) * (off - off.mean())).mean() / size.var(correction=0).clamp(min=0.05)
    rest = off - off.mean() - slope * (size - size.mean())
    return {
        "size_mean": (off.mean() - slope * size.mean()).item(),
        "size_slope": slope.item(),
        "size_place": rest.std().item(),
        "aspect_mean": (wide - off).mean().item(),
        "aspect_place": (wide - off).std().item(),
        **({"size_error": MAD * torch.cat(still).abs().median().item()} if still else {}),
    }


def fit_sure(watched: list[Watched], tracks: TrackNoise) -> dict[str, float]:
    """The log odds of boxes that would begin a track among those that were found, and how they differ by target: of
    fish, and of all others. A target that ought to be found, by `tracks`, and never was tracked was never sure: what
    is counted among tracks alone knows nothing of it."""
    odds: dict[str, list[float]] = {"sure": [], "sure_fish": []}
    for sights in (each.sights for each in watched):
        good = sights.inside & sights.hit
        hits, sure = good.sum(0), (good & sights.sure).sum(0)
        likely = hit_chance(tracks, sights.log_size, sights.depth, sights.edge, sights.turning) > 0.5
        frames = torch.where(hits > 0, hits, (sights.inside & likely).sum(0))
        fish = sights.fish.any(0)
        for name, which in (("sure", ~fish), ("sure_fish", fish)):
            enough = which & (frames >= FEW_SIGHTS)
            odds[name] += torch.logit((sure[enough] + 0.5) / (frames[enough] + 1)).tolist()
    fitted: dict[str, float] = {}
    for name, some in odds.items():
        if len(some) >= FEW_TARGETS:
            fitted |= {name: statistics.mean(some), f"{name}_place": statistics.stdev(some)}
    return fitted


def bursts(watched: list[Watched]) -> float:
    """Mean length in s of misses in a row of a target that is there."""
    missed, ended = 0.0, 0.0
    for each in watched:
        gone = each.sights.inside & ~each.sights.hit
        missed += gone.sum().item() * each.dt.mean().item()
        ended += (gone[:-1] & each.sights.hit[1:]).sum().item()
    return missed / max(ended, 1.0)
