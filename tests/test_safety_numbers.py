"""The default safety numbers, each met from both sides: just inside nothing happens, just outside it does. The pilot's
stages run on simulated time, with the configuration that nobody has changed; docs/safety.md names these tests."""

from __future__ import annotations

import math

import pytest

from rov.config.schema import parse
from rov.messages import Arm, Mode, SetMode, TakeOver
from rov.service.child_process import STARTS_MAX, STARTS_S, ChildProcess
from rov.supervisor import CHILDREN
from tests.world import MS, TICK, S, World

pytestmark = pytest.mark.patient

CONFIG = parse("[vehicle]\nmax_depth = 30.0\n")
STILL = (0.0, 0.0, 0.0, 0.0)
BUOY = ("buoy_red", 0.9, (300.0, 200.0, 340.0, 280.0))


def armed(mode: Mode = Mode.MANUAL) -> World:
    """An operator steers a vehicle at 5 m in this mode; perception runs at its rate."""
    world = World(CONFIG)
    world.run(0.1)
    assert world.tell(TakeOver) == ""
    watch(world, 4.0, hz=15.0)
    assert world.tell(SetMode, mode=mode) == "" and world.tell(Arm) == ""
    watch(world, 0.2, hz=15.0)
    assert world.commander.pilot.armed and world.commander.pilot.mode is mode
    world.codes()
    return world


def watch(world: World, seconds: float, hz: float) -> None:
    """Time goes by, with perception at this rate."""
    due, end = world.t, world.t + round(seconds * S)
    while world.t < end:
        if world.t >= due:
            world.see(BUOY)
            due += round(S / hz)
        world.run(0.02, STILL)


def first(world: World, code: str, seconds: float) -> float:
    """After how many s this code is reported; sticks and heartbeat go on, no picture comes."""
    began = world.t
    while world.t - began < seconds * S:
        world.run(0.02, STILL)
        if code in world.codes():
            return (world.t - began) / S
    raise AssertionError(f"no {code} within {seconds} s")


def near(seconds: float) -> object:
    """This time, or up to two ticks later."""
    return pytest.approx(seconds + 0.02, abs=0.021)


def test_a_process_that_starts_is_disarmed_in_manual() -> None:
    world = World(CONFIG)
    world.run(1.0, STILL)
    assert not world.commander.pilot.armed and world.commander.pilot.mode is Mode.MANUAL


def test_sticks_are_used_for_300_ms() -> None:
    world = armed()
    world.run(0.5, (1.0, 0.0, 0.0, 0.0))
    world.run(0.28)
    assert any(world.link.sent[-1])
    world.run(0.04)
    assert not any(world.link.sent[-1])


def test_without_perception_for_1_s_follow_ends_in_hold() -> None:
    world = armed(Mode.FOLLOW)
    world.see(BUOY, age=0)
    assert first(world, "perception_gone", 2.0) == near(1.0)
    assert world.commander.pilot.mode is Mode.HOLD
    watch(world, 2.0, hz=15.0)
    assert world.commander.pilot.mode is Mode.HOLD, "it never resumes by itself"


@pytest.mark.parametrize(("age_ms", "moves"), [(190, True), (210, False)])
def test_a_frame_older_than_200_ms_after_its_inference_moves_nothing(age_ms: int, moves: bool) -> None:
    world = armed(Mode.FOLLOW)
    world.run(0.2, STILL)  # so that even the older frame is newer than the one before
    used = world.commander.pilot.setpoints["steer"]
    world.see(BUOY, age=age_ms * MS)
    assert (world.commander.pilot.setpoints["steer"] is not used) is moves


@pytest.mark.parametrize(("hz", "ends"), [(12.5, False), (11.5, True)])
def test_below_80_percent_of_the_rate_over_3_s_follow_ends_in_hold(hz: float, ends: bool) -> None:
    world = armed(Mode.FOLLOW)
    watch(world, 6.0, hz)  # the rate is 15 Hz; 80 % of it is 12
    assert (world.commander.pilot.mode is Mode.HOLD) is ends and ("perception_slow" in world.codes()) is ends


