"""The common start of every process of the daemon: arguments, stop flag, fixed pace, real-time scheduling."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from rov.errors import UserError
from rov.service.log import report
from rov.service.log import set_up as set_up_log

if TYPE_CHECKING:
    from rov.config.schema import Config

log = logging.getLogger(__name__)

MCL_CURRENT_AND_FUTURE = 3
PR_SET_PDEATHSIG = 1
FIFO_PRIORITY = 20
BUS_PRIORITY = 15
"""Priority of ZeroMQ's threads, below the loop's: a stop passes through them and must not wait for a busy network."""
BUS_THREADS = "ZMQbg"
"""Prefix of their names."""
CONFINED_BYTES = 512 * 1024 * 1024
"""Memory that a process reached by strangers may take beyond that of its start: more than its full tables need."""
NICE = -5
"""Niceness of the same processes: a stop passes through them, so they go before the network and the recorder."""
DESCRIPTORS_MAX = 65536
"""As many as the unit allows: strangers' connections must not use up the descriptors that we need."""
FLAG_S = 0.05
"""How late a sleeping process notices its flag at most."""
OOM_SCORE = Path("/proc/self/oom_score_adj")


class Flag:
    """Set in a signal handler. One attribute and no lock: a second signal may arrive while the first is handled, and
    `threading.Event.set` would then wait for ever for a lock that its own thread holds."""

    def __init__(self) -> None:
        self._set = False

    def set(self) -> None:
        self._set = True

    def clear(self) -> None:
        self._set = False

    def is_set(self) -> bool:
        return self._set

    def wait(self, seconds: float) -> bool:
        """Sleep for at most so many s; is it set?"""
        end = time.monotonic() + seconds
        while not self._set and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, FLAG_S))
        return self._set


class Process:
    """One process: its configuration, the directory of the endpoints and the ring, and its stop flag."""

    def __init__(self, config_path: Path, root: Path, stopped: Flag):
        self.config_path, self.root, self.stopped = config_path, root, stopped

    @cached_property
    def config(self) -> Config:
        """Read when first used. Raises ConfigError."""
        from rov.config.schema import load  # takes half of the start of the processes that do without it

        return load(self.config_path)

    @property
    def ring(self) -> Path:
        """Path of the frame ring. The supervisor made `root` on a file system in memory."""
        return self.root / "frames.ring"


def start(*, orphaned: int = signal.SIGTERM, expendable: int = 0) -> Process:
    """Set up `python -m rov.camerad rover.toml /run/rov [PARENT]`: SIGINT and SIGTERM ask it to stop.

    `orphaned`: the signal it receives when its parent dies for whatever reason. `expendable`: added to oom_score_adj,
    0..1000: higher is killed first when memory runs out (proc(5)).
    """
    stopped = Flag()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # only the supervisor answers it
    if len(sys.argv) > 3:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, orphaned)
        if os.getppid() != int(sys.argv[3]):  # it died before prctl took effect
            os.kill(os.getpid(), orphaned)
    raise_descriptor_limit()
    if expendable:
        own = int(OOM_SCORE.read_text())
        OOM_SCORE.write_text(str(min(own + expendable, 1000)))
    log.debug("pid %d, configuration %s, endpoints in %s", os.getpid(), sys.argv[1], sys.argv[2])
    return Process(Path(sys.argv[1]), Path(sys.argv[2]), stopped)


def run_main(main: Callable[[], int]) -> NoReturn:
    """Run the `main` of a process and exit with its code; an error that the user can put right is logged in one
    sentence and exits with 2."""
    name = Path(sys.argv[0]).stem
    set_up_log(name)
    try:
        sys.exit(main())
    except UserError as error:
        report("error", name, "refused", str(error))
        sys.exit(2)


def confine() -> None:
    """Limit the memory of a process that strangers reach, so that a flood cannot take that of the others, and allow it
    many files. Beyond the limit Python raises MemoryError, and the supervisor starts the process again."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + CONFINED_BYTES, used + CONFINED_BYTES))
    raise_descriptor_limit()
    with contextlib.suppress(PermissionError):  # without the unit's LimitNICE a stop is slower under attack
        os.setpriority(os.PRIO_PROCESS, 0, NICE)


def raise_descriptor_limit() -> None:
    """Raise the limit of file descriptors as far as we may; systemd and shells start us with 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS_MAX if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS_MAX)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def realtime() -> bool:
    """Ask for SCHED_FIFO, for this thread and those of the bus (which must exist already), and for locked memory;
    exempt existing objects from garbage collection. True when SCHED_FIFO was granted."""
    gc.collect()
    gc.freeze()
    ctypes.CDLL(None).mlockall(MCL_CURRENT_AND_FUTURE)  # refused without LimitMEMLOCK: a page fault then costs a little
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(FIFO_PRIORITY))
        for task in Path("/proc/self/task").iterdir():
            if (task / "comm").read_text().startswith(BUS_THREADS):
                os.sched_setscheduler(int(task.name), os.SCHED_FIFO, os.sched_param(BUS_PRIORITY))
    except OSError:
        return False
    return True


class Pace:
    """Ticks at a fixed rate on the monotonic clock; after a late tick the next ones are not early."""

    def __init__(self, hz: float):
        self.period = int(1e9 / hz)
        self.next_t = time.monotonic_ns()

    def wait(self) -> int:
        """Sleep until the next tick; returns the time of waking, ns."""
        self.next_t += self.period
        now = time.monotonic_ns()
        if now > self.next_t:
            self.next_t = now  # missed ticks are not made up for
        else:
            time.sleep((self.next_t - now) / 1e9)
        return time.monotonic_ns()


class RateMeter:
    """Rate and worst latency since they were last read."""

    def __init__(self, t: int):
        self.t, self.count, self.latency_ms = t, 0, 0.0

    def add(self, latency_ms: float) -> None:
        self.count += 1
        self.latency_ms = max(self.latency_ms, latency_ms)

    def due(self, t: int) -> bool:
        return t - self.t >= 1_000_000_000

    def read(self, t: int) -> tuple[float, float]:
        """(Hz, worst ms) since the last `read`; then counts from zero."""
        result = self.count * 1e9 / max(t - self.t, 1), self.latency_ms
        self.t, self.count, self.latency_ms = t, 0, 0.0
        return result
