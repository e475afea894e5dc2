"""How processes talk, over ZeroMQ: the newest state inside, bounded mail to who keeps it, and the public side.

Every payload, inside and outside, is one msgpack object: `[SCHEMA_VERSION, {field: value, …}]`.

    state   one ipc endpoint per state topic that has one publisher; PUB to SUB, CONFLATE: the newest wins
    mail    everything a process says, in order, [topic, payload], PUSH to each sink (the recorder, the public relay);
            at most MAIL messages wait; what finds no room is dropped and counted where it was said
    public  one PUB endpoint, [topic, payload]; one ROUTER endpoint for commands, each answered with a Reply

Sending never blocks, whoever listens or does not. What arrives malformed is counted and dropped. Sockets belong to the
thread that made them, and do not survive a fork.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import msgspec
import zmq

from rov.errors import UserError
from rov.messages import (
    SCHEMA_VERSION,
    TOPICS,
    AnyCommand,
    Arm,
    Command,
    Disarm,
    Heartbeat,
    Message,
    Reply,
    SetMode,
    SetTarget,
    Sticks,
    Stop,
    TakeOver,
    topic_of,
)

if TYPE_CHECKING:
    from rov.keys import ClientKeys, Gate

SINKS = ("recorder", "public")
"""Who gets everything."""
MAIL = 1000
"""Messages that may wait for a sink, at each end: some 4 s of all that `pilotd` says."""
LAST_WORDS_MS = 200
"""How long closing waits for mail that is under way: why a process ended is worth more than 200 ms."""
RECONNECT_MS = 50
"""Pause between attempts to reach a process that is not there (yet)."""
FUTURE_NS = 20_000_000
"""A stamp may be this far ahead of the reader's tick, which took its time before it read; not further."""
COMMAND_BYTES = 4096
"""Largest command; a peer that sends more is disconnected."""
COMMANDS_PER_UPDATE = 64
"""So that a flood costs a control loop less than a ms per tick; ZeroMQ serves the peers in turn."""
COMMANDS_WAITING = 256
"""Commands, and replies, that may wait for a peer; then its replies are dropped: it does not read them."""
TEXT_MAX = 64
"""Longest session or label in a command."""
LATE_S = 1.0
"""A command that was under way for longer than this moves nothing any more."""
SETTLE_S = 0.5
"""What was sent before a stop, or so shortly after it that its sender cannot have known, is refused."""
CLOCK_DRIFT = 1e-3
"""How fast two monotonic clocks may drift apart: ten times what a bad quartz does."""
SESSIONS = 256
"""Sessions whose last `seq` is remembered."""

M = TypeVar("M", bound=Message)
Socket = zmq.Socket[bytes]
Context = zmq.Context[Socket]

# ---- the payload -----------------------------------------------------------------------------------------------

_HEAD = bytes((0x92, SCHEMA_VERSION))  # msgpack: an array of two, the first of them the version
_ENCODE = msgspec.msgpack.Encoder().encode
_TYPES: dict[str, Any] = {name: topic.type for name, topic in TOPICS.items()} | {"commands": AnyCommand}
_DECODE = {name: msgspec.msgpack.Decoder(kind).decode for name, kind in _TYPES.items()}
_DECODE_REPLY = msgspec.msgpack.Decoder(Reply).decode


class Malformed(Exception):
    """A payload that is not what it should be; the text says how."""


def encode(message: Message) -> bytes:
    """The payload of a message."""
    return _HEAD + _ENCODE(message)


def decode(topic: str, payload: bytes) -> Message:
    """The message in a payload of that topic. Raises Malformed."""
    if topic not in _DECODE:
        raise Malformed(f"there is no topic {topic[:TEXT_MAX]!r}")
    message: Message = _decoded(_DECODE[topic], payload)
    return message


def decode_command(payload: bytes) -> AnyCommand:
    """The command in a payload, checked also where the types are not enough. Raises Malformed."""
    if len(payload) > COMMAND_BYTES:
        raise Malformed(f"larger than {COMMAND_BYTES} bytes")
    command: AnyCommand = _decoded(_DECODE["commands"], payload)
    for name, value in zip(command.__struct_fields__, msgspec.structs.astuple(command), strict=True):
        if isinstance(value, float) and not math.isfinite(value):
            raise Malformed(f"{name} is not finite")
        if isinstance(value, str) and not (0 < len(value) <= TEXT_MAX and value.isprintable()):
            raise Malformed(f"{name} is not 1 to {TEXT_MAX} printable characters")
    return command


