"""Room on the disk: what goes, what stays, what is repaired. Real files; only the size of the disk is made up."""

import os
import shutil
import socket
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rov.config.schema import Config, RecordingConfig
from rov.dives.dive import DiveWriter
from rov.dives.recovery import info, mark, mark_file
from rov.dives.retention import DiskRetention, RepairThread, deletable, entries, ready
from rov.dives.salvage import SalvageReader
from rov.errors import UserError
from rov.messages import Event, Health
from rov.recorderd import DiveRecording as Recorder


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
    look = DiskRetention(tmp_path, RecordingConfig(keep_gb=0.0, keep_share=0.10, disk_warn=0.95))
    news = list(look.poll(tmp_path / "now.mcap"))
    assert [each.code for each in news] == ["disk_filling", "dive_deleted"]
    assert "3 may go" in news[0].text and "MB" in news[0].text, "said before it is done, and how much"
    assert "3.mcap" in news[1].text and news[1].level == "warning"
    assert sorted(path.name for path in tmp_path.glob("*.mcap")) == [
        "1.mcap",
        "2.mcap",
        "4.mcap",
        "foreign.mcap",
        "now.mcap",
    ]
    disk.taken += 50 * size  # others fill the disk: nothing that may go would help
    codes = [news.code for news in look.poll(tmp_path / "now.mcap")]
    assert codes == ["disk_of_others", "disk_full"]
    assert list(look.poll(tmp_path / "now.mcap")) == [], "once"
    assert len(entries(tmp_path)) == 5
    disk.taken -= 50 * size - int(1.5 * size)  # two of the two would do now
    assert [each.code for each in look.poll(tmp_path / "now.mcap")] == ["dive_deleted"] * 2 + ["disk_full_over"]
    assert [path.name for path in entries(tmp_path)] == ["4.mcap", "foreign.mcap", "now.mcap"]
    writing.close()


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(1, 40), st.booleans()), max_size=8), st.integers(0, 100), st.integers(1, 50))
def test_it_deletes_the_oldest_as_many_as_needed_or_none(sizes: list[tuple[int, bool]], others: int, keep: int) -> None:
    """A disk of 200; dives of these sizes, some marked; so much of others, and so much to be kept free."""
    with tempfile.TemporaryDirectory() as home, pytest.MonkeyPatch.context() as patch:
        folder, unit = Path(home), 1000
        for age, (size, marked) in enumerate(reversed(sizes)):
            path = folder / f"{age}.mcap"
            path.write_bytes(bytes(size * unit))
            os.utime(path, (10_000 - age, 10_000 - age))
            if marked:
                mark(path)
        disk = Disk(folder, 200 * unit, others * unit)
        patch.setattr(shutil, "disk_usage", disk.usage)
        oldest = [folder / f"{age}.mcap" for age in range(len(sizes) - 1, -1, -1)]
        free = disk.usage(folder).free
        may = [path for path in oldest if not mark_file(path).exists()]
        patch.setattr(
            "rov.dives.retention.deletable", lambda *_: [path for path in may if path.exists()]
        )  # what a dive is has tests of its own
        wanted = RecordingConfig(keep_gb=keep * unit / 1e9, keep_share=0.0)
        news = list(DiskRetention(folder, wanted).poll(None))
        gone = [path for path in oldest if not path.exists()]
        reachable = (
            free
            + sum(path.stat().st_size for path in may if path.exists())
            + sum((sizes[len(sizes) - 1 - int(path.stem)][0]) * unit for path in gone)
        )
        assert gone == may[: len(gone)], "the oldest first, and none that is marked"
        if gone:
            assert reachable >= keep * unit > free and disk.usage(folder).free >= keep * unit
            last = sizes[len(sizes) - 1 - int(gone[-1].stem)][0] * unit
            assert disk.usage(folder).free - last < keep * unit, "and no more than needed"
            codes = [each.code for each in news]
            assert codes[0] == "disk_filling" and codes.count("dive_deleted") == len(gone)
        else:
            assert free >= keep * unit or reachable < keep * unit


def test_a_disk_that_others_filled_costs_no_dive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for age in (1, 2, 3):
        make_dive(tmp_path / f"{age}.mcap", age)
    gb = 1_000_000_000
    monkeypatch.setattr(shutil, "disk_usage", Disk(tmp_path, 256 * gb, 236 * gb).usage)
    news = list(DiskRetention(tmp_path, RecordingConfig()).poll(None))
    assert [each.code for each in news] == ["disk_filling", "disk_of_others"] and len(entries(tmp_path)) == 3
    assert all(each.level == "warning" for each in news) and "3 may go" in news[0].text


