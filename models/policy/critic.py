"""Who says what the rest of an episode will cost: it knows the truth, for it sails in the simulator alone, and what the
student remembers. What a look aside is worth shows in the memory long before it shows in the cost (Baisero and Amato
2022)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rov.steering.policy_input import FEATURES
from rov.steering.policy_network import MEMORY
from sim.tasks.course import progress
from sim.tasks.judging import Tally
from sim.tasks.outcome import Truth
from sim.tasks.solids import HULL_M, gaps

THINGS = 4
"""Of the nearest things the critic knows gap and direction."""
NEAR_M, FAR_M = 0.6, 3.0
"""Gaps count by 1 / e at these."""
VIEW = 5 * THINGS + 34
"""Numbers of `view`."""
CRITIC_KNOWS = VIEW + FEATURES + MEMORY
SCALE = 5.0
"""What is learned is the cost in units of this many kJ."""


class Critic(nn.Module):
    """From `view`, the policy's features and its memory to what is still to come, kJ."""

    def __init__(self) -> None:
        super().__init__()
        self.guess = nn.Sequential(
            nn.Linear(CRITIC_KNOWS, 256), nn.SiLU(), nn.Linear(256, 256), nn.SiLU(), nn.Linear(256, 1)
        )

    def forward(self, known: Tensor) -> Tensor:
        """(…, CRITIC_KNOWS) -> (…,)."""
        worth: Tensor = self.guess(known)[..., 0] * SCALE
        return worth


def view(truth: Truth, tally: Tally) -> Tensor:
    """(N, VIEW): where the vehicle is among the things and on its course, how it moves, and how the episode stands."""
    course, now, turn = truth.course, truth.position, truth.turn
    current = torch.cat([truth.current, torch.zeros_like(truth.current[:, :1])], dim=1)
    heading = course.goal[:, 0].nan_to_num()
    along, across = progress(heading, now)
    height = course.solids.bottom - now[:, 2]
    key = _body(truth.key - now, turn)
    off = truth.heading - heading
    numbers = (
        along / 10, (course.length - along) / 10, across / 2, off.sin(), off.cos(), now[:, 2] - course.goal[:, 1],
        height - course.goal[:, 3], torch.exp(-height.clamp(min=0)), truth.elapsed / 60, tally.counted / 30,
        tally.good / 30, (tally.counted - tally.good) / 8, tally.lost / 4, 2 * truth.conditions.attenuation,
        truth.conditions.night, truth.conditions.late / 5, truth.our_loops,
    )  # fmt: skip
    whole = (
        _things(truth), 2 * _body(truth.velocity, turn), 4 * _body(current, turn)[:, :2], _target(truth),
        _gate(truth, along, across), key, key.norm(dim=1, keepdim=True), torch.stack([n.float() for n in numbers], 1),
    )  # fmt: skip
    return torch.cat(whole, dim=1).nan_to_num().clamp(-4, 4)


def _body(vector: Tensor, turn: Tensor) -> Tensor:
    """World axes (N, 3) -> body axes."""
    return (vector[:, None] @ turn)[:, 0]


def _things(truth: Truth) -> Tensor:
    """(N, 5 · THINGS) of the nearest balls and rods."""
    to_ball, to_rod, from_ball, from_rod = gaps(truth.course.solids, truth.position)
    gap, away = torch.cat([to_ball, to_rod], dim=1) - HULL_M, torch.cat([from_ball, from_rod], dim=1)
    near, which = gap.clamp(min=0).topk(min(THINGS, gap.shape[1]), dim=1, largest=False)
    towards = -away.gather(1, which[..., None].expand(-1, -1, 3)) @ truth.turn
    soon, later = torch.exp(-near / NEAR_M)[..., None], torch.exp(-near / FAR_M)[..., None]
    made = torch.cat([soon, later, towards * later], dim=-1).flatten(1)
    return nn.functional.pad(made, (0, 5 * THINGS - made.shape[1]))


def _target(truth: Truth) -> Tensor:
    """(N, 5) of the followed thing: where it is, how far from the distance asked for, and whether it is known."""
    course = truth.course
    if not course.target_ball:
        return truth.position.new_zeros(len(truth.position), 5)
    to = course.targets.position[:, 0] - truth.position
    far = (to.norm(dim=1, keepdim=True) / course.goal[:, 2:3]).clamp(min=0.1).log()
    return torch.cat([_body(to, truth.turn) / 4, far, truth.known_targets[:, :1].float()], dim=1)


def _gate(truth: Truth, along: Tensor, across: Tensor) -> Tensor:
    """(N, 3) of the next gate: how near it is, and how far beside its middle the vehicle is on its way to it."""
    gates = truth.course.gates
    if not gates.shape[1]:
        return along.new_zeros(len(along), 3)
    ahead = gates[..., 0] - along[:, None]
    far, which = torch.where(ahead > 0, ahead, torch.inf).min(1)
    near = torch.exp(-far / FAR_M)
    beside = (gates[..., 1].gather(1, which[:, None])[:, 0] - across) / 2
    return torch.stack([near, beside * near, beside.abs() * near], dim=1)