def _decoded(decoder: Any, payload: bytes) -> Any:
    if payload[:2] != _HEAD:
        raise Malformed(f"not [{SCHEMA_VERSION}, {{…}}] in msgpack")
    try:
        return decoder(memoryview(payload)[2:])
    except (
        ValueError,
        RecursionError,
    ) as error:  # msgspec's own are ValueErrors; bad UTF-8 and deep nesting are not its
        raise Malformed(str(error)) from None


# ---- inside ----------------------------------------------------------------------------------------------------


class Pub:
    """Everything one process says: `send` puts a message on its state endpoint and into the mail."""

    def __init__(self, process: str, root: Path, *, sinks: Iterable[str] = SINKS, context: Context | None = None):
        """`root` is the directory of the endpoints, the same for all processes. Raises UserError when it cannot be."""
        self.dropped: Counter[str] = Counter()
        """Messages that a sink's queue had no room for."""
        self.state: dict[str, Socket] = {}
        self.mail: dict[str, Socket] = {}
        for name, topic in TOPICS.items():
            if topic.kind == "state" and topic.publisher == process:
                options = {zmq.CONFLATE: 1}  # also here: nothing piles up for a reader that is stopped
                self.state[name] = _bound(context, zmq.PUB, _endpoint(root, name), options)
        for sink in sinks:
            options = {zmq.SNDHWM: MAIL, zmq.LINGER: LAST_WORDS_MS}
            self.mail[sink] = _connected(context, zmq.PUSH, _endpoint(root, f"to-{sink}"), options)

    def send(self, message: Message) -> None:
        """Say it. Never blocks. Raises ValueError for a state topic that is another process's."""
        topic, payload = topic_of(message), encode(message)
        if topic in self.state:
            self.state[topic].send(payload, zmq.NOBLOCK)
        elif TOPICS[topic].kind == "state" and TOPICS[topic].publisher != "all":
            raise ValueError(f"{topic} is published by {TOPICS[topic].publisher}")
        for sink, socket in self.mail.items():
            try:
                socket.send_multipart((topic.encode(), payload), zmq.NOBLOCK)
            except zmq.Again:
                self.dropped[sink] += 1

    def close(self) -> None:
        for socket in (*self.state.values(), *self.mail.values()):
            socket.close()  # each lingers as it was told when it was made


class Sub(Generic[M]):
    """The newest message of a state topic, and whether it is recent enough to act on: `Sub(Frame, root)`."""

    def __init__(self, kind: type[M], root: Path, *, hz: float | None = None, context: Context | None = None):
        """`hz`: the rate it really has, where the configuration changes that of the table."""
        self.topic = next(name for name, topic in TOPICS.items() if topic.type is kind)
        if TOPICS[self.topic].kind != "state" or TOPICS[self.topic].publisher == "all":
            raise ValueError(f"{self.topic} has no single newest message: read it from a sink")
        self.max_age_ns = int(3e9 / (hz or TOPICS[self.topic].hz))  # three missed messages
        self.msg: M | None = None
        self.malformed = 0
        """Messages dropped: not decodable, or from the future."""
        options = {zmq.CONFLATE: 1, zmq.SUBSCRIBE: b""}  # one topic per socket, or topics evict each other
        self.socket = _connected(context, zmq.SUB, _endpoint(root, self.topic), options)

    def update(self, now: int) -> bool:
        """Take what came since the last call; True when there is a new message. `now` in monotonic ns."""
        try:
            message: M = decode(self.topic, self.socket.recv(zmq.NOBLOCK))  # type: ignore[assignment]
        except zmq.Again:
            return False
        except Malformed:
            self.malformed += 1
            return False
        if message.t > now + FUTURE_NS:
            self.malformed += 1
            return False
        self.msg = message
        return True

    def fresh(self, now: int) -> bool:
        """Is there a message, made no longer ago than three periods of its topic?"""
        return self.msg is not None and now - self.msg.t <= self.max_age_ns

    def wait(self, timeout_ms: int) -> bool:
        """Wait for the next message; True when there is one to take."""
        return bool(self.socket.poll(timeout_ms))

    def close(self) -> None:
        self.socket.close(0)


class Entry(NamedTuple):
    """One message as it was said; `payload` is what `message` was decoded from."""

    topic: str
    message: Message
    payload: bytes


