"""`Client` and `AsyncClient`, against both endpoints of a daemon in a thread, over real sockets."""

import asyncio
import concurrent.futures
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rov import (
    Arm,
    AsyncClient,
    Client,
    Command,
    Endpoints,
    Event,
    Heartbeat,
    Message,
    Mode,
    NoAnswer,
    PilotStatus,
    Refused,
    SetMode,
    Setpoint,
    SetTarget,
    Sticks,
    Stop,
    TakeOver,
    UserError,
    VehicleState,
)
from rov.bus import CommandServer, Request
from rov.bus.public import PublicPublisher
from rov.config.schema import BusConfig

pytestmark = pytest.mark.clock

S = 1_000_000_000
PATIENCE_S = 20.0


class Daemon:
    """The two public endpoints of a daemon: accepts all permitted commands, and publishes the pilot's status."""

    def __init__(self, folder: Path):
        self.endpoints = Endpoints(*(f"ipc://{folder}/{name}" for name in ("public", "commands")))
        self.requests: list[Request] = []
        self.operator, self.armed, self.mode = "", False, Mode.MANUAL
        self.refusal = ""
        """Why arming fails, after it was accepted."""
        self.refused, self.silent = "", False
        self.late_s, self.pictures = 0.0, 0
        """`follow` is refused until the setpoint of a picture that comes so long after it was asked for."""
        self.to_publish: deque[Message] = deque()
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        public, server = PublicPublisher(self.endpoints.public), CommandServer(self.endpoints.commands)
        published_t = 0
        while not self.ending.wait(0.003):
            now = time.monotonic_ns()
            for request in server.requests(now):
                self.requests.append(request)
                if not self.silent:
                    server.reply(request, now, self._carry_out(request.command))
            self.operator = server.operators.operator(now)
            if now - published_t > S // 20:
                published_t = now
                status = PilotStatus(
                    t=now, armed=self.armed, mode=self.mode, operator=self.operator, refused=self.refused
                )
                public.publish(status)
                while self.to_publish:  # the test appends meanwhile
                    public.publish(self.to_publish.popleft())
            public.step(0)
        server.close()
        public.close()

    def _carry_out(self, command: Command) -> str:
        """Returns why it is refused."""
        match command:
            case Arm():
                self.armed, self.refused = not self.refusal, self.refusal
            case Stop():
                self.armed = False
            case SetMode(mode=Mode.FOLLOW) if self.late_s:
                picture = threading.Timer(self.late_s, self._see)
                picture.start()
                return "follow needs fresh setpoints from steer; there are none"
            case SetMode():
                self.mode = command.mode
            case SetTarget() if command.label.startswith("no "):
                return command.label
        return ""

    def _see(self) -> None:
        self.late_s = 0.0
        now = time.monotonic_ns()
        self.to_publish.append(Setpoint(t=now, source="steer", frame_id=1, frame_t=now))
        until(lambda: not self.to_publish)
        self.pictures += 1

    def of(self, kind: type[Command]) -> list[Command]:
        return [each.command for each in list(self.requests) if isinstance(each.command, kind)]

    def close(self) -> None:
        self.ending.set()
        self.thread.join()


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path)
    yield daemon
    daemon.close()


def until(done: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not done():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.005)


def test_an_operators_program(daemon: Daemon) -> None:
    with Client(daemon.endpoints, session="ann") as rover:
        with pytest.raises(Refused, match="take over first"):
            rover.mode("hold")
        with pytest.raises(Refused, match="take over first"):
            rover.sticks(surge=0.5)
        rover.take_over()
        rover.mode("hold")
        rover.arm()
        assert daemon.armed and rover.is_operator and daemon.operator == "ann"
        rover.target("fish", size=0.4)
        rover.sticks(yaw=0.3, seconds=0.2)
        until(lambda: rover.wait_for(PilotStatus).mode is Mode.HOLD)
    target = daemon.of(SetTarget)[0]
    assert isinstance(target, SetTarget) and (target.label, target.size) == ("fish", 0.4)
    *moved, released = [each for each in daemon.of(Sticks) if isinstance(each, Sticks)][:-1]  # the last one: leaving
    assert len(moved) >= 3 and all(each.yaw == 0.3 and each.surge == 0 for each in moved) and released.yaw == 0
    until(lambda: len(daemon.of(Stop)) == 3)
    assert not daemon.armed, "leaving stops"
    seqs = [each.command.seq for each in daemon.requests]
    assert seqs == sorted(set(seqs))


