"""What detector and tracker would make of the targets, with misses in bursts, wrong boxes and a tracker's memory."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from rov.steering.policy_input import TRACK, TRACKS
from rov.vision.tracker import MEMORY_S
from sim.tasks.course import Conditions, Targets, divers
from sim.tasks.noise import TrackNoise
from sim.tasks.picture_maps import optical_depth
from sim.tasks.solids import NOWHERE_M, Solids

CONFIRM_HITS, HIDDEN_S = 2, 1.0
"""The tracker's defaults in rover.toml."""
NEAREST_M = 0.3
KICK_HZ = (0.3, 0.9)
"""Of a diver's legs; the box around both fins gets higher and lower twice as often."""
BODY, FINS, SPREAD = 0.78, 0.21, 1.10
"""Of a diver's mean height, seen from beside: the body and arms, the fins when they pass each other, and by how much
the beat takes these apart. The higher of both is the box."""
ARMS_AHEAD, FINS_BEHIND = 1.03, 1.32
"""Of its mean height, from a diver's middle: from behind, the fins are far nearer than the diver, and look it. These
five were fitted to the boxes around the renderer's diver from 35 places; what they leave is 0.08 of the logarithm."""
LONG, WIDE, WIDE_ENDS, THIN = (0.8, 1.43), (0.19, 0.4), (0.05, 0.27), 0.04
"""Of a fish and of a diver half the length and half the width, in the middle and at the ends, and half the width of a
post: shares of the height, from the same renderer."""
EDGE = 0.8
"""Of the half picture: beyond it a target is at the edge."""


class TrackerMemory(NamedTuple):
    """(N, K + 1): the targets, and one false box."""

    missed: Tensor
    """bool: in a burst of misses; of the false box: it is not there."""
    hits: Tensor
    hidden: Tensor
    """s."""
    place: Tensor
    """(N, K + 1, 4) bearing, elevation, log size, log width as tracked."""
    speed: Tensor
    """(N, K + 1, 4) per s."""
    score: Tensor
    ghost: Tensor
    """(N, 4) heading, elevation, log size and log width of the false box."""
    drawn: Tensor
    """(N, K, 3) standard normal: how large the detector draws a target, how wide, and how sure it is of it, for the
    whole episode."""
    kick: Tensor
    """(N, K, 3) whether it has fins, 1 or 0, at how many Hz they beat, and the phase, rad."""
    fish: Tensor
    """(N, K) bool."""
    followed: Tensor
    """(N,) which one, −1: none."""


class Seen(NamedTuple):
    """The truth of targets in the picture, (N, K)."""

    place: Tensor
    """(N, K, 4) bearing, elevation, log size, log width (both as shares of the picture's height): of the part that is
    in the picture, which is all that a box can be drawn around. Near targets are cut off below and look farther away
    than they are. The bearing is the middle's, whatever is cut off."""
    range: Tensor
    """m."""
    inside: Tensor
    """bool: its centre lies in the picture, and nothing is in front of it."""
    edge: Tensor
    """bool."""
    ends: Tensor
    """(N, K, 2) how much larger than at its middle a diver's arms and fins look: they are nearer or farther."""


def start_tracker(kicks: Tensor, fish: Tensor, random: torch.Generator) -> TrackerMemory:
    """Before the first picture. `kicks` and `fish` (N, K): which targets are divers, whose fins make them higher and
    lower, and which are fish, of which the detector is less sure."""
    n, targets = kicks.shape
    none = torch.zeros(n, targets + 1, device=random.device)
    place = torch.zeros(n, targets + 1, 4, device=random.device)
    missed = torch.arange(targets + 1, device=random.device).expand(n, -1) == targets  # no false box yet
    drawn = torch.randn(n, targets, 3, generator=random, device=random.device)
    pace, phase = torch.rand(2, n, targets, generator=random, device=random.device)
    low, high = KICK_HZ
    kick = torch.stack([kicks.float(), low + (high - low) * pace, 2 * math.pi * phase], dim=-1)
    nobody = torch.full((n,), -1, device=random.device)
    return TrackerMemory(missed, none, none, place, place, none, place[:, 0], drawn, kick, fish, nobody)


