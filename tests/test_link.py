"""The link on a real pty: what it says, what it believes, what it survives. Time is simulated wherever it can be."""

import itertools
import math
import os
import random
import select
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymavlink.dialects.v20 import common

from rov.config.schema import Config
from rov.link.mavlink import MS, Packer, Parser, SenderClock
from rov.link.thruster_board import BoardStage, ThrusterBoardLink
from rov.messages import Event, Mode
from rov.motion.pilot import Pilot
from rov.motion.thrusters import load
from rov.resources import find_resource
from sim.board import SimulatedBoard
from sim.wire import NoisyWire, Pty

pytestmark = pytest.mark.clock

TICK = 20 * MS
S = 1000 * MS
BYTES = int(os.environ.get("ROV_FUZZ_BYTES", 2_000_000))


class Rig:
    """A link and a board on a pty, in lockstep on simulated time: 50 ticks are a second, however long they take."""

    def __init__(self, folder: Path, **options: Any):
        self.pty = Pty(folder / "board")
        self.board = SimulatedBoard(noise=False, **options)
        self.line = NoisyWire()
        self.link = ThrusterBoardLink(str(folder / "board"), 115200, self.board.motors)
        self.t = 1_000_000 * MS
        self.values: tuple[float, ...] = (0.0,) * 8
        self.armed = False
        self.arms = True
        """Arm as soon as the link is live, as `pilotd` would after an operator's Arm."""
        self.events: list[Event] = []

    def tick(self) -> None:
        """20 ms: the link reads and writes, then the board does."""
        self.t += TICK
        was_live = self.link.live
        self.events += self.link.poll(self.t)
        if self.link.live and not was_live:
            self.armed = self.arms
        before = self.link.counters.bytes_out
        self.link.send(self.values, self.armed, self.t)
        self.step(self.link.counters.bytes_out - before)

    def step(self, expected: int) -> None:
        """The board's part; waits for the bytes that the link has just written."""
        data = self.pty.read()
        while len(data) < expected and self.pty.ends and not self.pty.deaf:
            assert select.select([self.pty.ends[0]], [], [], 5)[0]
            data += self.pty.read()
        out = self.line.carry(self.board.step(self.t, data), self.t)
        self.pty.write(out)
        if out and self.pty.ends and self.link.port.serial is not None:
            deadline = time.monotonic() + 5
            while self.link.port.serial.in_waiting < min(len(out), 2000) and time.monotonic() < deadline:
                time.sleep(0)  # the kernel carries it over in its own time

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds * 50)):
            self.tick()

    def until(self, done: Callable[[], bool], seconds: float = 3.0) -> float:
        """Run until it is done; returns how long that took."""
        start = self.t
        while not done():
            self.tick()
            assert self.t - start < seconds * 1e9, [event.text for event in self.events]
        return (self.t - start) / 1e9

    def go_live(self) -> None:
        self.until(lambda: self.link.connection.armed is False)
        assert self.link.arm(self.t) == ""
        self.until(lambda: self.link.live)

    def codes(self) -> list[str]:
        return [event.code for event in self.events]


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    rig.link.close(rig.t + 1)
    rig.pty.unplug()


# ---- bytes by hand ----------------------------------------------------------------------------------------------


def crc(data: bytes) -> int:
    """X.25, bit by bit, from its definition: the reflected polynomial 0x8408."""
    value = 0xFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value >> 1) ^ (0x8408 if value & 1 else 0)
    return value


def framed(sequence: int, message_id: int, payload: bytes, extra: int, sender: tuple[int, int] = (1, 1)) -> bytes:
    """A MAVLink 2 frame, by https://mavlink.io/en/guide/serialization.html; `extra` is the message's CRC_EXTRA."""
    payload = payload.rstrip(b"\0") or b"\0"
    body = bytes([len(payload), 0, 0, sequence, *sender]) + message_id.to_bytes(3, "little") + payload
    return b"\xfd" + body + struct.pack("<H", crc(body + bytes([extra])))


def attitude(sequence: int, ms: int, yaw: float = 0.0) -> bytes:
    return framed(sequence, 30, struct.pack("<I6f", ms, 0.1, -0.2, yaw, 0.01, 0.02, 0.03), 39)


def pressure(sequence: int, ms: int, hpa: float) -> bytes:
    return framed(sequence, 137, struct.pack("<Iffhh", ms, hpa, 0.0, 1500, 0), 195)


def battery(sequence: int, cells: list[int], *, battery_id: int = 0, more: tuple[int, ...] = (0, 0, 0, 0)) -> bytes:
    cells = cells + [0xFFFF] * (10 - len(cells))
    fields = (-1, -1, 32767, *cells, -1, battery_id, 0, 1, -1, 0, 0, *more, 0, 0)
    return framed(sequence, 147, struct.pack("<iih10HhBBBbiB4HBI", *fields), 154)


