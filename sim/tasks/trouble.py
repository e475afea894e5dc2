"""What goes wrong on purpose, and what the looks of pictures say of the conditions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from sim.tasks.course import Conditions
from sim.tasks.hulls import Hulls
from sim.tasks.scenes import Look
from sim.vehicle import DT


class Trouble(NamedTuple):
    """What goes wrong, on purpose, beside the level's conditions."""

    dead_thruster: float = 0.0
    """Share of the vehicles of which one horizontal thruster, drawn, is dead."""
    late_s: float = 0.0
    """More delay from a frame to its setpoint."""
    current: float | None = None
    """m/s: the steady current of every vehicle, in place of the level's."""
    peak: float | None = None
    """m/s: current and gust together reach this once, at an unknown time."""


def troubled(trouble: Trouble, weather: Conditions, boats: Hulls, random: torch.Generator) -> tuple[Conditions, Hulls]:
    """Conditions and hulls with the trouble that lasts; a peak comes later."""
    weather = weather._replace(late=weather.late + round(trouble.late_s / DT))
    if trouble.current is not None:
        strength = weather.current.norm(dim=1, keepdim=True).clamp(min=1e-6)
        weather = weather._replace(current=weather.current / strength * trouble.current)
    if trouble.dead_thruster:
        n = len(weather.late)
        dead = torch.randint(0, 4, (n, 1), generator=random, device=random.device)
        struck = torch.rand(n, 1, generator=random, device=random.device) < trouble.dead_thruster
        boats = boats._replace(alive=torch.ones_like(boats.alive).scatter(1, dead, 1.0 - struck.float()))
    return weather, boats


def seen_through(looks: Sequence[Look], weather: Conditions) -> Conditions:
    """The conditions with the water, the light and the camera of each vehicle's look. One world has one camera: that of
    its first look here, so that its pictures can be made together."""
    device = weather.attenuation.device
    first = {each.world: each for each in reversed(looks)}
    wide = torch.tensor([math.tan(math.radians(first[each.world].place.hfov_deg) / 2) for each in looks], device=device)
    return weather._replace(
        attenuation=torch.tensor([each.attenuation for each in looks], device=device),
        night=torch.tensor([each.night for each in looks], device=device),
        view=torch.stack([wide, 0.75 * wide], dim=1),
    )
