"""The running daemon, tuned and commanded from outside: real processes, a board on a pty, real sockets, real keys."""

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rov.bus import Reader, listen
from rov.bus.public import PublicPublisher
from rov.config.live import Values, values_of
from rov.messages import (
    ActiveSettings,
    Detection,
    Detections,
    Event,
    Message,
    PilotStatus,
    ThrusterCommand,
    VehicleState,
)
from rov.resources import checkout
from tests.commands import rov
from tests.daemon.harness import children, free_port, light_weights, wait_for

pytestmark = [pytest.mark.clock, pytest.mark.daemon]

PATIENCE_S = 60.0
"""For processes to come up on a busy machine."""


@contextlib.contextmanager
def listening(folder: Path, *words: str) -> Iterator[Path]:
    """`rov listen pilot` in the background, and the file of what it prints."""
    folder.mkdir()
    command = [sys.executable, "-m", "rov", "listen", "pilot", *words]
    with (folder / "heard").open("wb") as file:
        process = subprocess.Popen(command, stdout=file, cwd=checkout())
    try:
        yield folder / "heard"
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(20)


class Daemon:
    """`rov run` with a simulated board and without a camera, and what it says."""

    def __init__(self, folder: Path, *, keys: str = ""):
        self.folder, self.path = folder, folder / "rover.toml"
        ports = free_port(), free_port()
        host = "0.0.0.0" if keys else "127.0.0.1"
        self.public, self.commands = (f"tcp://{host}:{port}" for port in ports)
        self.base = (
            f'[camera]\nsource = "/dev/video97"\n[link]\nport = "{folder}/board"\n'
            f'[bus]\npublic = "{self.public}"\n'
            f'commands = "{self.commands}"\nkeys = "{keys}"\n[recording]\nfolder = "{folder}/dives"\n'
            f'[vehicle]\nmax_depth = 30.0\n[perception]\nweights = "{light_weights(folder)}"\n'
        )
        self.save("")
        env = os.environ | {"PYTHONPATH": str(checkout()), "OMP_NUM_THREADS": "1"}
        self.board = subprocess.Popen(
            [sys.executable, "-m", "sim", "board", "--link", str(folder / "board")],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env=env,
        )
        self.process = subprocess.Popen(
            [sys.executable, "-m", "rov", "run", str(self.path)],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.reader: Reader | None = None
        self.heard: list[Message] = []

    def save(self, more: str) -> None:
        """As editors do: into a new file, then in its place."""
        new = self.path.with_suffix(".new")
        new.write_text(self.base + more)
        new.replace(self.path)

    def until(self, done: Callable[[Message], bool], patience_s: float = PATIENCE_S) -> Message:
        """The first message for which this holds."""
        self.reader = self.reader or listen(self.public.replace("0.0.0.0", "127.0.0.1"))
        end = time.monotonic() + patience_s
        while time.monotonic() < end:
            self.reader.wait(50)
            for entry in self.reader.receive():
                self.heard.append(entry.message)
                if done(entry.message):
                    return entry.message
        raise AssertionError([each for each in self.heard if isinstance(each, Event)])

    def event(self, code: str, patience_s: float = PATIENCE_S) -> Event:
        found = self.until(lambda message: isinstance(message, Event) and message.code == code, patience_s)
        assert isinstance(found, Event)
        return found

    def tuning(self, key: str, value: object, patience_s: float = PATIENCE_S) -> Values:
        def holds(message: Message) -> bool:
            return isinstance(message, ActiveSettings) and values_of(message.settings)[key] == value

        found = self.until(holds, patience_s)
        assert isinstance(found, ActiveSettings)
        return values_of(found.settings)

    def close(self) -> None:
        if self.reader:
            self.reader.close()
        for process in (self.process, self.board):
            process.send_signal(signal.SIGINT)
        for process in (self.process, self.board):
            process.wait(20)
        assert self.board.stdin is not None
        self.board.stdin.close()


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path)
    yield daemon
    daemon.close()


