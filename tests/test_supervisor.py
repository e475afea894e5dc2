"""The supervisor's loop with small commands in the place of its processes: what dies, hangs, stays, or cannot start."""

from __future__ import annotations

import os
import re
import resource
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rov import supervisor
from rov.bus import Publisher
from rov.camerad import RING_PAUSE_NS, RingOutput
from rov.config.schema import parse
from rov.config.watcher import ConfigWatcher
from rov.errors import UserError
from rov.media.camera import Camera
from rov.media.files import TimedFrame
from rov.media.ring import RingWriter
from rov.media.sources import parse_camera_source
from rov.messages import Event, Frame, Health, Message
from rov.resources import checkout
from rov.service import external_command
from rov.service.child_process import ChildProcess, ChildSpec
from rov.service.stderr_writer import StderrWriter
from rov.service.systemd import Systemd
from rov.supervisor import Signals, Supervisor
from rov.validate import load_checked

SLEEP = "sleep 300"


def until(found: Callable[[], Any], seconds: float = 10.0) -> Any:
    end = time.monotonic() + seconds
    while not (answer := found()):
        assert time.monotonic() < end, "not in time"
        time.sleep(0.01)
    return answer


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


class House:
    """A supervisor whose processes are shell commands."""

    def __init__(self, root: Path, **commands: str):
        self.said: list[tuple[str, str]] = []
        path = root / "saved.toml"
        path.write_text("[vehicle]\nmax_depth = 10\n")
        saved = ConfigWatcher(path, parse(path.read_text()), root, load_checked)
        peers = {"camerad": None}
        self.lines: list[str] = []
        self.supervisor = Supervisor(saved, root, peers, SIGNALS)
        self.children = self.supervisor.children
        for name, each in self.children.items():
            each.command = ["/bin/sh", "-c", commands.get(name, SLEEP)]
        self.supervisor.publish_event = lambda level, code, text: self.said.append((code, text))  # type: ignore[method-assign]

    def turn(self, now: float | None = None) -> None:
        """What one turn of the loop does with processes, at `now`."""
        now = time.monotonic() if now is None else now
        self.supervisor.start_due(now)
        self.supervisor.kill_hung(now)
        self.supervisor.reap(now)

    def codes(self, name: str = "") -> list[str]:
        return [code for code, text in self.said if name in text]

    def close(self) -> None:
        for each in self.children.values():
            each.kill(0.0)
        until(lambda: not any(each.alive for each in self.children.values()))
        self.supervisor.close()


SIGNALS = Signals.__new__(Signals)


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., House]]:
    made: list[House] = []

    def make(**commands: str) -> House:
        made.append(House(tmp_path, **commands))
        lines = made[0].lines
        monkeypatch.setattr(supervisor, "report", lambda *parts: lines.append("{} {} {}: {}".format(*parts)))
        made[0].supervisor.began -= 2 * supervisor.PILOT_FIRST_S  # all of them are due
        return made[0]

    yield make
    for each in made:
        each.close()


# ---- who speaks ----------------------------------------------------------------------------------------------------


def test_a_name_that_nobody_has_is_nobody_and_ends_nothing(house: Callable[..., House]) -> None:
    h = house()
    h.turn()
    now = time.monotonic_ns()
    for name in ("gst_camera", "", "pilotd", "supervisor", "x" * 1000):
        h.supervisor.handle(Health(t=now, process=name, rate_hz=1.0, latency_ms=0.0))
    assert all(each.health_t is None for each in h.children.values())
    h.children["camerad"].foreign = True
    h.supervisor.handle(Health(t=now, process="gst_camera", rate_hz=1.0, latency_ms=0.0))
    assert [name for name, each in h.children.items() if each.health_t] == ["camerad"]


def test_who_gives_frames_is_the_camera_whatever_its_name(house: Callable[..., House]) -> None:
    h = house()
    h.supervisor.handle(Frame(t=1, frame_id=0, frame_t=1, width=1, height=1, slot=0))  # before anything was started
    h.turn()
    h.supervisor.handle(Frame(t=time.monotonic_ns(), frame_id=0, frame_t=1, width=1, height=1, slot=0))
    assert h.children["camerad"].health_t is not None and h.children["recorderd"].health_t is None


