"""Windows of experience: what the student saw, step by step, and what the expert would have done there."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.policy.unroll import unroll
from rov.steering.mirror import mirror_features, mirror_maps, mirror_setpoint
from rov.steering.policy_network import MEMORY, PolicyNetwork


class Windows(NamedTuple):
    """B windows of T decisions."""

    maps: Tensor
    """(T, B, 4, 12, 16) float16."""
    features: Tensor
    """(T, B, FEATURES) float16."""
    labels: Tensor
    """(T, B, 4) the expert's setpoints."""
    bearings: Tensor
    """(T, B) rad, where the expert wants to: the direction off the line that it chose, the target's bearing; else 0."""
    weights: Tensor
    """(T, B) how much each decision counts."""
    memory: Tensor
    """(B, 2 · MEMORY) of the student before the first decision."""
    begins: Tensor
    """(T, B) true where an episode begins."""


MIXED = 16
"""Sets that a batch is drawn from."""


class Store:
    """The last windows, up to `capacity` sets of them; each window is drawn as often as any other."""

    def __init__(self, capacity: int):
        self.capacity = capacity
        self.sets: list[Windows] = []

    def add(self, windows: Windows) -> None:
        self.sets = [*self.sets, windows][-self.capacity :]

    def draw(self, size: int, random: torch.Generator) -> Windows:
        """`size` windows, a few from each of MIXED sets, large sets the more often: of all tasks. A batch of one task
        alone would pull the network to and fro, and it would learn none of them. About half are seen in a mirror."""
        sizes = torch.tensor([float(windows.memory.shape[0]) for windows in self.sets])
        chosen = torch.multinomial(sizes, min(MIXED, size), replacement=True, generator=random).tolist()
        share = -(-size // len(chosen))
        parts = []
        for number in chosen:
            windows = self.sets[number]
            columns = torch.randint(windows.memory.shape[0], (share,), generator=random).to(windows.memory.device)
            parts.append([each[columns] if each is windows.memory else each[:, columns] for each in windows])
        drawn = Windows(
            *(
                torch.cat(some, 0 if name == "memory" else 1)
                for name, some in zip(Windows._fields, zip(*parts, strict=True), strict=True)
            )
        )
        turned = torch.rand(drawn.memory.shape[0], generator=random) < 0.5
        return mirrored(drawn, turned.to(drawn.memory.device))


def mirrored(windows: Windows, turned: Tensor) -> Windows:
    """The windows of which `turned` (B,) is true as in a mirror."""
    rows = turned[:, None]
    return windows._replace(
        maps=torch.where(rows[..., None, None], mirror_maps(windows.maps), windows.maps),
        features=torch.where(rows, mirror_features(windows.features), windows.features),
        labels=torch.where(rows, mirror_setpoint(windows.labels), windows.labels),
        bearings=torch.where(turned, -windows.bearings, windows.bearings),
        memory=torch.where(rows, windows.memory.roll(MEMORY, 1), windows.memory),
    )


def loss(
    network: PolicyNetwork, windows: Windows, burn_in: int, smooth: float, bearing: nn.Module | None = None
) -> tuple[Tensor, dict[str, float]]:
    """The loss of a batch, and its parts for the log.

    The network is asked once, of the sea as it is in the windows. The setpoint's error is squared; its likelihood
    teaches the variance alone, so that a sure answer is not bought by giving up hard ones (Seitzer et al. 2022 name
    it). The first `burn_in` decisions only warm the memory, unless the episode begins in them. `smooth` weighs the
    change from one decision to the next beyond the expert's own (CAPS, Mysore et al. 2021): ripple costs thrust.

    `bearing` guesses the expert's bearing from what the setpoint is made of, and is thrown away after the training: in
    the setpoints a way around a rock is mixed with what nobody can see, and alone it is learned from far fewer courses.
    """
    memory = windows.memory[:, :MEMORY]
    mean, spread, known = unroll(network, windows.maps.float(), windows.features.float(), memory, windows.begins)
    warm = windows.begins.cumsum(0) > 0
    warm[burn_in:] = True
    weight = windows.weights * warm
    total = weight.sum().clamp(min=1)
    miss = (mean - windows.labels).square()
    error = (miss.sum(-1) * weight).sum() / total
    likelihood = 0.5 * (miss.detach() * torch.exp(-spread) + spread).sum(-1)
    likelihood = (likelihood * weight).sum() / total
    same = weight[1:] * ~windows.begins[1:]
    ripple = ((mean[1:] - mean[:-1]) - (windows.labels[1:] - windows.labels[:-1])).square().sum(-1)
    ripple = (ripple * same).sum() / same.sum().clamp(min=1)
    parts = {"error": error.item(), "likelihood": likelihood.item(), "ripple": ripple.item()}
    whole = error + 0.1 * likelihood + smooth * ripple
    if bearing:
        off = ((bearing(known)[..., 0] - windows.bearings).square() * weight).sum() / total
        whole, parts = whole + off, parts | {"bearing": off.item()}
    return whole, parts
