"""Driving and commanding, from a real terminal (a pty) and a gamepad's event stream, over real sockets."""

import fcntl
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rov.bus import SETTLE_S, CommandClient, CommandServer, Request
from rov.bus.public import PublicPublisher
from rov.messages import (
    Arm,
    Event,
    Heartbeat,
    Message,
    Mode,
    PilotStatus,
    SetMode,
    SetTarget,
    Sticks,
    Stop,
    TakeOver,
    VehicleState,
)
from rov.operator.rates import TopicRates
from rov.operator.sticks import EVENT, HELD_NS, REOPEN_NS, Gamepad, Keyboard
from tests.commands import Run, rov

pytestmark = pytest.mark.clock

MS = 1_000_000
PATIENCE_S = 20.0


# ---- hands -----------------------------------------------------------------------------------------------------


def test_a_key_is_held_until_its_repeats_stop() -> None:
    keys = Keyboard()
    assert keys.read("w", 0).axes == (0.5, 0, 0, 0)
    assert keys.read("", HELD_NS).axes == (0.5, 0, 0, 0)
    assert keys.read("w", HELD_NS).axes == (0.5, 0, 0, 0)
    assert keys.read("", 2 * HELD_NS).axes == (0.5, 0, 0, 0)
    assert keys.read("", 2 * HELD_NS + 1).axes == (0, 0, 0, 0)


def test_keys_together_against_each_other_and_shifted() -> None:
    keys = Keyboard()
    assert keys.read("wd\x1b[A\x1b[D", 0).axes == (0.5, 0.5, -0.5, -0.5)
    assert keys.read("S", 1).axes == (-1.0, 0.5, -0.5, -0.5)
    assert keys.read("\x1b[1;2C", 1).axes == (-1.0, 0.5, -0.5, 1.0)
    assert keys.read("x", 2) == ((0, 0, 0, 0), ("release",))
    assert keys.read("w ", 3) == ((0, 0, 0, 0), ("stop",))
    assert keys.read("r2q", 3).actions == ("arm", "hold", "quit")


def test_half_an_arrow_is_no_letter() -> None:
    keys = Keyboard()
    assert keys.read("\x1b[", 0).axes == (0, 0, 0, 0)
    assert keys.read("D", 1).axes == (0, 0, 0, -0.5)  # the arrow to the left, not a shifted d


@given(st.lists(st.tuples(st.text(max_size=6), st.integers(0, 10**9)), max_size=20))
def test_whatever_is_typed_the_sticks_are_sticks(typed: list[tuple[str, int]]) -> None:
    keys, now = Keyboard(), 0
    for text, dt in typed:
        now += dt
        assert all(abs(axis) in (0, 0.5, 1) for axis in keys.read(text, now).axes)
    assert keys.read("", now + HELD_NS + 1).axes == (0, 0, 0, 0)


class Pad:
    """The device file of a gamepad."""

    def __init__(self, path: Path):
        self.path = path
        os.mkfifo(path)
        self.end: int | None = None

    def plug(self) -> None:
        self.end = os.open(self.path, os.O_RDWR | os.O_NONBLOCK)

    def send(self, kind: int, number: int, value: int) -> None:
        assert self.end is not None
        os.write(self.end, EVENT.pack(0, value, kind, number))

    def unplug(self) -> None:
        assert self.end is not None
        os.close(self.end)


def test_a_gamepad_comes_moves_goes_and_comes_again(tmp_path: Path) -> None:
    path = tmp_path / "js0"
    gamepad = Gamepad(path)
    assert gamepad.read(0).axes == (0, 0, 0, 0) and gamepad.notice == ""
    pad = Pad(path)
    pad.plug()
    assert gamepad.read(REOPEN_NS - 1).axes == (0, 0, 0, 0) and gamepad.fd is None
    gamepad.read(REOPEN_NS)
    assert "is there" in gamepad.notice
    pad.send(0x82, 4, 0)  # what it says of itself at the beginning
    pad.send(0x81, 1, 1)  # a button that is down already: nobody pressed it
    assert gamepad.read(REOPEN_NS) == ((0, 0, 0, 0), ())
    pad.send(2, 4, -32767)  # right stick forward
    pad.send(2, 1, -32768)  # left stick up
    pad.send(2, 0, 3000)  # within the dead zone
    pad.send(2, 3, 18022)  # 0.55: half of what lies beyond the dead zone
    pad.send(2, 9, 32767)  # an axis that steers nothing
    pad.send(1, 0, 1)
    pad.send(1, 0, 0)
    hand = gamepad.read(REOPEN_NS)
    assert hand.axes == pytest.approx((1.0, 0.5, -1.0, 0.0), abs=1e-4) and hand.actions == ("hold",)
    assert pad.end is not None
    os.write(pad.end, EVENT.pack(0, 1, 1, 1)[:5])  # half an event
    assert gamepad.read(REOPEN_NS).actions == ()
    os.write(pad.end, EVENT.pack(0, 1, 1, 1)[5:])
    assert gamepad.read(REOPEN_NS).actions == ("stop",)
    pad.unplug()
    assert gamepad.read(REOPEN_NS).axes == (0, 0, 0, 0) and "gone" in gamepad.notice
    pad.plug()
    gamepad.read(2 * REOPEN_NS)
    pad.send(2, 4, 32767)
    assert gamepad.read(2 * REOPEN_NS).axes == (-1.0, 0, 0, 0)
    pad.unplug()
    gamepad.close()


