"""The simulated board keeps its contract, and its faults are the ones it says."""

import json
import math
import os
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pymavlink.dialects.v20 import common

from rov.link.mavlink import MS, MavlinkFrame, Packer, Parser
from sim.board import SimulatedBoard, run_console_command
from sim.wire import NoisyWire, Pty

ROOT = Path(__file__).parent.parent
ARM = common.MAV_CMD_COMPONENT_ARM_DISARM


class Companion:
    """Speaks to a board without any link between: exact times, exact frames."""

    def __init__(self, **options: object):
        self.board = SimulatedBoard(noise=False, **options)  # type: ignore[arg-type]
        self.packer, self.parser = Packer(1, 191), Parser()
        self.t = 10_000 * MS
        self.heard: list[MavlinkFrame] = []
        self.wait(0)

    def wait(self, ms: int, data: bytes = b"") -> list[MavlinkFrame]:
        """Let time pass in steps of 1 ms; `data` arrives first. Returns what the board said."""
        frames = self.board.step(self.t, data)
        for _ in range(ms):
            self.t += MS
            frames += self.board.step(self.t)
        self.heard = self.parser.feed(b"".join(frames))
        return self.heard

    def command(self, *values: float, stamp: int | None = None, group: int = 0) -> bytes:
        controls = [*values, *[0.0] * 8][:8]
        stamp = self.t // 1000 if stamp is None else stamp
        return self.packer.pack(common.MAVLink_set_actuator_control_target_message(stamp, group, 1, 1, controls))

    def ask(self, arm: float) -> bytes:
        return self.packer.pack(common.MAVLink_command_long_message(1, 1, ARM, 0, arm, 0, 0, 0, 0, 0, 0))

    def arm(self) -> None:
        self.wait(1, self.command())
        self.wait(1, self.ask(1))
        assert self.board.armed

    def said(self, kind: type) -> list:
        return [frame.message for frame in self.heard if isinstance(frame.message, kind)]


def test_boots_neutral_and_disarmed_and_says_so() -> None:
    companion = Companion()
    beat = companion.said(common.MAVLink_heartbeat_message)[0]
    assert not beat.base_mode & common.MAV_MODE_FLAG_SAFETY_ARMED
    assert beat.system_status == common.MAV_STATE_STANDBY
    companion.wait(5, companion.command(0.5))
    assert not companion.board.outputs.any()
    assert companion.said(common.MAVLink_actuator_control_target_message)[0].controls == [0.0] * 8


def test_arms_only_while_fed_and_near_neutral() -> None:
    companion = Companion()
    for feed in (b"", companion.command(0.02)):
        companion.wait(1, feed + companion.ask(1))
        (answer,) = companion.said(common.MAVLink_command_ack_message)
        assert answer.result == common.MAV_RESULT_TEMPORARILY_REJECTED and not companion.board.armed
    companion.wait(1, companion.command(0.01) + companion.ask(1))
    assert companion.said(common.MAVLink_command_ack_message)[0].result == common.MAV_RESULT_ACCEPTED
    assert companion.board.armed


def test_goes_neutral_and_disarms_500_ms_after_the_last_command() -> None:
    companion = Companion()
    companion.arm()
    last = companion.t
    companion.wait(499, companion.command(0.5, -0.25))
    assert companion.board.outputs[:2].tolist() == [0.5, -0.25]
    companion.wait(1)
    assert not companion.board.armed and not companion.board.outputs.any()
    fell = companion.board.applied[-1]
    assert (fell.because, fell.t - last) == ("watchdog", 500 * MS)
    assert companion.said(common.MAVLink_heartbeat_message)[0].system_status == common.MAV_STATE_CRITICAL
    assert companion.said(common.MAVLink_actuator_control_target_message)[-1].controls == [0.0] * 8
    companion.wait(1, companion.command(0.5))
    assert not companion.board.outputs.any(), "commands alone do not wake it"


