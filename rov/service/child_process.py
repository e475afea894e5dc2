"""One process of the daemon: how it is started, whether it hangs, how long it rests when it dies too often."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections import deque
from typing import NamedTuple

from rov.service.external_command import leashed

STARTS_MAX, STARTS_S = 5, 60.0
"""A process that dies more often than this is given up: something is wrong that starting again does not mend."""
PAUSE_S = 0.5
"""Before the third start within STARTS_S; doubled before each further one. What it needs may be back by then."""
RETRY_S = 60.0
"""What was given up is tried again after this; a dive is long, and a full memory or a missing device may pass."""
PILOT_START_S = 3.0
"""A pilot that was started again may take so long to speak, its thrusters neutral by the board's own watchdog. It takes
0.6 s on a laptop, its files being in memory already; a small computer is some times slower. Meanwhile the watchdog is
fed for it, or systemd would end the recording and the warm network, too; afterwards systemd starts all of it again."""
ENDLESS_PAUSE_S = 0.3
"""Between the starts of one that dies without end, when it dies too often."""
READY_S = 60.0
"""So long a process may take before it says anything: torch takes 10 s to load on a small computer."""


class ChildSpec(NamedTuple):
    """A row of the supervisor's table."""

    name: str
    vital: bool
    """Whether the daemon is over when it is given up; started again at once."""
    hung_s: float
    """It hangs when it has said for this long nothing of its health."""
    endless: bool = False
    """Whether it is started again however often it dies: strangers may kill it, and nobody else lets an operator in."""


class ChildProcess:
    """A child and its history. It heads a session and process group of its own: Ctrl-C is ours to pass on, and what it
    leaves behind ends with it."""

    def __init__(self, child: ChildSpec, arguments: list[str], peer: list[str] | None = None):
        """`arguments` without the last one, its parent. `peer`: a command that takes its place; it gets the same
        arguments, and speaks the same messages."""
        self.child, self.foreign = child, peer is not None
        if peer is None:
            self.command = [sys.executable, "-m", f"rov.{child.name}", *arguments, str(os.getpid())]
        else:
            self.command = leashed([*peer, *arguments], told=True)
        self.starts: deque[float] = deque(maxlen=STARTS_MAX)
        self.pid: int | None = None
        """None: it was not started, or could not be."""
        self.code: int | None = None
        """How it ended, as subprocess has it."""
        self.failure = ""
        """Why it could not be started."""
        self.due: float | None = None
        """When it is started again; None: it runs, or nobody has decided yet."""
        self.given_up = False
        self.killed: float | None = None
        """When SIGKILL was sent."""
        self.stuck = False
        """Whether it was said that not even that ends it."""
        self.heard: float | None = None
        """When it last said that it is well; None: not since it was started."""

    def receive_health(self, t: int, now: float) -> None:
        """It said at `t` ns that it is well; what came late from the one before does not count."""
        if self.starts and t > self.starts[-1] * 1e9:
            self.heard = now

    def start(self, now: float) -> None:
        """Takes no descriptor of ours, of which there may be none left."""
        self.starts.append(now)
        self.heard = self.killed = self.due = self.code = self.pid = None
        self.failure, self.stuck = "", False
        try:
            self.pid = os.posix_spawn(self.command[0], self.command, os.environ, setsid=True)
        except OSError as error:
            self.failure = error.strerror or str(error)

    @property
    def started(self) -> bool:
        """Whether it was ever tried."""
        return bool(self.starts)

    @property
    def alive(self) -> bool:
        if self.pid is None or self.code is not None:
            return False
        if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return True
        self._signal(signal.SIGKILL)  # to what it left behind; until it is waited for, its group is no other's
        self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return False

    def worn_out(self, now: float) -> bool:
        return not self.child.endless and self._dies_often(now)

    def _dies_often(self, now: float) -> bool:
        return len(self.starts) == STARTS_MAX and now - self.starts[0] < STARTS_S

    def pause(self, now: float) -> float:
        """How long it rests before it is started again, in s. A vital one rests only where it could not be started."""
        recent = sum(now - t < STARTS_S for t in self.starts)
        if self.child.endless:
            return ENDLESS_PAUSE_S if self._dies_often(now) else 0.0
        if self.child.vital or recent < 2:
            return PAUSE_S if self.failure else 0.0
        return PAUSE_S * 2.0 ** (recent - 2)

    @property
    def why(self) -> str:
        """How it ended."""
        if self.code is None:
            return f"could not be started ({self.failure})"
        return f"was killed by {signal.Signals(-self.code).name}" if self.code < 0 else f"ended with {self.code}"

    def starting(self, now: float) -> bool:
        """Whether it was started a moment ago, and need not have spoken yet."""
        return self.alive and self.heard is None and now - self.starts[-1] < PILOT_START_S

    def silent(self, now: float) -> float:
        """For how many s it has owed us a sign of life."""
        if self.heard is None:
            return max(0.0, now - self.starts[-1] - READY_S + self.child.hung_s)
        return now - self.heard

    def hung(self, now: float) -> bool:
        return self.alive and self.killed is None and self.silent(now) > self.child.hung_s

    def end(self) -> None:
        """Ask it to end. Ours hear SIGTERM as they hear SIGINT, but before they are set up it ends them without a
        word; for a command of others Ctrl-C is the signal that it knows."""
        if self.alive:
            self._signal(signal.SIGINT if self.foreign else signal.SIGTERM)
            self._signal(signal.SIGCONT)  # one that was stopped must hear it too

    def kill(self, now: float) -> None:
        """Does not wait for it: in a driver that hangs, it ends when that does."""
        if self.alive:
            self.killed = now
            self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        assert self.pid is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)