def test_what_would_free_nothing_or_cannot_be_deleted_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "dives"
    folder.mkdir()
    for age in (1, 2, 3):
        make_dive(folder / f"{age}.mcap", age)
    os.link(folder / "3.mcap", tmp_path / "copy")
    make_dive(tmp_path / "elsewhere", 4)
    (folder / "4.mcap").symlink_to(tmp_path / "elsewhere")
    assert [path.name for path in deletable(folder, None)] == ["2.mcap", "1.mcap"]
    size = (folder / "1.mcap").stat().st_size
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(100 * size, 61 * size, 39 * size))
    monkeypatch.setattr(Path, "unlink", refuse)
    look = DiskRetention(folder, RecordingConfig(keep_gb=39.5 * size / 1e9, keep_share=0.0))
    codes = [news.code for news in [*look.poll(None), *look.poll(None)]]
    assert codes == ["disk_filling", "dive_kept", "dive_kept", "disk_of_others"], "said once, and no more tried"


def refuse(*_: object, **__: object) -> None:
    raise PermissionError(13, "Permission denied")


# ---- what else may lie there -----------------------------------------------------------------------------------


def put(kind: str, path: Path) -> None:
    """Something in the folder of dives that is no dive that can be read."""
    match kind:
        case "dangling link":
            path.symlink_to(path.with_name("nowhere"))
        case "link to itself":
            path.symlink_to(path)
        case "directory":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "socket":
            with socket.socket(socket.AF_UNIX) as end:
                end.bind(str(path))
        case "device":
            path.symlink_to("/dev/zero")
        case "no dive":
            path.write_bytes(os.urandom(500))
        case "short":
            path.write_bytes(b"\x89MC")


KINDS = ["dangling link", "link to itself", "directory", "pipe", "socket", "device", "no dive", "short"]
NAMES = [b"odd.mcap", b"\xff\xfe.mcap", b"-.mcap", "taucher_ä.mcap".encode(), b"a\nb.mcap", b".mcap"]


@pytest.mark.parametrize("name", NAMES, ids=repr)
@pytest.mark.parametrize("kind", KINDS)
def test_odd_entries_are_said_once_and_stop_nothing(tmp_path: Path, kind: str, name: bytes) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
    put(kind, odd)
    assert deletable(tmp_path, None) == []
    repairs = RepairThread(tmp_path, 0.0)
    repair(repairs)
    news = [repairs.notices.get() for _ in range(repairs.notices.qsize())]
    assert [each.code for each in news] == ["dive_skipped"] and os.path.lexists(odd)
    for each in news:  # it can be sent and recorded
        msgspec.json.encode(Event(t=0, source="recorderd", **each._asdict()))
    assert list(DiskRetention(tmp_path, RecordingConfig(keep_gb=0, keep_share=0, disk_warn=0.999)).poll(None)) == []


