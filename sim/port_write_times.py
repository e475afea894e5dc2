"""When the daemon hands bytes to its port, seen from outside: `python -m sim.port_write_times /tmp/board` prints a time per write.

The instrument for the pace on the wire. A serial driver begins to send within the call that hands it bytes; a pty hands
them to a worker of the kernel, which has no real-time priority and on a busy machine comes some ms late, now and then
20 ms. What reads the pty's other end (`sim.board`) measures that worker as well. This watches the device file itself:
the kernel reports a write to it (inotify(7)) before that call returns. Monotonic ns, one line each; whoever may has
real-time priority, above the pilot's, or it would measure itself.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import signal
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from rov.errors import UserError
from rov.service.process import FIFO_PRIORITY

IN_MODIFY, IN_IGNORED = 0x2, 0x8000
"""inotify(7): somebody wrote; the file is gone."""
HEAD = struct.Struct("iIII")
"""Of an event: watch, what happened, cookie, and how many bytes of name follow."""


def writes(path: Path) -> Iterator[int]:
    """The time of each write to a device, monotonic ns, until the device is gone. Writes that come faster than they are
    read become one. Raises UserError when it cannot be watched."""
    libc = ctypes.CDLL(None, use_errno=True)
    watch = libc.inotify_init1(os.O_CLOEXEC)
    try:
        if libc.inotify_add_watch(watch, os.fsencode(path.resolve()), IN_MODIFY) < 0:
            raise UserError(f"{path}: cannot be watched: {os.strerror(ctypes.get_errno())}")
        while True:
            data = os.read(watch, 4096)
            t = time.monotonic_ns()
            while data:
                _, what, _, named = HEAD.unpack_from(data)
                data = data[HEAD.size + named :]
                if what & IN_IGNORED:
                    return
                yield t
    finally:
        os.close(watch)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m sim.port_write_times", description="When something is written to a port."
    )
    parser.add_argument("port", type=Path)
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(FIFO_PRIORITY + 10))
    try:
        for t in writes(options.port):
            print(t, flush=True)
    except UserError as error:
        sys.exit(f"sim.port_write_times: {error}")
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
