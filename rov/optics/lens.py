"""A calibrated camera: rectifies pictures, maps boxes back, and turns pixels into angles.

Messages keep their boxes in pixels of the original picture; only the network sees the rectified one. Distortion models
are ROS's: `plumb_bob` (k1 k2 p1 p2 k3) and `equidistant` (the fisheye model, k1 k2 k3 k4).
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np

from rov.errors import UserError
from rov.messages import Box, Detection
from rov.optics import camera_info
from rov.optics.camera_info import CalibrationError as CalibrationError
from rov.printing import printable
from rov.types import Floats, Image

EDGE_POINTS = 5
"""Points per edge of a box that are mapped between pictures: straight edges become curves."""


class Calibration(NamedTuple):
    """A camera's calibration: size in pixels, matrix (3, 3), distortion coefficients (5,) or (4,)."""

    name: str
    width: int
    height: int
    matrix: Floats
    model: Literal["plumb_bob", "equidistant"]
    distortion: Floats

    @property
    def hfov_deg(self) -> float:
        """Angle between the left and the right edge of the picture, at the height of the optical axis."""
        cy = float(self.matrix[1, 2])
        left, right = undistorted(self, np.array([[0.0, cy], [self.width, cy]]))
        return math.degrees(math.atan(right[0]) - math.atan(left[0]))


def reach(calibration: Calibration) -> float:
    """The radius on the plane one unit ahead up to which the model is valid: where the distorted radius stops growing.
    A polynomial fitted to boards in the middle of a wide picture may turn back before the corners."""
    if calibration.model == "equidistant":
        return math.tan(math.radians(89.0))  # at 90° a ray never meets the plane
    k1, k2, _, _, k3 = calibration.distortion
    roots = np.roots([7 * k3, 5 * k2, 3 * k1, 1.0])  # of d/dr (r + k1 r^3 + k2 r^5 + k3 r^7), in r^2
    turns = [root.real for root in roots if abs(root.imag) < 1e-9 and root.real > 0]
    return math.sqrt(min(turns)) if turns else math.inf


def undistorted(calibration: Calibration, pixels: Floats) -> Floats:
    """Pixels (N, 2) of the original picture -> (N, 2) on the plane one unit ahead: x to starboard, y down. Pixels
    beyond the model's reach get the direction at its edge."""
    points = np.asarray(pixels, np.float64).reshape(-1, 2)
    if calibration.model == "equidistant":
        found = cv2.fisheye.undistortPoints(points[:, None], calibration.matrix, calibration.distortion)
        return np.asarray(found, np.float64).reshape(-1, 2)
    end = reach(calibration)
    if math.isfinite(end):
        k1, k2, _, _, k3 = calibration.distortion
        limit = 0.999 * end * (1 + k1 * end**2 + k2 * end**4 + k3 * end**6)
        focal, centre = calibration.matrix[[0, 1], [0, 1]], calibration.matrix[:2, 2]
        seen = (points - centre) / focal
        radius = np.hypot(seen[:, 0], seen[:, 1])
        points = centre + focal * seen * np.minimum(1.0, limit / np.maximum(radius, 1e-12))[:, None]
    # many iterations: the default of 5 leaves an error of pixels in the corners of a wide lens
    rounds = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 500, 1e-12)
    found = cv2.undistortPoints(points[:, None], calibration.matrix, calibration.distortion, criteria=rounds)
    return np.asarray(found, np.float64).reshape(-1, 2)


def distorted(calibration: Calibration, directions: Floats) -> Floats:
    """The inverse of `undistorted`: directions (N, 2) on the plane one unit ahead -> pixels (N, 2)."""
    points = np.column_stack([directions, np.ones(len(directions))]).reshape(-1, 1, 3)
    none = np.zeros(3)
    project = cv2.fisheye.projectPoints if calibration.model == "equidistant" else cv2.projectPoints
    found = project(points, none, none, calibration.matrix, calibration.distortion)[0]
    return np.asarray(found, np.float64).reshape(-1, 2)


