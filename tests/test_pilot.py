"""The pilot: modes, freshness, arming and the way from a setpoint to the thrusters."""

import math
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rov.config import schema
from rov.messages import Mode, Setpoint, VehicleState
from rov.motion.controllers import wrapped
from rov.motion.pilot import CONDITIONS, Pilot
from rov.motion.thrusters import load

ROOT = Path(__file__).parent.parent
CONFIG = schema.parse("[vehicle]\nmax_depth = 30.0\n")
CURVE = load(ROOT / "calibration/t200.toml", 4)
MS = 1_000_000
TICK = 20 * MS


class Dive:
    """A pilot, and the tick it is at; what is not said otherwise is fresh and level at 5 m."""

    def __init__(self, config_=CONFIG, **more):
        self.pilot = Pilot(config_, CURVE, **more)
        self.t = 0
        self.codes: list[str] = []
        self.state = VehicleState(t=0, attitude_t=0, depth_t=0, depth=5.0)

    def run(self, n=1, source="", vehicle=True, **sticks):
        for _ in range(n):
            self.t += TICK
            setpoint = None
            if source == "operator":
                setpoint = Setpoint(t=self.t, frame_id=-1, frame_t=self.t, source="operator", **sticks)
            elif source:
                frame_t = self.t - 60 * MS
                setpoint = Setpoint(t=self.t - 10 * MS, frame_id=self.t, frame_t=frame_t, source=source, **sticks)
            state = msgspec.structs.replace(self.state, t=self.t, attitude_t=self.t, depth_t=self.t)
            self.out = self.pilot.step(setpoint, state if vehicle is True else vehicle or None, self.t)
            self.codes += [event.code for event in self.out.events]
        return self.out

    def engaged(self, mode, source):
        self.run(3, source)
        assert self.pilot.request_mode(mode, self.t) == "" and self.pilot.arm(self.t) == ""
        self.codes.clear()
        return self


def values(out):
    return np.array(out.thrusters.values)


def test_manual_surge_by_hand():
    dive = Dive().engaged(Mode.MANUAL, "operator")
    out = dive.run(40, "operator", surge=1.0)
    # vectored_6dof: m1, m2 astern at the full gain; m3, m4 ahead with the same thrust, for which they need less
    assert values(out)[:4] == pytest.approx([-0.5, -0.5, 0.4365, 0.4365], abs=1e-3)
    assert CURVE.force(values(out)[2], 16.8) == pytest.approx(-CURVE.force(-0.5, 16.8))
    assert not values(out)[4:].any()
    assert out.wrench.surge == 1.0 and out.wrench.mode is Mode.MANUAL and out.thrusters.armed
    assert (out.thrusters.frame_id, out.thrusters.frame_t) == (-1, dive.t)


def test_a_vehicle_that_cannot_be_levelled_comes_up_all_the_same():
    dive = Dive().engaged(Mode.SURFACE, "operator")
    dive.state = msgspec.structs.replace(dive.state, roll=0.4, pitch=-0.4, battery_v=14.8)  # below guard.tilt_deg each
    out = dive.run(40, "operator")
    assert out.wrench.heave == -0.5 and (out.wrench.roll, out.wrench.pitch) == (-0.25, 0.25)
    pushed = CURVE.force(values(out), 14.8)[4:].sum()
    dive.state = msgspec.structs.replace(dive.state, roll=0.0, pitch=0.0)
    level = CURVE.force(values(dive.run(40, "operator")), 14.8)[4:].sum()
    assert pushed == pytest.approx(level, rel=0.01) and level < 0


def test_manual_has_no_loops():
    dive = Dive().engaged(Mode.MANUAL, "operator")
    dive.state = msgspec.structs.replace(dive.state, roll=0.3, depth=9.0, rates=(0.1, 0.2, 0.3))
    assert not values(dive.run(5, "operator")).any()


def test_stale_sticks_are_neutral_at_once():
    dive = Dive().engaged(Mode.MANUAL, "operator")
    dive.run(40, "operator", sway=1.0)
    out = dive.run(15)  # 300 ms
    assert values(out).any()
    out = dive.run()
    assert not values(out).any() and out.thrusters.neutral_because == "setpoint_stale"
    assert (out.thrusters.frame_id, out.thrusters.frame_t) == (-1, dive.t)
    for _ in range(3):  # what comes and goes is said once
        dive.run(20)
        assert values(dive.run(20, "operator", sway=1.0)).any()
    assert dive.codes == ["armed", "setpoint_stale"]
    dive.run(32, "operator")  # more than a second in all
    assert dive.codes == ["armed", "setpoint_stale", "setpoint_stale_over"]


