"""The policy: a small recurrent network from maps and features to a setpoint and how sure it is of it; one for all
tasks, in the vehicle, the simulator and the trainers."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from rov.steering.mirror import mirror_features, mirror_maps, mirror_setpoint
from rov.steering.policy_input import FEATURES, MAPS

MEMORY = 128
"""Numbers that the network keeps from frame to frame; the policy keeps them twice, of the sea and of its mirror."""
AXES = ("surge", "sway", "heave", "yaw")
LOOK, FEEL = 64, 96
"""Numbers that are made of the maps and of the features."""
LOG_VARIANCE = (-8.0, 2.0)
"""Limits of the answer's log variance: beyond them a likelihood as loss would be all that counts."""


class PolicyNetwork(nn.Module):
    """Two halving convolutions over the maps, two layers over the features, a gated recurrent unit over time. A third
    convolution, at the maps' own fineness, tripled the time of training.

    It is asked twice, of the sea as it is and as in a mirror, so that it does to port what it does to starboard."""

    def __init__(self) -> None:
        super().__init__()
        self.look = nn.Sequential(
            nn.Conv2d(len(MAPS), 24, 3, stride=2, padding=1), nn.SiLU(),
            nn.Conv2d(24, 32, 3, stride=2, padding=1), nn.SiLU(),
            nn.Flatten(), nn.Linear(32 * 3 * 4, LOOK), nn.SiLU(),
        )  # fmt: skip
        self.feel = nn.Sequential(nn.Linear(FEATURES, FEEL), nn.SiLU(), nn.Linear(FEEL, FEEL), nn.SiLU())
        self.remember = nn.GRUCell(LOOK + FEEL, MEMORY)
        # The features pass by the memory, too, so that a reflex need not be remembered first.
        self.answer = nn.Sequential(nn.Linear(MEMORY + LOOK + FEEL, 64), nn.SiLU(), nn.Linear(64, 2 * len(AXES)))

    def forward(self, maps: Tensor, features: Tensor, memory: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Maps (N, 4, 12, 16), features (N, FEATURES), memory (N, 2 · MEMORY) -> setpoint (N, 4) surge, sway, heave,
        yaw in −1..1, the log variance (N, 4) of its error, the next memory (N, 2 · MEMORY)."""
        setpoint, spread, memory = self.decide(
            torch.cat((maps, mirror_maps(maps))),
            torch.cat((features, mirror_features(features))),
            torch.cat(memory.chunk(2, dim=1)),
        )
        here, mirrored = setpoint.chunk(2)
        return (
            (here + mirror_setpoint(mirrored)) / 2,
            spread.view(2, *here.shape).mean(0),
            torch.cat(memory.chunk(2), dim=1),
        )

    def decide(self, maps: Tensor, features: Tensor, memory: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same asked once, with memory (N, MEMORY)."""
        seen = torch.cat((self.look(maps), self.feel(features)), dim=1)
        memory = cast(Tensor, self.remember(seen, memory))
        mean, spread = self.answer(torch.cat((memory, seen), dim=1)).chunk(2, dim=1)
        return torch.tanh(mean), spread.clamp(*LOG_VARIANCE), memory

    def initial_memory(self, n: int) -> Tensor:
        """The memory (n, 2 · MEMORY) at engagement."""
        return next(self.parameters()).new_zeros(n, 2 * MEMORY)
