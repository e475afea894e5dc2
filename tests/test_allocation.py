"""Motor factors and saturation."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rov.motion.allocation import FACTORS, allocate, controllable_axes, effect, groups, mixer

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
        ("vectored_6dof", HEAVE + 0.6 * PITCH, [0, 0, 0, 0, -0.2, -0.2, 1, 1]),  # pitch whole, heave has 0.4 of it
        ("vectored_6dof", HEAVE + PITCH, [0, 0, 0, 0, -1, -1, 1, 1]),  # nothing is left
        ("vectored_6dof", ROLL + PITCH, [0, 0, 0, 0, 0, -1, 1, 0]),  # (0, −2, 2, 0) halved
    ],
)
def test_by_hand(frame, wrench, motors):
    assert allocate(wrench, frame) == pytest.approx(np.array(motors, float))


def test_capable_and_groups():
    assert controllable_axes("vectored") == (True, True, True, True, False, True)
    assert controllable_axes("vectored_6dof") == (True,) * 6
    assert controllable_axes("simplerov_3") == (True, False, True, False, False, True)
    assert groups("vectored_6dof") == (
        (True, True, False, False, False, True),
        (False, False, True, True, True, False),
    )
    for frame in FACTORS:
        members = np.array(groups(frame)).sum(axis=0)
        assert members.tolist() == [int(can) for can in controllable_axes(frame)]
        motors = np.array([(mixer(frame)[:, list(axes)] != 0).any(axis=1) for axes in groups(frame)])
        assert motors.sum(axis=0).tolist() == [1] * len(FACTORS[frame])


@given(frames, wrenches)
def test_small_wrenches_come_back(frame, wrench):
    small = wrench * controllable_axes(frame) / 6  # no motor sums to more than 1
    assert effect(frame) @ allocate(small, frame) == pytest.approx(small, abs=1e-12)


@example("bluerov1", np.array([0.0, 0.0, 7.169668174551719e-09, 0.0, 0.5, 0.0]))
@given(frames, wrenches)
def test_a_saturated_group_keeps_level_first_and_then_the_direction_of_the_rest(frame, wrench):
    motors = allocate(wrench, frame)
    assert np.abs(motors).max() <= 1.0 + 1e-12
    for axes in map(np.array, groups(frame)):
        upright = axes & np.array([0, 0, 0, 1, 1, 0], bool)
        mine = (mixer(frame)[:, axes] != 0).any(axis=1)
        first, rest = mixer(frame) @ (wrench * upright), mixer(frame) @ (wrench * (axes & ~upright))
        first = first / max(1.0, np.abs(first).max())
        left = (motors - first)[mine]  # what the others got: along their direction, and as much as there is room for
        share = float(left @ rest[mine] / max(rest @ rest, 1e-30))
        assert left == pytest.approx(share * rest[mine], abs=1e-9)
        rounding = 1e-9 + 1e-15 / max(np.abs(rest).max(), 1e-9)  # beside the first, tiny others lose digits
        assert -rounding <= share <= 1 + rounding
        assert share > 1 - rounding or np.abs(motors[mine]).max() > 1 - 1e-9 or np.abs(rest).max() < 1e-9


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
