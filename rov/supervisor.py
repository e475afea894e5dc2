"""`rov run`: starts the processes, restarts the dead, passes signals on, relays the public side, feeds the watchdog.

A process is a row of a table; the supervisor knows nothing about what it does.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from rov.bus import Pub, PublicPub, Sub, inbox
from rov.config import Config
from rov.messages import Detections, Event, Frame, PilotStatus

STARTS_MAX, STARTS_S = 5, 60.0
"""A process that dies more often than this stays down: something is wrong that starting again does not mend."""
PATIENCE_S = 5.0
"""From SIGINT to SIGKILL."""
HUNG_S = 10.0
"""Frames come, and nothing has been said about any of them for this long: the network hangs."""


class Child(NamedTuple):
    """One process of the daemon."""

    name: str
    vital: bool
    """Whether the daemon is over when it stays down."""


CHILDREN = (
    Child("pilotd", True),
    Child("camerad", False),
    Child("perceptiond", False),
    Child("recorderd", False),
    Child("machined", False),
)
"""In the order they are started."""


class Running:
    """A child and its history."""

    def __init__(self, child: Child, arguments: list[str]):
        self.child = child
        self.command = [sys.executable, "-m", f"rov.{child.name}", *arguments]
        self.starts: deque[float] = deque(maxlen=STARTS_MAX)
        self.process: subprocess.Popen[bytes] | None = None
        self.given_up = False

    def start(self) -> None:
        self.starts.append(time.monotonic())
        self.process = subprocess.Popen(self.command, start_new_session=True)  # Ctrl-C is ours to pass on

    @property
    def worn_out(self) -> bool:
        return len(self.starts) == STARTS_MAX and time.monotonic() - self.starts[0] < STARTS_S


def run(config_path: Path, config: Config, tell: Callable[[str], None]) -> int:
    """Run until a signal or until a vital process stays down; returns the exit code."""
    root = Path(tempfile.mkdtemp(prefix="rov-", dir=os.environ.get("RUNTIME_DIRECTORY")))
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    public, mail, pub = PublicPub(config.bus.public), inbox("public", root), Pub("supervisor", root)
    pilot, frames, found = Sub(PilotStatus, root), Sub(Frame, root), Sub(Detections, root)
    children = [Running(child, [str(config_path), str(root)]) for child in CHILDREN]
    failed = False

    def say(level: str, code: str, text: str) -> None:
        tell(text)
        pub.send(Event(t=time.monotonic_ns(), level=level, source="supervisor", code=code, text=text))  # type: ignore[arg-type]

    for each in children:
        each.start()
    tell(f"running; listen at {config.bus.public}, command at {config.bus.commands}")
    notify("READY=1")
    fed = seen = time.monotonic()
    while not stopped.is_set():
        mail.wait(20)
        for entry in mail.read():
            public.forward(entry.topic, entry.payload)
            if isinstance(entry.message, Event) and entry.message.source != "supervisor":
                tell(f"{entry.message.level}: {entry.message.text}")
        now = time.monotonic_ns()
        for each in children:
            if each.process is None or each.given_up or each.process.poll() is None:
                continue
            why = _why(each.process.returncode)
            if each.worn_out:
                each.given_up = True
                say("alarm", "gave_up", f"{each.child.name} {why} {STARTS_MAX} times in {STARTS_S:g} s: it stays down")
                failed |= each.child.vital
                continue
            say("warning", "restarted", f"{each.child.name} {why}: started again")
            each.start()
            seen = time.monotonic()
        pilot.update(now)
        frames.update(now)
        if found.update(now) or not frames.fresh(now):
            seen = time.monotonic()
        worker = next(each for each in children if each.child.name == "perceptiond")
        if time.monotonic() - seen > HUNG_S and worker.process and not worker.given_up:
            say("warning", "hung", f"nothing seen for {HUNG_S:g} s though frames come: perceptiond is started again")
            worker.process.kill()
            seen = time.monotonic()
        if pilot.fresh(now) and time.monotonic() - fed > 0.25:
            notify("WATCHDOG=1")
            fed = time.monotonic()
        if failed:
            break
    notify("STOPPING=1")
    _stop(children)
    for entry in mail.read(10_000):
        public.forward(entry.topic, entry.payload)
    public.close()
    mail.close()
    pub.close()
    for path in root.iterdir():
        path.unlink()
    root.rmdir()
    return 1 if failed else 0


def _stop(children: list[Running]) -> None:
    """SIGINT to all, the pilot first; SIGKILL to those that do not go."""
    alive = [each.process for each in children if each.process and each.process.poll() is None]
    for process in alive:
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGCONT)  # one that was stopped must hear it too
    end = time.monotonic() + PATIENCE_S
    for process in alive:
        try:
            process.wait(max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _why(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"


def notify(state: str) -> None:
    """Tell systemd, where it started us (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.connect("\0" + address[1:] if address[0] == "@" else address)
            channel.send(state.encode())
