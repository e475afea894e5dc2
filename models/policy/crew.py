"""Rounds of experience, gathered by worker processes while the learner learns, or in this process without any."""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.policy.classroom import Classroom, Episodes
from models.policy.recipe import DaggerRecipe
from models.policy.windows import Windows
from models.policy.workers import quiet
from rov.steering.policy_network import PolicyNetwork
from sim.tasks.noise import FILE

SEED_STEP = 7919


class Part(NamedTuple):
    """Which vehicles a room has: of which task, how many, from which seed."""

    task: str
    vehicles: int
    seed: int


Gathered = tuple[str, Windows, list[Episodes]]
"""Task, what was seen, what has ended of each level."""
Numbers = dict[str, dict[str, float]]
"""The teacher's tuned numbers by task."""


class Crew:
    """Call `begin` with the student's weights, then `end` for what was gathered with them."""

    def __init__(
        self,
        recipe: DaggerRecipe,
        teachers: Numbers,
        workers: int,
        seed: int,
        device: torch.device,
        noise: Path = FILE,
    ):
        parts = divided(recipe, workers, seed)
        self.device = device
        self.student = PolicyNetwork().to(device)
        self.rooms = [] if workers else [opened(part, recipe, teachers, device, noise) for part in parts]
        self.workers: list[tuple[BaseProcess, Connection]] = []
        self.teaching = 1.0
        context = get_context("spawn")
        for i in range(min(workers, len(parts))):
            mine, its = context.Pipe()
            args = (its, parts[i :: min(workers, len(parts))], recipe, teachers, noise, device)
            worker = context.Process(target=serve, args=args, daemon=True)
            worker.start()
            its.close()
            self.workers.append((worker, mine))

    def begin(self, student: PolicyNetwork, teaching: float) -> None:
        """Let all workers steer for a window, with these weights."""
        self.student.load_state_dict(student.state_dict())
        self.teaching = teaching
        weights = {name: value.cpu().numpy() for name, value in student.state_dict().items()}
        for _, connection in self.workers:
            connection.send((weights, teaching))

    def end(self) -> list[Gathered]:
        """What was gathered since `begin`. Raises EOFError when a worker has died."""
        if not self.workers:
            return [(room.task, *room.round(self.student, self.teaching)) for room in self.rooms]
        gathered = []
        for _, connection in self.workers:
            for task, arrays, episodes in connection.recv():
                gathered.append((task, Windows(*(_own(each) for each in arrays)), episodes))
        return gathered

    def close(self) -> None:
        for worker, connection in self.workers:
            connection.close()  # its `recv` ends
            worker.join(timeout=5)
            if worker.is_alive():
                worker.terminate()


def divided(recipe: DaggerRecipe, workers: int, seed: int) -> list[Part]:
    """The tasks' vehicles in as many parts as keep the workers busy. Few large rooms: on a processor a step of 192
    vehicles takes about as long as one of 384."""
    shares = max(1, workers // len(recipe.tasks))
    return [
        Part(task, vehicles(recipe, task) // shares, seed + SEED_STEP * (i * len(recipe.tasks) + j))
        for i in range(shares)
        for j, task in enumerate(recipe.tasks)
    ]


def vehicles(recipe: DaggerRecipe, task: str) -> int:
    """How many of a task."""
    return round(recipe.vehicles * recipe.share.get(task, 1.0))


def opened(part: Part, recipe: DaggerRecipe, teachers: Numbers, device: torch.device, noise: Path) -> Classroom:
    return Classroom(part.task, part.vehicles, part.seed, recipe, teachers[part.task], device, noise)


def _own(sent: NDArray[Any] | Tensor) -> Tensor:
    """What a worker sent, as a tensor of this process: on a GPU it is shared, and the worker's until it is copied."""
    return sent.clone() if isinstance(sent, Tensor) else torch.from_numpy(sent)


def serve(
    connection: Connection,
    parts: list[Part],
    recipe: DaggerRecipe,
    teachers: Numbers,
    noise: Path,
    device: torch.device,
) -> None:
    """A worker: rounds on request, until the other end closes."""
    quiet()
    rooms = [opened(part, recipe, teachers, device, noise) for part in parts]
    student = PolicyNetwork().to(device)
    receive: Callable[[], Any] = connection.recv
    while True:
        try:
            weights, teaching = receive()
        except (EOFError, ConnectionResetError):
            return
        student.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in weights.items()})
        made = []
        for room in rooms:
            windows, episodes = room.round(student, teaching)
            sent = [each if each.is_cuda else each.numpy() for each in windows]
            made.append((room.task, sent, episodes))
        try:
            connection.send(made)
        except (BrokenPipeError, ConnectionResetError):
            return
