"""A server that strangers may reach: accepts connections, reads each peer in turn, disconnects misbehaving ones.

Its memory is bounded whatever the peers do: their number is limited, each may send a few kB, and messages that a peer
does not read are dropped. When it is full, a peer that was silent for long makes room, so that a new one is always
accepted. It runs in one thread, in `step`; a `paused` peer is not read until `resume`: its data waits at its own end.
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
"""Connections at most; fewer if the process may open fewer files."""
SPARE_FILES = 64
"""Files kept for other uses."""
BACKLOG = 4096
"""Connections that the kernel queues until we accept them."""
HANDSHAKE_NS = 2_000_000_000
"""A peer that has not finished its handshake within this time is disconnected."""
READ_BYTES = 4096
TURN = 4
"""Messages received from a peer before the next one's turn."""
NEWCOMERS = 200
"""Connections accepted per step. We empty the kernel's queue all the same: a client that finds it full tries again only
after 1 s."""
EVENTS_PER_STEP = 400
OUT_BYTES = 256 * 1024
"""Bytes that may wait for a peer that does not read; more is dropped."""
CREDIT, CREDIT_PER_S = 64.0, 100.0
"""Messages that a peer may send at once, and per second. One that sends more is served last, and is disconnected at its
next useless message."""
USELESS_COST = 8.0
"""A useless message counts as this many."""
STEP_NS = 15_000_000
"""After this, peers without priority wait for the next step, so that a new connection need not wait for them."""
UNSERVED_NS = 200_000_000
"""A new peer that was not served by then is disconnected: it can reconnect sooner than its turn would come."""
LEFT = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
READING = select.EPOLLIN | select.EPOLLRDHUP
AT_ONCE = struct.pack("ii", 1, 0)
"""For SO_LINGER: a connection without a finished handshake leaves no entry in the kernel's tables."""
LISTEN_BYTES = 128 * 1024
"""The kernel's send buffer of each connection."""
ALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 3000),
)
"""A cut tether must not leave a connection that looks alive, with data in flight (the last option) or without (the
others)."""


Group: TypeAlias = "OrderedDict[int, PeerConnection]"


class PeerConnection:
    """One connection, and its behaviour so far."""

    protocol: ZmtpConnection
    """Set once the peer has sent its first byte."""

    def __init__(self, connection: socket.socket, t: int):
        self.connection, self.came_t = connection, t
        self.fd = connection.fileno()
        self.group: Group = OrderedDict()
        self.name = ""
        """Name of its key or user, once the owner of the server has found out."""
        self.paused = self.writing = self.closed = self.priority = False
        self.credit, self.credit_t = CREDIT, t

    def rank(self) -> int:
        """Order of service, 0 first."""
        return 0 if self.priority else 1 if self.credit >= CREDIT / 2 else 2


