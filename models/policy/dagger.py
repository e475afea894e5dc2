"""The stage that teaches: the student steers, the teacher says what it would have done (DAgger, Ross et al. 2011).

All tasks in turn, one network. A part of the rows is driven by the student alone, as in the water: their episodes are
the closed-loop figures while it trains.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from models.policy.classroom import Classroom
from models.policy.crew import Crew, Numbers, Part, divided, shown, together
from models.policy.recipe import DaggerRecipe, RecipeError, claim
from models.policy.unroll import KNOWN
from models.policy.weights import save
from models.policy.windows import Store, Windows, loss
from rov.steering.policy_network import PolicyNetwork
from sim.tasks import noise as sea_noise
from sim.tasks.expert import EXPERT

Progress = Callable[[str, int, int], None]


class Learner:
    """Networks, optimiser and what was best; saved after every round."""

    def __init__(self, recipe: DaggerRecipe, device: torch.device):
        torch.manual_seed(recipe.seed)
        self.recipe, self.device = recipe, device
        self.network = PolicyNetwork().to(device)
        # An eighth faster on a CPU.
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stubs
        self.student = PolicyNetwork().to(device)
        """The moving average of the network: it steers, and it is what ships."""
        self.student.load_state_dict(self.network.state_dict())
        self.bearing = nn.Linear(KNOWN, 1).to(device)
        learning = [*self.network.parameters(), *self.bearing.parameters()]
        self.optimiser = torch.optim.AdamW(learning, lr=recipe.rate, weight_decay=recipe.decay)
        self.random = torch.Generator().manual_seed(recipe.seed)
        self.round, self.updates, self.seconds = 0, 0, 0.0

    def learn(self, store: Store, share: float) -> dict[str, float]:
        """The updates of one round; `share` of the training is done."""
        sums: dict[str, float] = {}
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.rate * (0.02 + 0.98 * min(1.0, (self.round + 1) / 5) * (1 - share) ** 1.5)
        for _ in range(self.recipe.updates):
            batch = store.draw(self.recipe.batch, self.random)
            value, parts = loss(self.network, batch, self.recipe.burn_in, self.recipe.smooth, self.bearing)
            self.optimiser.zero_grad(set_to_none=True)
            value.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
            self.optimiser.step()
            self.updates += 1
            with torch.no_grad():
                for mine, its in zip(self.student.parameters(), self.network.parameters(), strict=True):
                    mine.lerp_(its, 1 / (1 + self.recipe.average * self.updates))
            sums = {name: sums.get(name, 0.0) + part / self.recipe.updates for name, part in parts.items()}
        return sums

    def save(self, path: Path) -> None:
        state: dict[str, Any] = {"network": self.network.state_dict(), "student": self.student.state_dict()}
        state |= {"bearing": self.bearing.state_dict(), "optimiser": self.optimiser.state_dict()}
        state |= {
            "round": self.round,
            "updates": self.updates,
            "seconds": self.seconds,
            "random": self.random.get_state(),
        }
        torch.save(state, path.with_suffix(".new"))
        path.with_suffix(".new").replace(path)  # an interrupted run leaves the last whole round

    def resume(self, path: Path) -> None:
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.student.load_state_dict(state["student"])
        self.bearing.load_state_dict(state["bearing"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.round, self.updates, self.seconds = state["round"], state["updates"], state["seconds"]
        self.random.set_state(state["random"].cpu())


def run(
    recipe: DaggerRecipe,
    folder: Path,
    device: torch.device,
    workers: int,
    progress: Progress,
    teachers: Numbers,
    noise: Path = sea_noise.FILE,
    start: Path | None = None,
    limit_s: float = float("inf"),
) -> None:
    """Run or resume the stage. `teachers`: their numbers; `noise`: of the sea. `limit_s` ends it early: the
    learning rate falls in that time."""
    claim(folder, recipe)
    learner = Learner(recipe, device)
    if start:
        learner.network.load_state_dict(load_file(start, device=str(device)))
        learner.student.load_state_dict(learner.network.state_dict())
    checkpoint, log = folder / "checkpoint.pt", folder / "log.jsonl"
    if checkpoint.exists():
        learner.resume(checkpoint)
    store = Store(recipe.keep * len(divided(recipe, workers, 0)))
    parts = divided(recipe, workers, recipe.seed + 1_000_000 * learner.round)
    open_room = partial(opened, recipe=recipe, teachers=teachers, device=device, noise=noise)
    crew = Crew(parts, open_room, Windows, workers, device)
    began = time.monotonic() - learner.seconds
    try:
        while learner.round < recipe.rounds and learner.seconds < limit_s:
            share = min(1.0, max(learner.round / recipe.rounds, learner.seconds / limit_s))
            teaching = max(recipe.teaching_last, recipe.teaching_first * (1 - share * 3))
            crew.begin(learner.student, teaching)
            line: dict[str, Any] = {"round": learner.round + 1, "teaching": teaching}
            line |= learner.learn(store, share) if store.sets else {}
            gathered = crew.end()
            for _, windows, _ in gathered:
                store.add(windows)
            line |= together(gathered, recipe)
            learner.round, learner.seconds = learner.round + 1, time.monotonic() - began
            line["seconds"] = learner.seconds
            with log.open("a") as file:
                file.write(json.dumps(line) + "\n")
            learner.save(checkpoint)
            progress(f"round {learner.round}: {shown(line, recipe.tasks)}", learner.round, recipe.rounds)
    finally:
        crew.close()
    save(learner.student, folder / "policy.safetensors")


def opened(part: Part, recipe: DaggerRecipe, teachers: Numbers, device: torch.device, noise: Path) -> Classroom:
    return Classroom(part.task, part.vehicles, part.seed, recipe, teachers[part.task], device, noise)


def numbers(recipe: DaggerRecipe) -> Numbers:
    """The teacher's numbers by task: the starts of its search, and the recipe's. Raises RecipeError.

    Not the tuned ones: what is best for one who knows the truth is too soft for a student who sees it through noise."""
    found = {task: {name: each.start for name, each in EXPERT[task].items()} for task in recipe.tasks}
    for task, changed in recipe.teacher.items():
        if unknown := changed.keys() - EXPERT.get(task, {}).keys():
            raise RecipeError(f"dagger.teacher.{task}: knows no {', '.join(sorted(unknown))}")
        found[task] = found.get(task, {}) | changed
    return found
