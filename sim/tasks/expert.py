"""The teacher: it knows the truth, but acts only on what a student could know — things that are or were lately in the
picture — and its numbers are tuned to pay for joules and for time.

All four tasks wish for a velocity over ground and turn it into sticks in the same way: what the water must be pushed,
by a guess of the hull's drag, and a correction by the velocity's error, which is what tells one hull from another.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from rov.steering.policy_input import Sources
from sim.tasks.course import progress, wrapped
from sim.tasks.sea import Truth
from sim.tasks.solids import HULL_M
from sim.tasks.tuned import Controller, Kept, Parameter, Table, Values, kept, load, named, smoothed

FILE = Path(__file__).parent / "expert.toml"
PUSH: Table = {
    "linear": Parameter(0.0, 2.0, 0.4),
    "quadratic": Parameter(0.0, 8.0, 2.5),
    "correction": Parameter(0.0, 5.0, 1.0),
    "integral": Parameter(0.0, 2.0, 0.3),
    "against_current": Parameter(0.0, 1.2, 0.8),
    "smooth": Parameter(0.0, 1.5, 0.3),
}
TURN: Table = {"yaw": Parameter(0.2, 3.0, 1.2), "yaw_damping": Parameter(0.0, 1.5, 0.3)}
EXPERT: dict[str, Table] = {
    "transit": {
        "speed": Parameter(0.1, 0.8, 0.37),
        "speed_by_current": Parameter(-1.0, 1.0, -0.13),
        "home": Parameter(0.0, 1.0, 0.18),
        "look": Parameter(1.0, 5.0, 1.9),
        "margin": Parameter(0.05, 0.8, 0.27),
        "avoid": Parameter(0.5, 20.0, 5.1),
        "constancy": Parameter(0.0, 2.0, 0.31),
        "slow": Parameter(0.0, 3.0, 0.48),
        "face": Parameter(0.0, 1.0, 0.71),
        "heave": Parameter(0.03, 2.0, 0.4),
        **PUSH,
        **TURN,
    },
    "follow": {
        "approach": Parameter(0.05, 1.5, 0.4),
        "lead": Parameter(0.0, 1.2, 0.8),
        "slack": Parameter(0.0, 0.3, 0.05),
        "side": Parameter(0.0, 1.0, 0.3),
        "heave": Parameter(0.03, 2.0, 0.4),
        "search": Parameter(0.05, 1.0, 0.3),
        "yaw_lead": Parameter(0.0, 2.0, 0.5),
        **PUSH,
        **TURN,
    },
    "inspect": {
        "speed": Parameter(0.1, 0.8, 0.38),
        "speed_by_current": Parameter(-1.0, 1.0, 0.53),
        "across": Parameter(0.05, 2.0, 0.53),
        "slack": Parameter(0.0, 0.4, 0.18),
        "heave": Parameter(0.03, 2.0, 0.4),
        "crab": Parameter(0.0, 1.0, 0.098),
        **PUSH,
        **TURN,
    },
    "station": {
        "back": Parameter(0.05, 2.0, 0.38),
        "slack": Parameter(0.0, 0.3, 0.082),
        "diagonal": Parameter(0.0, 1.0, 0.9),
        "heave": Parameter(0.03, 2.0, 0.4),
        **PUSH,
        **TURN,
    },
}
ANGLES = 25
WIDEST_RAD = math.radians(75.0)
"""Directions that `transit` chooses from, to both sides of the course."""
GATE_AHEAD_M = 0.3
FLOOR_M = 0.6
"""The teacher rises when the bottom is nearer than this."""


class Wish(NamedTuple):
    """What a task wants now."""

    velocity: Tensor
    """(N, 2) over ground, north and east, m/s."""
    heave: Tensor
    yaw: Tensor
    """(N,) sticks."""
    seen: Tensor
    """(N,) what the task remembers, rad."""
    on: Tensor
    """(N,) 1, or 0 while the vehicle shall drift."""


def expert(task: str, parameters: Tensor | None = None) -> Controller:
    """The teacher of a task with `parameters` (N or 1, K) in the order of EXPERT[task]; without any, the tuned ones."""
    table = EXPERT[task]
    if parameters is None:
        parameters = torch.tensor([load(FILE, task, table)])
    return partial(_step, _WISHES[task], named(table, parameters))


def _step(
    wish: Callable[[Values, Sources, Truth, Kept], Wish],
    p: Values,
    sources: Sources,
    maps: Tensor,
    truth: Truth,
    memory: Kept | None,
) -> tuple[Tensor, Kept]:
    memory = memory or kept(len(truth.position), truth.position.device)
    p = {name: each.to(truth.position.device) for name, each in p.items()}
    wanted = wish(p, sources, truth, memory)
    push, integral = pushed(p, wanted, truth, memory, sources.dt_s)
    setpoint = smoothed(
        torch.stack([*push.unbind(1), wanted.heave, wanted.yaw], dim=1), memory, p["smooth"], sources.dt_s
    )
    return setpoint, Kept(integral, setpoint, wanted.seen)


def pushed(p: Values, wanted: Wish, truth: Truth, memory: Kept, dt: Tensor) -> tuple[Tensor, Tensor]:
    """Surge and sway (N, 2) for a velocity over ground, and the next integral (N, 3)."""
    through = in_body(wanted.velocity - p["against_current"][:, None] * truth.current, truth.heading)
    error = in_body(wanted.velocity - truth.velocity[:, :2], truth.heading)
    total = memory.integral[:, :2] + error * dt[:, None] * (memory.last[:, :2].abs() < 0.95)
    total = total.clamp(-3, 3) * wanted.on[:, None]
    push = p["linear"][:, None] * through + p["quadratic"][:, None] * through * through.abs()
    push = push + p["correction"][:, None] * error + p["integral"][:, None] * total
    return push * wanted.on[:, None], torch.cat([total, memory.integral[:, 2:]], dim=1)


def transit(p: Values, sources: Sources, truth: Truth, memory: Kept) -> Wish:
    """Towards the next gate that is known, else home to the line, in the direction that keeps clear of what is."""
    course = truth.course
    line = course.goal[:, 0]
    along, across = progress(line, truth.position)
    aim = aims(p, truth, along, across)
    direction, pressed = clear(p, truth, line, along, across, aim, memory.seen)
    unit = torch.stack([(line + direction).cos(), (line + direction).sin()], dim=1)
    ahead = torch.stack([line.cos(), line.sin()], dim=1)
    speed = p["speed"] + p["speed_by_current"] * (truth.current * ahead).sum(1)
    speed = speed.clamp(0.05, 1.0) / (1 + p["slow"] * pressed)
    heave = p["heave"] * (course.goal[:, 1] - truth.position[:, 2])
    yaw = turned(p, wrapped(line + p["face"] * direction - truth.heading), sources)
    return Wish(speed[:, None] * unit, heave, yaw, direction, torch.ones_like(yaw))


def aims(p: Values, truth: Truth, along: Tensor, across: Tensor) -> Tensor:
    """(N,) rad off the line to the middle of the next known gate, or home to the line."""
    home = torch.atan(-p["home"] * across).clamp(-0.6, 0.6)
    gates = truth.course.gates
    number = gates.shape[1]
    if not number:
        return home
    known = truth.known_rods[:, :number] | truth.known_rods[:, number : 2 * number]
    left = gates[..., 0] - along[:, None]  # (N, G) m to go
    left = torch.where(known & (left > GATE_AHEAD_M), left, torch.inf)
    nearest, which = left.min(1)
    middle = gates[..., 1].gather(1, which[:, None])[:, 0]
    to_gate = torch.atan2(middle - across, nearest.clamp(0.3, 100.0))
    return torch.where(nearest < 90.0, to_gate, home)


def clear(
    p: Values, truth: Truth, line: Tensor, along: Tensor, across: Tensor, aim: Tensor, last: Tensor
) -> tuple[Tensor, Tensor]:
    """The direction (N,) rad off the line nearest to `aim` that keeps a margin from known things, and (N,) 0..1 how
    much it still lacks. `last`: the direction chosen before; changing one's mind costs."""
    balls, rods = truth.course.solids.balls, truth.course.solids.rods
    deep = truth.position[:, 2:]
    reach = HULL_M + p["margin"][:, None]
    ball = ((balls[..., 3] + reach).square() - (balls[..., 2] - deep).square()).clamp(min=0).sqrt() * truth.known_balls
    upright = ((rods[..., 2] - deep).abs() < rods[..., 6] + HULL_M) & truth.known_rods
    rod = (rods[..., 7] + HULL_M + 0.5 * p["margin"][:, None]) * upright
    place = torch.cat([balls[..., :2], rods[..., :2]], dim=1) - truth.position[:, None, :2]
    radius = torch.cat([ball, rod], dim=1)  # (N, M), 0 where not in the way
    c, s = line.cos()[:, None], line.sin()[:, None]
    x, y = place[..., 0] * c + place[..., 1] * s, place[..., 1] * c - place[..., 0] * s

    angle = torch.linspace(-WIDEST_RAD, WIDEST_RAD, ANGLES, device=line.device)
    reached = (x[..., None] * angle.cos() + y[..., None] * angle.sin()).clamp(min=0)  # (N, M, A) along each direction
    reached = torch.minimum(reached, p["look"][:, None, None])
    gap = torch.hypot(x[..., None] - reached * angle.cos(), y[..., None] - reached * angle.sin())
    lack = ((radius[..., None] - gap) / reach[..., None]).clamp(min=0)
    lack = lack * (1 - 0.5 * reached / p["look"][:, None, None])  # what is near counts most
    worst = lack.amax(1)  # (N, A)
    cost = (angle - aim[:, None]).square() + p["constancy"][:, None] * (angle - last[:, None]).square()
    chosen = (cost + p["avoid"][:, None] * worst).argmin(1)
    direction = torch.where(worst.amax(1) > 0, angle[chosen], aim)
    return direction, worst.gather(1, chosen[:, None])[:, 0].clamp(max=1.0)