def test_follow_carries_its_frame_and_falls_back_to_hold():
    dive = Dive().engaged(Mode.FOLLOW, "steer")
    out = dive.run(30, "steer", surge=0.5, yaw=0.2)
    assert (out.thrusters.frame_id, out.thrusters.frame_t) == (dive.t, dive.t - 60 * MS)
    assert out.wrench.surge == 0.5 and out.wrench.yaw == pytest.approx(0.2)
    dive.state = msgspec.structs.replace(dive.state, depth=5.2)
    out = dive.run(13)  # 60 + 260 ms: stale, but not gone; depth and heading are held
    assert dive.pilot.mode is Mode.FOLLOW and out.wrench.surge == 0.0 and out.wrench.heave < -0.2
    out = dive.run(3, "steer", surge=0.5)
    assert out.wrench.surge == 0.5  # back within a second: goes on
    out = dive.run(48)
    assert dive.pilot.mode is Mode.HOLD
    out = dive.run(10, "steer", surge=0.5)
    assert dive.pilot.mode is Mode.HOLD and out.wrench.surge == 0.0  # never resumes by itself
    assert dive.codes.count("perception_gone") == 1
    assert dive.pilot.request_mode(Mode.FOLLOW, dive.t) == ""
    assert dive.run(1, "steer", surge=0.5).wrench.surge == 0.5


def test_old_repeated_and_bad_frames_move_nothing():
    dive = Dive().engaged(Mode.FOLLOW, "steer")
    dive.run(5, "steer", surge=0.2)
    good = dive.t
    dive.run(8)
    for frame_id, age, surge in ((1, 201, 0.9), (good, 40, 0.9), (2, 40, math.nan), (3, -1, 0.9)):
        dive.t += TICK
        frame_t = dive.t - age * MS
        bad = Setpoint(t=dive.t, frame_id=frame_id, frame_t=frame_t, source="steer", surge=surge)
        out = dive.pilot.step(bad, None, dive.t)
        dive.codes += [event.code for event in out.events]
        assert out.wrench.surge == 0.2 and out.thrusters.frame_id == good
    assert [code for code in dive.codes if not code.endswith("_over")][-2:] == ["frame_old", "setpoint_bad"]
    far = Setpoint(t=dive.t + 10**15, frame_id=9, frame_t=dive.t + 10**15, source="steer", surge=0.9)
    dive.pilot.receive_setpoint(far, dive.t)
    assert dive.run(1, "steer", surge=0.3).wrench.surge == 0.3  # one from the future does not block those after it


def test_modes_are_refused_with_the_reason():
    dive = Dive()
    assert "nothing is heard" in dive.pilot.arm(1)
    assert "nothing is heard" in dive.pilot.request_mode(Mode.HOLD, 1)
    bare = VehicleState(t=TICK)  # a vehicle without sensors
    dive.run(1, vehicle=bare)
    assert dive.pilot.refusal(Mode.MANUAL, dive.t) == ""
    assert dive.pilot.request_mode(Mode.HOLD, dive.t) == "hold needs the attitude, which is not there"
    old = VehicleState(t=dive.t + 600 * MS, attitude_t=dive.t + 590 * MS, depth_t=dive.t)
    dive.t += 600 * MS - TICK
    dive.run(1, vehicle=old)
    assert "depth, which is old" in dive.pilot.request_mode(Mode.HOLD, dive.t)
    assert "depth, which is old" in dive.pilot.arm(dive.t)  # it has one, so manual wants it fresh
    dive.run()
    assert "fresh setpoints from steer" in dive.pilot.request_mode(Mode.FOLLOW, dive.t)
    assert dive.pilot.mode is Mode.MANUAL and dive.pilot.refused
    assert dive.pilot.request_mode(Mode.HOLD, dive.t) == "" and dive.pilot.refused == ""
    dive.state = msgspec.structs.replace(dive.state, roll=math.radians(45))
    dive.run()
    assert "tilted by 45" in dive.pilot.arm(dive.t) and not dive.pilot.armed


