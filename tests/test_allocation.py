"""Motor factors and saturation."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rov.motion.allocation import FACTORS, allocate, capable, effect, groups, mixer

frames = st.sampled_from(sorted(FACTORS))
wrenches = st.lists(st.floats(-1, 1), min_size=6, max_size=6).map(np.array)
SURGE, SWAY, HEAVE, ROLL, PITCH, YAW = np.eye(6)


@pytest.mark.parametrize(
    ("frame", "wrench", "motors"),
    [
        ("vectored", SURGE, [-1, -1, 1, 1, 0, 0]),
        ("vectored", SWAY, [1, -1, 1, -1, 0, 0]),
        ("vectored", YAW, [1, -1, -1, 1, 0, 0]),
        ("vectored", HEAVE, [0, 0, 0, 0, 1, 1]),  # ArduSub's throttle is up: factor -1; down is +1
        ("vectored", ROLL, [0, 0, 0, 0, 1, -1]),
        ("vectored", PITCH, [0, 0, 0, 0, 0, 0]),
        ("vectored_6dof", HEAVE, [0, 0, 0, 0, 1, 1, 1, 1]),
        ("vectored_6dof", PITCH, [0, 0, 0, 0, -1, -1, 1, 1]),
        ("vectored_6dof_90deg", HEAVE, [-1, 0, -1, 0, 0, -1, 0, -1]),
        ("vectored_6dof_90deg", SURGE, [0, 1, 0, 0, 0, 0, 1, 0]),
        ("simplerov_3", -HEAVE, [0, 0, -1]),
        ("simplerov_4", SWAY, [0, 0, 0, 0, 1]),
        ("bluerov1", HEAVE, [0, 0, -0.45, -0.45, -1, 0]),
        ("bluerov1", ROLL, [0, 0, -0.5, 0.5, 0, -0.25]),
        ("vectored", SURGE + YAW, [0, -1, 0, 1, 0, 0]),  # (0, -2, 0, 2) halved
        ("vectored", SURGE + YAW + 0.5 * HEAVE, [0, -1, 0, 1, 0.5, 0.5]),  # the vertical group keeps its own
    ],
)
def test_by_hand(frame, wrench, motors):
    assert allocate(wrench, frame) == pytest.approx(np.array(motors, float))


def test_capable_and_groups():
    assert capable("vectored") == (True, True, True, True, False, True)
    assert capable("vectored_6dof") == (True,) * 6
    assert capable("simplerov_3") == (True, False, True, False, False, True)
    assert groups("vectored_6dof") == (
        (True, True, False, False, False, True),
        (False, False, True, True, True, False),
    )
    for frame in FACTORS:
        members = np.array(groups(frame)).sum(axis=0)
        assert members.tolist() == [int(can) for can in capable(frame)]
        motors = np.array([(mixer(frame)[:, list(axes)] != 0).any(axis=1) for axes in groups(frame)])
        assert motors.sum(axis=0).tolist() == [1] * len(FACTORS[frame])


@given(frames, wrenches)
def test_small_wrenches_come_back(frame, wrench):
    small = wrench * capable(frame) / 6  # no motor sums to more than 1
    assert effect(frame) @ allocate(small, frame) == pytest.approx(small, abs=1e-12)


@given(frames, wrenches)
def test_saturation_keeps_each_groups_direction(frame, wrench):
    motors = allocate(wrench, frame)
    assert np.abs(motors).max() <= 1.0
    back = effect(frame) @ motors
    for axes in groups(frame):
        wanted, got = wrench[list(axes)], back[list(axes)]
        largest = max(1.0, np.abs(mixer(frame)[:, list(axes)] @ wanted).max())
        assert got * largest == pytest.approx(wanted, abs=1e-9)


@settings(deadline=None)
@given(frames, st.lists(wrenches, min_size=1, max_size=4))
def test_numpy_torch_and_batches_agree(frame, rows):
    batch = np.stack(rows)
    motors = allocate(batch, frame)
    assert allocate(torch.from_numpy(batch), frame).numpy() == pytest.approx(motors, abs=1e-12)
    for one, many in zip(rows, motors, strict=True):
        assert allocate(one, frame) == pytest.approx(many, abs=1e-12)
    assert allocate(batch[:, None].astype(np.float32), frame).dtype == np.float32


def test_gradients_flow():
    wrench = torch.full((2, 6), 0.1, requires_grad=True)
    allocate(wrench, "vectored_6dof")[:, 0].sum().backward()
    assert wrench.grad is not None and wrench.grad[0].tolist() == [-1, 1, 0, 0, 0, 1]
