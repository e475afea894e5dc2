"""ZMTP 3.0 (rfc.zeromq.org/spec/23) for the bound side: converts bytes to messages and back, without sockets or a
clock.

We read strangers' bytes here and not with libzmq, because libzmq aborts its process when a peer leaves at the wrong
moment, accepts connections without limit, and keeps in memory whatever it receives, up to messages of millions of
parts. Our own clients use libzmq, and so do all internal sockets.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

GREETING = 64
SIGNATURE = b"\xff"
"""The first byte of a greeting."""
MORE, LONG, COMMAND = 1, 2, 4
"""Bits of a frame's first byte."""
HANDSHAKE_BYTES = 1024
"""Largest command before the first message."""
PING, PONG = b"\x04PING", b"\x04PONG"
PING_BYTES = len(PING) + 2 + 16
"""Name, time to live, context."""
FITS = {b"ROUTER": (b"DEALER", b"REQ", b"ROUTER"), b"PUB": (b"SUB", b"XSUB")}
"""Which sockets may talk to one of ours."""


class ProtocolError(Exception):
    """A peer violates the protocol, or may not connect: it is disconnected."""


class Mechanism(Protocol):
    """The security mechanism of a connection: its handshake, and the wrapping of its frames."""

    name: bytes
    ready: bool
    who: str
    """Name of the peer's key; empty without keys."""
    overhead: int
    """Bytes that wrapping adds to a frame."""

    def shake(self, command: bytes) -> bytes:
        """Our answer to the peer's next handshake command; its metadata goes to `metadata`. Raises ProtocolError."""

    metadata: bytes

    def open(self, flags: int, body: bytes) -> tuple[int, bytes]:
        """Unwrap a frame: flags and body. Raises ProtocolError."""

    def seal(self, flags: int, body: bytes) -> bytes:
        """Wrap flags and body: the frame on the wire."""


class NullMechanism:
    """The mechanism without keys: accepts everybody."""

    name, who, overhead = b"NULL", "", 0

    def __init__(self, metadata: bytes):
        self.ours, self.metadata, self.ready = metadata, b"", False

    def shake(self, command: bytes) -> bytes:
        if not command.startswith(b"\x05READY"):
            raise ProtocolError("no READY")
        self.metadata, self.ready = command[6:], True
        return b"\x05READY" + self.ours

    def open(self, flags: int, body: bytes) -> tuple[int, bytes]:
        return flags, body

    def seal(self, flags: int, body: bytes) -> bytes:
        return frame(flags, body)


