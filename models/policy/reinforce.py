"""The stage after the teacher: the student tries, and does more of what cost less (PPO, Schulman et al. 2017).

A student that imitates a teacher who knows more than it sees does what the teacher does on average: before a rock that
may be to port or to starboard, neither. What it learns here is what is best for one who sees no better. It stays near
the teacher, whose distance it also learns to guess: that is how unsure it is. And it learns to know where it is: what
the critic sees, told from what the network remembers (as depth and closed loops in Mirowski et al. 2017). A gate whose
posts have left the picture, and how far off its line the vehicle is, matter long after any window that it learns from.
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
from torch import Tensor, nn

from models.policy.crew import Crew, Numbers, Part, divided, shown, together
from models.policy.critic import SCALE, VIEW, Critic
from models.policy.practice import Practice, Tries, innovation
from models.policy.recipe import ReinforceRecipe, claim
from models.policy.unroll import KNOWN, unroll
from models.policy.weights import START, save
from rov.steering.policy_network import PolicyNetwork
from sim.tasks import noise as sea_noise

Progress = Callable[[str, int, int], None]
MOST = 4.0
"""Logarithm of a probability's ratio beyond which it is cut off."""


class Learner:
    """Network, critic and optimisers; saved after every round."""

    def __init__(self, recipe: ReinforceRecipe, device: torch.device):
        torch.manual_seed(recipe.seed)
        self.recipe, self.device = recipe, device
        self.network, self.critic = PolicyNetwork().to(device), Critic().to(device)
        # An eighth faster on a CPU.
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stubs
        self.student = PolicyNetwork().to(device)
        """The moving average of the network: it is what ships."""
        self.where = nn.Linear(KNOWN, VIEW).to(device)
        """What the critic sees, from what the network remembers: thrown away after the training."""
        nn.init.zeros_(self.where.weight)  # what it does not know yet shall not disturb the network
        self.optimiser = torch.optim.Adam(self.network.parameters(), lr=recipe.rate, eps=1e-5)
        beside = [*self.critic.parameters(), *self.where.parameters()]
        self.critics = torch.optim.Adam(beside, lr=recipe.critic_rate)
        self.random = torch.Generator().manual_seed(recipe.seed)
        self.round, self.seconds = 0, 0.0

    def start(self, weights: Path) -> None:
        self.network.load_state_dict(load_file(weights, device=str(self.device)))
        self.student.load_state_dict(self.network.state_dict())

    def learn(self, gathered: list[Tries], share: float) -> dict[str, float]:
        """The updates of one round, the tries of each task apart; `share` of the training is done."""
        recipe = self.recipe
        for group in self.optimiser.param_groups:
            group["lr"] = recipe.rate * max(0.03, 1 - share)
        worth = [self._worth(tries) for tries in gathered]
        better, still = (torch.cat(each, dim=1) for each in zip(*worth, strict=True))
        tries = Tries(
            *(
                torch.cat(some, 0 if name == "memory" else 1)
                for name, some in zip(Tries._fields, zip(*gathered, strict=True), strict=True)
            )
        )
        sums: dict[str, float] = {}
        moved, updates = 0.0, 0
        for _ in range(recipe.epochs):
            order = torch.randperm(tries.memory.shape[0], generator=self.random).to(tries.memory.device)
            for chosen in torch.split(order, recipe.batch):
                batch = Tries(*(each[chosen] if each is tries.memory else each[:, chosen] for each in tries))
                self._learn_worth(batch, still[:, chosen])
                if self.round < recipe.warm or moved > recipe.reach:
                    continue
                whole, told = loss(self.network, self.where, batch, better[:, chosen], recipe)
                self.optimiser.zero_grad()
                self.critics.zero_grad()
                whole.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
                self.optimiser.step()
                self.critics.step()
                moved, updates = told["moved"], updates + 1
                sums = {name: sums.get(name, 0.0) + part for name, part in told.items()}
        with torch.no_grad():
            for mine, its in zip(self.student.parameters(), self.network.parameters(), strict=True):
                mine.lerp_(its, max(recipe.average, 1 / (self.round + 2)))
        return {name: part / updates for name, part in sums.items()}

    @torch.no_grad()
    def _worth(self, tries: Tries) -> tuple[Tensor, Tensor]:
        """(T, B) by how much each decision of a task was better than expected, in standard deviations; and what was
        still to come, kJ."""
        better, still = advantages(tries.rewards, self.critic(tries.known.float()), tries.done, self.recipe)
        return (better - better.mean()) / (better.std() + 1e-6), still

    def _learn_worth(self, batch: Tries, still: Tensor) -> None:
        off = (self.critic(batch.known[:-1].float()) - still) / SCALE
        self.critics.zero_grad()
        off.square().mean().backward()
        nn.utils.clip_grad_norm_(self.critic.parameters(), 1.0)
        self.critics.step()

    def save(self, path: Path) -> None:
        parts = ("network", "critic", "where", "student", "optimiser", "critics")
        state: dict[str, Any] = {name: getattr(self, name).state_dict() for name in parts}
        state |= {"round": self.round, "seconds": self.seconds, "random": self.random.get_state()}
        torch.save(state, path.with_suffix(".new"))
        path.with_suffix(".new").replace(path)  # an interrupted run leaves the last whole round

    def resume(self, path: Path) -> None:
        state = torch.load(path, map_location=self.device, weights_only=True)
        for name in ("network", "critic", "where", "student", "optimiser", "critics"):
            getattr(self, name).load_state_dict(state[name])
        self.round, self.seconds = state["round"], state["seconds"]
        self.random.set_state(state["random"].cpu())


