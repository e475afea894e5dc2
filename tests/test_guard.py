"""The guard: for any sequence of inputs only finite, limited and permitted values leave."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rov.config import schema
from rov.motion.allocation import FACTORS, effect
from rov.motion.guard import STEP_MAX_S, Guard
from rov.motion.pilot import AXES_DOWN
from rov.motion.thrusters import load

pytestmark = pytest.mark.patient

ROOT = Path(__file__).parent.parent
MS = 1_000_000
LIMITS = schema.GuardConfig()
DOWN = np.array([0.0, 0.0, 1.0, 1.0])


def guard(**limits) -> Guard:
    return Guard(schema.GuardConfig(**limits), max_depth=10.0, down=DOWN)


def armed(**limits) -> Guard:
    made = guard(**limits)
    made.step(np.zeros(4), 0, tilt=0.0, depth=1.0)
    assert made.arm(0) == ""
    return made


def run(made, values, t, tilt=0.0, depth=1.0, because=""):
    return made.step(values, t, tilt=tilt, depth=depth, neutral_because=because)


def test_starts_disarmed():
    result = run(guard(), np.ones(4), 0)
    assert result.values == (0.0,) * 4 and result.neutral_because == "disarmed"


def test_slew_and_gain_by_hand():
    made = armed()
    assert run(made, [1, -1, 0.03, 0], 20 * MS).values == pytest.approx((0.04, -0.04, 0.03, 0.0))  # 2/s * 20 ms
    assert run(made, [1, -1, 0.03, 0], 40 * MS).values == pytest.approx((0.08, -0.08, 0.03, 0.0))
    for i in range(3, 40):
        result = run(made, [1, -1, 0.03, 0], i * 20 * MS)
    assert result.values == (0.5, -0.5, 0.03, 0.0)  # the gain
    assert run(made, np.zeros(4), 800 * MS).values == pytest.approx((0.46, -0.46, 0.0, 0.0))


def test_time_gaps_and_time_that_runs_backwards():
    made = armed()
    assert max(run(made, np.ones(4), 10_000 * MS).values) == pytest.approx(2.0 * STEP_MAX_S)
    assert max(run(made, np.ones(4), 5_000 * MS).values) == pytest.approx(2.0 * STEP_MAX_S)


@pytest.mark.parametrize(
    "bad",
    [[1, 2, 3], [[0.0] * 4], [0, 0, 0, math.nan], [0, 0, math.inf, 0], ["a"] * 4, None, [[1], [1, 2]], [10**400] * 4],
)
def test_bad_output_is_neutral_at_once_and_counted(bad):
    made = armed()
    run(made, [0.1] * 4, 100 * MS)
    result = run(made, bad, 120 * MS)
    assert result.values == (0.0,) * 4
    assert result.neutral_because == "bad_output" and result.conditions == {"bad_output"}
    assert made.bad_outputs == 1 and made.armed
    assert max(run(made, [0.5] * 4, 140 * MS).values) == pytest.approx(0.04)  # slews from neutral


@pytest.mark.parametrize("how", ["disarm", "stop", "stale"])
def test_neutral_is_immediate(how):
    made = armed()
    for i in range(1, 30):
        run(made, np.ones(4), i * 20 * MS)
    if how != "stale":
        made.disarm(590 * MS, "stopped" if how == "stop" else "disarmed")
    result = run(made, np.ones(4), 600 * MS, because="setpoint_stale" if how == "stale" else "")
    assert result.values == (0.0,) * 4
    assert result.neutral_because == {"disarm": "disarmed", "stop": "stopped", "stale": "setpoint_stale"}[how]


def test_an_arming_under_way_does_not_undo_a_stop():
    made = armed()
    made.disarm(500 * MS, "stopped")
    assert "stopped" in made.arm(499 * MS) and "stopped" in made.arm(500 * MS)
    assert not made.armed
    assert made.arm(501 * MS) == "" and made.armed


def test_a_stop_while_disarmed_still_voids_armings():
    made = guard()
    made.disarm(500 * MS, "stopped")
    assert made.arm(400 * MS)
    made.disarm(300 * MS, "stopped")  # a late one does not shorten the first
    assert made.arm(400 * MS)


def test_tilt_disarms_after_its_time():
    made = armed()
    for i in range(1, 100):
        assert run(made, np.ones(4), i * 20 * MS, tilt=0.6).neutral_because == ""  # 34 degrees
    assert run(made, np.ones(4), 99 * 20 * MS + 1, tilt=None).neutral_because == ""
    result = run(made, np.ones(4), 101 * 20 * MS, tilt=0.6)
    assert result.values == (0.0,) * 4 and result.neutral_because == "tilted" and result.conditions == {"tilted"}
    assert not made.armed
    assert made.arm(3000 * MS) == "" and run(made, np.ones(4), 3001 * MS).conditions == frozenset()


def test_a_short_tilt_is_forgiven():
    made = armed()
    for i in range(1, 400):
        run(made, np.ones(4), i * 20 * MS, tilt=1.0 if i % 99 else 0.1)
    assert made.armed


def test_too_deep_takes_the_downward_part_only():
    made = armed(slew=20.0)
    for i in range(1, 9):
        result = run(made, [0.3, -0.3, 0.4, 0.2], i * 100 * MS, depth=10.1)
    assert result.values == pytest.approx((0.3, -0.3, 0.1, -0.1))  # 0.3 of common push gone, the difference kept
    assert result.conditions == {"too_deep"}
    assert run(made, [0.0, 0.0, -0.4, -0.2], 900 * MS, depth=10.1).values == pytest.approx((0, 0, -0.4, -0.2))
    assert run(made, DOWN, 1000 * MS, depth=None).conditions == {"too_deep"}  # unknown: the last verdict stands
    assert run(made, DOWN, 1100 * MS, depth=9.0).conditions == frozenset()


def test_limited_values_never_push_down_when_too_deep():
    made = armed()
    made.too_deep = True
    rng = np.random.default_rng(0)
    for values in rng.normal(size=(500, 4)) * 2:
        limited = made._limited(values, None)
        assert limited @ DOWN <= 1e-12 and np.abs(limited).max() <= 0.5


CURVE = load(ROOT / "calibration/t200.toml", 4)
HULLS = [*FACTORS, "autopilot"]
command = st.floats(-1, 1) | st.just(5e-324) | st.sampled_from([0.0, 0.5, -0.5, 1.0, -1.0, 0.07, -0.07])
commands = st.lists(command, min_size=8, max_size=8)


def hull(frame: str, **limits) -> tuple[Guard, np.ndarray]:
    """A guard as the pilot makes it, armed and too deep, and how much each output's thrust pushes down."""
    axes = frame == "autopilot"
    down = np.array(AXES_DOWN) if axes else effect(frame)[2]
    made = Guard(schema.GuardConfig(**limits), 10.0, down, None if axes else CURVE)
    made.step(np.zeros(down.size), 0, tilt=0.0, depth=11.0)
    assert made.arm(0) == ""
    return made, down / np.linalg.norm(down)


