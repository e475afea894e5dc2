"""The daemon as a service: systemd's end, its parent's death, its disk, and what it leaves behind."""

from __future__ import annotations

import ast
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from models.data import data_root
from rov.dives import retention
from rov.dives.dive import Dive, EncodedPicture
from rov.dives.recovery import info
from rov.errors import UserError
from rov.messages import ConsumedInput, Detections, Event, Health, Mode, PilotStatus, ThrusterCommand
from rov.resources import checkout
from rov.service.runtime_directory import home
from tests.commands import rov
from tests.daemon.harness import GRACE, MS, Daemon, children, environment, make_video, wait_for
from tests.test_camera import send_rtp

pytestmark = [pytest.mark.clock, pytest.mark.daemon]

TICK, S = 20 * MS, 1000 * MS


def make_dive_video(path: Path) -> Path:
    """Something to detect where there is local data: pictures of a pool, each for a while, with a camera's noise."""
    files = sorted((data_root() / "detection" / "transdec").rglob("*.jpg"))[:400:80]
    if not files:
        return make_video(path)
    random = np.random.default_rng(0)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (320, 240))
    for file in files:
        image = cv2.imread(str(file), cv2.IMREAD_REDUCED_COLOR_2)
        assert image is not None
        still = cv2.resize(image, (320, 240)).astype(np.int16)
        for _ in range(10):
            noisy = still + random.integers(-4, 5, still.shape, np.int16)
            writer.write(noisy.clip(0, 255).astype(np.uint8))
    writer.release()
    return path


def replay_differs(daemon: Daemon, dive: Path, out: Path) -> dict[str, dict[str, object]]:
    """The rows of `rov replay --diff`; fails where one differs."""
    run = rov("replay", dive, "--out", out, "--no-overlay", "--diff", "-c", daemon.path)
    assert run.returncode == 0, run.stdout + run.stderr
    return {row["topic"]: row for row in json.loads((out / "report.json").read_text())["diff"]}


class Manager:
    """systemd's end of the notify socket."""

    def __init__(self, path: Path):
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.said: list[tuple[int, str]] = []
        self.thread = threading.Thread(target=self._listen, daemon=True)
        self.thread.start()

    def _listen(self) -> None:
        while text := self.socket.recv(4096).decode():
            self.said.append((time.monotonic_ns(), text))

    def times(self, text: str) -> list[int]:
        return [t for t, said in [*self.said] if said.startswith(text)]

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.connect(str(self.path))
            last.send(b"")
        self.thread.join()
        self.socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(tmp_path / "notify")
    yield manager
    manager.close()


