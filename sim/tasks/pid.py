"""The plain controllers that the policy is compared with: proportional and integral, on the policy's own observation,
at one cruise speed and a fixed heading; their numbers are tuned with the expert's budget."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rov.steering.policy_input import COLUMNS, INVERSE_RANGE_MAX, ROWS, Sources, goal_size
from sim.tasks.course import wrapped
from sim.tasks.tuned import Controller, Kept, Parameter, Table, Values, kept, load, named, smoothed

FILE = Path(__file__).parent / "pid.toml"
HEADING: Table = {"yaw": Parameter(0.2, 3.0, 1.0), "yaw_damping": Parameter(0.0, 1.5, 0.3)}
PID: dict[str, Table] = {
    "transit": {
        "cruise": Parameter(0.1, 1.0, 0.4),
        **HEADING,
        "heave": Parameter(0.03, 2.0, 0.4),
        "gate": Parameter(0.0, 4.0, 1.0),
        "avoid": Parameter(0.0, 4.0, 1.0),
        "avoid_from": Parameter(0.1, 1.0, 0.4),
        "brake": Parameter(0.0, 2.0, 0.3),
        "smooth": Parameter(0.0, 1.0, 0.2),
    },
    "follow": {
        "surge": Parameter(0.1, 3.0, 0.97),
        "surge_integral": Parameter(0.0, 0.5, 0.057),
        **HEADING,
        "heave": Parameter(0.03, 2.0, 0.4),
        "search": Parameter(0.05, 1.0, 0.17),
        "smooth": Parameter(0.0, 1.0, 0.23),
    },
    "inspect": {
        "cruise": Parameter(0.1, 1.0, 0.41),
        **HEADING,
        "sway": Parameter(0.0, 4.0, 1.1),
        "sway_integral": Parameter(0.0, 0.5, 0.049),
        "heave": Parameter(0.03, 2.0, 0.2),
        "smooth": Parameter(0.0, 1.0, 0.15),
    },
    "station": {
        "along": Parameter(0.0, 8.0, 1.6),
        "across": Parameter(0.0, 8.0, 2.1),
        "integral": Parameter(0.0, 1.0, 0.17),
        "damping": Parameter(0.0, 2.0, 0.36),
        "heave": Parameter(0.03, 2.0, 0.4),
        "smooth": Parameter(0.0, 1.0, 0.12),
    },
}


def pid(task: str, parameters: Tensor | None = None) -> Controller:
    """The controller of a task with `parameters` (N or 1, K) in the order of PID[task]; without any, the tuned ones."""
    table = PID[task]
    if parameters is None:
        parameters = torch.tensor([load(FILE, task, table)])
    return partial(_step, _LAWS[task], named(table, parameters))


def _step(law: Any, p: Values, sources: Sources, maps: Tensor, truth: Any, memory: Kept | None) -> tuple[Tensor, Kept]:
    memory = memory or kept(len(sources.task), maps.device)
    p = {name: each.to(maps.device) for name, each in p.items()}
    wanted, integral, seen = law(p, sources, maps, memory)
    setpoint = smoothed(wanted, memory, p["smooth"], sources.dt_s)
    return setpoint, Kept(integral, setpoint, seen)


def transit(p: Values, sources: Sources, maps: Tensor, memory: Kept) -> tuple[Tensor, Tensor, Tensor]:
    """Heading and depth of the goal; sideways to the middle between the posts that are seen, and away from what is near
    ahead."""
    heading, depth = sources.goal[:, 0], sources.goal[:, 1]
    yaw = turn(p, wrapped(heading - sources.attitude[:, 2]), sources)
    left, right = near_ahead(maps)
    pressed = (torch.stack([left, right]) - p["avoid_from"]).clamp(min=0)
    visible, bearing = sources.tracks[..., 0], sources.tracks[..., 1]
    posts = visible.sum(1)
    middle = (visible * bearing).sum(1) / posts.clamp(min=1)
    sway = p["gate"] * middle * (posts > 1) + p["avoid"] * (pressed[0] - pressed[1])
    surge = p["cruise"] / (1 + p["brake"] * pressed.amax(0))
    heave = p["heave"] * (depth - sources.depth)
    return torch.stack([surge, sway, heave, yaw], dim=1), memory.integral, memory.seen


def follow(p: Values, sources: Sources, maps: Tensor, memory: Kept) -> tuple[Tensor, Tensor, Tensor]:
    """Turn to the target, keep its distance as its size says it, or the map where nothing is known of its height; turn
    on to where it was last seen when it is not."""
    visible, bearing, elevation, size, hidden = sources.tracks[:, 0, :5].unbind(1)
    there = (visible > 0) & (hidden < 1.0)
    by_size = goal_size(sources) / size.clamp(min=0.003)
    far = torch.where(by_size.isfinite(), by_size, distance(maps) / sources.goal[:, 2])
    off = torch.log(far).clamp(-1.0, 1.0) * there
    growth = off * sources.dt_s * (memory.last[:, 0].abs() < 0.95)
    total = (memory.integral[:, 0] + growth).clamp(-4, 4)
    facing = (1 - bearing.abs() / 0.7).clamp(0, 1)
    surge = (p["surge"] * off * facing + p["surge_integral"] * total) * there
    seen = torch.where(there, bearing, memory.seen)
    yaw = torch.where(there, turn(p, bearing, sources), p["search"] * torch.sign(seen))
    heave = p["heave"] * elevation * there
    setpoint = torch.stack([surge, torch.zeros_like(surge), heave, yaw], dim=1)
    return setpoint, torch.stack([total, *memory.integral.unbind(1)[1:]], dim=1), seen


def inspect(p: Values, sources: Sources, maps: Tensor, memory: Kept) -> tuple[Tensor, Tensor, Tensor]:
    """Heading of the goal; sideways over the pipeline that the map shows; up or down to the height over the bottom."""
    yaw = turn(p, wrapped(sources.goal[:, 0] - sources.attitude[:, 2]), sources)
    place, sure = pipeline_place(maps)
    growth = place * sure * sources.dt_s
    total = (memory.integral[:, 0] + growth).clamp(-4, 4)
    sway = p["sway"] * place * sure + p["sway_integral"] * total
    heave = p["heave"] * (bottom_height(maps, sources) - sources.goal[:, 3])
    surge = p["cruise"].expand_as(sway)
    setpoint = torch.stack([surge, sway, heave, yaw], dim=1)
    return setpoint, torch.stack([total, *memory.integral.unbind(1)[1:]], dim=1), memory.seen


def station(p: Values, sources: Sources, maps: Tensor, memory: Kept) -> tuple[Tensor, Tensor, Tensor]:
    """Against the displacement since the key frame, with an integral for the current; the depth of the engagement. The
    heading is held by the vehicle's own loop."""
    dx, _, scale, _, sure = sources.keyed.unbind(1)
    drift_x, _, drift_scale, _, drift_sure = sources.moved.unbind(1)
    # To starboard the picture moves to port (dx < 0), and ahead it grows: both are to be undone.
    off = torch.stack([-scale, dx], dim=1) * sure[:, None]
    drift = torch.stack([-drift_scale, drift_x], dim=1) * (drift_sure / sources.dt_s.clamp(min=0.02))[:, None]
    total = (memory.integral[:, :2] + off * sources.dt_s[:, None]).clamp(-4, 4)
    gains = torch.stack([p["along"], p["across"]], dim=1)
    push = gains * (off + p["integral"][:, None] * total + p["damping"][:, None] * drift)
    heave = p["heave"] * (sources.start[:, 1] - sources.depth)
    setpoint = torch.cat([push, torch.stack([heave, torch.zeros_like(heave)], dim=1)], dim=1)
    return setpoint, torch.cat([total, memory.integral[:, 2:]], dim=1), memory.seen


