"""What the noise is fitted to: the teacher steers on rendered pictures, and what encoder, detector and tracker say of
them is put beside what is there."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor

from models.policy.recipe import NoiseRecipe
from rov.resources import checkout
from rov.steering.encoder import Encoder
from rov.steering.observation import angles
from rov.steering.policy import aspect
from rov.steering.policy_input import INVERSE_RANGE_MAX, TRACK
from rov.vision.detector import Detector
from sim.tasks import delays
from sim.tasks.course import fish, kicks
from sim.tasks.expert import EXPERT, expert
from sim.tasks.found import Seen, project, swing
from sim.tasks.picture_maps import optical_depth
from sim.tasks.rendered import RenderedSea
from sim.tasks.scenes import look
from sim.tasks.sea import Truth
from sim.tasks.tuned import start

NEAR_RAD = 0.15
"""A box or track this near to a target is of the target."""
BOXES = 16
"""Most boxes of a picture that are compared."""
BEAT = torch.linspace(0, math.pi, 17)[:-1]
"""Phases of a diver's legs."""
SURE = delays.config().perception.score_min
"""Score from which on a box begins a track."""


class Cells(NamedTuple):
    """Cells of maps, (F, N, 12, 16): F frames one after another."""

    inverse: Tensor
    """True, 1/m."""
    depth: Tensor
    """Optical."""
    said: Tensor
    log_variance: Tensor
    pipe: Tensor
    """Whether it shows the pipeline."""
    probability: Tensor
    """Of a pipeline, as it is said."""
    running: Tensor
    """bool: the vehicle has not ended its episode; one that lies against a rock sees nothing else."""
    behind: Tensor
    """True inverse range without the followed thing."""

    @property
    def plain(self) -> Tensor:
        """bool: what such a cell shows fills it; the followed thing does not."""
        return self.running & (self.behind == self.inverse)


class Sights(NamedTuple):
    """Targets and what was said of them, (F, N, K)."""

    inside: Tensor
    """bool: in the picture, nothing in front."""
    hit: Tensor
    """bool: the detector found it, surely or not."""
    log_size: Tensor
    depth: Tensor
    edge: Tensor
    turning: Tensor
    off: Tensor
    """(F, N, K, 3) of the bearing as a share of the picture's width, of the size's logarithm, less what a diver's fins
    add on average at this distance and from this side, and of the width's."""
    sure: Tensor
    """bool: the box would have begun a track."""
    kicks: Tensor
    """bool: a diver, whose height swings with the fins."""
    fish: Tensor
    """bool."""
    ghosts: Tensor
    """(F, N, K) the number of tracks on no target, the same for every K."""


class Watched(NamedTuple):
    cells: Cells
    sights: Sights
    dt: Tensor
    """(F,) s."""
    night: bool


@torch.no_grad()
def watch(recipe: NoiseRecipe, weights: Path, task: str, world: str, seed: int, turbid: bool = False) -> Watched:
    """Let the teacher steer a few vehicles in one world, or in one with other water."""
    encoder = Encoder()
    encoder.load_state_dict(load_file(weights))
    detector = Detector(checkout() / "models" / "detector.safetensors")
    turbidity = recipe.turbidity if turbid else None
    looks = [look(world, 1000 * seed + i, turbidity) for i in range(recipe.vehicles)]
    sea = RenderedSea(task, encoder, detector, looks, level="nominal", seed=seed)
    teacher = expert(task, torch.tensor([start(EXPERT[task])]))
    sources, maps = sea.reset()
    memory, frames, times = None, [], []
    running = torch.ones(sea.n, dtype=torch.bool)
    for _ in range(recipe.decisions):
        truth = sea.truth()
        known = project(
            truth.course.targets, truth.course.solids, truth.course.target_ball, truth.conditions, truth.position,
            truth.turn,
        )  # fmt: skip
        far = truth.ranges
        cells = Cells(
            (1 / far.clamp(min=1 / INVERSE_RANGE_MAX)).clone(), optical_depth(truth.conditions, far), maps[:, 0],
            maps[:, 1], sea._pipe(sea.cast), sea.sight.pipeline, running[:, None, None].expand_as(far),
            1 / sea.behind.clamp(min=1 / INVERSE_RANGE_MAX),
        )  # fmt: skip
        frames.append((cells, compared(boxes(sea), sources.tracks, known, truth, sources.rates[:, 2].abs())))
        setpoint, memory = teacher(sources, maps, truth, memory)
        sources, maps, outcome = sea.step(setpoint)
        times.append(outcome.seconds[0])
        running = running & ~outcome.done
    return Watched(
        Cells(*(torch.stack(each) for each in zip(*(cells for cells, _ in frames), strict=True))),
        Sights(*(torch.stack(each) for each in zip(*(sights for _, sights in frames), strict=True))),
        torch.stack(times),
        looks[0].night,
    )