def test_a_life(tmp_path: Path, manager: Manager) -> None:
    """Ready, fed and told of; a dive with everything in it that replays exactly; then its supervisor is killed."""
    daemon = Daemon(
        tmp_path / "run", start=False, size=192, camera={"source": f"loop:{make_dive_video(tmp_path / 'clip.avi')}"}
    )
    runtime = tmp_path / "r"
    runtime.mkdir()
    env = {"NOTIFY_SOCKET": str(manager.path), "RUNTIME_DIRECTORY": str(runtime)}
    try:
        daemon.start(env)
        first = daemon.wait(PilotStatus, lambda status: True).t
        daemon.ready()
        assert len(manager.times("READY=1")) == 1 and manager.times("READY=1")[0] >= first
        began = time.monotonic_ns()

        operator = daemon.armed(surge=0.5)
        assert operator.mode(Mode.HOLD).accepted
        operator.sticks = {"heave": 0.3, "yaw": -0.4}
        time.sleep(1.0)
        assert operator.target("bottle").accepted
        daemon.patiently(lambda: operator.mode(Mode.FOLLOW))
        time.sleep(1.5)
        assert operator.mode(Mode.SURFACE).accepted
        time.sleep(0.5)
        assert any(text.startswith("STATUS=armed in surface, operator: pilot") for _, text in manager.said)
        fed = [t for t in manager.times("WATCHDOG=1") if t > began]
        assert np.diff(fed).max() < 600 * MS and len(fed) > 10

        hung = daemon.kill("pilotd", signal.SIGSTOP)
        daemon.event("restarted", hung)
        killed = daemon.event("hung", hung).t
        fed = manager.times("WATCHDOG=1")
        assert not [t for t in fed if hung + 600 * MS + GRACE < t < killed]
        back = daemon.wait(PilotStatus, lambda status: True, killed).t
        fed = [t for t in manager.times("WATCHDOG=1") if hung - S < t < back + S]
        assert np.diff(fed).max() < S, "systemd would have ended what the supervisor mended"
        daemon.armed(surge=0.5)
        time.sleep(0.5)
        assert operator.stop().accepted
        time.sleep(0.3)
        assert daemon.stop() == 0
        (stopping,) = manager.times("STOPPING=1")
        fed = [stopping, *(t for t in manager.times("WATCHDOG=1") if t > stopping), time.monotonic_ns()]
        assert len(fed) > 2 and np.diff(fed).max() < S and not list(runtime.iterdir())

        (dive,) = daemon.dives.glob("*.mcap")
        rows = replay_differs(daemon, dive, tmp_path / "out")
        assert all(int(str(row["compared"])) > 20 for row in rows.values()), rows
        with Dive(dive) as recorded:
            inputs = [r.data for r in recorded.messages(["inputs"]) if isinstance(r.data, ConsumedInput)]
            aimed = [each for r in recorded.messages(["settings"]) for each in r.data.settings]  # type: ignore[union-attr]
        assert {each.what for each in inputs if each.by == "pilotd"} == {"start", "setpoint", "arm", "mode", "stop"}
        assert ("steering.target", '"bottle"') in {(each.key, each.value) for each in aimed}

        # Killed: everything ends with it, the vehicle first; the next start cleans up and repairs.
        daemon.start(env)
        again = time.monotonic_ns()
        daemon.wait(PilotStatus, lambda status: True, again)
        daemon.armed(surge=0.8)
        assert daemon.process is not None
        pids = children(daemon.process.pid, "rov.perceptiond") + [daemon.pid("pilotd"), daemon.pid("recorderd")]
        left = list(runtime.iterdir())
        t = time.monotonic_ns()
        daemon.process.kill()
        daemon.process.wait()
        wait_for(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in pids), "end of the children")
        daemon.neutral_by(t + 2 * TICK + GRACE)
        assert len(left) == 1 and left[0].exists()
        daemon.start(env)
        daemon.wait(PilotStatus, lambda status: not status.armed, t + S)
        assert not left[0].exists() and len(list(runtime.iterdir())) == 1
        daemon.quiet(t + 2 * TICK + GRACE)
        assert daemon.stop() == 0
        assert all(info(path).complete for path in daemon.dives.glob("*.mcap"))
    finally:
        daemon.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 24 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)]
    if os.getuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs to be allowed to mount a tmpfs")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_the_disk_fills_and_the_camera_changes(tmp_path: Path, small_disk: Path) -> None:
    port = 5600 + os.getpid() % 20_000 * 2
    recording = {"folder": str(small_disk), "disk_free": 0.05, "codec": "h264", "part_minutes": 2.0}
    daemon = Daemon(tmp_path / "run", recording=recording, camera={"source": f"rtp://127.0.0.1:{port}"})
    done = threading.Event()
    sender = threading.Thread(target=send_rtp, args=(port, (160, 120), done))
    sender.start()
    try:
        daemon.ready()
        daemon.wait(Detections, lambda seen: (seen.width, seen.height) == (160, 120))
        daemon.armed(surge=0.5)
        wait_for(lambda: len(daemon.said(Detections)) > 15, "frames")
        t = time.monotonic_ns()
        usage = shutil.disk_usage(small_disk)
        (small_disk / "filler").write_bytes(b"\0" * int(usage.free - 0.02 * usage.total))
        daemon.event("disk_filling", t)
        daemon.event("disk_full", t)
        with (small_disk / "filler").open("ab", buffering=0) as filler, pytest.raises(OSError):
            while filler.write(b"\0" * 10_000):
                pass
        time.sleep(1.0)
        commands = daemon.said(ThrusterCommand, t)
        assert all(command.armed for command in commands)
        assert np.diff([command.t for command in commands]).max() < 5 * TICK + GRACE
        assert daemon.operator().stop().accepted
        answered = time.monotonic_ns()
        time.sleep(0.3)
        daemon.neutral_by(answered + TICK + GRACE)
        done.set()
        sender.join()
        done.clear()
        sender = threading.Thread(target=send_rtp, args=(port, (320, 240), done))
        sender.start()
        daemon.wait(Detections, lambda seen: (seen.width, seen.height) == (320, 240), t)
        assert {"camera_open", "camera_size"} & {event.code for event in daemon.said(Event, t)}
        back = time.monotonic_ns()
        (small_disk / "filler").unlink()
        daemon.event("disk_full_over", back)
        time.sleep(2.0)
        assert daemon.stop() == 0
        dives = sorted(small_disk.glob("*.mcap"))
        assert len(dives) >= 2, "one until the disk was full, one after"
        for dive in dives:
            with Dive(dive) as recorded:
                recorded.digests()
                assert recorded.complete, (dive, recorded.problems)
                pictures = [r.data for r in recorded.messages(["camera"]) if isinstance(r.data, EncodedPicture)]
                assert {picture.format for picture in pictures} <= {"h264"}
        rows = replay_differs(daemon, dives[0], tmp_path / "out")
        assert int(str(rows["detections"]["compared"])) > 5 and int(str(rows["thrusters"]["compared"])) > 100
    finally:
        done.set()
        sender.join()
        daemon.close()


