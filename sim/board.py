"""A thruster board on a pty, by `systemd/BOARD.md`, with a simple vehicle behind it: `python -m sim board`.

For trying the daemon without hardware, and with faults: those of the wire are fields of `NoisyWire`, those of the
vehicle attributes of `SimulatedBoard`. A running board takes both as lines on its standard input
(`run_console_command`). Time is an argument, ns; only `serve` reads the clock. Commands are stamped as they arrive from
the pty; on a busy machine they were written some ms earlier, which `sim.port_write_times` measures.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TextIO

import numpy as np
from pymavlink.dialects.v20 import common

from rov.link.mavlink import Packer, Parser
from rov.motion import thrusters
from rov.motion.allocation import mixer
from rov.motion.thrusters import Curve
from rov.resources import find_resource
from rov.types import Floats
from sim.wire import NoisyWire, Pty

MS = 1_000_000  # ns
GROUP = 8
RATES_HZ: dict[str, float] = {
    "heartbeat": 5.0,
    "attitude": 50.0,
    "depth": 50.0,
    "hull": 2.0,
    "battery": 2.0,
    "leak": 2.0,
    "echo": 10.0,
}
"""Rates of the telemetry; heartbeat, leak and echo are also sent at once when they change."""
ARMING_MAX = 0.01
"""The board arms only while every command is within this of neutral."""
DEPTH_NOISE = 0.002
"""Standard deviation in m: the Bar30's resolution."""
TICK_S = 0.005
"""Pace of the firmware on the real clock; received bytes are handled at once."""
STEP_S = 0.01
"""Longest step of the vehicle's motion; its fastest own one, the righting, takes two seconds."""
PRIORITY = 10
"""Real-time priority of the process, where allowed: above ordinary processes, below the pilot."""


class Vehicle(Protocol):
    """The vehicle behind a board: the simple one here, or `sim.single_vehicle` in a simulated world."""

    mixer: Floats
    """(motors, 6)."""

    @property
    def speed(self) -> Floats:
        """(6,) along and about the body's axes, m/s and rad/s."""

    @property
    def attitude(self) -> Floats:
        """(3,) roll, pitch, yaw in rad."""

    @property
    def depth(self) -> float:
        """m."""

    def step(self, outputs: Floats, volts: float | None, dt: float) -> None:
        """Move on by `dt` s with these motor outputs −1..1."""


@cache
def t200() -> Curve:
    """The published curve of its thrusters, at four cells."""
    return thrusters.load(find_resource("calibration/t200.toml"), cells=4)


class Vessel:
    """Six uncoupled axes with thrust, drag and righting moment: a BlueROV2 Heavy by Wu (2018, Flinders University). No
    waves, no current; enough to close loops on."""

    MASS = np.array([11.5 + 5.5, 11.5 + 12.7, 11.5 + 14.57, 0.16 + 0.12, 0.16 + 0.12, 0.16 + 0.12])
    """With added mass, kg and kg m², in the order surge, sway, heave, roll, pitch, yaw."""
    LINEAR = np.array([4.03, 6.22, 5.18, 0.07, 0.07, 0.07])
    QUADRATIC = np.array([18.18, 21.66, 36.99, 1.55, 1.55, 1.55])
    BUOYANCY = 114.8 - 112.8
    """Net, N, up."""
    RIGHTING = 112.8 * 0.02
    """Weight times metacentric height, N m."""
    ARMS = np.array([math.sqrt(0.5), math.sqrt(0.5), 1.0, 0.218, 0.12, 0.189])
    """Effect of 1 N of one motor on each axis: N, and N m. Motors at 45° (von Benzon 2022)."""

    def __init__(self, frame: str, curve: Curve, depth: float):
        self.mixer = mixer(frame)
        self.curve = curve
        self.speed: Floats = np.zeros(6)
        """Along and about the body's axes, m/s and rad/s."""
        self.attitude: Floats = np.zeros(3)
        """Roll, pitch, yaw in rad."""
        self.depth = depth
        self.driven: tuple[bytes, float | None] | None = None
        """The outputs and volts that `thrust` belongs to: they change more rarely than it moves."""
        self.thrust: Floats = np.zeros(6)

    def step(self, outputs: Floats, volts: float | None, dt: float) -> None:
        """Move on by `dt` s with these motor outputs −1..1."""
        if (driven := (outputs.tobytes(), volts)) != self.driven:
            self.driven, self.thrust = driven, (self.curve.force(outputs, volts) @ self.mixer) * self.ARMS
        steps = max(1, math.ceil(dt / STEP_S))
        for _ in range(steps):
            self._step(self.thrust, dt / steps)

    def _step(self, thrust: Floats, dt: float) -> None:
        roll, pitch, _ = self.attitude
        up = self.BUOYANCY if self.depth > 0 else 0.0
        passive = np.array([0.0, 0.0, -up, -self.RIGHTING * math.sin(roll), -self.RIGHTING * math.sin(pitch), 0.0])
        drag = (self.LINEAR + self.QUADRATIC * np.abs(self.speed)) * self.speed
        self.speed = self.speed + dt * (thrust + passive - drag) / self.MASS
        turned = self.attitude + dt * self.speed[3:]
        self.attitude = (turned + math.pi) % (2 * math.pi) - math.pi
        down = np.array([-math.sin(pitch), math.cos(pitch) * math.sin(roll), math.cos(pitch) * math.cos(roll)])
        self.depth += dt * float(down @ self.speed[:3])
        if self.depth <= 0.0:
            self.depth, self.speed[2] = 0.0, max(self.speed[2], 0.0)