def project(
    targets: Targets, solids: Solids, own: bool, conditions: Conditions, position: Tensor, turn: Tensor
) -> Seen:
    """Where targets appear from `position` (N, 3) with `turn` (N, 3, 3) body to world. `own`: ball 0 is target 0."""
    to = targets.position - position[:, None]  # (N, K, 3)
    x, y, z = torch.bmm(to, turn).unbind(-1)
    ahead = x.clamp(min=NEAREST_M)
    wide, high = conditions.view[:, :1], conditions.view[:, 1:]
    u, v = y / ahead / wide, z / ahead / high
    size = targets.height / ahead / (2 * high)
    top, bottom = (v - size).clamp(-1, 1), (v + size).clamp(-1, 1)  # a box ends where the picture ends
    there = targets.position[..., 0] < NOWHERE_M
    inside = there & (x > NEAREST_M) & (u.abs() < 1) & (v.abs() < 1)
    inside &= ~hidden_behind(to, solids.balls[:, int(own) :], position)
    bearing = torch.atan2(y, ahead)
    elevation = torch.atan2((top + bottom) / 2 * ahead * high, torch.hypot(ahead, y))
    pointing = torch.nn.functional.normalize(targets.velocity[..., :2], dim=-1)
    facing, aside = torch.bmm(pointing, turn[:, :2, :2]).unbind(-1)  # of its heading, ahead and to starboard
    arms, fins = (ahead / _ahead(x, facing, part * targets.height) for part in (ARMS_AHEAD, -FINS_BEHIND))
    left, right = (each.clamp(-wide, wide) for each in _sides(targets, divers(targets) & own, x, y, facing, aside))
    sizes = ((bottom - top) / 2, (right - left) / (2 * high))
    place = torch.stack([bearing, elevation, *(each.clamp(min=1e-4).log() for each in sizes)], dim=-1)
    edge = (u.abs() > EDGE) | (v.abs() > EDGE)
    return Seen(place, to.norm(dim=-1), inside, edge, torch.stack([arms, fins], dim=-1))


def _ahead(x: Tensor, facing: Tensor, part: Tensor) -> Tensor:
    """(N, K) m ahead of the vehicle, of what is `part` m ahead of the middle of a target at `x`."""
    return (x + part * facing).clamp(min=NEAREST_M)


def _sides(
    targets: Targets, fins: Tensor, x: Tensor, y: Tensor, facing: Tensor, aside: Tensor
) -> tuple[Tensor, Tensor]:
    """Tangents (N, K) of the bearings of a target's left and right side. `fins`: which are divers; `x`, `y`: where it
    is, m ahead and to starboard; `facing`, `aside`: where it points to, in the same frame."""
    long, middle, ends = (torch.where(fins, sizes[1], sizes[0]) * targets.height for sizes in (LONG, WIDE, WIDE_ENDS))
    left, right = [], []
    for part, half in ((-long, ends), (0 * long, middle), (long, ends)):
        across = torch.maximum(half * facing.abs(), THIN * targets.height)
        far = _ahead(x, facing, part)
        left.append((y + part * aside - across) / far)
        right.append((y + part * aside + across) / far)
    return torch.stack(left).amin(0), torch.stack(right).amax(0)


def swing(ends: Tensor, phase: Tensor) -> Tensor:
    """(N, K) the logarithm of a diver's height in the picture against its mean height at its middle; `ends` as in
    `Seen`, `phase` (N, K) of the legs, rad."""
    body, fins = BODY * ends[..., 0], (FINS + SPREAD * phase.sin().abs()) * ends[..., 1]
    return torch.maximum(body, fins).log()


def hidden_behind(to: Tensor, balls: Tensor, position: Tensor) -> Tensor:
    """(N, K) whether a ball (N, B, 4) lies across the way `to` (N, K, 3) from `position`."""
    if not balls.shape[1]:
        return torch.zeros(to.shape[:2], dtype=torch.bool, device=to.device)
    centre = balls[..., :3] - position[:, None]  # (N, B, 3)
    share = torch.bmm(to, centre.transpose(1, 2)) / to.square().sum(-1, keepdim=True).clamp(min=1e-6)  # (N, K, B)
    nearest = share.clamp(0, 1)[..., None] * to[:, :, None] - centre[:, None]
    return (nearest.square().sum(-1) < balls[:, None, :, 3].square()).any(-1)