_LAWS = {"transit": transit, "follow": follow, "inspect": inspect, "station": station}


def turn(p: Values, off: Tensor, sources: Sources) -> Tensor:
    """(N,) yaw towards a bearing `off` (N,) rad."""
    return p["yaw"] * off - p["yaw_damping"] * sources.rates[:, 2]


def near_ahead(maps: Tensor) -> tuple[Tensor, Tensor]:
    """(N,) each: the largest inverse range in the middle of the picture, left and right of its centre, 1/m."""
    band = maps[:, 0, 3:9]
    return band[..., 3 : COLUMNS // 2].amax((1, 2)), band[..., COLUMNS // 2 : COLUMNS - 3].amax((1, 2))


def distance(maps: Tensor) -> Tensor:
    """(N,) m to the goal: the mean inverse range under its heat."""
    heat = maps[:, 2].square()
    inverse = (heat * maps[:, 0]).sum((1, 2)) / heat.sum((1, 2)).clamp(min=1e-4)
    return 1 / inverse.clamp(0.05, INVERSE_RANGE_MAX)


def pipeline_place(maps: Tensor) -> tuple[Tensor, Tensor]:
    """(N,) where the pipeline lies across the lower half of the picture, −1..1, and 0..1 how much of it is seen."""
    lower = maps[:, 3, ROWS // 2 :]
    lower = (lower - lower.mean((1, 2), keepdim=True)).clamp(min=0).square()
    across = (2 * torch.arange(COLUMNS, device=maps.device) + 1) / COLUMNS - 1
    mass = lower.sum((1, 2))
    return (lower * across).sum((1, 2)) / mass.clamp(min=1e-3), (mass / 0.5).clamp(max=1.0)


def bottom_height(maps: Tensor, sources: Sources) -> Tensor:
    """(N,) m over the bottom, from the ranges of the two lowest rows and how far they look down."""
    wide, high = sources.view.unbind(1)
    rows = torch.arange(ROWS - 2, ROWS, device=maps.device)
    down = ((2 * rows + 1) / ROWS - 1)[None] * high[:, None]  # (N, 2)
    across = ((2 * torch.arange(COLUMNS, device=maps.device) + 1) / COLUMNS - 1)[None] * wide[:, None]  # (N, COLUMNS)
    pitch = sources.attitude[:, 1][:, None]
    sink = (down * pitch.cos() - pitch.sin())[:, :, None] / torch.sqrt(
        1 + down[:, :, None].square() + across[:, None, :].square()
    )
    inverse = maps[:, 0, ROWS - 2 :].clamp(0.08, INVERSE_RANGE_MAX)
    sure = torch.exp(-maps[:, 1, ROWS - 2 :]).clamp(max=math.exp(6.0)) * inverse.square()
    return (sure * sink / inverse).sum((1, 2)) / sure.sum((1, 2)).clamp(min=1e-6)
