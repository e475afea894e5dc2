"""Random bytes at both doors, the serial port and the command endpoint. By default for seconds; in full with

ROV_FUZZ_BYTES=10000000 ROV_FUZZ_COMMANDS=1000000 python -m pytest -s tests/test_fuzz.py
"""

import contextlib
import math
import os
import random
import time
from collections import Counter, deque
from pathlib import Path

import msgspec
import numpy as np
import zmq
from pymavlink.dialects.v20 import common

from rov.bus import (
    COMMAND_BYTES,
    COMMANDS_PER_UPDATE,
    SESSIONS,
    CommandClient,
    CommandServer,
    Request,
    decode_command,
    encode,
)
from rov.link.mavlink import Packer, Parser
from rov.link.thruster_board import ThrusterBoardLink
from rov.messages import (
    AnyCommand,
    Arm,
    Disarm,
    Heartbeat,
    Mode,
    Reply,
    SetMode,
    SetTarget,
    SetTask,
    Sticks,
    Stop,
    TakeOver,
)
from tests.world import CONFIG, TICK, World

BYTES = int(os.environ.get("ROV_FUZZ_BYTES", 300_000))
COMMANDS = int(os.environ.get("ROV_FUZZ_COMMANDS", 4_000))
CHUNK = 2000
LONGEST = 280 - 13
"""Bytes of the longest unsigned MAVLink 2 frame."""


def frames() -> list[bytes]:
    """What a board says, whole."""
    packer = Packer(1, 1)
    messages = [
        common.MAVLink_heartbeat_message(12, 8, 128, 0, 4, 3),
        common.MAVLink_attitude_message(1000, 0.1, 0.2, 0.3, 0.0, 0.0, 0.0),
        common.MAVLink_scaled_pressure2_message(1000, 1500.0, 0.0, 1500),
        common.MAVLink_actuator_control_target_message(10, 0, [0.1] * 8),
        common.MAVLink_battery_status_message(0, 0, 0, 0, [16000] + [0xFFFF] * 9, -1, -1, -1, -1),
        common.MAVLink_named_value_int_message(1000, b"LEAK", 0),
        common.MAVLink_command_ack_message(400, 0),
    ]
    return [packer.pack(message) for message in messages]


def stream(noise: random.Random, whole: list[bytes]) -> bytes:
    """CHUNK bytes, half of them noise, half of them frames of which each has something wrong."""
    if noise.random() < 0.5:
        return noise.randbytes(CHUNK)
    out = bytearray()
    while len(out) < CHUNK:
        frame = bytearray(noise.choice(whole))
        match noise.randrange(4):
            case 0:
                frame[noise.randrange(len(frame))] ^= 1 << noise.randrange(8)
            case 1:
                del frame[noise.randrange(1, len(frame)) :]
            case 2:
                frame[noise.randrange(len(frame))] = noise.randrange(256)
                frame[noise.randrange(len(frame))] = noise.randrange(256)
            case _:
                frame[1] = noise.randrange(256)  # another length
        out += frame
    return bytes(out[:CHUNK])


class Cable:
    """A port from which these bytes come."""

    path, unsent, is_open = "fuzz", b"", True

    def __init__(self) -> None:
        self.coming = b""

    def read(self) -> bytes:
        data, self.coming = self.coming, b""
        return data

    def write(self, data: bytes) -> bool:
        return True

    def discard(self) -> None: ...


def test_the_link_takes_anything() -> None:
    """Never raises, never goes live by itself, keeps nothing that is not finite; and hears again what is whole."""
    noise, whole = random.Random(1), frames()
    parser, cable = Parser(), Cable()
    link = ThrusterBoardLink("fuzz", 115200, 8)
    link.port = cable  # type: ignore[assignment]
    begin, fed, taken, t = time.monotonic(), 0, 0, 10**12
    while fed < BYTES:
        cable.coming = data = stream(noise, whole)
        fed += len(data)
        t += TICK
        taken += len(parser.feed(data))
        assert len(parser.buffer) <= LONGEST
        link.poll(t)
        link.send((1.0,) * 8, True, t)
        assert not link.live and not link.testing
        if link.state is not None:
            numbers = (link.state.roll, link.state.pitch, link.state.yaw, link.state.depth, *link.state.rates)
            assert all(map(math.isfinite, numbers))
    seconds = time.monotonic() - begin
    print(f"\n{fed} bytes twice in {seconds:.1f} s; {taken} frames found, {parser.broken} broken")
    assert parser.skipped > 0.5 * fed and parser.broken > 0
    parser.reset()
    assert len(parser.feed(b"".join(whole))) == len(whole)


