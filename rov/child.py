"""One process of the daemon: how it is started, whether it hangs, and whether it died too often."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections import deque
from typing import NamedTuple

STARTS_MAX, STARTS_S = 5, 60.0
"""A process that dies more often than this stays down: something is wrong that starting again does not mend."""
PILOT_START_S = 3.0
"""A pilot that was started again may take so long to speak, its thrusters neutral by the board's own watchdog. It takes
0.6 s on a laptop, its files being in memory already; a small computer is some times slower. Meanwhile the watchdog is
fed for it, or systemd would end the recording and the warm network, too; afterwards systemd starts all of it again."""
PAUSE_S = 0.3
"""Between the starts of one that dies without end."""
READY_S = 60.0
"""So long a process may take before it says anything: torch takes 10 s to load on a small computer."""


class Child(NamedTuple):
    """A row of the supervisor's table."""

    name: str
    vital: bool
    """Whether the daemon is over when it stays down."""
    hung_s: float
    """It hangs when it has said for this long nothing of its health."""
    endless: bool = False
    """Whether it is started again however often it dies: strangers may kill it, and nobody else lets an operator in."""


class Running:
    """A child and its history."""

    def __init__(self, child: Child, arguments: list[str], peer: list[str] | None = None):
        """`peer`: a command that takes its place; it gets the same arguments, and speaks the same messages."""
        self.child = child
        self.command = [*(peer or [sys.executable, "-m", f"rov.{child.name}"]), *arguments]
        self.starts: deque[float] = deque(maxlen=STARTS_MAX)
        self.process: subprocess.Popen[bytes] | None = None
        self.given_up = False
        self.heard: float | None = None
        """When it last said that it is well; None: not since it was started."""

    def hear(self, t: int, now: float) -> None:
        """It said at `t` ns that it is well; what came late from the one before does not count."""
        if t > self.starts[-1] * 1e9:
            self.heard = now

    def start(self) -> None:
        self.starts.append(time.monotonic())
        self.heard = None
        self.process = subprocess.Popen(self.command, start_new_session=True)  # Ctrl-C is ours to pass on

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def worn_out(self) -> bool:
        return len(self.starts) == STARTS_MAX and time.monotonic() - self.starts[0] < STARTS_S

    def pausing(self, now: float) -> bool:
        """Whether one that dies without end was started a moment ago."""
        return now - self.starts[-1] < PAUSE_S

    @property
    def why(self) -> str:
        """How it ended."""
        assert self.process is not None
        code = self.process.returncode
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"

    def starting(self, now: float) -> bool:
        """Whether it was started a moment ago, and need not have spoken yet."""
        return self.alive and self.heard is None and now - self.starts[-1] < PILOT_START_S

    def silent(self, now: float) -> float:
        """For how many s it has owed us a sign of life."""
        if self.heard is None:
            return max(0.0, now - self.starts[-1] - READY_S + self.child.hung_s)
        return now - self.heard

    def hung(self, now: float) -> bool:
        return self.alive and self.silent(now) > self.child.hung_s

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()
