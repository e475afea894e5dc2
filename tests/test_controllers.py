"""The inner loops: by hand, as properties, and closed around a toy vehicle."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rov.config.schema import ControlConfig
from rov.motion.controllers import (
    DEAD_BAND,
    TRIM_MAX,
    LoopMemory,
    LoopState,
    differentiate,
    initial_memory,
    step_loops,
    wrapped,
)

GAINS = ControlConfig()
DT = 0.02
ON = np.array([True, True, True])
OFF = ~ON
STILL = np.zeros(4)


def state(depth=5.0, roll=0.0, pitch=0.0, yaw=0.0, rates=(0.0, 0.0, 0.0), depth_rate=0.0):
    return LoopState(np.array([roll, pitch, yaw]), np.array(rates), np.array(depth), np.array(depth_rate))


def memory(depth=5.0, heading=0.0, depth_trim=0.0, heading_trim=0.0):
    return LoopMemory(*map(np.array, (depth, heading, depth_trim, heading_trim)))


def step(sticks=STILL, state_=None, memory_=None, loops=ON, gains=GAINS, dt=DT, max_depth=100.0):
    return step_loops(np.asarray(sticks, float), state_ or state(), memory_ or memory(), loops, gains, dt, max_depth)


def test_loops_by_hand():
    wrench, after = step(
        [0.3, -0.2, 0.0, 0.0],
        state(depth=5.2, roll=0.1, pitch=-0.2, yaw=0.3, rates=(0.2, 0.1, -0.4), depth_rate=0.1),
        memory(depth=5.0, heading=0.1),
    )
    assert wrench == pytest.approx([
        0.3,
        -0.2,
        1.5 * (5.0 - 5.2) - 1.2 * 0.1,
        -2.2 * 0.1 - 0.3 * 0.2,
        -2.2 * -0.2 - 0.3 * 0.1,
        1.2 * (0.1 - 0.3) - 0.5 * -0.4,
    ])  # fmt: skip
    assert after.depth_trim == pytest.approx(0.2 * -0.2 * 0.02)
    assert after.heading_trim == pytest.approx(0.05 * -0.2 * 0.02)
    assert (after.depth, after.heading) == pytest.approx((5.0, 0.1))


def test_a_turn_by_hand_is_damped_while_heading_is_controlled():
    turning = state(rates=(0.0, 0.0, 0.6))
    held, _ = step([0.0, 0.0, 0.0, 0.5], turning, memory(), ON)
    assert held[5] == pytest.approx(0.5 - 0.5 * 0.6)
    loose, _ = step([0.0, 0.0, 0.0, 0.5], turning, memory(), OFF)
    assert loose[5] == pytest.approx(0.5)


def test_open_loop_passes_sticks_and_follows_the_vehicle():
    wrench, after = step(
        [0.1, 0.2, 0.03, -0.04], state(depth=7.0, roll=1.0, yaw=2.0), memory(depth_trim=0.3, heading_trim=0.1), OFF
    )
    assert wrench == pytest.approx([0.1, 0.2, 0.03, 0.0, 0.0, -0.04])
    assert tuple(map(float, after)) == pytest.approx((7.0, 2.0, 0.0, 0.0))


def test_switching_on_is_bumpless():
    moving = state(depth=7.0, yaw=3.0, rates=(0.0, 0.0, 0.6), depth_rate=-0.3)
    _, after = step(STILL, moving, memory(depth=1.0, heading=0.0), OFF)
    wrench, _ = step(STILL, moving, after, ON)
    assert wrench == pytest.approx(np.zeros(6), abs=1e-12)


def test_releasing_a_stick_captures_where_the_vehicle_stops():
    moving = state(depth=7.0, depth_rate=0.3)
    wrench, after = step([0.0, 0.0, 0.5, 0.0], moving, memory(depth=1.0, depth_trim=-0.1))
    assert wrench[2] == pytest.approx(0.5 - 0.1)  # open loop on top of the trim
    assert after.depth == pytest.approx(7.0 + 1.2 / 1.5 * 0.3)
    wrench, _ = step(STILL, moving, after)
    assert wrench[2] == pytest.approx(-0.1)  # the trim alone


def test_heading_takes_the_short_way():
    wrench, _ = step(STILL, state(yaw=math.radians(175)), memory(heading=math.radians(-175)))
    assert wrench[5] == pytest.approx(1.2 * math.radians(10))
    assert wrapped(np.array([3.5, -3.5, 0.0])) == pytest.approx([3.5 - 2 * math.pi, 2 * math.pi - 3.5, 0.0])


@pytest.mark.parametrize("loops", [ON, OFF])
def test_below_max_depth_only_upward(loops):
    assert step([0, 0, 1.0, 0], state(depth=10.1), loops=loops, max_depth=10.0)[0][2] == 0.0
    assert step([0, 0, -0.7, 0], state(depth=10.1), loops=loops, max_depth=10.0)[0][2] == pytest.approx(-0.7)
    _, after = step([0, 0, 1.0, 0], state(depth=9.9, depth_rate=1.0), max_depth=10.0)
    assert after.depth == 10.0  # nothing deeper is ever held


def test_no_windup():
    gains = ControlConfig(depth_ki=5.0)
    after = memory(depth=50.0)
    for _ in range(200):
        wrench, after = step(STILL, state(depth=5.0), after, gains=gains)
    assert wrench[2] == 1.0 and after.depth_trim == 0.0  # saturated by the error alone: the trim stands still
    for _ in range(2000):
        _, after = step(STILL, state(depth=5.0), after._replace(depth=np.array(5.1)), gains=gains)
    assert after.depth_trim == TRIM_MAX


def test_zero_gain_captures_without_lead():
    _, after = step(STILL, state(depth=3.0, depth_rate=1.0), loops=OFF, gains=ControlConfig(depth_kp=0.0))
    assert after.depth == 3.0


def test_rate_estimate_converges_to_the_slope():
    rate = np.array(0.0)
    for i in range(100):
        rate = differentiate(rate, np.array(0.3 * i * 0.1), np.array(0.3 * (i + 1) * 0.1), 0.1)
    assert rate == pytest.approx(0.3)
    assert differentiate(np.array(0.0), np.array(5.0), np.array(8.0), 0.2) == pytest.approx(1.0)  # 2 m/s, half of it


numbers = st.floats(-4, 4, allow_subnormal=False)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 4).flatmap(lambda n: st.lists(st.lists(numbers, min_size=16, max_size=16), min_size=n, max_size=n))
)
def test_numpy_torch_and_batches_agree(rows):
    x = np.array(rows)
    loops = x[:, 13:] > 0

    def run(x, loops):
        part = LoopState(x[..., 4:7], x[..., 7:10], x[..., 10], x[..., 11])
        start = initial_memory(part)._replace(depth=x[..., 12], depth_trim=x[..., 13] / 10)
        return step_loops(x[..., :4] / 4, part, start, loops, GAINS, DT, 3.0)

    wrench, after = run(x, loops)
    tensor, tensor_after = run(torch.from_numpy(x), torch.from_numpy(loops))
    assert tensor.numpy() == pytest.approx(wrench, abs=1e-12)
    for ours, theirs in zip(after, tensor_after, strict=True):
        assert theirs.numpy() == pytest.approx(ours, abs=1e-12)
    for i in range(len(x)):
        one, _ = run(x[i], loops[i])
        assert one == pytest.approx(wrench[i], abs=1e-12)
    assert np.abs(wrench).max() <= 1.0


def test_gradients_flow():
    sticks = torch.tensor([[0.2, 0.1, 0.5, -0.4]], requires_grad=True)
    depth = torch.tensor([5.1], requires_grad=True)
    at = LoopState(torch.zeros(1, 3), torch.zeros(1, 3), depth, torch.zeros(1))
    loops = torch.tensor([[True, True, True]])
    wrench, _ = step_loops(sticks, at, initial_memory(at), loops, GAINS, DT, 100.0)
    wrench.sum().backward()
    assert sticks.grad is not None and sticks.grad.tolist() == [[1.0, 1.0, 1.0, 1.0]]
    held, _ = step_loops(
        torch.zeros(1, 4), at, initial_memory(at)._replace(depth=torch.tensor([5.0])), loops, GAINS, DT, 100.0
    )
    depth.grad = None
    held[0, 2].backward()
    assert depth.grad is not None and depth.grad.item() == pytest.approx(-1.5)


def sail(depth, heading, target_depth, target_heading, seconds=25.0):
    """A BlueROV2 Heavy as a double integrator with drag (von Benzon 2022), 2 N buoyant; full: 56 N, 10.6 N m."""
    depth, yaw, w, r, rate = np.array(depth), heading, 0.0, 0.0, 0.0
    kept = memory(depth=target_depth, heading=target_heading)
    log = []
    for _ in range(int(seconds / DT)):
        wrench, kept = step(STILL, state(depth=depth, yaw=yaw, rates=(0.0, 0.0, r), depth_rate=rate), kept)
        before = depth
        w += DT * (56 * wrench[2] - 2 - 33 * w - 190 * abs(w) * w) / (13.5 + 18.7)
        r += DT * (10.6 * wrench[5] - 1.5 * abs(r) * r) / (0.37 + 0.222)
        depth = depth + DT * w
        yaw = float(wrapped(np.array(yaw + DT * r)))
        rate = differentiate(rate, before, depth, DT)
        log.append((depth, yaw))
    return np.array(log)


def test_a_depth_step_settles_against_buoyancy():
    depth = sail(5.0, 0.0, 7.0, 0.0, 40.0)[:, 0]
    assert depth.max() < 7.3
    assert np.abs(depth[-250:] - 7.0).max() < 0.02


def test_a_turn_across_south_goes_the_short_way():
    yaw = sail(5.0, math.radians(170), 5.0, math.radians(-150))[:, 1]
    assert np.abs(yaw).min() > math.radians(145)  # never through north
    assert math.degrees(yaw[-1]) == pytest.approx(-150, abs=1.0)


def test_the_dead_band_is_inside_the_hold():
    wrench, _ = step([0, 0, DEAD_BAND, 0], state(depth=5.0), memory(depth=5.4))
    assert wrench[2] == pytest.approx(1.5 * 0.4)
