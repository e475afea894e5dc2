"""The cards of encoder and policy, as the daemon and people read them."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import msgspec
import tomli_w
from safetensors.torch import load_file

from models.policy.recipe import Recipe
from rov.resources import checkout
from rov.steering.policy_card import VERSION
from rov.vision.model_card import sha256
from sim.tasks.levels import LEVELS, RATE_TICKS, delays_s
from sim.vehicle import DT

ENCODER_LIMITS = (
    "Learned from rendered pictures of four kinds of places alone: no real water. A range is only as good as its"
    " variance says; in turbid water, of bare walls and of endless water it says next to nothing. It knows one kind of"
    " pipeline."
)
POLICY_LIMITS = (
    "Learned in simulation alone, from a teacher that acts on what was lately in the picture: never in a real sea."
    " Hulls between Wu's and von Benzon's BlueROV2 Heavy, under this daemon's inner loops and ArduSub's; currents up to"
    " 0.25 m/s. What it does elsewhere is unknown: try it in shadow first."
)


def encoder_card(weights: Path, recipe: Recipe, metrics: dict[str, float], thresholds: dict[str, Any]) -> None:
    """Write the card beside the weights."""
    card = beginning("encoder", weights, ENCODER_LIMITS)
    card["input"] = {
        "width": 64,
        "height": 48,
        "channels": "RGB",
        "range": [0.0, 1.0],
        "fit": "the whole frame, squeezed",
    }
    card |= {"thresholds": thresholds, "metrics": {"unseen_worlds_and_waters": rounded(metrics)}}
    card["recipe"] = msgspec.to_builtins(recipe.encoder)
    write(weights, card)


def policy_card(
    weights: Path, encoder: Path, recipe: Recipe, log_variance: float, results: dict[str, dict[str, float]]
) -> None:
    """Write the card beside the weights. `results` by task: success and episodes at least."""
    card = beginning("policy", weights, POLICY_LIMITS)
    card["encoder_sha256"] = sha256(encoder)
    card["trained"] = {
        "rates_hz": [round(1 / (RATE_TICKS[1] * DT), 2), round(1 / (RATE_TICKS[0] * DT), 2)],
        "delay_s": [round(each, 3) for each in delays_s(LEVELS["hard"], "train")],
    }
    card["thresholds"] = {"log_variance": round(log_variance, 3)}
    card["results"] = {task: rounded(each) for task, each in results.items()}
    card["recipe"] = {name: msgspec.to_builtins(getattr(recipe, name)) for name in ("tuning", "dagger", "reinforce")}
    write(weights, card)


def beginning(name: str, weights: Path, limits: str) -> dict[str, Any]:
    git = subprocess.run(["git", "-C", checkout(), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "name": name,
        "version": VERSION,
        "weights_sha256": sha256(weights),
        "commit": git.stdout.strip() or "unknown",
        "parameters": sum(each.numel() for each in load_file(weights).values()),
        "limits": limits,
    }


def rounded(values: dict[str, Any]) -> dict[str, Any]:
    return {name: float(f"{value:.4g}") if isinstance(value, float) else value for name, value in values.items()}


def write(weights: Path, card: dict[str, Any]) -> None:
    with weights.with_suffix(".toml").open("wb") as file:
        tomli_w.dump(card, file)
