"""Going up under ArduSub, rule by rule: nothing leaves a vehicle that must come up disarmed, or our sticks silent."""

import pytest
from pymavlink.dialects.v20 import common

from rov.link.ardusub.firmware import ALT_HOLD, MANUAL, POSHOLD, STABILIZE, SURFACE
from rov.link.ardusub.link import SET_MODE
from rov.link.mavlink import MS
from rov.link.mavlink_link import ARM_DISARM
from rov.messages import Mode
from tests.test_ardusub import Rig

pytestmark = pytest.mark.patient

UP = (0.0, 0.0, -0.5, 0.0)
"""The pilot's outputs in `surface`."""


def surfacing(position: bool = False, depth: float = 5.0) -> Rig:
    """Engaged in `hold` at depth; then `surface` is asked for."""
    rig = Rig()
    rig.autopilot.position, rig.autopilot.vessel.depth = position, depth
    rig.link.mode = Mode.HOLD
    rig.engaged()
    rig.link.mode, rig.values = Mode.SURFACE, UP
    return rig


def steering(rig: Rig, since: int) -> None:
    """Our sticks have never paused for 0.2 s, and the vehicle is armed."""
    assert rig.autopilot.armed and rig.link.live, [event.text for event in rig.events]
    times = [since, *(stick.t for stick in rig.sticks(since)), rig.t]
    assert max(b - a for a, b in zip(times, times[1:], strict=False)) < 200 * MS


def test_a_refused_surface_becomes_alt_hold_with_heave_up() -> None:
    rig = surfacing()
    t = rig.t
    rig.run(1.0)
    steering(rig, t)
    assert rig.autopilot.mode == ALT_HOLD and rig.sticks()[-1].z == 1000  # a gain of 0.5 lets half a stick through
    [event] = [event for event in rig.events if event.level == "alarm"]
    assert event.code == "surface_refused" and "ALT_HOLD" in event.text
    assert "Mode change failed: SURFACE requires position" in event.text
    rig.run(20)
    steering(rig, t)
    assert rig.autopilot.vessel.depth < 1.5 and rig.codes("alarm") == ["surface_refused"]


@pytest.mark.parametrize(
    ("refused", "mode"),
    [({ALT_HOLD}, STABILIZE), ({ALT_HOLD, STABILIZE}, MANUAL), ({ALT_HOLD, STABILIZE, MANUAL}, POSHOLD)],
)
def test_where_alt_hold_is_refused_too_it_goes_up_all_the_same(refused: set[int], mode: int) -> None:
    rig = Rig()
    rig.autopilot.position, rig.autopilot.vessel.depth, rig.autopilot.mode = True, 5.0, POSHOLD
    rig.engaged()
    rig.autopilot.position, rig.autopilot.refuses_modes = False, refused
    t, rig.link.mode, rig.values = rig.t, Mode.SURFACE, UP
    rig.run(3)
    steering(rig, t)
    assert rig.autopilot.mode == mode and rig.sticks()[-1].z == 1000 and set(rig.codes("alarm")) == {"surface_refused"}


def test_a_surface_that_nobody_answers_is_tried_otherwise() -> None:
    rig = surfacing()
    rig.autopilot.ignores, t = {SET_MODE}, rig.t
    rig.run(14)
    steering(rig, t)
    assert "surface_refused" in rig.codes("alarm") and rig.autopilot.mode == ALT_HOLD


def test_surfacing_begins_disarmed_where_surface_is_refused() -> None:
    rig = Rig()
    rig.link.mode, rig.values = Mode.SURFACE, UP
    rig.run(3)
    assert rig.link.arm(rig.t) == ""
    rig.until(lambda: rig.link.live)
    t = rig.t
    rig.run(1)
    steering(rig, t)
    assert rig.autopilot.mode == ALT_HOLD


@pytest.mark.parametrize("failsafe", ["leak", "battery"])
def test_its_own_surfacing_is_not_the_pilot(failsafe: str) -> None:
    """The heartbeat comes first, and then the text."""
    rig = Rig()
    rig.autopilot.position, rig.autopilot.vessel.depth = True, 5.0
    rig.autopilot.parameters.update(FS_LEAK_ENABLE=2, BATT_FS_LOW_ACT=3)
    rig.link.mode = Mode.HOLD
    rig.engaged(surge=0.2)
    t = rig.t
    if failsafe == "leak":
        rig.autopilot.leak = True
    else:
        rig.autopilot.battery_v = 13.0
    rig.run(1)
    steering(rig, t)
    assert rig.autopilot.mode == SURFACE and rig.sticks()[-1][2:] == (0, 0, 500, 0)
    assert rig.link.state is not None and rig.link.state.surfacing and not rig.codes("alarm")
    rig.link.mode, rig.values = Mode.SURFACE, UP  # as the commander does
    rig.run(1)
    steering(rig, t)
    assert rig.autopilot.mode == SURFACE and not rig.link.state.surfacing


