"""The hulls that a batch of vehicles gets: drawn between the published ones, or one published hull for all.

Published damping of one vehicle differs several-fold (von Benzon's against Wu's BlueROV2 Heavy), so the training draws
between those two and around them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from sim.parameters import Body, assemble, load
from sim.vehicle import Model, model

Hull = Literal["drawn", "heavy", "wu"]
"""`drawn`: another one for each vehicle."""
SPREAD = {"train": (0.8, 1.25), "test": (0.65, 1.5)}
"""Factor on each damping and added mass of a drawn hull, log-uniform, by split."""
GAIN = {"train": (0.85, 1.15), "test": (0.8, 1.2)}
"""Factor on each thruster's thrust, log-uniform."""
NET_BUOYANCY_N = (-1.5, 3.0)
"""Buoyancy less weight: owners trim it with a few weights."""
THRUST_DELAY_S = (0.02, 0.06)
DRAWN_LIMIT = 0.9
"""Of the published hulls' stick limit under ArduSub: with it, no drawn hull of seven times 81 tilts by 30°."""


class Hulls(NamedTuple):
    """N vehicles."""

    model: Model
    stick_limit: Tensor
    """(N, 2) largest surge, sway and heave stick under our loops and under ArduSub's."""
    alive: Tensor
    """(N, motors) 1, or 0 where a motor is dead: it gives no thrust and draws no current."""

    def rows(self, chosen: Tensor) -> Hulls:
        """Only the rows (K,)."""
        return Hulls(_columns(self.model, lambda each: each[..., chosen]), self.stick_limit[chosen], self.alive[chosen])

    def put(self, rows: Tensor, new: Hulls) -> Hulls:
        """With the rows (K,) replaced by `new`."""
        limit, alive = self.stick_limit.clone(), self.alive.clone()
        limit[rows], alive[rows] = new.stick_limit, new.alive
        if not _own(self.model):
            return Hulls(self.model, limit, alive)
        fresh = iter((*new.model.body, new.model.scale, new.model.delay))

        def placed(each: Tensor) -> Tensor:
            made = each.clone()
            made[..., rows] = next(fresh)
            return made

        return Hulls(_columns(self.model, placed), limit, alive)


def _own(model: Model) -> bool:
    """Whether each vehicle has its own numbers."""
    return model.body.mass.dim() == 3


def _columns(model: Model, change: Callable[[Tensor], Tensor]) -> Model:
    """`change` applied to the numbers that each vehicle has for itself, body first, then scale and delay."""
    if not _own(model):
        return model
    body = Body(*(change(each) for each in model.body))
    return model._replace(body=body, scale=change(model.scale), delay=change(model.delay))


def hulls(which: Hull, n: int, split: str, random: torch.Generator) -> Hulls:
    """`n` hulls: `drawn` per vehicle from the ranges of the split, or a published one, exactly."""
    device = random.device
    if which == "drawn":
        return _drawn(n, split, random)
    limit = load(which).stick_limit
    limits = torch.tensor([limit.rov, limit.ardusub], device=device).repeat(n, 1)
    base = model(which, torch.float32, device)
    return Hulls(base, limits, torch.ones(n, base.effect.shape[1], device=device))


def _drawn(n: int, split: str, random: torch.Generator) -> Hulls:
    device = random.device
    heavy, wu = load("heavy"), load("wu")

    def uniform(low: float, high: float, columns: int) -> Tensor:
        return low + (high - low) * torch.rand(n, columns, generator=random, device=device, dtype=torch.float64)

    def factor(bounds: tuple[float, float], columns: int) -> Tensor:
        return uniform(math.log(bounds[0]), math.log(bounds[1]), columns).exp()

    share = uniform(0.0, 1.0, 1)  # 0 is Wu's, 1 von Benzon's

    def between(name: str) -> Tensor:
        a, b = (
            torch.tensor(getattr(each, name), dtype=torch.float64, device=device).reshape(1, -1) for each in (wu, heavy)
        )
        return a + share * (b - a)

    weight = between("weight_n")
    numbers = (
        between("mass")[:, 0],
        weight[:, 0],
        (weight + uniform(*NET_BUOYANCY_N, 1))[:, 0],
        between("r_g"),
        between("r_b"),
        between("inertia"),
        between("added_mass") * factor(SPREAD[split], 6),
        between("linear_damping") * factor(SPREAD[split], 6),
        between("quadratic_damping") * factor(SPREAD[split], 6),
    )
    body: Body = torch.vmap(assemble)(*numbers)
    base = model("heavy", torch.float32, device)
    motors = base.effect.shape[1]
    made = base._replace(
        body=Body(*(each.movedim(0, -1).to(torch.float32).squeeze(1).contiguous() for each in body)),
        scale=factor(GAIN[split], motors).T.to(torch.float32).contiguous(),
        delay=uniform(*THRUST_DELAY_S, 1)[:, 0].to(torch.float32),
    )
    # Under ArduSub's loops the slippery end tumbles first: between the two published limits, nearer to that end's, and
    # somewhat below, since hulls, thrusters and delays are drawn beside the published ones, too.
    slippery, draggy = (DRAWN_LIMIT * each.stick_limit.ardusub for each in (wu, heavy))
    limits = torch.cat([torch.ones_like(share), slippery + (draggy - slippery) * share.square()], dim=1)
    return Hulls(made, limits.to(torch.float32), torch.ones(n, motors, device=device))
