"""The bus, with real sockets and real processes: newest wins, nobody blocks, commands are answered."""

import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq

from rov.bus import (
    COMMAND_BYTES,
    COMMANDS_PER_UPDATE,
    INSIDE,
    MAIL,
    CommandClient,
    CommandServer,
    Malformed,
    Publisher,
    Subscriber,
    decode,
    decode_command,
    encode,
    inbox,
    is_local,
    keys,
    listen,
)
from rov.bus.command_gateway import CommandGateway
from rov.bus.public import PublicPublisher
from rov.errors import UserError
from rov.messages import (
    COMMAND_VERSIONS,
    SCHEMA_VERSION,
    TOPICS,
    AnyCommand,
    Arm,
    Disarm,
    Event,
    Frame,
    Health,
    Heartbeat,
    Mode,
    PilotStatus,
    Reply,
    SetMode,
    SetTarget,
    Sticks,
    Stop,
    TakeOver,
    VehicleState,
)

pytestmark = pytest.mark.clock

S = 1_000_000_000
PATIENCE_S = 10.0


def frame(i: int, t: int | None = None) -> Frame:
    t = time.monotonic_ns() if t is None else t
    return Frame(t=t, frame_id=i, frame_t=t, width=4, height=3)


def event(i: int) -> Event:
    return Event(t=time.monotonic_ns(), level="info", source="test", code="n", text=str(i))


def until(condition, patience_s: float = PATIENCE_S) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, "did not happen"
        time.sleep(0.005)


@pytest.fixture
def open_(request: pytest.FixtureRequest):  # type: ignore[no-untyped-def]
    """Close what a test opened."""

    def keep(thing):  # type: ignore[no-untyped-def]
        request.addfinalizer(thing.close)
        return thing

    return keep


def joined(pub: Publisher, sub: Subscriber[Frame]) -> None:
    """A subscriber hears only what is said after it has joined."""

    def heard() -> bool:
        pub.publish(frame(0))
        return sub.receive(time.monotonic_ns())

    until(heard)


class Stepping:
    """The front at work, while somebody else asks and answers."""

    def __init__(self, front: CommandGateway):
        self.front, self.ending = front, threading.Event()
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self.ending.is_set():
            self.front.step(0.01)

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *_: object) -> None:
        self.ending.set()
        self.thread.join()


# ---- payloads --------------------------------------------------------------------------------------------------


def test_a_payload_is_the_version_and_a_map() -> None:
    payload = encode(Health(t=5, process="pilotd", rate_hz=50.0))
    assert msgspec.msgpack.decode(payload) == [
        SCHEMA_VERSION,
        {"t": 5, "process": "pilotd", "rate_hz": 50.0, "latency_ms": 0.0, "dropped": 0},
    ]
    assert decode("health", payload) == Health(t=5, process="pilotd", rate_hz=50.0)


def test_unknown_fields_are_ignored_and_other_versions_refused() -> None:
    newer = msgspec.msgpack.encode([SCHEMA_VERSION, {"t": 5, "process": "x", "rate_hz": 1.0, "colour": "blue"}])
    assert decode("health", newer) == Health(t=5, process="x", rate_hz=1.0)
    with pytest.raises(Malformed, match="not"):
        decode("health", msgspec.msgpack.encode([SCHEMA_VERSION + 1, {"t": 5, "process": "x", "rate_hz": 1.0}]))
    with pytest.raises(Malformed, match="no topic"):
        decode("nonsense", newer)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x92\x01",
        encode(frame(1))[:-1],
        bytes((0x92, SCHEMA_VERSION)) + b"\x91" * 4000,  # nested deeper than the interpreter
        bytes((0x92, SCHEMA_VERSION)) + b"\x82\xa4verb\xa4stop\xa7session\xa2\xff\xfe",  # not UTF-8
        encode(Stop(t=1, session="a", seq=1)) + b" " * COMMAND_BYTES,
        encode(Arm(t=1, session="", seq=1)),
        encode(Arm(t=1, session="a\x1b[2J", seq=1)),
        encode(Arm(t=1, session="a" * 65, seq=1)),
        msgspec.msgpack.encode([SCHEMA_VERSION + 1, {"t": 1, "session": "a", "seq": 1, "verb": "arm"}]),
        msgspec.msgpack.encode([SCHEMA_VERSION, {"verb": "halt"}]),
        msgspec.msgpack.encode([SCHEMA_VERSION, "stop"]),
        encode(Sticks(t=1, session="a", seq=1, yaw=float("nan"))),
        encode(Sticks(t=1, session="a", seq=1, yaw=float("inf"))),
        msgspec.msgpack.encode([SCHEMA_VERSION, {"t": 1, "session": "a", "seq": 1, "verb": "dance"}]),
    ],
)
def test_malformed_commands_are_told_apart(data: bytes) -> None:
    with pytest.raises(Malformed):
        decode_command(data)


