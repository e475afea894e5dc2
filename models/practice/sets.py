"""MNIST and Fashion-MNIST through torchvision, whose `FashionMNIST` is its `MNIST` class with other URLs and names."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torchvision import datasets
from torchvision.transforms import v2

from models.data import data_root
from rov import toml
from rov.errors import UserError

Name = Literal["mnist", "fashion-mnist"]
KINDS: dict[Name, type[datasets.MNIST]] = {"mnist": datasets.MNIST, "fashion-mnist": datasets.FashionMNIST}
MEAN_STD: dict[Name, tuple[float, float]] = {"mnist": (0.1307, 0.3081), "fashion-mnist": (0.2860, 0.3530)}
"""Of the training pictures' pixels, 0..1."""
VALIDATION = 5000
"""Pictures of the 60,000 that no model learns from; the same ones for every seed."""
GROUP = 8
"""Pictures that share a random draw of the augmentation: drawing for each one alone takes six times as long."""


class Split(NamedTuple):
    """Pictures (N, 1, 28, 28) uint8 and their classes (N,) int64."""

    pictures: Tensor
    labels: Tensor


class PracticeSet(NamedTuple):
    """One set. The test split is the set's own; it chooses nothing."""

    name: Name
    classes: tuple[str, ...]
    train: Split
    val: Split
    test: Split
    sha256: str
    """Of all pictures and labels."""


def load_set(name: Name, cache: Path, limit: int = 0) -> PracticeSet:
    """The set, from the files in ROV_DATA/mnist where they are, else from where torchvision fetches them. `cache`: a
    folder for the unpacked files. `limit`: learn from so many pictures only; 0: all. Raises UserError."""
    kind = KINDS[name]
    _copy(kind.__name__, cache)
    try:
        whole, test = (kind(str(cache), train=train, download=True) for train in (True, False))
    except (RuntimeError, OSError) as error:  # URLError is an OSError
        raise UserError(
            f"{name}: neither in {data_root() / 'mnist'} (set ROV_DATA) nor to be fetched: {error}"
        ) from None
    order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(0))
    val, train = order[:VALIDATION], order[VALIDATION:]
    train = train[:limit] if limit else train
    digest = hashlib.sha256()
    for part in (whole.data, whole.targets, test.data, test.targets):
        digest.update(part.numpy().tobytes())
    return PracticeSet(
        name,
        tuple(whole.classes),
        Split(whole.data[train, None], whole.targets[train]),
        Split(whole.data[val, None], whole.targets[val]),
        Split(test.data[:, None], test.targets),
        digest.hexdigest(),
    )


def _copy(kind: str, cache: Path) -> None:
    """Copy the local files, which may be read-only, to where torchvision unpacks them."""
    folder = cache / kind / "raw"
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted((data_root() / "mnist" / kind / "raw").glob("*.gz")):
        if not (folder / path.name).exists():
            shutil.copyfile(path, folder / path.name)


def data_card(name: Name) -> dict[str, Any]:
    """The card of a set: who made it, how, for what, and what it must not be used for."""
    path = Path(__file__).with_name(f"{name}.toml")
    return toml.parse(toml.read_text(path))


def prepared(name: Name, pictures: Tensor) -> Tensor:
    """The network's input: (B, 1, 28, 28) uint8 -> float, with mean 0 and variance 1 over the training pictures."""
    mean, std = MEAN_STD[name]
    steps = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize([mean], [std])])
    out = steps(pictures)
    assert isinstance(out, Tensor)
    return out.contiguous(memory_format=torch.channels_last)


def augmented(name: Name, pictures: Tensor) -> Tensor:
    """Pictures that could be of the same class: digits slanted, turned and moved; clothes mirrored and moved, a part
    hidden. Draws from torch's global generator."""
    if name == "mnist":
        change = v2.RandomAffine(8, (0.08, 0.08), (0.9, 1.1), 6, v2.InterpolationMode.BILINEAR)
    else:
        hide = v2.RandomErasing(0.5, (0.02, 0.2), value=0)
        change = v2.Compose([v2.RandomHorizontalFlip(), v2.RandomCrop(28, padding=2), hide])
    return torch.cat([change(group) for group in pictures.split(GROUP)])