def follow(p: Values, sources: Sources, truth: Truth, memory: Kept) -> Wish:
    """Along the line of sight to the stand-off, with some of the target's own velocity; turn to it."""
    target, velocity = truth.course.targets.position[:, 0], truth.course.targets.velocity[:, 0, :2]
    to = target - truth.position
    far = to[:, :2].norm(dim=1).clamp(min=0.2)
    sight = to[:, :2] / far[:, None]
    known = truth.known_targets[:, 0].float()
    off = torch.log(to.norm(dim=1) / sources.goal[:, 2])
    off = torch.sign(off) * (off.abs() - p["slack"]).clamp(0, 1.0)
    radial = (velocity * sight).sum(1, keepdim=True) * sight
    wished = p["approach"][:, None] * off[:, None] * sight + p["lead"][:, None] * radial
    wished = wished + p["side"][:, None] * (velocity - radial)
    bearing = wrapped(torch.atan2(sight[:, 1], sight[:, 0]) - truth.heading)
    passing = velocity - truth.velocity[:, :2]
    swing = (sight[:, 0] * passing[:, 1] - sight[:, 1] * passing[:, 0]) / far
    seen = torch.where(known > 0, bearing, memory.seen)
    yaw = turned(p, bearing, sources) + p["yaw_lead"] * swing
    yaw = torch.where(known > 0, yaw, p["search"] * torch.sign(seen))
    heave = p["heave"] * to[:, 2] / far
    floor = truth.course.solids.bottom - truth.position[:, 2]
    heave = torch.where(floor < FLOOR_M, torch.minimum(heave, 3 * (floor - FLOOR_M)), heave)
    return Wish(wished * known[:, None], heave * known, yaw, seen, torch.ones_like(known))


