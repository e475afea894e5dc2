"""The maps that the encoder would make of a picture, from the caster's ranges with noise; batched."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from rov.steering.policy_input import COLUMNS, INVERSE_RANGE_MAX, ROWS
from sim.tasks.course import Conditions
from sim.tasks.noise import RangeNoise

PATCH_ROWS, PATCH_COLUMNS = 3, 4
"""Errors are alike over patches of 4 × 4 cells."""
HAZE_PATCHES = 0.6
"""Deviation of the logarithm of the haze from patch to patch."""
NIGHT_PER_M = 0.4
"""Lamps fade with the square of the range, too: optical depth per m, beside twice the way through the water."""


class MapErrors(NamedTuple):
    """What stays of the errors from frame to frame, standard normal."""

    patches: Tensor
    """(N, 2, PATCH_ROWS, PATCH_COLUMNS) of the inverse range and of the pipeline."""
    place: Tensor
    """(N, 2) of both: of the water and the ground of a whole episode."""
    target: Tensor
    """(N,) even from 0 to 1: how thin the followed thing is, for a whole episode."""
    haze: Tensor
    """(N, 2) of the haze of a whole episode, and of how it changes down the picture."""
    pipe: Tensor
    """(N,) of how well a pipeline stands out, for a whole episode."""


class Maps(NamedTuple):
    """(N, ROWS, COLUMNS) each."""

    inverse_range: Tensor
    log_variance: Tensor
    pipeline: Tensor
    seen: Tensor
    """0..1: how much of the truth comes through the water."""


def optical_depth(conditions: Conditions, far: Tensor) -> Tensor:
    """Attenuation along ranges `far` (N, …) m."""
    shape = (-1, *[1] * (far.dim() - 1))
    c, night = conditions.attenuation.reshape(shape), conditions.night.reshape(shape)
    return far * torch.where(night, 2 * c + NIGHT_PER_M, c)


def seen(noise: RangeNoise, depth: Tensor) -> Tensor:
    """Share of the information that is left at an optical depth."""
    return torch.sigmoid((noise.fade - depth) / noise.fade_width)


def start_errors(n: int, random: torch.Generator, places: torch.Generator) -> MapErrors:
    """Before the first picture. `places`: dice of their own for haze and pipeline."""
    patches = torch.randn(n, 2, PATCH_ROWS, PATCH_COLUMNS, generator=random, device=random.device)
    place = torch.randn(n, 2, generator=random, device=random.device)
    target = torch.rand(n, generator=random, device=random.device)
    haze = torch.randn(n, 2, generator=places, device=places.device)
    return MapErrors(patches, place, target, haze, torch.randn(n, generator=places, device=places.device))


def around_target(noise: RangeNoise, far: Tensor, behind: Tensor, errors: MapErrors) -> Tensor:
    """Ranges (N, ROWS, COLUMNS) that cells look like which the followed thing, a ball in `far`, fills only in part:
    beside a diver's arms and fins the encoder sees the water `behind` it. Its size in the picture tells how far it is;
    these cells do not."""
    shown = (noise.target_shown * errors.target)[:, None, None]
    return 1 / (shown / far + (1 - shown) / behind)


def uncertainty(noise: RangeNoise, inverse: Tensor) -> Tensor:
    """Standard deviation of the logarithm of an inverse range: what is near fills the picture and shows little else."""
    return noise.share * inverse / (inverse + noise.half)


def haze(noise: RangeNoise, drawn: Tensor) -> Tensor:
    """(N, ROWS, 1) 1/m by how much all things look nearer than they are: in water of a kind that the encoder knows
    little of, much. `drawn` (N, 2) as in MapErrors."""
    down = torch.linspace(-1, 1, ROWS, device=drawn.device)
    slope = 0.5 * torch.tanh(drawn[:, 1:])
    return (noise.haze * torch.exp(noise.haze_place * drawn[:, :1]) * (1 + slope * down))[:, :, None]


def picture_maps(
    noise: RangeNoise,
    conditions: Conditions,
    far: Tensor,
    pipe: Tensor,
    errors: MapErrors,
    dt: float,
    random: torch.Generator,
) -> tuple[Maps, MapErrors]:
    """Maps from ranges `far` (N, ROWS, COLUMNS) m and where a pipeline is (bool), `dt` s after the last."""
    keep = math.exp(-dt / noise.persistent_s)
    fresh = torch.randn(errors.patches.shape, generator=random, device=far.device)
    patches = keep * errors.patches + math.sqrt(1 - keep * keep) * fresh
    wide = patches.repeat_interleave(ROWS // PATCH_ROWS, 2).repeat_interleave(COLUMNS // PATCH_COLUMNS, 3)
    fine = torch.randn(far.shape, generator=random, device=far.device)
    error = math.sqrt(noise.persistent) * wide[:, 0] + math.sqrt(1 - noise.persistent) * fine

    clear = seen(noise, optical_depth(conditions, far))
    inverse = 1 / far.clamp(min=1 / INVERSE_RANGE_MAX)
    factor = uncertainty(noise, inverse) * error + noise.place * errors.place[:, :1, None]
    said = clear * (inverse * factor.exp() + noise.floor * error) + (1 - clear) * (
        noise.unseen + noise.unseen_error * error
    )
    hazy = haze(noise, errors.haze)
    said = (said + hazy * (HAZE_PATCHES * error).exp()).clamp(0.0, INVERSE_RANGE_MAX)
    # How unsure the encoder is depends on what it believes, not on what is there.
    variance = (uncertainty(noise, said) * said).square() + noise.said_floor**2 + (noise.haze_said * hazy).square()
    log_variance = variance.log() + noise.log_variance_error * wide[:, 1]
    gap = (noise.pipeline_gap + noise.pipeline_gap_place * errors.pipe).clamp(min=0.0)[:, None, None]
    odds = noise.pipeline_off + noise.pipeline_place * errors.place[:, 1:, None] + gap * pipe * clear
    pipeline = torch.sigmoid(odds + noise.pipeline_error * (0.7 * wide[:, 1] + 0.7 * fine.flip(1)))
    return Maps(said, log_variance, pipeline, clear), errors._replace(patches=patches)
