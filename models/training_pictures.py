"""The training pictures: drawn by the shares of their sets, composed and changed, with what the network should say."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models import augment, data
from models.objective import Targets, targets
from models.recipe import Recipe
from rov.errors import UserError
from rov.media.pictures import read_image
from rov.types import Image

PASTED = "buoy_"
"""Classes whose objects are round enough to be pasted into other pictures."""
PASTED_MIN = 16
"""Least side of an object that is pasted, px."""
LARGER = 1.34
"""Pictures are kept at up to this many times the network's input."""


class Pictures:
    """The training pictures, decoded once and kept on the device. What is drawn from them, and how it is changed,
    depends on the seed, the epoch and the batch alone."""

    def __init__(self, recipe: Recipe, classes: tuple[str, ...], device: torch.device):
        self.recipe, self.device = recipe, device
        self.sets = {name: data.load(name, "train", classes) for name in recipe.sets}
        if empty := [name for name, samples in self.sets.items() if not samples]:
            raise UserError(f"data set {empty[0]!r} has no pictures in its train split")
        samples = [sample for each in self.sets.values() for sample in each]
        with ThreadPoolExecutor() as pool:
            made = list(pool.map(lambda sample: self._read(sample), samples))
        self.pixels = [torch.from_numpy(image).permute(2, 0, 1).to(device) for image, _ in made]
        self.sources = [source for _, source in made]
        self.cutouts = np.array([(i, j) for i, each in enumerate(self.sources) for j in _pasted(each, classes)])
        self.known = torch.from_numpy(np.stack([sample.known for sample in samples])).float().to(device)

    def _read(self, sample: data.Sample) -> tuple[Image, augment.Source]:
        image = read_image(sample.path)
        scale = min(1.0, LARGER * self.recipe.network.size / max(image.shape[:2]))
        if scale < 1:
            image = np.asarray(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)
        boxes = (sample.boxes * scale).astype(np.float32)
        return image, augment.Source(image.shape[0], image.shape[1], boxes, sample.kinds)

    def draw(self, epoch: int) -> NDArray[np.int64]:
        """The epoch's pictures, shuffled: each set's share, and no picture of a set again before all were there."""
        rng = np.random.default_rng((self.recipe.optimisation.seed, epoch))
        shares = np.cumsum([0.0, *self.recipe.sets.values()])
        edges = np.round(shares / shares[-1] * self.recipe.optimisation.pictures).astype(int)
        drawn, first = [], 0
        for samples, count in zip(self.sets.values(), np.diff(edges), strict=True):
            orders = [rng.permutation(len(samples)) for _ in range(-(-int(count) // len(samples)))]
            drawn.append(first + np.concatenate([*orders, np.zeros(0, np.int64)])[:count])
            first += len(samples)
        return rng.permutation(np.concatenate(drawn)).astype(np.int64)

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Targets]]:
        """Pairs of pictures (B, 3, S, S) 0..255 and their targets."""
        how, n, size = self.recipe.augmentation, self.recipe.optimisation.batch, self.recipe.network.size
        plans = Plans(self.recipe, self.sources, self.cutouts, self.draw(epoch), epoch)
        workers = 2 if self.device.type == "cuda" else 0  # plan while the device works
        for made, seed in torch.utils.data.DataLoader(plans, batch_size=None, num_workers=workers, collate_fn=_as_is):
            rng = np.random.default_rng(seed)
            x = augment.compose(self.pixels, made, n, size, rng)
            yield augment.water(x, how, rng), targets(made, self.known, n, size)


class Plans(torch.utils.data.Dataset[tuple[augment.Plan, tuple[int, ...]]]):
    """The plans of an epoch's batches, each with the seed of its pixels."""

    def __init__(
        self,
        recipe: Recipe,
        sources: list[augment.Source],
        cutouts: NDArray[np.int64],
        drawn: NDArray[np.int64],
        epoch: int,
    ):
        self.recipe, self.sources, self.cutouts, self.drawn, self.epoch = recipe, sources, cutouts, drawn, epoch

    def __len__(self) -> int:
        return self.recipe.batches()

    def __getitem__(self, i: int) -> tuple[augment.Plan, tuple[int, ...]]:
        if i >= len(self):
            raise IndexError(i)
        n, seed = self.recipe.optimisation.batch, (self.recipe.optimisation.seed, self.epoch, i)
        chosen = self.drawn[i * n : (i + 1) * n]
        size, rng = self.recipe.network.size, np.random.default_rng((*seed, 0))
        made = augment.plan(self.sources, self.cutouts, chosen, self.drawn, size, self.recipe.augmentation, rng)
        return made, (*seed, 1)


def _as_is(each: Any) -> Any:
    return each


def _pasted(source: augment.Source, classes: tuple[str, ...]) -> NDArray[np.int64]:
    """Indices of a picture's objects that may be pasted elsewhere."""
    round_ = np.array([classes[kind].startswith(PASTED) for kind in source.kinds], bool)
    return np.flatnonzero(round_ & ((source.boxes[:, 2:] - source.boxes[:, :2]).min(1, initial=np.inf) >= PASTED_MIN))
