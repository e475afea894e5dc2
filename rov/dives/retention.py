"""Keeps disk space free and dives whole: which dives to delete, which to repair, when to stop recording."""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import stat
import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from rov.concurrency import lower_priority
from rov.config.schema import RecordingConfig
from rov.dives.durable_writer import DiveError, in_use, locked, sync_folder
from rov.dives.recovery import mark_file, recover
from rov.dives.salvage import SalvageReader
from rov.errors import UserError

NEAR = 1.03
"""Deletion is announced when less than this many times the free-space reserve is free."""
RESUME = 0.01
"""Recording resumes when this share of the disk more is free than when it stopped."""
KEEP_MOST = 0.5
"""Upper limit on the free-space reserve, as a share of the disk, so that small cards can still hold dives."""
NICE = 15
"""Nice value of the repair thread: everything else goes first."""


class DiskUsage(NamedTuple):
    """Bytes of a disk."""

    total: int
    used: int
    free: int


class Notice(NamedTuple):
    """Level, code and text of an event to publish."""

    level: str
    code: str
    text: str

    @classmethod
    def of(cls, level: str, code: str, text: str) -> Notice:
        """A notice whose text can be encoded: a file name need not be valid UTF-8."""
        return cls(level, code, text.encode(errors="backslashreplace").decode())


class DiskRetention:
    """Watches the folder of dives and its disk. Call `poll` about once a second."""

    def __init__(self, folder: Path, wanted: RecordingConfig):
        self.folder = folder
        self.wanted = wanted
        self.room = True
        """Whether there is room to record."""
        self.warned = self.helpless = False
        """Whether these were reported: the disk fills up; deleting dives would not help."""
        self.stuck: set[Path] = set()
        """Dives that could not be deleted."""

    def poll(self, current: Path | None) -> Iterator[Notice]:
        """Check the disk, delete dives if needed, and yield what changed. `current` is the dive being recorded. Raises
        DiveError when the folder cannot be used."""
        usage = self._usage()
        keep = min(max(self.wanted.keep_gb * 1e9, self.wanted.keep_share * usage.total), KEEP_MOST * usage.total)
        used, near = 1 - usage.free / usage.total, usage.free < NEAR * keep
        filling = used > self.wanted.disk_warn or near
        if filling and not self.warned:
            yield Notice("warning", "disk_filling", f"{used:.0%} of the disk is used{self._prospect(keep, current)}")
        self.warned = filling
        if usage.free < keep:
            yield from self._make_room(usage.free, keep, current)
            usage = self._usage()
        self.helpless &= usage.free < keep
        least = self.wanted.disk_free + (0.0 if self.room else RESUME)
        if (usage.free / usage.total >= least) != self.room:
            self.room = not self.room
            if self.room:
                yield Notice("info", "disk_full_over", "recording again: there is room on the disk")
            else:
                text = f"not recording: less than {self.wanted.disk_free:.0%} of the disk is free"
                yield Notice("alarm", "disk_full", text)

    def _make_room(self, free: int, keep: float, current: Path | None) -> Iterator[Notice]:
        """Delete the oldest dives until `keep` bytes are free; none if even all of them would not suffice."""
        if not self.helpless or free + sum(map(size_of, entries(self.folder))) >= keep:  # else skip the costly search
            dives = [path for path in deletable(self.folder, current) if path not in self.stuck]
            while dives and free < keep <= free + sum(map(size_of, dives)):
                path = dives.pop(0)
                size = size_of(path)
                if mark_file(path).exists():
                    continue  # marked since the list was made
                try:
                    path.unlink()
                except OSError as error:
                    self.stuck.add(path)
                    yield Notice.of("warning", "dive_kept", f"{path.name} cannot be deleted: {error.strerror}")
                    continue
                text = f"{path.name} was deleted to make room ({size / 1e6:.1f} MB)"
                yield Notice.of("warning", "dive_deleted", f"{text}; {len(dives)} more that may go are left")
                free = self._usage().free
        if free < keep and not self.helpless:
            self.helpless = True
            text = f"{free / 1e9:.1f} GB are free, {keep / 1e9:.1f} GB should be: deleting dives would not reach that"
            yield Notice("warning", "disk_of_others", f"{text}, others fill the disk; none is deleted for it")

    def _prospect(self, keep: float, current: Path | None) -> str:
        """Which dives will be deleted, as the end of a sentence."""
        if not keep:
            return ""
        dives = deletable(self.folder, current)
        size = sum(map(size_of, dives))
        can = f"{len(dives)} may go ({size / 1e6:.1f} MB)" if dives else "there is none that may go"
        return f"; below {keep / 1e9:.1f} GB free the oldest unmarked dives are deleted: {can}"

    def _usage(self) -> DiskUsage:
        try:
            return DiskUsage(*shutil.disk_usage(self.folder))
        except OSError as error:
            raise DiveError(f"{self.folder}: dives cannot be recorded there: {error.strerror}") from None


