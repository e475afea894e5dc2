"""inspect: along a pipeline at a fixed height over the bottom, by day and, half of the time, at night with lamps.

The pipeline lies within ±15° of the optical axis at the start. Success: `length` m along it, nothing touched, and in
the band — at most ACROSS_M beside the pipe and HEIGHT_M off the goal's height — for SHARE of the time. Failure:
something touched (pipe, rock, bottom), farther than LOST_M beside it, or arrived without that share. Time-out: TIME_S.
"""

from __future__ import annotations

import math

import torch

from sim.tasks.course import Course, Targets, laid, open_water, progress, sign, uniform
from sim.tasks.judging import Situation, Verdict, scaled
from sim.tasks.levels import Level
from sim.tasks.solids import NOWHERE_M, Solids

TIME_S = 90.0
ACROSS_M, HEIGHT_M, SHARE, LOST_M = 0.6, 0.4, 0.75, 2.5
AXIS_RAD = math.radians(15.0)
PIPE_M, PIPE_HALF_M = 0.2, 15.0
"""As the renderer's pipeline: 30 m of 0.2 m, its middle 0.55 radii over the bottom."""
BURIED = 0.55
ROCKS = 4
SCALES = {
    "progress": 1.0,
    "energy": -0.01,
    "time": -0.5,
    "across": -1.0,
    "height": -1.0,
    "collision": -20.0,
    "success": 10.0,
}
"""across and height: m s off the pipe and off the goal's height."""


def course(level: Level, split: str, n: int, random: torch.Generator) -> Course:
    device = random.device
    heading = uniform(random, -math.pi, math.pi, n)
    start = heading + uniform(random, -AXIS_RAD, AXIS_RAD, n)
    height = uniform(random, 0.8, 1.4, n)
    depth = uniform(random, 2.0, 8.0, n)
    bottom = depth + height + uniform(random, -0.25, 0.25, n)
    across = uniform(random, -0.5, 0.5, n)
    middle = laid(heading, torch.full((n, 1), PIPE_HALF_M - 3.0, device=device), across[:, None])
    axis = torch.stack([heading.cos(), heading.sin(), torch.zeros_like(heading)], dim=1)
    size = torch.tensor([PIPE_HALF_M, PIPE_M], device=device).expand(n, 2)
    rods = torch.cat([middle[:, 0], (bottom - BURIED * PIPE_M)[:, None], axis, size], dim=1)[:, None]
    beside = across[:, None] + sign(random, n, ROCKS) * uniform(random, 0.9, 2.5, n, ROCKS)
    place = laid(heading, uniform(random, 2.0, 14.0, n, ROCKS), beside)
    wanted = uniform(random, 0.0, 1.0, n, ROCKS) < 0.6 * level.clutter
    place = torch.where(wanted[..., None], place, NOWHERE_M)
    radius = uniform(random, 0.2, 0.5, n, ROCKS)
    balls = torch.cat([place, bottom[:, None, None].expand(n, ROCKS, 1), radius[..., None]], dim=-1)
    still = torch.zeros(n, 0, 3, device=device)
    nothing = torch.full_like(heading, math.nan)
    # The line counts from the start: the pipe lies `across` beside it, as a gate of no width at the end says.
    gates = torch.stack(
        [torch.full((n, 1), NOWHERE_M, device=device), across[:, None], torch.zeros(n, 1, device=device)], dim=-1
    )
    return Course(
        goal=torch.stack([heading, nothing, nothing, height], dim=1),
        told_height=nothing,
        heading=start,
        depth=depth,
        length=uniform(random, 10.0, 12.0, n),
        gates=gates,
        solids=Solids(balls, torch.zeros(n, ROCKS, 3, device=device), rods, bottom, open_water(n, random)),
        targets=Targets(still, still, still[..., 0], still[..., 0]),
        target_ball=False,
    )


def judge(now: Situation) -> Verdict:
    tally, heading = now.tally, now.course.goal[:, 0]
    (was, _), (along, across) = progress(heading, now.before), progress(heading, now.position)
    across = (across - now.course.gates[:, 0, 1]).abs()
    height = now.course.solids.bottom - now.position[:, 2]
    off = (height - now.course.goal[:, 3]).abs()
    good = (across <= ACROSS_M) & (off <= HEIGHT_M)
    tally = tally._replace(
        counted=tally.counted + now.dt,
        good=tally.good + good * now.dt,
        along=torch.maximum(tally.along, along),
    )
    there = along >= now.course.length
    failed = now.touched | (across > LOST_M) | (there & (tally.good < SHARE * tally.counted))
    success = there & ~failed
    rewards = scaled(SCALES, {
        "progress": along - was,
        "energy": now.joules,
        "time": torch.full_like(along, now.dt),
        "across": across * now.dt,
        "height": off * now.dt,
        "collision": now.touched.float(),
        "success": success.float(),
    })  # fmt: skip
    return Verdict(rewards, success, failed, (now.elapsed >= TIME_S) & ~success & ~failed, tally)