@pytest.mark.parametrize("lost", ["depth", "attitude", "nan"])
def test_lost_state_ends_the_modes_that_need_it(lost):
    dive = Dive().engaged(Mode.HOLD, "operator")
    frozen = dive.t
    for _ in range(30):
        t = dive.t + TICK
        state = {
            "depth": VehicleState(t=t, attitude_t=t, depth_t=frozen, depth=5.0),
            "attitude": VehicleState(t=t, attitude_t=frozen, depth_t=t, depth=5.0),
            "nan": VehicleState(t=t, attitude_t=t, depth_t=t, depth=math.nan),
        }[lost]
        out = dive.run(1, vehicle=state)
    assert (
        dive.pilot.mode is Mode.MANUAL and not values(out).any() and out.thrusters.neutral_because == "setpoint_stale"
    )
    assert dive.codes.count("state_lost") == 1 and dive.codes.count(f"{lost}_lost".replace("nan", "depth")) == 1
    assert values(dive.run(5, "operator", surge=0.5)).any() and dive.pilot.mode is Mode.MANUAL  # sticks still work


@pytest.mark.parametrize("depth", [-2.1, -9.0, -11_000.0, 12_001.0, math.nan, math.inf, -math.inf])
def test_an_impossible_depth_moves_nothing_and_ends_hold(depth):
    dive = Dive().engaged(Mode.HOLD, "operator")
    dive.run(50, "operator")
    dive.state = msgspec.structs.replace(dive.state, depth=depth)
    for _ in range(60):
        t = dive.t + TICK
        out = dive.run(1, "operator", vehicle=msgspec.structs.replace(dive.state, t=t, attitude_t=t, depth_t=t))
        assert abs(out.wrench.heave) < 0.01, "it does not push down after a depth that cannot be"
    assert dive.pilot.mode is Mode.MANUAL and "depth_lost" in dive.codes
    assert "depth, which is old or not believable" in dive.pilot.request_mode(Mode.HOLD, dive.t)


def test_what_was_heard_counts_before_the_first_step():
    pilot = Pilot(CONFIG, CURVE)
    pilot.receive_state(VehicleState(t=5, attitude_t=5, depth_t=5, depth=3.0))
    pilot.receive_setpoint(Setpoint(t=5, frame_id=1, frame_t=4, source="steer", surge=1.0))
    assert pilot.request_mode(Mode.FOLLOW, 6) == "" and pilot.arm(6) == ""
    assert "nothing is heard" in pilot.refusal(Mode.MANUAL, 10**9)


def test_silence_from_the_vehicle_is_neutral():
    dive = Dive().engaged(Mode.MANUAL, "operator")
    out = dive.run(30, "operator", vehicle=False, surge=1.0)
    assert not values(out).any() and out.thrusters.neutral_because == "vehicle_lost"
    assert dive.codes.count("vehicle_lost") == 1


def test_stop_is_final():
    dive = Dive().engaged(Mode.FOLLOW, "steer")
    dive.run(20, "steer", surge=1.0)
    late = Setpoint(t=dive.t, frame_id=10**15, frame_t=dive.t, source="steer", surge=1.0)
    dive.pilot.stop(dive.t + 1)
    out = dive.run()
    assert not values(out).any() and out.thrusters.neutral_because == "stopped" and not out.thrusters.armed
    assert dive.pilot.arm(dive.t - TICK)  # under way when the stop came
    assert "before the stop" in dive.pilot.request_mode(Mode.HOLD, dive.t - TICK)
    dive.pilot.receive_setpoint(late, dive.t)
    assert not dive.pilot.setpoints
    dive.run(10, "steer", surge=1.0)
    assert not values(dive.out).any() and dive.pilot.mode is Mode.MANUAL
    assert dive.pilot.arm(dive.t) == ""


def test_disarming_is_immediate_and_arming_starts_from_neutral():
    dive = Dive().engaged(Mode.MANUAL, "operator")
    dive.run(40, "operator", surge=1.0)
    dive.pilot.disarm(dive.t)
    assert not values(dive.run(5, "operator", surge=1.0)).any()
    assert dive.pilot.arm(dive.t) == "" and dive.pilot.arm(dive.t) == ""  # twice is once
    assert np.abs(values(dive.run(1, "operator", surge=1.0))).max() == pytest.approx(0.04)
    assert dive.codes == ["armed", "disarmed", "armed"]


def test_tilt_disarms():
    dive = Dive().engaged(Mode.HOLD, "operator")
    dive.state = msgspec.structs.replace(dive.state, pitch=math.radians(35))
    out = dive.run(110)
    assert out.thrusters.neutral_because == "tilted" and not dive.pilot.armed
    assert dive.codes.count("tilted") == 1 and dive.codes.count("disarmed") == 1


def test_below_max_depth_only_upward():
    dive = Dive().engaged(Mode.MANUAL, "operator")
    dive.state = msgspec.structs.replace(dive.state, depth=30.5)
    out = dive.run(30, "operator", heave=1.0, surge=0.3)
    assert out.wrench.heave == 0.0 and values(out)[:4].any() and not values(out)[4:].any()
    assert dive.run(30, "operator", heave=-1.0).wrench.heave == -1.0
    assert dive.codes.count("too_deep") == 1


