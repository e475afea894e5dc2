"""One process of the daemon: how it is started, whether it hangs, and how long it pauses when it dies too often."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from collections import deque
from typing import NamedTuple

from rov.service.external_command import dying_with_us

log = logging.getLogger(__name__)

STARTS_MAX, STARTS_S = 5, 60.0
"""A process that dies more often than this is given up: starting it again does not cure the fault."""
PAUSE_S = 0.5
"""Pause before the third start within STARTS_S, doubled before each further one: a missing resource may return."""
RETRY_S = 60.0
"""A process that was given up is tried again after this: a full memory or a missing device may pass during a dive."""
PILOT_START_S = 3.0
"""Time for a restarted pilot to publish its first status; meanwhile the board's own watchdog keeps the thrusters
neutral. A laptop with warm caches needs 0.6 s, a small computer several times that. We feed the watchdog during this
time, or systemd would also end the recording and the warm network; after it systemd restarts the whole daemon."""
ENDLESS_PAUSE_S = 0.3
"""Pause between the starts of an `endless` process that dies too often."""
READY_S = 60.0
"""Start-up grace before the first Health message: torch takes 10 s to load on a small computer."""


class ChildSpec(NamedTuple):
    """A row of the supervisor's table."""

    name: str
    vital: bool
    """Whether the daemon ends when this process is given up; it is restarted without a pause."""
    hung_s: float
    """The process hangs when it has not reported its health for this long."""
    endless: bool = False
    """Whether it is restarted however often it dies: strangers may kill it, and operators can enter only through it."""


class ChildProcess:
    """A child process and its history. It leads its own session and process group: we pass Ctrl-C on ourselves, and can
    end everything that it started."""

    def __init__(self, child: ChildSpec, arguments: list[str], peer: list[str] | None = None):
        """`arguments` without the last one, its parent. `peer`: a command that replaces it, with the same arguments and
        messages."""
        self.child, self.foreign = child, peer is not None
        if peer is None:
            self.command = [sys.executable, "-m", f"rov.{child.name}", *arguments, str(os.getpid())]
        else:
            self.command = dying_with_us([*peer, *arguments], pass_pid=True)
        self.starts: deque[float] = deque(maxlen=STARTS_MAX)
        self.pid: int | None = None
        """None: it was not started, or could not be."""
        self.code: int | None = None
        """Exit code, negative for a signal, as in subprocess."""
        self.failure = ""
        """Why it could not be started."""
        self.due: float | None = None
        """When it is to be restarted; None: it runs, or that is not decided yet."""
        self.given_up = False
        self.killed: float | None = None
        """When SIGKILL was sent."""
        self.stuck = False
        """Whether we reported that not even SIGKILL ended it."""
        self.health_t: float | None = None
        """When it last reported its health, s; None: not since it was started."""

    def receive_health(self, t: int, now: float) -> None:
        """It reported its health at `t` (monotonic ns). Late messages of its predecessor do not count."""
        if self.starts and t > self.starts[-1] * 1e9:
            self.health_t = now

    def start(self, now: float) -> None:
        """Start it. This needs no file descriptor of ours, of which there may be none left."""
        self.starts.append(now)
        self.health_t = self.killed = self.due = self.code = self.pid = None
        self.failure, self.stuck = "", False
        try:
            self.pid = os.posix_spawn(self.command[0], self.command, os.environ, setsid=True)
        except OSError as error:
            self.failure = error.strerror or str(error)
        log.debug("%s: pid %s, %s", self.child.name, self.pid, " ".join(self.command))

    @property
    def started(self) -> bool:
        """Whether a start was ever tried."""
        return bool(self.starts)

    @property
    def alive(self) -> bool:
        if self.pid is None or self.code is not None:
            return False
        if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return True
        self._signal(signal.SIGKILL)  # to processes it left behind; the group's number is safe until waitpid
        self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return False

    def worn_out(self, now: float) -> bool:
        return not self.child.endless and self._dies_often(now)

    def _dies_often(self, now: float) -> bool:
        return len(self.starts) == STARTS_MAX and now - self.starts[0] < STARTS_S

    def pause(self, now: float) -> float:
        """Pause before it is started again, in s. A vital process pauses only when it could not be started."""
        recent = sum(now - t < STARTS_S for t in self.starts)
        if self.child.endless:
            return ENDLESS_PAUSE_S if self._dies_often(now) else 0.0
        if self.child.vital or recent < 2:
            return PAUSE_S if self.failure else 0.0
        return PAUSE_S * 2.0 ** (recent - 2)

    @property
    def why(self) -> str:
        """How it ended, for a sentence about it."""
        if self.code is None:
            return f"could not be started ({self.failure})"
        return f"was killed by {signal.Signals(-self.code).name}" if self.code < 0 else f"ended with {self.code}"

    def starting(self, now: float) -> bool:
        """Whether it was started a moment ago and need not have reported its health yet."""
        return self.alive and self.health_t is None and now - self.starts[-1] < PILOT_START_S

    def silent(self, now: float) -> float:
        """For how many s its health report has been missing."""
        if self.health_t is None:
            return max(0.0, now - self.starts[-1] - READY_S + self.child.hung_s)
        return now - self.health_t

    def hung(self, now: float) -> bool:
        return self.alive and self.killed is None and self.silent(now) > self.child.hung_s

    def end(self) -> None:
        """Ask it to end. Our processes treat SIGTERM like SIGINT, and during start-up it ends them without a traceback;
        an external command expects Ctrl-C."""
        if self.alive:
            self._signal(signal.SIGINT if self.foreign else signal.SIGTERM)
            self._signal(signal.SIGCONT)  # a stopped process must receive it, too

    def kill(self, now: float) -> None:
        """Send SIGKILL without waiting: a process in a hanging driver ends only when the driver returns."""
        if self.alive:
            self.killed = now
            self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        assert self.pid is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)