@pytest.mark.parametrize("where", ["open", "beginning", "end", "middle"])
def test_a_disk_that_fails_is_said_and_costs_no_dive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """EIO at one place of a dive; the others are repaired all the same."""
    writer = make_dive(tmp_path / "writing.mcap", 1, finished=False)
    writer._file.flush()
    for name in ("1.mcap", "bad.mcap", "z.mcap"):
        shutil.copy(tmp_path / "writing.mcap", tmp_path / name)
    writer.close()
    before = (tmp_path / "bad.mcap").read_bytes()
    real_open, real_bytes = os.open, SalvageReader._bytes

    def opened(path: Any, flags: int, *more: int) -> int:
        if where == "open" and Path(os.fsdecode(path)).name == "bad.mcap" and not flags & os.O_CREAT:
            raise OSError(5, "Input/output error")
        return real_open(path, flags, *more)

    def read(self: SalvageReader, offset: int, length: int) -> bytes:
        place = {"beginning": 0, "end": self.size - 1, "middle": self.size // 2}.get(where, -1)
        if self.path.name == "bad.mcap" and offset <= place < offset + length:
            broken = self._file
            self._file = Broken()  # type: ignore[assignment]
            try:
                return real_bytes(self, offset, length)
            finally:
                self._file = broken
        return real_bytes(self, offset, length)

    monkeypatch.setattr(os, "open", opened)
    monkeypatch.setattr(SalvageReader, "_bytes", read)
    repairs = RepairThread(tmp_path, 0.0)
    repair(repairs)
    news = {each.text.split()[0]: each for each in [repairs.notices.get() for _ in range(repairs.notices.qsize())]}
    assert news["1.mcap"].code == news["z.mcap"].code == "dive_recovered"
    assert news["bad.mcap"].code == ("dive_cut_off" if where == "middle" else "dive_skipped")
    assert "nput/output error" in news["bad.mcap"].text
    monkeypatch.undo()
    assert (tmp_path / "bad.mcap").read_bytes() == before


class Broken:
    """A file on a disk that fails."""

    def seek(self, _: int) -> None:
        pass

    def read(self, _: int) -> bytes:
        raise OSError(5, "Input/output error")


def repair(repairs: RepairThread) -> None:
    """In its own thread, as it lowers its priority."""
    repairs.start()
    repairs.join()


def test_a_file_that_vanishes_in_between(tmp_path: Path) -> None:
    (tmp_path / "a.mcap").touch()
    make_dive(tmp_path / "b.mcap", 1)
    repairs = RepairThread(tmp_path, 0.0)
    for path in entries(tmp_path):
        path.unlink()
    repair(repairs)
    assert [repairs.notices.get().code for _ in range(2)] == ["dive_skipped"] * 2 and repairs.notices.empty()


@pytest.mark.parametrize("what", ["a file", "below a file", "nowhere to be made", "is gone"])
def test_a_folder_that_cannot_be_used_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    (tmp_path / "file").touch()
    folder = {"a file": tmp_path / "file", "below a file": tmp_path / "file" / "dives"}.get(what, tmp_path / "dives")
    if what == "nowhere to be made":
        monkeypatch.setattr(os, "mkdir", refuse)
    if what != "is gone":
        with pytest.raises(UserError, match="recording.folder = .*trying again"):
            ready(folder)
    else:
        with pytest.raises(UserError, match="No such file"):
            list(DiskRetention(folder, RecordingConfig()).poll(None))
    assert entries(folder) == []
    monkeypatch.undo()
    (tmp_path / "file").unlink()
    ready(folder)
    assert list(DiskRetention(folder, RecordingConfig(keep_gb=0, keep_share=0, disk_warn=0.999)).poll(None)) == []


@pytest.mark.parametrize("what", ["deleted", "moved", "replaced", "cut short", "its folder is gone"])
def test_the_dive_that_is_recorded_is_taken_away(tmp_path: Path, config: Config, what: str) -> None:
    folder = tmp_path / "dives"
    ready(folder)
    recorder = Recorder(folder, config)
    recorder.open()
    assert recorder.dive is not None and recorder.path is not None
    for i in range(200):
        recorder.write("health", Health(t=i, process=os.urandom(100).hex(), rate_hz=1.0))
    recorder.dive._file.flush()
    assert not recorder.over and recorder.lost == ""
    match what:
        case "deleted":
            recorder.path.unlink()
        case "moved":
            recorder.path.rename(tmp_path / "elsewhere.mcap")
        case "replaced":
            recorder.path.unlink()
            recorder.path.write_bytes(b"something else")
        case "cut short":
            os.truncate(recorder.path, 0)
        case _:
            shutil.rmtree(folder)
    assert recorder.over and recorder.path.name in recorder.lost
    assert ("is there" in recorder.lost) == (what == "moved")
    recorder.close()
    ready(folder)
    recorder.open()
    recorder.write("health", Health(t=1, process="x", rate_hz=1.0))
    assert not recorder.over
    path = recorder.path
    recorder.close()
    assert path is not None and info(path).topics["health"].count == 1


def test_recording_stops_and_begins_again_a_little_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(tmp_path, total=1000)
    monkeypatch.setattr(shutil, "disk_usage", disk.usage)
    look = DiskRetention(tmp_path, RecordingConfig(keep_gb=0.0, keep_share=0.0))
    said = []
    for taken in (500, 850, 851, 929, 930, 931, 925, 920, 919, 800, 860):
        disk.taken = taken
        said.append(([news.code for news in look.poll(None)], look.room))
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
    assert not list(DiskRetention(tmp_path, RecordingConfig(keep_gb=5.0)).poll(None)) and (tmp_path / "a.mcap").exists()


def test_what_was_cut_off_is_repaired(tmp_path: Path) -> None:
    make_dive(tmp_path / "whole.mcap", 1)
    writer = make_dive(tmp_path / "cut.mcap", 1, finished=False)
    writer._file.flush()
    shutil.copy(tmp_path / "cut.mcap", tmp_path / "copy.mcap")  # as `kill -9` leaves it
    (tmp_path / "empty.mcap").touch()
    (tmp_path / "x.mcap.part").touch()
    repairs = RepairThread(tmp_path, disk_free=0.0)
    repair(repairs)
    news = [repairs.notices.get() for _ in range(2)]
    assert [each.code for each in news] == ["dive_recovered", "dive_deleted"] and "200 messages" in news[0].text
    assert repairs.notices.empty(), "the one that is being recorded is left alone"
    assert info(tmp_path / "copy.mcap").complete and not (tmp_path / "x.mcap.part").exists()
    writer.close()


def test_a_long_dive_goes_on_in_another_file(tmp_path: Path, config: Config) -> None:
    recorder = Recorder(tmp_path, config.model_copy(update={"recording": RecordingConfig(part_gb=1e-4)}))  # 100 kB
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