@pytest.mark.parametrize(
    "said",
    [
        [SCHEMA_VERSION + 1, {"verb": "stop", "t": 5, "session": "a", "seq": 7}],
        [SCHEMA_VERSION + 1, {"verb": "stop", "when": 5.5, "who": ["a", 1], "seq": 7}, "more"],
        [0, {"verb": "stop", "seq": 7}],
        [SCHEMA_VERSION, {"verb": "stop", "t": 5, "session": "a", "seq": 7, "why": {"it": "leaks"}}],
        [SCHEMA_VERSION, {"verb": "stop", "t": "now", "session": "", "seq": 7}],
        [SCHEMA_VERSION, {"verb": "stop", "t": 5, "session": "a\x1b[2J", "seq": 7}],
    ],
)
def test_a_stop_of_any_version_is_understood(said: list[object]) -> None:
    command = decode_command(msgspec.msgpack.encode(said))
    assert isinstance(command, Stop) and command.seq == 7


ANN: dict[str, Any] = {"t": 5, "session": "ann", "seq": 7}
AXES: dict[str, Any] = {"surge": 0.1, "sway": -0.2, "heave": 0.3, "yaw": -0.4}


@pytest.mark.parametrize(
    ("sent", "command"),
    [
        ({"verb": "heartbeat"}, Heartbeat(**ANN)),
        ({"verb": "arm"}, Arm(**ANN)),
        ({"verb": "disarm"}, Disarm(**ANN)),
        ({"verb": "stop"}, Stop(**ANN)),
        ({"verb": "mode", "mode": "follow"}, SetMode(mode=Mode.FOLLOW, **ANN)),
        ({"verb": "target", "label": "fish", "size": 0.3}, SetTarget(label="fish", size=0.3, **ANN)),
        ({"verb": "sticks", **AXES}, Sticks(**AXES, **ANN)),
        ({"verb": "take_over", "displace": True}, TakeOver(displace=True, **ANN)),
    ],
)
@pytest.mark.parametrize("version", COMMAND_VERSIONS)
def test_every_command_of_both_versions_is_understood(
    version: int, sent: dict[str, object], command: AnyCommand
) -> None:
    assert decode_command(msgspec.msgpack.encode([version, sent | ANN])) == command


def test_the_versions_of_commands_are_1_and_the_present_one() -> None:
    assert COMMAND_VERSIONS == (1, SCHEMA_VERSION)
    with pytest.raises(Malformed):
        decode_command(msgspec.msgpack.encode([0, {"verb": "arm"} | ANN]))


# ---- state -----------------------------------------------------------------------------------------------------


def test_the_newest_wins(tmp_path: Path, open_) -> None:  # type: ignore[no-untyped-def]
    pub, sub = open_(Publisher("camerad", tmp_path, sinks=())), open_(Subscriber(Frame, tmp_path))
    joined(pub, sub)
    sent = [frame(i) for i in range(1, 1001)]
    for each in sent:
        pub.publish(each)

    def newest() -> bool:  # one of 400 times ZeroMQ loses the last one, until the next is sent
        pub.publish(sent[-1])
        return sub.receive(time.monotonic_ns()) and sub.message.frame_id == 1000

    until(newest)
    time.sleep(0.05)
    sub.receive(time.monotonic_ns())
    assert sub.message.frame_id == 1000 and not sub.receive(time.monotonic_ns())


