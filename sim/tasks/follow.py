"""follow: a moving diver or fish at a stand-off.

Lasts TIME_S. Success at the end: from SETTLE_S on, in the band for at least SHARE of the time — the distance within
BAND of the goal's, and the target in the picture — and nothing touched. Failure: something touched (the target, too),
or the target farther than LOST_M, or out of the picture for LOST_S in a row. There is no time-out: the task lasts.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rov.steering.policy import TYPICAL_HEIGHT_M
from sim.tasks.course import Course, Targets, laid, normal, open_water, sign, uniform, wrapped
from sim.tasks.judging import Situation, Verdict, scaled
from sim.tasks.levels import Level
from sim.tasks.solids import NOWHERE_M, Solids

TIME_S, SETTLE_S = 40.0, 10.0
BAND, SHARE = 0.35, 0.75
LOST_M, LOST_S = 9.0, 6.0
ROCKS = 4
TOLD, GUESS = 0.9, 0.1
"""Share of the operators who say how high the target is, and the deviation of the logarithm of what they say. Without
them the vehicle takes what is usual for the class."""
SPEED = (0.05, 0.28)
"""Of the target, m/s, at clutter 1; a diver swims at 0.2 to 0.5, but the vehicle in the current has 0.4."""
SCALES = {"band": -1.0, "facing": -0.3, "energy": -0.01, "collision": -20.0, "lost": -0.5, "success": 10.0}
"""band: log2(distance / goal)² s, facing: |bearing| s, lost: s out of the picture, energy in J."""


def course(level: Level, split: str, n: int, random: torch.Generator) -> Course:
    device = random.device
    heading = uniform(random, -math.pi, math.pi, n)
    depth = uniform(random, 2.0, 6.0, n)
    bottom = depth + uniform(random, 1.2, 3.0, n)
    stand_off = uniform(random, 1.5, 3.0, n)
    bearing = uniform(random, -0.35, 0.35, n)
    far = stand_off * uniform(random, 0.8, 1.7, n)
    place = laid(heading + bearing, far[:, None], torch.zeros(n, 1, device=device))
    deep = torch.minimum(depth + uniform(random, -0.4, 0.4, n), bottom - 0.5)
    diver = uniform(random, 0.0, 1.0, n) < 0.6
    height = torch.where(diver, uniform(random, 0.45, 0.8, n), uniform(random, 0.18, 0.4, n))
    speed = uniform(random, *SPEED, n) * min(level.clutter, 1.2)
    away = heading + uniform(random, -1.8, 1.8, n)
    rise = speed * uniform(random, -0.08, 0.08, n)
    velocity = torch.stack([speed * away.cos(), speed * away.sin(), rise], dim=1)
    turning = sign(random, n) * uniform(random, 0.0, 0.12, n)
    position = torch.cat([place[:, 0], deep[:, None]], dim=1)
    radius = torch.where(diver, 0.35, 0.5 * height)
    target = torch.cat([position, radius[:, None]], dim=1)[:, None]
    # Rocks beside the start: they lie, the target swims over them.
    around = laid(
        heading, uniform(random, -2.0, 6.0, n, ROCKS), sign(random, n, ROCKS) * uniform(random, 1.0, 4.0, n, ROCKS)
    )
    size = uniform(random, 0.25, 0.6, n, ROCKS)
    wanted = uniform(random, 0.0, 1.0, n, ROCKS) < 0.6 * level.clutter
    around = torch.where(wanted[..., None], around, NOWHERE_M)
    rocks = torch.cat([around, (bottom[:, None] - 0.1)[..., None].expand(n, ROCKS, 1), size[..., None]], dim=-1)
    balls = torch.cat([target, rocks], dim=1)
    moving = torch.cat([velocity[:, None], torch.zeros(n, ROCKS, 3, device=device)], dim=1)
    nothing = torch.full_like(heading, math.nan)
    return Course(
        goal=torch.stack([nothing, nothing, stand_off, nothing], dim=1),
        told_height=told(height, diver, random),
        heading=heading,
        depth=depth,
        length=torch.full_like(depth, TIME_S),
        gates=torch.zeros(n, 0, 3, device=device),
        solids=Solids(balls, moving, torch.zeros(n, 0, 8, device=device), bottom, open_water(n, random)),
        targets=Targets(position[:, None], velocity[:, None], turning[:, None], height[:, None]),
        target_ball=True,
    )


def told(height: Tensor, diver: Tensor, random: torch.Generator) -> Tensor:
    """How high targets of `height` (n,) m are believed to be."""
    usual = torch.where(diver, TYPICAL_HEIGHT_M["diver"], TYPICAL_HEIGHT_M["fish"])
    guess = height * torch.exp(GUESS * normal(random, len(height)).clamp(-2, 2))
    return torch.where(uniform(random, 0.0, 1.0, len(height)) < TOLD, guess, usual)


def judge(now: Situation) -> Verdict:
    tally, target = now.tally, now.course.targets.position[:, 0]
    to = target - now.position
    distance, stand_off = to.norm(dim=1), now.course.goal[:, 2]
    good = ((distance / stand_off - 1).abs() <= BAND) & now.in_picture
    counts = now.elapsed > SETTLE_S
    tally = tally._replace(
        counted=tally.counted + counts * now.dt,
        good=tally.good + (counts & good) * now.dt,
        lost=torch.where(now.in_picture, 0.0, tally.lost + now.dt),
    )
    over = now.elapsed >= TIME_S
    enough = tally.good >= SHARE * tally.counted
    failed = now.touched | (distance > LOST_M) | (tally.lost > LOST_S) | (over & ~enough)
    success = over & ~failed
    bearing = wrapped(torch.atan2(to[:, 1], to[:, 0]) - now.heading)
    rewards = scaled(SCALES, {
        "band": (distance / stand_off).clamp(min=0.1).log2().square() * now.dt,
        "facing": bearing.abs() * now.dt,
        "energy": now.joules,
        "collision": now.touched.float(),
        "lost": ~now.in_picture * now.dt,
        "success": success.float(),
    })  # fmt: skip
    return Verdict(rewards, success, failed, torch.zeros_like(success), tally)
