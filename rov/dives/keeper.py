"""Room on the disk, and whole dives in it: what to delete, what to repair, when to stop recording."""

from __future__ import annotations

import os
import queue
import shutil
import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from rov.config import Recording
from rov.dives.durable import DiveError, in_use, sync_folder
from rov.dives.intact import IntactReader
from rov.dives.recovery import mark_file, recover

RESUME = 0.01
"""Recording begins again with so much more of the disk free than it stopped at, as a share."""
KEEP_MOST = 0.5
"""What is kept free is at most this share: 5 GB of a 4 GB card would leave no dive alive."""
NICE = 15
"""Of the thread that repairs: everything else goes first."""


class News(NamedTuple):
    """Something to say: level, code and text of an event."""

    level: str
    code: str
    text: str


class Keeper:
    """The folder of dives. `look` about once a second."""

    def __init__(self, folder: Path, wanted: Recording):
        self.folder = folder
        self.wanted = wanted
        self.room = True
        """Whether there is room to record."""
        self.warned = False

    def look(self, current: Path | None) -> Iterator[News]:
        """Judge the disk and make room on it; says what changed. `current` is being recorded."""
        usage = shutil.disk_usage(self.folder)
        keep = min(max(self.wanted.keep_gb * 1e9, self.wanted.keep_share * usage.total), KEEP_MOST * usage.total)
        if usage.free < keep:
            for path in deletable(self.folder, current):
                size = path.stat().st_size
                path.unlink(missing_ok=True)
                yield News("info", "dive_deleted", f"{path.name} was deleted to make room ({size / 1e6:.0f} MB)")
                usage = shutil.disk_usage(self.folder)
                if usage.free >= keep:
                    break
        used = 1 - usage.free / usage.total
        if used > self.wanted.disk_warn and not self.warned:
            yield News("warning", "disk_filling", f"{used:.0%} of the disk is used")
        self.warned = used > self.wanted.disk_warn
        least = self.wanted.disk_free + (0.0 if self.room else RESUME)
        if (usage.free / usage.total >= least) != self.room:
            self.room = not self.room
            if self.room:
                yield News("info", "disk_full_over", "recording again: there is room on the disk")
            else:
                text = f"not recording: less than {self.wanted.disk_free:.0%} of the disk is free"
                yield News("alarm", "disk_full", text)


def deletable(folder: Path, current: Path | None) -> list[Path]:
    """Finished dives that may go, the oldest first: neither marked nor being written."""
    found = []
    for path in folder.glob("*.mcap"):
        if path == current or mark_file(path).exists():
            continue
        try:
            file = IntactReader(path, index_only=True)
        except DiveError:
            continue  # not known to be a dive of ours: not ours to delete
        if file.finished and not file.locked:
            found.append((path.stat().st_mtime, path))
        file.close()
    return [path for _, path in sorted(found)]


def free_name(folder: Path) -> Path:
    """A name for a dive that begins now, by the wall clock; that may have been set back, so the name may be there."""
    stem = f"{datetime.now():%Y-%m-%d_%H-%M-%S}"
    number = 1
    while (path := folder / f"{stem}{f'-{number}' if number > 1 else ''}.mcap").exists():
        number += 1
    return path


class Repairs(threading.Thread):
    """Repairs what was cut off by a power cut, behind the recording; `news` has what there is to say."""

    def __init__(self, folder: Path, disk_free: float):
        super().__init__(name="repairs", daemon=True)
        self.folder = folder
        self.disk_free = disk_free
        self.news: queue.SimpleQueue[News] = queue.SimpleQueue()
        self.cut_off = [path for path in sorted(folder.glob("*.mcap")) if _cut_off(path)]

    def run(self) -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        for path in self.folder.glob("*.mcap*.part"):  # a repair that was cut off itself
            if not in_use(path):
                path.unlink(missing_ok=True)
        for path in self.cut_off:
            self.news.put(self._repair(path))

    def _repair(self, path: Path) -> News:
        size = path.stat().st_size
        if size == 0:
            path.unlink()
            sync_folder(self.folder)
            return News("info", "dive_deleted", f"{path.name} was empty: cut off before its first half second")
        usage = shutil.disk_usage(self.folder)
        if usage.free - size < self.disk_free * usage.total:
            return News("warning", "dive_cut_off", f"{path.name} was cut off; there is no room to repair it")
        try:
            report = recover(path)
        except DiveError as error:
            return News("warning", "dive_cut_off", f"{path.name} was cut off and cannot be repaired: {error}")
        kept = sum(topic.count for topic in report.topics.values())
        return News("info", "dive_recovered", f"{path.name} was cut off: {kept} messages kept")


def _cut_off(path: Path) -> bool:
    """Was it never finished, and does nobody write it? Only its end is looked at: the folder may be full of dives."""
    if path.stat().st_size == 0:
        return True
    try:
        file = IntactReader(path, index_only=True)
    except DiveError:
        return False
    try:
        return not file.finished and not file.locked
    finally:
        file.close()
