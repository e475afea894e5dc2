"""Rounds of experience, gathered by worker processes while the learner learns, or in this process without any."""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.policy.recipe import SeaRecipe
from models.policy.room import Episodes
from models.policy.workers import quiet
from rov.steering.policy_network import PolicyNetwork

SEED_STEP = 7919


class Part(NamedTuple):
    """Which vehicles a room has: of which task, how many, from which seed."""

    task: str
    vehicles: int
    seed: int


Numbers = dict[str, dict[str, float]]
"""The teacher's numbers by task."""
Seen = TypeVar("Seen", bound=tuple[Any, ...], covariant=True)
"""A named tuple of tensors: what a room has seen."""
Gathered = tuple[str, Seen, list[Episodes]]
"""Task, what was seen, what has ended of each level."""


class Sails(Protocol[Seen]):
    """One task's vehicles between two rounds."""

    task: str

    @property
    def round(self) -> Callable[..., tuple[Seen, list[Episodes]]]:
        """Called with the student and what `Crew.begin` was told: sail for a window of decisions."""
        ...


class Crew(Generic[Seen]):
    """Call `begin` with the student's weights, then `end` for what was gathered with them."""

    def __init__(
        self,
        parts: list[Part],
        opened: Callable[[Part], Sails[Seen]],
        seen: type[Seen],
        workers: int,
        device: torch.device,
    ):
        self.seen, self.device = seen, device
        self.student = PolicyNetwork().to(device)
        self.rooms = [] if workers else [opened(part) for part in parts]
        self.workers: list[tuple[BaseProcess, Connection]] = []
        self.told: tuple[float, ...] = ()
        context = get_context("spawn")
        for i in range(min(workers, len(parts))):
            mine, its = context.Pipe()
            args = (its, parts[i :: min(workers, len(parts))], opened, device)
            worker = context.Process(target=serve, args=args, daemon=True)
            worker.start()
            its.close()
            self.workers.append((worker, mine))

    def begin(self, student: PolicyNetwork, *told: float) -> None:
        """Let all workers steer for a window, with these weights."""
        self.student.load_state_dict(student.state_dict())
        self.told = told
        weights = {name: value.cpu().numpy() for name, value in student.state_dict().items()}
        for _, connection in self.workers:
            connection.send((weights, told))

    def end(self) -> list[Gathered[Seen]]:
        """What was gathered since `begin`. Raises EOFError when a worker has died."""
        if not self.workers:
            return [(room.task, *room.round(self.student, *self.told)) for room in self.rooms]
        gathered = []
        for _, connection in self.workers:
            for task, arrays, episodes in connection.recv():
                gathered.append((task, self.seen(*(_own(each) for each in arrays)), episodes))
        return gathered

    def close(self) -> None:
        for worker, connection in self.workers:
            connection.close()  # its `recv` ends
            worker.join(timeout=5)
            if worker.is_alive():
                worker.terminate()


def divided(recipe: SeaRecipe, workers: int, seed: int) -> list[Part]:
    """The tasks' vehicles in as many parts as keep the workers busy. Few large rooms: on a processor a step of 192
    vehicles takes about as long as one of 384."""
    shares = max(1, workers // len(recipe.tasks))
    return [
        Part(task, vehicles(recipe, task) // shares, seed + SEED_STEP * (i * len(recipe.tasks) + j))
        for i in range(shares)
        for j, task in enumerate(recipe.tasks)
    ]


def vehicles(recipe: SeaRecipe, task: str) -> int:
    """How many of a task."""
    return round(recipe.vehicles * recipe.share.get(task, 1.0))


def together(gathered: list[Gathered[Seen]], recipe: SeaRecipe) -> dict[str, dict[str, float]]:
    """The episodes of all rooms by task, of levels after the first by `task level`, for the log."""
    return {
        task if number == 0 else f"{task} {level}": _as_one(
            [ended[number] for name, _, ended in gathered if name == task]
        )
        for number, level in enumerate(recipe.levels)
        for task in recipe.tasks
    }


def _as_one(parts: list[Episodes]) -> dict[str, float]:
    """Episodes of several rooms."""
    count = sum(each.ended for each in parts)
    names = ("success", "touched", "charge")
    whole = {name: sum(getattr(each, name) * each.ended for each in parts) / max(count, 1) for name in names}
    return {"ended": count, **whole}


def shown(line: dict[str, Any], tasks: tuple[str, ...]) -> str:
    """The success of each task for the progress bar."""
    told = [f"{task} {line[task]['success']:.0%}" for task in tasks if line[task]["ended"]]
    return ", ".join(told) or "no episode has ended yet"


def _own(sent: NDArray[Any] | Tensor) -> Tensor:
    """What a worker sent, as a tensor of this process: on a GPU it is shared, and the worker's until it is copied."""
    return sent.clone() if isinstance(sent, Tensor) else torch.from_numpy(sent)


def serve(
    connection: Connection, parts: list[Part], opened: Callable[[Part], Sails[Seen]], device: torch.device
) -> None:
    """A worker: rounds on request, until the other end closes."""
    quiet()
    rooms = [opened(part) for part in parts]
    student = PolicyNetwork().to(device)
    receive: Callable[[], Any] = connection.recv
    while True:
        try:
            weights, told = receive()
        except (EOFError, ConnectionResetError):
            return
        student.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in weights.items()})
        made = []
        for room in rooms:
            seen, episodes = room.round(student, *told)
            sent = [each if each.is_cuda else each.numpy() for each in seen]
            made.append((room.task, sent, episodes))
        try:
            connection.send(made)
        except (BrokenPipeError, ConnectionResetError):
            return
