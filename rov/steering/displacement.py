"""How far the picture moved since another one: corners followed by Lucas–Kanade, turned back by the attitude, and an
affine fit through those that agree. Without a DVL nothing else shows the speed over the ground.

Works on small grey pictures without their slow changes in brightness: the glow of the vehicle's own lamps stands still
in the picture and would be taken for a bottom that does not move.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from rov.types import Floats, Image

WIDTH, HEIGHT = 160, 120
"""Of the grey pictures: the whole frame, squeezed, whatever its shape."""
GLOW_PX = 9
"""Changes of brightness over more than this are removed."""
CONTRAST = 48.0
"""Contrast after that, in grey levels: the standard deviation that every part of a picture is scaled to."""
FAINT = 1.5
"""Contrast below this is noise of the sensor, and is not raised."""
CORNERS, CORNER_QUALITY, CORNER_GAP = 60, 0.03, 5
"""Most corners, least quality as a share of the best one's, and least distance in px."""
WINDOW, LEVELS = (11, 11), 2
BACK_PX = 0.7
"""A corner followed there and back ends within this of where it began, or is not used."""
FIT_PX = 1.2
"""How far from the affine fit a corner may be and still agree with it."""
LEAST, ENOUGH = 6, 24
"""Corners that agree: fewer give no answer; as many give full confidence."""

Points = NDArray[np.float32]


class Displacement(NamedTuple):
    """What is seen moved by this much in the picture, where its corners are; zeros without an answer."""

    dx: float = 0.0
    """To the right, as a share of the picture's width."""
    dy: float = 0.0
    """Down, as a share of the picture's width, too."""
    scale: float = 0.0
    """Log of its growth: positive when it came nearer."""
    roll: float = 0.0
    """Clockwise in the picture, rad."""
    confidence: float = 0.0
    """0..1: the share of corners that agree, less when they are few."""


class FieldOfView(NamedTuple):
    """Tangents of half the field of view."""

    wide: float
    high: float


class Reference(NamedTuple):
    """A picture to compare others with, its corners (K, 2) in px, and the attitude it was taken at (rad)."""

    grey: NDArray[np.uint8]
    corners: Points
    attitude: tuple[float, float, float]


def grey_picture(image: Image) -> NDArray[np.uint8]:
    """A frame (H, W, 3) BGR as (HEIGHT, WIDTH) grey, around 128, without its slow changes in brightness."""
    small = cv2.resize(image, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY).astype(np.float32)
    detail = grey - cv2.blur(grey, (GLOW_PX, GLOW_PX))
    contrast = np.sqrt(cv2.blur(detail * detail, (4 * GLOW_PX + 1, 4 * GLOW_PX + 1)))
    raised = detail * (CONTRAST / 2 / np.maximum(contrast, FAINT)) + 128
    return np.clip(raised, 0, 255).astype(np.uint8)


def reference(grey: NDArray[np.uint8], attitude: tuple[float, float, float]) -> Reference:
    """Find the corners of a picture."""
    found = cv2.goodFeaturesToTrack(grey, CORNERS, CORNER_QUALITY, CORNER_GAP)
    corners = np.zeros((0, 2), np.float32) if found is None else found.reshape(-1, 2).astype(np.float32)
    return Reference(grey, corners, attitude)


def displacement(
    before: Reference,
    grey: NDArray[np.uint8],
    attitude: tuple[float, float, float],
    view: FieldOfView,
    guess: Displacement | None = None,
) -> Displacement:
    """How far what `before` shows has moved in `grey`, apart from what turning moved; `guess`: the last answer."""
    guess = guess or Displacement()
    if len(before.corners) < LEAST:
        return Displacement()
    turn = rotation(before.attitude).T @ rotation(attitude)  # from the present camera's axes to the former one's
    start = _on_plane(before.corners, view)
    expected = _pixels(_turned(_shifted(start, guess, view), turn.T), view)
    now, kept = _follow(before.grey, grey, before.corners, expected)
    if kept.sum() < LEAST:
        return Displacement()
    end = _turned(_on_plane(now[kept], view), turn)
    tolerance = FIT_PX * 2 * view.wide / WIDTH
    affine, agree = cv2.estimateAffine2D(start[kept], end, ransacReprojThreshold=tolerance, maxIters=200)
    count = 0 if affine is None else int(agree.sum())
    if count < LEAST:
        return Displacement()
    return _read(np.asarray(affine, np.float64), start.mean(0), view, count, len(start))


