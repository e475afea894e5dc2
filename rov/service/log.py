"""Log lines: time, level, source and code of everything that a process prints. Writing them never blocks it.

    12:03:04 alarm pilot depth_lost: depth is unknown or old

In systemd's journal, which adds the time, a line begins with its priority instead, as `<1>` (sd-daemon(3)): so
`journalctl -u rov -p warning` works. `rov.event_codes` explains the codes; the code of a line for debugging is the name
of the function that logged it.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from types import TracebackType

from rov.service.stderr_writer import STDERR, StderrWriter

ALARM = 45
LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "alarm": ALARM,
}
"""Python's number of each level. An `error` is about a process itself, an `alarm` for the operator."""
PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, ALARM: 1}
"""The journal's priorities: debug, info, warning, err, alert."""
DEBUG_VARIABLE = "ROV_DEBUG"
"""Environment variable that `--debug` sets, so that the processes started by this one inherit it."""

log = logging.getLogger("rov")


class LineFormatter(logging.Formatter):
    """Turns a record into lines of text, each of which stands for itself: a traceback's lines, too."""

    def __init__(self, source: str, *, journal: bool):
        """`source`: the process, for records that do not name one. `journal`: with priorities, without time."""
        super().__init__()
        self.source, self.journal = source, journal

    def lines(self, record: logging.LogRecord) -> Iterator[str]:
        level = max((each for each in PRIORITIES if each <= record.levelno), default=logging.DEBUG)
        source = getattr(record, "source", self.source)
        code = getattr(record, "code", (record.funcName or "").strip("<>"))
        text = record.getMessage()
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        for line in text.splitlines() or [""]:
            yield self.line(level, source, code, line, record.created)

    def line(self, level: int, source: str, code: str, text: str, t: float) -> str:
        """One line; `t`: the wall clock's time, s since 1970."""
        name = next(name for name, number in LEVELS.items() if number == level)
        clock = time.strftime("%H:%M:%S ", time.localtime(t))
        return f"{f'<{PRIORITIES[level]}>' if self.journal else clock}{name} {source} {code}: {text}"

    def lost_line(self, count: int) -> str:
        text = f"{count} lines were not printed: nobody read them"
        return self.line(logging.WARNING, self.source, "lines_lost", text, time.time())


class LineHandler(logging.Handler):
    """Gives the lines to a writer that never blocks."""

    def __init__(self, writer: StderrWriter, formatter: LineFormatter):
        super().__init__()
        self.writer, self.line_formatter = writer, formatter

    def emit(self, record: logging.LogRecord) -> None:
        for line in self.line_formatter.lines(record):
            self.writer.write_line(line)


def set_up(source: str) -> StderrWriter:
    """Send the log of this process to standard error, and its uncaught exceptions to the log. `source`: the name
    of the process. Returns the writer, which is closed at exit at the latest."""
    formatter = LineFormatter(source, journal=in_journal())
    writer = StderrWriter(lost_line=formatter.lost_line)
    logging.basicConfig(handlers=[LineHandler(writer, formatter)], level=logging.WARNING, force=True)
    log.setLevel(logging.DEBUG if debugging() else logging.INFO)
    logging.captureWarnings(True)
    sys.excepthook = _report_crash
    threading.excepthook = lambda args: _report_crash(
        args.exc_type, args.exc_value or args.exc_type(), args.exc_traceback
    )
    atexit.register(writer.close)
    return writer


def enable_debug() -> None:
    """Log what is meant for debugging, too: here, after `set_up`, and in the processes started from here."""
    os.environ[DEBUG_VARIABLE] = "1"


def debugging() -> bool:
    return bool(os.environ.get(DEBUG_VARIABLE))


def report(level: str, source: str, code: str, text: str) -> None:
    """Log a line with a code of `rov.event_codes`."""
    log.log(LEVELS[level], "%s", text, extra={"source": source, "code": code})


def journal_priority(level: str) -> str:
    """What begins a line of this level in the journal; elsewhere empty."""
    return f"<{PRIORITIES[LEVELS[level]]}>" if in_journal() else ""


def in_journal(fd: int = STDERR) -> bool:
    """Does systemd's journal read this descriptor? It names its socket in $JOURNAL_STREAM (systemd.exec(5))."""
    try:
        status = os.fstat(fd)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _report_crash(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Log an uncaught exception with its traceback; Ctrl-C is none."""
    if not issubclass(kind, KeyboardInterrupt):
        log.error("%s: %s", kind.__name__, error, exc_info=(kind, error, trace), extra={"code": "crashed"})
