"""Keys as they are typed at a terminal: a POSIX terminal, or the Windows console."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time
from collections.abc import Callable, Iterator
from typing import Protocol

try:
    import termios
    import tty
except ImportError:  # Windows
    termios = tty = None  # type: ignore[assignment]

CONSOLE_ARROWS = {"H": "\x1b[A", "P": "\x1b[B", "M": "\x1b[C", "K": "\x1b[D"}
"""Second letters of the console's arrow keys, and the terminal's sequences for the same keys."""
CONSOLE_PREFIXES = "\0\xe0"
CONSOLE_POLL_S = 0.005


class Keys(Protocol):
    """Where keys are read from."""

    def read(self, seconds: float) -> str | None:
        """What is typed within this time; a space (stop) ends the wait early. None: the terminal is gone."""


class TerminalKeys:
    """Keys of a terminal that delivers each one as it is typed."""

    def __init__(self, fd: int):
        self.fd = fd

    def read(self, seconds: float) -> str | None:
        text, end = b"", time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if not select.select([self.fd], [], [], left)[0]:
                break
            try:
                data = os.read(self.fd, 1024)
            except OSError:
                return None
            if not data:
                return None
            text += data
            if b" " in data:
                break  # a stop does not wait
        return text.decode(errors="replace")


class ConsoleKeys:
    """Keys of the Windows console, whose functions are `kbhit` and `getwch` of msvcrt."""

    def __init__(self, kbhit: Callable[[], bool], getwch: Callable[[], str]):
        self.kbhit, self.getwch = kbhit, getwch

    def read(self, seconds: float) -> str | None:
        text, end = "", time.monotonic() + seconds
        while time.monotonic() < end and " " not in text:
            if self.kbhit():
                key = self.getwch()
                text += CONSOLE_ARROWS.get(self.getwch(), "") if key in CONSOLE_PREFIXES else key
            else:
                time.sleep(CONSOLE_POLL_S)
        return text


@contextlib.contextmanager
def open_keys() -> Iterator[Keys]:
    """Standard input, set to deliver each key as it is typed; its settings are restored afterwards."""
    if termios is None:
        import msvcrt

        yield ConsoleKeys(msvcrt.kbhit, msvcrt.getwch)
        return
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    tty.setcbreak(fd)  # Ctrl-C stays a signal
    settings = termios.tcgetattr(fd)
    settings[0] &= ~termios.IXON  # Ctrl-S must not hold the page, and with it the heartbeat
    termios.tcsetattr(fd, termios.TCSANOW, settings)
    try:
        yield TerminalKeys(fd)
    finally:
        with contextlib.suppress(termios.error):  # the terminal is gone
            termios.tcsetattr(fd, termios.TCSANOW, before)
