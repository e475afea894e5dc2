"""The pose that the simulated camera draws ahead."""

import math

import numpy as np
import pytest
import torch

from rov.link.ardusub.firmware import ALT_HOLD
from sim.camerad import Pose
from sim.live import pose_of
from sim.sensors import quaternion
from tests.test_flight import Armed

LEVEL = (1.0, 0.0, 0.0, 0.0)
STILL = (0.0, 0.0, 0.0)


def test_a_pose_moves_and_turns_on():
    """Half a turn a second to starboard for 0.5 s is a quarter of the circle; so is what is followed."""
    pose = Pose(
        1_000, (1.0, 2.0, 3.0), LEVEL, (0.4, 0.0, -0.2), (0.0, 0.0, math.pi), 7.0, ((5.0, 0.0, 2.0), (0.0, 0.2, 0.0))
    )
    later = pose.at(1_000 + 500_000_000)
    assert later.t == 500_001_000 and later.seconds == 7.5
    assert later.position == pytest.approx((1.2, 2.0, 2.9))
    assert later.attitude == pytest.approx(tuple(quaternion(torch.tensor([[0.0, 0.0, math.pi / 2]]))[0].tolist()))
    assert later.target == (pytest.approx((5.0, 0.1, 2.0)), (0.0, 0.2, 0.0))
    assert Pose(0, STILL, LEVEL, STILL, STILL, 0.0).at(10**9).attitude == LEVEL


def test_a_pose_drawn_ahead_is_where_the_vehicle_will_be(tmp_path):
    """At 0.3 of full surge in a current, turning to and fro: what is guessed 0.1 s before."""
    armed = Armed(tmp_path, ALT_HOLD)
    off, turned = [], []
    for step in range(100):
        guess = pose_of(armed.vehicle, 0, 0.0).at(100_000_000)
        armed.sail(0.1, 0.3, 0.0, 0.0, 0.1 if step % 50 < 25 else -0.1)
        state = armed.vehicle.pose()
        off.append(math.dist(guess.position, state.position[0].tolist()))
        alike = abs(float(np.dot(guess.attitude, state.attitude[0].numpy())))
        turned.append(2 * math.degrees(math.acos(min(alike, 1.0))))
    assert max(off) < 0.01 and np.median(off) < 0.003, "m"
    assert max(turned) < 1.5 and np.median(turned) < 0.25, "degrees, at 20 a second"
