"""Water and light of scenes as tensors that the renderer broadcasts over pixels."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sim.scene.scene import Scene


class Air(NamedTuple):
    """Water and light of each scene, to broadcast over pixels: five (3, S, 1) per colour, then (S, 1)."""

    beam: Tensor
    blurred: Tensor
    veiling: Tensor
    diffuse: Tensor
    veil: Tensor
    sun: Tensor
    level: Tensor
    """Sine of the sun's elevation in the water."""
    north: Tensor
    """How far the sun's rays go north for each metre down; below, east."""
    east: Tensor
    day: Tensor
    caustics: Tensor
    lamps: Tensor

    def of(self, row: Tensor) -> Air:
        """(3, K) and (K,) of the rows; a single scene is broadcast to all."""
        return Air(*(_of(each, row) for each in self))


def stack(scenes: list[Scene], device: torch.device) -> Air:
    """The tensors of all scenes."""

    def tensor(values: object) -> Tensor:
        return torch.tensor(np.array(values), dtype=torch.float32, device=device)

    lights = [each.light for each in scenes]
    single = (
        [each.sun for each in lights],
        [math.sin(each.elevation) for each in lights],
        [math.cos(each.azimuth) / math.tan(each.elevation) for each in lights],
        [math.sin(each.azimuth) / math.tan(each.elevation) for each in lights],
        [each.day for each in lights],
        [each.caustics for each in lights],
        [each.lamps for each in lights],
    )
    return Air(
        *(tensor([getattr(each.water, name) for each in scenes]).t()[..., None] for name in Air._fields[:5]),
        *(tensor(values)[:, None] for values in single),
    )


def _of(each: Tensor, row: Tensor) -> Tensor:
    """(…, S, 1) to (…, K)."""
    flat = each[..., 0]
    return flat if flat.shape[-1] == 1 else flat.index_select(-1, row)
