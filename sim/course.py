"""The operator of a simulated dive: runs a world's course step by step, with the commands a person would give."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import msgspec

from rov.messages import (
    Arm,
    Command,
    Heartbeat,
    Mode,
    Observation,
    PilotStatus,
    SetMode,
    SetTarget,
    SetTask,
    Sticks,
    TakeOver,
)
from sim.world import Step

SESSION = "course"
AGAIN_NS = 500_000_000
"""Interval after which a refused command is repeated."""
STICKS_NS = 50_000_000
HEARTBEAT_NS = 500_000_000
SEEK_YAW = 0.3
"""Yaw stick while searching for a target."""
THERE_RAD, THERE_SIZE, THERE_NS = 0.12, 0.15, 1_000_000_000
"""A target is reached when for this long it stays this near to the middle, and its size this near to the wanted one."""


SETTLE_S, SHADOW_S = 2.0, 4.0
"""Length of holding before and after the policy steers, and of its shadow at most."""


class Order(NamedTuple):
    """A command for an operator to give: its kind, and its fields."""

    kind: type[Command]
    fields: Mapping[str, object] = MappingProxyType({})


class Course:
    """Call `commands` every tick with the daemon's state, until `over`."""

    def __init__(self, steps: Sequence[Step]):
        self.steps = list(steps)
        self.number = -1
        self.since = 0
        self.there_t: int | None = None
        self.due: dict[str, int] = {}
        self.tasked: set[int] = set()
        """Numbers of the steps whose task was given."""

    @property
    def over(self) -> bool:
        return self.number >= len(self.steps)

    def commands(self, t: int, pilot: PilotStatus, seen: Observation | None) -> Iterator[Order]:
        """The commands of this tick, at `t` ns; the first one takes over."""
        if self.number < 0:
            yield Order(TakeOver)
            self._start(0, t)
        if self._due("heartbeat", t, HEARTBEAT_NS):
            yield Order(Heartbeat)
        if self.over:
            return
        step = self.steps[self.number]
        if not pilot.armed:
            if self._due("arm", t, AGAIN_NS):
                yield Order(Arm)
            return
        visible = seen is not None and seen.visible and seen.label == step.target
        wanted = Mode.HOLD if step.mode == "follow" and not visible else Mode(step.mode)
        if (task := self._task(step, pilot, t)) is not None:
            yield task
        if step.mode == "follow" and pilot.target != step.target and self._due("target", t, AGAIN_NS):
            yield Order(SetTarget, {"label": step.target, "size": step.size})
        if pilot.mode is not wanted and not (pilot.mode is Mode.FOLLOW and wanted is Mode.HOLD):
            if self._due("mode", t, AGAIN_NS):
                yield Order(SetMode, {"mode": wanted})
        if pilot.mode in (Mode.HOLD, Mode.MANUAL) and self._due("sticks", t, STICKS_NS):
            yaw = SEEK_YAW * step.turn if step.mode == "follow" else step.yaw
            seeking = step.mode != "follow" or not visible
            axes = {"surge": step.surge, "sway": step.sway, "heave": step.heave, "yaw": yaw * seeking}
            yield Order(Sticks, axes)
        arrived = step.mode == "follow" and visible and self._there(seen, step, t)
        if (t - self.since > step.seconds * 1e9 or arrived) and seen is not None:  # the first one waits for perception
            self._start(self.number + 1, t)

    def _task(self, step: Step, pilot: PilotStatus, t: int) -> Order | None:
        """The command for the step's task, while the pilot has another; with a policy's step once more at its start."""
        if pilot.task == step.task and (step.mode != "policy" or self.number in self.tasked):
            return None
        if not self._due("task", t, AGAIN_NS):
            return None
        self.tasked.add(self.number)
        heading = None if step.heading_deg is None else math.radians(step.heading_deg)
        label = (step.target or None) if step.task == "follow" else None
        goal = {"heading": heading, "depth": step.depth, "distance": step.distance, "height": step.height}
        goal["target_height"] = step.target_height
        return Order(SetTask, {"task": step.task, "label": label, **goal})

    def _there(self, seen: Observation | None, step: Step, t: int) -> bool:
        assert seen is not None
        near = math.hypot(seen.bearing, seen.elevation) < THERE_RAD and abs(seen.size / step.size - 1) < THERE_SIZE
        self.there_t = (self.there_t or t) if near else None
        return self.there_t is not None and t - self.there_t >= THERE_NS

    def _start(self, number: int, t: int) -> None:
        self.number, self.since, self.there_t = number, t, None
        self.due = {name: due for name, due in self.due.items() if name == "heartbeat"}

    def _due(self, name: str, t: int, period: int) -> bool:
        if t < self.due.get(name, t):
            return False
        self.due[name] = t + period
        return True


def policy_steps(seconds: float, steer: Step) -> tuple[Step, ...]:
    """A course that gives the policy a task, engages it, and lets it steer for `seconds`."""
    return Step("hold", SETTLE_S), msgspec.structs.replace(steer, seconds=SHADOW_S + seconds), Step("hold", SETTLE_S)
