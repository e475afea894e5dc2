"""Tier 3: episodes sailed by the unmodified daemon, in real time.

`rov run` is a process, its camera another, the vehicle a thruster board on a pty (under our loops) or an ArduSub
autopilot (under its own). Courses, water, hulls and the judge are those of the other tiers. The vehicle hangs on a hook
until the daemon says that the policy steers: arming, shadow and engagement must not cost it the start of its course.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rov.config.schema import Config
from rov.errors import UserError
from rov.messages import Mode, PilotStatus
from rov.motion.allocation import mixer
from rov.printing import print_line
from rov.types import Floats
from sim import sensors
from sim.camerad import Vector, View
from sim.course import policy_steps
from sim.live import CourseOperator, LinkKind, serve
from sim.scene.lens import Lens
from sim.tasks import delays
from sim.tasks.outcome import Outcome
from sim.tasks.rows import take
from sim.tasks.scenes import Look, label, scene
from sim.tasks.sea import Sea
from sim.vehicle import DT, State
from sim.world import Step

SIZE, RATE_HZ = (320, 240), 9.0
"""Of the pictures: what a renderer on the same two processors makes in time, and a rate that the policy was trained at.
"""
DEEPEST_M = 20.0
JUDGED = 5
"""Ticks of the vehicle between two verdicts."""
LONGEST_S = 200.0
"""The judge ends every episode before."""
HOOK_S = 40.0
"""A policy that is not engaged after this long is not engaged at all."""


class Sailed(NamedTuple):
    """How a live episode went."""

    outcome: Outcome
    """Of all N vehicles, at the end; the one that sailed counts."""
    bill: Tensor
    """(3,) joules, seconds, m."""
    touched: bool
    let_go: bool
    """The policy was ended, or never engaged."""


class CourseVehicle:
    """One vehicle of a batched sea behind a board or an autopilot; the others lie still."""

    def __init__(self, water: Sea, row: int, frame: str):
        self.water, self.row, self.mixer = water, row, mixer(frame)
        self.hooked, self.behind_s, self.ticks = True, 0.0, 0
        self.before = water.state
        self.touched = torch.zeros(water.n, dtype=torch.bool)
        self.bill = torch.zeros(3)
        """Joules, seconds, m."""
        self.bumped = False
        self.outcome: Outcome | None = None

    @property
    def readings(self) -> sensors.Readings:
        """Of its instruments."""
        return take(self.water.readings, slice(self.row, self.row + 1))

    @property
    def attitude(self) -> Floats:
        """(3,) roll, pitch, yaw in rad."""
        return self.water.readings.attitude[self.row].double().numpy()

    @property
    def speed(self) -> Floats:
        """(6,) zeros for the velocities, which are not measured, then the rates in rad/s."""
        return np.concatenate([np.zeros(3), self.water.readings.rates[self.row].double().numpy()])

    @property
    def depth(self) -> float:
        """m."""
        return float(self.water.readings.depth[self.row])

    @property
    def volts(self) -> float:
        """Of the battery."""
        return float(self.water.readings.volts[self.row])

    def pose(self) -> State:
        """For the camera."""
        return take(self.water.state, slice(self.row, self.row + 1))

    def target(self) -> tuple[Vector, Vector] | None:
        """Where the followed thing is, and how it moves."""
        if not self.water.course.target_ball:
            return None
        targets = self.water.course.targets
        position, velocity = (tuple(each[self.row, 0].tolist()) for each in (targets.position, targets.velocity))
        return position, velocity

    def step(self, outputs: Floats, volts: float | None, dt: float) -> None:
        """Move on by `dt` s, in whole intervals of DT; the remainder waits for the next call."""
        self.behind_s += dt
        while self.behind_s >= DT:
            self.behind_s -= DT
            self._advance(outputs)

    @torch.inference_mode()
    def _advance(self, outputs: Floats) -> None:
        water = self.water
        if self.hooked:
            still = water.still()
            water.readings, water.memory = sensors.sense(water.suite, water.state, still, water.memory, water.random)
            return
        if self.done:
            return
        commands = torch.zeros(water.n, len(outputs))
        commands[self.row] = torch.from_numpy(np.asarray(outputs, np.float32))
        self.touched = self.touched | water.advance(commands)
        self.ticks += 1
        if self.ticks % JUDGED == 0:
            self.judge()

    @property
    def done(self) -> bool:
        """Whether its episode is over."""
        return self.outcome is not None and bool(self.outcome.done[self.row])

    def judge(self) -> Outcome:
        """How the ticks since the last verdict went."""
        water = self.water
        water.take_key()
        self.outcome = outcome = water.judge(self.before, self.touched, JUDGED * DT)
        self.bill += torch.stack([each[self.row] for each in (outcome.joules, outcome.seconds, outcome.distance)])
        self.bumped |= bool(self.touched[self.row])
        self.before, self.touched = water.state, torch.zeros_like(self.touched)
        return outcome


class LiveOperator(CourseOperator):
    """Gives the task, engages the policy, takes the vehicle off its hook, and notices when the policy is let go."""

    def __init__(self, vehicle: CourseVehicle, config: Config):
        super().__init__(policy_steps(LONGEST_S, task_step(vehicle.water, vehicle.row)), config)
        self.vehicle = vehicle
        self.began_t: int | None = None
        self.let_go = False

    def step(self, t: int) -> bool:
        """Send the commands due at `t` ns; True when the episode is over."""
        self.began_t = t if self.began_t is None else self.began_t
        super().step(t)
        status = self.client.latest(PilotStatus)
        if status is not None and status.armed and status.mode is Mode.POLICY:
            self.vehicle.hooked = False
        elif not self.vehicle.hooked:
            self.let_go = status is not None
        elif t - self.began_t > HOOK_S * 1e9:
            self.let_go = True
        return self.let_go or self.vehicle.done


def sail(water: Sea, row: int, look: Look, policy: Path, folder: Path) -> Sailed:
    """Sail the course of one vehicle of a sea that was reset; the dive is recorded in `folder`. The first half of the
    vehicles has a thruster board, the others ArduSub. Raises UserError when the daemon ends by itself."""
    hfov_deg = 2 * math.degrees(math.atan(float(water.conditions.view[row, 0])))
    view = View(f"{water.name} in {look.world}", scene(water.name, water.course, row, look), Lens.wide(*SIZE, hfov_deg))
    link: LinkKind = "thrusters" if row < water.ours else "ardusub"
    with tempfile.TemporaryDirectory(prefix="live-") as ends:
        config = configured(policy, Path(ends))
        vehicle = CourseVehicle(water, row, config.vehicle.frame)
        with contextlib.closing(LiveOperator(vehicle, config)) as operator:
            serve(vehicle, view, hfov_deg, config, folder, link, print_line, operator.step)
    if not (operator.let_go or vehicle.done):
        raise UserError(f"{folder}: the daemon ended before its episode did; what it printed says why")
    outcome = vehicle.outcome or vehicle.judge()
    return Sailed(outcome, vehicle.bill, vehicle.bumped, operator.let_go)


def task_step(water: Sea, row: int) -> Step:
    """The task as an operator would give it."""
    course = water.course
    heading, depth, distance, height = (None if math.isnan(each) else each for each in course.goal[row].tolist())
    follows = water.name == "follow"
    told = float(course.told_height[row])
    return Step(
        "policy",
        task=water.name,  # type: ignore[arg-type]
        target=label(float(course.targets.height[row, 0])) if follows else "",
        heading_deg=None if heading is None else math.degrees(heading),
        depth=depth,
        distance=distance,
        height=height,
        target_height=None if math.isnan(told) else told,
    )


def configured(policy: Path, ends: Path) -> Config:
    """The shipped configuration with these weights and the encoder beside them, deep enough for all courses, and with
    its public endpoints in a folder, where no other daemon's are in the way."""
    config = delays.config()
    weights = {"policy": str(policy.absolute()), "encoder": str(policy.with_name("encoder.safetensors").absolute())}
    changes = {
        "steering": weights,
        "perception": {"rate_hz": RATE_HZ},
        "vehicle": {"max_depth": DEEPEST_M},
        "bus": {"public": f"ipc://{ends}/public", "commands": f"ipc://{ends}/commands"},
    }
    sections = {name: getattr(config, name).model_copy(update=change) for name, change in changes.items()}
    changed: Config = config.model_copy(update=sections)
    return changed
