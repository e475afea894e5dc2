"""That the recipe of the policy still learns: two minutes of it, from nothing, beat the visual servo on `follow`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from models import train_policy
from models.policy import dagger, recipe
from models.policy.trial import trial
from rov.steering.policy_input import Sources, features
from rov.steering.policy_network import PolicyNetwork
from sim.tasks.controllers import servo
from sim.tasks.sea import Sea, Truth

pytest.importorskip("torchvision", reason="takes two minutes: make test-train")

SECONDS, EPISODES = 120.0, 96


def test_two_minutes_beat_the_servo(tmp_path: Path) -> None:
    shipped = recipe.load(train_policy.RECIPE).dagger
    short = msgspec.structs.replace(
        shipped, tasks=("follow",), levels=("nominal",), teacher={"follow": shipped.teacher["follow"]}, vehicles=192,
        updates=25, batch=32, keep=8,
    )  # fmt: skip
    teachers = dagger.numbers(short)
    dagger.run(short, tmp_path, torch.device("cpu"), 1, lambda *_: None, teachers, limit_s=SECONDS)
    network = PolicyNetwork()
    network.load_state_dict(load_file(tmp_path / "policy.safetensors"))

    def student(sources: Sources, maps: Tensor, truth: Truth, memory: Tensor | None) -> tuple[Tensor, Any]:
        memory = network.initial_memory(len(maps)) if memory is None else memory
        setpoint, _, memory = network(maps, features(sources), memory)
        return setpoint, memory

    learned, servoed = (
        trial(steers, Sea("follow", "nominal", EPISODES, 999, auto_reset=False)).summary()
        for steers in (student, servo)
    )
    assert learned["success"] > servoed["success"] and learned["charge"] < servoed["charge"], (learned, servoed)
