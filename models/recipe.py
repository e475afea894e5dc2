"""The recipe of a detector: data and their mixture, network, optimisation, augmentation. A TOML file holds one; the run
folder and the model's card repeat it, with every default written out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec

from models.augment import Augmentation
from rov import toml
from rov.errors import UserError
from rov.resources import checkout
from rov.vision.model_card import CLASSES_MAX, LABEL, SIZES
from rov.vision.network import PYRAMID, TOP, WIDTHS


class Network(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    size: int = 512
    """Side of the network's input, px; a multiple of 32."""
    widths: tuple[int, int, int, int] = WIDTHS
    """Channels at strides 4, 8, 16 and 32."""
    pyramid: int = PYRAMID
    top: int = TOP
    """Length of the list of objects of a picture."""
    start: str = ""
    """Weights to start from; empty: random ones."""
    frozen: bool = False
    """Keep the stem of the start as it is: edges and colours are the same everywhere, and a step takes a third less."""
    remember: float = 2.0
    """Weight of what the start says about classes that a set does not label, so that old classes are kept."""
    share: float = 1.0
    """Of what is kept: this much of what was learned, the rest of the start, weight by weight (Wortsman et al. 2022,
    arXiv 2109.01903): less is forgotten, and a little less is learned."""


class Optimisation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    optimiser: Literal["adamw", "sgd"] = "adamw"
    rate: float = 2e-3
    """Peak learning rate: a linear warm-up, then a cosine to 1 %. SGD wants about ten times AdamW's."""
    warm_up: int = 200
    """Steps."""
    momentum: float = 0.9
    """Of SGD (Nesterov), and the first beta of AdamW."""
    decay: float = 0.02
    """Weight decay, on convolution kernels only."""
    batch: int = 16
    pictures: int = 1600
    """Pictures of an epoch, drawn anew for each."""
    epochs: int = 50
    minutes: float = 0.0
    """Above 0: how long to train, instead of the epochs; the learning rate then follows the clock, so that such a run
    fits any machine, but does not repeat exactly."""
    average: float = 0.998
    """Exponential moving average of the weights; the average is what is saved."""
    box: float = 2.0
    """Weight of the box loss."""
    validate: int = 5
    """Epochs from one validation to the next."""
    patience: int = 0
    """Validations without progress after which training stops and the best weights are kept; 0: never."""
    seed: int = 1


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Every setting of a run."""

    sets: dict[str, float]
    """Share of each set (its name or folder) among the pictures; their sum need not be 1."""
    classes: tuple[str, ...] = ()
    """In the order of the heat maps. Empty: those of the start, then those that the sets label."""
    network: Network = Network()
    optimisation: Optimisation = Optimisation()
    augmentation: Augmentation = Augmentation()

    def batches(self) -> int:
        """Steps of an epoch."""
        return self.optimisation.pictures // self.optimisation.batch


def default(start: Path | None) -> Path:
    """The recipe that is used where none is named: from scratch, or from weights."""
    return checkout() / "models" / "recipes" / ("own.toml" if start else "detector.toml")


def load(path: Path, changes: dict[str, Any], settings: list[str]) -> Recipe:
    """A recipe with top-level `changes` and `section.key=value` settings applied. Raises UserError."""
    try:
        tables = toml.parse(toml.read_text(path)) | changes
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except toml.TomlError as error:
        raise UserError(f"{path}: {error}") from None
    for setting in settings:
        apply(tables, setting)
    try:
        recipe = toml.convert(tables, Recipe)
    except toml.TomlError as error:
        raise UserError(f"{path}: {error}") from None
    if wrong := flaw(recipe):
        raise UserError(f"{path}: {wrong}")
    return recipe


def apply(tables: dict[str, Any], setting: str) -> None:
    """Set a key of a recipe's tables by `section.key=value`. Raises UserError."""
    key, equals, text = setting.partition("=")
    section, dot, name = key.strip().partition(".")
    if not equals or not dot:
        raise UserError(f"--set {setting}: must look like section.key=value, as optimisation.epochs=20")
    try:
        value = toml.parse(f"value = {text}")["value"]
    except toml.TomlError:
        value = text.strip()
    tables[section] = dict(tables.get(section, {})) | {name: value}


def flaw(recipe: Recipe) -> str:
    """What makes a recipe unusable, as `key = value: reason`; "" when it is good."""
    network, how, (low, high) = recipe.network, recipe.optimisation, SIZES
    if not recipe.sets or not all(0 < share < float("inf") for share in recipe.sets.values()):
        return "sets: names at least one set, each with a share above 0"
    if not low <= network.size <= high or network.size % low:
        return f"network.size = {network.size}: must be a multiple of {low} up to {high}"
    if min(*network.widths, network.pyramid) < 8 or max(*network.widths, network.pyramid) > 1024:
        return "network.widths and network.pyramid: must be from 8 to 1024"
    if not 0 < network.top <= 1024:
        return f"network.top = {network.top}: must be from 1 to 1024"
    if not 0 < network.share <= 1 or (network.share < 1 and not network.start):
        return f"network.share = {network.share}: must be above 0 and up to 1, and below 1 only with a start"
    if how.batch < 2 or how.pictures < how.batch:
        return f"optimisation.pictures = {how.pictures}: must be at least one batch, of at least 2"
    if how.epochs < 1 or not 0 < how.rate < 1 or not 0 <= how.average < 1 or how.validate < 1:
        return "optimisation: epochs and validate must be at least 1, rate and average between 0 and 1"
    if len(recipe.classes) > CLASSES_MAX or len(set(recipe.classes)) < len(recipe.classes):
        return f"classes: must be up to {CLASSES_MAX} different names"
    for name in recipe.classes:
        if not LABEL.fullmatch(name):
            return f"classes: {name[:60]!r} is not a name; use small letters, digits and _, as in buoy_red"
    return ""


def save(recipe: Recipe, path: Path) -> None:
    import tomli_w

    path.write_text(tomli_w.dumps(msgspec.to_builtins(recipe)), encoding="utf-8")
