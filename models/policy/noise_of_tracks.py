"""Fits the noise of the tracks: which targets detector and tracker find, how surely, and where they say they are."""

from __future__ import annotations

import math
import statistics

import msgspec
import torch
from torch import Tensor

from models.policy.sights import Sights, Watched
from sim.tasks.found import HIDDEN_S
from sim.tasks.noise import TrackNoise

FEW_SIGHTS, FEW_TARGETS = 10, 6
"""Sights of a target from which on its mean counts, and such targets below which sizes are not fitted."""
ENOUGH = 200
"""Sights of targets without which the tracks' noise is not fitted."""
ENOUGH_S = 20.0
"""Of watching, without which nothing is known of what is rare."""
LEAST = torch.tensor([-math.inf, 0.0, -math.inf, -math.inf, -math.inf])
MOST = torch.tensor([math.inf, math.inf, 0.0, math.inf, 0.0])
"""Of the numbers that a hit's probability is made of."""
MAD = 1.4826
"""Of a normal's median absolute deviation, its standard deviation."""


def fit_tracks(watched: list[Watched], before: TrackNoise) -> TrackNoise:
    """A logistic regression of hits, the mean length of misses, errors of the boxes, and tracks of nothing."""
    if not watched:
        return before
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
        with torch.no_grad():  # none is easier to see by being small, by more water before it or by turning to it
            weights.clamp_(LEAST, MOST)
    change = torch.cat([_changes(w.sights).flatten() for w in watched])
    good = change.isfinite()
    error, height = change[good].abs(), 0.75 * 0.1 * flat.log_size[good].exp()  # of the box, share of the width
    large = height > height.median()
    small_box, large_box = (MAD * error[rows].median().item() for rows in (~large, large))
    small_height, large_height = (height[rows].mean().item() for rows in (~large, large))
    slope = max(0.0, (large_box - small_box) / max(large_height - small_height, 1e-3))
    changed = dict(zip(names, weights.tolist(), strict=True))
    changed |= {"bearing_error": slope, "bearing_floor": max(small_box - slope * small_height, 5e-4)}
    changed |= fit_sizes(watched)
    changed["burst_s"] = bursts(watched)
    changed |= fit_sure(watched)
    changed |= fit_false(watched)
    return msgspec.structs.replace(before, **changed)


def _changes(sights: Sights) -> Tensor:
    """(F, N, K) errors of the bearing by what changes from one frame to the next, NaN where either says nothing: a
    diver that turns slowly is no noise of the frames."""
    seen = torch.where(sights.inside & sights.hit, sights.off[..., 0], torch.nan)
    return (seen - seen.roll(1, 0)).index_fill(0, torch.tensor([0]), torch.nan) / math.sqrt(2)


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


def fit_sure(watched: list[Watched]) -> dict[str, float]:
    """The log odds of boxes that would begin a track among all boxes on a target, and how they differ by target: of
    fish, and of all others. They are counted as a track begins, two in a row: a fish that turns is sure for a while and
    then is not, and the noise's dice are of each frame."""
    odds: dict[str, list[float]] = {"sure": [], "sure_fish": []}
    for sights in (each.sights for each in watched):
        good = sights.inside & sights.hit
        sure, fish = good & sights.sure, sights.fish.any(0)
        frames, pairs = (each[1:] & each[:-1] for each in (good, sure))
        frames, pairs = frames.sum(0), pairs.sum(0)
        for name, which in (("sure", ~fish), ("sure_fish", fish)):
            enough = which & (frames >= FEW_SIGHTS)
            odds[name] += torch.logit(((pairs[enough] + 0.5) / (frames[enough] + 1)).sqrt()).tolist()
    fitted: dict[str, float] = {}
    for name, some in odds.items():
        if len(some) >= FEW_TARGETS:
            fitted |= {name: statistics.mean(some), f"{name}_place": statistics.stdev(some)}
    return fitted


def fit_false(watched: list[Watched]) -> dict[str, float]:
    """How often tracks of nothing begin, per second without one, and how long their boxes stay, s: where no fish is
    followed. Watching ends while some are there: they last for all their seconds by how many ended. What looks like a
    fish lasts while it is in sight: those are the sea's stones, whose number is set by hand."""
    there, without, begun, ended = 0.0, 0.0, 0, 0
    for sights, dt in ((each.sights, each.dt.mean().item()) for each in watched):
        false = sights.ghosts[:, ~sights.fish[0, :, 0], 0] > 0
        there, without = there + false.sum().item() * dt, without + (~false).sum().item() * dt
        begun += int((false[1:] & ~false[:-1]).sum())
        ended += int((false[:-1] & ~false[1:]).sum())
    if without < ENOUGH_S:
        return {}
    return {
        "false_per_s": begun / without,
        "false_s": max(there / max(ended, 1) - HIDDEN_S, 0.1),  # the tracker keeps it for a while
    }


def bursts(watched: list[Watched]) -> float:
    """Mean length in s of misses in a row of a target that is there."""
    missed, ended = 0.0, 0.0
    for each in watched:
        gone = each.sights.inside & ~each.sights.hit
        missed += gone.sum().item() * each.dt.mean().item()
        ended += (gone[:-1] & each.sights.hit[1:]).sum().item()
    return missed / max(ended, 1.0)
