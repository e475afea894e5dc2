"""The policy over whole sequences: what does not depend on the memory is computed for all steps at once."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from rov.steering.policy_network import FEEL, LOG_VARIANCE, LOOK, MEMORY, PolicyNetwork

KNOWN = MEMORY + LOOK + FEEL


def unroll(
    network: PolicyNetwork, maps: Tensor, features: Tensor, memory: Tensor, begins: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Maps (T, B, 4, 12, 16), features (T, B, F), memory (B, MEMORY) before the first step, `begins` (T, B) true where
    an episode begins -> setpoints and log variances, both (T, B, 4), and what they are made of (T, B, KNOWN): what the
    network decides, step after step, asked once."""
    steps, rows = features.shape[:2]
    seen = torch.cat((network.look(maps.flatten(0, 1)), network.feel(features.flatten(0, 1))), dim=1)
    inputs = seen.view(steps, rows, -1)  # (T, B, look + feel)
    kept = []
    for step in range(steps):
        memory = cast(Tensor, network.remember(inputs[step], memory * ~begins[step][:, None]))
        kept.append(memory)
    known = torch.cat((torch.cat(kept), seen), dim=1).view(steps, rows, -1)
    mean, spread = network.answer(known).chunk(2, dim=-1)
    return torch.tanh(mean), spread.clamp(*LOG_VARIANCE), known
