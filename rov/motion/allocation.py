"""Allocates a wrench to thrusters: motor factors of the ArduSub frames, and saturation that keeps the direction.

Written once in array-API style: numpy in the pilot, torch in a batched world.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from array_api_compat import array_namespace, device

from rov.types import Array, Floats

FACTORS: dict[str, tuple[tuple[float, ...], ...]] = {
    "bluerov1": (
        (0, 0, -1, 0, 1, 0),
        (0, 0, 1, 0, 1, 0),
        (-0.5, 0.5, 0, 0.45, 0, 0),
        (0.5, 0.5, 0, 0.45, 0, 0),
        (0, -1, 0, 1, 0, 0),
        (-0.25, 0, 0, 0, 0, 1),
    ),
    "vectored": (
        (0, 0, 1, 0, -1, 1),
        (0, 0, -1, 0, -1, -1),
        (0, 0, -1, 0, 1, 1),
        (0, 0, 1, 0, 1, -1),
        (1, 0, 0, -1, 0, 0),
        (-1, 0, 0, -1, 0, 0),
    ),
    "vectored_6dof": (
        (0, 0, 1, 0, -1, 1),
        (0, 0, -1, 0, -1, -1),
        (0, 0, -1, 0, 1, 1),
        (0, 0, 1, 0, 1, -1),
        (1, -1, 0, -1, 0, 0),
        (-1, -1, 0, -1, 0, 0),
        (1, 1, 0, -1, 0, 0),
        (-1, 1, 0, -1, 0, 0),
    ),
    "vectored_6dof_90deg": (
        (1, 1, 0, 1, 0, 0),
        (0, 0, 1, 0, 1, 0),
        (1, -1, 0, 1, 0, 0),
        (0, 0, 0, 0, 0, 1),
        (0, 0, 0, 0, 0, 1),
        (-1, 1, 0, 1, 0, 0),
        (0, 0, -1, 0, 1, 0),
        (-1, -1, 0, 1, 0, 0),
    ),
    "simplerov_3": (
        (0, 0, -1, 0, 1, 0),
        (0, 0, 1, 0, 1, 0),
        (0, 0, 0, -1, 0, 0),
    ),
    "simplerov_4": (  # five motors in spite of its name: SIMPLEROV_4 and _5 share one table
        (0, 0, -1, 0, 1, 0),
        (0, 0, 1, 0, 1, 0),
        (1, 0, 0, -1, 0, 0),
        (-1, 0, 0, -1, 0, 0),
        (0, 0, 0, 0, 0, 1),
    ),
}
"""Per motor: roll, pitch, yaw, throttle (up), forward, lateral, as in ArduPilot's AP_Motors6DOF.cpp."""
LEVEL = (0.0, 0.0, 0.0, 1.0, 1.0, 0.0)
"""The axes that keep the vehicle upright."""
TINY = 1e-9
"""Outputs smaller than this are not divided by."""


@cache
def mixer(frame: str) -> Floats:
    """(n motors, 6): output of each motor per unit of surge, sway, heave, roll, pitch, yaw.

    The one place that converts ArduSub's axis order and upward throttle to ours, positive down."""
    roll, pitch, yaw, throttle, forward, lateral = np.array(FACTORS[frame], dtype=np.float64).T
    return np.stack([forward, lateral, -throttle, roll, pitch, yaw], axis=-1)


@cache
def effect(frame: str) -> Floats:
    """(6, n motors): from motor outputs to their wrench; the inverse of `allocate` where nothing saturates."""
    return np.asarray(np.linalg.pinv(mixer(frame)), dtype=np.float64)


@cache
def controllable_axes(frame: str) -> tuple[bool, ...]:
    """Which of surge, sway, heave, roll, pitch, yaw the frame can act on."""
    return tuple(bool(can) for can in np.any(mixer(frame) != 0, axis=0))


@cache
def groups(frame: str) -> tuple[tuple[bool, ...], ...]:
    """Groups of axes (masks of 6) that share motors, directly or through others: on a BlueROV2 the horizontal and the
    vertical axes."""
    used = mixer(frame) != 0
    left = [i for i in range(6) if used[:, i].any()]
    found = []
    while left:
        axes = np.zeros(6, dtype=bool)
        axes[left[0]] = True
        for _ in left:  # each pass adds the axes that share a motor with those already in
            axes = (used[used[:, axes].any(axis=1)]).any(axis=0)
        left = [i for i in left if not axes[i]]
        found.append(tuple(axes.tolist()))
    return tuple(found)


@cache
def _split(frame: str) -> Floats:
    """(6, groups × 2 × motors): the mixer, for each group first with its roll and pitch alone, then with its others."""
    level = np.array(LEVEL)
    parts = [np.array(axes) * only for axes in groups(frame) for only in (level, 1.0 - level)]
    return np.concatenate([mixer(frame).T * part[:, None] for part in parts], axis=1)


def allocate(wrench: Array, frame: str) -> Array:
    """Wrench (…, 6) in −1..1 -> motors (…, n) in −1..1, motor 1 first.

    Groups share no motor, so none takes from another: full ahead takes nothing from depth and attitude (ArduSub's
    VECTORED_6DOF does the same). Within a group that saturates, roll and pitch come first, scaled together, and the
    other axes share the rest, scaled together. Scaled all alike, half a stick ahead would tumble the vehicle: a tilted
    vehicle thrusts in the wrong direction, and the depth loop answers with more thrust. Axes that the frame cannot act
    on are dropped.
    """
    xp = array_namespace(wrench)
    split = xp.asarray(_split(frame), dtype=wrench.dtype, device=device(wrench))
    parts = xp.reshape(wrench @ split, (*wrench.shape[:-1], len(groups(frame)), 2, len(mixer(frame))))
    first, rest = parts[..., 0, :], parts[..., 1, :]  # (…, groups, n)
    first = first / xp.max(xp.abs(first), axis=-1, keepdims=True).clip(min=1.0)
    room = 1.0 - xp.sign(rest) * first  # what each motor has left in the direction of `rest`
    share = xp.min(room / xp.abs(rest).clip(min=TINY), axis=-1, keepdims=True).clip(max=1.0)
    return xp.sum(first + share * rest, axis=-2)
