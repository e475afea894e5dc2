"""How the water of a picture looks: colour cast, veil and contrast, so that sets and their splits can be compared."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from rov.types import Image

WIDTH = 256
"""Pictures are measured at this width."""
PATCH = 15
"""px of the dark channel's patch at that width (He, Sun and Tang 2009 use 15)."""


class Looks(NamedTuple):
    """Of one picture."""

    red_green: float
    """CIE a* of the mean colour: below 0 green, above 0 red. Grey is 0."""
    blue_yellow: float
    """CIE b* of the mean colour: below 0 blue, above 0 yellow."""
    veil: float
    """0 … 1: the mean of the dark channel of green and blue (Drews et al. 2013): what scattered light adds everywhere.
    Turbid or far is high; a bright sandy floor raises it too."""
    contrast: float
    """Standard deviation of CIE L* over the picture, 0 … 50."""
    sharpness: float
    """Variance of the Laplacian of the grey picture: low when blurred, far, or without texture."""
    brightness: float
    """Mean CIE L*, 0 … 100."""


def looks_of(image: Image) -> Looks:
    """Measure a BGR picture."""
    height, width = image.shape[:2]
    size = (WIDTH, max(1, round(height * WIDTH / width)))
    small = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.float32) / 255
    lab = np.asarray(cv2.cvtColor(small, cv2.COLOR_BGR2LAB))
    mean = np.asarray(cv2.cvtColor(small.mean((0, 1), keepdims=True), cv2.COLOR_BGR2LAB))[0, 0]
    dark = np.asarray(cv2.erode(small[..., :2].min(-1), np.ones((PATCH, PATCH))))
    grey = np.asarray(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY)) * 255
    return Looks(
        float(mean[1]), float(mean[2]), float(dark.mean()), float(lab[..., 0].std()),
        float(np.asarray(cv2.Laplacian(grey, cv2.CV_32F)).var()), float(lab[..., 0].mean()),
    )  # fmt: skip
