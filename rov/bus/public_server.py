"""A door that strangers come through: accepts, reads each peer in turn, and shows out whoever is in the way.

Whatever they do, its memory is bounded: so many peers, a few kB from each, and what one does not read is dropped.
When it is full, one who has not been heard for long makes room, so that a newcomer is always let in. One thread, and
`step` in it; a peer that is `held` is not read until it is `released`: what it sends waits in its own machine.
"""

from __future__ import annotations

import errno
import os
import resource
import select
import socket
import struct
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from rov.bus.sockets import address_of, permitted
from rov.bus.zmtp import SIGNATURE, Mechanism, NullMechanism, ProtocolError, ZmtpConnection, metadata
from rov.errors import UserError

if TYPE_CHECKING:
    from rov.bus.keys import Gate

CONNECTIONS_MAX = 4000
"""At most; fewer where the process may not open so many files."""
SPARE_FILES = 64
BACKLOG = 4096
"""Connections the kernel keeps for us until we come round to them."""
HANDSHAKE_NS = 2_000_000_000
"""A peer that has not introduced itself within this time goes."""
READ_BYTES = 4096
TURN = 4
"""Messages taken from a peer before the next one's turn."""
NEWCOMERS = 200
"""Let in per step. The kernel's own queue is emptied all the same: who finds that full tries again only after 1 s."""
EVENTS_PER_STEP = 400
OUT_BYTES = 256 * 1024
"""What waits for a peer that does not read; more is dropped."""
CREDIT, CREDIT_PER_S = 64.0, 100.0
"""Messages that a peer may bring at once, and per second. Who brings more comes last, and goes for the next one that
is of no use."""
USELESS_COST = 8.0
"""A message that was of no use counts as so many."""
STEP_NS = 15_000_000
"""Those who come last wait for the next step after this: a newcomer is not to wait for them."""
UNSERVED_NS = 200_000_000
"""A newcomer whose turn has not come by then is shown out: it comes again sooner than its turn would."""
LEFT = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
READING = select.EPOLLIN | select.EPOLLRDHUP
AT_ONCE = struct.pack("ii", 1, 0)
"""For SO_LINGER: a connection that was nobody's leaves no trace in the kernel's tables."""
LISTEN_BYTES = 128 * 1024
"""The kernel's own buffer for what we say to a peer."""
ALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 3000),
)
"""A tether that is cut must not leave a connection that looks alive, whether something was under way (the last one) or
not (the others)."""


Group: TypeAlias = "OrderedDict[int, PeerConnection]"


class PeerConnection:
    """One connection, and how it has behaved."""

    protocol: ZmtpConnection
    """Once it has begun to speak."""

    def __init__(self, connection: socket.socket, t: int):
        self.connection, self.came_t = connection, t
        self.fd = connection.fileno()
        self.group: Group = OrderedDict()
        self.name = ""
        """Who it is, once somebody has found out."""
        self.paused = self.writing = self.closed = self.priority = False
        self.credit, self.credit_t = CREDIT, t

    def rank(self) -> int:
        return 0 if self.priority else 1 if self.credit >= CREDIT / 2 else 2