def test_what_the_parser_finds_in_damaged_frames_is_what_was_sent() -> None:
    """A frame with one wrong bit is never taken: its checksum finds every single one."""
    noise, whole = random.Random(3), frames()
    parser = Parser()
    for _ in range(max(2000, BYTES // 1000)):
        frame = bytearray(noise.choice(whole))
        frame[noise.randrange(len(frame))] ^= 1 << noise.randrange(8)
        assert parser.feed(bytes(frame)) == []
        parser.reset()


ABSURD_NUMBERS: tuple[object, ...] = (
    math.nan,
    math.inf,
    1e308,
    -1e9,
    -1,
    2**63 - 1,
    -(2**63),
    2**64 - 1,
    "5",
    None,
    [],
    {},
)
ABSURD_TEXTS: tuple[object, ...] = ("", "x" * 65, "x" * 3900, "\0", "\u202e", "unicorn", 7, None, ["bob"], {"bob": 1})


class Senders:
    """Those who send commands, one honest and some who are not, each behind a socket of its own."""

    def __init__(self, endpoint: str, context: zmq.Context[zmq.Socket[bytes]]):
        self.noise = random.Random(2)
        self.endpoint, self.context = endpoint, context
        self.sockets = [self._connected() for _ in range(4)]
        self.seq, self.count = 0, 0
        self.kept: deque[bytes] = deque(maxlen=500)
        """What was valid a while ago, to be said again."""
        self.answers: Counter[str] = Counter()
        self.due = 0
        """Answers that are owed to us: one for each that is not oversized."""
        self.kinds: Counter[str] = Counter()

    def _connected(self) -> zmq.Socket[bytes]:
        socket = self.context.socket(zmq.DEALER)
        socket.linger = 0
        socket.connect(self.endpoint)
        return socket

    def send(self, t: int) -> None:
        """One more message, of any kind; one that is oversized costs its sender the connection."""
        self.count += 1
        kind = self.noise.choice(("noise", "cut", "flipped", "flipped", "absurd", "valid", "replayed", "parts"))
        if self.count % 5000 == 0:
            kind = "oversized"
        self.kinds[kind] += 1
        if kind == "oversized":
            with self._connected() as vandal:
                vandal.send(self.noise.randbytes(COMMAND_BYTES + 1 + self.noise.randrange(10_000)))
                time.sleep(0.01)
            return
        socket = self.noise.choice(self.sockets)
        socket.send_multipart(self._parts(kind, t), zmq.NOBLOCK)
        self.due += 1

    def _parts(self, kind: str, t: int) -> list[bytes]:
        valid = self._valid(t)
        match kind:
            case "noise":
                return [self.noise.randbytes(self.noise.choice((0, 1, 2, 20, 60, COMMAND_BYTES)))]
            case "cut":
                return [valid[: self.noise.randrange(len(valid))]]
            case "flipped":
                data = bytearray(valid)
                for _ in range(self.noise.randint(1, 4)):
                    data[self.noise.randrange(2, len(data))] = self.noise.randrange(256)
                return [bytes(data)]
            case "absurd":
                return [self._absurd(valid)]
            case "replayed":
                return [self.noise.choice(self.kept) if self.kept else valid]
            case "parts":
                extra = [self.noise.choice((b"", b"x", valid, b"\0" * 300)) for _ in range(self.noise.randint(1, 5))]
                return [*extra, valid]
        self.kept.append(valid)
        return [valid]

    def _valid(self, t: int) -> bytes:
        """What an operator might say; a stop seldom, or nothing else would be allowed. Its session is a new one now and
        then: a forged number that is the largest there is ends a session for good."""
        self.seq += 1
        who = {"t": t, "session": f"bob{self.count // 400}", "seq": self.seq}
        commands: tuple[AnyCommand, ...] = (
            Sticks(surge=0.5, yaw=-1.0, **who),  # type: ignore[arg-type]
            SetMode(mode=self.noise.choice(list(Mode)), **who),  # type: ignore[arg-type]
            SetTarget(label="buoy_red", size=0.3, **who),  # type: ignore[arg-type]
            SetTask(task="transit", heading=1.0, **who),  # type: ignore[arg-type]
            TakeOver(displace=True, **who),  # type: ignore[arg-type]
            Heartbeat(**who),  # type: ignore[arg-type]
            Arm(**who),  # type: ignore[arg-type]
        )
        if self.seq % 2000 == 0:
            return encode(self.noise.choice((Stop, Disarm))(**who))  # type: ignore[arg-type]
        return encode(self.noise.choice(commands))

    def _absurd(self, valid: bytes) -> bytes:
        """Well-formed msgpack with a value in it that nobody would send; or nested as deep as it fits."""
        if self.noise.random() < 0.05:
            return valid[:2] + self.noise.choice((b"\x91", b"\x81\xa1x")) * 1000
        fields = msgspec.msgpack.decode(valid[2:])
        name = self.noise.choice(list(fields))
        fields[name] = self.noise.choice(ABSURD_TEXTS if isinstance(fields[name], str) else ABSURD_NUMBERS)
        return valid[:2] + msgspec.msgpack.encode(fields)

    def hear(self) -> None:
        """Take the answers that are there."""
        for socket in self.sockets:
            while socket.poll(0):
                reply = msgspec.msgpack.decode(socket.recv_multipart()[-1][2:], type=Reply)
                self.due -= 1
                self.answers["accepted" if reply.accepted else reply.reason.split(":")[0].split("(")[0][:14]] += 1

    def close(self) -> None:
        for socket in self.sockets:
            socket.close()


def test_the_command_endpoint_takes_anything(tmp_path: Path) -> None:
    """Through its socket, judged and obeyed as `pilotd` does: never raises, answers all but what is oversized, and what
    leaves is finite and within the gain; and afterwards it listens to an operator as before."""
    endpoint = f"ipc://{tmp_path}/commands"
    world = World(CONFIG)
    with zmq.Context() as context, contextlib.ExitStack() as stack:
        server = stack.enter_context(contextlib.closing(CommandServer(endpoint, context=context)))
        senders = stack.enter_context(contextlib.closing(Senders(endpoint, context)))
        begin, ticks, obeyed, moved = time.monotonic(), 0, 0, 0
        while senders.count < COMMANDS or senders.due:
            while senders.count < COMMANDS and senders.due < COMMANDS_PER_UPDATE:
                senders.send(world.t)
            if not server.socket.poll(5000) and senders.due:
                senders.hear()
                assert not senders.due, f"{senders.due} of {senders.count} were never answered"
            for request in server.requests(world.t):
                assert decode_command(encode(request.command)) == request.command and request.t <= world.t
                refused = world.commander.handle_command(request.command, request.t, world.t)
                server.reply(request, world.t, refused)
                obeyed += not refused
            senders.hear()
            if ticks * COMMANDS_PER_UPDATE > senders.count - senders.due:
                continue
            ticks, world.t = ticks + 1, world.t + TICK
            world.commander.step(server.operators.operator(world.t), world.t)
            for values in map(np.array, world.link.sent):
                assert np.isfinite(values).all() and np.abs(values).max() <= CONFIG.guard.gain
                moved += bool(values.any())
            world.link.sent.clear()
            assert len(server.operators.sessions) <= SESSIONS
        seconds = time.monotonic() - begin
        print(
            f"\n{COMMANDS} messages in {seconds:.1f} s: {dict(senders.kinds)}; {dict(server.counts)}; {obeyed} obeyed"
        )
        print(f"{moved} of {ticks} ticks with thrust; answers {dict(senders.answers.most_common(12))}")
        counts = server.counts
        assert counts["unanswered"] == 0 and sum(counts.values()) == COMMANDS - senders.kinds["oversized"]
        assert counts["accepted"] == obeyed > 0 and counts["malformed"] > COMMANDS / 3 and moved > 0
        client = stack.enter_context(contextlib.closing(CommandClient(endpoint, context=context)))
        world.t += 3600 * 10**9
        assert client.send(TakeOver(t=world.t, session="ann", seq=1), 5000) and server.socket.poll(5000)
        ((command, _, peer),) = server.requests(world.t)
        assert command.session == "ann" == server.operators.operator(world.t)
        server.reply(Request(command, world.t, peer), world.t)
        reply = client.receive_reply(5000)
        assert reply is not None and reply.accepted
