"""What is believed of the vehicle's state, reading by reading."""

import math
import random
from collections.abc import Callable

import pytest

from rov.link.mavlink import MS, SenderClock
from rov.link.plausibility import PlausibilityCheck

Depth = Callable[[float], float]


def believed(depth: Depth, seconds: float, *, still: bool = False, hz: float = 10.0) -> list[bool]:
    """Of readings at `hz`, s in and m out; `still`: the attitude does not change."""
    doubt, noise, out = PlausibilityCheck(), random.Random(1), []
    for n in range(round(seconds * hz)):
        t = round(n / hz * 1000) * MS
        roll = 0.0 if still else noise.gauss(0.0, 0.001)
        assert doubt.reason({"roll": roll, "pitch": 0.0, "yaw": 1.0}, t) == ""
        out.append(doubt.reason({"depth": depth(n / hz)}, t) == "")
    return out


def noisy(depth: Depth, grain: float = 0.0) -> Depth:
    noise = random.Random(0)

    def read(s: float) -> float:
        value = depth(s) + noise.gauss(0.0, 0.002)
        return round(value / grain) * grain if grain else value

    return read


def test_a_sensor_that_stops_is_old_after_three_seconds() -> None:
    read = noisy(lambda s: 4.39)
    last = 0.0

    def stops(s: float) -> float:
        nonlocal last
        last = read(s) if s < 8 else last
        return last

    answers = believed(stops, 20)
    assert all(answers[:110]) and not any(answers[112:])


@pytest.mark.parametrize(
    "depth",
    [
        lambda s: 0.0,  # a simulated vehicle on the deck
        lambda s: 3.0 + math.sin(s) * (s < 10),  # simulated without noise, then at rest
        lambda s: round(3 + 0.1 * math.sin(2 * s) * (s < 10), 2),  # a coarse sensor: waves, then at rest
        lambda s: max(0.0, 0.02 * math.sin(9 * s)),  # at the surface
        noisy(lambda s: 5.0, 0.01),
        noisy(lambda s: 5.0, 0.002),
        noisy(lambda s: 2.0 * min(s, 8.0)),  # down at 2 m/s, then noise
    ],
)
def test_what_may_stand_still_is_believed(depth: Depth) -> None:
    assert all(believed(depth, 60))


def test_a_noisy_sensor_of_a_vehicle_whose_attitude_stands_still_too_is_simulated() -> None:
    read, frozen = noisy(lambda s: 3.0), 3.0
    assert all(believed(lambda s: read(s) if s < 8 else frozen, 30, still=True))


@pytest.mark.parametrize("wrong", [-9.0, -5.0, -2.1, math.nan, -math.inf])
def test_a_depth_above_the_surface_is_never_believed(wrong: float) -> None:
    assert not any(believed(lambda s: wrong, 20))


def test_a_depth_that_jumps_is_believed_when_it_stays() -> None:
    answers = believed(lambda s: 5.0 if s < 5 or int(10 * s) % 2 else 1.0, 10)
    assert [n for n, good in enumerate(answers) if not good] == list(range(50, 100, 2))
    answers = believed(lambda s: 5.0 if s < 5 else 1.0, 10)
    assert [n for n, good in enumerate(answers) if not good] == [50, 51, 52]


def test_a_heading_that_jumps_to_and_fro_is_not_believed() -> None:
    doubt = PlausibilityCheck()
    for n in range(200):
        yaw = 0.5 if n % 2 == 0 else 0.5 - math.pi
        assert (doubt.reason({"roll": 0.0, "pitch": 0.0, "yaw": yaw}, 20 * MS * n) == "") is (n % 2 == 0)


def test_turns_that_a_vehicle_can_make_are_believed() -> None:
    """Over north, round and round at a turn a second, and over the top, where heading and roll jump by a half turn."""
    for hz in (10, 20, 50):
        doubt = PlausibilityCheck()
        for n in range(5 * hz):
            angle = 2 * math.pi * n / hz
            yaw = (angle + math.pi) % (2 * math.pi) - math.pi
            assert doubt.reason({"roll": 0.0, "pitch": 0.0, "yaw": yaw}, n * 1000 // hz * MS) == ""
        for n in range(5 * hz):
            pitch, over = math.asin(math.sin(n / hz)), math.cos(n / hz) < 0
            half = math.pi if over else 0.0
            assert doubt.reason({"roll": half, "pitch": pitch, "yaw": half}, (10_000 + n * 1000 // hz) * MS) == ""


def test_what_is_read_with_a_clock_of_before_a_stall_does_not_age_what_follows() -> None:
    """One read after 0.8 s took place with a time of before: all that it brought seemed early, once."""
    clock = SenderClock()
    for n in range(100):
        t = 20 * MS * n
        assert clock.measured("A", 20 * n + 5000, t) == t
    for n in range(100, 140):  # read late, stamped by the old time
        measured = clock.measured("A", 20 * n + 5000, 100 * 20 * MS)
        assert measured is not None and measured <= 100 * 20 * MS
    for n in range(140, 200):
        t = 20 * MS * n
        measured = clock.measured("A", 20 * n + 5000, t)
        assert measured is not None and t - measured < 5 * MS
