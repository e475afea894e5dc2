"""README's commands, taken from the page and run as they are printed."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rov.dives.dive import Dive
from rov.resources import checkout
from tests.conftest import make_clip

PATIENCE_S = 90.0
"""Longest wait for a start, on a busy machine."""


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (checkout() / "README.md").read_text(), re.DOTALL)


def commands(word: str) -> list[str]:
    """The commands of the block of shell that holds this word, without their remarks."""
    (block,) = [each for each in blocks("sh") if word in each]
    return [line for each in block.splitlines() if (line := each.partition("  #")[0].strip())]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with everything that the checkout holds, in which outputs do not get into the checkout."""
    for path in checkout().iterdir():
        if path.name not in (".git", "out", "dives", "runs"):
            (tmp_path / path.name).symlink_to(path)
    return tmp_path


def environment() -> dict[str, str]:
    """As after `. .venv/bin/activate`."""
    return os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONUNBUFFERED": "1"}


def shell(command: str, place: Path, timeout_s: float = 300.0) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", command], cwd=place, env=environment(), capture_output=True, text=True, timeout=timeout_s
    )


@contextlib.contextmanager
def running(command: str, place: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A command in the background, and the file of what it prints; ended by Ctrl-C."""
    log = place / f"{time.monotonic_ns()}.log"
    with log.open("wb") as file:
        words = ["bash", "-c", f"exec {command}"]
        process = subprocess.Popen(
            words, cwd=place, env=environment(), stdout=file, stderr=file, start_new_session=True
        )
    try:
        yield process, log
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def wait_for(log: Path, words: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while words not in log.read_text():
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.1)


def ports_are_free() -> bool:
    for port in (5555, 5556):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return False
    return True


def test_a_recording(place: Path) -> None:
    """The sample is `python -m sim dive pool --seconds 7 --size 480x360 --no-overlay --set perception.rate_hz=8
    --set recording.jpeg_quality=98`; to be made anew with weights that see otherwise."""
    replay, info, detect = commands("rov replay")
    done = shell(replay, place)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((place / "out/report.json").read_text())
    assert report["processed"] == 56 and {row["verdict"] for row in report["diff"]} == {"same"}
    assert all((place / "out" / name).is_file() for name in ("report.html", "report.json", "dive.mcap", "overlay.mp4"))
    done = shell(info, place)
    assert done.returncode == 0 and "detections" in done.stdout
    done = shell(detect, place)
    assert done.returncode == 0 and (place / "out/found.json").is_file(), done.stderr


def test_a_simulated_sea(place: Path) -> None:
    dive = commands("python -m sim dive")[0]
    done = shell(dive.replace("--seconds 10", "--seconds 2"), place)
    assert done.returncode == 0, done.stderr
    with Dive(place / "out/sim/dive.mcap") as dive:
        assert dive.complete and dive.readable.get("detections")


@pytest.mark.clock
@pytest.mark.daemon
def test_the_whole_daemon_in_a_simulated_sea(place: Path) -> None:
    if not ports_are_free():
        pytest.skip("another daemon has the default ports")
    with running(commands("python -m sim run")[1], place) as (process, log):
        wait_for(log, "recording to ")
        wait_for(log, " armed: ")
        process.send_signal(signal.SIGINT)
        process.wait(30)
    (path,) = (place / "dives").glob("*.mcap")
    with Dive(path) as dive:
        assert dive.complete and dive.readable.get("thrusters")


@pytest.mark.clock
@pytest.mark.daemon
def test_the_daemon_on_a_laptop(place: Path) -> None:
    if not ports_are_free():
        pytest.skip("another daemon has the default ports")
    board, daemon = commands("python -m sim board")
    listen, target, drive, stop, explain = commands("rov listen")
    (program,) = [each for each in blocks("python") if "Client" in each]
    (place / "program.py").write_text(program)
    (place / "out").mkdir()
    make_clip(place / "out" / "overlay.mp4", frames=40)  # as the first way leaves it
    daemon += " --set perception.rate_hz=3"  # leaves the machine some time for the rest
    with running(board.removesuffix("&").strip(), place), running(daemon, place) as (process, log):
        for words in (" ready: ", "camera_open: ", "warm: ", "link_open: "):
            wait_for(log, words)
        with running(listen, place) as (_, heard):
            wait_for(heard, '"mode":"manual"')
        done = shell(target, place)
        assert done.returncode == 0, done.stderr
        time.sleep(3.5)  # `rov ctl` is the operator until its heartbeat is missed
        done = shell("python program.py", place)
        assert done.returncode == 0 and len(done.stdout.splitlines()) > 10, done.stdout + done.stderr
        time.sleep(3.5)
        assert leaves(drive, place) == 0
        done = shell(stop, place)
        assert done.returncode == 0, done.stderr
        assert "heartbeat" in shell(explain, place).stdout
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    lines = log.read_text().splitlines()
    assert all(re.match(r"\d\d:\d\d:\d\d (info|warning|alarm) \w+ \w+: ", line) for line in lines), lines
    assert "supervisor ended: stopped; " in lines[-1]


def leaves(command: str, place: Path) -> int:
    """Exit code of a command at a terminal, where q is typed after a while."""
    ours, theirs = pty.openpty()
    words = ["bash", "-c", f"exec {command}"]
    process = subprocess.Popen(words, cwd=place, env=environment(), stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    os.set_blocking(ours, False)
    try:
        end = time.monotonic() + 40.0
        while process.poll() is None and time.monotonic() < end:
            with contextlib.suppress(BlockingIOError, OSError):
                if b"surge" in os.read(ours, 65536):
                    os.write(ours, b"q")
            time.sleep(0.1)
        return process.wait(1)
    finally:
        process.kill()
        os.close(ours)
