"""A model's card (`.toml`), and checks of card and weights that do not need the network (or torch)."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec
from safetensors import SafetensorError, safe_open

from rov import toml
from rov.errors import UserError

SIZES = (32, 2048)
"""Smallest and largest side of the network's input, px; it must be a multiple of the smallest, the coarsest stride."""
CLASSES_MAX = 1000
LABEL = re.compile(r"[a-z][a-z0-9_]*")
"""A class name, as `steering.target` takes it."""
HEAD = "head.1.bias"
"""The tensor with one value per class and four for the box: its length tells the number of classes."""


class Card(Protocol):
    """A card names the file that it describes."""

    @property
    def weights_sha256(self) -> str: ...


C = TypeVar("C", bound=Card)


class ModelError(UserError):
    """Weights or their card are missing, damaged, or do not fit each other."""


class InputSpec(msgspec.Struct, frozen=True):
    """The network's input: square BGR pictures of `size` pixels, normalised as `(value - mean) / std`."""

    size: int
    mean: float
    std: float


class NetworkSpec(msgspec.Struct, frozen=True):
    """Sizes of the network; the defaults are those of cards that do not name them."""

    widths: tuple[int, int, int, int] = (32, 64, 128, 192)
    """Channels at strides 4, 8, 16 and 32."""
    pyramid: int = 48
    top: int = 128
    """Length of the list of objects of one picture."""


class ModelCard(msgspec.Struct, frozen=True):
    """The part of a model's card (`.toml` beside the weights) that is needed to run it; the rest is for people."""

    name: str
    classes: tuple[str, ...]
    input: InputSpec
    weights_sha256: str
    network: NetworkSpec = NetworkSpec()
    calibration: dict[str, tuple[float, float]] = {}
    """Slope and offset per class, fitted on the validation split: the reported score's logit is
    `slope * logit(raw score) + offset`, so that a score of 0.5 is right every second time."""
    thresholds: dict[str, float] = {}
    """Of older cards: raw score per class that is reported as 0.5. Used where a class has no calibration."""

    def slopes(self) -> tuple[tuple[float, float], ...]:
        """Slope and offset of each class."""
        plain = {name: (1.0, math.log(1 / t - 1)) for name, t in self.thresholds.items()}
        return tuple((plain | self.calibration).get(name, (1.0, 0.0)) for name in self.classes)


def load_card(weights: Path) -> ModelCard:
    """The card beside a weights file, checked against it. Raises ModelError."""
    return read_card(weights, ModelCard, flaw)


def read_card(weights: Path, kind: type[C], flaw: Callable[[C], str]) -> C:
    """The card of a `kind` beside a weights file, without a `flaw` and of just this file. Raises ModelError."""
    if not weights.is_file():
        raise ModelError(f"{weights}: no such weights file")
    path = weights.with_suffix(".toml")
    try:
        card = toml.load(path, kind)
    except FileNotFoundError:
        raise ModelError(f"{weights}: has no card ({path.name} beside it); a model runs only with its card") from None
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from None
    except toml.TomlError as error:
        raise ModelError(str(error)) from None
    if wrong := flaw(card):
        raise ModelError(f"{path}: {wrong}")
    if sha256(weights) != card.weights_sha256:
        raise ModelError(f"{weights}: is not the file its card describes (sha256 differs); restore the pair")
    return card


def flaw(card: ModelCard) -> str:
    """What makes a card unusable, as `key = value: reason`; "" when it is good."""
    low, high = SIZES
    size, mean, std = card.input.size, card.input.mean, card.input.std
    if not low <= size <= high or size % low:
        return f"input.size = {size}: must be a multiple of {low} up to {high}"
    if not math.isfinite(mean):
        return f"input.mean = {mean}: must be finite"
    if not (math.isfinite(std) and std >= 1e-3):
        return f"input.std = {std}: must be finite and above 0"
    if not 0 < len(card.classes) <= CLASSES_MAX or len(set(card.classes)) < len(card.classes):
        return f"classes: must be 1 to {CLASSES_MAX} different names"
    for name in card.classes:
        if not LABEL.fullmatch(name):
            return f"classes: {name[:60]!r} is not a name; use small letters, digits and _, as in buoy_red"
    if not all(8 <= width <= 1024 for width in (*card.network.widths, card.network.pyramid)):
        return "network: widths and pyramid must be from 8 to 1024"
    if not 0 < card.network.top <= 1024:
        return f"network.top = {card.network.top}: must be from 1 to 1024"
    for name, (slope, offset) in card.calibration.items():
        if not (0 < slope < 100 and abs(offset) < 100):
            return f"calibration.{name}: needs a slope above 0 and an offset, both below 100"
    for name, value in card.thresholds.items():
        if not 0 < value < 1:
            return f"thresholds.{name} = {value}: must be between 0 and 1"
    return ""


def check(weights: Path) -> ModelCard:
    """Check a model without loading the network; returns its card. Raises ModelError."""
    card = load_card(weights)
    try:
        with safe_open(weights, "np") as file:
            found = file.get_slice(HEAD).get_shape() if HEAD in file.keys() else []
    except (SafetensorError, OSError, ValueError) as error:
        raise unreadable(weights, error) from None
    if found != [len(card.classes) + 4]:
        raise ModelError(f"{weights}: does not fit this network, with the {len(card.classes)} classes of its card")
    return card


def unreadable(weights: Path, error: BaseException) -> ModelError:
    """The error for weights that are not a safetensors file."""
    reason = (
        str(error).splitlines()[0][:200].removeprefix("Error while deserializing header: ")
        if str(error)
        else type(error).__name__
    )
    return ModelError(f"{weights}: cannot be read as safetensors: {reason}; fetch it again")


def sha256(path: Path) -> str:
    """Hex digest of a file of any size. Raises ModelError."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from None
    return digest.hexdigest()
