"""CMA-ES: searches a minimum by sampling and ranking alone (Hansen, "The CMA Evolution Strategy: A Tutorial",
arXiv 1604.00772, with the constants of its table 1). Parameters lie in 0..1; samples beyond are clipped."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from rov.types import Floats


class Search(NamedTuple):
    """The state between generations; arrays and numbers alone, so that it can be saved."""

    mean: Floats
    """(K,)."""
    sigma: float
    covariance: Floats
    """(K, K)."""
    path_sigma: Floats
    path_covariance: Floats
    generation: int


def begin(start: Floats, sigma: float = 0.2) -> Search:
    """A search around `start` (K,) in 0..1."""
    k = len(start)
    return Search(np.array(start, dtype=float), sigma, np.eye(k), np.zeros(k), np.zeros(k), 0)


def ask(search: Search, population: int, random: np.random.Generator) -> Floats:
    """Candidates (population, K) in 0..1; the first is the mean itself, so that the best of all is known to be judged
    as often as it is changed."""
    values, vectors = np.linalg.eigh(search.covariance)
    root = vectors * np.sqrt(np.maximum(values, 1e-12))
    step = random.standard_normal((population, len(search.mean))) @ root.T
    step[0] = 0.0
    return np.asarray(np.clip(search.mean + search.sigma * step, 0.0, 1.0))


def tell(search: Search, candidates: Floats, costs: Floats) -> Search:
    """The search after candidates (P, K) were found to cost (P,)."""
    k, half = len(search.mean), len(candidates) // 2
    weights = math.log(half + 0.5) - np.log(np.arange(1, half + 1))
    weights /= weights.sum()
    effective = 1 / (weights**2).sum()
    c_sigma = (effective + 2) / (k + effective + 5)
    damping = 1 + 2 * max(0.0, math.sqrt((effective - 1) / (k + 1)) - 1) + c_sigma
    c_path = (4 + effective / k) / (k + 4 + 2 * effective / k)
    c_one = 2 / ((k + 1.3) ** 2 + effective)
    c_mu = min(1 - c_one, 2 * (effective - 2 + 1 / effective) / ((k + 2) ** 2 + effective))
    usual = math.sqrt(k) * (1 - 1 / (4 * k) + 1 / (21 * k * k))  # length of a standard normal vector

    steps = (candidates[np.argsort(costs)[:half]] - search.mean) / search.sigma
    moved = weights @ steps
    values, vectors = np.linalg.eigh(search.covariance)
    whitened = vectors @ ((vectors.T @ moved) / np.sqrt(np.maximum(values, 1e-12)))
    path_sigma = (1 - c_sigma) * search.path_sigma + math.sqrt(c_sigma * (2 - c_sigma) * effective) * whitened
    length = float(np.linalg.norm(path_sigma))
    steady = length / math.sqrt(1 - (1 - c_sigma) ** (2 * search.generation + 2)) < (1.4 + 2 / (k + 1)) * usual
    path = (1 - c_path) * search.path_covariance + steady * math.sqrt(c_path * (2 - c_path) * effective) * moved
    covariance = (
        (1 - c_one - c_mu + (not steady) * c_one * c_path * (2 - c_path)) * search.covariance
        + c_one * np.outer(path, path)
        + c_mu * (weights * steps.T) @ steps
    )
    sigma = min(search.sigma * math.exp(c_sigma / damping * (length / usual - 1)), 0.5)
    return Search(search.mean + search.sigma * moved, sigma, covariance, path_sigma, path, search.generation + 1)


def as_plain(search: Search) -> dict[str, Any]:
    """The search as JSON takes it."""
    return {
        name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in search._asdict().items()
    }


def from_plain(values: dict[str, Any]) -> Search:
    """The inverse of `as_plain`."""
    arrays = {name: np.array(value) for name, value in values.items() if isinstance(value, list)}
    return Search(**{**values, **arrays})
