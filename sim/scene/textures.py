"""Periodic textures, made once from a seed: noise and caustics to look up instead of computing them per pixel."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

SIDE = 256
"""Pixels of a tile; an extra row and column repeat the first, so that interpolation wraps."""


def _random(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def _spectrum(seed: int, slope: float) -> NDArray[np.float64]:
    """(SIDE, SIDE) noise whose amplitude falls with frequency to the power of −`slope`; mean 0.5, within 0..1."""
    f = np.fft.fftfreq(SIDE) * SIDE
    k = np.hypot(f[:, None], f[None, :])
    k[0, 0] = np.inf
    field = np.fft.ifft2(np.fft.fft2(_random(seed).standard_normal((SIDE, SIDE))) * k**-slope).real
    return np.asarray(np.clip(0.5 + 0.2 * field / field.std(), 0.0, 1.0))


def _tile(*channels: NDArray[np.float64]) -> Tensor:
    """(1, C, SIDE + 1, SIDE + 1) float32."""
    stack = np.pad(np.stack(channels), ((0, 0), (0, 1), (0, 1)), mode="wrap")
    return torch.from_numpy(stack.astype(np.float32))[None]


@lru_cache
def noise(device: torch.device) -> Tensor:
    """Two channels: broad clouds (1/f^1.6) and rough grain (1/f^0.7)."""
    return _tile(_spectrum(1, 1.6), _spectrum(2, 0.7)).to(device)


@lru_cache
def caustics(device: torch.device) -> Tensor:
    """One channel, mean 1: light focused by a rough surface. Rays through a periodic surface of 60 waves are refracted
    by its slope and counted where they land."""
    random, fine = _random(3), 4 * SIDE
    x, y = np.meshgrid(np.arange(fine) / fine, np.arange(fine) / fine)
    waves = np.zeros((2, fine, fine), np.complex128)
    for _ in range(60):
        k = np.round(random.normal(0, 4.0, 2))
        strength, phase = random.normal() / max(1.0, float(np.hypot(*k))) ** 1.3, random.uniform(0, 2 * np.pi)
        waves[:, int(k[1]), int(k[0])] += k * strength * np.exp(1j * phase)
    dx, dy = np.fft.ifft2(waves).real * fine**2  # the slopes along x and y
    reach = 0.028 / np.hypot(dx, dy).std()
    cell = [np.floor((u + reach * d) % 1.0 * SIDE).astype(np.int64) % SIDE for u, d in ((y, dy), (x, dx))]
    light = np.bincount(cell[0].ravel() * SIDE + cell[1].ravel(), minlength=SIDE * SIDE).reshape(SIDE, SIDE)
    smooth = np.mean([np.roll(light, shift, (0, 1)) for shift in ((0, 0), (0, 1), (1, 0), (1, 1))], axis=0)
    return _tile(np.minimum(smooth / smooth.mean(), 5.0)).to(device)


@lru_cache
def grain(device: torch.device) -> Tensor:
    """(3, SIDE, SIDE) standard normal, for the sensor's noise."""
    return torch.from_numpy(_random(4).standard_normal((3, SIDE, SIDE)).astype(np.float32)).to(device)


def flakes(number: int, device: torch.device) -> Tensor:
    """(number, 6) uniform in 0..1: place and appearance of particles."""
    return torch.from_numpy(_random(5).uniform(size=(number, 6)).astype(np.float32)).to(device)


def sample(tile: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """(C, …) of a tile at (u, v); the tile repeats at every whole number."""
    where = torch.stack((u, v), -1)
    where = where.sub_(where.floor()).mul_(2).sub_(1).view(1, -1, 1, 2)
    got = F.grid_sample(tile, where, mode="bilinear", align_corners=True)
    return got.view(tile.shape[1], *u.shape)
