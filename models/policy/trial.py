"""Whole episodes, one for each row of a sea: what a controller reaches, and what it costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rov.steering.policy_input import Sources
from sim.tasks.sea import Sea, Truth

PRICE_W = 50.0
"""λ: what a second costs, W."""
FAILURE_J = 15_000.0
"""What a failed episode costs: about three times a usual one."""
LONGEST_S = 140.0

Steers = Callable[[Sources, Tensor, Truth, Any], tuple[Tensor, Any]]
"""`(sources, maps, truth, memory)` -> setpoint (N, 4) and memory; None begins."""


class Trial(NamedTuple):
    """(N,) each, of every row's first episode."""

    success: Tensor
    touched: Tensor
    joules: Tensor
    seconds: Tensor
    reward: Tensor

    @property
    def charge(self) -> Tensor:
        """∫(P + λ) dt in J; a failure costs FAILURE_J on top."""
        return self.joules + PRICE_W * self.seconds + FAILURE_J * ~self.success

    def summary(self) -> dict[str, float]:
        good = self.success
        mean = {name: value[good].mean().item() for name, value in (("joules", self.joules), ("seconds", self.seconds))}
        return {
            "success": good.float().mean().item(),
            "touched": self.touched.float().mean().item(),
            "charge": self.charge.mean().item(),
            **{name: value if good.any() else 0.0 for name, value in mean.items()},
        }


@torch.no_grad()
def trial(controller: Steers, sea: Sea) -> Trial:
    """Run one episode of each row, and wait until the last has ended."""
    sources, maps = sea.reset()
    zeros = torch.zeros(sea.n, device=sea.device)
    running = zeros == 0
    success, touched = ~running, ~running
    joules, seconds, reward = zeros, zeros, zeros
    memory: Any = None
    for step in range(round(LONGEST_S / 0.04)):
        setpoint, memory = controller(sources, maps, sea.truth(), memory)
        sources, maps, outcome = sea.step(setpoint)
        joules, seconds = joules + outcome.joules * running, seconds + outcome.seconds * running
        reward = reward + outcome.reward * running
        success = success | (outcome.success & running)
        touched = touched | (outcome.touched & running)
        running = running & ~outcome.done
        if step % 8 == 0 and not bool(running.float().mean() > 0.02):  # the last stragglers have not arrived
            break
    return Trial(success, touched, joules, seconds, reward)
