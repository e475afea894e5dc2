"""Vehicles in the sea that a student steers while the teacher looks on: the windows that it learns from."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from models.policy.recipe import DaggerRecipe
from models.policy.trial import FAILURE_J, PRICE_W
from models.policy.windows import Windows
from rov.steering.policy_input import Sources, features
from rov.steering.policy_network import PolicyNetwork
from sim.tasks import noise as sea_noise
from sim.tasks.expert import EXPERT, expert
from sim.tasks.sea import Sea, Truth
from sim.tasks.solids import HULL_M, gaps
from sim.tasks.tuned import Kept, kept

DRIVER_S = 3.0
"""Student and teacher take turns for about this long."""
NEAR_M = 0.6
"""A decision counts more, the nearer a thing is: by 1 / e at this distance."""
MEASURED = 4
"""Every fourth row is driven by the student alone."""


class Episodes(NamedTuple):
    """Finished episodes of the measured rows."""

    ended: int
    success: float
    touched: float
    charge: float
    """J, mean."""


class Classroom:
    """One task's vehicles of all levels, student and teacher between two rounds."""

    def __init__(
        self,
        task: str,
        n: int,
        seed: int,
        recipe: DaggerRecipe,
        numbers: dict[str, float],
        device: torch.device,
        noise: Path = sea_noise.FILE,
    ):
        self.task, self.recipe = task, recipe
        self.teacher = expert(task, torch.tensor([[numbers[name] for name in EXPERT[task]]]))
        self.sea = Sea(task, recipe.levels, n, seed, device, noise=sea_noise.load(noise))
        self.random = torch.Generator(device).manual_seed(seed)
        self.sources, self.maps = self.sea.reset()
        self.kept: Kept = kept(n, device)
        self.memory: Tensor | None = None
        rows = torch.arange(n, device=device)
        self.levels = rows % len(recipe.levels)
        rows = rows // len(recipe.levels)  # of its level
        self.measured = rows % MEASURED == 0
        self.hidden = ~self.measured & (rows % 2 == 1)
        """Rows that do not see their last setpoint: a student that does copies it."""
        self.teaching = ~self.measured
        self.begins = torch.ones(n, dtype=torch.bool, device=device)
        self.charge = torch.zeros(n, device=device)
        self.touched = torch.zeros(n, dtype=torch.bool, device=device)

    @torch.no_grad()
    def round(self, student: PolicyNetwork, teaching: float) -> tuple[Windows, list[Episodes]]:
        """Steer for a window of decisions; the teacher holds the sticks of about `teaching` of the rows that are not
        measured. What was seen, and what has ended of each level."""
        if self.memory is None:
            self.memory = student.initial_memory(self.sea.n)
        first = self.memory
        steps: list[tuple[Tensor, ...]] = []
        finished: list[tuple[Tensor, ...]] = []
        for _ in range(self.recipe.window):
            sources = hide(self.sources, self.hidden)
            known = features(sources)
            memory = self.memory * ~self.begins[:, None]
            answer, _, self.memory = student(self.maps, known, memory)
            truth = self.sea.truth()
            label, self.kept = self.teacher(self.sources, self.maps, truth, self.kept)
            setpoint = torch.where(self.teaching[:, None], label, self._shaken(answer))
            steps.append(
                (self.maps.half(), known.half(), label, self.kept.seen.clamp(-1, 1), self._weight(truth), self.begins)
            )
            self.sources, self.maps, outcome = self.sea.step(setpoint)
            self.charge = self.charge + outcome.joules + PRICE_W * outcome.seconds
            self.touched = self.touched | outcome.touched
            cost = self.charge + FAILURE_J * ~outcome.success
            finished.append((outcome.done & self.measured, outcome.success, self.touched, cost))
            self._restart(outcome.done)
            self._take_turns(teaching, float(outcome.seconds[0]))
            self._forget()
        maps, known, labels, bearings, weights, begins = (torch.stack(each) for each in zip(*steps, strict=True))
        ended = [told(finished, self.levels == number) for number in range(len(self.recipe.levels))]
        return Windows(maps, known, labels, bearings, weights, first, begins), ended

    def _weight(self, truth: Truth) -> Tensor:
        """(N,) how much the decisions count: open water is most of a course, and what hits a rock are the few beside
        it."""
        to_ball, to_rod, _, _ = gaps(truth.course.solids, truth.position)
        gap = torch.cat([to_ball, to_rod, torch.full_like(self.charge, math.inf)[:, None]], dim=1).amin(1) - HULL_M
        beside = 1 + self.recipe.near * torch.exp(-gap.clamp(min=0) / NEAR_M)
        return beside * self.recipe.weight.get(self.task, 1.0)

    def _shaken(self, answer: Tensor) -> Tensor:
        """The student's setpoints; those not measured with some noise, so that it learns to recover."""
        noise = torch.randn(answer.shape, generator=self.random, device=answer.device)
        return (answer + self.recipe.shake * noise * ~self.measured[:, None]).clamp(-1, 1)

    def _restart(self, done: Tensor) -> None:
        self.begins = done
        on = ~done
        self.charge, self.touched = self.charge * on, self.touched & on
        self.kept = Kept(*(each * on.reshape(-1, *[1] * (each.dim() - 1)) for each in self.kept))

    def _forget(self) -> None:
        """The teacher's integrals count only while it steers: beside a student they wind up, and what it then says
        depends on what nobody can see."""
        integral = self.kept.integral * self.teaching[:, None]
        self.kept = self.kept._replace(integral=integral)

    def _take_turns(self, teaching: float, dt: float) -> None:
        n, device = len(self.charge), self.charge.device
        change = torch.rand(n, generator=self.random, device=device) < dt / DRIVER_S
        new = torch.rand(n, generator=self.random, device=device) < teaching
        self.teaching = torch.where(change, new, self.teaching) & ~self.measured


def hide(sources: Sources, rows: Tensor) -> Sources:
    """Sources without the last setpoint where `rows` (N,) says so."""
    return sources._replace(previous=torch.where(rows[:, None], torch.nan, sources.previous))


def told(finished: list[tuple[Tensor, ...]], rows: Tensor) -> Episodes:
    """What has ended of the rows (N,)."""
    done, success, touched, cost = (torch.stack(each)[:, rows] for each in zip(*finished, strict=True))
    count = int(done.sum())
    if not count:
        return Episodes(0, 0.0, 0.0, 0.0)
    means = [each[done].float().mean().item() for each in (success, touched, cost)]
    return Episodes(count, *means)
