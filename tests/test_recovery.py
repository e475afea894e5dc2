"""Broken dives: killed, cut off, flipped. Whatever is intact is saved, nothing else is, and the source is safe."""

from __future__ import annotations

import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from mcap.reader import make_reader
from mcap.writer import Writer

from rov import messages as m
from rov.dives.dive import Dive, DiveError, DiveWriter
from rov.dives.durable_writer import DurableWriter
from rov.dives.recovery import cut, info, mark, mark_file, marked, recover, unmark

MS = 1_000_000
Line = tuple[str, int, bytes]

RECORDER = """
import random, sys, time
from pathlib import Path
from rov.dives.dive import DiveWriter
from rov.messages import Health
writer = DiveWriter(Path(sys.argv[1]), {"source": "killed"})
print("ready", flush=True)
noise = random.Random(0).randbytes(20_000)
for i in range(100_000):
    t = time.monotonic_ns()
    writer.write("health", Health(t=t, process=str(i), rate_hz=0.0))
    if i % 7 == 0:
        writer.picture(t, noise)
    time.sleep(0.01)
"""


class Killed(NamedTuple):
    path: Path
    ran_ns: int
    killed_t: int


def lines(path: Path) -> list[Line]:
    """All messages, by the public library."""
    with path.open("rb") as stream:
        found = make_reader(stream, validate_crcs=True).iter_messages()
        return [(channel.topic, message.log_time, message.data) for _, channel, message in found]


def salvaged(path: Path) -> list[Line]:
    """All messages that our reader finds, in the order of the file."""
    with Dive(path) as dive:
        return [(c.topic, message.log_time, message.data) for c, message in dive.file.messages(ordered=False)]


def write(path: Path, count: int = 400, *, close: bool = True) -> Path:
    """4 s at 100 Hz, every tenth with a picture; many small chunks."""
    now = [0.0]
    noise = random.Random(3)
    writer = DiveWriter(path, {"source": "test"}, clock=lambda: now[0])
    for i in range(count):
        now[0] += 0.1  # a flush every fifth message
        writer.write("health", m.Health(t=i * 10 * MS, process=str(i), rate_hz=noise.random()))
        if i % 10 == 0:
            writer.picture(i * 10 * MS, noise.randbytes(3000))
    now[0] += 1
    writer.tick()
    if not close:
        shutdown = path.read_bytes()  # as a power cut leaves it
        writer.close()
        path.write_bytes(shutdown)
    writer.close()
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("whole") / "whole.mcap")


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("unfinished") / "unfinished.mcap", close=False)


# ---- kill -9 ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Killed]]:
    """Eight recorders, each killed at a moment of its own. They run at the same time, to be done sooner."""
    folder = tmp_path_factory.mktemp("killed")
    paths = [folder / f"{seed}.mcap" for seed in range(8)]
    root = Path(__file__).parents[1]
    recorder = [sys.executable, "-c", RECORDER]
    running = [subprocess.Popen([*recorder, str(path)], stdout=subprocess.PIPE, cwd=root) for path in paths]
    started, result = {}, {}
    for process in running:
        assert process.stdout and process.stdout.readline() == b"ready\n"
        started[process.pid] = time.monotonic_ns()
        process.stdout.close()
    ready = time.monotonic_ns()
    moments = {each.pid: ready + int(random.Random(n).uniform(0.2, 3.0) * 1e9) for n, each in enumerate(running)}
    for process, path in sorted(zip(running, paths, strict=True), key=lambda each: moments[each[0].pid]):
        time.sleep(max(0, moments[process.pid] - time.monotonic_ns()) / 1e9)
        t = time.monotonic_ns()
        process.send_signal(signal.SIGKILL)
        process.wait()
        result[path] = Killed(path, t - started[process.pid], t)
    yield [result[path] for path in paths]


