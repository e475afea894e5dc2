"""Calibration of a camera behind a flat port in water, from that in air: Snell's law, fitted with plumb_bob.

A ray that leaves the camera at θa from the normal of the port continues in the glass at sin θg = sin θa / n_glass and
in the water at sin θw = sin θa / n_water. The middle of the picture is magnified by n_water, its edges by more: a
pincushion. Such rays do not meet in one point, so the model is exact at one distance and good at others. A dome port
centred on the camera's pupil bends no ray: the calibration in air stays valid.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.optimize import least_squares

from rov.optics.lens import Calibration, distorted, reach, undistorted
from rov.types import Floats

N_WATER = 1.333
"""Of fresh water at 20 °C and 589 nm; sea water of 35 ‰ has 1.339."""
N_ACRYLIC = 1.49
"""PMMA, of which most flat ports of small rovers are made; polycarbonate has 1.585, borosilicate glass 1.47."""
GRID = 33
"""Points across and down the picture to which the model is fitted."""
REACH_SHARE = 0.8
"""Share of a pinhole model's reach that is used: near its end a pixel spans a wide range of angles."""


class Port(NamedTuple):
    """A flat port, normal to the camera's axis. Lengths in m."""

    gap: float = 0.01
    """From the camera's pupil to the inner face."""
    glass: float = 0.005
    n_glass: float = N_ACRYLIC
    n_water: float = N_WATER
    distance: float = 2.0
    """From the outer face to where the model is exact."""


class WaterFit(NamedTuple):
    """The model in water, and its distance from the traced rays in px: RMS, and the largest in the picture."""

    calibration: Calibration
    rms: float
    worst: float


def behind_flat_port(air: Calibration, port: Port) -> WaterFit:
    """The calibration in water of a camera calibrated in air."""
    x, y = np.meshgrid(np.linspace(0, air.width, GRID), np.linspace(0, air.height, GRID))
    pixels = np.column_stack([x.ravel(), y.ravel()])
    in_air = undistorted(air, pixels)
    radius = np.hypot(in_air[:, 0], in_air[:, 1])
    known = radius < REACH_SHARE * reach(air)  # where the model in air is valid
    pixels, in_air, radius = pixels[known], in_air[known], radius[known]
    slopes = apparent_slope(radius, port)
    in_water = in_air * (slopes / np.maximum(radius, 1e-12))[:, None]

    focal = air.matrix[[0, 1], [0, 1]] * port.n_water
    start = np.array([*focal, *np.zeros(5)])

    def model(values: Floats) -> Calibration:
        matrix = air.matrix.copy()
        matrix[0, 0], matrix[1, 1] = values[:2]
        return Calibration(f"{air.name}_water", air.width, air.height, matrix, "plumb_bob", np.array(values[2:]))

    def wrong(values: Floats) -> Floats:
        return (distorted(model(values), in_water) - pixels).ravel()

    found = least_squares(wrong, start, x_scale=np.array([*focal, 1.0, 1.0, 0.1, 0.1, 1.0]), method="trf")
    off = np.hypot(*wrong(found.x).reshape(-1, 2).T)
    return WaterFit(model(found.x), math.sqrt(float(np.mean(off**2))), float(off.max()))


def apparent_slope(slope: Floats, port: Port) -> Floats:
    """For rays that leave the camera at tan θa = `slope` (N,): the slope of the straight line from the camera's pupil
    to the point that they hit at `port.distance`."""
    sine = slope / np.hypot(1.0, slope)
    glass, water = (sine / n / np.sqrt(1 - (sine / n) ** 2) for n in (port.n_glass, port.n_water))
    away = port.gap * slope + port.glass * glass + port.distance * water
    return np.asarray(away / (port.gap + port.glass + port.distance))
