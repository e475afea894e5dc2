"""Room on the disk, and whole dives in it: what to delete, what to repair, when to stop recording."""

from __future__ import annotations

import contextlib
import fcntl
import os
import queue
import shutil
import stat
import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from rov.config.schema import RecordingConfig
from rov.dives.durable_writer import DiveError, in_use, sync_folder
from rov.dives.recovery import mark_file, recover
from rov.dives.salvage import SalvageReader
from rov.errors import UserError

NEAR = 1.03
"""Deleting is announced when less than so many times what is kept free is free."""
RESUME = 0.01
"""Recording begins again with so much more of the disk free than it stopped at, as a share."""
KEEP_MOST = 0.5
"""What is kept free is at most this share: 5 GB of a 4 GB card would leave no dive alive."""
NICE = 15
"""Of the thread that repairs: everything else goes first."""


class DiskUsage(NamedTuple):
    """Of a disk, in bytes."""

    total: int
    used: int
    free: int


class Notice(NamedTuple):
    """Something to say: level, code and text of an event."""

    level: str
    code: str
    text: str

    @classmethod
    def of(cls, level: str, code: str, text: str) -> Notice:
        """The same with a text that can be sent: a file's name need not be one."""
        return cls(level, code, text.encode(errors="backslashreplace").decode())


class DiskRetention:
    """The folder of dives. `look` about once a second."""

    def __init__(self, folder: Path, wanted: RecordingConfig):
        self.folder = folder
        self.wanted = wanted
        self.room = True
        """Whether there is room to record."""
        self.warned = self.helpless = False
        """Whether it was said that the disk fills, and that deleting dives would not help."""
        self.stuck: set[Path] = set()
        """Dives that could not be deleted."""

    def poll(self, current: Path | None) -> Iterator[Notice]:
        """Judge the disk and make room on it; says what changed. `current` is being recorded. Raises DiveError when
        there is no such folder."""
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
        """Delete the oldest dives until `keep` bytes are free, if that can be reached at all; else none."""
        if not self.helpless or free + sum(map(size_of, entries(self.folder))) >= keep:  # or it is not worth a look
            dives = [path for path in deletable(self.folder, current) if path not in self.stuck]
            while dives and free < keep <= free + sum(map(size_of, dives)):
                path = dives.pop(0)
                size = size_of(path)
                if mark_file(path).exists():
                    continue  # a moment ago
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
        """What will be deleted, as the end of a sentence."""
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
    """Make the folder of dives, where it is not there. Raises UserError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = "is a file, not a folder" if folder.is_file() else f"cannot be made a folder: {error.strerror}"
        raise UserError(f"recording.folder = {folder}: {why}; trying again") from None


def entries(folder: Path) -> list[Path]:
    """What is named like a dive, whatever it is; nothing where that cannot be seen."""
    try:
        with os.scandir(folder) as found:
            return sorted(folder / each.name for each in found if each.name.endswith(".mcap"))
    except OSError:
        return []


def size_of(path: Path) -> int:
    """Bytes; 0 where that cannot be seen."""
    try:
        return path.lstat().st_size
    except OSError:
        return 0


def deletable(folder: Path, current: Path | None) -> list[Path]:
    """Finished dives that may go, the oldest first: neither marked nor being written. What is no dive of ours, cannot
    be read, or would free nothing (a link, or a file with other names) is not ours to delete."""
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
    """A name for a dive that begins now, by the wall clock; that may have been set back, so the name may be there."""
    stem = f"{datetime.now():%Y-%m-%d_%H-%M-%S}"
    number = 1
    while os.path.lexists(path := folder / f"{stem}{f'-{number}' if number > 1 else ''}.mcap"):
        number += 1
    return path


class RepairThread(threading.Thread):
    """Repairs what was cut off by a power cut, behind the recording; `news` has what there is to say. What is no dive,
    or cannot be read, is left alone, and said."""

    def __init__(self, folder: Path, disk_free: float):
        super().__init__(name="repairs", daemon=True)
        self.folder = folder
        self.disk_free = disk_free
        self.news: queue.SimpleQueue[Notice] = queue.SimpleQueue()
        self.found = entries(folder)
        """What was there before the recording began."""

    def run(self) -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        for path in self.folder.glob("*.mcap*.part"):  # a repair that was cut off itself
            with contextlib.suppress(OSError):
                if not in_use(path):
                    path.unlink()
        for path in self.found:
            try:
                if news := self._repair(path):
                    self.news.put(news)
            except (DiveError, OSError) as error:
                why = str(error).removeprefix(f"{path}: ")
                self.news.put(Notice.of("warning", "dive_skipped", f"{path.name} was left alone: {why}"))

    def _repair(self, path: Path) -> Notice | None:
        """What became of it; None where there is nothing to do. Raises DiveError or OSError."""
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
    """Was it never finished, and does nobody write it? Only its end is looked at: the folder may be full of dives.
    Raises DiveError or OSError."""
    if stat.S_ISREG((status := path.lstat()).st_mode) and status.st_size == 0:
        return not _locked(path)
    file = SalvageReader(path, index_only=True)
    try:
        return not file.finished and not file.locked
    finally:
        file.close()


def _locked(path: Path) -> bool:
    """Does somebody write this file?"""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