def find(
    noise: TrackNoise,
    conditions: Conditions,
    truth: Seen,
    heading: Tensor,
    turning: Tensor,
    memory: TrackerMemory,
    dt: float,
    random: torch.Generator,
) -> tuple[Tensor, TrackerMemory]:
    """Tracks (N, TRACKS, TRACK), as in `Sources`, of a picture `dt` s after the last; heading and yaw rate (N,)."""
    n, k, _ = truth.place.shape
    if not k:
        return torch.zeros(n, TRACKS, TRACK, device=heading.device), memory
    size, depth = truth.place[..., 2] - math.log(0.1), optical_depth(conditions, truth.range)
    chance = hit_chance(noise, size, depth, truth.edge, turning.abs()[:, None])
    dice = torch.rand(n, k + 1, generator=random, device=heading.device)
    end = 1 - math.exp(-dt / noise.burst_s)
    begin = ((1 - chance) / chance.clamp(min=1e-3) * end).clamp(max=1.0)
    missed = torch.where(memory.missed[:, :k], dice[:, :k] > end * (chance > 0.02), dice[:, :k] < begin)
    false, ghost = _ghost(noise, conditions, heading, memory, dice[:, k], dt, random)

    drawn = truth.place + _box_error(noise, conditions, truth.place[..., 2], random)
    drawn[..., 2:] += _box_bias(noise, truth.place[..., 2], memory.drawn[..., 0])[..., None]
    drawn[..., 3] += noise.aspect_mean + noise.aspect_place * memory.drawn[..., 1]
    fins, hertz, phase = memory.kick.unbind(-1)
    phase = torch.remainder(phase + 2 * math.pi * hertz * dt, 2 * math.pi)
    drawn[..., 2] += noise.size_swing * fins * swing(truth.ends, phase)
    drawn[..., 2].clamp_(max=0.0)  # no box is higher than the picture
    place = torch.cat([drawn, _turned(ghost, heading)[:, None]], dim=1)
    here = torch.cat([truth.inside & ~missed, false[:, None]], dim=1)
    mean = torch.where(memory.fish, noise.sure_fish, noise.sure)
    deviation = torch.where(memory.fish, noise.sure_fish_place, noise.sure_place)
    sure = torch.sigmoid(mean + deviation * memory.drawn[..., 2])
    begins = torch.rand(n, k, generator=random, device=heading.device) < sure  # a weak box goes on with a track only
    here[:, :k] &= begins | (memory.hits[:, :k] >= CONFIRM_HITS)
    score = 0.5 + 0.45 * torch.cat([chance, torch.full_like(chance[:, :1], 0.3)], dim=1)
    score = score + noise.score_error * torch.randn(score.shape, generator=random, device=heading.device)
    memory = _tracked(memory, place, here, score.clamp(0.5, 0.99), dt)
    kick = torch.stack([fins, hertz, phase], dim=-1)
    memory = memory._replace(missed=torch.cat([missed, ~false[:, None]], dim=1), ghost=ghost, kick=kick)

    known = memory.hits >= CONFIRM_HITS
    bearing, elevation, log_size, log_width = memory.place.unbind(-1)
    size, aspect = log_size.exp().clamp(max=1.5), (log_width - log_size).exp()
    columns = (known.float(), bearing, elevation, size, memory.hidden, memory.score, aspect)
    rows = torch.stack(columns, dim=-1) * known[..., None]
    if k + 1 < TRACKS:
        rows = torch.cat([rows, rows.new_zeros(n, TRACKS - k - 1, TRACK)], dim=1)
    followed = choose(rows, memory.followed)
    order = _worth(rows, followed).topk(TRACKS, dim=1).indices
    return rows.gather(1, order[..., None].expand(-1, -1, TRACK)), memory._replace(followed=followed)


def _worth(rows: Tensor, followed: Tensor) -> Tensor:
    """(N, K) what comes first, as `rov.steering.policy.track_rows` has it: the followed track, those seen now, the
    largest and surest."""
    known, _, _, size, hidden, score, _ = rows.unbind(-1)
    mine = torch.arange(rows.shape[1], device=rows.device) == followed[:, None]
    return known * (100.0 * mine + 10.0 * (hidden == 0) + size * score)


def choose(rows: Tensor, followed: Tensor) -> Tensor:
    """(N,) which track is followed, −1 for none, as `rov.steering.observation.choose` does: the same as before while it
    exists, else the largest and surest of those seen now. `rows` (N, K, TRACK), `followed` (N,) before."""
    known = rows[..., 0].gather(1, followed.clamp(min=0)[:, None])[:, 0] * (followed >= 0) > 0
    seen = rows[..., 0] * (rows[..., 4] == 0) * rows[..., 3] * rows[..., 5]
    most, which = seen.max(1)
    return torch.where(known, followed, torch.where(most > 0, which, -1))