class Wire:
    """A pty with nobody behind it: a link, and what we write and read at the other end by hand."""

    def __init__(self, motors: int = 8):
        self.pty = Pty()
        self.link = ThrusterBoardLink(self.pty.path, 115200, motors)
        self.t = 5_000 * MS
        assert [event.code for event in self.link.poll(self.t)] == ["link_open"]

    def hear(self, data: bytes, ms: int = 20) -> None:
        """The link hears these bytes, `ms` later."""
        self.t += ms * MS
        while data:
            part, data = data[:1000], data[1000:]
            self.pty.write(part)
            assert self.link.port.serial is not None
            while self.link.port.serial.in_waiting < len(part):
                time.sleep(0)
            self.link.poll(self.t)

    def said(self, expected: int) -> bytes:
        data = b""
        assert self.pty.ends
        while len(data) < expected and select.select([self.pty.ends[0]], [], [], 5)[0]:
            data += self.pty.read()
        return data


@pytest.fixture
def wire() -> Iterator[Wire]:
    wire = Wire()
    yield wire
    wire.link.close(wire.t + 1)
    wire.pty.unplug()


def test_a_command_byte_by_byte(wire: Wire) -> None:
    wire.link.send([0.5] * 8, True, 5_000_000_000)
    neutral = struct.pack("<Q8fBBB", 5_000_000, *[0.0] * 8, 0, 1, 1)
    disarm = struct.pack("<7fHBBB", 0.0, 0, 0, 0, 0, 0, 0, 400, 1, 1, 0)
    beat = struct.pack("<IBBBBB", 0, 18, 8, 0, 4, 3)
    expected = (
        framed(0, 139, neutral, 168, (1, 191))  # armed or not: nothing but neutral leaves an untested link
        + framed(1, 76, disarm, 152, (1, 191))
        + framed(2, 0, beat, 50, (1, 191))
    )
    assert wire.said(len(expected)) == expected
    wire.link.send([0.5] * 8, True, 5_020_000_000)
    expected = framed(3, 139, struct.pack("<Q8fBBB", 5_020_000, *[0.0] * 8, 0, 1, 1), 168, (1, 191))
    assert wire.said(len(expected)) == expected


