"""The encoder: a small picture -> maps of inverse range with its variance and of a pipeline, and a vector that tells
whether the picture looks like those of the training."""

from __future__ import annotations

import math
from typing import NamedTuple, cast

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from rov.steering.policy_input import INVERSE_RANGE_MAX, LOG_VARIANCE
from rov.types import Image

HEIGHT, WIDTH = 48, 64
"""Of the picture that the encoder sees: the whole frame, squeezed, whatever its shape."""
EARLY, CHANNELS = 32, 48
"""Channels of the second layer, and of those after it."""
LOOKS = 2 * EARLY
"""Length of the vector that tells how a picture looks: mean and spread of each early channel. The later ones are what
the ranges need, alike in all waters, and almost alike on deck."""


class Encoded(NamedTuple):
    """What the encoder makes of N pictures; maps are (N, 1, 12, 16)."""

    inverse_range: Tensor
    """1/m, ≥ 0; of endless water 0."""
    log_variance: Tensor
    """Of the inverse range."""
    pipeline: Tensor
    """Logit that a cell shows a pipeline."""
    looks: Tensor
    """(N, LOOKS)."""


class Encoder(nn.Module):
    """Two halving convolutions, then residual blocks on the maps' grid, one of them on a grid half as fine."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 16, 5, stride=2, padding=2), nn.SiLU(),
            nn.Conv2d(16, EARLY, 3, stride=2, padding=1), nn.SiLU(),
            nn.Conv2d(EARLY, CHANNELS, 3, padding=1), nn.SiLU(),
        )  # fmt: skip
        self.context = nn.Linear(CHANNELS, CHANNELS)
        self.near = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
        self.wide = nn.Sequential(
            nn.AvgPool2d(2),
            nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), nn.SiLU(),
            nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), nn.SiLU(),
            nn.Upsample(scale_factor=2),
        )  # fmt: skip  # dilated convolutions reach as far, at twice the time
        self.last = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
        self.head = nn.Conv2d(CHANNELS, 3, 1)
        self.register_buffer("looks_mean", torch.zeros(LOOKS))
        self.register_buffer("looks_whitening", torch.eye(LOOKS))

    def forward(self, pictures: Tensor) -> Encoded:
        """Pictures (N, 3, HEIGHT, WIDTH), RGB in 0..1."""
        early = self.stem[:4]((pictures - 0.5) * 4)
        x = self.stem[4:](early)
        # Light and haze are the same all over the picture: each cell should know them.
        x = x + self.context(x.mean((2, 3)))[..., None, None]
        x = x + nn.functional.silu(self.near(x))
        x = x + self.wide(x)
        x = x + nn.functional.silu(self.last(x))
        inverse, spread, pipeline = self.head(x).chunk(3, dim=1)
        looks = torch.cat((early.mean((2, 3)), early.std((2, 3))), dim=1)
        inverse = nn.functional.softplus(inverse).clamp(max=INVERSE_RANGE_MAX)
        return Encoded(inverse, spread.clamp(*LOG_VARIANCE), pipeline, looks)

    def unlike(self, looks: Tensor) -> Tensor:
        """How unlike usual pictures (N,) are with these looks (N, LOOKS): the Mahalanobis distance from their
        mean, divided by √LOOKS, so that a usual picture has about 1."""
        mean, whitening = cast(Tensor, self.looks_mean), cast(Tensor, self.looks_whitening)
        distance = ((looks - mean) @ whitening).square().sum(1).sqrt()
        return distance / math.sqrt(LOOKS)


def small_picture(image: Image) -> Tensor:
    """A frame (H, W, 3) BGR as the encoder's input (1, 3, HEIGHT, WIDTH), RGB in 0..1."""
    small = cv2.resize(image, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    rgb = np.ascontiguousarray(small[:, :, ::-1].transpose(2, 0, 1))
    return torch.from_numpy(rgb)[None].to(torch.float32) / 255
