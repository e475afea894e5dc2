"""The live simulator, `python -m sim run WORLD`: a thruster board on a pty, or an ArduSub autopilot, with a vehicle in
a world behind it, and a camera in camerad's place. The daemon runs unmodified; only its configuration names the two."""

from __future__ import annotations

import contextlib
import os
import pickle
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

import msgspec
import tomli_w
import torch
import zmq

from rov.bus import Endpoints
from rov.bus.client import Client
from rov.config.schema import Config
from rov.messages import Event, Heartbeat, Mode, Observation, PilotStatus
from rov.resources import checkout
from rov.service.external_command import dying_with_us
from sim.ardusub import Autopilot, TcpEnd
from sim.ardusub import serve as serve_autopilot
from sim.board import SimulatedBoard
from sim.board import serve as serve_board
from sim.camerad import Pose, Vector, View
from sim.course import SESSION, Course
from sim.flight import Flight, SensingVehicle
from sim.single_vehicle import SingleVehicle
from sim.vehicle import State, rotation
from sim.wire import NoisyWire, Pty
from sim.world import Step, load, realise, through

LinkKind: TypeAlias = Literal["thrusters", "ardusub"]
POLICY_ENDS = ("disengaged", "perception_slow", "perception_gone")
"""Codes of events that end a policy's steering."""
POSE_NS = 20_000_000
"""Interval between poses sent to the camera: 50 Hz."""


class CourseEnded(Exception):
    """The daemon has ended, or the course is over."""


class LiveVehicle(SensingVehicle, Protocol):
    """A vehicle that a camera can be carried by."""

    @property
    def volts(self) -> float:
        """Of its battery."""

    def pose(self) -> State:
        """Of this one vehicle."""

    def target(self) -> tuple[Vector, Vector] | None:
        """Where the first thing of the scene is and how it moves, as in `Pose`."""


def run(
    world: str,
    seed: int,
    config: Config,
    size: tuple[int, int],
    camera: Path | None,
    *,
    folder: Path | None,
    course: bool,
    notify: Callable[[str], None],
    link: LinkKind = "thrusters",
    steps: Sequence[Step] = (),
) -> int:
    """Run a world until Ctrl-C, or until the daemon ends. With `folder`, also start `rov run`, which records its dives
    there; with `course`, command it through `steps` (without any, the world's course) and stop at the end. `notify`
    gets what the user must configure, and how the policy did. Returns the exit code, which is not 0 when a policy's
    step never engaged it."""
    torch.set_num_threads(1)
    place = realise(through(load(world), camera), seed)
    view = View(f"{world}, seed {seed}", place.scene, place.lens(*size))
    operator = CourseOperator(steps or place.course, config) if course else None
    hfov_deg = None if place.calibration else place.hfov_deg  # people measure theirs, too
    with contextlib.closing(operator) if operator else contextlib.nullcontext():
        after_step = operator.step if operator else lambda t: False
        code = serve(SingleVehicle(place), view, hfov_deg, config, folder, link, notify, after_step)
        if operator and (told := operator.policy_told()):
            notify(told)
            code = code or int(not operator.engaged_ns)
        return code


def serve(
    vehicle: LiveVehicle,
    view: View,
    hfov_deg: float | None,
    config: Config,
    folder: Path | None,
    link: LinkKind,
    notify: Callable[[str], None],
    after_step: Callable[[int], bool],
) -> int:
    """A vehicle behind a link and a camera on it, for a daemon that somebody runs, or, with `folder`, for one of our
    own. `after_step` is called with the time in ns; it ends all when it returns True. Returns the daemon's exit code.
    """
    with tempfile.TemporaryDirectory(prefix="sim-") as home, contextlib.ExitStack() as stack:
        endpoint, seen = f"ipc://{home}/pose", Path(home) / "view"
        simulated, serving, reached = _vehicle_end(link, vehicle, config, Path(home), stack)
        poses: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.PUB)
        poses.setsockopt(zmq.SNDHWM, 1)
        poses.bind(endpoint)
        stack.callback(poses.close, 0)
        seen.write_bytes(pickle.dumps(view))
        words = [sys.executable, "-m", "sim.camerad", endpoint, str(seen)]
        angle = {} if hfov_deg is None else {"hfov_deg": hfov_deg}
        needed = {"camera": {"source": f"process:{shlex.join(words)}"} | angle, "link": reached}
        daemon = None
        if folder is None:
            notify(tomli_w.dumps(needed) + "Put this into the configuration, then `rov run` it from here.")
        else:
            daemon = stack.enter_context(_daemon(config, needed, folder, Path(home)))
        began, sent_t = time.monotonic_ns(), 0

        def stepped(t: int) -> None:
            nonlocal sent_t
            simulated.battery_v = vehicle.volts
            if t - sent_t >= POSE_NS:
                sent_t = t
                poses.send(msgspec.msgpack.encode(pose_of(vehicle, t, (t - began) / 1e9)))
                if daemon is not None and daemon.poll() is not None:
                    raise CourseEnded
                if after_step(t):
                    raise CourseEnded

        with contextlib.suppress(CourseEnded):
            serving(after_step=stepped)
        return 0 if daemon is None else _ended(daemon)


