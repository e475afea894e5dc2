"""Room on the disk: what goes, what stays, what is repaired. Real files; only the size of the disk is made up."""

import os
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from rov.config import Config, Recording
from rov.dives.dive import DiveWriter
from rov.dives.keeper import Keeper, Repairs, deletable
from rov.dives.recovery import info, mark
from rov.messages import Health
from rov.recorderd import Recording as Recorder


class Usage(NamedTuple):
    total: int
    used: int
    free: int


class Disk:
    """A disk of `total` bytes; what dives take of it, `taken` beside them."""

    def __init__(self, folder: Path, total: int, taken: int = 0):
        self.folder, self.total, self.taken = folder, total, taken

    def usage(self, _: Path) -> Usage:
        used = self.taken + sum(path.stat().st_size for path in self.folder.glob("*.mcap"))
        return Usage(self.total, used, self.total - used)


def make_dive(path: Path, age: int, *, finished: bool = True) -> DiveWriter:
    writer = DiveWriter(path, {})
    for i in range(200):
        writer.write("health", Health(t=i, process=f"{os.urandom(100).hex()}", rate_hz=1.0))
    if finished:
        writer.close()
        os.utime(path, (10_000 - age, 10_000 - age))
    return writer


def test_the_oldest_go_and_the_marked_and_the_unfinished_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for age in (1, 2, 3, 4):
        make_dive(tmp_path / f"{age}.mcap", age)
    mark(tmp_path / "4.mcap")
    writing = make_dive(tmp_path / "now.mcap", 9, finished=False)
    (tmp_path / "foreign.mcap").write_bytes(b"not a dive")
    assert [path.name for path in deletable(tmp_path, None)] == ["3.mcap", "2.mcap", "1.mcap"]

    size = (tmp_path / "3.mcap").stat().st_size
    disk = Disk(tmp_path, total=100 * size)
    disk.taken = disk.usage(tmp_path).free - 9 * size  # 9 % are free, 10 % are to be kept: one must go
    monkeypatch.setattr(shutil, "disk_usage", disk.usage)
    look = Keeper(tmp_path, Recording(keep_gb=0.0, keep_share=0.10, disk_warn=0.95))
    assert [news.code for news in look.look(tmp_path / "now.mcap")] == ["dive_deleted"]
    assert sorted(path.name for path in tmp_path.glob("*.mcap")) == [
        "1.mcap",
        "2.mcap",
        "4.mcap",
        "foreign.mcap",
        "now.mcap",
    ]
    disk.taken += 50 * size  # nothing helps: all that may go goes, and no more
    codes = [news.code for news in look.look(tmp_path / "now.mcap")]
    assert codes == ["dive_deleted", "dive_deleted", "disk_filling", "disk_full"]
    assert sorted(path.name for path in tmp_path.glob("*.mcap")) == ["4.mcap", "foreign.mcap", "now.mcap"]
    writing.close()


def test_recording_stops_and_begins_again_a_little_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(tmp_path, total=1000)
    monkeypatch.setattr(shutil, "disk_usage", disk.usage)
    look = Keeper(tmp_path, Recording(keep_gb=0.0, keep_share=0.0))
    said = []
    for taken in (500, 850, 851, 929, 930, 931, 925, 920, 919, 800, 860):
        disk.taken = taken
        said.append(([news.code for news in look.look(None)], look.room))
    assert said == [
        ([], True),
        ([], True),
        (["disk_filling"], True),  # 85 % are used
        ([], True),
        ([], True),  # 7 % are free
        (["disk_full"], False),
        ([], False),
        (["disk_full_over"], True),  # 8 %
        ([], True),
        ([], True),
        (["disk_filling"], True),
    ]


def test_a_small_card_keeps_at_most_half_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_dive(tmp_path / "a.mcap", 1)
    monkeypatch.setattr(shutil, "disk_usage", Disk(tmp_path, total=4_000_000_000, taken=1_900_000_000).usage)
    assert not list(Keeper(tmp_path, Recording(keep_gb=5.0)).look(None)) and (tmp_path / "a.mcap").exists()


def test_what_was_cut_off_is_repaired(tmp_path: Path) -> None:
    make_dive(tmp_path / "whole.mcap", 1)
    writer = make_dive(tmp_path / "cut.mcap", 1, finished=False)
    writer._file.flush()
    shutil.copy(tmp_path / "cut.mcap", tmp_path / "copy.mcap")  # as `kill -9` leaves it
    (tmp_path / "empty.mcap").touch()
    (tmp_path / "x.mcap.part").touch()
    repairs = Repairs(tmp_path, disk_free=0.0)
    repairs.run()
    news = [repairs.news.get() for _ in range(2)]
    assert [each.code for each in news] == ["dive_recovered", "dive_deleted"] and "200 messages" in news[0].text
    assert repairs.news.empty(), "the one that is being recorded is left alone"
    assert info(tmp_path / "copy.mcap").complete and not (tmp_path / "x.mcap.part").exists()
    writer.close()


def test_a_long_dive_goes_on_in_another_file(tmp_path: Path, config: Config) -> None:
    recorder = Recorder(tmp_path, config.model_copy(update={"recording": Recording(part_gb=1e-4)}))  # 100 kB
    names = []
    for i in range(3000):
        if recorder.dive is None or recorder.over:
            recorder.close()
            recorder.open()
            names.append(recorder.path)
        recorder.write("health", Health(t=i, process=os.urandom(100).hex(), rate_hz=1.0))
    recorder.close()
    assert len(names) >= 3
    counts = [info(path).topics["health"].count for path in names if path]
    assert sum(counts) == 3000
    assert [info(path).metadata.get("continues") for path in names if path] == [
        None,
        *(path.name for path in names[:-1] if path),
    ]