@pytest.mark.parametrize("ours", [Mode.MANUAL, Mode.HOLD, Mode.FOLLOW, Mode.SURFACE])
def test_surface_pressed_at_the_ground_station_goes_on_with_neutral_sticks(ours: Mode) -> None:
    rig = Rig()
    rig.autopilot.position, rig.autopilot.vessel.depth = True, 5.0
    rig.link.mode = Mode.HOLD if ours is Mode.SURFACE else ours
    rig.engaged(surge=0.2)
    t = rig.t
    rig.station.command(SET_MODE, 1.0, float(SURFACE))
    rig.run(2)
    steering(rig, t)
    assert rig.autopilot.mode == SURFACE and rig.sticks()[-1][2:] == (0, 0, 500, 0) and not rig.codes("alarm")
    rig.station.sticks = (0, 0, 500, 0)  # now his joystick
    t = rig.t
    rig.run(0.1)
    rig.ended("pilot_sticks", t, 0.06)
    assert rig.autopilot.armed and rig.autopilot.mode == SURFACE


def test_the_operator_may_end_what_the_ground_station_began() -> None:
    rig = Rig()
    rig.autopilot.position, rig.autopilot.vessel.depth = True, 5.0
    rig.engaged()
    rig.station.command(SET_MODE, 1.0, float(SURFACE))
    rig.run(1)
    rig.link.mode = Mode.SURFACE
    rig.run(1)
    rig.link.mode = Mode.HOLD
    rig.run(1)
    assert rig.autopilot.mode == ALT_HOLD and rig.link.live


@pytest.mark.parametrize("weight", [0.0, 4.0])
@pytest.mark.parametrize("whose", ["operator", "leak"])
def test_the_surface_is_no_take_over(whose: str, weight: float) -> None:
    """SURFACE ends in ALT_HOLD by itself: there the vehicle is held."""
    rig = Rig()
    rig.autopilot.position, rig.autopilot.vessel.depth = True, 1.0
    rig.autopilot.vessel.BUOYANCY = -weight  # type: ignore[misc]
    rig.autopilot.parameters["FS_LEAK_ENABLE"] = 2
    rig.link.mode = Mode.HOLD
    rig.engaged()
    t = rig.t
    if whose == "leak":
        rig.autopilot.leak = True
        rig.run(0.2)
    rig.link.mode, rig.values = Mode.SURFACE, UP
    rig.until(lambda: "mode 2: surfaced" in rig.autopilot.reasons, 20)
    rig.values = (0.0,) * 4
    rig.run(10)
    steering(rig, t)
    assert rig.autopilot.mode == ALT_HOLD and rig.autopilot.vessel.depth < 0.5 and not rig.codes("alarm")
    assert rig.autopilot.reasons.count("mode 2: surfaced") == 1


@pytest.mark.parametrize("mode", [STABILIZE, MANUAL, POSHOLD])
def test_any_other_mode_of_the_pilots_ends_surfacing(mode: int) -> None:
    rig = surfacing(position=True)
    rig.run(1)
    t = rig.t
    rig.station.command(SET_MODE, 1.0, float(mode))
    rig.run(0.4)
    rig.ended("pilot_mode", t, 0.3)


def test_a_disarming_of_the_pilots_ends_surfacing() -> None:
    rig = surfacing()
    rig.run(1)
    t = rig.t
    rig.station.command(ARM_DISARM, 0.0)
    rig.run(0.4)
    rig.ended("pilot_disarmed", t, 0.3)
    assert not rig.autopilot.armed


def test_a_failed_depth_sensor_does_not_end_surfacing() -> None:
    """ArduSub then goes to MANUAL by itself."""
    rig = surfacing()
    rig.run(1)
    rig.autopilot.barometer, t = False, rig.t
    rig.run(3)
    steering(rig, t)
    assert rig.autopilot.mode in (MANUAL, STABILIZE) and rig.sticks()[-1].z == 1000


def test_sticks_that_get_lost_do_not_leave_it_disarmed() -> None:
    """Its pilot-input failsafe disarms it by itself, and says so: it is armed again."""
    rig = surfacing()
    rig.run(1)
    rig.up.mute = True
    rig.run(0.8)
    assert not rig.autopilot.armed
    rig.up.mute, t = False, rig.t
    rig.run(1.5)
    assert rig.autopilot.armed and rig.link.live and rig.sticks(t)
    assert "rearmed" in rig.codes("alarm")


