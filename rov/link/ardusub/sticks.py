"""The stream of MANUAL_CONTROL to ArduSub: when the next stick is due, and its frame."""

from __future__ import annotations

from collections.abc import Sequence

from pymavlink.dialects.v20 import common

from rov.link.ardusub.connection import ArdusubConnection
from rov.link.ardusub.firmware import HOLDING, past_dead_bands, rc_of, sticks_of
from rov.link.mavlink import MS, Packer

COMPANION = common.MAV_COMP_ID_ONBOARD_COMPUTER
"""191: our component, in heartbeats, commands and sticks. Sticks of other components are not ours."""
STICK_NS = 20 * MS
"""MANUAL_CONTROL at most this often; ArduSub wants 20 to 50 Hz."""
GAPS = (1, 2, 2, 1, 2, 1, 2, 2, 1, 1, 2)
"""Gaps from one stick to the next, in STICK_NS, in turn: 32 Hz, uneven over 17 ticks, a prime. A stream of the pilot's
in step with ours would be overwritten at once each time; in each of the longer gaps it stays in the RC channels for a
tick, and is seen."""


class StickStream:
    """Sends as the ground station's system, with our component, because ArduSub accepts sticks from no other system."""

    def __init__(self) -> None:
        self.packer: Packer | None = None
        self.sent_t, self.gap = -STICK_NS, 0

    def due(self, t: int) -> bool:
        """Is it time for the next stick?"""
        return t - self.sent_t >= GAPS[self.gap] * STICK_NS - MS

    def frame(self, values: Sequence[float], system: int, connection: ArdusubConnection, t: int) -> bytes:
        """MANUAL_CONTROL to a system, such that the autopilot's gain and dead bands turn it into these fractions of
        full scale: surge, sway, heave, yaw."""
        parameters = connection.parameters
        if self.packer is None or self.packer.codec.srcSystem != parameters.ground_station:
            self.packer = Packer(parameters.ground_station, COMPANION)
        gain, throttle = connection.pilot_gain(t), max(parameters.parameters["JS_THR_GAIN"], 0.1)
        if connection.mode in HOLDING:
            values = past_dead_bands(values, gain, parameters.parameters)
        x, y, z, r = sticks_of(values, gain, throttle)
        connection.pilot_input.record_sent(rc_of(x, y, z, r, gain, throttle), t)
        self.sent_t, self.gap = t, (self.gap + 1) % len(GAPS)
        return self.packer.pack(common.MAVLink_manual_control_message(system, x, y, z, r, 0))