def test_random_bytes_from_a_gamepad(tmp_path: Path) -> None:
    gamepad, pad = Gamepad(tmp_path / "js0"), Pad(tmp_path / "js0")
    pad.plug()
    for i in range(500):
        os.write(pad.end, os.urandom(i % 37))  # type: ignore[arg-type]
        assert all(-1 <= axis <= 1 for axis in gamepad.read(REOPEN_NS).axes)
    pad.unplug()
    gamepad.close()


# ---- rates -----------------------------------------------------------------------------------------------------


def test_rates_ages_and_silence() -> None:
    from rov.bus import Entry

    rates, far = TopicRates(same_clock=True), TopicRates(same_clock=False)
    status = PilotStatus(t=0, armed=False, mode=Mode.MANUAL)
    for i in range(30):
        entry = Entry("pilot", PilotStatus(t=i * 100 * MS, armed=False, mode=Mode.MANUAL), b"")
        rates.add([entry], i * 100 * MS + 7 * MS)
    far.add([Entry("pilot", status, b"")], 10**18)
    (row,) = rates.rows(2900 * MS + 7 * MS)
    assert (row.hz, row.age_ms, row.silent_s, row.stale) == (10.0, 7.0, 0.0, False)
    (row,) = rates.rows(3600 * MS)
    assert row.stale and row.silent_s == pytest.approx(0.693)
    assert far.rows(10**18)[0].age_ms is None
    assert rates.age_ms(status, 2 * 3600 * 10**9) is None and rates.age_ms(status, -(10**9)) is None


# ---- the daemon's side, in a thread ----------------------------------------------------------------------------


class Daemon:
    """A daemon's two endpoints: one accepts all valid commands, the other publishes a vehicle's state."""

    def __init__(self, folder: Path):
        self.config = folder / "rover.toml"
        endpoints = [f"ipc://{folder}/{name}" for name in ("public", "commands")]
        self.config.write_text(
            f'[vehicle]\nmax_depth = 30\n[bus]\npublic = "{endpoints[0]}"\ncommands = "{endpoints[1]}"\n'
        )
        self.endpoints = endpoints
        self.requests: list[Request] = []
        self.operator = ""
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self) -> None:
        public, server = PublicPublisher(self.endpoints[0]), CommandServer(self.endpoints[1], heartbeat_timeout_s=30.0)
        published_t = 0
        while not self.ending.is_set():
            now = time.monotonic_ns()
            for request in server.requests(now):
                self.requests.append(request)
                server.reply(request, now, "the board is not there" if isinstance(request.command, Arm) else "")
            self.operator = server.operators.operator(now)
            if now - published_t > 100 * MS:
                published_t = now
                state = VehicleState(t=now, attitude_t=now, depth_t=now, depth=12.34, yaw=1.5708, battery_v=15.9)
                event = Event(t=now, level="alarm", source="test", code="x", text="something happened")
                status = PilotStatus(t=now, armed=True, mode=Mode.HOLD, operator=self.operator, target="fish")
                for message in (state, status, event):
                    public.publish(message)
            time.sleep(0.005)
        server.close()
        public.close()

    def of(self, kind: type[Message]) -> list[Request]:
        return [each for each in list(self.requests) if isinstance(each.command, kind)]

    def rov(self, *words: str) -> Run:
        return rov(*words, "--config", self.config)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path)
    yield daemon
    daemon.ending.set()
    daemon.thread.join()


class Terminal:
    """`rov drive` on a pty that controls it."""

    def __init__(self, daemon: Daemon, *words: str):
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, b"\x28\x00\x78\x00\x00\x00\x00\x00")  # 40 lines of 120
        self.process = subprocess.Popen(
            [sys.executable, "-m", "rov", "drive", "--config", str(daemon.config), *words],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            env=os.environ | {"TERM": "xterm", "COLUMNS": "120", "LINES": "40"},
        )
        os.close(slave)
        self.shown = ""

    def read(self) -> None:
        while select.select([self.master], [], [], 0)[0]:
            try:
                data = os.read(self.master, 65536)
            except OSError:
                return
            self.shown += data.decode(errors="replace")

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def until(self, done: Callable[[], bool], hold: str = "") -> None:
        """Wait, holding a key meanwhile (a terminal repeats it 25 times a second)."""
        end = time.monotonic() + PATIENCE_S
        while not done():
            assert time.monotonic() < end, self.shown[-3000:]
            if hold:
                self.type(hold)
            self.read()
            time.sleep(0.04)

    def close(self) -> None:
        if self.master >= 0:
            os.close(self.master)
            self.master = -1
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