def test_what_comes_from_inside_is_received(house: Callable[..., House], tmp_path: Path) -> None:
    h = house()
    pub = Publisher("camerad", tmp_path)
    try:
        event = Event(t=time.monotonic_ns(), level="info", source="recorderd", code="recording", text="recording to a")
        pub.publish(event)
        until(lambda: h.supervisor.receive() or h.lines)  # type: ignore[func-returns-value]
        assert h.lines == ["info recorderd recording: recording to a"]
        assert h.supervisor.summary() == "stopped"  # there is no such file
        dive = tmp_path / "a.mcap"
        dive.write_bytes(b"x" * 1_500_000)
        h.supervisor.handle(Event(t=0, level="info", source="r", code="recording", text=f"recording to {dive}"))
        assert h.supervisor.summary() == f"stopped; {dive}, 0 s, 1.5 MB"
    finally:
        pub.close()


# ---- what dies, hangs, or cannot start -----------------------------------------------------------------------------


def test_what_dies_again_and_again_rests_longer_and_longer_and_is_never_forgotten(house: Callable[..., House]) -> None:
    h = house(camerad="exit 1")
    camera = h.children["camerad"]
    waits: list[float] = []
    now = time.monotonic()
    for _ in range(7):
        h.turn(now)
        until(lambda: camera.pid is not None and (camera.code is not None or not camera.alive))
        h.turn(now)
        if camera.due is not None:
            waits.append(camera.due - now)
            now = camera.due
    assert waits[:3] == pytest.approx([0.5, 1.0, 2.0], abs=0.01) and waits[3:] == pytest.approx([60.0] * len(waits[3:]))
    assert h.codes("camerad") == ["restarted"] * 4 + ["gave_up"]
    assert "tried again" in dict(h.said)["gave_up"]
    assert not h.supervisor.failed
    camera.command = ["/bin/sh", "-c", SLEEP]
    h.turn(now)
    camera.receive_health(int((now + 1) * 1e9), now)
    h.turn(now)
    assert h.codes("camerad")[-1] == "gave_up_over" and not camera.given_up


def test_a_vital_one_is_started_at_once_and_ends_all(house: Callable[..., House]) -> None:
    h = house(pilotd="exit 3")
    pilot = h.children["pilotd"]
    h.turn()
    until(lambda: not pilot.alive and (h.turn() or h.supervisor.failed))  # type: ignore[func-returns-value]
    assert h.codes("pilotd") == ["restarted"] * 4 + ["gave_up"] and "ended with 3" in h.said[-1][1]


def test_what_strangers_may_kill_is_started_without_end(house: Callable[..., House]) -> None:
    h = house(commandd="exit 3", publicd="exit 3")
    front = h.children["commandd"]
    now = time.monotonic()
    for _ in range(20):
        until(lambda: not front.alive)
        h.turn(now)
        now += 0.4
        h.turn(now)
    assert not front.given_up and not h.supervisor.failed and "gave_up" not in h.codes()
    assert len(h.codes("commandd")) >= 10


def test_a_flood_of_events_is_a_few_lines_a_second(house: Callable[..., House]) -> None:
    h = house()
    for i in range(500):
        h.supervisor.handle(Event(t=0, level="alarm", source="pilotd", code="stopped", text=str(i)))
    assert len(h.lines) == supervisor.PRINTED_PER_S
    h.supervisor.printed_t -= 1.1
    h.supervisor.handle(Event(t=0, level="alarm", source="pilotd", code="stopped", text="the last"))
    assert "480 more" in h.lines[-2] and "the last" in h.lines[-1]


