"""The two programs that docs/client.md prints, as they are printed, with the whole daemon in the simulated pool."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rov import Client, Endpoints, Message, Mode, PilotStatus, Setpoint, ThrusterCommand, VehicleState
from rov.resources import checkout

pytestmark = [pytest.mark.clock, pytest.mark.daemon]

PATIENCE_S = 60.0
RATE_HZ = 8.0
"""Slower, a setpoint would be stale (300 ms) before the next one: on the slowest machine that was met, a picture of the
usual size takes 104 ms to draw and 104 ms to look at with the usual detector. So it is a small one and the light one.
"""
READY_S = 4.0
"""Follow needs 3 s of pictures at their rate."""
GAP_S = 0.25
"""Between setpoints of such pictures, on a computer that keeps up."""


class Sea:
    """The daemon in a simulated pool, and everything it publishes."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.endpoints = Endpoints(f"ipc://{folder}/public", f"ipc://{folder}/commands")
        settings = {
            "bus.public": self.endpoints.public, "bus.commands": self.endpoints.commands, "perception.rate_hz": RATE_HZ,
            "perception.weights": "models/light.safetensors", "vehicle.max_depth": 20,
            "recording.folder": folder / "dives",
        }  # fmt: skip
        command = [
            sys.executable,
            "-m",
            "sim",
            "run",
            "pool",
            "--daemon",
            "--seed",
            "1",
            "--size",
            "160x120",
            "--out",
            str(folder / "dives"),
        ]
        for key, value in settings.items():
            command += ["--set", f"{key}={value}"]
        self.log = (folder / "log.txt").open("wb")
        self.process = subprocess.Popen(command, cwd=checkout(), stderr=self.log, stdout=self.log)
        self.client = Client(self.endpoints)
        self.inbox = self.client.session.inbox((), lambda: None)
        self.seen: list[Message] = []

    def ready(self) -> None:
        """Wait until nobody commands it — a program that failed left nobody there to leave — and perception keeps its
        rate."""
        self.client.wait_for(PilotStatus, lambda status: not status.operator, timeout_s=PATIENCE_S)
        began = last = time.monotonic()
        for _ in self.client.messages(Setpoint, seconds=PATIENCE_S):
            now = time.monotonic()
            began, last = (began if now - last < GAP_S else now), now
            if now - began > READY_S:
                return
        pytest.fail(f"no {READY_S} s of setpoints without a gap of {GAP_S} s in {PATIENCE_S} s")

    def program(self, text: str) -> str:
        """Run a program of the page, and receive what is published meanwhile. Returns what it prints."""
        self.listen()
        self.seen.clear()
        here = f'Client(Endpoints("{self.endpoints.public}", "{self.endpoints.commands}"))'
        text = re.sub(r"\bClient\(\)", here, text).replace("from rov import ", "from rov import Endpoints, ")
        path = self.folder / "program.py"
        path.write_text(text.replace("AsyncClient()", f"Async{here}"))
        environment = os.environ | {"PYTHONPATH": str(checkout())}
        with subprocess.Popen([sys.executable, path], env=environment, stdout=subprocess.PIPE, text=True) as process:
            end = time.monotonic() + PATIENCE_S
            while process.poll() is None:
                assert time.monotonic() < end
                self.listen()
                time.sleep(0.05)
            assert process.stdout is not None
            said = process.stdout.read()
        assert process.returncode == 0, (self.folder / "log.txt").read_text()[-3000:]
        last = time.monotonic_ns()
        while not any(isinstance(each, PilotStatus) and each.t > last for each in self.seen):
            self.listen()
            time.sleep(0.02)
        return said

    def listen(self) -> None:
        self.seen += [entry.message for entry in self.inbox.take()]

    def modes(self) -> list[tuple[bool, Mode]]:
        """(armed, mode) as published, without repetitions."""
        found = [(each.armed, each.mode) for each in self.seen if isinstance(each, PilotStatus)]
        return [each for i, each in enumerate(found) if i == 0 or each != found[i - 1]]

    def close(self) -> None:
        self.client.close()
        self.process.send_signal(signal.SIGINT)
        self.process.wait(20)
        self.log.close()


@pytest.fixture(scope="module")
def sea(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sea]:
    sea = Sea(tmp_path_factory.mktemp("sea"))
    try:
        yield sea
    finally:
        sea.close()


def printed(word: str) -> str:
    """The program of the page that uses this class."""
    blocks = re.findall(r"```python\n(.*?)```", (checkout() / "docs" / "client.md").read_text(), re.DOTALL)
    return next(block for block in blocks if re.search(rf"\b{word}\(\)", block))


def test_ten_lines_arm_hold_follow_and_stop(sea: Sea) -> None:
    sea.ready()
    text = printed("Client")
    assert len([line for line in text.splitlines() if line.strip()]) <= 11
    said = sea.program(text.replace("seconds=20", "seconds=6"))
    assert "rad to starboard" in said, said
    modes = sea.modes()
    assert (True, Mode.HOLD) in modes and (True, Mode.FOLLOW) in modes, modes
    assert modes.index((True, Mode.HOLD)) < modes.index((True, Mode.FOLLOW)) and not modes[-1][0], modes
    commands = [each for each in sea.seen if isinstance(each, ThrusterCommand)]
    followed = [each for each in commands if each.armed and each.mode is Mode.FOLLOW]
    assert sum(each.frame_id >= 0 and any(each.values) for each in followed) > 50, "pictures move it, for a second"
    assert not any(commands[-1].values) and not commands[-1].armed


def test_the_same_on_asyncio(sea: Sea) -> None:
    sea.ready()
    before = sea.client.wait_for(VehicleState)
    said = sea.program(printed("AsyncClient"))
    assert re.fullmatch(r"-?\d+\.\d m\n", said)
    states = [each for each in sea.seen if isinstance(each, VehicleState)]
    turned = max(abs(each.rates[2]) for each in states)
    assert turned > 0.1 and states[-1].yaw != before.yaw, "rad/s, by its own gyro"
    assert not sea.modes()[-1][0]
