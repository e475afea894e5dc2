"""Vehicles in the sea that a student steers while the teacher looks on: the windows that it learns from."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from models.policy.recipe import DaggerRecipe
from models.policy.room import Episodes, Room, hide
from models.policy.windows import Windows
from rov.steering.policy_input import features
from rov.steering.policy_network import PolicyNetwork
from sim.tasks import noise as sea_noise
from sim.tasks.sea import Truth
from sim.tasks.solids import HULL_M, gaps

DRIVER_S = 3.0
"""Student and teacher take turns for about this long."""
NEAR_M = 0.6
"""A decision counts more, the nearer a thing is: by 1 / e at this distance."""
MEASURED = 4
"""Every fourth row is driven by the student alone."""


class Classroom(Room):
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
        super().__init__(task, n, seed, recipe, numbers, device, noise)
        self.recipe = recipe
        self.memory: Tensor | None = None
        self.measured = self.row % MEASURED == 0
        self.hidden = ~self.measured & (self.row % 2 == 1)
        """Rows that do not see their last setpoint: a student that does copies it."""
        self.teaching = ~self.measured

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
            done, *rest = self.end(outcome)
            finished.append((done & self.measured, *rest))
            self._take_turns(teaching, float(outcome.seconds[0]))
            self._forget()
        maps, known, labels, bearings, weights, begins = (torch.stack(each) for each in zip(*steps, strict=True))
        return Windows(maps, known, labels, bearings, weights, first, begins), self.by_level(finished)

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