def test_tuned_while_running_and_armed(daemon: Daemon) -> None:
    daemon.until(lambda message: isinstance(message, ActiveSettings))
    daemon.until(lambda message: isinstance(message, PilotStatus) and not message.armed)
    daemon.until(lambda message: isinstance(message, VehicleState))

    daemon.save("[control]\ndepth_kp = 2.5\n[steering]\nsize = 0.3\n")
    daemon.tuning("control.depth_kp", 2.5)
    said = {daemon.event("tuned").text for _ in range(2)}
    assert said == {"control.depth_kp is 2.5, was 1.5", "steering.size is 0.3, was 0.25"}

    daemon.save('[control]\ndepth_kp = "much"\n[guard]\ngain = 3\n')
    text = daemon.event("edit_refused").text
    assert "control.depth_kp = 'much'" in text and "guard.gain = 3" in text

    daemon.save("[steering]\nsize = 0.3\n[control]\ndepth_kp = 2.5\nrate_hz = 40\n")
    assert "control.rate_hz is 50.0 and becomes 40.0" in daemon.event("needs_restart").text
    daemon.process.send_signal(signal.SIGHUP)
    daemon.event("unchanged")

    # Armed, a safety key only tightens; killed, pilotd starts from the last good values whatever the file says.
    assert rov("ctl", "arm", "--config", str(daemon.path)).returncode == 0
    daemon.until(lambda message: isinstance(message, PilotStatus) and message.armed)
    daemon.save("[steering]\nsize = 0.3\n[control]\ndepth_kp = 2.5\nrate_hz = 40\n[guard]\ngain = 0.9\n")
    assert "guard.gain stays 0.5 while armed" in daemon.event("tuning_held").text
    assert rov("ctl", "stop", "--config", str(daemon.path)).returncode == 0
    daemon.tuning("guard.gain", 0.9)
    daemon.path.write_text("rubbish")
    daemon.event("edit_refused")
    (pilot,) = children(daemon.process.pid, "rov.pilotd")
    os.kill(pilot, signal.SIGKILL)
    daemon.event("restarted")
    held = daemon.tuning("guard.gain", 0.9)
    assert held["control.depth_kp"] == 2.5
    daemon.until(lambda message: isinstance(message, ThrusterCommand) and not any(message.values))


def test_keys_let_in_and_nothing_else_does(tmp_path: Path) -> None:
    """`rov keys`, the refusal without them, and right, wrong and no keys over the network's sockets."""
    file = tmp_path / "open.toml"
    file.write_text('[vehicle]\nmax_depth = 30\n[bus]\npublic = "tcp://0.0.0.0:5555"\n')
    for words in (("config", "check", str(file)), ("run", str(file))):
        refused = rov(*words)
        assert refused.returncode == 2 and refused.stderr.count("\n") == 1
        assert "bus.public = 'tcp://0.0.0.0:5555' would let anybody on the network in; run `rov keys`" in refused.stderr
    made = rov("keys", "ann", "--folder", str(tmp_path / "keys"))
    assert made.returncode == 0 and f"{tmp_path}/keys/ann" in made.stdout and "--keys" in made.stdout
    assert rov("keys", "ann", "--folder", str(tmp_path / "keys")).returncode == 2
    assert rov("keys", "eve", "--folder", str(tmp_path / "other")).returncode == 0
    (tmp_path / "other/eve/server.key").write_bytes((tmp_path / "keys/ann/server.key").read_bytes())

    daemon = Daemon(tmp_path, keys=str(tmp_path / "keys"))
    client = tmp_path / "client.toml"  # another machine has the addresses, and not the vehicle's keys
    client.write_text(re.sub(r'keys = ".*"', 'keys = ""', daemon.path.read_text()))
    far = ("--config", str(client), "--address", "127.0.0.1")
    try:
        end = time.monotonic() + PATIENCE_S
        while (right := rov("ctl", "stop", *far, "--keys", str(tmp_path / "keys/ann"))).returncode:
            assert time.monotonic() < end, right.stderr
        assert right.stdout == "stop: done: neutral and disarmed\n"
        assert "secret keys" in rov("ctl", "stop", *far, "--keys", str(tmp_path)).stderr
        ann, eve = ("--keys", str(tmp_path / "keys/ann")), ("--keys", str(tmp_path / "other/eve"))
        with listening(tmp_path / "none", *far) as nothing, listening(tmp_path / "right", *far, *ann) as heard:
            for wrong in ((), eve):
                shut_out = rov("ctl", "stop", *far, *wrong)
                assert shut_out.returncode == 2 and "does it know these keys" in shut_out.stderr
            wait_for(lambda: '"mode":"manual"' in heard.read_text(), "what the right keys open", PATIENCE_S)
            time.sleep(1.0)  # the others began sooner
            assert nothing.read_text() == ""
    finally:
        daemon.close()


def test_the_client_in_the_readme_works_as_it_is_printed(tmp_path: Path) -> None:
    (text,) = [
        block
        for block in re.findall(r"```python\n(.*?)```", (checkout() / "docs" / "client.md").read_text(), re.DOTALL)
        if "zmq" in block
    ]
    port = free_port()
    assert text.count("tcp://127.0.0.1:5555") == 1 and len(text.splitlines()) <= 10
    public = PublicPublisher(f"tcp://127.0.0.1:{port}")
    script = tmp_path / "client.py"
    script.write_text(text.replace("5555", str(port)))
    found = Detections(
        t=1, frame_id=7, frame_t=1, width=4, height=3, items=(Detection("fish", 0.876, (1.0, 2.0, 3.0, 3.0)),)
    )
    with subprocess.Popen([sys.executable, "-u", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        end, said = time.monotonic() + PATIENCE_S, b""
        while b"\n" not in said:
            assert time.monotonic() < end and process.poll() is None
            public.publish(Event(t=1, level="info", source="test", code="x", text="not asked for"))
            public.publish(found)
            time.sleep(0.05)
            if select.select([process.stdout], [], [], 0)[0]:
                said += os.read(process.stdout.fileno(), 1000)
        process.kill()
    public.close()
    assert said.decode().splitlines()[0] == "7 fish 0.88 [1.0, 2.0, 3.0, 3.0]"