def test_what_cannot_be_started_is_tried_again(house: Callable[..., House]) -> None:
    h = house()
    h.children["hostd"].command = ["/nowhere/at/all"]
    h.turn()
    h.turn()
    assert not h.children["hostd"].alive and not h.said
    h.children["hostd"].command = ["/bin/sh", "-c", SLEEP]
    h.turn(time.monotonic() + 10)
    assert h.said == [("restarted", "hostd could not be started (No such file or directory): started again")]
    assert h.children["hostd"].alive


def test_a_command_that_vanishes_ends_with_a_sentence(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    running = ChildProcess(ChildSpec("camerad", False, 1.0), ["a", "b"], peer=["/nowhere/camera"])
    running.start(time.monotonic())
    until(lambda: not running.alive)
    assert running.why == "ended with 127"
    assert "/nowhere/camera: cannot be run: No such file or directory" in capfd.readouterr().err


def test_what_was_killed_and_stays_is_said_and_holds_nothing_up(
    house: Callable[..., House], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a process in a driver that hangs: no signal ends it."""
    h = house()
    h.turn()
    now = time.monotonic()
    sent: list[int] = []
    with monkeypatch.context() as deaf:
        deaf.setattr(ChildProcess, "_signal", lambda self, number: sent.append(number))
        h.children["perceptiond"].health_t = now - 11
        h.turn(now)
        h.turn(now + 1)
        assert h.codes("perceptiond") == ["hung"] and sent == [signal.SIGKILL]
        h.turn(now + 3)
        h.turn(now + 4)
        assert h.codes("perceptiond") == ["hung", "stuck"]
        deaf.setattr(supervisor, "PATIENCE_S", 0.1)
        deaf.setattr(supervisor, "LAST_PATIENCE_S", 0.1)
        deaf.setattr(supervisor, "PUBLIC_PATIENCE_S", 0.1)
        began = time.monotonic()
        h.supervisor.stop()
        assert time.monotonic() - began < 0.3 + 3 * supervisor.GONE_S + 0.5
    h.children["perceptiond"].kill(now)
    until(lambda: not h.children["perceptiond"].alive)
    h.turn(now + 5)
    assert h.codes("perceptiond") == ["hung", "stuck", "restarted"]


def test_the_recorder_has_its_own_time_at_the_end(
    house: Callable[..., House], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others hang for all of theirs; the recorder needs a second, and has it."""
    monkeypatch.setattr(supervisor, "PATIENCE_S", 0.3)
    done = tmp_path / "closed"
    h = house(
        perceptiond="trap '' TERM INT; while :; do sleep 0.05; done",
        recorderd=f"trap 'sleep 1; echo well > {done}; exit 0' TERM; while :; do sleep 0.05; done",
    )
    h.turn()
    time.sleep(0.3)
    h.supervisor.stop()
    assert done.read_text() == "well\n" and h.children["recorderd"].code == 0
    assert h.children["perceptiond"].code == -signal.SIGKILL


def test_all_patience_together_is_less_than_the_unit_has() -> None:
    unit = (checkout() / "systemd" / "rov.service").read_text()
    match = re.search(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    assert match
    ours = supervisor.PATIENCE_S + supervisor.LAST_PATIENCE_S + 2 * supervisor.GONE_S
    assert ours < float(match[1]) - 2
    assert re.search(r"^LimitNOFILE=\d{5,}$", unit, re.MULTILINE)


# ---- orphans -------------------------------------------------------------------------------------------------------


FAMILY = "sleep 300 & echo $! >> {pids}; sh -c 'sleep 300 & echo $! >> {pids}; wait' & echo $$ >> {pids}; wait"


def family(pids: Path, count: int = 3) -> list[int]:
    return until(lambda: pids.exists() and len(found := list(map(int, pids.read_text().split()))) == count and found)


def test_nobody_of_a_command_outlives_the_supervisor(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"""
        import time
        from rov.service.child_process import ChildProcess, ChildSpec
        spec = ChildSpec("camerad", False, 1.0)
        ChildProcess(spec, ["x"], peer=["sh", "-c", {FAMILY.format(pids=pids)!r}]).start(0.0)
        time.sleep(300)
    """
    driver = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], cwd=checkout())
    try:
        members = family(pids)
    finally:
        driver.kill()
        driver.wait()
    until(lambda: all(map(gone, members)), 3.0)


@pytest.mark.parametrize("foreign", [False, True])
def test_what_a_process_leaves_behind_ends_with_it(tmp_path: Path, foreign: bool) -> None:
    pids = tmp_path / "pids"
    words = ["/bin/sh", "-c", f"sleep 300 & echo $! > {pids}; sleep 0.2; exit 7"]
    running = ChildProcess(ChildSpec("camerad", False, 1.0), [], peer=words if foreign else None)
    if not foreign:
        running.command = words
    running.start(time.monotonic())
    (left,) = family(pids, 1)
    assert not gone(left)
    until(lambda: not running.alive)
    assert running.why == "ended with 7"
    until(lambda: gone(left), 3.0)


def test_a_command_in_a_childs_place_is_told_its_parent_and_ends_at_ctrl_c(tmp_path: Path) -> None:
    told = tmp_path / "told"
    script = (
        f"import os, sys, time; open({str(told)!r}, 'w').write(f'{{os.getppid()}} {{sys.argv[1:]}}'); time.sleep(300)"
    )
    running = ChildProcess(ChildSpec("camerad", False, 1.0), ["c.toml", "/run"], peer=[sys.executable, "-c", script])
    running.start(time.monotonic())
    until(lambda: told.exists() and told.read_text())
    assert told.read_text() == f"{running.pid} ['c.toml', '/run', '{running.pid}']"
    running.end()
    until(lambda: not running.alive, 3.0)


def test_nobody_of_a_pipe_outlives_its_camera(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = tmp_path / "camera.sh"
    script.write_text(FAMILY.format(pids=pids))
    camera = Camera(parse_camera_source(f"pipe:10x10:sh {script}"))
    camera.latest(-1, 0.1)
    members = family(pids)
    camera.close()
    until(lambda: all(map(gone, members)), 3.0)


def test_a_camera_that_fails_says_that_it_is_the_camera() -> None:
    camera = Camera(parse_camera_source("pipe:10x10:false"))
    events: list[Event] = []
    until(lambda: camera.latest(-1, 0.1) or events.extend(camera.events()) or events)  # type: ignore[func-returns-value]
    assert events[0].text.startswith("camera false: the command ended")
    camera.close()


def test_nobody_of_a_pipe_outlives_a_camera_process_that_is_killed(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = tmp_path / "camera.sh"
    script.write_text(FAMILY.format(pids=pids))
    code = f"""
        from rov.media.camera import Camera
        from rov.media.sources import parse_camera_source
        camera = Camera(parse_camera_source("pipe:10x10:sh {script}"))
        while True: camera.latest(-1, 0.1)
    """
    driver = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], cwd=checkout())
    try:
        members = family(pids)
    finally:
        driver.kill()
        driver.wait()
    until(lambda: all(map(gone, members)), 3.0)


def test_what_cannot_be_a_command_is_one_sentence() -> None:
    for source in ("process:", "process:  ", "process:''", "process:a 'b"):
        with pytest.raises(UserError, match="camera.source = process:"):
            supervisor.peer_of(source)
    assert supervisor.peer_of("0") is None and supervisor.peer_of("process:a 'b c'") == ["a", "b c"]
    with pytest.raises(UserError, match="no program 'typo-of-a-program'"):
        external_command.check("x", ["typo-of-a-program"])


# ---- descriptors, systemd, the console -------------------------------------------------------------------------------


@pytest.fixture
def exhausted() -> Iterator[Callable[[], None]]:
    """Takes all descriptors that this process may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []

    def take() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 10, hard))
        with pytest.raises(OSError, match="Too many open files"):
            while True:
                taken.append(os.dup(0))

    yield take
    for fd in taken:
        os.close(fd)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_without_descriptors_the_watchdog_is_fed_and_processes_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exhausted: Callable[[], None]
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        systemd = Systemd()
        running = ChildProcess(ChildSpec("hostd", False, 1.0), [])
        running.command = ["/bin/sh", "-c", "exit 5"]
        exhausted()
        assert systemd.notify("WATCHDOG=1") and manager.recv(100) == b"WATCHDOG=1"
        for _ in range(2):
            running.start(time.monotonic())
            until(lambda: not running.alive)
            assert running.why == "ended with 5"
        systemd.close()


def test_a_manager_that_does_not_listen_holds_nothing_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    systemd = Systemd()
    assert not systemd.notify("READY=1")  # nobody is there
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        assert any(not systemd.notify("x" * 1000) for _ in range(100_000))  # its queue is full
        while manager.recv(2000) and systemd.notify("READY=1") is False:
            pass
    systemd.close()


def test_processes_may_have_as_many_descriptors_as_there_are() -> None:
    code = "import resource; from rov.service.process import *; raise_descriptor_limit(); print(*resource.getrlimit(7))"
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    run = subprocess.run(
        [sys.executable, "-c", code],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard)),
        capture_output=True,
        text=True,
        check=True,
        cwd=checkout(),
    )
    assert int(run.stdout.split()[0]) == (65536 if hard == resource.RLIM_INFINITY else min(hard, 65536))


def test_a_console_that_nobody_reads_holds_nothing_up() -> None:
    reading, writing = os.pipe()
    console = StderrWriter(writing)
    began = time.monotonic()
    for i in range(20_000):
        console.write_line(f"line {i} of many, each long enough to fill a pipe of 64 kB soon")
    assert time.monotonic() - began < 2.0
    console.close()
    assert time.monotonic() - began < 3.0 and console.dropped
    text = ""
    while "line 900 " not in text or not console.lines.empty():
        text += os.read(reading, 1 << 16).decode()
    console.close()
    assert not console.thread.is_alive()
    os.close(reading)
    os.close(writing)


def test_a_console_says_all_where_somebody_reads() -> None:
    reading, writing = os.pipe()
    console = StderrWriter(writing)
    console.write_line("one")
    console.write_line("two [/red] \ud800")
    console.close()
    os.close(writing)
    with os.fdopen(reading) as file:
        assert file.read() == "one\ntwo [/red] \\ud800\n"


# ---- the ring ------------------------------------------------------------------------------------------------------


def test_no_room_for_the_frame_ring_is_said_once_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import numpy as np

    sent: list[Message] = []

    class Published:
        def publish(self, message: Message) -> None:
            sent.append(message)

    def full(fd: int, offset: int, length: int) -> None:
        raise OSError(28, "No space left on device")

    ring = RingOutput(tmp_path / "frames.ring", Published())  # type: ignore[arg-type]
    shot = TimedFrame(0, 5, np.zeros((4, 4, 3), np.uint8))
    with monkeypatch.context() as patched:
        patched.setattr(os, "posix_fallocate", full)
        assert [ring.write(shot, i * RING_PAUSE_NS // 4) for i in range(20)] == [None] * 20
    assert [each.code for each in sent] == ["no_ring"]  # type: ignore[union-attr]
    assert ring.write(shot, 6 * RING_PAUSE_NS) == 0 and isinstance(ring.writer, RingWriter)
    assert [each.code for each in sent] == ["no_ring", "no_ring_over"]  # type: ignore[union-attr]
    ring.close()


SIGNALLED = """
import signal
from rov.service.process import Flag
flag = Flag()
signal.signal(signal.SIGTERM, lambda *_: flag.set())
print("ready", flush=True)
while not flag.wait(0.01): pass
for _ in range(200): signal.raise_signal(signal.SIGTERM)
"""


def test_a_flag_ends_a_process_however_often_it_is_set() -> None:
    with subprocess.Popen([sys.executable, "-c", SIGNALLED], cwd=checkout(), stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == b"ready\n"
            for _ in range(5):
                process.terminate()
            assert process.wait(10) == 0
        finally:
            process.kill()