class Reader:
    """Messages in the order they came, from a sink's inbox or from the public endpoint."""

    def __init__(self, socket: Socket):
        self.socket = socket
        """For a poller."""
        self.malformed = 0

    def read(self, limit: int = 256) -> Iterator[Entry]:
        """What is there now, at most `limit` of it."""
        for _ in range(limit):
            try:
                parts = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            try:
                if len(parts) != 2:
                    raise Malformed("not two parts")
                topic = parts[0].decode("ascii", "replace")
                entry = Entry(topic, decode(topic, parts[1]), parts[1])
            except Malformed:
                self.malformed += 1
                continue
            yield entry

    def wait(self, timeout_ms: int) -> bool:
        """Wait for a message; True when there is one to read."""
        return bool(self.socket.poll(timeout_ms))

    def close(self) -> None:
        self.socket.close(0)


def inbox(sink: str, root: Path, *, context: Context | None = None) -> Reader:
    """The mail of a sink, from all processes. Raises UserError when its endpoint cannot be bound."""
    return Reader(_bound(context, zmq.PULL, _endpoint(root, f"to-{sink}"), {zmq.RCVHWM: MAIL}))


# ---- the public side -------------------------------------------------------------------------------------------


class PublicPub:
    """What anybody may hear. A subscriber that does not read loses messages; nobody waits for it."""

    def __init__(self, endpoint: str, gate: Gate | None = None, *, context: Context | None = None):
        """Raises UserError when the endpoint cannot be bound, or is not on this machine and there are no keys."""
        self.socket = _public(context, zmq.PUB, endpoint, gate, MAIL)

    def send(self, message: Message) -> None:
        self.forward(topic_of(message), encode(message))

    def forward(self, topic: str, payload: bytes) -> None:
        """Pass on what came as mail."""
        self.socket.send_multipart((topic.encode(), payload), zmq.NOBLOCK)

    def close(self) -> None:
        self.socket.close(0)


def listen(
    endpoint: str,
    topics: Iterable[str] = (),
    keys: ClientKeys | None = None,
    *,
    context: Context | None = None,
) -> Reader:
    """Hear the public endpoint: these topics, or all."""
    socket = _connected(context, zmq.SUB, endpoint, {zmq.RCVHWM: MAIL}, keys)
    for topic in topics or ("",):
        socket.setsockopt(zmq.SUBSCRIBE, topic.encode())
    return Reader(socket)


class Request(NamedTuple):
    """A command that may be carried out, and that waits for its reply."""

    command: AnyCommand
    t: int
    """When it was sent, on our clock: when it came, less what it was delayed beyond its session's quickest."""
    peer: tuple[bytes, ...]


class CommandServer:
    """The command endpoint: decodes, decides who may, answers what is refused; the rest is the caller's to answer."""

    def __init__(
        self,
        endpoint: str,
        gate: Gate | None = None,
        *,
        heartbeat_timeout_s: float = 3.0,
        context: Context | None = None,
    ):
        """Raises UserError when the endpoint cannot be bound, or is not on this machine and there are no keys."""
        self.operators = Operators(heartbeat_timeout_s)
        self.counts: Counter[str] = Counter()
        """Commands by what became of them: accepted, refused, malformed."""
        self.socket = _public(context, zmq.ROUTER, endpoint, gate, COMMANDS_WAITING)

    def update(self, now: int) -> list[Request]:
        """What is to be carried out, stops first. Answer each with `reply`. `now` in monotonic ns."""
        heard = [pair for parts in self._received() if (pair := self._understood(parts, now))]
        heard.sort(key=lambda pair: not isinstance(pair[0], Stop))  # a stop overtakes all that came with it
        requests = []
        for command, peer in heard:
            sent_t, reason = self.operators.judge(command, now)
            request = Request(command, sent_t, peer)
            if reason:
                self.reply(request, now, reason)
            else:
                requests.append(request)
        return requests

    def reply(self, request: Request, now: int, refused: str = "") -> None:
        """Say that it was done, or why not. Never blocks."""
        self.counts["refused" if refused else "accepted"] += 1
        self._answer(request.peer, Reply(t=now, seq=request.command.seq, accepted=not refused, reason=refused))

    def _received(self) -> Iterator[list[bytes]]:
        for _ in range(COMMANDS_PER_UPDATE):
            try:
                yield self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return

    def _understood(self, parts: list[bytes], now: int) -> tuple[AnyCommand, tuple[bytes, ...]] | None:
        """A DEALER sends [payload], a REQ [empty, payload]; ROUTER puts the peer's identity in front."""
        peer = tuple(parts[:2]) if len(parts) == 3 and not parts[1] else tuple(parts[:1])
        try:
            if len(parts) != len(peer) + 1:
                raise Malformed("not one part")
            return decode_command(parts[-1]), peer
        except Malformed as error:
            self.counts["malformed"] += 1
            self._answer(peer, Reply(t=now, seq=-1, accepted=False, reason=f"not understood: {error}"))
            return None

    def _answer(self, peer: tuple[bytes, ...], reply: Reply) -> None:
        try:
            self.socket.send_multipart((*peer, encode(reply)), zmq.NOBLOCK)
        except zmq.Again:
            self.counts["unanswered"] += 1

    def close(self) -> None:
        self.socket.close(0)