@pytest.mark.parametrize("seed", range(8))
def test_a_killed_recorder_loses_less_than_a_second(seed: int, killed: list[Killed], tmp_path: Path) -> None:
    path, ran_ns, killed_t = killed[seed]
    with pytest.raises(Exception):  # noqa: B017  the public reader alone cannot open it: this is what is repaired
        lines(path)
    before = path.read_bytes()
    report = recover(path, tmp_path / "saved.mcap")
    assert path.read_bytes() == before
    found = lines(tmp_path / "saved.mcap")
    numbers = [msgspec.json.decode(data, type=m.Health).process for topic, _, data in found if topic == "health"]
    assert numbers == [str(i) for i in range(len(numbers))], "no gap"
    if ran_ns > 1_200 * MS:
        assert report.last_t and killed_t - report.last_t < 1_000 * MS
    assert [t for _, t, _ in found] == sorted(t for _, t, _ in found)
    assert {topic: each.count for topic, each in report.topics.items()} == {
        topic: sum(line[0] == topic for line in found) for topic in {line[0] for line in found}
    }
    with Dive(tmp_path / "saved.mcap") as dive:
        assert dive.complete and dive.metadata["source"] == "killed"


# ---- cut off ---------------------------------------------------------------------------------------------------------


def offsets(size: int, count: int) -> list[int]:
    return [0, 1, 7, 8, 9, 30, size - 1, size - 8, size - 9, size - 37, *random.Random(2).sample(range(size), count)]