def test_a_slow_joiner_gets_the_next_message(tmp_path: Path, open_) -> None:  # type: ignore[no-untyped-def]
    sub = open_(Subscriber(Frame, tmp_path / "not-there-yet"))
    assert not sub.receive(time.monotonic_ns()) and not sub.fresh(time.monotonic_ns())
    time.sleep(0.1)
    joined(open_(Publisher("camerad", tmp_path / "not-there-yet", sinks=())), sub)


def test_freshness_is_three_missed_messages(tmp_path: Path, open_) -> None:  # type: ignore[no-untyped-def]
    sub = open_(Subscriber(VehicleState, tmp_path))
    sub.message = VehicleState(t=10 * S)
    assert sub.fresh(10 * S + 3 * S // 50) and not sub.fresh(10 * S + 3 * S // 50 + 1)
    slower = open_(Subscriber(VehicleState, tmp_path, hz=10.0))
    slower.message = sub.message
    assert slower.fresh(10 * S + 3 * S // 10) and not slower.fresh(10 * S + 3 * S // 10 + 1)


def test_what_is_malformed_or_from_the_future_is_counted_and_changes_nothing(tmp_path: Path, open_) -> None:  # type: ignore[no-untyped-def]
    pub, sub = open_(Publisher("camerad", tmp_path, sinks=())), open_(Subscriber(Frame, tmp_path))
    joined(pub, sub)
    for n, bad in enumerate((encode(frame(1))[:-3], encode(event(1)), encode(frame(9, time.monotonic_ns() + S)), b"")):
        pub.state["frame"].send(bad)
        until(lambda n=n: (sub.receive(time.monotonic_ns()), sub.malformed == n + 1)[1])
    assert sub.message.frame_id == 0


def test_only_the_owner_publishes_a_state_and_many_publisher_topics_are_read_from_mail(tmp_path: Path, open_) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="camerad"):
        open_(Publisher("perceptiond", tmp_path, sinks=())).publish(frame(1))
    with pytest.raises(ValueError, match="sink"):
        Subscriber(Health, tmp_path)
    with pytest.raises(UserError, match="too long"):
        Publisher("camerad", tmp_path / ("x" * 120))


PUBLISHER = """
import sys, time
from pathlib import Path
from rov.bus import Publisher
from rov.messages import Frame
pub, i = Publisher("camerad", Path(sys.argv[1]), sinks=()), int(sys.argv[2])
while True:
    t, i = time.monotonic_ns(), i + 1
    pub.publish(Frame(t=t, frame_id=i, frame_t=t, width=4, height=3))
    time.sleep(0.005)
"""


def test_a_killed_publisher_goes_stale_and_its_successor_is_heard(tmp_path: Path, open_) -> None:  # type: ignore[no-untyped-def]
    sub = open_(Subscriber(Frame, tmp_path))
    for start in (1000, 5000):
        process = subprocess.Popen([sys.executable, "-c", PUBLISHER, str(tmp_path), str(start)])
        try:
            until(lambda: sub.receive(time.monotonic_ns()) and sub.message.frame_id > start)  # noqa: B023
            assert sub.fresh(time.monotonic_ns())
        finally:
            process.kill()
            process.wait()
        until(lambda: (sub.receive(time.monotonic_ns()), not sub.fresh(time.monotonic_ns()))[1])


SLEEPER = """
import signal, sys, time
from pathlib import Path
from rov.bus import Subscriber, inbox
from rov.messages import Frame, TOPICS
sub, box = Subscriber(Frame, Path(sys.argv[1])), inbox("recorder", Path(sys.argv[1]))
while not sub.receive(time.monotonic_ns()):
    pass
print("joined", flush=True)
signal.pause()
"""


@pytest.mark.usefixtures("swept")
def test_readers_that_never_read_block_nobody_and_cost_bounded_memory(tmp_path: Path, open_) -> None:  # type: ignore[no-untyped-def]
    pub = open_(Publisher("camerad", tmp_path, sinks=("recorder",)))
    endpoint = f"ipc://{tmp_path}/public"
    public = open_(PublicPublisher(endpoint))
    deaf = open_(listen(endpoint))
    process = subprocess.Popen([sys.executable, "-c", SLEEPER, str(tmp_path)], stdout=subprocess.PIPE)
    try:
        while not select_line(process):
            pub.publish(frame(0))
        os.kill(process.pid, signal.SIGSTOP)  # its input and output threads too
        sent = 100_000
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        longest = 0.0
        for i in range(sent):
            start = time.thread_time()
            pub.publish(frame(i))
            public.publish(frame(i))
            longest = max(longest, time.thread_time() - start)
        grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    # What was sent is 20 MB and more; what may wait is some thousand messages.
    assert grown_kb < 8_000
    assert sent - 8 * MAIL < pub.dropped["recorder"] <= sent
    assert longest < 0.1  # of processor time: it never waits in a loop either
    assert 0 < sum(1 for _ in deaf.receive(sent)) < 4 * MAIL


def select_line(process: subprocess.Popen[bytes]) -> bool:
    poller = zmq.Poller()
    poller.register(process.stdout, zmq.POLLIN)
    return bool(poller.poll(5))


# ---- mail ------------------------------------------------------------------------------------------------------


def test_mail_keeps_order_and_waits_for_a_late_sink(tmp_path: Path, open_) -> None:  # type: ignore[no-untyped-def]
    pilot, camera = open_(Publisher("pilotd", tmp_path)), open_(Publisher("camerad", tmp_path))
    for i in range(100):
        pilot.publish(event(i))
    camera.publish(frame(7))
    camera.publish(Health(t=1, process="camerad", rate_hz=15.0))
    box, entries = open_(inbox("recorder", tmp_path)), []
    until(lambda: (entries.extend(box.receive()), len(entries) == 102)[1])
    assert [e.message.text for e in entries if e.topic == "events"] == [str(i) for i in range(100)]
    assert {e.topic for e in entries} == {"events", "frame", "health"}
    assert all(e.message == decode(e.topic, e.payload) for e in entries)


def test_mail_that_finds_no_room_is_counted_where_it_was_said(tmp_path: Path, open_) -> None:  # type: ignore[no-untyped-def]
    pub = open_(Publisher("pilotd", tmp_path, sinks=("recorder",)))
    for i in range(MAIL + 50):
        pub.publish(event(i))
    assert pub.dropped == {"recorder": 50}
    box, got = open_(inbox("recorder", tmp_path)), []
    until(lambda: (got.extend(box.receive()), len(got) == MAIL)[1])
    assert got[-1].message.text == str(MAIL - 1)


def test_last_words_arrive(tmp_path: Path, open_) -> None:  # type: ignore[no-untyped-def]
    box, context = open_(inbox("public", tmp_path)), zmq.Context()
    pub = Publisher("pilotd", tmp_path, sinks=("public",), context=context)
    pub.publish(event(1))
    pub.close()
    context.term()
    assert box.wait(2000) and [e.message.text for e in box.receive()] == ["1"]


def test_a_reader_drops_what_is_no_mail(tmp_path: Path, open_) -> None:  # type: ignore[no-untyped-def]
    box = open_(inbox("recorder", tmp_path))
    pub = open_(Publisher("pilotd", tmp_path, sinks=("recorder",)))
    for parts in ([b"x"], [b"events", b"\xc1"], [b"nonsense", encode(event(1))], [b"a", b"b", b"c"], [b"\xff", b""]):
        pub.mail["recorder"].send_multipart(parts)
    pub.publish(event(2))
    entries = []
    until(lambda: (entries.extend(box.receive()), len(entries) == 1)[1])
    assert box.malformed == 5


def test_every_topic_travels_on_the_public_side(tmp_path: Path, open_) -> None:  # type: ignore[no-untyped-def]
    endpoint = f"ipc://{tmp_path}/public"
    public, reader, some = open_(PublicPublisher(endpoint)), open_(listen(endpoint)), open_(listen(endpoint, ["pilot"]))
    status = PilotStatus(t=3, armed=False, mode=Mode.MANUAL)

    def heard() -> bool:
        public.publish(status)
        return some.wait(10) and reader.wait(10)

    until(heard)
    public.publish(event(1))
    public.forward("commands", encode(Arm(t=1, session="a", seq=2)))
    public.publish(status)
    until(lambda: Arm(t=1, session="a", seq=2) in [e.message for e in reader.receive()])
    assert {e.topic for e in some.receive()} == {"pilot"}
    assert "pilot" in TOPICS


# ---- the command endpoint --------------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path: Path) -> Iterator[CommandServer]:
    server = CommandServer(f"ipc://{tmp_path}/commands", heartbeat_timeout_s=3.0)
    yield server
    server.close()


@pytest.fixture
def endpoint(tmp_path: Path) -> str:
    return f"ipc://{tmp_path}/commands"


def ask(client: CommandClient, server: CommandServer, command: AnyCommand, refused: str = "") -> Reply:
    """Send, let the server work, and return its reply; what it hands out is answered with `refused`."""
    assert client.send(command, 2000)
    deadline = time.monotonic() + PATIENCE_S
    while (reply := client.receive_reply(1)) is None:
        assert time.monotonic() < deadline
        for request in server.requests(time.monotonic_ns()):
            server.reply(request, time.monotonic_ns(), refused)
    return reply


def now() -> int:
    return time.monotonic_ns()


def test_commands_are_answered(server: CommandServer, endpoint: str, open_) -> None:  # type: ignore[no-untyped-def]
    ann, bob = open_(CommandClient(endpoint)), open_(CommandClient(endpoint))
    assert not ask(ann, server, Arm(t=now(), session="ann", seq=1)).accepted
    assert ask(ann, server, TakeOver(t=now(), session="ann", seq=2)).accepted
    reply = ask(ann, server, Arm(t=now(), session="ann", seq=3), refused="the vehicle is tilted")
    assert (reply.seq, reply.accepted, reply.reason) == (3, False, "the vehicle is tilted")
    assert ask(ann, server, Arm(t=now(), session="ann", seq=4)).accepted
    assert "must grow" in ask(ann, server, Arm(t=now(), session="ann", seq=4)).reason
    assert "operator is ann" in ask(bob, server, Arm(t=now(), session="bob", seq=1)).reason
    assert ask(bob, server, Stop(t=now(), session="bob", seq=2)).accepted
    assert server.counts == {"accepted": 3, "refused": 4}


def test_a_stop_overtakes_what_came_with_it(server: CommandServer, endpoint: str, open_) -> None:  # type: ignore[no-untyped-def]
    ann, bob = open_(CommandClient(endpoint)), open_(CommandClient(endpoint))
    ask(ann, server, TakeOver(t=now(), session="ann", seq=1))
    for seq in range(2, 12):
        ann.send(Arm(t=now(), session="ann", seq=seq), 2000)
    bob.send(Stop(t=now(), session="bob", seq=1), 2000)
    time.sleep(0.3)  # until all of it waits at the server
    assert [type(request.command) for request in server.requests(now())] == [Stop]
    assert server.counts["refused"] == 10


def test_the_ten_line_client(server: CommandServer, endpoint: str) -> None:
    """What README prints: REQ or DEALER, msgpack, a map."""
    socket = zmq.Context.instance().socket(zmq.REQ)
    socket.connect(endpoint)
    command = {"verb": "take_over", "t": now(), "session": "me", "seq": 1}
    socket.send(msgspec.msgpack.encode([SCHEMA_VERSION, command]))
    until(lambda: [server.reply(request, now()) for request in server.requests(now())])
    version, reply = msgspec.msgpack.decode(socket.recv())
    socket.close(0)
    assert version == SCHEMA_VERSION and reply["accepted"] and reply["seq"] == 1


def test_rubbish_over_the_socket(server: CommandServer, endpoint: str, open_) -> None:  # type: ignore[no-untyped-def]
    rng = random.Random(2)
    vandal = zmq.Context.instance().socket(zmq.DEALER)
    vandal.connect(endpoint)
    ann = open_(CommandClient(endpoint))
    sent = 5000
    for i in range(sent):
        parts = [rng.randbytes(rng.randrange(40)) for _ in range(rng.choice((1, 1, 1, 2, 3, 5)))]
        vandal.send_multipart(parts)
        if i % 40 == 0:
            server.requests(now())
    until(lambda: (server.requests(now()), server.counts["malformed"] == sent)[1])
    vandal.send(b"x" * (COMMAND_BYTES + 1))  # ends its connection, and only that
    vandal.send(b"y" * 10_000_000)
    assert ask(ann, server, TakeOver(t=now(), session="ann", seq=1)).accepted
    assert server.counts["malformed"] == sent
    vandal.close(0)


def test_a_flood_costs_a_bounded_time_and_a_stop_gets_through(server: CommandServer, endpoint: str, open_) -> None:  # type: ignore[no-untyped-def]
    flood = zmq.Context.instance().socket(zmq.DEALER)
    flood.setsockopt(zmq.SNDTIMEO, 0)
    flood.connect(endpoint)
    bob = open_(CommandClient(endpoint))
    payload = encode(Heartbeat(t=now(), session="vandal", seq=1))

    def pour() -> None:
        try:
            while True:
                flood.send(payload)
        except zmq.Again:
            pass

    until(lambda: (pour(), server.requests(now()), sum(server.counts.values()) > 10 * COMMANDS_PER_UPDATE)[2])
    assert bob.send(Stop(t=now(), session="bob", seq=1), 2000)
    for _ in range(50):
        pour()
        before = sum(server.counts.values())
        stops = server.requests(now())
        assert sum(server.counts.values()) - before + len(stops) <= COMMANDS_PER_UPDATE
        if stops:
            break
        time.sleep(0.01)
    assert stops
    flood.close(0)


def test_a_client_that_reads_no_replies_blocks_nobody(server: CommandServer, endpoint: str, open_) -> None:  # type: ignore[no-untyped-def]
    deaf, ann = open_(CommandClient(endpoint)), open_(CommandClient(endpoint))
    deaf.socket.setsockopt(zmq.RCVHWM, 1)
    for i in range(20_000):
        deaf.send(Heartbeat(t=now(), session="deaf", seq=i), 100)
        if i % 50 == 0:
            server.requests(now())
    assert ask(ann, server, TakeOver(t=now(), session="ann", seq=1)).accepted


def test_nothing_is_queued_for_a_vehicle_that_is_not_there(tmp_path: Path, open_) -> None:  # type: ignore[no-untyped-def]
    client = open_(CommandClient(f"ipc://{tmp_path}/nobody"))
    assert not client.send(Arm(t=now(), session="ann", seq=1), 50) and client.receive_reply(10) is None


# ---- who may connect -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("endpoint", "local"),
    [
        ("tcp://127.0.0.1:5555", True),
        ("tcp://127.3.4.5:*", True),
        ("tcp://[::1]:5555", True),
        ("tcp://localhost:5555", True),
        ("ipc:///run/rov/x", True),
        ("tcp://0.0.0.0:5555", False),
        ("tcp://*:5555", False),
        ("tcp://[::]:5555", False),
        ("tcp://192.168.2.2:5555", False),
        ("tcp://eth0:5555", False),
        ("tcp://127.0.0.1.example.org:5555", False),
        ("udp://127.0.0.1:5555", False),
        ("", False),
    ],
)
def test_what_only_this_machine_reaches(endpoint: str, local: bool) -> None:
    assert is_local(endpoint) is local