def pose_of(vehicle: LiveVehicle, t: int, seconds: float) -> Pose:
    """What the camera is told at `t` ns, `seconds` after the start."""
    state = vehicle.pose()
    velocity = (rotation(state.attitude.T)[:, :, 0] @ state.velocity[0]).tolist()
    position, attitude, rates = (each[0].tolist() for each in (state.position, state.attitude, state.rates))
    return Pose(t, tuple(position), tuple(attitude), tuple(velocity), tuple(rates), seconds, vehicle.target())


def _vehicle_end(
    link: LinkKind, vehicle: LiveVehicle, config: Config, home: Path, stack: contextlib.ExitStack
) -> tuple[SimulatedBoard | Autopilot, Callable[..., None], dict[str, str]]:
    """The vehicle's end of a link, how to serve it, and the keys of `[link]` that reach it."""
    if link == "ardusub":
        frame, end = config.vehicle.frame, TcpEnd()
        autopilot = Autopilot(frame, flight=Flight(vehicle, frame))
        stack.callback(end.close)
        return autopilot, partial(serve_autopilot, autopilot, end), {"kind": link, "url": end.url}
    board, pty = SimulatedBoard(config.vehicle.frame, noise=False, vessel=vehicle), Pty(home / "board")
    stack.callback(pty.unplug)
    board.density, board.surface_pa = config.link.density, config.link.surface_pa
    return board, partial(serve_board, board, NoisyWire(), pty), {"kind": link, "port": str(home / "board")}


class CourseOperator:
    """Commands a daemon through a course, from outside: through its public endpoints."""

    def __init__(self, steps: Sequence[Step], config: Config):
        self.steers = any(step.mode == "policy" for step in steps)
        self.course = Course(steps)
        bus = Endpoints(config.bus.public, config.bus.commands)
        self.client = Client(bus, session=SESSION, topics=["pilot", "observation", "events"])
        self.told = self.client.session.inbox(("pilot", "events"), lambda: None)
        self.pilot: PilotStatus | None = None
        self.engaged_ns = 0
        """For how long the policy has steered."""
        self.disengaged: list[str] = []
        """Why it was ended each time."""

    def step(self, t: int) -> bool:
        """Send the commands due at `t` ns; True when the course is over. The course repeats refused commands."""
        for entry in self.told.take():
            if isinstance(entry.message, PilotStatus):
                self._count(entry.message)
            elif isinstance(entry.message, Event) and entry.message.code in POLICY_ENDS:
                self.disengaged.append(entry.message.text)
        pilot = self.client.latest(PilotStatus)
        if pilot is not None:
            for order in self.course.commands(t, pilot, self.client.latest(Observation)):
                if order.kind is not Heartbeat:  # the client's own
                    self.client.session.ask(order.kind, order.fields)
        return self.course.over

    def _count(self, status: PilotStatus) -> None:
        before, self.pilot = self.pilot, status
        if before is not None and before.armed and before.mode is Mode.POLICY:
            self.engaged_ns += status.t - before.t

    def policy_told(self) -> str:
        """How the policy did, as sentences; "" without a step of it."""
        if not self.steers:
            return ""
        if not self.engaged_ns:
            refused = self.pilot.refused if self.pilot else "the daemon said nothing"
            return f"the policy was never engaged: {refused}"
        ends = "".join(f"\n  {each}" for each in self.disengaged)
        return f"the policy steered for {self.engaged_ns / 1e9:.1f} s; disengagements: {len(self.disengaged)}{ends}"

    def close(self) -> None:
        self.client.close()


@contextlib.contextmanager
def _daemon(config: Config, needed: dict[str, Any], folder: Path, home: Path) -> Any:
    """`rov run` with `needed` in its configuration; stopped on exit."""
    table = config.model_dump()
    for section, values in needed.items():
        table[section] |= values
    table["recording"]["folder"] = str(folder.absolute())
    (home / "rover.toml").write_text(tomli_w.dumps(table))
    command = [sys.executable, "-m", "rov", "run", str(home / "rover.toml")]
    process = subprocess.Popen(dying_with_us(command), cwd=checkout(), start_new_session=True)
    try:
        yield process
    finally:
        _ended(process)


def _ended(process: subprocess.Popen[bytes]) -> int:
    """Stop the process if it still runs; returns its exit code."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGINT)
    return process.wait()