class Lens:
    """Rectifies the pictures of one camera, and maps boxes back to the original. The maps are computed once."""

    def __init__(self, calibration: Calibration):
        self.calibration = c = calibration
        self.matrix = c.matrix  # of the rectified picture: the same, so that the middle keeps its scale
        make: Any = cv2.fisheye.initUndistortRectifyMap if c.model == "equidistant" else cv2.initUndistortRectifyMap
        # 16-bit fixed-point maps: half the memory to read
        try:
            self.maps: Any = make(c.matrix, c.distortion, np.eye(3), self.matrix, (c.width, c.height), cv2.CV_16SC2)
        except (cv2.error, MemoryError):
            raise CalibrationError(
                f"the calibration {c.name}: not enough memory for the maps of its pictures of {c.width}×{c.height}"
            ) from None

    @property
    def hfov_deg(self) -> float:
        """Horizontal field of view of the rectified picture."""
        fx, cx = float(self.matrix[0, 0]), float(self.matrix[0, 2])
        return math.degrees(math.atan((self.calibration.width - cx) / fx) + math.atan(cx / fx))

    def fits(self, width: int, height: int) -> bool:
        """Whether the calibration is of pictures of this size."""
        return (width, height) == (self.calibration.width, self.calibration.height)

    def check(self, width: int, height: int) -> None:
        """Raises CalibrationError unless the calibration is of pictures of this size."""
        c = self.calibration
        if not self.fits(width, height):
            raise CalibrationError(
                f"the calibration {c.name} is of pictures of {c.width}×{c.height}, the camera gives {width}×{height}:"
                " calibrate at the size you dive with, or set camera.width and camera.height to the calibration's"
            )

    def rectify(self, image: Image) -> Image:
        """The rectified picture, of the same size. Raises CalibrationError for a picture of another size."""
        self.check(image.shape[1], image.shape[0])
        return np.asarray(cv2.remap(image, self.maps[0], self.maps[1], cv2.INTER_LINEAR), np.uint8)

    def unrectify(self, found: tuple[Detection, ...]) -> tuple[Detection, ...]:
        """Objects found in the rectified picture, with the boxes that enclose them in the original one."""
        return tuple(Detection(each.label, each.score, self._box(each.box)) for each in found)

    def angles(self, box: Box) -> tuple[float, float, float]:
        """Bearing and elevation (rad) of the middle of a box in the original picture, and its height as a fraction of
        the rectified picture's height."""
        x1, y1, x2, y2 = box
        middle, x = (x1 + x2) / 2, np.array([(x1 + x2) / 2, (y1 + y2) / 2])
        (across, down), (_, top), (_, bottom) = undistorted(self.calibration, np.array([x, [middle, y1], [middle, y2]]))
        size = float(bottom - top) * float(self.matrix[1, 1]) / self.calibration.height
        return math.atan(across), math.atan2(down, math.hypot(across, 1.0)), size

    def _box(self, box: Box) -> Box:
        x1, y1, x2, y2 = box
        xs, ys = np.linspace(x1, x2, EDGE_POINTS), np.linspace(y1, y2, EDGE_POINTS)
        edge = np.concatenate(
            [np.column_stack([xs, np.full_like(xs, y)]) for y in (y1, y2)]
            + [np.column_stack([np.full_like(ys, x), ys]) for x in (x1, x2)]
        )
        focal, centre = self.matrix[[0, 1], [0, 1]], self.matrix[:2, 2]
        around = distorted(self.calibration, (edge - centre) / focal)
        limit = np.array([self.calibration.width, self.calibration.height], float)
        low, high = around.min(0).clip(0, limit), around.max(0).clip(0, limit)
        return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def load(path: Path) -> Calibration:
    """Read a camera file (see `camera_info.py` for the formats). Raises CalibrationError with what is wrong."""
    found = camera_info.read(path)
    kind: Any = found.model
    matrix = np.array(found.matrix).reshape(3, 3)
    return Calibration(found.name, found.width, found.height, matrix, kind, np.array(found.distortion))


def save(calibration: Calibration, path: Path, notes: list[str]) -> None:
    """Write a ROS `camera_info` YAML, `notes` as comments above it. Raises UserError when it cannot be written."""
    c = calibration
    matrix = Lens(c).matrix
    projection = np.column_stack([matrix, np.zeros(3)])
    lines = [f"# {printable(note)}" for note in notes]
    lines += [f"image_width: {c.width}", f"image_height: {c.height}", f"camera_name: {_word(c.name)}"]
    lines += _written("camera_matrix", c.matrix)
    lines += [f"distortion_model: {c.model}"]
    lines += _written("distortion_coefficients", c.distortion.reshape(1, -1))
    lines += _written("rectification_matrix", np.eye(3)) + _written("projection_matrix", projection)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from None


def _written(name: str, values: Floats) -> list[str]:
    numbers = ", ".join(f"{value:.9g}" for value in values.ravel())
    return [f"{name}:", f"  rows: {values.shape[0]}", f"  cols: {values.shape[1]}", f"  data: [{numbers}]"]


def _word(text: str) -> str:
    """Text as a YAML scalar: quoted unless it is a plain word."""
    return text if re.fullmatch(r"[A-Za-z]\w*", text, re.ASCII) else json.dumps(text)