def test_surface_goes_up_and_eases_off():
    dive = Dive().engaged(Mode.SURFACE, "operator")
    assert dive.run(30).wrench.heave == -0.5
    dive.state = msgspec.structs.replace(dive.state, depth=0.5)
    assert dive.run(1).wrench.heave == pytest.approx(-0.25)
    assert Dive().pilot._sticks(None).tolist() == [0, 0, 0, 0]


def test_mode_changes_are_bumpless():
    dive = Dive().engaged(Mode.MANUAL, "operator")
    dive.state = msgspec.structs.replace(dive.state, depth=8.0, yaw=2.0)
    dive.run(300, "operator")
    assert dive.pilot.request_mode(Mode.HOLD, dive.t) == ""
    out = dive.run(1)
    assert (out.wrench.heave, out.wrench.yaw) == pytest.approx((0.0, 0.0), abs=1e-9)


def test_frames_that_cannot_pitch_are_not_asked_to():
    vectored = schema.parse('[vehicle]\nmax_depth = 30.0\nframe = "vectored"\n')
    dive = Dive(vectored).engaged(Mode.HOLD, "operator")
    dive.state = msgspec.structs.replace(dive.state, pitch=0.2, roll=0.2)
    out = dive.run(1)
    assert out.wrench.pitch == 0.0 and out.wrench.roll < 0 and len(out.thrusters.values) == 6


def test_a_plain_video_runs_open_loop():
    pilot = Pilot(CONFIG, CURVE, vehicle_expected=False)
    first = Setpoint(t=10, frame_id=0, frame_t=10, source="steer", surge=0.4, heave=0.02)
    pilot.step(first, None, 10)
    assert pilot.request_mode(Mode.FOLLOW, 10) == "" and pilot.arm(10) == ""
    for i in range(1, 20):
        t = 10 + i * TICK
        out = pilot.step(msgspec.structs.replace(first, t=t, frame_id=i, frame_t=t), None, t)
    assert (out.wrench.surge, out.wrench.heave, out.wrench.roll) == (0.4, 0.02, 0.0)
    assert values(out).any() and out.thrusters.frame_id == 19
    late = pilot.step(None, None, t + 301 * MS)
    assert not values(late).any() and late.thrusters.neutral_because == "setpoint_stale"
    gone = pilot.step(None, None, t + 1001 * MS)
    assert gone.wrench.mode is Mode.HOLD and [e.code for e in gone.events][:1] == ["perception_gone"]


def test_holds_depth_and_heading_in_closed_loop():
    """Through curve, allocation, slew and dead band: a BlueROV2 Heavy of two axes (von Benzon 2022), 2 N buoyant."""
    dive = Dive().engaged(Mode.HOLD, "operator")
    depth, w, yaw, r = 5.0, 0.0, math.radians(175), 0.0
    log = []
    for i in range(2000):
        dive.state = VehicleState(t=0, attitude_t=0, depth_t=0, depth=depth, yaw=yaw, rates=(0.0, 0.0, r))
        turn = {"yaw": 0.15, "heave": 0.6} if i < 75 else {}  # 1.5 s of stick, then released
        newtons = CURVE.force(values(dive.run(1, "operator", **turn)), 16.8)
        w += 0.02 * (newtons[4:].sum() - 2 - 33 * w - 190 * abs(w) * w) / 32.2
        r += 0.02 * (0.189 * (newtons[0] - newtons[1] - newtons[2] + newtons[3]) - 1.5 * abs(r) * r) / 0.592
        depth += 0.02 * w
        yaw = float(wrapped(np.array(yaw + 0.02 * r)))
        log.append((depth, yaw))
    depths, yaws = np.array(log).T
    goal_depth, goal_yaw = float(dive.pilot.memory.depth), float(dive.pilot.memory.heading)
    assert goal_depth > 5.2 and goal_yaw < 0  # went down, and clockwise across south
    assert np.abs(depths[-250:] - goal_depth).max() < 0.03
    assert np.abs(wrapped(yaws[-250:] - goal_yaw)).max() < math.radians(1.5)
    assert np.abs(yaws).min() > math.radians(45)


def test_pilot_needs_no_torch():
    code = "import sys, rov.motion.pilot; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=30).returncode == 0


def test_every_condition_says_something():
    assert all(level in ("info", "warning", "alarm") and text for level, text in CONDITIONS.values())


