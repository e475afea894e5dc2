"""Measures from outside when the daemon writes to its port: `python -m sim port-write-times /tmp/board`.

A serial driver begins to send within the call that hands it bytes. A pty hands them to a worker of the kernel, which
has no real-time priority: on a busy machine it runs some ms late, now and then 20 ms, and the reader at the pty's other
end (`sim.board`) measures that delay too. This watches the device file itself: the kernel reports a write to it
(inotify(7)) before the call returns. Where allowed it runs at a real-time priority above the pilot's, or it would
measure its own delay.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import struct
import time
from collections.abc import Iterator
from pathlib import Path

from rov.errors import UserError
from rov.service.process import FIFO_PRIORITY

IN_MODIFY, IN_IGNORED = 0x2, 0x8000
"""inotify(7): the file was written; the watch is gone with its file."""
HEADER = struct.Struct("iIII")
"""Header of an event: watch, mask, cookie, and the length of the name that follows."""


def writes(path: Path) -> Iterator[int]:
    """The time of each write to a device, monotonic ns, until the device is gone. Writes faster than the reading merge
    into one. Raises UserError when the device cannot be watched."""
    libc = ctypes.CDLL(None, use_errno=True)
    watch = libc.inotify_init1(os.O_CLOEXEC)
    try:
        if libc.inotify_add_watch(watch, os.fsencode(path.resolve()), IN_MODIFY) < 0:
            raise UserError(f"{path}: cannot be watched: {os.strerror(ctypes.get_errno())}")
        while True:
            data = os.read(watch, 4096)
            t = time.monotonic_ns()
            while data:
                _, mask, _, name_bytes = HEADER.unpack_from(data)
                data = data[HEADER.size + name_bytes :]
                if mask & IN_IGNORED:
                    return
                yield t
    finally:
        os.close(watch)


def run(port: Path) -> None:
    """Print the time of each write until the port is gone, Ctrl-C or SIGTERM. Raises UserError as `writes` does."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(FIFO_PRIORITY + 10))
    with contextlib.suppress(KeyboardInterrupt):
        for t in writes(port):
            print(t, flush=True)
