"""Runs an external command that ends, with all processes it started, when its parent dies for whatever reason.

    python -I -S die_with_parent.py PARENT [plain|pid] COMMAND…     pid: append our process id to the command

A separate script that imports nothing from `rov`, so that it starts in 20 ms. It leads the process group in which the
command runs, and ends with the command. SIGTERM, which the kernel sends when the parent dies, ends the whole group.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import NoReturn

PR_SET_PDEATHSIG = 1


def main() -> int:
    parent, last_argument, *words = sys.argv[1:]
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, lambda *_: None)  # the whole group receives it: the command ends, then we do
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):  # it died before prctl took effect
        _end()
    if last_argument == "pid":
        words.append(str(os.getpid()))
    child = os.fork()
    if not child:
        _exec(words, libc)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code if code >= 0 else 128 - code  # as a shell reports a signal


def _exec(words: list[str], libc: ctypes.CDLL) -> NoReturn:
    """In the child: become the command."""
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    for number in (signal.SIGPIPE, signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvp(words[0], words)
    except OSError as error:
        os.write(2, f"{words[0]}: cannot be run: {error.strerror}\n".encode())
    os._exit(127)


def _end(*_: object) -> NoReturn:
    os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