def inspect(p: Values, sources: Sources, truth: Truth, memory: Kept) -> Wish:
    """Along the pipeline, over it, at the goal's height."""
    line, pipe = truth.course.goal[:, 0], truth.course.gates[:, 0, 1]
    _, across = progress(line, truth.position)
    off = pipe - across
    off = torch.sign(off) * (off.abs() - p["slack"]).clamp(min=0)
    ahead = torch.stack([line.cos(), line.sin()], dim=1)
    beside = torch.stack([-line.sin(), line.cos()], dim=1)
    speed = (p["speed"] + p["speed_by_current"] * (truth.current * ahead).sum(1)).clamp(0.05, 1.0)
    wished = speed[:, None] * ahead + (p["across"] * off).clamp(-0.3, 0.3)[:, None] * beside
    through = wished - truth.current
    drift = torch.atan2((through * beside).sum(1), (through * ahead).sum(1)).clamp(-0.3, 0.3)
    yaw = turned(p, wrapped(line + p["crab"] * drift - truth.heading), sources)
    height = truth.course.solids.bottom - truth.position[:, 2]
    heave = p["heave"] * (height - sources.goal[:, 3])
    return Wish(wished, heave, yaw, memory.seen, torch.ones_like(yaw))


def station(p: Values, sources: Sources, truth: Truth, memory: Kept) -> Wish:
    """First turn a corner of the frame to the flow, where it pushes best; then back to the key frame's place."""
    keyed = torch.isfinite(truth.key[:, 0])
    to = torch.nan_to_num(truth.key - truth.position) * keyed[:, None]
    far = to[:, :2].norm(dim=1, keepdim=True).clamp(min=1e-3)
    wished = p["back"][:, None] * to[:, :2] * ((far - p["slack"][:, None]).clamp(min=0) / far)
    flow = torch.atan2(truth.current[:, 1], truth.current[:, 0]) - math.pi / 4
    corner = wrapped(4 * (flow - truth.heading)) / 4  # to the nearest of four
    turning = (~keyed & (truth.current.norm(dim=1) > 0.03)).float()
    yaw = turned(p, p["diagonal"] * corner, sources) * turning
    start = torch.where(keyed, torch.nan_to_num(truth.key[:, 2]), sources.start[:, 1])
    heave = p["heave"] * (start - truth.position[:, 2])
    return Wish(wished, heave, yaw, memory.seen, torch.ones_like(yaw))


_WISHES = {"transit": transit, "follow": follow, "inspect": inspect, "station": station}


def turned(p: Values, off: Tensor, sources: Sources) -> Tensor:
    """(N,) yaw towards a bearing `off` (N,) rad."""
    return p["yaw"] * off - p["yaw_damping"] * sources.rates[:, 2]


def in_body(level: Tensor, heading: Tensor) -> Tensor:
    """(N, 2) north and east as ahead and to starboard."""
    c, s = heading.cos(), heading.sin()
    return torch.stack([level[:, 0] * c + level[:, 1] * s, level[:, 1] * c - level[:, 0] * s], dim=1)