def test_an_operator_is_lost_after_3_s() -> None:
    world = armed()
    world.beating = False
    began = world.t
    while "operator_lost" not in world.codes():
        world.run(0.02, STILL)
        assert world.t - began < 5 * S
    assert 2.75 < (world.t - began) / S < 3.05, "the last heartbeat was up to 0.2 s old"
    assert not world.commander.pilot.armed


def test_state_older_than_half_a_second_is_unknown() -> None:
    world = armed(Mode.HOLD)
    world.link.blind = True  # the board talks on, without attitude and depth
    assert first(world, "state_lost", 2.0) == near(0.5)
    assert world.commander.pilot.mode is Mode.MANUAL


@pytest.mark.parametrize(("degrees", "disarmed"), [(29.0, False), (31.0, True)])
def test_a_tilt_beyond_30_degrees_for_2_s_disarms(degrees: float, disarmed: bool) -> None:
    world = armed()
    world.link.more = {"pitch": math.radians(degrees)}
    world.run(1.96, STILL)
    assert world.commander.pilot.armed
    world.run(0.08, STILL)
    assert world.commander.pilot.armed is not disarmed and ("tilted" in world.codes()) is disarmed


@pytest.mark.parametrize(
    ("reading", "code", "seconds"),
    [
        ({"battery_v": 4 * 3.49}, "battery_warning", 0.0),
        ({"battery_v": 4 * 3.29}, "battery_low", 5.0),
        ({"hull_temperature_c": 62.1}, "hull_hot", 2.0),
        ({"hull_pressure_kpa": 105.1}, "hull_pressure", 2.0),
        ({"leak": True}, "leak", 0.0),
    ],
)
def test_a_bad_reading_is_reported_after_its_time(reading: dict[str, object], code: str, seconds: float) -> None:
    world = armed()
    world.link.more = reading
    assert first(world, code, 7.0) == near(seconds)
    assert (world.commander.pilot.mode is Mode.SURFACE) is (code in ("leak", "battery_low"))


@pytest.mark.parametrize(
    "reading",
    [{"battery_v": 4 * 3.51}, {"hull_temperature_c": 61.9}, {"hull_pressure_kpa": 104.9}, {"battery_v": None}],
)
def test_a_good_reading_is_not_reported(reading: dict[str, object]) -> None:
    world = armed()
    world.link.more = reading
    world.run(7.0, STILL)
    assert not {"battery_warning", "battery_low", "hull_hot", "hull_pressure"} & set(world.codes())


def test_below_max_depth_nothing_pushes_down() -> None:
    world = armed()
    assert world.link.pascal is not None
    world.link.pascal += 26 * 1025.0 * 9.80665  # 31 m
    world.run(1.0, (0.0, 0.0, 1.0, 0.0))
    assert not any(world.link.sent[-1]) and "too_deep" in world.codes()
    world.run(1.0, (0.0, 0.0, -1.0, 0.0))
    assert any(world.link.sent[-1])


@pytest.mark.parametrize(("name", "limit_s"), [("perceptiond", 10.0), ("camerad", 10.0), ("pilotd", 1.0)])
def test_a_process_hangs_after_its_time(name: str, limit_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    each = ChildProcess(next(child for child in CHILDREN if child.name == name), [])
    monkeypatch.setattr(ChildProcess, "alive", property(lambda self: True))
    each.starts.append(0.0)
    each.receive_health(round(5.0 * S), 5.0)
    assert not each.hung(5.0 + limit_s - 0.01) and each.hung(5.0 + limit_s + 0.01)


def test_five_deaths_in_a_minute_give_a_process_up() -> None:
    each = ChildProcess(next(child for child in CHILDREN if child.name == "camerad"), [])
    each.starts.extend(12.0 * i for i in range(STARTS_MAX))
    assert (STARTS_MAX, STARTS_S) == (5, 60.0)
    assert each.worn_out(59.9) and not each.worn_out(60.1)


def test_the_loop_is_50_hz() -> None:
    assert TICK == round(S / CONFIG.control.rate_hz)
