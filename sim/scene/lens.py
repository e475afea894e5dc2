"""The lens: pinhole and ROS `plumb_bob` distortion. Rays are found once, by inverting the distortion."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

ITERATIONS = 60
"""Of the fixed point that inverts the distortion; it contracts by 0.3 or better where a real lens is used."""


class Lens(NamedTuple):
    """In pixels; the centre of the first is (0, 0). Camera axes: x right, y down, z ahead."""

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    distortion: tuple[float, float, float, float, float] = (0.0, 0.0, 0.0, 0.0, 0.0)
    """k1 k2 p1 p2 k3, in the order of ROS camera_info and OpenCV."""

    @classmethod
    def wide(
        cls,
        width: int,
        height: int,
        hfov_deg: float,
        distortion: tuple[float, float, float, float, float] = (0.0, 0.0, 0.0, 0.0, 0.0),
    ) -> Lens:
        """A centred lens; `hfov_deg` is what it would see without its distortion."""
        focal = 0.5 * width / math.tan(math.radians(hfov_deg) / 2)
        return cls(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2, distortion)

    def scaled(self, width: int, height: int) -> Lens:
        """The same lens on a sensor with other pixels."""
        x, y = width / self.width, height / self.height
        cx, cy = (self.cx + 0.5) * x - 0.5, (self.cy + 0.5) * y - 0.5
        return Lens(width, height, self.fx * x, self.fy * y, cx, cy, self.distortion)

    def distort(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """From the pinhole's plane (x/z, y/z) to the distorted one."""
        k1, k2, p1, p2, k3 = self.distortion
        r2 = x * x + y * y
        radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
        return (
            x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
            y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y,
        )

    def undistort(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """The inverse of `distort`, within its monotonic part."""
        k1, k2, p1, p2, k3 = self.distortion
        u, v = x.copy(), y.copy()
        for _ in range(ITERATIONS):
            r2 = u * u + v * v
            radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
            u, v = (
                (x - 2 * p1 * u * v - p2 * (r2 + 2 * u * u)) / radial,
                (y - p1 * (r2 + 2 * v * v) - 2 * p2 * u * v) / radial,
            )
        return u, v

    def project(self, points: Floats) -> Floats:
        """(…, 3) in camera axes, ahead of it, to (…, 2) pixels."""
        x, y = self.distort(points[..., 0] / points[..., 2], points[..., 1] / points[..., 2])
        return np.stack((self.fx * x + self.cx, self.fy * y + self.cy), -1)

    def rays(self) -> Floats:
        """(3, height, width) unit directions in camera axes."""
        column, row = np.meshgrid(np.arange(self.width), np.arange(self.height))
        x, y = self.undistort(
            np.asarray((column - self.cx) / self.fx, np.float64), np.asarray((row - self.cy) / self.fy, np.float64)
        )
        rays = np.stack((x, y, np.ones_like(x)))
        return np.asarray(rays / np.linalg.norm(rays, axis=0))