@pytest.fixture
def terminal(daemon: Daemon, tmp_path: Path) -> Iterator[Terminal]:
    terminal = Terminal(daemon, "--gamepad", str(tmp_path / "js0"))
    yield terminal
    terminal.close()


def last(daemon: Daemon) -> Sticks:
    found = daemon.of(Sticks)[-1].command
    assert isinstance(found, Sticks)
    return found


def test_driving(daemon: Daemon, terminal: Terminal, tmp_path: Path) -> None:
    """Keys, gamepad, page, refusals, stop; from taking over to leaving."""
    terminal.until(lambda: len(daemon.of(Sticks)) > 5)
    assert isinstance(daemon.requests[0].command, TakeOver) and daemon.operator.startswith("drive-")
    assert (last(daemon).surge, last(daemon).yaw) == (0, 0)

    terminal.until(lambda: last(daemon).surge == 0.5, hold="w")
    terminal.until(lambda: last(daemon).surge == 0)  # the repeats have ended
    times = [request.command.t / 1e9 for request in daemon.of(Sticks)]
    assert len(times) / (times[-1] - times[0]) > 10
    terminal.until(lambda: len(daemon.of(Heartbeat)) >= 2)

    pad = Pad(tmp_path / "js0")
    pad.plug()
    terminal.until(lambda: "is there" in terminal.shown)
    pad.send(2, 3, 32767)
    terminal.until(lambda: last(daemon).sway == 1.0)
    pad.unplug()
    terminal.until(lambda: last(daemon).sway == 0 and "its sticks are released" in terminal.shown)

    terminal.type("r2")
    terminal.until(lambda: bool(daemon.of(SetMode)) and "arm refused: the board is not there" in terminal.shown)
    for part in ("ARMED", "hold", "fish", "you", "12.34 m", "90°", "15.9 V", "something happened", "STOP"):
        assert part in terminal.shown, part

    terminal.until(lambda: last(daemon).surge == 0.5, hold="w")
    terminal.type(" ")
    terminal.until(lambda: len(daemon.of(Stop)) == 1 and last(daemon).surge == 0)
    terminal.type("q")
    terminal.until(lambda: terminal.process.poll() is not None)
    assert terminal.process.returncode == 0 and len(daemon.of(Stop)) == 4
    before = len(daemon.requests)
    time.sleep(0.3)
    assert len(daemon.requests) == before


@pytest.mark.parametrize("how", ["ctrl-c", "hang-up", "term"])
def test_leaving_in_any_way_stops(daemon: Daemon, terminal: Terminal, how: str) -> None:
    terminal.until(lambda: bool(daemon.of(Sticks)))
    if how == "ctrl-c":
        terminal.type("\x03")
    elif how == "term":
        terminal.process.terminate()
    else:
        os.close(terminal.master)
        terminal.master = -1
    code = terminal.process.wait(PATIENCE_S)
    end = time.monotonic() + PATIENCE_S
    while not daemon.of(Stop):
        assert time.monotonic() < end
        time.sleep(0.01)
    assert code == {"ctrl-c": 130, "term": 128 + signal.SIGTERM, "hang-up": 128 + signal.SIGHUP}[how]


def rival(daemon: Daemon, seq: int = 1) -> CommandClient:
    """Another operator, who takes over from the present one."""
    client = CommandClient(daemon.endpoints[1])
    assert client.send(TakeOver(t=time.monotonic_ns(), session="rival", seq=seq, displace=True), 5000)
    answer = client.receive_reply(5000)
    assert answer is not None and answer.accepted
    return client


def test_a_refused_session_stops_nobody(daemon: Daemon, tmp_path: Path) -> None:
    other = rival(daemon)
    late = Terminal(daemon, "--gamepad", str(tmp_path / "js0"))
    late.until(lambda: late.process.poll() is not None)
    late.read()
    assert late.process.returncode == 2 and "the operator is rival" in late.shown
    time.sleep(0.3)
    assert daemon.of(Stop) == [] and daemon.operator == "rival"
    late.close()
    other.close()