def test_values_leave_only_when_live_clamped_and_finite(wire: Wire) -> None:
    wire.link.stage = BoardStage.LIVE
    wire.link.connection.asked_t = wire.link.connection.heartbeat_sent_t = wire.t
    given_and_sent = [
        ((0.5, -0.25, 0, 0, 0, 0, 0, 1), (0.5, -0.25, 0, 0, 0, 0, 0, 1)),
        ((2.0, -3.0, 0, 0, 0, 0, 0, 0), (1, -1, 0, 0, 0, 0, 0, 0)),
        ((0.5, float("nan"), 0, 0, 0, 0, 0, 0), (0.0,) * 8),
        ((0.5, float("inf"), 0, 0, 0, 0, 0, 0), (0.0,) * 8),
        ((0.5,) * 7, (0.0,) * 8),
    ]
    for i, (asked, sent) in enumerate(given_and_sent):
        wire.link.send(asked, True, wire.t + i * TICK)
        expected = framed(i, 139, struct.pack("<Q8fBBB", (wire.t + i * TICK) // 1000, *sent, 0, 1, 1), 168, (1, 191))
        assert wire.said(len(expected)) == expected
    assert wire.link.counters.bad_commands == 3


def test_more_than_eight_thrusters_are_two_groups_in_one_write() -> None:
    wire = Wire(motors=10)
    wire.link.stage = BoardStage.LIVE
    wire.link.connection.asked_t = wire.link.connection.heartbeat_sent_t = wire.t
    values = [i / 10 for i in range(10)]
    wire.link.send(values, True, wire.t)
    expected = framed(0, 139, struct.pack("<Q8fBBB", wire.t // 1000, *values[:8], 0, 1, 1), 168, (1, 191))
    expected += framed(1, 139, struct.pack("<Q8fBBB", wire.t // 1000, 0.8, 0.9, *[0.0] * 6, 1, 1, 1), 168, (1, 191))
    assert wire.said(len(expected)) == expected
    stamp = wire.t // 1000
    wire.hear(framed(0, 140, struct.pack("<Q8fB", stamp, *values[:8], 0), 181))
    assert wire.link.echo is None, "the second group is missing"
    wire.hear(framed(1, 140, struct.pack("<Q8fB", stamp, 0.8, 0.9, *[0.0] * 6, 1), 181))
    assert wire.link.echo is not None and wire.link.echo.values == pytest.approx(values)
    wire.link.close(wire.t + 1)
    wire.pty.unplug()


def test_time_that_stands_still_sends_nothing(wire: Wire) -> None:
    for t in (wire.t, wire.t, wire.t - TICK, wire.t + 999):
        wire.link.send([0.0] * 8, False, t)
    assert (wire.link.counters.sent, wire.link.counters.dropped) == (1, 3)


def test_state_by_hand(wire: Wire) -> None:
    assert wire.link.state is None
    hull = framed(4, 29, struct.pack("<Iffhh", 1000, 980.0, 0.0, 3150, 0), 115)
    leak = framed(5, 252, struct.pack("<Ii10s", 1000, 1, b"LEAK"), 44)
    armed = framed(6, 0, struct.pack("<IBBBBB", 0, 12, 8, 128, 4, 3), 50)
    # 10 m of sea water: 101325 Pa + 1025 kg/m³ × 9.80665 m/s² × 10 m = 201843.16 Pa = 2018.4316 hPa
    wire.hear(attitude(1, 1000, 1.5) + pressure(2, 1000, 2018.4316) + battery(3, [4000, 4010, 3990, 4005]))
    wire.hear(hull + leak + armed)
    state = wire.link.state
    assert state is not None
    assert (state.t, state.attitude_t, state.depth_t) == (wire.t, wire.t - TICK, wire.t - TICK)
    assert (state.roll, state.pitch, state.yaw) == pytest.approx((0.1, -0.2, 1.5))
    assert state.rates == pytest.approx((0.01, 0.02, 0.03))
    assert state.depth == pytest.approx(10.0, abs=1e-4)
    assert state.battery_v == pytest.approx(16.005)
    assert (state.hull_pressure_kpa, state.hull_temperature_c) == pytest.approx((98.0, 31.5))
    assert state.leak and state.armed


@pytest.mark.parametrize(
    ("frame", "volts"),
    [
        (battery(1, []), None),
        (battery(1, [0, 0, 0, 0]), None),
        (battery(1, [15_800]), 15.8),  # cells not measured: the pack in the first place
        (battery(1, [65_534, 9_466]), 75.0),  # more than 65.534 V: the rest in the second
        (battery(1, [4000] * 10, more=(4000, 4000, 0, 0)), 48.0),
        (battery(1, [4000], battery_id=1), None),  # another battery
    ],
)
def test_battery(wire: Wire, frame: bytes, volts: float | None) -> None:
    wire.hear(frame)
    assert wire.link.state is not None and wire.link.state.battery_v == volts


def test_an_old_voltage_is_unknown(wire: Wire) -> None:
    wire.hear(battery(1, [4000] * 4))
    wire.hear(attitude(2, 1000), ms=5000)
    assert wire.link.state is not None and wire.link.state.battery_v == 16.0
    wire.hear(attitude(3, 1020))
    assert wire.link.state.battery_v is None


@pytest.mark.parametrize("frame", [pressure(1, 9, float("nan")), pressure(1, 9, 0.0), attitude(1, 9, float("inf"))])
def test_nonsense_is_not_believed(wire: Wire, frame: bytes) -> None:
    wire.hear(frame)
    assert wire.link.state is not None
    assert wire.link.state.attitude_t is None and wire.link.state.depth_t is None
    assert wire.link.counters.implausible == 1


def test_others_on_the_wire_are_not_the_board(wire: Wire) -> None:
    wire.hear(framed(0, 30, struct.pack("<I6f", 1000, *[1.0] * 6), 39, sender=(1, 2)))
    assert wire.link.state is None and wire.link.counters.foreign == 1


# ---- order ------------------------------------------------------------------------------------------------------


def test_repeated_and_overtaken_frames_change_nothing(wire: Wire) -> None:
    wire.hear(attitude(10, 1000, 0.1) + attitude(11, 1020, 0.2))
    known = wire.link.state
    wire.hear(attitude(11, 1020, 0.2) + attitude(10, 1000, 0.1) + attitude(9, 980, 0.0), ms=1)
    assert wire.link.state == known
    assert (wire.link.counters.repeated, wire.link.counters.old, wire.link.counters.lost) == (1, 2, 0)
    wire.hear(attitude(14, 1080, 0.3))
    assert wire.link.state is not None and wire.link.state.yaw == pytest.approx(0.3)
    assert wire.link.counters.lost == 2
    # Numbered anew by something in between, but measured before: the stamp tells.
    wire.hear(attitude(15, 1060, 0.25))
    assert wire.link.state.yaw == pytest.approx(0.3) and wire.link.counters.old == 3


def test_an_old_frame_after_a_silence_stays_old(wire: Wire) -> None:
    wire.hear(attitude(10, 1000, 0.1) + attitude(11, 1020, 0.2))
    for _ in range(3):
        wire.hear(attitude(10, 1000, 0.1), ms=600)
    assert wire.link.state is not None and wire.link.state.yaw == pytest.approx(0.2)


def test_a_board_that_restarts_is_believed_again_and_must_be_tested_again(wire: Wire) -> None:
    wire.hear(attitude(200, 90_000, 0.1))
    wire.link.stage = BoardStage.LIVE
    for i in range(40):  # from 20 ms after: its own sequence and time, from zero
        wire.hear(attitude(i, 20 * i, 0.5))
        assert wire.link.state is not None
        if wire.link.state.yaw == 0.5:
            break
    assert i == 25, "the first after half a second"
    assert wire.link.stage is BoardStage.IDLE
    assert wire.link.state.attitude_t == wire.t


def test_what_queued_up_is_stamped_as_old_as_it_is(wire: Wire) -> None:
    for i in range(10):
        wire.hear(attitude(i, 1000 + 20 * i))
    assert wire.link.state is not None and wire.link.state.attitude_t == wire.t
    # Then 300 ms of nothing, and all that was sent meanwhile but the last 200 ms.
    wire.hear(b"".join(attitude(i, 1000 + 20 * i) for i in range(10, 15)), ms=300)
    assert wire.link.state.t == wire.t
    assert wire.link.state.attitude_t == pytest.approx(wire.t - 200 * MS, abs=MS)


@pytest.mark.parametrize("stall_ms", [300, 814, 3000])
def test_a_stall_of_ours_does_not_make_the_vehicle_look_old(wire: Wire, stall_ms: int) -> None:
    """The clock was read, then nothing ran for a while, then the port was read: what came meanwhile looked early."""
    for i in range(50):
        wire.hear(attitude(i, 1000 + 20 * i))
    wire.hear(b"".join(attitude(i % 256, 1000 + 20 * i) for i in range(50, 50 + stall_ms // 20)))  # at its old time
    wire.t += (stall_ms - 20) * MS
    last = 50 + stall_ms // 20
    for i in range(last, last + 3):
        wire.hear(attitude(i % 256, 1000 + 20 * i))
        assert wire.link.state is not None
        assert wire.link.state.attitude_t == pytest.approx(wire.t, abs=25 * MS)


def test_what_is_received_before_the_clock_is_read_is_judged_by_that(wire: Wire) -> None:
    for i in range(50):
        wire.hear(attitude(i, 1000 + 20 * i))
    wire.pty.write(attitude(50, 2000))
    time.sleep(0.05)
    wire.link.receive()  # and then stopped for 600 ms
    wire.pty.write(attitude(51, 2600))
    time.sleep(0.05)
    for _ in range(3):
        wire.t += 620 * MS
        wire.link.poll(wire.t)
        if wire.link.state is not None and wire.link.state.t == wire.t:
            assert wire.link.state.attitude_t <= wire.t
    assert wire.link.connection.clock.offset is not None and wire.link.received is None


def test_the_boards_clock_may_drift_and_its_counter_may_wrap() -> None:
    clock = SenderClock()
    start = 2**32 - 5000
    for i in range(2000):  # 40 s; its crystal is slow by 0.05 %
        t = 10**12 + i * TICK
        measured = clock.measured("x", (start + int(20 * i * 0.9995)) % 2**32, t)
        assert measured is not None and 0 <= t - measured <= 2 * MS
        assert not clock.restarted("x", (start + int(20 * i * 0.9995)) % 2**32, t)


# ---- garbage ----------------------------------------------------------------------------------------------------


def test_random_bytes_then_a_good_frame() -> None:
    """ROV_FUZZ_BYTES sets how many (default 2 million)."""
    parser, noise = Parser(), random.Random(1)
    good = attitude(7, 1000, 1.25)
    false = 0
    for _ in range(max(1, BYTES // 10_000)):
        for _ in range(10):
            false += len(parser.feed(noise.randbytes(1000)))
            assert len(parser.buffer) <= 267
        parser.reset()  # an unfinished beginning would only delay what follows: see the next test
        (frame,) = parser.feed(good)
        assert frame.message.yaw == 1.25
    assert false == 0
    assert parser.skipped > 0.99 * BYTES


def test_random_bytes_through_the_port(wire: Wire) -> None:
    noise = random.Random(2)
    for _ in range(50):
        wire.hear(noise.randbytes(4000))
    assert wire.link.state is None and wire.link.counters.bytes_in == 200_000
    wire.hear(attitude(1, 1000, 0.5) * 8)
    assert wire.link.state is not None and wire.link.state.yaw == 0.5
    assert wire.link.counters.skipped >= 199_700


STEP = 2.0**-10
"""Of the yaw from frame to frame, rad: exact as a float of 32 bits, and no jump."""
PIECES = st.lists(
    st.one_of(
        st.tuples(st.just("garbage"), st.binary(max_size=60)),
        st.tuples(st.just("half"), st.integers(1, 39)),
        st.tuples(st.just("again"), st.integers(0, 5)),
        st.tuples(st.just("bad"), st.integers(0, 8 * 30 - 1)),
        st.tuples(st.just("good"), st.none()),
    ),
    max_size=30,
)


@given(pieces=PIECES, chunk=st.integers(1, 50))
def test_no_mixture_yields_a_wrong_value(pieces: list[tuple[str, Any]], chunk: int) -> None:
    """Garbage, half, damaged and repeated frames in any order, cut anywhere: only values that were sent arrive, in
    order, each once, and a good frame is never lost for what stands before it."""
    link = ThrusterBoardLink("", 115200, 8)
    stream, sent = b"", []
    for kind, what in [*pieces, *[("good", None)] * 8]:
        whole = attitude(len(sent) % 256, 1000 + 20 * len(sent), len(sent) * STEP)
        match kind:
            case "garbage":
                stream += what
            case "half":
                stream += whole[:what]
            case "bad":
                stream += (int.from_bytes(whole, "big") ^ (1 << what)).to_bytes(len(whole), "big")
            case "again" if len(sent) > what:
                last = len(sent) - 1 - what
                stream += attitude(last % 256, 1000 + 20 * last, last * STEP)
            case "good":
                stream += whole
                sent.append(len(sent) * STEP)
    seen, t = [], 10**9
    for at in range(0, len(stream), chunk):
        for frame in link.parser.feed(stream[at : at + chunk]):
            t += MS
            link._handle_frame(frame, t)
            if link.state and link.state.yaw != (seen[-1] if seen else None):
                seen.append(link.state.yaw)
    # A half header of another length may still wait for its end behind the last frames; all before must be there.
    assert seen == sent[: len(seen)] and len(seen) >= len(sent) - 7


# ---- the whole link ---------------------------------------------------------------------------------------------


def test_arming_tests_the_watchdog_and_moves_nothing(rig: Rig) -> None:
    rig.values, rig.armed = (0.5,) * 8, False
    rig.until(lambda: rig.link.connection.armed is False)
    assert rig.link.arm(rig.t) == ""
    took = rig.until(lambda: rig.link.live)
    assert 0.55 < took < 0.9
    whispered = {round(value, 6) for applied in rig.board.applied for value in applied.values} - {0.5}
    assert whispered == {0.0, 0.001}, "0.4 µs of pulse width"
    assert rig.codes() == ["link_open", "watchdog_tested", "link_live"]
    because = [applied.because for applied in rig.board.applied if applied.because != "command"]
    assert because == ["armed", "watchdog", "armed"]
    rig.run(0.1)
    assert rig.board.outputs.tolist() == [0.5] * 8
    assert rig.link.echo is not None and rig.link.echo.values == (0.5,) * 8
    assert rig.link.echo.t - rig.link.echo.sent_t == TICK


@pytest.mark.parametrize(
    ("watchdog_ms", "level", "why"),
    [(1e9, "alarm", "does not go neutral"), (900, "alarm", "does not go neutral"), (250, "warning", "instead of 500")],
)
def test_a_board_with_a_bad_watchdog_is_never_live(rig: Rig, watchdog_ms: float, level: str, why: str) -> None:
    rig.board.watchdog_ms = watchdog_ms
    rig.until(lambda: rig.link.connection.armed is False)
    assert rig.link.arm(rig.t) == ""
    rig.until(lambda: not rig.link.testing)
    assert rig.link.stage is BoardStage.IDLE
    failed = rig.events[-1]
    assert (failed.code, failed.level) == ("arming_failed", level) and why in failed.text
    rig.run(0.2)
    assert not rig.board.armed, "and it is left disarmed"


def test_a_stall_in_the_test_is_not_taken_for_a_pass(rig: Rig) -> None:
    rig.until(lambda: rig.link.connection.armed is False)
    rig.link.arm(rig.t)
    rig.until(lambda: rig.link.stage is BoardStage.SILENT)
    for _ in range(100):  # two seconds in which only the board lives
        rig.t += TICK
        rig.pty.write(rig.line.carry(rig.board.step(rig.t), rig.t))
    rig.tick()
    assert rig.codes()[-1] == "arming_failed"


def test_arming_is_refused_without_a_board(tmp_path: Path, rig: Rig) -> None:
    absent = ThrusterBoardLink(str(tmp_path / "nothing"), 115200, 8)
    assert [event.code for event in absent.poll(0)] == ["link_absent"]
    assert "not open" in absent.arm(0)
    rig.line.mute = True
    rig.run(0.1)
    assert "nothing is heard" in rig.link.arm(rig.t)


def test_disarm_during_the_test_ends_it(rig: Rig) -> None:
    for stage in (BoardStage.ARMING, BoardStage.SILENT, BoardStage.RESUMING):
        rig.until(lambda: rig.link.connection.armed is False)
        assert rig.link.arm(rig.t) == ""
        rig.until(lambda stage=stage: rig.link.stage is stage)  # type: ignore[misc]
        rig.link.disarm(rig.t + 1)
        rig.run(1.0)
        assert rig.link.stage is BoardStage.IDLE and not rig.board.armed


def test_stop_is_neutral_within_a_tick(rig: Rig) -> None:
    rig.go_live()
    rig.values = (0.5,) * 8
    rig.run(0.2)
    assert rig.board.outputs.any()
    rig.armed = False
    rig.tick()
    assert not rig.board.outputs.any() and not rig.board.armed and not rig.link.live
    rig.armed = True
    rig.run(0.5)
    assert not rig.board.armed, "asking for values does not arm it"


def test_the_board_falls_silent_commands_stop(rig: Rig) -> None:
    """Muted, the board still hears; but who is not answered does not steer."""
    rig.go_live()
    rig.values = (0.5,) * 8
    rig.run(0.2)
    rig.line.mute = True
    took = rig.until(lambda: not rig.link.live)
    assert took <= 0.34 and rig.codes()[-1] == "board_deaf"
    rig.run(0.1)
    assert not rig.board.outputs.any()


def test_pilotd_stalls_the_board_stops_by_itself(rig: Rig) -> None:
    rig.go_live()
    rig.values = (0.5,) * 8
    rig.run(0.2)
    for _ in range(30):
        rig.t += TICK
        rig.pty.write(rig.line.carry(rig.board.step(rig.t), rig.t))
    assert not rig.board.outputs.any()
    fell = rig.board.applied[-1]
    last = [applied for applied in rig.board.applied if applied.because == "command"][-1]
    assert fell.because == "watchdog" and fell.t - last.t <= 520 * MS
    rig.run(0.2)
    assert not rig.link.live and not rig.board.outputs.any() and "board_disarmed" in rig.codes()


def test_unplugged_and_plugged_in_again(rig: Rig) -> None:
    rig.go_live()
    rig.values = (0.5,) * 8
    rig.run(0.2)
    rig.pty.unplug()
    rig.run(1.0)
    assert rig.codes().count("link_lost") == 1 and not rig.link.port.is_open
    assert not rig.board.outputs.any(), "its own watchdog"
    rig.pty.plug()
    back = rig.until(lambda: rig.link.port.is_open)
    assert back <= 2.0
    rig.run(1.0)
    assert not rig.board.armed and not rig.link.live, "neutral until tested again"
    rig.armed = False
    rig.go_live()
    rig.run(0.1)
    assert rig.board.outputs.tolist() == [0.5] * 8


def test_reopening_backs_off(tmp_path: Path) -> None:
    link = ThrusterBoardLink(str(tmp_path / "board"), 115200, 8)
    tried = []
    link.port.open = lambda: tried.append(now) or "no"  # type: ignore[method-assign, func-returns-value]
    events = []
    for now in range(0, 10_000, 20):
        events += link.poll(now * MS)
    assert tried == [0, 200, 600, 1400, 3000, 5000, 7000, 9000]
    assert [event.code for event in events] == ["link_absent"]


def test_a_port_that_is_not_there_is_said_once_and_by_its_key(tmp_path: Path) -> None:
    link = ThrusterBoardLink(str(tmp_path / "board"), 115200, 8)
    events = [event for now in range(0, 10_000, 20) for event in link.poll(now * MS)]
    assert [event.text for event in events] == [f"link.port {tmp_path / 'board'}: no such port; trying again"]


def test_a_port_that_somebody_else_has(wire: Wire) -> None:
    other = ThrusterBoardLink(wire.pty.path, 115200, 8)
    (event,) = other.poll(0)
    assert event.code == "link_absent" and "lock" in event.text


@pytest.mark.usefixtures("swept")
def test_a_blocked_port_never_holds_the_caller(wire: Wire) -> None:
    """Nobody reads the pty, for 30 s of commands. A write that waits would wait for ever; one that spins would too."""
    wire.link.stage = BoardStage.LIVE
    longest, events = 0.0, []
    for _ in range(1500):
        wire.t += TICK
        wire.link.connection.unanswered_t = None  # or it would have disarmed long ago
        start = time.thread_time()
        events += wire.link.poll(wire.t)
        wire.link.send([0.5] * 8, True, wire.t)
        longest = max(longest, time.thread_time() - start)
    assert longest < 0.005  # processor time: what the machine does besides is not ours
    assert wire.link.counters.dropped > 0
    assert "link_blocked" in [event.code for event in events]


def test_a_blocked_board_that_comes_back_does_not_act_on_the_past(rig: Rig) -> None:
    rig.go_live()
    rig.values = (0.5,) * 8
    rig.run(0.2)
    rig.pty.deaf = True
    took = rig.until(lambda: not rig.link.live)
    assert took <= 0.34
    rig.run(2.0)
    assert not rig.board.outputs.any(), "its watchdog has fallen"
    before = len(rig.board.applied)
    rig.pty.deaf = False
    rig.run(0.5)
    later = list(rig.board.applied)[before:]
    assert later and not any(any(applied.values) for applied in later)
    assert not rig.board.armed


def test_a_stop_during_a_short_block(rig: Rig) -> None:
    """200 ms deaf, less than any time-out, then stop: neutral and disarmed in the tick in which it reads again."""
    rig.go_live()
    rig.values = (0.5,) * 8
    rig.run(0.2)
    rig.pty.deaf = True
    rig.run(0.2)
    assert rig.link.live
    rig.link.disarm(rig.t + MS)
    rig.armed, rig.pty.deaf = False, False
    time.sleep(0.2)  # the kernel carries over what waited, and the disarming after it, in its own time
    rig.tick()
    assert not rig.board.outputs.any() and not rig.board.armed
    start = rig.t
    rig.run(0.5)
    assert not any(any(applied.values) for applied in rig.board.applied if applied.t > start)


def test_a_half_written_frame_is_finished_first(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    real, room = os.write, [0]

    def narrow(fd: int, data: bytes) -> int:
        if not room[0]:
            raise BlockingIOError
        taken = real(fd, data[: room[0]])
        room[0] -= taken
        return taken

    wire.link.connection.heartbeat_sent_t = wire.link.connection.asked_t = wire.t
    monkeypatch.setattr("rov.link.transport.os.write", narrow)
    sent = []
    for tick, free in enumerate([55, 30, 0, 10, 15, 70, 40, 55, 15]):
        room[0] = free
        wire.link.send([0.0] * 8, False, wire.t + tick * MS)
        sent.append((wire.link.counters.sent, wire.link.counters.dropped))
    # 55: whole. 30: begun. 0, 10: not finished (25, 15 left). 15: finished, no room. 70: whole and 15... never:
    # one command per tick. 40: begun, 55: finished with 15, and 40 of the next; 15: finished.
    assert sent == [(1, 0), (2, 0), (2, 1), (2, 2), (2, 3), (3, 3), (4, 3), (5, 3), (5, 4)]
    monkeypatch.undo()
    frames = Parser().feed(wire.said(5 * 55))
    assert [frame.message.time_usec for frame in frames] == [(wire.t + i * MS) // 1000 for i in (0, 1, 5, 6, 7)]


def test_a_bad_line_and_the_loop_still_runs(rig: Rig) -> None:
    """10 % of the board's frames each dropped, repeated, swapped, damaged, cut, with noise between: state stays fresh
    and right, and the link live."""
    rig.go_live()
    for name in ("drop", "repeat", "swap", "corrupt", "cut", "noise"):
        setattr(rig.line, name, 0.1)
    rig.board.vessel.RIGHTING = 0.0  # nothing moves it: every attitude that arrives must be this one
    for i in range(500):
        rig.board.vessel.attitude[:] = (0.1, 0.05, 0.001 * i)
        rig.board.vessel.speed[:] = 0
        rig.tick()
        state = rig.link.state
        assert state is not None and state.attitude_t is not None
        assert rig.t - state.attitude_t < 200 * MS
        assert (state.roll, state.pitch) == (0.0, 0.0) or (state.roll, state.pitch) == pytest.approx(
            (0.1, 0.05), abs=5e-3
        )
        assert state.yaw <= 0.001 * i + 0.01
    assert rig.link.live
    counters = rig.link.counters
    assert min(counters.broken, counters.skipped, counters.lost, counters.old) > 0


# ---- what the board gives is what was commanded -----------------------------------------------------------------


def sail(rig: Rig, seconds: float, sway: float = 0.2) -> None:
    """Commands that change with every tick."""
    for _ in range(round(seconds * 50)):
        phase = rig.t / 1e9
        rig.values = tuple(sway * math.sin(3 * phase + i) for i in range(8))
        rig.tick()


def misreport(rig: Rig, lie: Callable[[list[float]], list[float]], stamp: Callable[[int], int] = int) -> None:
    """The board echoes something else than it gives."""
    board = rig.board

    def echo(group: int) -> bytes:
        given = lie([*board.outputs.tolist()])
        return board.packer.pack(common.MAVLink_actuator_control_target_message(stamp(board.last_us), group, given))

    board._echo = echo  # type: ignore[method-assign]


def test_a_stuck_output_disarms_after_200_ms(rig: Rig) -> None:
    rig.go_live()
    sail(rig, 1.0)
    rig.board.stuck[2] = 0.45
    start = rig.t
    rig.until(lambda: not rig.link.live)
    assert 200 * MS <= rig.t - start <= 260 * MS
    assert rig.codes()[-1] == "echo_differs" and "thruster 3 was to get" in rig.events[-1].text
    rig.run(0.1)
    assert not rig.board.outputs.any() and not rig.board.armed
    rig.armed = False
    rig.run(0.2)
    assert rig.link.arm(rig.t) == ""
    rig.until(lambda: not rig.link.testing)
    assert not rig.link.live, "and the arming test finds it, too"


COUNT = itertools.count()
LIES: dict[str, Callable[[list[float]], list[float]]] = {
    "more": lambda given: [value + 0.3 for value in given],
    "nothing": lambda given: [0.0] * 8,
    "mirrored": lambda given: [-value for value in given],
    "scaled": lambda given: [0.9 * value for value in given],
    "swapped": lambda given: [given[1], given[0], *given[2:]],
    "a little less": lambda given: [value - 0.01 for value in given],
    "one a little": lambda given: [given[0] + 0.0021, *given[1:]],
    "every other time": lambda given: [value + 0.3 * (next(COUNT) // 8 % 2) for value in given],
}


@pytest.mark.parametrize("lie", LIES)
def test_a_wrong_echo_disarms_after_200_ms(rig: Rig, lie: str) -> None:
    rig.go_live()
    sail(rig, 0.5)
    misreport(rig, LIES[lie])
    start = rig.t
    while rig.link.live and rig.t - start < S:
        sail(rig, 0.02)
    assert 200 * MS <= rig.t - start <= 420 * MS and rig.codes()[-1] == "echo_differs"
    rig.run(0.1)
    assert not rig.board.outputs.any()


@pytest.mark.parametrize("what", ["never sent", "from the future"])
def test_an_echo_of_an_unknown_command_disarms(rig: Rig, what: str) -> None:
    rig.go_live()
    sail(rig, 0.5)
    misreport(rig, list, (lambda us: us - 7) if what == "never sent" else (lambda us: us + 10_000_000))
    start = rig.t
    while rig.link.live and rig.t - start < S:
        sail(rig, 0.02)
    assert rig.t - start <= 260 * MS and rig.codes()[-1] == "echo_differs"
    assert "never sent" in rig.events[-1].text


def test_while_surfacing_a_wrong_echo_is_an_alarm_and_nothing_more(rig: Rig) -> None:
    rig.go_live()
    sail(rig, 0.5)
    rig.link.mode = Mode.SURFACE
    rig.board.stuck[2] = 0.45
    sail(rig, 2.0)
    assert rig.link.live and rig.board.armed and rig.codes().count("echo_differs") == 1
    rig.board.stuck.clear()
    sail(rig, 0.5)
    assert rig.codes()[-1] == "echo_differs_over"
    rig.board.stuck[2] = 0.45
    sail(rig, 0.5)
    assert rig.link.live and rig.codes().count("echo_differs") == 2
    rig.link.mode = Mode.MANUAL
    sail(rig, 0.04)
    assert not rig.link.live, "no longer on the way up"


def test_a_difference_shorter_than_200_ms_is_forgiven(rig: Rig) -> None:
    rig.go_live()
    for _ in range(5):
        sail(rig, 0.3)
        rig.board.stuck[2] = 0.45
        sail(rig, 0.16)
        rig.board.stuck.clear()
    sail(rig, 0.5)
    assert rig.link.live and "echo_differs" not in rig.codes()


@pytest.mark.parametrize("seed", range(4))
def test_no_false_alarm_on_a_bad_line_over_resets_stalls_and_late_answers(rig: Rig, seed: int) -> None:
    """Whatever happens between the two, a board that keeps its contract is never said to give something else."""
    chance = random.Random(seed)
    rig.line.random = random.Random(seed)
    for name in ("drop", "repeat", "swap", "corrupt", "cut", "noise"):
        setattr(rig.line, name, 0.05)
    for _ in range(10):
        for _ in range(8):  # on such a line a test may fail
            if not rig.link.live:
                rig.armed = False
                rig.run(0.4)
                rig.link.arm(rig.t)
                for _ in range(100):
                    rig.tick()
                    if not rig.link.testing:
                        break
        rig.line.delay = chance.choice([0.0, 0.05, 0.15])
        sail(rig, chance.uniform(0.2, 1.0), 0.5)
        match chance.choice(["restart", "stall", "disarm", "unplug", "deaf", "watchdog"]):
            case "restart":
                rig.board.restart()
            case "stall":  # ours: the board goes on alone
                for _ in range(chance.randrange(40)):
                    rig.t += TICK
                    rig.pty.write(rig.line.carry(rig.board.step(rig.t), rig.t))
            case "disarm":
                rig.link.disarm(rig.t + 1)
            case "unplug":
                rig.pty.unplug()
                rig.run(0.1)
                rig.pty.plug()
            case "deaf":
                rig.pty.deaf = True
                rig.run(0.2)
                rig.pty.deaf = False
            case "watchdog":
                rig.board.fed_t = dict.fromkeys(rig.board.fed_t, rig.t - S)
        sail(rig, 0.5, 0.5)
    assert rig.codes().count("link_live") > 5
    assert not [event.text for event in rig.events if event.code == "echo_differs"]


def test_close_leaves_the_board_disarmed(rig: Rig) -> None:
    rig.go_live()
    rig.values = (0.5,) * 8
    rig.run(0.1)
    rig.link.close(rig.t + 1)
    time.sleep(0.01)
    rig.board.step(rig.t + MS, rig.pty.read())
    assert not rig.board.armed and not rig.board.outputs.any()


def test_holds_depth_and_heading_through_the_link(rig: Rig, config: Config) -> None:
    """The whole loop at 50 Hz, simulated time: from 1 m to a metre deeper, a quarter turn, then pushed off it."""
    rig.board.noise = True
    curve = load(find_resource(config.vehicle.thrusters), config.vehicle.battery_cells)
    pilot = Pilot(config, curve)
    rig.go_live()

    def loop(seconds: float) -> None:
        for _ in range(round(seconds * 50)):
            output = pilot.step(None, rig.link.state, rig.t)
            rig.values, rig.armed = output.thrusters.values, pilot.armed
            rig.tick()

    assert rig.link.state is not None
    pilot.receive_state(rig.link.state)
    pilot.t = rig.t
    assert pilot.request_mode(Mode.HOLD, rig.t) == ""
    assert pilot.arm(rig.t) == ""
    loop(2.0)
    pilot.memory = pilot.memory._replace(depth=pilot.memory.depth * 0 + 2.0, heading=pilot.memory.heading * 0 + 1.5)
    loop(15.0)
    vessel = rig.board.vessel
    assert rig.link.live and pilot.mode is Mode.HOLD
    assert vessel.depth == pytest.approx(2.0, abs=0.1)
    assert vessel.attitude[2] == pytest.approx(1.5, abs=0.05)
    assert vessel.attitude[:2] == pytest.approx([0.0, 0.0], abs=0.02)
    vessel.depth, vessel.attitude[2] = 1.5, 1.0
    loop(15.0)
    assert vessel.depth == pytest.approx(2.0, abs=0.1)
    assert vessel.attitude[2] == pytest.approx(1.5, abs=0.05)
    assert rig.link.counters.dropped == rig.link.counters.lost == rig.link.counters.old == 0


def test_it_is_light() -> None:
    """Neither torch nor pymavlink's utilities nor the simulator come in with the link."""
    code = "import sys, rov.link.thruster_board;"
    code += "print([m for m in ('torch', 'numpy', 'pymavlink.mavutil', 'sim') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]" and done.stderr == ""


def test_sequence_numbers_count_on_and_wrap() -> None:
    packer, beat = Packer(1, 191), common.MAVLink_heartbeat_message(18, 8, 0, 0, 4, 3)
    frames = Parser().feed(b"".join(packer.pack(beat) for _ in range(300)))
    assert [frame.sequence for frame in frames] == [i % 256 for i in range(300)]
