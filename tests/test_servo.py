"""Angles computed by hand, signs, and a simulated approach that reaches its target."""

import math

import numpy as np
import pytest
import torch

from rov.config.schema import SteeringConfig
from rov.messages import Box, Observation, Track, Tracks
from rov.steering.observation import geometry, observe
from rov.steering.servo import servo, steer

GAINS = SteeringConfig()


def tracks(*items: Track, width: int = 640, height: int = 640) -> Tracks:
    return Tracks(t=7, frame_id=3, frame_t=5, width=width, height=height, items=items)


def box(x: float, y: float, size: float) -> Box:
    return (x - size / 2, y - size / 2, x + size / 2, y + size / 2)


def test_angles_by_hand() -> None:
    boxes = np.array([box(320, 320, 64), box(640, 320, 32), box(320, 640, 320), box(0, 320, 10)], float)
    bearing, elevation, size = geometry(boxes, 640, 640, 80.0)
    assert np.degrees(bearing) == pytest.approx([0, 40, 0, -40])
    assert np.degrees(elevation) == pytest.approx([0, 0, 40, 0])
    assert size == pytest.approx([0.1, 0.05, 0.5, 10 / 640])


def test_numpy_and_torch_agree_for_any_number() -> None:
    rng = np.random.default_rng(0)
    boxes = np.sort(rng.uniform(0, 640, (200, 2, 2)), axis=1).reshape(200, 4)
    here = servo(*geometry(boxes, 640, 480, 70.0), GAINS)
    there = servo(*geometry(torch.from_numpy(boxes), 640, 480, 70.0), GAINS)
    for a, b in zip(here, there, strict=True):
        assert a == pytest.approx(b.numpy()) and np.abs(a).max() <= 1.0


def test_signs() -> None:
    surge, heave, yaw = servo(np.array([0.1, -0.1, 0.0]), np.array([0.2, -0.2, 0.0]), np.array([0.1, 0.1, 0.9]), GAINS)
    assert yaw[0] > 0 > yaw[1] and yaw[2] == 0, "a target to starboard turns clockwise"
    assert heave[0] > 0 > heave[1], "a target below goes down"
    assert surge[0] > 0 and surge[2] < 0, "far away approaches, too close backs off"


def test_turn_first_then_go() -> None:
    bearings = np.radians(np.array([0.0, 5.0, 10.0, 15.0, 40.0]))
    surge, _, _ = servo(bearings, np.zeros(5), np.full(5, 0.2), GAINS)
    assert (np.diff(surge) <= 0).all() and surge[0] > 0 and surge[3] == surge[4] == 0


def test_nothing_in_sight_is_no_wish() -> None:
    observation = observe(tracks(Track(1, "fish", 0.9, box(50, 50, 10))), "rock", None, 80.0)
    assert not observation.visible
    setpoint = steer(observation, GAINS, 9)
    assert (setpoint.surge, setpoint.sway, setpoint.heave, setpoint.yaw) == (0, 0, 0, 0)
    assert (setpoint.t, setpoint.frame_id, setpoint.frame_t, setpoint.source) == (9, 3, 5, "steer")


def test_it_keeps_the_one_it_follows_while_that_lives() -> None:
    small, large = Track(1, "rock", 0.9, box(100, 100, 20)), Track(2, "rock", 0.9, box(500, 100, 80))
    assert observe(tracks(small, large), "rock", None, 80.0).track_id == 2
    assert observe(tracks(small, large), "rock", 1, 80.0).track_id == 1
    hidden = Track(1, "rock", 0.9, box(100, 100, 20), hidden_s=0.4)
    assert observe(tracks(hidden, large), "rock", 1, 80.0).track_id == 1
    assert observe(tracks(hidden), "rock", None, 80.0).visible is False, "nobody starts to follow what is out of sight"
    assert observe(tracks(large), "rock", 1, 80.0).track_id == 2


def test_a_target_is_reached() -> None:
    """A target 5 m ahead and 20° aside, 0.4 m high; a vehicle that follows exactly: 0.5 m/s, 60°/s, 0.3 m/s at full
    scale."""
    x, y, z, heading, dt, focal = 0.0, 0.0, 0.0, 0.0, 0.05, 320 / math.tan(math.radians(40))
    target = (5 * math.cos(math.radians(20)), 5 * math.sin(math.radians(20)), 0.5)
    for _ in range(round(30 / dt)):
        dx, dy, dz = target[0] - x, target[1] - y, target[2] - z
        ahead = dx * math.cos(heading) + dy * math.sin(heading)
        aside = dy * math.cos(heading) - dx * math.sin(heading)
        seen = box(320 + focal * aside / ahead, 320 + focal * dz / ahead, focal * 0.4 / ahead)
        observation = observe(tracks(Track(1, "rock", 0.9, seen)), "rock", 1, 80.0)
        setpoint = steer(observation, GAINS, 0)
        heading += setpoint.yaw * math.radians(60) * dt
        x += setpoint.surge * 0.5 * math.cos(heading) * dt
        y += setpoint.surge * 0.5 * math.sin(heading) * dt
        z += setpoint.heave * 0.3 * dt
    assert abs(math.degrees(observation.bearing)) < 2 and abs(math.degrees(observation.elevation)) < 2
    assert observation.size == pytest.approx(GAINS.size, rel=0.1)


def test_an_observation_of_a_point_is_finite() -> None:
    point = Observation(t=0, frame_id=0, frame_t=0, visible=True, size=0.0)
    assert math.isfinite(steer(point, GAINS, 0).surge)