def boxes(sea: RenderedSea) -> Tensor:
    """(N, BOXES, TRACK) of what the detector found of the goal's class in the last pictures, as rows of tracks."""
    rows = torch.zeros(sea.n, BOXES, TRACK)
    height, width = sea.images.shape[1:3]
    for i, (items, witness) in enumerate(zip(sea.found, sea.witnesses, strict=True)):
        hfov = 2 * math.degrees(math.atan(float(sea.conditions.view[i, 0])))
        for row, item in zip(rows[i], [each for each in items if each.label == witness.goal], strict=False):
            place = angles(item.box, width, height, hfov, None)
            row[:] = torch.tensor([1.0, *place, 0.0, item.score, aspect(item.box)])
    return rows


def compared(boxes: Tensor, tracks: Tensor, known: Seen, truth: Truth, turning: Tensor) -> Sights:
    """Boxes (N, BOXES, TRACK) and tracks (N, TRACKS, TRACK) beside the targets that are there. What is found shows in
    the boxes: a thing that is seen in every frame, and never surely enough to begin a track, is not missed."""
    apart, _ = _apart(boxes, known)
    apart = torch.where(apart == _of_those_seen(apart, known.inside), apart, torch.inf)  # each box on one target
    nearest, which = apart.min(2)
    mine = (
        boxes[:, None]
        .expand(-1, apart.shape[1], -1, -1)
        .gather(2, which[..., None, None].expand(-1, -1, 1, TRACK))[:, :, 0]
    )
    hit = nearest < NEAR_RAD
    log_size = mine[..., 3].clamp(min=1e-3).log()
    width = 2 * truth.conditions.view[:, :1]
    fins = kicks(truth.course)
    size_off = log_size - known.place[..., 2] - fins * swing(known.ends[..., None, :], BEAT).mean(-1)
    wide = log_size + mine[..., 6].clamp(min=1e-3).log()
    off = torch.stack([(mine[..., 1] - known.place[..., 0]) / width, size_off, wide - known.place[..., 3]], dim=-1)
    apart, there = _apart(tracks, known)
    ghosts = ((apart > NEAR_RAD).all(1) & there).sum(1, keepdim=True).expand_as(nearest)
    depth = optical_depth(truth.conditions, known.range)
    size = known.place[..., 2] - math.log(0.1)
    return Sights(
        known.inside, hit, size, depth, known.edge, turning[:, None].expand_as(nearest), off,
        mine[..., 5] >= SURE, fins.expand_as(hit), fish(truth.course).expand_as(hit), ghosts,
    )  # fmt: skip


def _apart(rows: Tensor, known: Seen) -> tuple[Tensor, Tensor]:
    """(N, K, T) rad between targets and rows (N, T, TRACK), and (N, T) which of the rows there are."""
    there = rows[..., 0] > 0
    apart = torch.hypot(
        rows[:, None, :, 1] - known.place[..., None, 0], rows[:, None, :, 2] - known.place[..., None, 1]
    )
    return torch.where(there[:, None], apart, torch.inf), there


def _of_those_seen(apart: Tensor, inside: Tensor) -> Tensor:
    """(N, 1, T) from each box to the nearest target in the picture, to the nearest of all where there is none: behind
    a gate stands another, and a box around the one is no bad sight of the other."""
    nobody = apart.new_full((len(apart), 1, apart.shape[2]), torch.inf)  # inspect has no targets at all
    apart, seen = (
        torch.cat([some, nobody], dim=1).amin(1, keepdim=True)
        for some in (apart, apart.masked_fill(~inside[..., None], torch.inf))
    )
    return torch.where(seen < NEAR_RAD, seen, apart)
