"""The visual servo: keep a chosen tracked class centred, at a chosen apparent size. The baseline for learned ones.

The geometry and the law are written in array-API style on shape (N,): numpy for one vehicle, torch for thousands.
"""

from __future__ import annotations

import math

import numpy as np
from array_api_compat import array_namespace

from rov.config import SteeringConfig
from rov.messages import Observation, Setpoint, Track, Tracks
from rov.types import Array
from rov.vision.lens import Lens


def geometry(boxes: Array, width: float, height: float, hfov_deg: float) -> tuple[Array, Array, Array]:
    """Boxes (N, 4) in a picture -> bearing and elevation of their centres (N,) in rad, size (N,) as a fraction of the
    height. Pinhole with square pixels: f = (width / 2) / tan(hfov / 2). Bearing is positive to starboard, elevation
    down."""
    xp = array_namespace(boxes)
    focal = width / 2 / math.tan(math.radians(hfov_deg) / 2)  # px
    x = (boxes[:, 0] + boxes[:, 2]) / 2 - width / 2
    y = (boxes[:, 1] + boxes[:, 3]) / 2 - height / 2
    return (
        xp.atan2(x, xp.full_like(x, focal)),
        xp.atan2(y, xp.hypot(x, xp.full_like(x, focal))),
        (boxes[:, 3] - boxes[:, 1]) / height,
    )


def servo(bearing: Array, elevation: Array, size: Array, gains: SteeringConfig) -> tuple[Array, Array, Array]:
    """Surge, heave, yaw (N,) in −1..1 towards targets seen so.

    Range is inverse to apparent size, so log(wanted / seen) is the log of the range still to go: the approach slows
    down evenly, and backs off when too close. It fades as the bearing grows: turn first, then go.
    """
    xp = array_namespace(bearing)
    facing = xp.clip(1.0 - xp.abs(bearing) / math.radians(gains.centred_deg), 0.0, 1.0)
    surge = gains.surge_gain * xp.log(gains.size / xp.clip(size, 1e-3, None)) * facing
    surge = xp.clip(surge, -gains.surge_max, gains.surge_max)
    heave = xp.clip(gains.heave_gain * elevation, -1.0, 1.0)
    return surge, heave, xp.clip(gains.yaw_gain * bearing, -1.0, 1.0)


def choose(tracks: Tracks, label: str, following: int | None) -> Track | None:
    """The followed object while it lives, else the largest and surest of its class that is in sight."""
    same = [item for item in tracks.items if item.label == label]
    for item in same:
        if item.track_id == following:
            return item
    in_sight = [item for item in same if item.hidden_s == 0]
    return max(in_sight, key=lambda item: item.score * (item.box[3] - item.box[1]), default=None)


def observe(
    tracks: Tracks, label: str, following: int | None, hfov_deg: float, lens: Lens | None = None
) -> Observation:
    """What steering sees of its target; `following` is the track id of the frame before. Angles are the calibrated
    lens's where there is one."""
    target = choose(tracks, label, following)
    if target is None:
        return Observation(t=tracks.t, frame_id=tracks.frame_id, frame_t=tracks.frame_t, visible=False)
    if lens is None:
        bearing, elevation, size = (
            float(each[0]) for each in geometry(np.array([target.box]), tracks.width, tracks.height, hfov_deg)
        )
    else:
        bearing, elevation, size = lens.angles(target.box)
    return Observation(
        t=tracks.t,
        frame_id=tracks.frame_id,
        frame_t=tracks.frame_t,
        visible=True,
        track_id=target.track_id,
        label=label,
        bearing=bearing,
        elevation=elevation,
        size=size,
    )


def steer(observation: Observation, gains: SteeringConfig, t: int) -> Setpoint:
    """The setpoint for one observation; without a target, all zero."""
    surge = heave = yaw = np.zeros(1)
    if observation.visible:
        surge, heave, yaw = servo(
            np.array([observation.bearing]), np.array([observation.elevation]), np.array([observation.size]), gains
        )
    return Setpoint(
        t=t,
        frame_id=observation.frame_id,
        frame_t=observation.frame_t,
        source="steer",
        surge=float(surge[0]),
        heave=float(heave[0]),
        yaw=float(yaw[0]),
    )
