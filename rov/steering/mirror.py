"""Port and starboard exchanged. A vehicle that is alike on both sides, in a sea seen through a mirror, has to do the
mirrored thing: what is learned to one side need not be learned again to the other."""

from __future__ import annotations

import torch
from torch import Tensor

from rov.steering.policy_input import FEATURE_NAMES, TRACKS

TURNED = frozenset({
    "goal_heading_sin", "start_heading_sin", *(f"track_{i}_bearing" for i in range(TRACKS)),
    "moved_dx", "moved_roll", "keyed_dx", "keyed_dx_far", "keyed_roll",
    "roll", "rate_p", "rate_r", "previous_sway", "previous_yaw",
})  # fmt: skip
"""Features that change their sign in a mirror."""
FEATURE_SIGNS = torch.tensor([-1.0 if name in TURNED else 1.0 for name in FEATURE_NAMES])
SETPOINT_SIGNS = torch.tensor([1.0, -1.0, 1.0, -1.0])
"""Of surge, sway, heave, yaw."""


def mirror_maps(maps: Tensor) -> Tensor:
    """Maps (…, ROWS, COLUMNS)."""
    return maps.flip(-1)


def mirror_features(features: Tensor) -> Tensor:
    """Features (…, FEATURES)."""
    return features * FEATURE_SIGNS.to(features)


def mirror_setpoint(setpoint: Tensor) -> Tensor:
    """Setpoints (…, 4)."""
    return setpoint * SETPOINT_SIGNS.to(setpoint)