def rotation(attitude: tuple[float, float, float]) -> Floats:
    """(3, 3) from camera axes (right, down, ahead) to north, east, down, of a camera that looks along surge, at roll,
    pitch, yaw in rad."""
    (sr, sp, sy), (cr, cp, cy) = np.sin(attitude), np.cos(attitude)
    body = np.array(
        [
            [cp * cy, sr * sp * cy - cr * sy, cr * sp * cy + sr * sy],
            [cp * sy, sr * sp * sy + cr * cy, cr * sp * sy - sr * cy],
            [-sp, sr * cp, cr * cp],
        ]
    )
    return body[:, [1, 2, 0]]


def _follow(
    before: NDArray[np.uint8], now: NDArray[np.uint8], corners: Points, expected: Points
) -> tuple[Points, NDArray[np.bool_]]:
    """Where the corners went (K, 2), and which of them could be followed there and back."""
    there, ok = _flow(before, now, corners, expected)
    back, ok_back = _flow(now, before, there, corners)
    inside = ((there >= 0) & (there <= (WIDTH - 1, HEIGHT - 1))).all(1)
    returned = np.abs(back - corners).max(1) < BACK_PX
    return there, inside & returned & ok & ok_back


def _flow(
    before: NDArray[np.uint8], now: NDArray[np.uint8], corners: Points, expected: Points
) -> tuple[Points, NDArray[np.bool_]]:
    flags = cv2.OPTFLOW_USE_INITIAL_FLOW
    there, ok, _ = cv2.calcOpticalFlowPyrLK(
        before, now, corners, expected.copy(), winSize=WINDOW, maxLevel=LEVELS, flags=flags
    )
    return np.asarray(there, np.float32), np.asarray(ok)[:, 0] > 0


def _read(affine: Floats, centre: Floats, view: FieldOfView, count: int, of: int) -> Displacement:
    """An affine map of the plane one unit ahead as a displacement at `centre`. Scale and roll are those of horizontal
    lines: moving sideways over a flat bottom shears the picture, which is neither."""
    moved = affine[:, :2] @ centre + affine[:, 2] - centre
    a, c = float(affine[0, 0]), float(affine[1, 0])
    confidence = min(1.0, count / ENOUGH) * count / of
    found = Displacement(
        float(moved[0]) / (2 * view.wide),
        float(moved[1]) / (2 * view.wide),
        math.log(max(math.hypot(a, c), 1e-3)),
        math.atan2(c, a),
        confidence,
    )
    return found if all(map(math.isfinite, found)) else Displacement()


def _shifted(plane: Points, guess: Displacement, view: FieldOfView) -> Points:
    """Points (K, 2) where a former answer would have them now."""
    middle = plane.mean(0)
    shift = np.array([guess.dx, guess.dy], np.float32) * np.float32(2 * view.wide)
    return np.asarray((plane - middle) * np.float32(math.exp(guess.scale)) + middle + shift, np.float32)


def _on_plane(pixels: Points, view: FieldOfView) -> Points:
    """Pixels (K, 2) -> the plane one unit ahead."""
    half = np.array([WIDTH, HEIGHT], np.float32) / 2
    return np.asarray(((pixels + 0.5) / half - 1) * np.array(view, np.float32), np.float32)


def _pixels(plane: Points, view: FieldOfView) -> Points:
    half = np.array([WIDTH, HEIGHT], np.float32) / 2
    return np.asarray((plane / np.array(view, np.float32) + 1) * half - 0.5, np.float32)


def _turned(plane: Points, turn: Floats) -> Points:
    """Points (K, 2) of the plane one unit ahead, in the axes of a camera turned by `turn` (3, 3)."""
    rays = np.concatenate([plane, np.ones((len(plane), 1), np.float32)], 1) @ turn.T.astype(np.float32)
    return np.asarray(rays[:, :2] / np.maximum(rays[:, 2:], 0.05), np.float32)
