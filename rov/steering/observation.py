"""Chooses the target among the tracks and computes its bearing, elevation and apparent size."""

from __future__ import annotations

import math

import numpy as np
from array_api_compat import array_namespace

from rov.messages import Box, Observation, Track, Tracks
from rov.optics.lens import Lens
from rov.types import Array


def geometry(boxes: Array, width: float, height: float, hfov_deg: float) -> tuple[Array, Array, Array]:
    """Boxes (N, 4) in a picture -> bearing and elevation of their centres (N,) in rad, size (N,) as a fraction of the
    height. Pinhole with square pixels: f = (width / 2) / tan(hfov / 2). Bearing is positive to starboard, elevation
    down. Array-API style: numpy or torch."""
    xp = array_namespace(boxes)
    focal = width / 2 / math.tan(math.radians(hfov_deg) / 2)  # px
    x = (boxes[:, 0] + boxes[:, 2]) / 2 - width / 2
    y = (boxes[:, 1] + boxes[:, 3]) / 2 - height / 2
    return (
        xp.atan2(x, xp.full_like(x, focal)),
        xp.atan2(y, xp.hypot(x, xp.full_like(x, focal))),
        (boxes[:, 3] - boxes[:, 1]) / height,
    )


def angles(
    box: Box, width: float, height: float, hfov_deg: float, lens: Lens | None = None
) -> tuple[float, float, float]:
    """Bearing and elevation (rad) of a box's middle, and its size as a fraction of the height. A calibrated `lens`
    gives more exact angles than `hfov_deg`."""
    if lens is not None:
        return lens.angles(box)
    bearing, elevation, size = geometry(np.array([box]), width, height, hfov_deg)
    return float(bearing[0]), float(elevation[0]), float(size[0])


def choose(tracks: Tracks, label: str, following: int | None) -> Track | None:
    """The followed track while it exists, else the largest and surest visible one of the class."""
    same = [item for item in tracks.items if item.label == label]
    for item in same:
        if item.track_id == following:
            return item
    visible = [item for item in same if item.hidden_s == 0]
    return max(visible, key=lambda item: item.score * (item.box[3] - item.box[1]), default=None)


def observe(
    tracks: Tracks, label: str, following: int | None, hfov_deg: float, lens: Lens | None = None
) -> Observation:
    """The target's observation. `following`: the track id followed in the previous frame. A calibrated `lens` gives
    more exact angles than `hfov_deg`."""
    target = choose(tracks, label, following)
    if target is None:
        return Observation(t=tracks.t, frame_id=tracks.frame_id, frame_t=tracks.frame_t, visible=False)
    bearing, elevation, size = angles(target.box, tracks.width, tracks.height, hfov_deg, lens)
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