@pytest.mark.parametrize("kind", ["whole", "unfinished"])
def test_cut_off_anywhere_a_prefix_is_saved(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    source: Path = request.getfixturevalue(kind)
    data, expected = source.read_bytes(), salvaged(source)
    assert len(expected) == 440
    longest = 0
    for at in offsets(len(data), 40):
        path, out = tmp_path / f"{at}.mcap", tmp_path / f"{at}.saved.mcap"
        path.write_bytes(data[:at])
        if at < 8:
            with pytest.raises(DiveError, match="is empty|not an MCAP file"):
                recover(path, out)
            continue
        found = salvaged(path)
        assert found == expected[: len(found)], at
        longest = max(longest, len(found))
        if not found:
            continue
        with Dive(path) as dive:
            assert not dive.complete and dive.problems[-1].startswith("it was never closed")
        report = recover(path, out)
        assert lines(out) == sorted(found, key=lambda line: line[1])
        assert report.lost_bytes <= 64 * 1024 + 4000 and sum(t.count for t in report.topics.values()) == len(found)
    assert longest > 400


# ---- flipped ---------------------------------------------------------------------------------------------------------


def test_a_flipped_byte_costs_one_chunk(whole: Path, tmp_path: Path) -> None:
    data, expected = whole.read_bytes(), salvaged(whole)
    with Dive(whole) as dive:
        blocks = dive.file.blocks
    assert len(blocks) > 50
    where = random.Random(4)
    places = [*range(8, 60), *(blocks[20].offset + n for n in range(50)), *where.sample(range(60, len(data)), 100)]
    path, noticed = tmp_path / "flipped.mcap", 0
    for at in places:
        flipped = bytearray(data)
        flipped[at] ^= 1 << where.randrange(8)
        for size in (len(data), len(data) - 1):  # with its index, and by scanning
            path.write_bytes(flipped[:size])
            with Dive(path) as dive:
                found = [(c.topic, each.log_time, each.data) for c, each in dive.file.messages(ordered=False)]
                noticed += not dive.complete and bool(dive.file.damage)
            kept = set(found)
            assert len(kept) == len(found) and found == [line for line in expected if line in kept], at
            if at > blocks[0].offset + blocks[0].length or size == len(data):  # the first chunk describes the topics
                assert len(expected) - len(found) <= 15, at
    assert noticed > 100


def test_absurd_sizes_in_a_chunk_cost_that_chunk(unfinished: Path, tmp_path: Path) -> None:
    data, expected, path = unfinished.read_bytes(), salvaged(unfinished), tmp_path / "absurd.mcap"
    with Dive(unfinished) as dive:
        block = dive.file.blocks[20]
    for at in range(1, 80):  # every length and size in its head, and what zstd says
        for count in (2, 8):
            absurd = bytearray(data)
            absurd[block.offset + at : block.offset + at + count] = b"\xff" * count
            path.write_bytes(absurd)
            found = salvaged(path)
            assert len(found) >= len(expected) - 15 and set(found) <= set(expected), at


def test_a_hole_in_the_middle_is_stepped_over(unfinished: Path, tmp_path: Path) -> None:
    data, path = bytearray(unfinished.read_bytes()), tmp_path / "hole.mcap"
    middle = len(data) // 2
    data[middle : middle + 8192] = bytes(8192)
    path.write_bytes(data)
    report = recover(path)
    assert report.changed and 8000 < report.lost_bytes < 8192 + 2 * 5000
    assert "bytes at" in report.problems[0]
    assert 380 < len(lines(path)) < 440 and lines(path)[-1] == salvaged(unfinished)[-1]


def test_random_bytes_after_a_magic(tmp_path: Path) -> None:
    for seed in range(30):
        path = tmp_path / f"{seed}.mcap"
        path.write_bytes(b"\x89MCAP0\r\n" + random.Random(seed).randbytes(5000))
        assert salvaged(path) == []
        with pytest.raises(DiveError, match="no message there that can be copied"):
            recover(path)
        assert path.stat().st_size == 5008 and not info(path).complete


# ---- in place --------------------------------------------------------------------------------------------------------


def test_in_place_only_what_is_broken_is_replaced(whole: Path, unfinished: Path, tmp_path: Path) -> None:
    good, broken = tmp_path / "good.mcap", tmp_path / "broken.mcap"
    good.write_bytes(whole.read_bytes())
    broken.write_bytes(unfinished.read_bytes())
    os.utime(broken, (1000, 1000))
    assert not recover(good).changed and good.read_bytes() == whole.read_bytes()
    report = recover(broken)
    assert report.changed and report.lost_bytes == 0 and report.path == str(broken)
    assert sorted(lines(broken)) == sorted(lines(whole))
    assert broken.stat().st_mtime == 1000, "its age is what retention goes by"
    assert not recover(broken).changed
    assert sorted(p.name for p in tmp_path.iterdir()) == ["broken.mcap", "good.mcap"]


RECOVER = """
import sys
from pathlib import Path
from rov.dives.recovery import recover
print(flush=True)
sys.stdin.readline()
recover(Path(sys.argv[1]))
"""


def test_three_repairs_of_one_dive_at_once_harm_neither_it_nor_each_other(
    whole: Path, unfinished: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.mcap"
    broken.write_bytes(unfinished.read_bytes())
    words, pipe = [sys.executable, "-c", RECOVER, broken], subprocess.PIPE
    repairs = [subprocess.Popen(words, stdin=pipe, stdout=pipe) for _ in range(3)]
    for each in repairs:
        assert each.stdout is not None and each.stdout.readline()
    for each in repairs:
        assert each.stdin is not None
        each.stdin.write(b"go\n")
        each.stdin.flush()
    for each in repairs:
        each.communicate(timeout=60)
    assert [each.returncode for each in repairs] == [0, 0, 0]
    assert sorted(lines(broken)) == sorted(lines(whole)) and not recover(broken).changed
    assert [each.name for each in tmp_path.iterdir()] == ["broken.mcap"], "no half-written copy is left"


def test_a_damaged_index_is_made_anew(whole: Path, tmp_path: Path) -> None:
    path, data = tmp_path / "a.mcap", bytearray(whole.read_bytes())
    data[-200] ^= 1
    path.write_bytes(data)
    report = recover(path)
    assert report.changed and "the index at the end" in report.problems[0]
    assert lines(path) == lines(whole)


def test_the_source_stays_when_the_check_fails(
    unfinished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.mcap"
    path.write_bytes(unfinished.read_bytes())
    write_one = DurableWriter.add

    def forgetful(self: DurableWriter, channel: int, t: int, *rest: Any) -> None:
        if t != 1230 * MS:
            write_one(self, channel, t, *rest)

    monkeypatch.setattr(DurableWriter, "add", forgetful)
    with pytest.raises(DiveError, match="does not hold what was written"):
        recover(path)
    assert path.read_bytes() == unfinished.read_bytes() and list(tmp_path.iterdir()) == [path]


def test_a_dive_that_is_being_recorded_is_not_repaired(tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    with DiveWriter(path, {}) as writer:
        writer.write("health", m.Health(t=1, process="x", rate_hz=0.0))
        with pytest.raises(DiveError, match="being recorded now"):
            recover(path)
        assert info(path).recording and info(path).advice == "it is being recorded now"
    assert info(path).complete and not info(path).recording


def test_nothing_is_overwritten_unasked(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mcap"
    out.write_text("precious")
    for action in (lambda: recover(whole, out), lambda: cut(whole, out, 0, 1), lambda: recover(whole, whole)):
        with pytest.raises(DiveError, match="exists already"):
            action()
    assert out.read_text() == "precious"
    recover(whole, out, overwrite=True)
    assert lines(out) == lines(whole)


def test_metadata_attachments_and_foreign_topics_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    with path.open("wb") as stream:
        writer = Writer(stream)
        writer.start()
        writer.add_metadata("site", {"lake": "Konstanz"})
        writer.add_attachment(1, 2, "plan.txt", "text/plain", b"down, then up")
        schema = writer.register_schema("x.Y", "ros2msg", b"int8 a")
        writer.add_message(writer.register_channel("/odd", "cdr", schema, {"qos": "1"}), 5, b"\x01", 6, 7)
        writer.flush()  # type: ignore[no-untyped-call]
    recover(path)
    with path.open("rb") as stream:
        reader = make_reader(stream)
        assert [(r.name, r.metadata) for r in reader.iter_metadata()] == [("site", {"lake": "Konstanz"})]
        assert [(a.name, a.data) for a in reader.iter_attachments()] == [("plan.txt", b"down, then up")]
        [(found, channel, message)] = list(reader.iter_messages())
        assert found and (found.name, found.data, channel.metadata) == ("x.Y", b"int8 a", {"qos": "1"})
        assert (message.log_time, message.publish_time, message.sequence) == (5, 6, 7)


def test_a_recording_killed_before_its_first_message(tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    writer = DiveWriter(path, {"source": "test"})
    data = path.read_bytes()
    writer.close()
    path.write_bytes(data)
    assert recover(path).topics == {}
    assert info(path).complete and info(path).metadata["source"] == "test"


# ---- cut, info, mark -------------------------------------------------------------------------------------------------


def test_a_cut_holds_its_start_and_not_its_end(whole: Path, unfinished: Path, tmp_path: Path) -> None:
    for n, source in enumerate((whole, unfinished)):
        out = tmp_path / f"{n}.mcap"
        digests = cut(source, out, 1.0, 2.5)
        assert lines(out) == [line for line in lines(whole) if 1_000 * MS <= line[1] < 2_500 * MS]
        assert (digests["health"].first_t, digests["health"].last_t) == (1_000 * MS, 2_490 * MS)
        assert (digests["health"].count, digests["camera"].count) == (150, 15)
        with Dive(out) as dive:
            assert dive.metadata["source"] == "test" and dive.complete
            assert [each.metadata["start_s"] for each in dive.file.metadata if each.name == "cut"] == ["1.0"]


def test_a_cut_may_be_open(whole: Path, tmp_path: Path) -> None:
    cut(whole, tmp_path / "out.mcap", -1.0, math.inf)
    assert lines(tmp_path / "out.mcap") == lines(whole)


@pytest.mark.parametrize("window", [(4.0, 5.0), (2.0, 1.0), (-2.0, -1.0), (0.001, 0.002), (math.nan, 1.0)])
def test_a_cut_of_nothing_is_refused(window: tuple[float, float], whole: Path, tmp_path: Path) -> None:
    with pytest.raises(DiveError, match=r"nothing from .* it lasts 3.990 s|no message there"):
        cut(whole, tmp_path / "out.mcap", *window)
    assert not list(tmp_path.iterdir())


def test_info_says_what_is_there_and_what_to_do(whole: Path, unfinished: Path) -> None:
    good, broken = info(whole), info(unfinished)
    assert good.complete and good.advice == "" and good.duration_s == 3.99 and good.start_t == 0
    assert good.topics["health"].rate_hz == pytest.approx(100) and good.topics["camera"].rate_hz == pytest.approx(10)
    assert good.topics == broken.topics and not broken.complete
    assert broken.advice == f"run `rov dive recover {unfinished}`"
    quick = info(whole, hashes=False)
    assert {name: each.count for name, each in quick.topics.items()} == {"camera": 40, "health": 400}
    assert quick.topics["health"].sha256 == "" and msgspec.json.encode(good)


def test_a_mark_stays_through_repair_and_by_hand(unfinished: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    path.write_bytes(unfinished.read_bytes())
    assert marked(path) is None
    made = mark(path, 'the "big" one\nwith fish')
    assert marked(path) == made and made.note.endswith("fish")
    recover(path)
    found = info(path).mark
    assert found == made
    unmark(path)
    unmark(path)
    assert marked(path) is None
    mark_file(path).touch()
    by_hand = marked(path)
    assert by_hand and by_hand.note == ""
    mark_file(path).write_bytes(b"\xff = ]")
    assert marked(path)
    with pytest.raises(DiveError, match="no such file"):
        mark(tmp_path / "none.mcap")
