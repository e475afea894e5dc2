"""A whole daemon for fault tests: `rov run` with a video as camera, the simulated board on a pty, a subscriber and an
operator. All times are monotonic ns, which the processes of a machine share."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import tomli_w

from rov.bus import Endpoints, Entry, listen
from rov.bus.client import Client
from rov.bus.session import NoAnswer
from rov.config.schema import load
from rov.messages import (
    Arm,
    Command,
    Disarm,
    Event,
    Message,
    Mode,
    PilotStatus,
    Reply,
    SetMode,
    Setpoint,
    SetTarget,
    Sticks,
    Stop,
    TakeOver,
    ThrusterCommand,
    VehicleState,
)
from rov.resources import checkout, find_resource

MS = 1_000_000
GRACE = 100 * MS
"""Allowance for deadlines on a busy machine."""
PATIENCE_S, START_S = 30.0, 90.0
"""Longest waits on a busy machine, where nothing has a deadline: for anything, and for the network to be loaded."""
RATE_HZ = 5.0
"""Rate of perception, low so that the network leaves CPU time to the rest."""
SKEW = 20_000 * MS
"""Messages of several processes arrive in the order of their times within this; one of them may have hung."""
M = TypeVar("M", bound=Message)
T = TypeVar("T")


def free_port() -> int:
    """A free port below those that the kernel gives to connections, one of which could take it before the daemon."""
    while True:
        port = random.randrange(10_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def make_video(path: Path, size: tuple[int, int] = (160, 120), frames: int = 40, fps: float = 10.0) -> Path:
    """A video of noise: no two frames are alike, as from a live camera."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), fps, size)
    random = np.random.default_rng(0)
    for _ in range(frames):
        writer.write(random.integers(60, 130, (size[1], size[0], 3), np.uint8))
    writer.release()
    return path


def light_weights(folder: Path, size: int = 96) -> Path:
    """The detector with an input of this side, px: it detects little, and takes little of the processor."""
    weights = folder / "detector.safetensors"
    shutil.copy(find_resource("models/detector.safetensors"), weights)
    card = find_resource("models/detector.toml").read_text()
    weights.with_suffix(".toml").write_text(re.sub(r"(?m)^size = \d+", f"size = {size}", card))
    return weights


