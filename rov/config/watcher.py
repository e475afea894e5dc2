"""The saved configuration while the daemon runs: read again when it changes, checked, and said on the bus when good.

Runs in the supervisor, so that nothing is read or parsed in a control loop. Also keeps the file that processes start
from: what holds now, whatever has become of the one that is edited.
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
"""How often the file is looked at. It is read once it looks the same twice: editors write in several steps."""
REPEAT_NS = 1_000_000_000
"""What is saved is said anew at 1 Hz, for a `pilotd` that has just started."""
SAID_PROBLEMS, SAID_CHARACTERS = 5, 200
"""What an event says of a bad edit: so many problems, each of this length at most. `rov config check` says all."""

Signature = tuple[int, int, int] | None
"""Time of the last change, size and inode; None: it is not there."""


Load = Callable[[Path], Config]
"""Reads a configuration and checks all that a daemon would trip over. Raises ConfigError."""


class ConfigWatcher:
    """`rover.toml`, as long as the daemon runs."""

    def __init__(self, path: Path, config: Config, root: Path, load: Load):
        """`config` is what `load` read from `path`, as it will each edit. What processes start from goes into the
        directory `root`. Raises UserError when it cannot be kept there."""
        self.path, self.running_path, self.load = path, root / "rover.toml", load
        self.config = config
        """The last good one that was saved."""
        self.running = config
        """What the processes hold: live keys as tuned, all others as at the start."""
        self.overruled: set[str] = set()
        """Keys that hold what an operator has set, after the file was last changed in them."""
        self.seen = self.read = _signature(path)
        self.polled_t = 0
        self.published_t: int | None = None
        self.kept: Config | None = None
        """What processes start from, as it could be written; another than `running`: it is tried again."""
        self.refused = False
        """Whether it was said that it could not be."""
        if why := self._write_running():
            raise UserError(f"{self.running_path}: what processes start from cannot be kept there: {why}")

    def poll(self, now: int, *, asked: bool = False) -> Iterator[Message]:
        """What there is to say at `now` (monotonic ns). `asked`: read it now, whether it has changed or not."""
        if asked or now - self.polled_t >= POLL_NS:
            self.polled_t, before, self.seen = now, self.seen, _signature(self.path)
            if asked or (self.seen == before != self.read):
                self.read, self.published_t = self.seen, None
                yield from self._read(now)
        if self.published_t is None or now - self.published_t >= REPEAT_NS:
            self.published_t = now
            yield ConfigEdit(t=now, settings=live.settings(self.config), overruled=tuple(sorted(self.overruled)))
            yield from self._try_to_keep(now)

    def keep_active(self, settings: tuple[Setting, ...]) -> None:
        """Take note of what `pilotd` says that holds."""
        if changed := live.differences(live.values(self.running), live.values_of(settings)):
            saved = live.values(self.config)
            self.overruled -= changed.keys()
            self.overruled |= {key for key in live.COMMANDED if key in changed and changed[key] != saved[key]}
            self.running = live.with_values(self.running, changed)
            self._write_running()  # when that is refused, `update` says so and tries again

    def _read(self, now: int) -> Iterator[Event]:
        """Take a good edit; say what is wrong with a bad one, all of it."""
        try:
            config = self.load(self.path)
        except (UserError, OSError, ValueError, ArithmeticError, RecursionError, MemoryError) as error:
            # Whatever a file can do to a reader: it is a bad edit, and the vehicle goes on.
            wrong = error.problems if isinstance(error, ConfigError) else [f"{self.path}: {error!r}"]
            text = f"the old values go on: {_few(wrong)}"
            yield Event(t=now, level="warning", source="supervisor", code="edit_refused", text=text)
            return
        fixed, wanted = live.values(self.running, live=False), live.values(config, live=False)
        before = live.values(self.config, live=False)
        for key, new in live.differences(before, wanted).items():
            text = f"{key} is {_cut(fixed[key])} and becomes {_cut(new)} when rov is started again"
            if new == fixed[key]:
                text = f"{key} is {_cut(new)}, as it is saved again"
            yield Event(t=now, level="info", source="supervisor", code="needs_restart", text=text)
        if config == self.config:
            text = f"{self.path} says what it said before"
            yield Event(t=now, level="info", source="supervisor", code="unchanged", text=text)
        self.overruled -= live.differences(live.values(self.config), live.values(config)).keys()
        self.config = config

    def _try_to_keep(self, now: int) -> Iterator[Event]:
        """Write what processes start from, where that was refused before; say so once, and when it is written."""
        why = "" if self.kept is self.running else self._write_running()
        if why and not self.refused:
            self.refused = True
            text = f"{self.running_path}: a process that starts again starts from older values: {why}"
            yield Event(t=now, level="warning", source="supervisor", code="not_kept", text=text)
        elif self.refused and not why:
            self.refused = False
            text = "a process that starts again starts from what holds"
            yield Event(t=now, level="info", source="supervisor", code="not_kept_over", text=text)

    def _write_running(self) -> str:
        """Write what processes start from; returns why that was refused, or nothing."""
        new = self.running_path.with_suffix(".new")
        try:
            new.write_text(tomli_w.dumps(self.running.model_dump()))
            os.replace(new, self.running_path)
        except OSError as error:
            return error.strerror or str(error)
        self.kept = self.running
        return ""


def _few(problems: list[str]) -> str:
    """As many of them as fit into an event."""
    more = len(problems) - SAID_PROBLEMS
    return "; ".join(map(_cut, problems[:SAID_PROBLEMS])) + (
        f"; and {more} more: `rov config check` says all" if more > 0 else ""
    )


def _cut(value: object) -> str:
    text = hide_passwords(str(value))
    return text if len(text) <= SAID_CHARACTERS else f"{text[:SAID_CHARACTERS]}…"


def _signature(path: Path) -> Signature:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