def hit_chance(noise: TrackNoise, size: Tensor, depth: Tensor, edge: Tensor, turning: Tensor) -> Tensor:
    """The probability that the detector finds a target in a frame: of the log of its size over a tenth of the picture's
    height, optical depth, whether it is at the edge, and the yaw rate, rad/s."""
    logit = noise.base + noise.per_log_size * size.clamp(max=1.5) + noise.per_optical_depth * depth
    return torch.sigmoid(logit + noise.at_edge * edge + noise.per_turning * turning)


def _box_error(noise: TrackNoise, conditions: Conditions, size: Tensor, random: torch.Generator) -> Tensor:
    """(N, K, 4) of boxes with log sizes (N, K). Heavy-tailed: Student's t, a normal over the root of a gamma's mean
    (Wilson and Hilferty's cube)."""
    normal = torch.randn(*size.shape, 4, generator=random, device=random.device)
    rough = 2 / (9 * noise.tail)
    cube = 1 - rough + math.sqrt(rough) * torch.randn(*size.shape, 1, generator=random, device=random.device)
    student = normal / cube.pow(3).clamp(min=0.05).sqrt()
    wide, high = conditions.view[:, :1], conditions.view[:, 1:]
    angle = 2 * wide * noise.bearing_floor + 2 * high * noise.bearing_error * size.exp().clamp(max=1.0)
    sizes = torch.full_like(angle, noise.size_error)
    return student * torch.stack([angle, angle, sizes, sizes], dim=-1)


def _box_bias(noise: TrackNoise, size: Tensor, drawn: Tensor) -> Tensor:
    """(N, K) by how much the log size of boxes with true log sizes (N, K) is wrong for a whole episode: detectors draw
    what is far too large and what is near too small, and some divers are longer than others."""
    of_size = (size - math.log(0.1)).clamp(-1.5, 1.5)
    return noise.size_mean + noise.size_slope * of_size + noise.size_place * drawn


def _ghost(
    noise: TrackNoise,
    conditions: Conditions,
    heading: Tensor,
    memory: TrackerMemory,
    dice: Tensor,
    dt: float,
    random: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Whether there is a false box now, and where (N, 4); it stays on something that stands still in the world."""
    half, there = conditions.view.atan(), ~memory.missed[:, -1]
    stays = there & (dice > dt / noise.false_s)
    begins = ~there & (dice < dt * noise.false_per_s)
    spot = torch.rand(len(heading), 4, generator=random, device=heading.device) * 2 - 1
    size = spot[:, 2] - 2.3
    fresh = torch.stack([heading + spot[:, 0] * half[:, 0], spot[:, 1] * half[:, 1], size, size + spot[:, 3]], dim=1)
    return stays | begins, torch.where(begins[:, None], fresh, memory.ghost)


def _turned(ghost: Tensor, heading: Tensor) -> Tensor:
    bearing = torch.remainder(ghost[:, 0] - heading + math.pi, 2 * math.pi) - math.pi
    return torch.cat([bearing[:, None], ghost[:, 1:]], dim=1)


def _tracked(memory: TrackerMemory, place: Tensor, here: Tensor, score: Tensor, dt: float) -> TrackerMemory:
    """The tracker's fading-memory filter, on angles instead of pixels; see rov.vision.tracker."""
    since = (memory.hidden + dt)[..., None]
    left = torch.exp(-since / MEMORY_S)
    old = memory.hits[..., None] > 0
    expected = memory.place + memory.speed * dt
    off = place - expected
    gain = 1 - left.square()
    gain_v = torch.where(memory.hits[..., None] > 1, (1 - left).square(), 1.0) / since
    level = torch.tensor([1.0, 1.0, 0.0, 0.0], device=place.device)  # sizes are not extrapolated
    seen = here[..., None]
    now = torch.where(seen, torch.where(old, expected + gain * off, place), expected)
    speed = torch.where(old, memory.speed + seen * gain_v * off * level, 0.0)
    hits = torch.where(here, memory.hits + 1, memory.hits * (memory.hits >= CONFIRM_HITS))
    hidden = torch.where(here, 0.0, memory.hidden + dt)
    hits = hits * (hidden <= HIDDEN_S)
    alive = hits > 0
    return memory._replace(
        hits=hits,
        hidden=hidden * alive,
        place=torch.where(alive[..., None], now, 0.0),
        speed=torch.where(alive[..., None], speed, 0.0),
        score=torch.where(here, score, memory.score),
    )