def test_without_keys_the_network_is_refused_and_bad_endpoints_are_told(tmp_path: Path, open_) -> None:  # type: ignore[no-untyped-def]
    for make in (PublicPublisher, lambda endpoint: CommandGateway(endpoint, tmp_path)):
        with pytest.raises(UserError, match="rov keys"):
            make("tcp://0.0.0.0:0")
        with pytest.raises(UserError, match="cannot be bound"):
            make("ipc:///proc/nowhere/x")
        for nonsense in ("tcp://127.0.0.1", "tcp://127.0.0.1:66000", "udp://127.0.0.1:1", "ipc://", "nonsense"):
            with pytest.raises(UserError, match=r"no endpoint|rov keys"):
                make(nonsense)
    taken = open_(PublicPublisher("tcp://127.0.0.1:*"))
    with pytest.raises(UserError, match="in use"):
        PublicPublisher(taken.server.address)
    with pytest.raises(UserError, match="no endpoint"):
        listen("nonsense")


def test_keys_open_the_door_and_nothing_else_does(tmp_path: Path, open_) -> None:  # type: ignore[no-untyped-def]
    bundle = keys.make(tmp_path / "keys")
    keys.make(tmp_path / "keys", "second")
    stranger = keys.make(tmp_path / "other")
    (stranger / "server.key").write_bytes((bundle / "server.key").read_bytes())  # knows the vehicle, is not known

    gate = keys.Gate(tmp_path / "keys")
    server, front = (
        open_(CommandServer(f"ipc://{tmp_path}/{INSIDE}")),
        open_(CommandGateway("tcp://0.0.0.0:*", tmp_path, gate)),
    )
    public = open_(PublicPublisher("tcp://0.0.0.0:*", gate))
    address, heard_at = (each.server.address.replace("0.0.0.0", "127.0.0.1") for each in (front, public))
    with Stepping(front):
        for folder in (bundle, tmp_path / "keys" / "second"):
            client = open_(CommandClient(address, keys.load_client(folder)))
            assert ask(client, server, TakeOver(t=now(), session="any", seq=1, displace=True)).accepted
            assert server.operators.who == f"key {folder.name}"
            reader = open_(listen(heard_at, ["events"], keys.load_client(folder)))
            until(lambda: (public.publish(event(1)), reader.wait(10))[1])  # noqa: B023
        wrong_server = keys.load_client(bundle)._replace(server=keys.load_client(stranger).public)
        for refused in (None, keys.load_client(stranger), wrong_server):
            client, reader = open_(CommandClient(address, refused)), open_(listen(heard_at, (), refused))
            client.send(Stop(t=now(), session="stranger", seq=1), 300)
            public.publish(event(2))
            assert server.requests(now()) == [] and client.receive_reply(100) is None and not reader.wait(0)
        assert server.counts == {"accepted": 2}


