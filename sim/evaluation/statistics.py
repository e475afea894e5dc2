"""Intervals: of shares by Wilson, of paired ratios of energy by the bootstrap."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from rov.types import Floats

Z = 1.959964
"""Of a two-sided interval of 95 %."""
RESAMPLES = 2000


class Interval(NamedTuple):
    low: float
    high: float


def wilson(hits: int, of: int) -> Interval:
    """95 % interval of a share (Wilson 1927, JASA 22:209). Without any episode everything is possible."""
    if not of:
        return Interval(0.0, 1.0)
    share, squared = hits / of, Z * Z
    middle = (share + squared / (2 * of)) / (1 + squared / of)
    half = Z / (1 + squared / of) * math.sqrt(share * (1 - share) / of + squared / (4 * of * of))
    return Interval(max(0.0, middle - half) if hits else 0.0, min(1.0, middle + half) if hits < of else 1.0)


class Ratio(NamedTuple):
    """A geometric mean of paired ratios, with its 95 % interval."""

    mean: float
    low: float
    high: float


def paired_ratio(ours: Floats, theirs: Floats, seed: int) -> Ratio:
    """The ratio of paired numbers > 0, (N,) each: exp of the mean log ratio, bootstrapped over pairs (Efron 1979)."""
    logs = np.log(ours / theirs)
    draws = np.random.Generator(np.random.PCG64(seed)).integers(len(logs), size=(RESAMPLES, len(logs)))
    means = logs[draws].mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Ratio(float(np.exp(logs.mean())), float(np.exp(low)), float(np.exp(high)))
