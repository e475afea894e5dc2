"""What people run on a laptop with macOS or Windows: the commands, without the names that those systems lack."""

import contextlib
import os
import pty
import subprocess
import sys
import threading
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest

from rov.messages import Arm, SetMode, Sticks, Stop, TakeOver
from rov.operator.keys import ConsoleKeys
from rov.operator.sticks import Keyboard
from rov.resources import checkout
from tests.logs import TlogFile, attitude, heartbeat
from tests.test_client import Daemon, until

SAMPLE = checkout() / "sim" / "sample.mcap"


def rov(*commands: str, cwd: Path) -> str:
    """What these commands print on a laptop, and how each ends."""
    command = [sys.executable, "-X", "warn_default_encoding", "-m", "tests.laptop", " : ".join(commands)]
    environment = os.environ | {"PYTHONPATH": str(checkout())}
    run = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout + run.stderr


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path)
    (tmp_path / "rover.toml").write_text(
        f'[vehicle]\nmax_depth = 30\n[bus]\npublic = "{daemon.endpoints.public}"\n'
        f'commands = "{daemon.endpoints.commands}"\n'
    )
    yield daemon
    daemon.close()


def test_dives_pictures_and_logs(clip: Path, tmp_path: Path) -> None:
    log = TlogFile()
    for i in range(50):
        log.add(i / 10, heartbeat() if i % 10 == 0 else attitude(100 + i / 10))
    log.write(tmp_path / "l.tlog")
    (tmp_path / "torn.mcap").write_bytes(SAMPLE.read_bytes()[:-300])
    commands = {
        "dive info torn.mcap": 1,
        "dive recover torn.mcap": 0,
        "dive cut torn.mcap --start 1 --end 2 --out part.mcap": 0,
        "dive mark part.mcap --note grouper": 0,
        "dive info part.mcap": 0,
        "replay part.mcap --out out": 0,
        "detect clip.avi --out dets.json --batch 8": 0,
        "import clip.avi --tlog l.tlog --offset 0 --out d.mcap": 0,
        "config check rover.toml": 0,
        "doctor": 0,
        "run": 2,
    }
    (tmp_path / "rover.toml").write_text("[vehicle]\nmax_depth = 30\n")
    said = rov(*commands, cwd=tmp_path)
    for command, code in commands.items():
        assert f"exit {code}: {command}" in said, said
    for words in ("whole: no", "whole: yes", "8 of 8 frames", "objects in 20 pictures", "d.mcap: 20 pictures"):
        assert words in said, said
    assert "error: rov run: the daemon needs Linux" in said
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "dive.mcap", "overlay.mp4", "report.html", "report.json"
    }  # fmt: skip


def test_commands_reach_a_daemon(daemon: Daemon, tmp_path: Path) -> None:
    said = rov("ctl arm", "ctl mode hold", "ctl stop", "keys ann", "ctl stop --keys keys/ann", cwd=tmp_path)
    assert said.count("exit 0") == 4 and "arm: begun" in said and "stop: done" in said
    assert "no answer" in said, "its keys were read; this daemon has none"
    assert len(daemon.of(Arm)) == len(daemon.of(SetMode)) == len(daemon.of(Stop)) == 1
    listening = [sys.executable, "-m", "tests.laptop", "listen", "pilot"]
    environment = os.environ | {"PYTHONPATH": str(checkout())}
    with subprocess.Popen(listening, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert '"mode":"hold"' in process.stdout.readline()
        process.kill()


def drain(master: int) -> None:
    """Read a page that nobody looks at, so that writing it does not block."""
    with contextlib.suppress(OSError):
        while os.read(master, 65536):
            pass


def test_driving_from_a_windows_console(daemon: Daemon, tmp_path: Path) -> None:
    """A console without termios: `tests.laptop` has msvcrt's two functions."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    command = [sys.executable, "-m", "tests.laptop", "drive"]
    environment = os.environ | {"PYTHONPATH": str(checkout()), "TERM": "xterm"}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    threading.Thread(target=drain, args=(master,), daemon=True).start()
    try:
        until(lambda: len(daemon.of(Sticks)) > 3)
        os.write(master, b"r\xe0H")  # arm; the console's arrow upwards
        until(lambda: daemon.armed and any(isinstance(e, Sticks) and e.heave == -0.5 for e in daemon.of(Sticks)))
        os.write(master, b" q")
        until(lambda: process.poll() is not None)
        assert process.returncode == 0 and daemon.of(TakeOver) and not daemon.armed
        assert len(daemon.of(Stop)) == 4, "by its key, and by leaving"
    finally:
        process.kill()
        process.wait()
        os.close(master)


def test_keys_of_the_console_are_those_of_a_terminal() -> None:
    typed = list("w\xe0HS\0K ")
    keys = ConsoleKeys(lambda: bool(typed), lambda: typed.pop(0))
    assert Keyboard().read(keys.read(1.0) or "", 0).actions == ("stop",), "a stop does not wait for the second"
    typed += list("w\xe0H\0K")
    assert Keyboard().read(keys.read(0.01) or "", 0).axes == (0.5, 0.0, -0.5, -0.5)