def test_secrets_are_secret_and_never_overwritten(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    bundle = keys.make(folder)
    secrets = sorted(path.name for path in folder.rglob("*.key_secret"))
    assert secrets == ["operator.key_secret", "server.key_secret"]
    assert all(path.stat().st_mode & 0o077 == 0 for path in folder.rglob("*.key_secret"))
    server_key = (folder / "server.key").read_text()
    with pytest.raises(UserError, match="there are keys"):
        keys.make(folder)
    keys.make(folder, "second")
    assert (folder / "server.key").read_text() == server_key
    for name in ("../evil", "", "clients", "a b"):
        with pytest.raises(UserError, match="letters"):
            keys.make(folder, name)
    (bundle / "operator.key_secret").chmod(0o644)
    with pytest.raises(UserError, match="chmod 600"):
        keys.load_client(bundle)
    with pytest.raises(UserError, match="secret keys"):
        keys.load_client(folder / "clients")
    with pytest.raises(UserError, match="rov keys"):
        keys.Gate(tmp_path / "nowhere")
    (folder / "clients" / "bad.key").write_text("nothing")
    with pytest.raises(UserError, match="no key"):
        keys.Gate(folder)


def test_the_bus_is_quick_to_import() -> None:
    slow = {"torch", "cv2", "asyncio", "zmq.auth", "nacl"}
    code = f"import sys, rov.bus, rov.media.ring; sys.exit(bool({slow} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