wild = st.sampled_from([0.0, 1.0, -1.0, 0.3, math.nan, math.inf, -math.inf, 1e308])
stamps = st.integers(-(10**9), 10**9) | st.just(0)
setpoints = st.builds(
    lambda dt, age, frame_id, source, a, b: Setpoint(
        t=dt, frame_id=frame_id, frame_t=dt - age, source=source, surge=a, sway=b, heave=b, yaw=a
    ),
    stamps,
    stamps,
    st.integers(-1, 50),
    st.sampled_from(["operator", "steer", "policy"]),
    wild,
    wild,
)
vehicles = st.builds(
    lambda dt, at, dp, a, b, v: VehicleState(
        t=dt, attitude_t=at, depth_t=dp, roll=a, pitch=b, yaw=a, rates=(b, a, b), depth=b, battery_v=v
    ),
    stamps,
    st.none() | stamps,
    st.none() | stamps,
    wild,
    wild,
    st.none() | wild,
)
acts = st.sampled_from(["", "", "", "arm", "disarm", "stop", *Mode])


@settings(deadline=None, max_examples=100)
@given(
    st.booleans(),
    st.lists(st.tuples(st.none() | setpoints, st.none() | vehicles, stamps | st.just(TICK), acts), max_size=30),
)
def test_for_any_inputs_the_output_is_safe(expected, sequence):
    pilot, t, before = Pilot(CONFIG, CURVE, vehicle_expected=expected), 0, np.zeros(8)
    for setpoint, vehicle, dt, act in sequence:
        was_t, t = t, t + dt
        if setpoint is not None:
            setpoint = msgspec.structs.replace(setpoint, t=setpoint.t + t, frame_t=setpoint.frame_t + t)
        if vehicle is not None:
            late = {
                name: None if (x := getattr(vehicle, name)) is None else x + t for name in ("attitude_t", "depth_t")
            }
            vehicle = msgspec.structs.replace(vehicle, t=vehicle.t + t, **late)
        if act == "arm":
            pilot.arm(t)
        elif act == "disarm":
            pilot.disarm(t)
        elif act == "stop":
            pilot.stop(t)
        elif act:
            pilot.request_mode(Mode(act), t)
        out = pilot.step(setpoint, vehicle, t)
        sent = values(out)
        assert sent.shape == (8,) and np.isfinite(sent).all() and np.abs(sent).max() <= CONFIG.guard.gain
        assert all(math.isfinite(x) for x in msgspec.structs.astuple(out.wrench) if isinstance(x, float))
        if act == "stop" or not out.thrusters.armed or out.thrusters.neutral_because:
            assert not sent.any()
        else:
            assert np.abs(sent - before).max() <= 2.0 * min(max(0, t - was_t) / 1e9, 0.1) + 1e-12
        before = sent


@pytest.mark.parametrize("field", ["roll", "rates"])
def test_an_attitude_that_no_vehicle_has_is_unknown(field):
    dive = Dive().engaged(Mode.HOLD, "operator")
    dive.state = msgspec.structs.replace(dive.state, **{field: 99.0 if field == "roll" else (0.0, 0.0, 99.0)})
    dive.run(25)  # half a second
    assert "state_lost" not in dive.codes
    dive.run(2)
    assert "state_lost" in dive.codes and dive.pilot.mode is Mode.MANUAL


def test_a_flood_of_stops_is_one_event_a_second():
    dive = Dive().engaged(Mode.MANUAL, "operator")
    for _ in range(150):  # 3 s
        for _ in range(16):
            dive.pilot.stop(dive.t + 1)
        dive.run()
    events = dive.codes.count("stopped")
    assert 3 <= events <= 4


@pytest.mark.parametrize(("stick", "share"), [(1.0, 0.5), (0.4, 0.2), (-0.1, -0.05)])
def test_a_stick_means_the_same_beside_an_autopilot(stick, share):
    """1 is all that guard.gain lets through, 0.5 here; the axes are of full scale."""
    dive = Dive(schema.parse('[vehicle]\nmax_depth = 30.0\n[link]\nkind = "ardusub"\n')).engaged(Mode.HOLD, "operator")
    out = dive.run(50, "operator", surge=stick, yaw=-stick)
    assert values(out) == pytest.approx([share, 0.0, 0.0, -share])


def test_an_autopilot_goes_up_with_the_whole_effort():
    dive = Dive(schema.parse('[vehicle]\nmax_depth = 30.0\n[link]\nkind = "ardusub"\n')).engaged(Mode.SURFACE, "")
    assert values(dive.run(50)) == pytest.approx([0.0, 0.0, -0.5, 0.0])