class Daemon:
    """`rov run`, its board, a subscriber and an operator."""

    def __init__(self, folder: Path, *, start: bool = True, size: int = 96, **sections: dict[str, Any]):
        """`size`: side of the network's input, px; a small one detects little, but takes little CPU time. A `link`
        section that names its kind replaces the simulated board."""
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.dives = folder / "dives"
        self.applied = folder / "board.jsonl"
        self.board_entries: list[dict[str, Any]] = []
        self.board_read = 0
        """What was read of the board's record, and how many bytes that were."""
        port = folder / "board"
        self.board = None if "kind" in sections.get("link", {}) else self._board(port)
        if "camera" not in sections:
            sections["camera"] = {"source": f"loop:{make_video(folder / 'clip.avi')}"}
        self.weights = light_weights(folder, size)
        self.card = self.weights.with_suffix(".toml")
        config: dict[str, dict[str, Any]] = {
            "vehicle": {"max_depth": 20.0},
            "perception": {"rate_hz": RATE_HZ, "device": "cpu", "weights": str(self.weights)},
            "link": {"port": str(port)},
            "bus": {"public": f"tcp://127.0.0.1:{free_port()}", "commands": f"tcp://127.0.0.1:{free_port()}"},
            "recording": {"folder": str(self.dives), "keep_gb": 0.0, "keep_share": 0.0, "disk_free": 0.01},
        }
        for name, keys in sections.items():
            config[name] = config.get(name, {}) | keys
        self.sections = config
        self.path = folder / "rover.toml"
        self.path.write_text(tomli_w.dumps(config))
        self.config = load(self.path)
        self.heard: list[Entry] = []
        self.messages: defaultdict[type[Message], list[Message]] = defaultdict(list)
        """The same by kind."""
        self.log = folder / "log.txt"
        self.process: subprocess.Popen[bytes] | None = None
        self.listening = threading.Event()
        self.reader = listen(self.config.bus.public)
        self.listener = threading.Thread(target=self._listen, daemon=True)
        self.listener.start()
        self.pilot: Operator | None = None
        if start:
            self.start()

    def start(self, env: dict[str, str] | None = None, prefix: tuple[str, ...] = ()) -> None:
        with self.log.open("ab") as log:
            command = [*prefix, sys.executable, "-m", "rov", "run", str(self.path)]
            self.process = subprocess.Popen(command, stderr=log, cwd=self.folder, env=environment() | (env or {}))

    def _board(self, port: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "sim", "board", "--link", port, "--record", self.applied, "--depth", "5"]
        board = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=checkout())
        assert board.stdout is not None
        board.stdout.readline()
        return board

    def _listen(self) -> None:
        while not self.listening.is_set():
            if self.reader.wait(50):
                for entry in self.reader.receive():
                    self.heard.append(entry)
                    self.messages[type(entry.message)].append(entry.message)
        self.reader.close()

    # ---- messages --------------------------------------------------------------------------------------------------

    def said(self, kind: type[M], since: int = 0) -> list[M]:
        """Messages of this kind from `since` on, in the order in which they arrived."""
        recent = itertools.takewhile(lambda message: message.t >= since - SKEW, newest_first(self.messages[kind]))
        return [message for message in recent if message.t >= since][::-1]  # type: ignore[return-value]

    def events(self, since: int = 0) -> list[str]:
        return [event.code for event in self.said(Event, since)]

    def event(self, code: str, since: int = 0, seconds: float = PATIENCE_S) -> Event:
        """The first event of this code; waits for it."""

        def found() -> Event | None:
            return next((each for each in self.said(Event, since) if each.code == code), None)

        return wait_for(found, f"event {code}", seconds, lambda: self.tail(since))

    def wait(self, kind: type[M], test: Callable[[M], bool], since: int = 0, seconds: float = PATIENCE_S) -> M:
        """The first such message; waits for it."""

        def found() -> M | None:
            return next((each for each in self.said(kind, since) if test(each)), None)

        return wait_for(found, kind.__name__, seconds, lambda: self.tail(since))

    def tail(self, since: int) -> str:
        events = "\n".join(f"{(e.t - since) / 1e9:8.3f} {e.code}: {e.text}" for e in self.said(Event)[-25:])
        status = self.said(PilotStatus)[-1:]
        return f"{events}\n{status}\n{self.log.read_text()[-2000:]}"

    # ---- actions -----------------------------------------------------------------------------------------------------

    def do(self, line: str) -> int:
        """Send a console command to the board; returns when, ns."""
        assert self.board is not None and self.board.stdin is not None
        t = time.monotonic_ns()
        self.board.stdin.write(line.encode() + b"\n")
        self.board.stdin.flush()
        return t

    def edit(self, section: str, **keys: Any) -> None:
        """Change live keys of the configuration; waits until they hold."""
        t = time.monotonic_ns()
        self.sections[section] = self.sections.get(section, {}) | keys
        self.path.write_text(tomli_w.dumps(self.sections))
        self.event("tuned", t)

    def pid(self, name: str) -> int:
        """The id of a child process. `restarted` is said just before the process is there: wait a moment for it."""
        assert self.process is not None
        found, end = children(self.process.pid, f"rov.{name}"), time.monotonic() + 2.0
        while len(found) != 1 and time.monotonic() < end:
            time.sleep(0.01)
            found = children(self.process.pid, f"rov.{name}")
        assert len(found) == 1, f"{name}: {found}"
        return found[0]

    def kill(self, name: str, number: int = signal.SIGKILL) -> int:
        """Send a signal to a child; returns when, ns."""
        pid, t = self.pid(name), time.monotonic_ns()
        os.kill(pid, number)
        return t

    def ready(self) -> int:
        """Wait until it publishes status, attitude, depth and setpoints; returns when, ns."""
        self.wait(PilotStatus, lambda status: True)
        self.wait(VehicleState, lambda state: state.attitude_t is not None and state.depth_t is not None)
        self.wait(Setpoint, lambda setpoint: True, seconds=START_S)
        return time.monotonic_ns()

    def quiet(self, since: int, until: int | None = None) -> None:
        """Assert by the board's record that no thruster turned in this time."""
        until = until or time.monotonic_ns()
        moved = [
            a for a in self.board_record() if since <= a["t"] <= until and any(abs(v) > 0.0011 for v in a["values"])
        ]
        assert not moved, moved[:3]

    def board_record(self) -> list[dict[str, Any]]:
        """The outputs of the thrusters, one entry per change or command."""
        with self.applied.open("rb") as file:
            file.seek(self.board_read)
            new = file.read()
        whole = new.rfind(b"\n") + 1
        self.board_read += whole
        self.board_entries += map(json.loads, new[:whole].splitlines())
        return self.board_entries

    def neutral_by(self, deadline: int, until: int | None = None) -> None:
        """Assert that every thruster is neutral from `deadline` on."""
        before = [a for a in self.board_record() if a["t"] <= deadline]
        assert not before or not any(before[-1]["values"]), f"still {before[-1]} at {deadline}"
        self.quiet(deadline, until)

    def stop(self) -> int:
        """Ctrl-C; returns its exit code."""
        assert self.process is not None
        if self.pilot:
            self.pilot.close()
            self.pilot = None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.process.wait(15)

    def close(self) -> None:
        try:
            if self.process is not None:
                self.stop()
        finally:
            if self.process is not None and self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            self.listening.set()
            self.listener.join()
            if self.board is not None:
                self.board.terminate()
                self.board.wait()
                for pipe in (self.board.stdin, self.board.stdout):
                    assert pipe is not None
                    pipe.close()

    def operator(self) -> Operator:
        """The operator; made at the first call."""
        if self.pilot is None:
            self.pilot = Operator(self.config.bus.commands)
        return self.pilot

    def armed(self, mode: Mode = Mode.MANUAL, **sticks: float) -> Operator:
        """Arm in a mode and hold the sticks; with sticks, wait until the thrusters turn."""
        operator = self.operator()
        operator.sticks = sticks
        self.patiently(operator.take_over)
        since = time.monotonic_ns()
        status = self.said(PilotStatus)[-1]
        if status.armed and status.mode is not mode:
            self.patiently(lambda: operator.mode(mode))
        if not status.armed:
            if status.mode is not mode:
                self.patiently(lambda: operator.mode(mode))
            self.patiently(operator.arm)
        self._wait_armed(operator, mode, since)
        if sticks:
            self.wait(ThrusterCommand, lambda c: any(abs(v) > 0.05 for v in c.values), since)
        return operator

    def _wait_armed(self, operator: Operator, mode: Mode, since: int) -> None:
        """Ask again, as an operator does, when a picture was late in the moment of arming, or the mode has ended."""

        def armed() -> bool:
            said = self.said(PilotStatus, since)
            if said and said[-1].mode is not mode:
                operator.mode(mode)
            elif said and said[-1].refused and not said[-1].armed:
                operator.arm()
            return any(each.armed and each.mode is mode for each in said)

        wait_for(armed, f"armed in {mode.value}", PATIENCE_S, lambda: self.tail(since), pause_s=0.1)

    def patiently(self, ask: Callable[[], Reply]) -> None:
        """Repeat a command until it is accepted."""
        last: list[Reply] = []

        def granted() -> bool:
            last[:] = [ask()]
            return last[0].accepted

        wait_for(granted, "to be granted", PATIENCE_S, lambda: f"{last}\n{self.tail(0)}", pause_s=0.05)


