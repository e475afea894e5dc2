"""The visual servo: keeps the target centred, at a chosen apparent size. The baseline for learned policies.

The geometry and the law are written in array-API style on shape (N,): numpy for one vehicle, torch for thousands.
"""

from __future__ import annotations

import math

import numpy as np
from array_api_compat import array_namespace

from rov.config.schema import SteeringConfig
from rov.messages import Observation, Setpoint
from rov.types import Array


def servo(bearing: Array, elevation: Array, size: Array, gains: SteeringConfig) -> tuple[Array, Array, Array]:
    """Surge, heave, yaw (N,) in −1..1 towards targets at bearing, elevation (rad) and apparent size, each (N,).

    Range is inverse to apparent size, so log(wanted / seen) is the log of the range over the wanted range: the vehicle
    slows down evenly as it approaches, and backs off when too close. Surge fades as the bearing grows: turn first,
    then go.
    """
    xp = array_namespace(bearing)
    facing = xp.clip(1.0 - xp.abs(bearing) / math.radians(gains.centred_deg), 0.0, 1.0)
    surge = gains.surge_gain * xp.log(gains.size / xp.clip(size, 1e-3, None)) * facing
    surge = xp.clip(surge, -gains.surge_max, gains.surge_max)
    heave = xp.clip(gains.heave_gain * elevation, -1.0, 1.0)
    return surge, heave, xp.clip(gains.yaw_gain * bearing, -1.0, 1.0)


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