@pytest.mark.parametrize("what", ["heartbeats", "repeated", "older", "nan", "large", "foreign"])
def test_only_valid_advancing_commands_feed_the_watchdog(what: str) -> None:
    companion = Companion()
    companion.arm()
    start = companion.t
    first = companion.command(0.1)
    companion.wait(1, first)
    beat = common.MAVLink_heartbeat_message(18, 8, 0, 0, 4, 3)
    other = common.MAVLink_set_actuator_control_target_message
    while companion.board.armed and companion.t < start + 600 * MS:
        stamp = companion.t // 1000
        companion.wait(
            10,
            {
                "heartbeats": companion.packer.pack(beat),
                "repeated": first,
                "older": companion.command(0.1, stamp=start // 1000 - 5),
                "nan": companion.command(math.nan),
                "large": companion.command(1.01),
                "foreign": companion.packer.pack(other(stamp, 0, 2, 1, [0.1] * 8)),
            }[what],
        )
    assert companion.board.applied[-1].because == "watchdog"
    assert companion.board.applied[-1].t == start + 500 * MS


def test_more_than_eight_thrusters_take_two_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    companion = Companion()
    companion.board.motors, companion.board.groups = 10, 2
    monkeypatch.setattr(companion.board.vessel, "mixer", np.zeros((10, 6)))
    companion.board.restart()
    companion.wait(1, companion.command() + companion.ask(1))
    assert not companion.board.armed, "one group is missing"
    companion.wait(1, companion.command(group=0) + companion.command(group=1) + companion.ask(1))
    assert companion.board.armed
    start = companion.t
    companion.wait(1, companion.command(0.1, group=0) + companion.command(0.2, 0.3, group=1))
    assert companion.board.outputs.tolist() == pytest.approx([0.1, *[0] * 7, 0.2, 0.3])
    while companion.board.armed:
        companion.wait(1, companion.command(0.1, group=0))
    assert companion.t - start == 500 * MS, "each group has its own watchdog"


def test_rates_on_the_wire() -> None:
    companion = Companion()
    companion.wait(1000)
    counts = dict.fromkeys((0, 30, 137, 29, 147, 252, 140), 0)
    for frame in companion.heard:
        counts[frame.message.get_msgId()] += 1
    assert counts == {0: 5, 30: 50, 137: 50, 29: 2, 147: 2, 252: 2, 140: 10}


def test_the_vehicle_rises_when_nothing_pushes_and_dives_when_pushed() -> None:
    companion = Companion(depth=2.0)
    companion.wait(3000)
    assert 1.0 < companion.board.vessel.depth < 1.99
    # Straight down on a Heavy is its vertical motors astern: the weak way, 16 V, half command: 4 × 14.1 N - 2 N.
    companion.arm()
    for _ in range(400):
        companion.wait(20, companion.command(0, 0, 0, 0, 0.5, 0.5, 0.5, 0.5))
    speed = companion.board.vessel.speed
    assert abs(speed[2]) > 0.8 and np.allclose(speed[[0, 1, 3, 4, 5]], 0.0, atol=1e-9)
    # At its final speed drag and thrust are equal (to the 5 ms step).
    push = abs(
        float((companion.board.vessel.curve.force(companion.board.outputs, 16.0) @ companion.board.vessel.mixer)[2])
    )
    assert 5.18 * abs(speed[2]) + 36.99 * speed[2] ** 2 == pytest.approx(push + math.copysign(2.0, -speed[2]), rel=0.02)


def test_line_faults_do_what_they_say() -> None:
    frames = [Packer(1, 1).pack(common.MAVLink_heartbeat_message(i, 8, 0, 0, 3, 3)) for i in range(4)]
    assert NoisyWire().carry(frames, 0) == b"".join(frames)
    assert NoisyWire(drop=1).carry(frames, 0) == NoisyWire(mute=True).carry(frames, 0) == b""
    assert NoisyWire(repeat=1).carry(frames, 0) == b"".join(frame * 2 for frame in frames)
    assert NoisyWire(swap=1).carry(frames, 0) == b"".join(frames[i] for i in (1, 0, 3, 2))
    assert NoisyWire(cut=1).carry(frames[:1], 0) == frames[0][: len(frames[0]) // 2]
    late = NoisyWire(delay=0.25)
    assert late.carry(frames, 0) == late.carry([], 249 * MS) == b""
    assert late.carry([], 250 * MS) == b"".join(frames)
    spoiled = NoisyWire(corrupt=1).carry(frames[:1], 0)
    difference = int.from_bytes(spoiled, "big") ^ int.from_bytes(frames[0], "big")
    assert difference.bit_count() == 1


def test_orders_that_make_no_sense_are_said() -> None:
    board, line, pty = SimulatedBoard(), NoisyWire(), Pty()
    assert run_console_command("drop 0.5", board, line, pty) == "" and line.drop == 0.5
    assert run_console_command("battery_v none", board, line, pty) == "" and board.battery_v is None
    assert "not a number" in run_console_command("drop often", board, line, pty)
    assert "not known" in run_console_command("explode 1", board, line, pty)
    assert "lacks" in run_console_command("drop", board, line, pty)
    pty.unplug()


@pytest.fixture
def process(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path, Path]]:
    """`python -m sim board`, its link and its record."""
    link, record = tmp_path / "board", tmp_path / "record.jsonl"
    command = [sys.executable, "-W", "error", "-m", "sim", "board", "--link", str(link), "--record", str(record)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe) as running:
        assert running.stdout is not None
        assert running.stdout.readline().decode().strip() == str(link)
        yield running, link, record
        running.kill()


def read(fd: int, enough: int) -> bytes:
    data = b""
    while len(data) < enough and select.select([fd], [], [], 5)[0]:
        data += os.read(fd, 4096)
    return data


def test_as_a_process(process: tuple[subprocess.Popen[bytes], Path, Path]) -> None:
    running, link, record = process
    assert running.stdin is not None and running.stderr is not None
    fd = os.open(link, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    termios.tcflush(fd, termios.TCIFLUSH)
    assert {frame.message.get_type() for frame in Parser().feed(read(fd, 3000))} >= {"HEARTBEAT", "ATTITUDE"}
    companion = Companion()
    companion.t = time.monotonic_ns()
    os.write(fd, companion.command() + companion.ask(1))
    while '"because": "armed"' not in record.read_text():
        time.sleep(0.01)
    running.stdin.write(b"unplug\nnonsense 3\n")
    running.stdin.flush()
    assert b"nonsense" in running.stderr.readline()
    assert not link.is_symlink()
    with pytest.raises(OSError):
        os.write(fd, b"hello")
    os.close(fd)
    running.stdin.write(b"plug\n")
    running.stdin.flush()
    while not link.exists():
        time.sleep(0.01)
    time.sleep(0.6)
    running.send_signal(signal.SIGINT)
    assert running.wait(5) == 0 and not link.is_symlink()
    assert running.stderr.read() == b""
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    assert [line["because"] for line in lines] == ["command", "armed", "watchdog"]
    assert 500 <= (lines[2]["t"] - lines[0]["t"]) / MS < 600
