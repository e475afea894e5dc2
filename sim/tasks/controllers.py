"""Controllers that need no learning and no tuning: nothing at all, and the visual servo. Each is a function
(sources, maps, truth, memory) -> (setpoint (N, 4), memory)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rov.config.schema import SteeringConfig
from rov.steering.policy_input import Sources, goal_size
from rov.steering.servo import servo as law
from sim.tasks.sea import Truth

Controller = Callable[[Sources, Tensor, Truth, Any], tuple[Tensor, Any]]
"""The memory is None at the start; then a tuple of tensors (N, …) that start from zeros."""
TYPICAL_HEIGHT_M = 0.45
"""Of a diver's or a large fish's box, where the operator says nothing: the servo knows a size in the picture alone."""


def zero(sources: Sources, maps: Tensor, truth: Truth, memory: Any) -> tuple[Tensor, Any]:
    """Let go of the sticks: the inner loops hold depth and heading."""
    return torch.zeros_like(sources.previous), memory


def servo(sources: Sources, maps: Tensor, truth: Truth, memory: Any) -> tuple[Tensor, Any]:
    """The daemon's visual servo at its defaults, at the size that the target should have at the goal's distance;
    without a target it lets go."""
    visible, bearing, elevation, size = sources.tracks[:, 0, :4].unbind(1)
    typical = TYPICAL_HEIGHT_M / (sources.goal[:, 2] * 2 * truth.conditions.view[:, 1])
    wanted = torch.where(sources.target_height.isfinite(), goal_size(sources), typical)
    gains = SteeringConfig()
    surge, heave, yaw = law(bearing, elevation, size * gains.size / wanted, gains)
    setpoint = torch.stack([surge, torch.zeros_like(surge), heave, yaw], dim=1) * (visible > 0)[:, None]
    return setpoint.nan_to_num(), memory