class Operator:
    """An operator: a client whose heartbeat does not depend on what the test does, and that keeps its sticks."""

    def __init__(self, endpoint: str, session: str = "pilot", *, beating: bool = True):
        self.client = Client(Endpoints(commands=endpoint), session=session, topics=(), answer_s=3.0)
        self.sticks: dict[str, float] = {}
        self.beating = beating
        self.closed = threading.Event()
        self.thread = threading.Thread(target=self._stream, daemon=True)
        self.thread.start()

    @property
    def beating(self) -> bool:
        return self.client.session.patience_s > 0

    @beating.setter
    def beating(self, wanted: bool) -> None:
        self.client.session.patience_s = math.inf if wanted else 0.0

    @property
    def seq(self) -> int:
        return self.client.session.seq

    def say(self, kind: type[Command], **fields: Any) -> Reply:
        """Send a command and wait for its answer."""
        try:
            return self.client.ask(kind, **fields)
        except NoAnswer as silence:
            return Reply(t=0, seq=self.seq, accepted=False, reason=str(silence))

    def take_over(self, **more: bool) -> Reply:
        return self.say(TakeOver, **more)

    def arm(self) -> Reply:
        return self.say(Arm)

    def disarm(self) -> Reply:
        return self.say(Disarm)

    def stop(self) -> Reply:
        return self.say(Stop)

    def mode(self, mode: Mode) -> Reply:
        return self.say(SetMode, mode=mode)

    def target(self, label: str) -> Reply:
        return self.say(SetTarget, label=label)

    def _stream(self) -> None:
        while not self.closed.wait(0.05):
            if self.sticks:
                self.client.session.ask(Sticks, {**self.sticks})

    def close(self) -> None:
        self.closed.set()
        self.thread.join()
        self.client.close()


def newest_first(grows: Sequence[T]) -> Iterator[T]:
    """The present items, newest first, while another thread appends."""
    for i in range(len(grows) - 1, -1, -1):
        yield grows[i]


def wait_for(
    found: Callable[[], T | None],
    what: str,
    seconds: float = PATIENCE_S,
    more: Callable[[], str] = str,
    pause_s: float = 0.01,
) -> T:
    end = time.monotonic() + seconds
    while not (answer := found()):
        assert time.monotonic() < end, f"no {what} within {seconds:g} s\n{more()}"
        time.sleep(pause_s)
    return answer


def children(parent: int, module: str) -> list[int]:
    """Ids of the children of `parent` that run `module`."""
    found = []
    for path in Path("/proc").iterdir():
        try:
            ppid = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            if ppid == parent and module in (path / "cmdline").read_text().split("\0"):
                found.append(int(path.name))
        except (OSError, ValueError):
            continue
    return found


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(checkout()), "OMP_NUM_THREADS": "1"}


def may_be_realtime() -> bool:
    code = "import os; os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(20))"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