def advantages(rewards: Tensor, worth: Tensor, done: Tensor, recipe: ReinforceRecipe) -> tuple[Tensor, Tensor]:
    """(T, B) each: by how much decisions were better than the critic expected, and what was still to come (generalised
    advantage estimation, Schulman et al. 2016). `worth` (T + 1, B) is what the critic says; nothing comes after an end.
    """
    better, later = torch.zeros_like(rewards), torch.zeros_like(rewards[0])
    for t in reversed(range(len(rewards))):
        goes_on = recipe.discount * (~done[t]).float()
        later = rewards[t] + goes_on * worth[t + 1] - worth[t] + recipe.trace * goes_on * later
        better[t] = later
    return better, better + worth[:-1]


def loss(
    network: PolicyNetwork, where: nn.Module, batch: Tries, better: Tensor, recipe: ReinforceRecipe
) -> tuple[Tensor, dict[str, float]]:
    """The loss of a batch, and its parts for the log: the clipped gain of what was better than expected, the distance
    from the teacher, by its own likelihood as in windows.py, and by how much `where` was wrong about what the critic
    sees."""
    mean, spread, known = unroll(network, batch.maps.float(), batch.features.float(), batch.memory, batch.begins)
    change, width = mean - batch.means, 2 * innovation(recipe) ** 2
    ratio = ((batch.drawn.square() - (batch.drawn - change).square()) / width).sum(-1).clamp(-MOST, MOST).exp()
    gain = torch.min(ratio * better, ratio.clamp(1 - recipe.clip, 1 + recipe.clip) * better).mean()
    miss = (mean - batch.labels).square()
    error = miss.sum(-1).mean()
    likelihood = 0.5 * (miss.detach() * torch.exp(-spread) + spread).sum(-1).mean()
    moved = (change.detach().square() / width).sum(-1).mean()  # Kullback and Leibler's divergence
    lost = (where(known) - batch.known[:-1, :, :VIEW].float()).square().mean()
    parts = {"gain": gain, "error": error, "likelihood": likelihood, "lost": lost, "moved": moved}
    whole = recipe.teacher * error + 0.1 * likelihood + recipe.where * lost - gain
    return whole, {name: part.item() for name, part in parts.items()}


def run(
    recipe: ReinforceRecipe,
    folder: Path,
    device: torch.device,
    workers: int,
    progress: Progress,
    teachers: Numbers,
    start: Path,
    noise: Path = sea_noise.FILE,
    limit_s: float = float("inf"),
) -> None:
    """Run or resume the stage from the weights `start`. `teachers`: their numbers; `noise`: of the sea. `limit_s`
    ends it early: the learning rate falls in that time."""
    claim(folder, recipe)
    learner = Learner(recipe, device)
    learner.start(start)
    checkpoint, log = folder / "checkpoint.pt", folder / "log.jsonl"
    if checkpoint.exists():
        learner.resume(checkpoint)
    else:
        save(learner.student, folder / f"{START}.safetensors")
    parts = divided(recipe, workers, recipe.seed + 1_000_000 * learner.round)
    open_room = partial(opened, recipe=recipe, teachers=teachers, device=device, noise=noise)
    crew = Crew(parts, open_room, Tries, workers, device)
    began = time.monotonic() - learner.seconds
    try:
        while learner.round < recipe.rounds and learner.seconds < limit_s:
            share = min(1.0, max(learner.round / recipe.rounds, learner.seconds / limit_s))
            crew.begin(learner.network)
            gathered = crew.end()
            line: dict[str, Any] = {"round": learner.round + 1}
            line |= learner.learn([tries for _, tries, _ in gathered], share) | together(gathered, recipe)
            learner.round, learner.seconds = learner.round + 1, time.monotonic() - began
            with log.open("a") as file:
                file.write(json.dumps(line | {"seconds": learner.seconds}) + "\n")
            learner.save(checkpoint)
            if learner.round % recipe.snapshot == 0:
                save(learner.student, folder / f"round_{learner.round:04d}.safetensors")
            progress(f"tries {learner.round}: {shown(line, recipe.tasks)}", learner.round, recipe.rounds)
    finally:
        crew.close()
    save(learner.student, folder / f"round_{learner.round:04d}.safetensors")


def opened(part: Part, recipe: ReinforceRecipe, teachers: Numbers, device: torch.device, noise: Path) -> Practice:
    return Practice(part.task, part.vehicles, part.seed, recipe, teachers[part.task], device, noise)
