"""One task's vehicles in the sea, and the teacher beside them: what the stages that learn there have in common."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from models.policy.recipe import SeaRecipe
from models.policy.trial import FAILURE_J, PRICE_W
from rov.steering.policy_input import Sources
from sim.tasks import noise as sea_noise
from sim.tasks.expert import EXPERT, expert
from sim.tasks.outcome import Outcome
from sim.tasks.sea import Sea, Trouble
from sim.tasks.tuned import Kept, kept


class Episodes(NamedTuple):
    """Finished episodes."""

    ended: int
    success: float
    touched: float
    charge: float
    """J, mean."""


class Room:
    """Vehicles of all levels between two rounds."""

    def __init__(
        self,
        task: str,
        n: int,
        seed: int,
        recipe: SeaRecipe,
        numbers: dict[str, float],
        device: torch.device,
        noise: Path = sea_noise.FILE,
    ):
        self.task = task
        self.teacher = expert(task, torch.tensor([[numbers[name] for name in EXPERT[task]]]))
        trouble = Trouble(recipe.dead_thruster)
        self.sea = Sea(task, recipe.levels, n, seed, device, trouble=trouble, noise=sea_noise.load(noise))
        self.random = torch.Generator(device).manual_seed(seed)
        self.sources, self.maps = self.sea.reset()
        self.kept: Kept = kept(n, device)
        rows = torch.arange(n, device=device)
        self.levels = rows % len(recipe.levels)
        self.row = rows // len(recipe.levels)
        """(n,) number of the vehicle among those of its level."""
        self.begins = torch.ones(n, dtype=torch.bool, device=device)
        self.charge = torch.zeros(n, device=device)
        self.touched = torch.zeros(n, dtype=torch.bool, device=device)

    def end(self, outcome: Outcome) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(n,) each: what has ended with a decision, whether it succeeded, touched something, and what it cost, J;
        those begin anew."""
        self.charge = self.charge + outcome.joules + PRICE_W * outcome.seconds
        self.touched = self.touched | outcome.touched
        ended = (outcome.done, outcome.success, self.touched, self.charge + FAILURE_J * ~outcome.success)
        self.begins, on = outcome.done, ~outcome.done
        self.charge, self.touched = self.charge * on, self.touched & on
        self.kept = Kept(*(each * on.reshape(-1, *[1] * (each.dim() - 1)) for each in self.kept))
        return ended

    def by_level(self, finished: list[tuple[Tensor, ...]]) -> list[Episodes]:
        """What has ended of each level; `finished` decision by decision, as from `end`."""
        return [told(finished, self.levels == number) for number in range(len(self.sea.levels))]


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