class _Heard:
    """What is known of a session: its last number, and by how much its clock is behind ours at the least delay."""

    def __init__(self, t: int, offset: int):
        self.t, self.offset, self.seq = t, offset, -1


class Operators:
    """Who may command. One session at a time is the operator's, by TakeOver; it ends when its heartbeat does.

    No sockets and no clock: `t` is when a command came, monotonic ns on our clock. A command's own `t` is its sender's
    clock, which is never compared with ours, only with itself: what comes later than its session's quickest was
    delayed. This orders those who mean well; who may speak at all is decided by the keys.
    """

    def __init__(self, timeout_s: float = 3.0):
        self.timeout_ns = int(timeout_s * 1e9)
        self.session = ""
        self.heard_t: int | None = None
        """When the operator's last heartbeat (or its TakeOver) was sent, on our clock."""
        self.stopped_t: int | None = None
        self.heard: dict[str, _Heard] = {}

    def operator(self, t: int) -> str:
        """The operator's session; empty when there is none, or its heartbeat was lost: then it must take over again."""
        if self.heard_t is not None and t - self.heard_t > self.timeout_ns:
            self.session = ""
        return self.session

    def judge(self, command: AnyCommand, t: int) -> tuple[int, str]:
        """When a command was sent, on our clock, and why it is refused; nothing when it may be carried out."""
        if isinstance(command, Stop):  # from anybody, however old or often
            self.stopped_t = t
            return t, ""
        sent_t = self._sent(command, t)
        if sent_t is None:
            return t, f"seq {command.seq} was used before in this session; it must grow"
        return sent_t, self._refusal(command, sent_t, t)

    def _sent(self, command: Command, t: int) -> int | None:
        """When it was sent, on our clock; None when it is a replay."""
        offset = t - command.t
        heard = self.heard.pop(command.session, None) or _Heard(t, offset)
        self.heard[command.session] = heard  # newest last
        if len(self.heard) > SESSIONS:
            del self.heard[next(name for name in self.heard if name != self.session)]
        if command.seq <= heard.seq:
            return None
        heard.offset = min(offset, heard.offset + int(CLOCK_DRIFT * (t - heard.t)))
        heard.t, heard.seq = t, command.seq
        return t - (offset - heard.offset)

    def _refusal(self, command: Command, sent_t: int, t: int) -> str:
        late = t - sent_t > LATE_S * 1e9 and not isinstance(command, Disarm)
        if late:
            return f"it came {(t - sent_t) / 1e9:.1f} s late; if your clock jumped, start a new session"
        if isinstance(command, TakeOver):
            if not command.displace and self.operator(t) not in ("", command.session):
                return f"the operator is {self.session}, and is there; to take over all the same must be asked for"
            self.session, self.heard_t = command.session, sent_t
            return ""
        if command.session != self.operator(t):
            return f"{f'the operator is {self.session}' if self.session else 'there is no operator'}; take over first"
        if isinstance(command, Heartbeat):
            self.heard_t = max(sent_t, self.heard_t or sent_t)
        elif isinstance(command, Arm | SetMode | SetTarget | Sticks) and self.stopped_t is not None:
            if sent_t - self.stopped_t < SETTLE_S * 1e9:
                return "stopped a moment ago; ask again"
        return ""