class Applied(NamedTuple):
    """The outputs of the thrusters from `t` on, and the stamp (µs) of the command that set them."""

    t: int
    sent_us: int
    values: tuple[float, ...]
    armed: bool
    because: str
    """`command`, `armed`, `disarmed`, `watchdog` or `restart`."""


class SimulatedBoard:
    """The firmware, by its contract, and the vehicle behind it."""

    def __init__(
        self,
        frame: str = "vectored_6dof",
        *,
        depth: float = 1.0,
        noise: bool = True,
        seed: int = 0,
        vessel: Vehicle | None = None,
    ):
        self.vessel: Vehicle = vessel or Vessel(frame, t200(), depth)
        self.motors = self.vessel.mixer.shape[0]
        self.groups = -(-self.motors // GROUP)
        self.random = random.Random(seed)
        self.noise = noise
        self.parser = Parser()
        self.packer = Packer(1, common.MAV_COMP_ID_AUTOPILOT1)
        self.watchdog_ms = 500.0
        """500 by contract; another value is a fault."""
        self.battery_v: float | None = 16.0
        self.leak = False
        self.stuck: dict[int, float] = {}
        """Fault: outputs, by number from 0, that give this value whatever is commanded while the board is armed."""
        self.hull_kpa, self.hull_c = 95.0, 30.0
        self.surface_pa, self.density = 101_325.0, 1025.0
        self.applied: deque[Applied] = deque(maxlen=100_000)
        """All outputs so far, one entry per change or command."""
        self.t: int | None = None
        self.restart()

    def restart(self) -> None:
        """Reset the firmware: it boots neutral and its clock starts at 0. The vehicle stays where it is."""
        self.parser.reset()
        self.packer = Packer(1, common.MAV_COMP_ID_AUTOPILOT1)
        self.boot_t = self.t
        self.armed = False
        self.tripped = False
        self.commands = np.zeros(self.groups * GROUP)
        self.stamps: dict[int, int] = {}
        """Stamp of the last valid command, µs, by group; empty while the watchdog is not fed."""
        self.fed_t: dict[int, int] = {}
        self.last_us = 0
        self.due: dict[str, int] = {}
        self.reported: tuple[Any, ...] = ()
        if self.t is not None:
            self._record("restart")

    @property
    def outputs(self) -> Floats:
        """(motors,) −1..1, the outputs now."""
        given = self.commands[: self.motors].copy() if self.armed else np.zeros(self.motors)
        for output, value in self.stuck.items():
            given[output] = value if self.armed else 0.0
        return given

    def step(self, t: int, data: bytes = b"") -> list[bytes]:
        """Move on to `t` ns and handle `data`, which arrives then; returns the frames to send."""
        if self.t is None:
            self.t = self.boot_t = t
        self.vessel.step(self.outputs, self.battery_v, (t - self.t) / 1e9)
        self.t = t
        self._check_watchdog()
        frames = []
        for frame in self.parser.feed(data):
            message = frame.message
            match message:
                case common.MAVLink_set_actuator_control_target_message() if self._for_us(message):
                    frames += [self._echo(group) for group in self._handle(message)]
                case common.MAVLink_command_long_message() if self._for_us(message):
                    if message.command == common.MAV_CMD_COMPONENT_ARM_DISARM:
                        frames += [self._arm(message.param1 == 1.0), self._heartbeat()]
        return frames + list(self._report())

    # ---- commands ----------------------------------------------------------------------------------------------

    def _for_us(self, message: Any) -> bool:
        return (message.target_system, message.target_component) == (1, common.MAV_COMP_ID_AUTOPILOT1)

    def _handle(self, message: Any) -> list[int]:
        """Apply a command if it is valid and advancing; returns the groups to echo."""
        group = message.group_mlx
        fits = group < self.groups and all(math.isfinite(value) and abs(value) <= 1 for value in message.controls)
        if not fits or message.time_usec <= self.stamps.get(group, -1):
            return []
        assert self.t is not None
        self.stamps[group], self.fed_t[group] = message.time_usec, self.t
        self.last_us = message.time_usec
        self.commands[group * GROUP : (group + 1) * GROUP] = message.controls
        self.tripped = False
        self._record("command")
        return [group]

    def _arm(self, wanted: bool) -> bytes:
        """Arm or disarm; returns the acknowledgement."""
        ready = len(self.stamps) == self.groups and bool(np.all(np.abs(self.commands) <= ARMING_MAX))
        accepted = ready or not wanted
        if accepted and wanted != self.armed:
            self.armed = wanted
            self._record("armed" if wanted else "disarmed")
        result = common.MAV_RESULT_ACCEPTED if accepted else common.MAV_RESULT_TEMPORARILY_REJECTED
        return self.packer.pack(common.MAVLink_command_ack_message(common.MAV_CMD_COMPONENT_ARM_DISARM, result))

    def _check_watchdog(self) -> None:
        """Go neutral and disarm when a group has had no valid, advancing command for `watchdog_ms`."""
        assert self.t is not None
        if self.fed_t and self.t - min(self.fed_t.values()) >= self.watchdog_ms * MS:
            self.armed, self.tripped = False, True
            self.commands = np.zeros_like(self.commands)
            self.stamps, self.fed_t = {}, {}
            self._record("watchdog")

    def _record(self, because: str) -> None:
        assert self.t is not None
        self.applied.append(Applied(self.t, self.last_us, tuple(self.outputs.tolist()), self.armed, because))

    # ---- telemetry ---------------------------------------------------------------------------------------------

    @property
    def boot_ms(self) -> int:
        assert self.t is not None and self.boot_t is not None
        return ((self.t - self.boot_t) // MS) % 2**32

    def _report(self) -> Iterator[bytes]:
        """The frames that are due."""
        assert self.t is not None
        now = (self.armed, self.tripped, self.leak)
        urgent = {"heartbeat", "echo", "leak"} if now != self.reported else set()
        self.reported = now
        for name, hz in RATES_HZ.items():
            if self.t < self.due.setdefault(name, self.t) and name not in urgent:
                continue
            period = int(1e9 / hz)
            self.due[name] = max(self.due[name] + period, self.t + period // 2)
            match name:
                case "heartbeat":
                    yield self._heartbeat()
                case "attitude":
                    yield self._attitude()
                case "depth":
                    yield self._depth()
                case "hull":
                    pressure, temperature = self.hull_kpa * 10, round(self.hull_c * 100)
                    yield self.packer.pack(
                        common.MAVLink_scaled_pressure_message(self.boot_ms, pressure, 0.0, temperature)
                    )
                case "battery":
                    yield self._battery()
                case "leak":
                    yield self.packer.pack(common.MAVLink_named_value_int_message(self.boot_ms, b"LEAK", self.leak))
                case "echo":
                    yield from (self._echo(group) for group in range(self.groups))

    def _heartbeat(self) -> bytes:
        mode = common.MAV_MODE_FLAG_MANUAL_INPUT_ENABLED | (common.MAV_MODE_FLAG_SAFETY_ARMED if self.armed else 0)
        state = common.MAV_STATE_CRITICAL if self.tripped else common.MAV_STATE_STANDBY
        state = common.MAV_STATE_ACTIVE if self.armed else state
        return self.packer.pack(
            common.MAVLink_heartbeat_message(common.MAV_TYPE_SUBMARINE, common.MAV_AUTOPILOT_INVALID, mode, 0, state, 3)
        )

    def _attitude(self) -> bytes:
        angles, rates = self.vessel.attitude.tolist(), self.vessel.speed[3:].tolist()
        return self.packer.pack(common.MAVLink_attitude_message(self.boot_ms, *angles, *rates))

    def _depth(self) -> bytes:
        depth = self.vessel.depth + (self.random.gauss(0, DEPTH_NOISE) if self.noise else 0.0)
        pressure = (self.surface_pa + self.density * 9.80665 * depth) / 100
        return self.packer.pack(common.MAVLink_scaled_pressure2_message(self.boot_ms, pressure, 0.0, 1500))

    def _battery(self) -> bytes:
        cells = [0xFFFF] * 10
        if self.battery_v is not None:
            cells[:4] = [round(self.battery_v * 250)] * 4
        return self.packer.pack(common.MAVLink_battery_status_message(0, 0, 1, 32767, cells, -1, -1, -1, -1))

    def _echo(self, group: int) -> bytes:
        outputs = np.zeros(self.groups * GROUP)
        outputs[: self.motors] = self.outputs
        part = outputs[group * GROUP : (group + 1) * GROUP].tolist()
        return self.packer.pack(common.MAVLink_actuator_control_target_message(self.last_us, group, part))


def run_console_command(text: str, board: SimulatedBoard, line: NoisyWire, pty: Pty) -> str:
    """Carry out one line from standard input; returns what is wrong with it, or "".

    `plug`, `unplug`, `restart`, `garbage N` (random bytes, now); `NAME VALUE` for a field of NoisyWire (`drop 0.1`,
    `mute 1`), for `deaf`, `leak`, `battery_v` (or `none`), `watchdog_ms`, `hull_kpa`, `hull_c`, for `stuck1`, `stuck2`
    … (an output stuck at this value), and for `depth`, `roll`, `pitch`, `yaw` of the vehicle (m,
    degrees).
    """
    name, _, rest = text.strip().partition(" ")
    try:
        value = None if rest in ("", "none") else float(rest)
    except ValueError:
        return f"{rest!r} is not a number"
    actions = {"plug": pty.plug, "unplug": pty.unplug, "restart": board.restart}
    if name in actions:
        actions[name]()
    elif name == "battery_v":
        board.battery_v = value
    elif value is None:
        return f"{text.strip()!r} is not understood, or lacks its value"
    elif name == "garbage":
        pty.write(line.random.randbytes(int(value)))
    elif name in ("drop", "repeat", "swap", "corrupt", "cut", "noise", "delay"):
        setattr(line, name, value)
    elif name == "mute":
        line.mute = bool(value)
    elif name == "deaf":
        pty.deaf = bool(value)
    elif name == "leak":
        board.leak = bool(value)
    elif name.removeprefix("stuck") in map(str, range(1, board.motors + 1)):
        board.stuck[int(name.removeprefix("stuck")) - 1] = value
    elif name in ("watchdog_ms", "hull_kpa", "hull_c"):
        setattr(board, name, value)
    elif not isinstance(board.vessel, Vessel):
        return f"{name!r} is not known, or cannot be set for a vehicle in a world"
    elif name == "depth":
        board.vessel.depth = value
    elif name in ("roll", "pitch", "yaw"):
        board.vessel.attitude[("roll", "pitch", "yaw").index(name)] = math.radians(value)
    else:
        return f"{name!r} is not known"
    return ""


def serve(
    board: SimulatedBoard,
    line: NoisyWire,
    pty: Pty,
    record: TextIO | None = None,
    after_step: Callable[[int], None] = lambda _: None,
    console: int | None = None,
) -> None:
    """Run on the real clock until interrupted; calls `after_step` with the time, ns, after each step. Faults are read
    from the file descriptor `console`."""
    stdin = [] if console is None else [console]
    typed = b""
    while True:
        if pty.wait(stdin, TICK_S):
            got = os.read(stdin[0], 4096)
            stdin = stdin if got else []  # closed: no more commands will come
            *lines, typed = (typed + got).split(b"\n")
            for text in lines:
                if problem := run_console_command(text.decode(errors="replace"), board, line, pty):
                    print(problem, file=sys.stderr, flush=True)
        t = time.monotonic_ns()
        pty.write(line.carry(board.step(t, pty.read()), t))
        after_step(t)
        if record is not None:
            while board.applied:
                record.write(json.dumps(board.applied.popleft()._asdict()) + "\n")


def run(link: Path | None, frame: str, depth: float, record: Path | None) -> None:
    """Serve a board on a pty until Ctrl-C or SIGTERM; prints the port's path. `depth` in m; what the thrusters were
    given goes to the file `record`."""
    with contextlib.suppress(PermissionError):  # a real board has a processor to itself
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
    board, pty = SimulatedBoard(frame, depth=depth), Pty(link)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print(link or pty.path, flush=True)
    try:
        with contextlib.nullcontext() if record is None else record.open("w", buffering=1) as file:
            serve(board, NoisyWire(), pty, file, console=sys.stdin.fileno())
    except KeyboardInterrupt:
        pass
    finally:
        pty.unplug()