# ---- time, and the unit -------------------------------------------------------------------------------------------


CLOCK = """
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t which, struct timespec *now) {
    int answer = syscall(SYS_clock_gettime, which, now);
    if (which == CLOCK_REALTIME && !access(getenv("SET_BACK"), F_OK)) now->tv_sec -= 365 * 86400;
    return answer;
}
"""


def test_the_clock_is_set_back(tmp_path: Path) -> None:
    """By a year, while armed and recorded: nothing on the vehicle takes notice, and no dive is lost."""
    compiler, back, library = shutil.which("cc"), tmp_path / "back", tmp_path / "clock.so"
    if compiler is None:
        pytest.skip("needs a C compiler: the clock is set for the daemon alone, by a function in front of libc's")
    command = [compiler, "-shared", "-fPIC", "-x", "c", "-", "-o", str(library)]
    subprocess.run(command, input=CLOCK, text=True, check=True)
    env = {"LD_PRELOAD": str(library), "SET_BACK": str(back)}
    daemon = Daemon(tmp_path / "run", start=False)
    try:
        daemon.start(env)
        daemon.ready()
        daemon.armed(Mode.FOLLOW)
        back.touch()
        t = time.monotonic_ns()
        time.sleep(1.5)
        commands = daemon.said(ThrusterCommand, t)
        assert len(commands) > 50 and all(command.armed and command.mode is Mode.FOLLOW for command in commands)
        assert np.diff([command.t for command in commands]).max() < 5 * TICK + GRACE
        assert daemon.said(Detections, t) and not {"restarted", "hung", "perception_gone"} & set(daemon.events(t))
        daemon.kill("recorderd")  # its next dive gets a name of a year ago
        daemon.event("dive_recovered", t)
        assert daemon.operator().stop().accepted
        assert daemon.stop() == 0
        names = sorted(path.name for path in daemon.dives.glob("*.mcap"))
        assert len(names) == 2 and int(names[0][:4]) == int(names[1][:4]) - 1, names
        found = sorted((info(path) for path in daemon.dives.glob("*.mcap")), key=lambda dive: dive.start_t)
        assert all(dive.complete and dive.duration_s < 60 for dive in found)
        assert abs(found[0].summary.clock_set_s + 365 * 86400) < 5 and not found[1].summary.clock_set_s
    finally:
        daemon.close()


