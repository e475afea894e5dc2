"""Writes lines to standard error without ever blocking the caller: on a terminal that is stopped (Ctrl-S), or a pipe
that nobody reads, a write would wait for ever."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable

from rov.printing import printable

LINES_MAX = 1000
"""Lines that may wait. Further ones are lost; their number is printed when there is room again."""
LOST_LINE = "({} lines were lost: nobody read them)"
LAST_S = 0.5
"""How long closing waits for the remaining lines."""
STDERR = 2


class StderrWriter:
    """Writes lines from a thread of its own."""

    def __init__(self, fd: int = STDERR, lost_line: Callable[[int], str] = LOST_LINE.format) -> None:
        """`lost_line`: the line that says how many were lost."""
        self.fd, self.lost_line = fd, lost_line
        self.lines: queue.Queue[str | None] = queue.Queue(LINES_MAX)
        self.dropped = 0
        self.thread = threading.Thread(target=self._write, name="console", daemon=True)

    def write_line(self, line: str) -> None:
        """Queue a line. Never waits."""
        if self.thread.ident is None:  # with the first line: most processes have nothing to say
            self.thread.start()
        try:
            if self.dropped:
                self.lines.put_nowait(self.lost_line(self.dropped))
                self.dropped = 0
            self.lines.put_nowait(line)
        except queue.Full:
            self.dropped += 1

    def close(self) -> None:
        """Wait a little for the remaining lines."""
        if not self.thread.is_alive():
            return
        try:
            self.lines.put_nowait(None)
        except queue.Full:
            return
        self.thread.join(LAST_S)

    def _write(self) -> None:
        while (line := self.lines.get()) is not None:
            data = f"{printable(line)}\n".encode(errors="replace")
            while data:
                try:
                    data = data[os.write(self.fd, data) :]  # not print: its lock would delay the end of the process
                except OSError:  # the terminal is gone, or the pipe's reader
                    return