@pytest.mark.parametrize("how", ["q", "ctrl-c", "term", "hang-up"])
@pytest.mark.parametrize("known", [True, False], ids=["it knows", "in the same moment"])
def test_a_displaced_session_stops_nobody_when_it_leaves(
    daemon: Daemon, terminal: Terminal, how: str, known: bool
) -> None:
    terminal.until(lambda: bool(daemon.of(Sticks)))
    other = rival(daemon)
    if known:
        terminal.until(lambda: "press t" in terminal.shown)
    match how:
        case "q" | "ctrl-c":
            terminal.type("q" if how == "q" else "\x03")
        case "term":
            terminal.process.terminate()
        case "hang-up":
            os.close(terminal.master)
            terminal.master = -1
    terminal.process.wait(PATIENCE_S)
    time.sleep(0.3)
    assert daemon.of(Stop) == [] and daemon.operator == "rival"
    other.close()


def test_a_displaced_operator_may_still_stop_by_hand_and_leaves_with_a_stop_once_it_took_over_again(
    daemon: Daemon, terminal: Terminal
) -> None:
    terminal.until(lambda: bool(daemon.of(Sticks)))
    other = rival(daemon)
    terminal.until(lambda: "press t" in terminal.shown)
    terminal.type(" ")
    terminal.until(lambda: len(daemon.of(Stop)) == 1)
    terminal.type("t")
    terminal.until(lambda: daemon.operator.startswith("drive-"))
    sticks = len(daemon.of(Sticks))
    terminal.until(lambda: len(daemon.of(Sticks)) > sticks + 15)  # the moment after a stop is over
    terminal.type("q")
    terminal.process.wait(PATIENCE_S)
    terminal.until(lambda: len(daemon.of(Stop)) == 4)
    other.close()


def test_one_operator_and_anybody_stops(daemon: Daemon, terminal: Terminal) -> None:
    """`rov ctl` beside a running `rov drive`."""
    terminal.until(lambda: bool(daemon.of(Sticks)))
    refused = daemon.rov("ctl", "mode", "hold")
    assert refused.returncode == 2 and "the operator is drive-" in refused.stderr and "--take-over" in refused.stderr
    assert daemon.rov("ctl", "stop").stdout == "stop: done: neutral and disarmed\n" and len(daemon.of(Stop)) == 1
    assert daemon.operator.startswith("drive-")
    time.sleep(SETTLE_S)  # until then a change of mode may have been under way at the stop
    taken = daemon.rov("ctl", "mode", "hold", "--take-over")
    assert taken.returncode == 0, taken.stderr
    terminal.until(lambda: "press t" in terminal.shown)
    before = len(daemon.of(Sticks))
    time.sleep(0.3)
    assert len(daemon.of(Sticks)) <= before + 1 and daemon.operator.startswith("ctl-")
    terminal.type("t")
    terminal.until(lambda: daemon.operator.startswith("drive-") and len(daemon.of(Sticks)) > before + 5)


def test_one_command_after_another(daemon: Daemon) -> None:
    """Each call may be a process of its own, but all are one operator."""
    command = [sys.executable, "-m", "rov", "ctl", "mode", "hold", "--config", str(daemon.config)]
    own = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert own.stdout == "mode hold: done\n"
    assert daemon.rov("ctl", "target", "fish", "--size", "0.4").returncode == 0
    aim = daemon.of(SetTarget)[0].command
    assert isinstance(aim, SetTarget) and (aim.label, aim.size) == ("fish", 0.4)
    refused = daemon.rov("ctl", "arm")
    assert refused.returncode == 2 and refused.stderr == "error: refused: the board is not there\n"
    for words, why in (
        (("mode", "fly"), "no such mode"),
        (("jump",), "no such command"),
        (("stop", "now"), "takes no argument"),
        (("arm", "--size", "0.3"), "belongs to target"),
    ):
        wrong = daemon.rov("ctl", *words)
        assert wrong.returncode == 2 and why in wrong.stderr and "Traceback" not in wrong.stderr


def printed_by(daemon: Daemon, *words: str, lines: int) -> list[str]:
    """The first lines that `rov listen` prints into a pipe."""
    command = [sys.executable, "-m", "rov", "listen", "--config", str(daemon.config), *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            return [process.stdout.readline() for _ in range(lines)]
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(10) == 130


def test_listening(daemon: Daemon) -> None:
    lines = printed_by(daemon, "pilot", lines=3)
    assert all(line.startswith("pilot ") and " ms " in line and '"mode":"hold"' in line for line in lines)
    rates = printed_by(daemon, "--rates", lines=6)
    assert [line.split()[0] for line in rates[:3]] == ["vehicle", "pilot", "events"]
    assert "of   50 Hz" in rates[0] and " ms" in rates[0]
    wrong = daemon.rov("listen", "nonsense")
    assert wrong.returncode == 2 and "no such topic" in wrong.stderr
