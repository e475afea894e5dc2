"""The way from a setpoint to the thrusters: late setpoints, both inner loops, late commands; batched.

The first rows run under our loops, the others under ArduSub's.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import torch
from torch import Tensor

from rov.config.schema import Config, load
from rov.motion import thrusters
from rov.resources import find_resource
from sim.loops import (
    ArdusubLoops,
    ArdusubLoopsMemory,
    RovLoops,
    RovLoopsMemory,
    inverse,
    start_ardusub_loops,
    start_rov_loops,
    step_ardusub_loops,
    step_rov_loops,
)
from sim.propulsion import CELLS
from sim.sensors import Readings
from sim.tasks.rows import put, take
from sim.vehicle import DT

LATEST = 8
"""Setpoints that are remembered: the oldest is out of date before it is forgotten."""
BEHIND = 4
"""Commands that are remembered, in ticks."""


def config() -> Config:
    return load(find_resource("rover.toml"))


class InnerLoops(NamedTuple):
    """Both loops' states; either may have no rows."""

    ours: RovLoopsMemory
    ardusub: ArdusubLoopsMemory


class Helm:
    """Carries setpoints to the thrusters of N vehicles, of which the first `ours` run under our loops."""

    def __init__(self, n: int, ours: int, readings: Readings, stick_limit: Tensor, late: Tensor, behind: Tensor):
        settings = config()
        curve = thrusters.load(find_resource(settings.vehicle.thrusters), CELLS)
        device = stick_limit.device
        self.pilot = RovLoops(settings, inverse(curve, settings.guard.gain, torch.float32, device))
        self.autopilot = ArdusubLoops()
        self.stale = round(settings.guard.setpoint_stale_ms / 1000 / DT)
        self.ours, self.theirs = slice(0, ours), slice(ours, n)
        self.loops = InnerLoops(
            start_rov_loops(self.pilot, take(readings, self.ours)), start_ardusub_loops(take(readings, self.theirs))
        )
        motors = self.loops.ours.commands.shape[1]
        self.asked: deque[tuple[int, Tensor]] = deque(maxlen=LATEST)
        self.given: deque[Tensor] = deque([torch.zeros(n, motors, device=device)] * BEHIND, maxlen=BEHIND)
        self.late, self.behind = late, behind
        limit = torch.cat([stick_limit[self.ours, 0], stick_limit[self.theirs, 1]])
        self.most = torch.stack([limit, limit, limit, torch.ones_like(limit)], dim=1)

    def restart(self, rows: Tensor, readings: Readings, stick_limit: Tensor, late: Tensor, behind: Tensor) -> None:
        """Begin anew with `readings` of all vehicles in the rows (K,), with other limits and delays."""
        fresh = InnerLoops(
            start_rov_loops(self.pilot, take(readings, self.ours)), start_ardusub_loops(take(readings, self.theirs))
        )
        first = rows[rows < self.ours.stop]
        rest = rows[rows >= self.ours.stop] - self.ours.stop
        self.loops = InnerLoops(
            put(self.loops.ours, first, take(fresh.ours, first)),
            put(self.loops.ardusub, rest, take(fresh.ardusub, rest)),
        )
        for i, (tick, setpoint) in enumerate(self.asked):
            self.asked[i] = tick, _zeroed(setpoint, rows)
        for i, commands in enumerate(self.given):
            self.given[i] = _zeroed(commands, rows)
        self.late[rows], self.behind[rows] = late, behind
        limit = torch.where(rows < self.ours.stop, stick_limit[:, 0], stick_limit[:, 1])
        self.most[rows, :3] = limit[:, None]

    def ask(self, tick: int, setpoint: Tensor) -> None:
        """A setpoint (N, 4) from the frame of `tick`."""
        self.asked.append((tick, torch.maximum(torch.minimum(setpoint, self.most), -self.most)))

    def commands(self, tick: int, readings: Readings) -> Tensor:
        """Commands (N, motors) that reach the thrusters at `tick`."""
        sticks = torch.zeros_like(self.most)
        for captured, setpoint in self.asked:
            if tick - captured <= self.stale:
                sticks = torch.where((captured + self.late <= tick)[:, None], setpoint, sticks)
        parts = []
        if self.ours.stop:
            done, ours = step_rov_loops(self.pilot, sticks[self.ours], take(readings, self.ours), self.loops.ours)
            parts.append(done)
            self.loops = self.loops._replace(ours=ours)
        if self.theirs.start < self.theirs.stop:
            done, theirs = step_ardusub_loops(
                self.autopilot, sticks[self.theirs], take(readings, self.theirs), self.loops.ardusub
            )
            parts.append(done)
            self.loops = self.loops._replace(ardusub=theirs)
        self.given.append(torch.cat(parts))
        past = torch.stack(list(self.given))  # the last is the newest
        index = (BEHIND - 1 - self.behind)[None, :, None].expand(1, -1, past.shape[2])
        return past.gather(0, index)[0]


def _zeroed(each: Tensor, rows: Tensor) -> Tensor:
    made = each.clone()
    made[rows] = 0.0
    return made