class PublicServer:
    """The peers of one endpoint."""

    def __init__(self, endpoint: str, socket_type: bytes, gate: Gate | None, limit: int):
        """`limit`: the largest message in bytes. Raises UserError when the endpoint cannot be bound, or is not on this
        machine and there are no keys."""
        permitted(endpoint, gate is not None)
        self.socket_type, self.gate, self.limit = socket_type, gate, limit
        self.about = metadata(socket_type)
        self.path, self.listener = listening(endpoint)
        self.epoll = select.epoll()
        self.epoll.register(self.listener, select.EPOLLIN)
        self.waiting = select.poll()
        self.waiting.register(self.listener, select.POLLIN)
        self.peers: dict[int, PeerConnection] = {}
        self.silent: Group = OrderedDict()
        """Those who have said nothing yet, in the order they came."""
        self.handshaking: Group = OrderedDict()
        """Those who have, before the end of their handshake, in the order they came."""
        self.established: Group = OrderedDict()
        """Those after it, the longest silent first."""
        self.readable: Group = OrderedDict()
        """Those that may have more to say than was taken from them."""
        self.room = max(16, min(CONNECTIONS_MAX, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE_FILES))
        self.dropped = 0
        """Messages that somebody was too slow for."""
        self.on_disconnect: Callable[[PeerConnection], None] = lambda _: None
        """Told of each peer that leaves."""

    @property
    def address(self) -> str:
        """Where it can be reached, with the port that was found where any would do."""
        if self.listener.family == socket.AF_UNIX:
            return f"ipc://{self.path}"
        host, port = self.listener.getsockname()[:2]
        return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"

    def watch(self, fd: int) -> None:
        """Also wake for another file."""
        self.epoll.register(fd, select.EPOLLIN)

    # ---- one turn ----------------------------------------------------------------------------------------------

    def step(self, timeout_s: float) -> Iterator[tuple[PeerConnection, bytes]]:
        """Wait at most so long for something to happen; what peers say, each in turn."""
        self._accept()
        for fd, mask in self.epoll.poll(0 if self.readable else timeout_s, EVENTS_PER_STEP):
            if (peer := self.peers.get(fd)) is not None:
                if mask & select.EPOLLOUT:
                    self.flush(peer)
                if mask & LEFT and peer.group is not self.established:
                    self.disconnect(peer)  # before it was known: nobody waits for an answer
                elif mask & ~select.EPOLLOUT and not peer.closed:
                    self._receive(peer)
                self._await(peer)
        self._disconnect_idle(time.monotonic_ns())
        # Those who are known and newcomers have a time each, or a flood of one kind would keep out the other.
        for known in (True, False):
            yield from self._served(
                [each for each in self.readable.values() if (each.group is self.established) is known]
            )

    def _served(self, peers: list[PeerConnection]) -> Iterator[tuple[PeerConnection, bytes]]:
        """What these say, as far as there is time: the favoured first, those with much to say last, and of the others
        who spoke last: when they are more than can be served, nobody new waits behind them all."""
        end = time.monotonic_ns() + STEP_NS
        newest = peers[::-1]
        for peer in sorted(newest, key=PeerConnection.rank):
            if time.monotonic_ns() < end or peer.priority:
                yield from self._taken(peer)
            elif peer.group is self.handshaking and end - peer.came_t > UNSERVED_NS:
                self.disconnect(peer)

    def _accept(self) -> None:
        """Let in who waits. When they are too many, the newest: those before them have waited long, and come again."""
        newest: deque[int] = deque()
        for _ in range(BACKLOG):
            try:
                newest.append(self.listener._accept()[0])  # type: ignore[attr-defined]  # `accept` takes twice as long
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE) or not self.waiting.poll(0):
                    break  # nobody waits, or who did is gone
                if self.peers:
                    self._make_room()
                elif newest:
                    os.close(newest.popleft())
                else:
                    break
            if len(newest) > NEWCOMERS:
                os.close(newest.popleft())
        for fd in newest:
            if len(self.peers) >= self.room:
                self._make_room()
            connection = socket.socket(self.listener.family, socket.SOCK_STREAM, 0, fileno=fd)
            connection.setblocking(False)
            peer = PeerConnection(connection, time.monotonic_ns())
            self.peers[peer.fd] = peer
            self._move(peer, self.silent)
            self.epoll.register(peer.fd, READING | select.EPOLLONESHOT)

    def _receive(self, peer: PeerConnection) -> None:
        try:
            data = peer.connection.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            return self.disconnect(peer)
        if peer.group is self.silent:
            if data[:1] != SIGNATURE:
                return self.disconnect(peer)
            self._welcome(peer)
        peer.protocol.feed(data)
        self.readable[peer.fd] = peer

    def _welcome(self, peer: PeerConnection) -> None:
        """It has begun to speak: so do we."""
        mechanism: Mechanism = self.gate.mechanism(self.about) if self.gate else NullMechanism(self.about)
        peer.protocol = ZmtpConnection(self.socket_type, mechanism, self.limit)
        self._move(peer, self.handshaking)

    def _taken(self, peer: PeerConnection) -> Iterator[tuple[PeerConnection, bytes]]:
        """Its next few messages."""
        if peer.fd in self.readable:
            self.readable.move_to_end(peer.fd, last=False)
        for _ in range(TURN):
            if peer.fd not in self.readable:  # held, or shown out
                return
            met = peer.protocol.ready
            try:
                message = peer.protocol.receive()
            except ProtocolError:
                return self.disconnect(peer)
            if message is None:
                del self.readable[peer.fd]
                self._await(peer)
                break
            self._charge(peer, time.monotonic_ns())
            if peer.protocol.ready:
                self._move(peer, self.established)
            if message:
                yield peer, message
            elif met:
                self.penalise(peer)
        if not peer.closed and peer.protocol.out:
            self.flush(peer)

    # ---- who stays ---------------------------------------------------------------------------------------------

    def mark_active(self, peer: PeerConnection) -> None:
        """It is alive: others make room before it."""
        if not peer.closed:
            self._move(peer, self.established)

    def _move(self, peer: PeerConnection, group: Group) -> None:
        """To the end of a group."""
        peer.group.pop(peer.fd, None)
        peer.group = group
        group[peer.fd] = peer

    def penalise(self, peer: PeerConnection) -> None:
        """A message was of no use. Too many of them, and it goes."""
        if peer.credit < USELESS_COST:
            self.disconnect(peer)
        peer.credit -= USELESS_COST

    def _charge(self, peer: PeerConnection, now: int) -> None:
        grown = peer.credit + (now - peer.credit_t) * 1e-9 * CREDIT_PER_S
        peer.credit, peer.credit_t = max(0.0, min(grown, CREDIT) - 1), now

    def pause(self, peer: PeerConnection) -> None:
        """Do not read it for now."""
        if not peer.paused and not peer.closed:
            peer.paused = True
            self.readable.pop(peer.fd, None)
            self._await(peer)

    def resume(self, peer: PeerConnection) -> None:
        """Read it again."""
        if peer.paused and not peer.closed:
            peer.paused = False
            self.readable[peer.fd] = peer
            self._await(peer)

    def disconnect(self, peer: PeerConnection) -> None:
        """Its connection ends."""
        if peer.closed:
            return
        del self.peers[peer.fd]
        if peer.group is not self.established:
            peer.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
        peer.group.pop(peer.fd, None)
        self.readable.pop(peer.fd, None)
        peer.closed = True
        peer.connection.close()  # which takes it out of epoll, too
        self.on_disconnect(peer)

    def _make_room(self) -> None:
        """The longest silent of the largest group goes: so no group drives another out, and whoever is on the way
        through them has the time in which a third of the room fills again."""
        self.disconnect(next(iter(max(self.silent, self.handshaking, self.established, key=len).values())))

    def _disconnect_idle(self, now: int) -> None:
        for group in (self.silent, self.handshaking):
            while group and now - (first := next(iter(group.values()))).came_t > HANDSHAKE_NS:
                self.disconnect(first)

    # ---- what is said to them ----------------------------------------------------------------------------------

    def queue(self, peer: PeerConnection, *parts: bytes, limit: int = OUT_BYTES) -> bool:
        """Put a message on its way with the next `flush`; False when it does not read and too much waits already."""
        if len(peer.protocol.out) > limit or not peer.protocol.ready:
            self.dropped += 1
            return False
        peer.protocol.send(*parts)
        return True

    def flush(self, peer: PeerConnection) -> None:
        """Hand what waits for it to the kernel, as much as that takes."""
        out = peer.protocol.out
        if peer.closed:
            return
        try:
            sent = peer.connection.send(out) if out else 0
        except BlockingIOError:
            sent = 0
        except OSError:
            return self.disconnect(peer)
        if sent:
            del out[:sent]
        if bool(out) != peer.writing:
            peer.writing = bool(out)
            self._await(peer)

    def _await(self, peer: PeerConnection) -> None:
        """Look out for what it may do next: once, so that those who are not served yet do not hide the others."""
        if not peer.closed:
            reading = 0 if peer.paused or peer.fd in self.readable else READING
            writing = select.EPOLLOUT if peer.writing else 0
            self.epoll.modify(peer.fd, reading | writing | select.EPOLLONESHOT)

    def close(self) -> None:
        for peer in list(self.peers.values()):
            self.disconnect(peer)
        self.epoll.close()
        self.listener.close()
        if self.path:
            Path(self.path).unlink(missing_ok=True)


def listening(endpoint: str) -> tuple[str, socket.socket]:
    """The path of an ipc endpoint (else nothing), and a socket that listens there. Raises UserError."""
    family, address = address_of(endpoint)
    listener = socket.socket(family, socket.SOCK_STREAM)
    path = address if isinstance(address, str) else ""
    try:
        if path:
            Path(path).parent.mkdir(0o700, parents=True, exist_ok=True)
            Path(path).unlink(missing_ok=True)  # left by one that was killed; `refuse_taken` has looked for the living
        else:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            for level, option, value in ALIVE:
                listener.setsockopt(level, option, value)  # and so it is for all it accepts
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LISTEN_BYTES)
        listener.bind(address)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise UserError(f"{endpoint}: cannot be bound: {os.strerror(error.errno or 0)}") from None
    return path, listener


def prove(endpoint: str, gate: Gate | None) -> None:
    """Could a door be opened there? Raises UserError."""
    permitted(endpoint, gate is not None)
    path, listener = listening(endpoint)
    listener.close()
    if path:
        Path(path).unlink(missing_ok=True)
