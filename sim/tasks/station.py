"""station: over a point in gusting current, by sight, without a DVL.

The vehicle may turn for KEY_S, then takes its key frame: the point is where it is then. Lasts TIME_S from there.
Success at the end: 95 % of the time within NEAR_M of the point, horizontally and in depth, and nothing touched.
Failure: something touched, or farther than LOST_M from the point. There is no time-out: the task lasts.
"""

from __future__ import annotations

import math

import torch

from rov.steering.policy_input import KEY_S
from sim.tasks.course import Course, Targets, laid, open_water, sign, uniform
from sim.tasks.judging import Situation, Verdict, scaled
from sim.tasks.levels import Level
from sim.tasks.solids import NOWHERE_M, Solids

TIME_S = 120.0
NEAR_M, SHARE, LOST_M = 0.5, 0.95, 3.0
ROCKS = 4
SCALES = {"off": -1.0, "energy": -0.01, "collision": -20.0, "success": 10.0}
"""off: m s from the point, energy in J."""


def course(level: Level, split: str, n: int, random: torch.Generator) -> Course:
    device = random.device
    heading = uniform(random, -math.pi, math.pi, n)
    depth = uniform(random, 1.5, 6.0, n)
    bottom = depth + uniform(random, 1.0, 2.0, n)
    place = laid(
        heading, uniform(random, 1.5, 5.0, n, ROCKS), sign(random, n, ROCKS) * uniform(random, 0.5, 3.0, n, ROCKS)
    )
    wanted = uniform(random, 0.0, 1.0, n, ROCKS) < 0.6 * level.clutter
    place = torch.where(wanted[..., None], place, NOWHERE_M)
    radius = uniform(random, 0.2, 0.5, n, ROCKS)
    balls = torch.cat([place, bottom[:, None, None].expand(n, ROCKS, 1), radius[..., None]], dim=-1)
    still = torch.zeros(n, 0, 3, device=device)
    return Course(
        goal=torch.full((n, 4), math.nan, device=device),
        told_height=torch.full_like(depth, math.nan),
        heading=heading,
        depth=depth,
        length=torch.full_like(depth, TIME_S),
        gates=still,
        solids=Solids(
            balls,
            torch.zeros(n, ROCKS, 3, device=device),
            torch.zeros(n, 0, 8, device=device),
            bottom,
            open_water(n, random),
        ),
        targets=Targets(still, still, still[..., 0], still[..., 0]),
        target_ball=False,
    )


def judge(now: Situation) -> Verdict:
    tally, holding = now.tally, now.elapsed > KEY_S
    off = torch.where(holding, (now.position - now.key).norm(dim=1), 0.0).nan_to_num()
    tally = tally._replace(
        counted=tally.counted + holding * now.dt,
        good=tally.good + (holding & (off <= NEAR_M)) * now.dt,
    )
    over = now.elapsed >= KEY_S + TIME_S
    failed = now.touched | (off > LOST_M) | (over & (tally.good < SHARE * tally.counted))
    success = over & ~failed
    rewards = scaled(SCALES, {
        "off": off * now.dt,
        "energy": now.joules,
        "collision": now.touched.float(),
        "success": success.float(),
    })  # fmt: skip
    return Verdict(rewards, success, failed, torch.zeros_like(success), tally)
