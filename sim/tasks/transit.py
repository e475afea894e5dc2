"""transit: to a heading at a depth, through gates and around rocks.

The course lies within ±15° of the optical axis at the start. Success: `length` m along the goal's heading, at most
ACROSS_M off its line and DEPTH_M off the goal's depth there, every gate passed between its posts, and nothing touched.
Failure: something touched (rock, post, bottom, surface's walls), a gate missed, or farther than LOST_M off the line.
Time-out: TIME_S, neither of both.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sim.tasks.course import Course, Targets, laid, open_water, progress, sign, uniform
from sim.tasks.judging import Situation, Verdict, scaled
from sim.tasks.levels import Level
from sim.tasks.solids import NOWHERE_M, Solids

TIME_S = 90.0
ACROSS_M, DEPTH_M, LOST_M = 3.0, 0.5, 5.0
AXIS_RAD = math.radians(15.0)
GATES, ROCKS = 2, 10
GATE_HALF_M = 1.5
"""As the renderer's gates: posts 3 m apart, 1.2 m high."""
POST_M, POST_HALF_M = 0.05, 0.6
BLOCKERS = 6
"""Rocks near the straight line; the others lie beside it."""
SCALES = {
    "progress": 1.0,
    "energy": -0.01,
    "time": -0.5,
    "near": -1.0,
    "depth": -0.5,
    "collision": -20.0,
    "success": 10.0,
}
"""progress in m, energy in J, time in s, near: (1 − gap/0.5 m) s within 0.5 m of a thing, depth: m s off the goal."""


def course(level: Level, split: str, n: int, random: torch.Generator) -> Course:
    device = random.device
    heading = uniform(random, -math.pi, math.pi, n)
    start = heading + uniform(random, -AXIS_RAD, AXIS_RAD, n)
    depth = uniform(random, 1.5, 6.0, n)
    goal_depth = (depth + uniform(random, -0.8, 0.8, n)).clamp(min=1.2)
    high = uniform(random, 0.9, 1.4, n)
    """m from the goal's depth down to the bottom."""
    bottom = torch.maximum(goal_depth + high, depth + 0.6)
    length = uniform(random, 11.0, 15.0, n)

    # Gates stand in the second and last third; at most half a gate off the line, so that straight on often misses.
    count = 1 + (uniform(random, 0.0, 1.0, n) < level.clutter - 0.5).long()
    along = torch.stack([uniform(random, 0.38, 0.5, n), uniform(random, 0.75, 0.9, n)], dim=1) * length[:, None]
    across = sign(random, n, GATES) * uniform(random, 0.3, 1.5, n, GATES)
    there = torch.arange(GATES, device=device) < count[:, None]
    gates = torch.stack([torch.where(there, along, NOWHERE_M), across, torch.full_like(along, GATE_HALF_M)], dim=-1)
    posts = torch.cat([across - GATE_HALF_M, across + GATE_HALF_M], dim=1)
    place = laid(heading, torch.cat([along, along], dim=1), posts)
    place = torch.where(torch.cat([there, there], dim=1)[..., None], place, NOWHERE_M)
    deep = goal_depth[:, None, None].expand(n, 2 * GATES, 1)
    upright = torch.tensor([0.0, 0.0, 1.0, POST_HALF_M, POST_M], device=device).expand(n, 2 * GATES, 5)
    rods = torch.cat([place, deep, upright], dim=-1)

    balls = rocks(level, n, random, heading, length, bottom, gates)
    solids = Solids(balls, torch.zeros(n, ROCKS, 3, device=device), rods, bottom, open_water(n, random))
    still = torch.zeros(n, 2 * GATES, device=device)
    targets = Targets(rods[..., :3], torch.zeros(n, 2 * GATES, 3, device=device), still, still + 2 * POST_HALF_M)
    nothing = torch.full_like(heading, math.nan)
    goal = torch.stack([heading, goal_depth, nothing, nothing], dim=1)
    return Course(goal, nothing, start, depth, length, gates, solids, targets, False)


def rocks(
    level: Level, n: int, random: torch.Generator, heading: Tensor, length: Tensor, bottom: Tensor, gates: Tensor
) -> Tensor:
    """(n, ROCKS, 4): some on the line in even steps, some beside it; none within 1.6 m along of a gate, or near the
    start."""
    device = random.device
    step = torch.linspace(0.2, 0.95, BLOCKERS, device=device) * length[:, None]
    on = step + uniform(random, -0.6, 0.6, n, BLOCKERS)
    beside = uniform(random, 0.1, 1.0, n, ROCKS - BLOCKERS) * length[:, None]
    along = torch.cat([on, beside], dim=1)
    across = torch.cat(
        [
            sign(random, n, BLOCKERS) * uniform(random, 0.0, 0.9, n, BLOCKERS),
            sign(random, n, ROCKS - BLOCKERS) * uniform(random, 1.8, 3.5, n, ROCKS - BLOCKERS),
        ],
        dim=1,
    )
    radius = uniform(random, 0.6, 1.2, n, ROCKS)
    wanted = uniform(random, 0.0, 1.0, n, ROCKS) < 0.6 * level.clutter
    at_gate = ((along[..., None] - gates[:, None, :, 0]).abs() < 1.6 + radius[..., None]).any(-1)
    wanted = wanted & ~at_gate & (along > 2.2 + radius)
    place = torch.where(wanted[..., None], laid(heading, along, across), NOWHERE_M)
    # On the bottom, from a little sunk in to a stack that reaches up to the vehicle's depth.
    deep = bottom[:, None] - uniform(random, 0.0, 0.6, n, ROCKS)
    return torch.cat([place, deep[..., None], radius[..., None]], dim=-1)


def judge(now: Situation) -> Verdict:
    tally, gates = now.tally, now.course.gates
    heading = now.course.goal[:, 0]
    (was, _), (along, across) = progress(heading, now.before), progress(heading, now.position)
    crossed = (was[:, None] < gates[..., 0]) & (along[:, None] >= gates[..., 0])
    beside = (across[:, None] - gates[..., 1]).abs() > gates[..., 2]
    missed = tally.missed | (crossed & beside).any(1)
    off = (now.position[:, 2] - now.course.goal[:, 1]).abs()
    there = along >= now.course.length
    lost = across.abs() > LOST_M
    inside = (across.abs() <= ACROSS_M) & (off <= DEPTH_M)
    failed = now.touched | missed | lost | (there & ~inside)
    success = there & ~failed
    rewards = scaled(SCALES, {
        "progress": along - was,
        "energy": now.joules,
        "time": torch.full_like(along, now.dt),
        "near": (1 - now.gap / 0.5).clamp(0.0, 1.0) * now.dt,
        "depth": off * now.dt,
        "collision": now.touched.float(),
        "success": success.float(),
    })  # fmt: skip
    tally = tally._replace(along=torch.maximum(tally.along, along), missed=missed)
    return Verdict(rewards, success, failed, (now.elapsed >= TIME_S) & ~success & ~failed, tally)