@pytest.mark.parametrize("enable", [0, 2, 3, 4])
def test_without_the_ground_station_it_goes_on_going_up(enable: int) -> None:
    rig = surfacing()
    rig.autopilot.parameters["FS_GCS_ENABLE"] = enable
    rig.run(1)
    rig.station.alive, t = False, rig.t
    rig.run(8)
    steering(rig, t)
    assert rig.codes("alarm") == ["surface_refused", "gcs_lost"]


def test_fs_gcs_enable_4_goes_up_when_the_ground_station_is_lost() -> None:
    """Silence would have it disarmed 0.5 s later, before its own failsafe can go up."""
    rig = Rig()
    rig.autopilot.position, rig.autopilot.vessel.depth = True, 5.0
    rig.autopilot.parameters["FS_GCS_ENABLE"] = 4
    rig.link.mode = Mode.HOLD
    rig.engaged(surge=0.2)
    rig.station.alive, t = False, rig.t
    rig.run(5)
    steering(rig, t)
    assert rig.autopilot.mode == SURFACE and rig.codes("alarm") == ["gcs_lost"]
    assert rig.link.state is not None and rig.link.state.surfacing


@pytest.mark.parametrize("position", [False, True])
@pytest.mark.parametrize(
    "change",
    [
        lambda rig: rig.autopilot.parameters.update(FS_PILOT_TIMEOUT=1.0),
        lambda rig: rig.autopilot.switches.update(InputHold=1.0),
        lambda rig: rig.autopilot.switches.update(RollPitch=1.0),
    ],
)
def test_what_would_end_control_does_not_end_surfacing(change, position: bool) -> None:  # type: ignore[no-untyped-def]
    rig = surfacing(position)
    rig.run(1)
    t = rig.t
    change(rig)
    rig.run(7)
    steering(rig, t)
    alarms = [code for code in rig.codes("alarm") if code != "surface_refused"]
    assert len(alarms) == 1 and alarms[0] in ("parameter_unsafe", "pilot_switch")


def test_a_refused_hold_of_a_vehicle_that_leaks_goes_up() -> None:
    rig = Rig()
    rig.autopilot.vessel.depth = 5.0
    rig.engaged()
    rig.autopilot.leak, rig.autopilot.refuses_modes = True, {ALT_HOLD}
    rig.run(0.5)
    t, rig.link.mode = rig.t, Mode.HOLD
    rig.run(2)
    steering(rig, t)
    assert rig.link.state is not None and rig.link.state.surfacing
    rig.link.mode, rig.values = Mode.SURFACE, UP
    rig.run(2)
    steering(rig, t)
    assert rig.sticks()[-1].z == 1000


def test_a_vehicle_that_leaks_is_not_left_in_hold_either() -> None:
    """Our operator had it stop on its way up; then the autopilot's failsafe disarms it."""
    rig = Rig()
    rig.autopilot.vessel.depth, rig.link.mode = 5.0, Mode.HOLD
    rig.engaged()
    rig.autopilot.leak = True
    rig.run(0.5)
    rig.autopilot.texts.append(b"EKF bad")
    rig.autopilot._arm(False, "EKF")
    rig.run(1)
    assert rig.autopilot.armed and rig.link.live and rig.codes("alarm")[0] == "rearmed"
    assert rig.link.state is not None and rig.link.state.surfacing


def test_an_autopilot_that_gives_reasons_late_and_old_ones() -> None:
    """The reason is the text that follows the answer, also one read later; not one of before."""
    rig = Rig()
    rig.autopilot.refuses = {ARM_DISARM}
    rig.run(3)
    rig.autopilot.texts.append(b"EKF3 IMU0 is using GPS")
    rig.run(0.3)
    assert rig.link.arm(rig.t) == ""
    answer = rig.autopilot.packers["rov"]
    rig.until(lambda: bool(rig.link.pending_command and rig.link.pending_command.tries))
    rig.tick()
    rig.cable.inbound += answer.pack(common.MAVLink_statustext_message(2, b"Arm: compass not calibrated"))
    rig.until(lambda: not rig.link.testing)
    [event] = [event for event in rig.events if event.code == "command_refused"]
    assert '(it says "Arm: compass not calibrated")' in event.text


def test_an_old_text_is_no_reason() -> None:
    rig = Rig()
    rig.autopilot.refuses = {ARM_DISARM}
    rig.run(3)
    rig.autopilot.texts.append(b"EKF3 IMU0 is using GPS")
    rig.run(0.3)
    assert rig.link.arm(rig.t) == ""
    rig.until(lambda: not rig.link.testing)
    [event] = [event for event in rig.events if event.code == "command_refused"]
    assert "it says" not in event.text