class PublicServer:
    """Serves the peers of one endpoint."""

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
        """Peers that have sent nothing yet, in the order of their connection."""
        self.handshaking: Group = OrderedDict()
        """Peers in their handshake, in the order they began it."""
        self.established: Group = OrderedDict()
        """Peers after their handshake, the longest silent first."""
        self.readable: Group = OrderedDict()
        """Peers that may have unread messages in our buffer."""
        self.room = max(16, min(CONNECTIONS_MAX, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE_FILES))
        self.dropped = 0
        """Messages dropped because a peer was too slow."""
        self.on_disconnect: Callable[[PeerConnection], None] = lambda _: None
        """Called with each peer that leaves."""

    @property
    def address(self) -> str:
        """The bound endpoint, with the actual port if any free one was asked for."""
        if self.listener.family == socket.AF_UNIX:
            return f"ipc://{self.path}"
        host, port = self.listener.getsockname()[:2]
        return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"

    def watch(self, fd: int) -> None:
        """Also wake `step` for this file descriptor."""
        self.epoll.register(fd, select.EPOLLIN)

    # ---- one turn ----------------------------------------------------------------------------------------------

    def step(self, timeout_s: float) -> Iterator[tuple[PeerConnection, bytes]]:
        """Wait at most `timeout_s` for something to happen; yields the messages of peers, each in turn."""
        self._accept()
        for fd, mask in self.epoll.poll(0 if self.readable else timeout_s, EVENTS_PER_STEP):
            if (peer := self.peers.get(fd)) is not None:
                if mask & select.EPOLLOUT:
                    self.flush(peer)
                if mask & LEFT and peer.group is not self.established:
                    self.disconnect(peer)  # it left before its handshake ended: it waits for no answer
                elif mask & ~select.EPOLLOUT and not peer.closed:
                    self._receive(peer)
                self._await(peer)
        self._disconnect_idle(time.monotonic_ns())
        # Established and new peers have separate time limits, or a flood of one kind would keep out the other.
        for known in (True, False):
            yield from self._served(
                [each for each in self.readable.values() if (each.group is self.established) is known]
            )

    def _served(self, peers: list[PeerConnection]) -> Iterator[tuple[PeerConnection, bytes]]:
        """The messages of these peers, as far as there is time: those with priority first, those without credit last,
        and otherwise the latest sender first, so that under overload a new peer does not wait behind all others."""
        end = time.monotonic_ns() + STEP_NS
        newest = peers[::-1]
        for peer in sorted(newest, key=PeerConnection.rank):
            if time.monotonic_ns() < end or peer.priority:
                yield from self._taken(peer)
            elif peer.group is self.handshaking and end - peer.came_t > UNSERVED_NS:
                self.disconnect(peer)

    def _accept(self) -> None:
        """Accept waiting connections; of too many the newest: the older ones have waited long, and will reconnect."""
        newest: deque[socket.socket] = deque()
        for _ in range(BACKLOG):
            try:
                newest.append(self.listener.accept()[0])
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE) or not self.waiting.poll(0):
                    break  # no connection waits any more
                if self.peers:
                    self._make_room()
                elif newest:
                    newest.popleft().close()
                else:
                    break
            if len(newest) > NEWCOMERS:
                newest.popleft().close()
        for connection in newest:
            if len(self.peers) >= self.room:
                self._make_room()
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
        """Begin the protocol with a peer that has sent its first byte."""
        mechanism: Mechanism = self.gate.mechanism(self.about) if self.gate else NullMechanism(self.about)
        peer.protocol = ZmtpConnection(self.socket_type, mechanism, self.limit)
        self._move(peer, self.handshaking)

    def _taken(self, peer: PeerConnection) -> Iterator[tuple[PeerConnection, bytes]]:
        """The next few messages of a peer."""
        if peer.fd in self.readable:
            self.readable.move_to_end(peer.fd, last=False)
        for _ in range(TURN):
            if peer.fd not in self.readable:  # paused, or disconnected
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

    # ---- connections -------------------------------------------------------------------------------------------

    def mark_active(self, peer: PeerConnection) -> None:
        """Note a sign of life: others have to make room before this peer."""
        if not peer.closed:
            self._move(peer, self.established)

    def _move(self, peer: PeerConnection, group: Group) -> None:
        """Move a peer to the end of a group."""
        peer.group.pop(peer.fd, None)
        peer.group = group
        group[peer.fd] = peer

    def penalise(self, peer: PeerConnection) -> None:
        """Charge a peer for a useless message; disconnect it after too many."""
        if peer.credit < USELESS_COST:
            self.disconnect(peer)
        peer.credit -= USELESS_COST

    def _charge(self, peer: PeerConnection, now: int) -> None:
        grown = peer.credit + (now - peer.credit_t) * 1e-9 * CREDIT_PER_S
        peer.credit, peer.credit_t = max(0.0, min(grown, CREDIT) - 1), now

    def pause(self, peer: PeerConnection) -> None:
        """Stop reading a peer for now."""
        if not peer.paused and not peer.closed:
            peer.paused = True
            self.readable.pop(peer.fd, None)
            self._await(peer)

    def resume(self, peer: PeerConnection) -> None:
        """Read a paused peer again."""
        if peer.paused and not peer.closed:
            peer.paused = False
            self.readable[peer.fd] = peer
            self._await(peer)

    def disconnect(self, peer: PeerConnection) -> None:
        """Close the connection of a peer."""
        if peer.closed:
            return
        del self.peers[peer.fd]
        if peer.group is not self.established:
            peer.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
        peer.group.pop(peer.fd, None)
        self.readable.pop(peer.fd, None)
        peer.closed = True
        peer.connection.close()  # this removes it from epoll, too
        self.on_disconnect(peer)

    def _make_room(self) -> None:
        """Disconnect the longest silent peer of the largest group: so no group displaces another, and a new peer has at
        least the time in which a third of the room fills again."""
        self.disconnect(next(iter(max(self.silent, self.handshaking, self.established, key=len).values())))

    def _disconnect_idle(self, now: int) -> None:
        for group in (self.silent, self.handshaking):
            while group and now - (first := next(iter(group.values()))).came_t > HANDSHAKE_NS:
                self.disconnect(first)

    # ---- sending -----------------------------------------------------------------------------------------------

    def queue(self, peer: PeerConnection, *parts: bytes, limit: int = OUT_BYTES) -> bool:
        """Queue a message, which the next `flush` sends; False when too much waits already for a peer that does not
        read."""
        if len(peer.protocol.out) > limit or not peer.protocol.ready:
            self.dropped += 1
            return False
        peer.protocol.send(*parts)
        return True

    def flush(self, peer: PeerConnection) -> None:
        """Hand the queued bytes of a peer to the kernel, as many as it accepts."""
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
        """Register for its next events, one-shot, so that peers not served yet do not hide the others."""
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
    """The path of an ipc endpoint (else empty), and a socket that listens there. Raises UserError."""
    family, address = address_of(endpoint)
    listener = socket.socket(family, socket.SOCK_STREAM)
    path = address if isinstance(address, str) else ""
    try:
        if path:
            Path(path).parent.mkdir(0o700, parents=True, exist_ok=True)
            Path(path).unlink(missing_ok=True)  # left by a killed process; `refuse_taken` has excluded a living one
        else:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            for level, option, value in ALIVE:
                listener.setsockopt(level, option, value)  # accepted connections inherit it
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LISTEN_BYTES)
        listener.bind(address)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise UserError(f"{endpoint}: cannot be bound: {os.strerror(error.errno or 0)}") from None
    return path, listener


def prove(endpoint: str, gate: Gate | None) -> None:
    """Check that a server could be bound there. Raises UserError."""
    permitted(endpoint, gate is not None)
    path, listener = listening(endpoint)
    listener.close()
    if path:
        Path(path).unlink(missing_ok=True)