def test_what_is_refused_is_said(daemon: Daemon) -> None:
    daemon.refusal = "the thruster board failed the arming test"
    with Client(daemon.endpoints, session="ann") as ann, Client(daemon.endpoints, session="bob") as bob:
        ann.take_over()
        with pytest.raises(Refused, match="failed the arming test"):
            ann.arm()
        with pytest.raises(Refused, match="the operator is ann"):
            bob.take_over()
        assert not bob.ask(SetMode, mode=Mode.HOLD).accepted
        with pytest.raises(UserError, match="no such mode; there are manual, hold"):
            ann.mode("fly")
        for axes in ({"surge": 1.01}, {"yaw": math.nan}):
            with pytest.raises(UserError, match="sticks go from -1 to 1"):
                ann.sticks(**axes)
        for fields, error in (({"label": ""}, UserError), ({"label": 7}, UserError), ({"name": "fish"}, TypeError)):
            with pytest.raises(error):
                ann.ask(SetTarget, **fields)
        with pytest.raises(UserError, match="no such topic"):
            Client(daemon.endpoints, topics=["nonsense"])
        with pytest.raises(UserError, match="no topic carries"):
            ann.latest(Message)
        bob.take_over(displace=True)
        until(lambda: daemon.operator == "bob")
        with pytest.raises(Refused, match="the operator is bob; take over first"):
            ann.mode("hold")
        assert not ann.is_operator
    until(lambda: len(daemon.of(Stop)) >= 3)
    assert len(daemon.of(Stop)) == 3, "one of them left as the operator; the other must stop nobody's vehicle"


def test_a_mode_whose_picture_is_late_is_asked_for_again_with_the_next(daemon: Daemon) -> None:
    with Client(daemon.endpoints) as rover:
        rover.take_over()
        daemon.late_s = 0.3
        rover.mode("follow")
        assert daemon.mode is Mode.FOLLOW and len(daemon.of(SetMode)) == 2
        daemon.late_s = 1.5  # longer than it waits
        with pytest.raises(Refused, match="there are none"):
            rover.mode("follow")
        assert len(daemon.of(SetMode)) == 3
    until(lambda: daemon.pictures == 2)

    async def program() -> None:
        async with AsyncClient(daemon.endpoints) as rover:
            await rover.take_over()
            daemon.late_s = 0.3
            await rover.mode("follow")

    asyncio.run(program())
    assert len(daemon.of(SetMode)) == 5


def test_a_program_that_fails_stops(daemon: Daemon) -> None:
    with pytest.raises(ZeroDivisionError), Client(daemon.endpoints) as rover:
        rover.take_over()
        rover.arm()
        print(1 / 0)
    until(lambda: len(daemon.of(Stop)) == 3)
    assert not daemon.armed


def test_close_alone_stops_nothing_and_ends_the_client(daemon: Daemon) -> None:
    rover = Client(daemon.endpoints)
    rover.take_over()
    rover.close()
    rover.close()
    assert daemon.of(Stop) == [] and list(rover.messages(PilotStatus)) == []
    with pytest.raises(RuntimeError, match="closed"):
        rover.stop()


def test_without_a_daemon_there_is_no_answer(tmp_path: Path) -> None:
    nobody = Endpoints(f"ipc://{tmp_path}/a", f"ipc://{tmp_path}/b")
    with Client(nobody, answer_s=0.1) as rover:
        with pytest.raises(NoAnswer, match="is `rov run` running there"):
            rover.take_over()
        with pytest.raises(TimeoutError, match="no such PilotStatus within 0.1 s"):
            rover.wait_for(PilotStatus, timeout_s=0.1)
        assert rover.latest(PilotStatus) is None


def test_a_daemon_that_hangs_gives_no_answer_and_is_left(daemon: Daemon) -> None:
    with Client(daemon.endpoints, answer_s=0.2) as rover:
        rover.take_over()
        daemon.silent = True
        with pytest.raises(NoAnswer):
            rover.mode("hold")
    until(lambda: len(daemon.of(Stop)) >= 3)
    assert len(daemon.of(Stop)) == 3, "without an answer we assume that we are the operator"


def test_a_heartbeat_that_was_lost_is_sent_again_soon(daemon: Daemon) -> None:
    """Before three of them add up to a lost operator."""
    with Client(daemon.endpoints) as rover:
        rover.take_over()
        daemon.silent = True
        until(lambda: len(daemon.of(Heartbeat)) >= 3)
        first, _, third = daemon.of(Heartbeat)[:3]
        assert third.t - first.t < S
        daemon.silent = False
        until(lambda: rover.session.beat_answered_t >= rover.session.beat_t)
        answered = len(daemon.of(Heartbeat))
        rover.sleep(1.5)
        assert len(daemon.of(Heartbeat)) - answered in (1, 2), "once a second"


