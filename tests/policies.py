"""A policy and its encoder without training, as files: for tests of what is around them."""

from __future__ import annotations

from pathlib import Path

import tomli_w
import torch
from safetensors.torch import save_file

from rov.config.schema import Config
from rov.steering.encoder import Encoder
from rov.steering.policy_card import VERSION
from rov.steering.policy_network import PolicyNetwork
from rov.vision.model_card import sha256

TASKS = ("transit", "follow", "inspect", "station")
ANY_PICTURE = {"unlike": 1e6, "mean": [0.0, 1.0], "contrast": 0.0, "gradient": 0.0, "saturated": 1.0}


def write_policy(folder: Path, tasks: tuple[str, ...] = TASKS, **thresholds: object) -> tuple[Path, Path]:
    """Write both, with cards on which these tasks were evaluated; returns the weights' paths. `thresholds` replace
    those that let every picture pass, and the policy's `log_variance`."""
    torch.manual_seed(1)
    policy, encoder = folder / "policy.safetensors", folder / "encoder.safetensors"
    save_file(PolicyNetwork().state_dict(), policy)
    save_file(Encoder().state_dict(), encoder)
    unsure = thresholds.pop("log_variance", 10.0)
    looks = {"version": VERSION, "weights_sha256": sha256(encoder), "thresholds": ANY_PICTURE | thresholds}
    card = {
        "version": VERSION,
        "weights_sha256": sha256(policy),
        "encoder_sha256": sha256(encoder),
        "trained": {"rates_hz": [8.0, 16.0], "delay_s": [0.03, 0.5]},
        "thresholds": {"log_variance": unsure},
        "results": {task: {"success": 0.9, "episodes": 10} for task in tasks},
    }
    write_card(encoder, {"name": "encoder"} | looks)
    write_card(policy, {"name": "policy"} | card)
    return policy, encoder


def write_card(weights: Path, card: dict[str, object]) -> None:
    weights.with_suffix(".toml").write_text(tomli_w.dumps(card))


def with_policy(config: Config, files: tuple[Path, Path], **task: object) -> Config:
    """The configuration with these weights, and this task."""
    steering = config.steering.model_copy(update={"policy": str(files[0]), "encoder": str(files[1])})
    return config.model_copy(update={"steering": steering, "task": config.task.model_copy(update=task)})