def push(made: Guard, down: np.ndarray, values, volts) -> float:
    """N (or effort) downward, by the curve alone."""
    thrust = np.array(values) if made.curve is None else CURVE.force(np.array(values), volts)
    return float(thrust @ down)


@pytest.mark.parametrize("frame", ["vectored", "vectored_6dof"])
def test_opposite_commands_of_half_push_nothing_down(frame):
    """A T200 is stronger ahead than astern: half a command each way is some newtons, whichever way that is."""
    made, down = hull(frame, slew=20.0)
    wanted = np.where(np.arange(down.size) % 2, 0.5, -0.5) * (down != 0) + 0.3 * (down == 0)
    assert push(made, down, wanted, 16.0) > 2.0
    for i in range(1, 9):
        out = made.step(wanted, i * 100 * MS, tilt=0.0, depth=11.0, volts=16.0).values
    assert push(made, down, out, 16.0) <= 1e-9
    assert np.abs(np.array(out)[down != 0]).min() > 0.2, "what turns the vehicle is kept"
    assert np.array(out)[down == 0] == pytest.approx(0.3), "and what moves it along"


@settings(deadline=None, max_examples=100)
@given(
    st.sampled_from(HULLS),
    st.floats(0.01, 1.0),
    st.none() | st.floats(9.0, 22.0),
    st.lists(st.tuples(commands, st.integers(1, 15)), min_size=1, max_size=4),
    st.floats(0.5, 20.0),
)
def test_below_max_depth_no_combination_of_commands_pushes_down(frame, gain, volts, sequence, slew):
    made, down = hull(frame, gain=gain, slew=slew)
    t = 0
    for values, ticks in sequence:
        for _ in range(ticks):
            t += 20 * MS
            result = made.step(values[: down.size], t, tilt=0.0, depth=11.0, volts=volts)
            assert result.neutral_because == "" and np.abs(result.values).max() <= gain
            assert push(made, down, result.values, volts) <= 1e-9


