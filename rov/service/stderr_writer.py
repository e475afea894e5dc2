"""Lines on standard error, for whoever started us: a terminal, a pipe, the journal. None of them may hold us up: one
that is stopped (Ctrl-S), or a pipe that nobody reads, takes no more, and writing to it would wait for ever."""

from __future__ import annotations

import os
import queue
import threading

from rov.printing import printable

LINES_MAX = 1000
"""That may wait. What finds no room is counted, and the count is said when there is room."""
LAST_S = 0.5
"""How long closing waits for what is still to be written."""
STDERR = 2


class StderrWriter:
    """Writes in a thread of its own."""

    def __init__(self, fd: int = STDERR) -> None:
        self.fd = fd
        self.lines: queue.Queue[str | None] = queue.Queue(LINES_MAX)
        self.dropped = 0
        self.thread = threading.Thread(target=self._write, name="console", daemon=True)
        self.thread.start()

    def write_line(self, line: str) -> None:
        """Never waits."""
        try:
            if self.dropped:
                self.lines.put_nowait(f"({self.dropped} lines were lost: nobody read them)")
                self.dropped = 0
            self.lines.put_nowait(line)
        except queue.Full:
            self.dropped += 1

    def close(self) -> None:
        """Waits a little for what is still to be written."""
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
                    data = data[os.write(self.fd, data) :]  # not print: its lock would hold up the end of the process
                except OSError:  # the terminal is gone, or the pipe's reader
                    return