def test_only_names_and_marks_know_the_wall_clock() -> None:
    """A clock that is set changes nothing: nobody on the vehicle reads it but to name a file, to date a mark, to
    note in a dive when it was, or to say before one that it is wrong."""
    readers: set[str] = set()
    for path in (checkout() / "rov").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Attribute) or not isinstance(node.value, ast.Name):
                continue
            wall = {("time", "time"), ("time", "time_ns"), ("time", "localtime"), ("datetime", "now")}
            if (node.value.id, node.attr) in wall or node.attr in ("utcnow", "today"):
                readers.add(path.relative_to(checkout()).as_posix())
    dives = {"rov/dives/retention.py", "rov/dives/recovery.py", "rov/recorderd.py"}
    names = {"rov/bus/keys.py", "rov/bus/session.py", "rov/host/predive.py", "rov/service/log.py"}
    assert readers <= dives | names


def test_no_place_for_frames_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"nowhere: no directory for frames can be made.*: No such file"), home():
        pass


def test_a_name_that_is_there_already_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Frozen(retention.datetime):  # type: ignore[misc]
        @classmethod
        def now(cls, tz: object = None) -> Frozen:
            return cls(2026, 3, 1, 12, 0, 0)

    monkeypatch.setattr(retention, "datetime", Frozen)
    names = []
    for _ in range(3):
        names.append(retention.free_name(tmp_path))
        names[-1].touch()
    assert [name.name for name in names] == [
        "2026-03-01_12-00-00.mcap",
        "2026-03-01_12-00-00-2.mcap",
        "2026-03-01_12-00-00-3.mcap",
    ]


def test_the_unit_is_sound(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    text = (checkout() / "systemd" / "rov.service").read_text()
    unit = tmp_path / "rov.service"
    unit.write_text(text.replace("/opt/rov/.venv/bin/rov", sys.executable))  # it wants the program to be there
    run = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    assert run.returncode == 0 and not run.stderr, run.stderr


# ---- the first seconds, and a console that nobody reads ------------------------------------------------------------


def test_ended_in_its_first_seconds_it_says_nothing_of_its_code(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path / "run", start=False)
    ends = {0.1: signal.SIGTERM, 0.5: signal.SIGINT, 1.0: signal.SIGTERM, 1.6: signal.SIGINT, 2.4: signal.SIGTERM}
    try:
        for seconds, number in ends.items():
            daemon.start()
            assert daemon.process is not None
            time.sleep(seconds)
            began = time.monotonic()
            daemon.process.send_signal(number)
            assert daemon.process.wait(15) in (0, 130, -number) and time.monotonic() - began < 5.0, seconds
        said = daemon.log.read_text()
        assert "Traceback" not in said and "KeyboardInterrupt" not in said, said
    finally:
        daemon.close()


def test_what_dies_too_often_stays_down(tmp_path: Path) -> None:
    """With a console that nobody reads, which stops neither the loop nor the end."""
    daemon = Daemon(tmp_path / "run", start=False)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with pytest.raises(BlockingIOError):
        while True:
            os.write(writing, b"\0")
    os.set_blocking(writing, True)
    try:
        command = [sys.executable, "-m", "rov", "run", str(daemon.path)]
        daemon.process = subprocess.Popen(command, stderr=writing, cwd=daemon.folder, env=environment())
        daemon.wait(Health, lambda health: health.process == "hostd")
        for name in ("recorderd", "pilotd"):
            t = time.monotonic_ns()
            for _ in range(5):
                wait_for(lambda: children(daemon.process.pid, f"rov.{name}"), name)  # type: ignore[union-attr]  # noqa: B023
                daemon.kill(name)
                time.sleep(0.1)
            event = daemon.event("gave_up", t)
            assert event.level == "alarm" and name in event.text and "restarted" in daemon.events(t)
            if name == "recorderd":
                daemon.wait(PilotStatus, lambda status: True, event.t)  # the rest goes on
        assert daemon.process.wait(10) == 1
    finally:
        daemon.close()
        os.close(reading)
        os.close(writing)