@settings(deadline=None, max_examples=50)
@given(st.sampled_from(HULLS), commands, commands, st.floats(12.0, 16.8), st.floats(-0.2, 0.2))
def test_going_too_deep_the_push_down_ends_as_fast_as_slew_allows(frame, before, values, volts, sag):
    made, down = hull(frame)
    values, t = np.array(values)[: down.size], 0
    for _ in range(15):
        t += 20 * MS
        out = made.step(before[: down.size], t, tilt=0.0, depth=1.0, volts=volts).values
    for _ in range(40):
        t += 20 * MS
        was, out = out, made.step(values, t, tilt=0.0, depth=11.0, volts=volts + sag).values
        now = push(made, down, out, volts + sag)
        assert now <= max(0.0, push(made, down, was, volts + sag)) + 1e-9
        assert np.abs(np.array(out) - was).max() <= 0.04 + 1e-12
    assert now <= 1e-9


anything = st.floats(allow_nan=True, allow_infinity=True)
ticks = st.tuples(
    st.lists(anything | st.floats(-2, 2), min_size=0, max_size=5) | st.lists(st.floats(-2, 2), min_size=4, max_size=4),
    st.integers(-(10**10), 10**11) | st.just(20 * MS),
    st.none() | st.floats(0, math.pi),
    st.none() | st.floats(-10, 100),
    st.sampled_from(["", "", "", "setpoint_stale"]),
    st.sampled_from(["", "", "", "arm", "disarm", "stop", "arm late", "tune"]),
    st.tuples(st.floats(0.01, 1.0), st.floats(0.01, 20.0), st.floats(0.1, 50.0)),
)


@settings(deadline=None, max_examples=200)
@given(st.lists(ticks, max_size=40))
def test_for_any_inputs(sequence):
    made = armed()
    t, before, stopped_at = 0, np.zeros(4), None
    for values, dt, tilt, depth, because, act, (gain, slew, max_depth) in sequence:
        was_t, t = t, t + dt
        if act == "arm" and made.arm(t) == "":
            stopped_at = None
        elif act == "disarm":
            made.disarm(t)
        elif act == "stop":
            made.disarm(t, "stopped")
            stopped_at = t if stopped_at is None else max(t, stopped_at)
        elif act == "arm late" and stopped_at is not None:
            assert made.arm(stopped_at - 1)  # made before the stop, arrives now
        elif act == "tune":
            made.limit(schema.GuardConfig(gain=gain, slew=slew), max_depth)
        result = run(made, values, t, tilt, depth, because)
        limits, before = made.limits, before.clip(-made.limits.gain, made.limits.gain)
        out = np.array(result.values)
        assert out.shape == (4,) and np.isfinite(out).all() and np.abs(out).max() <= limits.gain
        if result.neutral_because:
            assert not out.any()
        else:
            step = limits.slew * min(max(0, t - was_t) / 1e9, STEP_MAX_S)
            assert np.abs(out - before).max() <= step + 1e-12
        if not made.armed or stopped_at is not None or because:
            assert result.values == (0.0,) * 4 and result.neutral_because
        before = out