def ready(folder: Path) -> None:
    """Create the folder of dives if needed. Raises UserError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = "is a file, not a folder" if folder.is_file() else f"cannot be made a folder: {error.strerror}"
        raise UserError(f"recording.folder = {folder}: {why}; trying again") from None


def entries(folder: Path) -> list[Path]:
    """Everything named `*.mcap`, whatever it is; empty where the folder cannot be read."""
    try:
        with os.scandir(folder) as found:
            return sorted(folder / each.name for each in found if each.name.endswith(".mcap"))
    except OSError:
        return []


def size_of(path: Path) -> int:
    """Size in bytes; 0 where it cannot be read."""
    try:
        return path.lstat().st_size
    except OSError:
        return 0


def deletable(folder: Path, current: Path | None) -> list[Path]:
    """Finished dives, neither marked nor being written, oldest first. Files that are no MCAP, cannot be read, or would
    free nothing (symbolic links, files with other hard links) are never deleted."""
    found = []
    for path in entries(folder):
        try:
            status = path.lstat()
            if path == current or not stat.S_ISREG(status.st_mode) or status.st_nlink > 1 or mark_file(path).exists():
                continue
            file = SalvageReader(path, index_only=True)
            if file.finished and not file.locked:
                found.append((status.st_mtime, path))
            file.close()
        except (DiveError, OSError):
            continue
    return [path for _, path in sorted(found)]


def free_name(folder: Path) -> Path:
    """A free name for a dive that begins now, by the wall clock (set back, it would give a name already used)."""
    stem = f"{datetime.now():%Y-%m-%d_%H-%M-%S}"
    number = 1
    while os.path.lexists(path := folder / f"{stem}{f'-{number}' if number > 1 else ''}.mcap"):
        number += 1
    return path


class RepairThread(threading.Thread):
    """Repairs the dives that a power cut ended, in the background; `notices` holds the events to publish. Files that
    are no dives or cannot be read are left alone and reported."""

    def __init__(self, folder: Path, disk_free: float):
        super().__init__(name="repairs", daemon=True)
        self.folder = folder
        self.disk_free = disk_free
        self.notices: queue.SimpleQueue[Notice] = queue.SimpleQueue()
        self.found = entries(folder)
        """The dives that were there before this recording began."""

    def run(self) -> None:
        lower_priority(NICE)
        for path in self.folder.glob("*.mcap*.part"):  # left by a repair that was itself cut off
            with contextlib.suppress(OSError):
                if not in_use(path):
                    path.unlink()
        for path in self.found:
            try:
                if notice := self._repair(path):
                    self.notices.put(notice)
            except (DiveError, OSError) as error:
                why = str(error).removeprefix(f"{path}: ")
                self.notices.put(Notice.of("warning", "dive_skipped", f"{path.name} was left alone: {why}"))

    def _repair(self, path: Path) -> Notice | None:
        """Repair a dive if it needs it, and report the outcome; None otherwise. Raises DiveError or OSError."""
        if not _cut_off(path):
            return None
        if path.is_symlink():
            raise DiveError("a link to a dive that was cut off; run `rov dive recover` on that")
        size = path.stat().st_size
        if size == 0:
            path.unlink()
            sync_folder(self.folder)
            return Notice.of("info", "dive_deleted", f"{path.name} was empty: cut off before its first half second")
        usage = shutil.disk_usage(self.folder)
        if usage.free - size < self.disk_free * usage.total:
            return Notice.of("warning", "dive_cut_off", f"{path.name} was cut off; there is no room to repair it")
        try:
            report = recover(path)
        except DiveError as error:
            return Notice.of("warning", "dive_cut_off", f"{path.name} was cut off and cannot be repaired: {error}")
        kept = sum(topic.count for topic in report.topics.values())
        return Notice.of("info", "dive_recovered", f"{path.name} was cut off: {kept} messages kept")


def _cut_off(path: Path) -> bool:
    """Whether a dive is unfinished and not being written. Reads only its end, because the folder may be full of dives.
    Raises DiveError or OSError."""
    if stat.S_ISREG((status := path.lstat()).st_mode) and status.st_size == 0:
        return not _locked(path)
    file = SalvageReader(path, index_only=True)
    try:
        return not file.finished and not file.locked
    finally:
        file.close()


def _locked(path: Path) -> bool:
    """Whether a process has this file locked for writing."""
    with path.open("rb") as file:
        return locked(file)