class ZmtpConnection:
    """The protocol state of one connection: `feed` received bytes, `receive` messages; bytes to send are in `out`."""

    def __init__(self, socket_type: bytes, mechanism: Mechanism, limit: int):
        """`socket_type` is ours, `limit` the largest message in bytes."""
        self.socket_type, self.mechanism, self.limit = socket_type, mechanism, limit
        self.received = bytearray()
        self.out = bytearray(greeting(mechanism.name))
        self.greeted = self.begun = self.enveloped = False
        """`begun`: an empty part arrived, its message not yet. `enveloped`: the last message had such an empty part,
        which a REQ socket sends and expects in the reply."""

    @property
    def ready(self) -> bool:
        """Is the handshake over?"""
        return self.mechanism.ready

    def feed(self, data: bytes) -> None:
        self.received += data

    def receive(self) -> bytes | None:
        """The next message; empty for a frame of the protocol itself; None when no frame is complete. Raises
        ProtocolError."""
        if not self.greeted:
            return self._greet()
        parted = self._frame()
        if parted is None:
            return None
        flags, body = parted
        if not self.ready:
            return self._shake(flags, body)
        flags, body = self.mechanism.open(flags, body)
        if flags & COMMAND:
            return self._command(body)
        return self._part(flags, body)

    def send(self, *parts: bytes) -> None:
        """A message of these parts."""
        for part in parts[:-1]:
            self.out += self.mechanism.seal(MORE, part)
        self.out += self.mechanism.seal(0, parts[-1])

    def _greet(self) -> bytes | None:
        """Check the peer's greeting as far as it has arrived."""
        start = bytes(self.received[:GREETING])
        if (
            start[:1] not in (b"", SIGNATURE)
            or len(start) > 9
            and start[9] != 0x7F
            or len(start) > 10
            and start[10] < 3
        ):
            raise ProtocolError("does not speak ZMTP 3")
        if len(start) < GREETING:
            return None
        if start[12:32].rstrip(b"\0") != self.mechanism.name:
            raise ProtocolError(f"wants {start[12:32].rstrip(bytes(1))!r}, not {self.mechanism.name!r}")
        del self.received[:GREETING]
        self.greeted = True
        return b""

    def _frame(self) -> tuple[int, bytes] | None:
        """Flags and body of the next frame on the wire."""
        if len(self.received) < 2:
            return None
        flags = self.received[0]
        head = 9 if flags & LONG else 2
        if flags & ~(MORE | LONG | COMMAND):
            raise ProtocolError("not a frame")
        if len(self.received) < head:
            return None
        size = int.from_bytes(self.received[1:head], "big")
        if size > (self.limit + self.mechanism.overhead if self.ready else HANDSHAKE_BYTES) and size > PING_BYTES:
            raise ProtocolError(f"a frame of {size} bytes")
        if len(self.received) < head + size:
            return None
        body = bytes(self.received[head : head + size])
        del self.received[: head + size]
        return flags, body

    def _shake(self, flags: int, body: bytes) -> bytes:
        if not flags & COMMAND:
            raise ProtocolError("a message before the handshake")
        answer = self.mechanism.shake(body)
        if (
            self.ready
            and (kind := properties(self.mechanism.metadata).get(b"socket-type")) not in FITS[self.socket_type]
        ):
            raise ProtocolError(f"a {kind!r} cannot talk to a {self.socket_type!r}")
        self.out += frame(COMMAND, answer)
        return b""

    def _command(self, body: bytes) -> bytes:
        if body.startswith(PING) and len(PING) + 2 <= len(body) <= PING_BYTES:
            self.out += self.mechanism.seal(COMMAND, PONG + body[len(PING) + 2 :])
        return b""

    def _part(self, flags: int, body: bytes) -> bytes:
        """A message of one part, or of one part after the empty one of a REQ; storing more parts would cost memory."""
        if flags & MORE:
            if body or self.begun:
                raise ProtocolError("a message of several parts")
            self.begun = True
            return b""
        self.enveloped, self.begun = self.begun, False
        return body


def greeting(mechanism: bytes) -> bytes:
    """Our greeting: signature, version 3.0, mechanism, whether we are its server (only with keys), filler."""
    server = mechanism != b"NULL"
    return SIGNATURE + bytes(8) + b"\x7f\x03\x00" + mechanism.ljust(20, b"\0") + bytes([server]) + bytes(31)


def frame(flags: int, body: bytes) -> bytes:
    """A frame on the wire."""
    if len(body) < 256:
        return bytes((flags, len(body))) + body
    return bytes((flags | LONG,)) + len(body).to_bytes(8, "big") + body


def metadata(socket_type: bytes) -> bytes:
    """Our metadata in a handshake."""
    pairs: Iterable[tuple[bytes, bytes]] = ((b"Socket-Type", socket_type), (b"Identity", b""))
    return b"".join(bytes([len(name)]) + name + len(value).to_bytes(4, "big") + value for name, value in pairs)


def properties(data: bytes) -> dict[bytes, bytes]:
    """A peer's metadata, with names in lower case. Raises ProtocolError."""
    found, at = {}, 0
    while at < len(data):
        name = data[at + 1 : (at := at + 1 + data[at])]
        size = int.from_bytes(data[at : at + 4], "big")
        found[name.lower()] = data[at + 4 : (at := at + 4 + size)]
    if at != len(data):
        raise ProtocolError("metadata that ends in the middle")
    return found
