"""The instruments of an endurance run: when a port is written to, and what is flat."""

import contextlib
import os
import select
import subprocess
import sys
import time
import tty
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from sim.soak import Notes, Use, figures, flatness, progress, table

ROOT = Path(__file__).parent.parent
S = 1_000_000_000


def series(rss_mb: list[float], files: list[int], every_s: float, pids: tuple[int, ...] = (1,)) -> list[Use]:
    return [
        Use(i * every_s, pids[i % len(pids)], 0.0, rss, count)
        for i, (rss, count) in enumerate(zip(rss_mb, files, strict=True))
    ]


def test_growth_is_told_from_warming_up_and_from_noise() -> None:
    hour = 721  # one look in 5 s
    warming = [50.0] * 12 + [100.0] * (hour - 12)  # within the first minute
    assert flatness(series(warming, [9] * hour, 5.0)) == {
        "rss_mb": {"start_middle_end": [100.0, 100.0, 100.0], "per_hour": 0.0},
        "files": {"start_middle_end": [9.0, 9.0, 9.0], "per_hour": 0.0},
        "verdict": "flat",
    }
    grows = flatness(series([100.0 + 2.0 * i / 720 for i in range(hour)], [9] * hour, 5.0))
    assert grows["rss_mb"]["per_hour"] == pytest.approx(2.0) and grows["verdict"] == "grows"  # 16 MB in 8 h, of 100
    slowly = flatness(series([100.0 + i / 720 for i in range(hour)], [9] * hour, 5.0))
    assert slowly["rss_mb"]["per_hour"] == pytest.approx(1.0) and slowly["verdict"] == "flat"  # 8 MB
    leaks = flatness(series([100.0] * hour, [9 + i // 180 for i in range(hour)], 5.0))
    assert leaks["verdict"] == "grows" and leaks["files"]["start_middle_end"] == [9.0, 11.0, 13.0]
    assert flatness(series([100.0] * 60, [9] * 60, 5.0))["verdict"] == "too short to tell"
    assert flatness(series([100.0] * hour, [9] * hour, 5.0, pids=(1, 2)))["verdict"] == "was started again"


def test_the_figures_of_a_run() -> None:
    """Fifty ticks a second, one of them 3 ms late; a frame of which the setpoint is acted on at the next tick."""
    notes = Notes()
    ticks = [i * S // 50 for i in range(100)]
    ticks[40] += 3_000_000
    notes.commands, notes.command_frames = array("q", ticks), array("q", [0] * 50 + [7_000_000] * 50)
    notes.writes = array("q", [tick + 500_000 for tick in ticks])
    notes.arrivals, notes.arrived_us = array("q", [t + 900_000 for t in ticks]), array("q", [t // 1000 for t in ticks])
    notes.setpoints, notes.setpoint_frames = array("q", [ticks[50] - 4_000_000]), array("q", [7_000_000])
    notes.detections, notes.detection_frames = array("q", [ticks[50] - 5_000_000]), array("q", [7_000_000])
    notes.network_ms = array("d", [900.0])
    notes.use = {"pilotd": [Use(0.0, 1, 0.0, 100.0, 9), Use(2.0, 1, 0.1, 100.0, 9)]}
    found = figures(notes, 0, 2 * S)
    assert found["written_hz"] == found["board_hz"] == 50.0 and found["detections_hz"] == 0.5
    assert found["write_jitter_ms"]["p50"] == 0.0 and found["write_jitter_ms"]["max"] == 3.0
    assert found["setpoint_to_write_ms"]["max"] == 4.5 and found["setpoint_to_board_ms"]["max"] == 4.9
    assert found["capture_to_setpoint_less_network_ms"]["max"] == 1000 - 4 - 7 - 900
    assert found["cpu_percent"] == {"pilotd": 5.0} and found["follow_all_the_time"]
    assert "written 50.0 Hz" in progress(notes, 0, 2 * S) and "pilotd 100.0 MB 9 fd" in progress(notes, 0, 2 * S)
    assert "too short to tell" in table(found)


@pytest.fixture
def port() -> Iterator[tuple[int, str]]:
    """The companion's end of a pty, and its path."""
    ends = os.openpty()
    tty.setraw(ends[1])
    yield ends[1], os.ttyname(ends[1])
    for end in ends:
        os.close(end)


def test_each_write_is_reported_when_it_is_made(port: tuple[int, str]) -> None:
    end, path = port
    command = [sys.executable, "-m", "sim", "port-write-times", path]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as watcher:
        try:
            assert watcher.stdout is not None
            until(lambda: watcher.poll() is not None or "inotify" in descriptors(watcher.pid))
            time.sleep(0.1)  # it has its watch
            for text in (b"one", b"another"):
                before = time.monotonic_ns()
                os.write(end, text)
                while (reported := next_line(watcher.stdout)) < before:  # a write may be reported twice
                    pass
                assert reported <= time.monotonic_ns()
            watcher.terminate()
            assert watcher.wait(5) == 0
        finally:
            watcher.kill()


def until(done: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.01)


def next_line(stream: IO[str]) -> int:
    """The next time that is reported, ns; fails when there is none within 10 s."""
    assert select.select([stream], [], [], 10.0)[0], "no write was reported"
    return int(stream.readline())


def descriptors(pid: int) -> set[str]:
    """What kinds of files a process has open."""
    found = set()
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            found.add(os.readlink(each).rpartition(":")[2])
    return found


def test_a_port_that_is_missing_is_an_error(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sim", "port-write-times", str(tmp_path / "none")]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode != 0 and "none: cannot be watched: No such file" in run.stderr
