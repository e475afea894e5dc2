"""The models that are at hand: weights with their card, in folders. Reads cards and hashes, needs no network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rov import toml
from rov.errors import UserError
from rov.resources import PACKAGE, checkout
from rov.vision.model_card import ModelCard, ModelError, check

WEIGHTS = ".safetensors"


class StoredModel(NamedTuple):
    """A weights file with its card, or with the problem that keeps it from being used."""

    weights: Path
    card: ModelCard | None
    problem: str

    @property
    def name(self) -> str:
        return self.weights.stem


def usual_folders() -> list[Path]:
    """Where models are looked for: ./models, then those of the checkout or the package."""
    found: list[Path] = []
    for folder in (Path("models"), checkout() / "models", PACKAGE / "assets" / "models"):
        if folder.is_dir() and not any(folder.samefile(each) for each in found):
            found.append(folder)
    return found


def models_in(folders: Sequence[Path]) -> list[StoredModel]:
    """The detectors below folders, checked (hash, card, classes). Weights whose card describes another kind of network
    are left out. Raises UserError for a folder that is none."""
    found = []
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder")
        for weights in sorted(folder.rglob(f"*{WEIGHTS}")):
            if _is_detector(weights):
                found.append(checked(weights))
    return found


def checked(weights: Path) -> StoredModel:
    """One model, checked without its network."""
    try:
        return StoredModel(weights, check(weights), "")
    except ModelError as error:
        return StoredModel(weights, None, str(error))


def find_model(name: str, folders: Sequence[Path]) -> Path:
    """The weights file that a user names: a path, or the name of one model in the folders. Raises UserError."""
    path = Path(name)
    if path.suffix == WEIGHTS or path.parent != Path():
        if path.suffix != WEIGHTS:
            path = path.with_name(path.name + WEIGHTS)
        if not path.is_file():
            raise UserError(f"{path}: no such weights file")
        return path
    found = [each.weights for each in models_in(folders) if each.name == name]
    if len(found) > 1:
        raise UserError(f"{name}: there are {', '.join(map(str, found))}; name one by its path")
    if not found:
        known = ", ".join(sorted({each.name for each in models_in(folders)})) or "none"
        raise UserError(f"{name}: no such model in {', '.join(map(str, folders))}; there are {known}")
    return found[0]


def card_of(weights: Path) -> dict[str, Any]:
    """All of a model's card, for people. Raises UserError."""
    path = weights.with_suffix(".toml")
    try:
        return toml.parse(toml.read_text(path))
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from None


def _is_detector(weights: Path) -> bool:
    """Whether the card has what a detector's card has. Without a readable card: yes, so that it is reported."""
    try:
        return {"classes", "input"} <= card_of(weights).keys()
    except UserError:
        return True