def test_the_heartbeat_ends_when_its_program_hangs(daemon: Daemon) -> None:
    with Client(daemon.endpoints, patience_s=1.5) as rover:
        assert daemon.of(Heartbeat) == []
        rover.take_over()
        rover.sleep(2.2)
        beats = len(daemon.of(Heartbeat))
        assert beats == 2, "once a second; the take-over counts as the first"
        time.sleep(3.5)  # the program is busy with something else
        assert len(daemon.of(Heartbeat)) - beats in (1, 2)
        until(lambda: daemon.operator == "")
        rover.sleep(1.5)
        with pytest.raises(Refused, match="there is no operator; take over first"):
            rover.mode("hold")
        assert not rover.is_operator, "it does not come back by itself"
        rover.take_over()


def test_many_threads_use_one_client(daemon: Daemon) -> None:
    """Each gets the answer to its own command, and heartbeats and messages go on meanwhile."""
    with Client(daemon.endpoints, topics=["pilot", "events"]) as rover:
        rover.take_over()

        def use(n: int) -> int:
            for i in range(30):
                label = f"{'no ' if (n + i) % 2 else ''}class {n} {i}"
                reply = rover.ask(SetTarget, label=label)
                assert (reply.accepted, reply.reason) == ((False, label) if label.startswith("no") else (True, ""))
            return len(list(rover.messages(PilotStatus, seconds=0.2)))

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            assert min(pool.map(use, range(8))) >= 1
    assert len(daemon.of(SetTarget)) == 240


def test_listening(daemon: Daemon) -> None:
    with Client(daemon.endpoints) as rover:
        rover.wait_for(PilotStatus)
        events = rover.messages(Event, seconds=PATIENCE_S)
        for n in range(1200):
            daemon.to_publish.append(Event(t=n, level="info", source="test", code="x", text=str(n)))
            if n % 100 == 99:
                until(lambda: not daemon.to_publish)
        until(lambda: events.dropped == 200)
        assert [int(next(events).text) for _ in range(1000)] == list(range(200, 1200))
        began = time.monotonic()
        assert len(list(rover.messages(PilotStatus, seconds=0.3))) >= 2 and time.monotonic() - began >= 0.3
        assert rover.latest(VehicleState) is None
        assert rover.latest(PilotStatus, max_age_s=0.0) is None, "stale is unknown"
        daemon.mode = Mode.SURFACE
        assert rover.wait_for(PilotStatus, lambda status: status.mode is Mode.SURFACE, PATIENCE_S).t


def test_an_endpoint_is_named_as_in_the_configuration(tmp_path: Path) -> None:
    assert (Endpoints().public, Endpoints().commands) == (BusConfig().public, BusConfig().commands)
    with pytest.raises(UserError, match="must be a host's name or address alone"):
        Client("127.0.0.1:5556")
    with pytest.raises(UserError, match="holds 0 secret keys"):
        Client("192.168.2.2", keys=tmp_path)


def test_on_asyncio(daemon: Daemon) -> None:
    async def main() -> None:
        async with AsyncClient(daemon.endpoints, session="ann") as rover:
            with pytest.raises(Refused, match="take over first"):
                await rover.sticks(surge=1.0)
            await rover.take_over()
            await asyncio.gather(rover.mode("hold"), rover.target("fish"), rover.arm())
            assert rover.is_operator and daemon.armed
            statuses = [status.mode async for status in rover.messages(PilotStatus, seconds=0.3)]
            assert len(statuses) >= 2 and set(statuses) == {Mode.HOLD}
            await rover.sticks(yaw=0.3, seconds=0.1)
            with pytest.raises(TimeoutError):
                await rover.wait_for(PilotStatus, lambda status: status.mode is Mode.FOLLOW, 0.1)
            with pytest.raises(asyncio.TimeoutError):
                daemon.silent = True
                await asyncio.wait_for(rover.ask(SetMode, mode=Mode.HOLD), 0.05)  # cancelled on the way
            daemon.silent = False
            await rover.mode("manual")
            assert rover.latest(PilotStatus) is not None

    asyncio.run(main())
    until(lambda: len(daemon.of(Stop)) == 3)
    assert not daemon.armed


def test_a_blocked_event_loop_sends_no_heartbeat(daemon: Daemon) -> None:
    async def main() -> None:
        async with AsyncClient(daemon.endpoints, patience_s=0.6) as rover:
            await rover.take_over()
            await asyncio.sleep(2.2)
            assert len(daemon.of(Heartbeat)) == 2
            time.sleep(3.3)
            assert len(daemon.of(Heartbeat)) == 2
            await asyncio.sleep(1.2)
            assert not rover.is_operator

    asyncio.run(main())
    assert daemon.of(Stop) == [] and len(daemon.of(TakeOver)) == 1
