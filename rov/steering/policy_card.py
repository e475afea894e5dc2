"""The cards of the policy and its encoder (`.toml` beside the weights), and what the policy may not be asked to do.

Needs neither the networks nor torch: the pilot, which must refuse `mode policy` with the reason, reads it, too.
"""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import msgspec

from rov.config.schema import SteeringConfig
from rov.errors import UserError
from rov.messages import Task
from rov.resources import find_resource
from rov.vision.model_card import ModelError, read_card

VERSION = 3
"""Of the policy's input. Incremented when its numbers, their order or their scale change: weights of another version do
not fit."""
Range = tuple[float, float]


class Trained(msgspec.Struct, frozen=True):
    """What the policy has met in training."""

    rates_hz: Range
    """Lowest and highest rate of the pictures."""
    delay_s: Range
    """Shortest and longest time from the picture to the setpoint."""


class TaskResult(msgspec.Struct, frozen=True):
    """How the policy did in a task; the rest of the card's table is for people."""

    success: float
    """Share of the episodes."""
    episodes: int


class PolicyThresholds(msgspec.Struct, frozen=True):
    log_variance: float
    """Mean over the axes of the answer's log variance; above it the policy is unsure."""


class PictureThresholds(msgspec.Struct, frozen=True):
    """What a picture must be like to steer by; set from normal running. Brightness is 0..1."""

    unlike: float
    """Largest distance of its looks from the training's; see `Encoder.unlike`."""
    mean: Range
    """Darkest and brightest mean."""
    contrast: float
    """Least standard deviation of the brightness."""
    gradient: float
    """Least mean difference of neighbouring cells."""
    saturated: float
    """Largest share of cells at the upper end."""


class PolicyCard(msgspec.Struct, frozen=True):
    """The part of the policy's card that is needed to run it."""

    name: str
    version: int
    weights_sha256: str
    encoder_sha256: str
    """Of the encoder whose maps it was trained on."""
    trained: Trained
    thresholds: PolicyThresholds
    results: dict[str, TaskResult] = {}
    """By task. A task that was not evaluated is not offered."""


class EncoderCard(msgspec.Struct, frozen=True):
    """The part of the encoder's card that is needed to run it."""

    name: str
    version: int
    weights_sha256: str
    thresholds: PictureThresholds


class Cards(msgspec.Struct, frozen=True):
    """The two cards of a pair that fits."""

    policy: PolicyCard
    encoder: EncoderCard


def load_cards(policy: Path, encoder: Path) -> Cards:
    """The cards beside two weights files. Raises ModelError."""
    cards = Cards(read_card(policy, PolicyCard, _policy_flaw), read_card(encoder, EncoderCard, _version_flaw))
    if cards.policy.encoder_sha256 != cards.encoder.weights_sha256:
        raise ModelError(f"{policy}: was not trained with {encoder.name} (its card names another encoder's sha256)")
    return cards


def find_files(steering: SteeringConfig) -> tuple[Path, Path]:
    """The weights of the policy and of its encoder. Raises UserError."""
    return find_resource(steering.policy), find_resource(steering.encoder)


def refusals(steering: SteeringConfig) -> dict[str, str]:
    """Why the policy cannot do a task, by task; "" where it can."""
    tasks = [task for task in get_args(Task) if task != "none"]
    try:
        cards = load_cards(*find_files(steering))
    except UserError as error:
        return dict.fromkeys(tasks, f"there is no policy to steer: {error}")
    known = cards.policy.results.keys()
    only = f", only on {', '.join(sorted(known))}" if known else ""
    return {task: "" if task in known else f"the policy was not evaluated on {task}{only}" for task in tasks}


def rate_doubt(card: PolicyCard, rate_hz: float) -> str:
    """A sentence when the policy was not trained at this rate of pictures, else ""."""
    low, high = card.trained.rates_hz
    if low <= rate_hz <= high:
        return ""
    return f"perception.rate_hz = {rate_hz:g}: the policy was trained at {low:g} to {high:g} pictures per second"


def _policy_flaw(card: PolicyCard) -> str:
    for task, result in card.results.items():
        if task not in get_args(Task) or not 0 <= result.success <= 1 or result.episodes < 1:
            return f"results.{task}: must be a task with a success of 0 to 1 in at least one episode"
    return _version_flaw(card)


def _version_flaw(card: PolicyCard | EncoderCard) -> str:
    return "" if card.version == VERSION else f"version = {card.version}: this rov has version {VERSION} of the input"
