"""The lens: a pinhole with a distortion of ROS camera_info, drawn or measured. Its inverse, the rays, is found once."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np

from rov.optics.lens import Calibration, distorted, reach, undistorted
from rov.types import Floats

WIDEST = math.tan(math.radians(85.0))
"""Limit of a fisheye's rays on the plane one unit ahead; wider rays are clamped to it."""


class Lens(NamedTuple):
    """In pixels; the centre of the first pixel is (0, 0). Camera axes: x right, y down, z ahead."""

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    distortion: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0, 0.0)
    """k1 k2 p1 p2 k3, or k1 k2 k3 k4 of a fisheye, in the order of ROS camera_info and OpenCV."""
    model: Literal["plumb_bob", "equidistant"] = "plumb_bob"

    @classmethod
    def wide(
        cls,
        width: int,
        height: int,
        hfov_deg: float,
        distortion: tuple[float, float, float, float, float] = (0.0, 0.0, 0.0, 0.0, 0.0),
    ) -> Lens:
        """A centred lens; `hfov_deg` is its horizontal field of view without distortion."""
        focal = 0.5 * width / math.tan(math.radians(hfov_deg) / 2)
        return cls(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2, distortion)

    def scaled(self, width: int, height: int) -> Lens:
        """The same lens on a sensor with other pixels."""
        x, y = width / self.width, height / self.height
        cx, cy = (self.cx + 0.5) * x - 0.5, (self.cy + 0.5) * y - 0.5
        return Lens(width, height, self.fx * x, self.fy * y, cx, cy, self.distortion, self.model)

    @classmethod
    def of(cls, calibration: Calibration) -> Lens:
        """A measured lens."""
        (fx, _, cx), (_, fy, cy), _ = calibration.matrix.tolist()
        return cls(
            calibration.width,
            calibration.height,
            fx,
            fy,
            cx,
            cy,
            tuple(calibration.distortion.tolist()),
            calibration.model,
        )

    @property
    def calibration(self) -> Calibration:
        matrix = np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1.0]])
        return Calibration("lens", self.width, self.height, matrix, self.model, np.array(self.distortion))

    @property
    def reach(self) -> float:
        """Radius on the pinhole's plane up to which the distortion is valid."""
        return reach(self.calibration)

    def project(self, points: Floats) -> Floats:
        """(…, 3) in camera axes, ahead of it, to (…, 2) pixels."""
        plane = points[..., :2] / points[..., 2:]
        return distorted(self.calibration, plane.reshape(-1, 2)).reshape(plane.shape)

    def rays(self) -> Floats:
        """(3, height, width) unit directions in camera axes. Pixels beyond the lens' reach get the ray at its edge."""
        column, row = np.meshgrid(np.arange(self.width, dtype=float), np.arange(self.height, dtype=float))
        plane = undistorted(self.calibration, np.stack((column.ravel(), row.ravel()), -1))
        if self.model == "equidistant":
            plane *= np.minimum(1, WIDEST / np.maximum(np.hypot(*plane.T), 1e-12))[:, None]
        rays = np.vstack((plane.T, np.ones(len(plane)))).reshape(3, self.height, self.width)
        return np.asarray(rays / np.linalg.norm(rays, axis=0))
