"""Watches the saved configuration while the daemon runs: reads it when it changes, checks it, publishes a good one.

It runs in the supervisor, so that no control loop reads or parses a file. It also writes the file that processes start
with: the values in force now, whatever somebody has done to the edited file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import tomli_w

from rov.config import live
from rov.config.schema import Config, ConfigError
from rov.errors import UserError
from rov.messages import ConfigEdit, Event, Message, Setting
from rov.printing import hide_passwords

POLL_NS = 200_000_000
"""How often the file is checked. It is read when two checks agree: editors write in several steps."""
REPEAT_NS = 1_000_000_000
"""The saved values are published again at 1 Hz, for a `pilotd` that has just started."""
SHOWN_PROBLEMS, SHOWN_CHARACTERS = 5, 200
"""Problems in the event of a bad edit, and characters of each. `rov config check` shows all."""

Signature = tuple[int, int, int] | None
"""Time of the last change, size and inode; None: there is no such file."""


Load = Callable[[Path], Config]
"""Reads a configuration and checks everything the daemon needs. Raises ConfigError."""


class ConfigWatcher:
    """Follows `rover.toml` as long as the daemon runs."""

    def __init__(self, path: Path, config: Config, root: Path, load: Load):
        """`config` is what `load` read from `path`; it will read each edit. The file that processes start with goes
        into the directory `root`. Raises UserError when it cannot be written."""
        self.path, self.running_path, self.load = path, root / "rover.toml", load
        self.config = config
        """The last good configuration that was saved."""
        self.running = config
        """The configuration in force: live keys as they are now, all others as at the start."""
        self.overruled: set[str] = set()
        """Keys that an operator set after the file last changed them."""
        self.seen = self.read = _signature(path)
        self.polled_t = 0
        self.published_t: int | None = None
        self.written: Config | None = None
        """The last `running` that could be written; while they differ, writing is tried again."""
        self.refused = False
        """Whether we reported that it could not be written."""
        if why := self._write_running():
            raise UserError(
                f"{self.running_path}: the configuration that processes start with cannot be written: {why}"
            )

    def poll(self, now: int, *, asked: bool = False) -> Iterator[Message]:
        """The messages to publish at `now` (monotonic ns). `asked`: read the file now, changed or not."""
        if asked or now - self.polled_t >= POLL_NS:
            self.polled_t, before, self.seen = now, self.seen, _signature(self.path)
            if asked or (self.seen == before != self.read):
                self.read, self.published_t = self.seen, None
                yield from self._read(now)
        if self.published_t is None or now - self.published_t >= REPEAT_NS:
            self.published_t = now
            yield ConfigEdit(t=now, settings=live.settings(self.config), overruled=tuple(sorted(self.overruled)))
            yield from self._retry_writing(now)

    def keep_active(self, settings: tuple[Setting, ...]) -> None:
        """Note the settings in force, which `pilotd` published."""
        if changed := live.differences(live.values(self.running), live.values_of(settings)):
            saved = live.values(self.config)
            self.overruled -= changed.keys()
            self.overruled |= {key for key in live.COMMANDED if key in changed and changed[key] != saved[key]}
            self.running = live.with_values(self.running, changed)
            self._write_running()  # if this fails, `poll` reports it and tries again

    def _read(self, now: int) -> Iterator[Event]:
        """Read the file: accept a good edit, report all problems of a bad one."""
        try:
            config = self.load(self.path)
        except (UserError, OSError, ValueError, ArithmeticError, RecursionError, MemoryError) as error:
            # Whatever reading the file raises: it is a bad edit, and the vehicle goes on.
            wrong = error.problems if isinstance(error, ConfigError) else [f"{self.path}: {error!r}"]
            text = f"the old values go on: {_few(wrong)}"
            yield Event(t=now, level="warning", source="supervisor", code="edit_refused", text=text)
            return
        fixed, wanted = live.values(self.running, live=False), live.values(config, live=False)
        before = live.values(self.config, live=False)
        for key, new in live.differences(before, wanted).items():
            text = f"{key} is {_cut(fixed[key])} and becomes {_cut(new)} when rov is started again"
            if new == fixed[key]:
                text = f"{key} is {_cut(new)}, and is now saved as that again"
            yield Event(t=now, level="info", source="supervisor", code="needs_restart", text=text)
        if config == self.config:
            text = f"{self.path} holds the same values as before"
            yield Event(t=now, level="info", source="supervisor", code="unchanged", text=text)
        self.overruled -= live.differences(live.values(self.config), live.values(config)).keys()
        self.config = config

    def _retry_writing(self, now: int) -> Iterator[Event]:
        """Write the running configuration if that failed before; report the failure once, and its end."""
        why = "" if self.written is self.running else self._write_running()
        if why and not self.refused:
            self.refused = True
            text = f"{self.running_path}: a process that starts again starts with older values: {why}"
            yield Event(t=now, level="warning", source="supervisor", code="not_kept", text=text)
        elif self.refused and not why:
            self.refused = False
            text = "a process that starts again starts with the values in force"
            yield Event(t=now, level="info", source="supervisor", code="not_kept_over", text=text)

    def _write_running(self) -> str:
        """Write the file that processes start with; returns why that failed, or an empty text."""
        new = self.running_path.with_suffix(".new")
        try:
            new.write_text(tomli_w.dumps(self.running.model_dump()))
            os.replace(new, self.running_path)
        except OSError as error:
            return error.strerror or str(error)
        self.written = self.running
        return ""


def _few(problems: list[str]) -> str:
    """The first problems, as many as an event shows."""
    more = len(problems) - SHOWN_PROBLEMS
    return "; ".join(map(_cut, problems[:SHOWN_PROBLEMS])) + (
        f"; and {more} more: `rov config check` shows all" if more > 0 else ""
    )


def _cut(value: object) -> str:
    text = hide_passwords(str(value))
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"


def _signature(path: Path) -> Signature:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
