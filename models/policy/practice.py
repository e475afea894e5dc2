"""Vehicles in the sea that the student steers with some noise on its sticks: what it tried, and what came of it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from models.policy.critic import view
from models.policy.recipe import ReinforceRecipe
from models.policy.room import Episodes, Room, hide
from models.policy.trial import FAILURE_J, PRICE_W
from rov.steering.policy_input import features
from rov.steering.policy_network import MEMORY, PolicyNetwork
from sim.tasks import noise as sea_noise
from sim.tasks.judging import Tally
from sim.tasks.outcome import Outcome

HIDDEN = 4
"""Every fourth row of a level does not see its last setpoint."""


class Tries(NamedTuple):
    """B vehicles over T decisions."""

    maps: Tensor
    """(T, B, 4, 12, 16) float16."""
    features: Tensor
    """(T, B, FEATURES) float16."""
    labels: Tensor
    """(T, B, 4) the teacher's setpoints."""
    begins: Tensor
    """(T, B) true where an episode begins."""
    means: Tensor
    """(T, B, 4) the setpoints that the student would have given."""
    drawn: Tensor
    """(T, B, 4) the noise that is new in each decision."""
    known: Tensor
    """(T + 1, B, CRITIC_KNOWS) float16, what the critic knows."""
    rewards: Tensor
    """(T, B) kJ: what each decision saved; no more than 0."""
    done: Tensor
    """(T, B) the episode has ended with this decision."""
    memory: Tensor
    """(B, MEMORY) of the student before the first decision."""


class Practice(Room):
    """One task's vehicles of all levels between two rounds. The network is asked once, not of the mirrored sea, too:
    what it tried is then what it is asked about when it learns."""

    def __init__(
        self,
        task: str,
        n: int,
        seed: int,
        recipe: ReinforceRecipe,
        numbers: dict[str, float],
        device: torch.device,
        noise: Path = sea_noise.FILE,
    ):
        super().__init__(task, n, seed, recipe, numbers, device, noise)
        self.recipe = recipe
        self.memory = torch.zeros(n, MEMORY, device=device)
        self.hidden = self.row % HIDDEN == 1
        self.noise = torch.zeros(n, 4, device=device)

    @torch.no_grad()
    def round(self, student: PolicyNetwork) -> tuple[Tries, list[Episodes]]:
        """Steer for a window of decisions. What was tried, and what has ended of each level."""
        first = self.memory
        steps: list[tuple[Tensor, ...]] = []
        finished: list[tuple[Tensor, ...]] = []
        for _ in range(self.recipe.window):
            features_, memory, known = self._known()
            mean, _, self.memory = student.decide(self.maps, features_, memory)
            label, self.kept = self.teacher(self.sources, self.maps, self.sea.truth(), self.kept)
            self.kept = self.kept._replace(integral=torch.zeros_like(self.kept.integral))  # it never holds the sticks
            drawn, begins, maps, before = self._draw(mean), self.begins, self.maps, self.sea.tally
            self.sources, self.maps, outcome = self.sea.step(mean + self.noise)
            reward = self._reward(outcome, before)
            steps.append((maps.half(), features_.half(), label, begins, mean, drawn, known, reward, outcome.done))
            finished.append(self.end(outcome))
        *_, last = self._known()
        maps, mine, labels, begun, means, noise, known, rewards, done = (
            torch.stack(each) for each in zip(*steps, strict=True)
        )
        known = torch.cat([known, last[None]])
        return Tries(maps, mine, labels, begun, means, noise, known, rewards, done, first), self.by_level(finished)

    def _known(self) -> tuple[Tensor, Tensor, Tensor]:
        """What the student sees and remembers now, and what the critic knows."""
        mine, memory = features(hide(self.sources, self.hidden)), self.memory * ~self.begins[:, None]
        return mine, memory, torch.cat([view(self.sea.truth(), self.sea.tally), mine, memory], dim=1).half()

    def _draw(self, mean: Tensor) -> Tensor:
        """The next noise, which keeps a share of the last: what changes from frame to frame hardly moves a vehicle."""
        keep = self.recipe.keep
        fresh = torch.randn(mean.shape, generator=self.random, device=mean.device) * innovation(self.recipe)
        self.noise = keep * self.noise * ~self.begins[:, None] + fresh
        return fresh

    def _reward(self, outcome: Outcome, before: Tally) -> Tensor:
        """(N,) kJ: what ships is chosen by energy, time and failures; where a task is judged by the time in its band,
        each second outside is charged when it passes, so that it is known what led to it."""
        now = self.sea.tally
        outside = ((now.counted - before.counted) - (now.good - before.good)) * ~outcome.done
        cost = outcome.joules + PRICE_W * outcome.seconds + self.recipe.outside_w * outside
        failed = FAILURE_J * (outcome.done & ~outcome.success) + self.recipe.touch_j * outcome.touched  # which ends it
        return -(cost + failed) / 1000


def innovation(recipe: ReinforceRecipe) -> float:
    """Standard deviation of the noise that is new in each decision."""
    return recipe.shake * math.sqrt(1 - recipe.keep**2)
