"""The live simulator, `python -m sim run WORLD`: a thruster board on a pty with a vehicle in a world behind it, and a
camera in camerad's place. The daemon runs unmodified; only its configuration names the two."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import tomli_w
import torch
import zmq

from rov.bus import Endpoints
from rov.bus.client import Client
from rov.config.schema import Config
from rov.messages import Heartbeat, Observation, PilotStatus
from rov.resources import checkout
from rov.service.external_command import dying_with_us
from sim.board import SimulatedBoard, serve
from sim.camerad import Pose
from sim.course import SESSION, Course
from sim.single_vehicle import SingleVehicle
from sim.wire import NoisyWire, Pty
from sim.world import RealisedWorld, load, realise, through

POSE_NS = 20_000_000
"""Interval between poses sent to the camera: 50 Hz."""


class CourseEnded(Exception):
    """The daemon has ended, or the course is over."""


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
) -> int:
    """Run a world until Ctrl-C, or until the daemon ends. With `folder`, also start `rov run`, which records its dives
    there; with `course`, command it through the world's course and stop at its end. `notify` gets what the user must
    configure. Returns the exit code."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="sim-") as home, contextlib.ExitStack() as stack:
        endpoint, port = f"ipc://{home}/pose", Path(home) / "board"
        place = realise(through(load(world), camera), seed)
        place.lens(*size)  # raises here rather than in the camera's process
        vehicle = SingleVehicle(place)
        board, pty = SimulatedBoard(config.vehicle.frame, noise=False, vessel=vehicle), Pty(port)
        stack.callback(pty.unplug)
        board.density, board.surface_pa = config.link.density, config.link.surface_pa
        poses: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.PUB)
        poses.setsockopt(zmq.SNDHWM, 1)
        poses.bind(endpoint)
        stack.callback(poses.close, 0)
        words = [sys.executable, "-m", "sim.camerad", endpoint, world, str(seed), *map(str, size)]
        words.append("" if camera is None else str(camera.absolute()))
        needed = {"camera": {"source": f"process:{shlex.join(words)}"}, "link": {"port": str(port)}}
        daemon, operator = None, None
        if folder is None:
            notify(tomli_w.dumps(needed) + "Put this into the configuration, then `rov run` it from here.")
        else:
            daemon = stack.enter_context(_daemon(config, needed, folder, Path(home)))
            operator = CourseOperator(place, config) if course else None
            if operator:
                stack.callback(operator.close)
        began, sent_t = time.monotonic_ns(), 0

        def after_step(t: int) -> None:
            nonlocal sent_t
            board.battery_v = float(vehicle.readings.volts)
            if t - sent_t >= POSE_NS:
                sent_t = t
                position, attitude, rates = (tuple(each[0].tolist()) for each in vehicle.pose())
                pose = Pose(t, position, attitude, rates, (t - began) / 1e9)
                poses.send(msgspec.msgpack.encode(pose))
                if daemon is not None and daemon.poll() is not None:
                    raise CourseEnded
                if operator and operator.step(t):
                    raise CourseEnded

        with contextlib.suppress(CourseEnded):
            serve(board, NoisyWire(), pty, None, after_step)
        return 0 if daemon is None else _ended(daemon)


class CourseOperator:
    """Commands a daemon through a course, from outside: through its public endpoints."""

    def __init__(self, place: RealisedWorld, config: Config):
        self.course = Course(place.course)
        bus = Endpoints(config.bus.public, config.bus.commands)
        self.client = Client(bus, session=SESSION, topics=["pilot", "observation"])

    def step(self, t: int) -> bool:
        """Send the commands due at `t` ns; True when the course is over. The course repeats refused commands."""
        pilot = self.client.latest(PilotStatus)
        if pilot is not None:
            for order in self.course.commands(t, pilot, self.client.latest(Observation)):
                if order.kind is not Heartbeat:  # the client's own
                    self.client.session.ask(order.kind, order.fields)
        return self.course.over

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