class CommandClient:
    """The other end of the command endpoint. Commands go out at once or not at all: an old one is of no use."""

    def __init__(self, endpoint: str, keys: ClientKeys | None = None, *, context: Context | None = None):
        options = {zmq.SNDHWM: COMMANDS_WAITING, zmq.IMMEDIATE: 1}  # nothing is queued for who is not connected
        self.socket = _connected(context, zmq.DEALER, endpoint, options, keys)

    def send(self, command: AnyCommand, timeout_ms: int = 0) -> bool:
        """Send, waiting at most this long for a connection; False when it did not go out."""
        if not self.socket.poll(timeout_ms, zmq.POLLOUT):
            return False
        try:
            self.socket.send(encode(command), zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def reply(self, timeout_ms: int = 0) -> Reply | None:
        """The next reply; None when there is none within the time. Raises Malformed when it is not one."""
        if not self.socket.poll(timeout_ms):
            return None
        reply: Reply = _decoded(_DECODE_REPLY, self.socket.recv_multipart()[-1])
        return reply

    def close(self) -> None:
        self.socket.close(LAST_WORDS_MS)


# ---- endpoints -------------------------------------------------------------------------------------------------


def _public(context: Context | None, kind: int, endpoint: str, gate: Gate | None, waiting: int) -> Socket:
    """A socket that others may reach: without keys only those on this machine. Raises UserError."""
    if gate is None and not is_local(endpoint):
        raise UserError(
            f"{endpoint}: would let anybody on the network steer; run `rov keys` to make keys, or bind 127.0.0.1"
        )
    options = {
        zmq.MAXMSGSIZE: COMMAND_BYTES,
        zmq.SNDHWM: waiting,
        zmq.RCVHWM: waiting,
        # A tether that is cut must not leave a connection that looks alive.
        zmq.HEARTBEAT_IVL: 1000,
        zmq.HEARTBEAT_TIMEOUT: 3000,
    }
    return _bound(context, kind, endpoint, options, gate)


def reached(endpoint: str, host: str = "") -> str:
    """The endpoint to connect to for one that was bound: at another host, or on this machine where it says `any`."""
    match = re.fullmatch(r"(tcp://)(.+)(:\d+)", endpoint)
    if match is None:
        return endpoint
    anywhere = match[2] in ("*", "0.0.0.0", "[::]")
    return match[1] + (host or ("127.0.0.1" if anywhere else match[2])) + match[3]


def is_local(endpoint: str) -> bool:
    """Can only this machine reach an endpoint? `*`, interface names and host names other than localhost: no."""
    if endpoint.startswith(("ipc://", "inproc://")):
        return True
    match = re.fullmatch(r"tcp://(.+):(\d+|\*)", endpoint)
    host = match[1].strip("[]") if match else ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _endpoint(root: Path, name: str) -> str:
    path = root.absolute() / name
    if len(str(path).encode()) > 107:  # sockaddr_un; ZeroMQ itself says only "File name too long"
        raise UserError(f"{root}: the path is too long for sockets; use one of at most 80 bytes")
    return f"ipc://{path}"


def _bound(
    context: Context | None, kind: int, endpoint: str, options: dict[zmq.SocketOption, Any], gate: Gate | None = None
) -> Socket:
    """A socket that waits for others. Raises UserError."""
    socket = _socket(context, kind, endpoint, options)
    if gate:
        gate.guard(socket)
    try:
        if endpoint.startswith("ipc://"):
            Path(endpoint.removeprefix("ipc://")).parent.mkdir(0o700, parents=True, exist_ok=True)
        socket.bind(endpoint)
    except (zmq.ZMQError, OSError) as error:
        socket.close(0)
        raise UserError(f"{endpoint}: cannot be bound: {error.strerror}") from None
    return socket


def _connected(
    context: Context | None,
    kind: int,
    endpoint: str,
    options: dict[zmq.SocketOption, Any],
    keys: ClientKeys | None = None,
) -> Socket:
    """A socket that goes to another, whether that is there already or not. Raises UserError."""
    socket = _socket(context, kind, endpoint, options | {zmq.RECONNECT_IVL: RECONNECT_MS})
    if keys:
        keys.apply(socket)
    try:
        socket.connect(endpoint)
    except zmq.ZMQError as error:
        socket.close(0)
        raise UserError(f"{endpoint}: is no endpoint to connect to: {error.strerror}") from None
    return socket


def _socket(context: Context | None, kind: int, endpoint: str, options: dict[zmq.SocketOption, Any]) -> Socket:
    socket = (context or zmq.Context.instance()).socket(kind)
    for option, value in ({zmq.LINGER: 0, zmq.IPV6: int("[" in endpoint)} | options).items():
        socket.setsockopt(option, value)  # before it is bound or connected, or some have no effect
    return socket
