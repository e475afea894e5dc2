"""Weights on the disk."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save_file

from rov.steering.policy_network import PolicyNetwork

START, MEAN, HALF = "round_0000", "mean", "half"
"""Weights, by name: those that a stage started from, the mean of many of it, and what lies half way to that."""


def save(network: PolicyNetwork, path: Path) -> None:
    save_file({key: value.contiguous().cpu() for key, value in network.state_dict().items()}, path)
