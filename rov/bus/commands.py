"""Commands: `CommandServer` where they are carried out, `CommandFront` before it, where strangers bring them,
`CommandClient` at who gives them. Each is answered with a Reply."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import zmq

from rov.bus.inside import LINGER_MS
from rov.bus.operators import OperatorRegistry
from rov.bus.payload import COMMAND_BYTES, Malformed, decode_command, decode_reply, encode
from rov.bus.sockets import Context, bound, connected
from rov.messages import AnyCommand, Reply, Stop

if TYPE_CHECKING:
    from rov.bus.keys import ClientKeys

COMMANDS_PER_UPDATE = 64
"""So that a flood costs a control loop less than a ms per tick; ZeroMQ serves the peers in turn."""
COMMANDS_WAITING = 256
"""Commands, and replies, that may wait for a peer; then its replies are dropped: it does not read them."""


class Request(NamedTuple):
    """A command that may be carried out, and that waits for its reply."""

    command: AnyCommand
    t: int
    """When it was sent, on our clock: when it came, less what it was delayed beyond its session's quickest."""
    reply_to: tuple[bytes, ...]


class CommandServer:
    """Decodes commands, decides who may, answers what is refused; the rest is the caller's to answer. They come from
    the front as [token, who, payload], or straight from a DEALER or REQ of the daemon's own user."""

    def __init__(self, endpoint: str, *, heartbeat_timeout_s: float = 3.0, context: Context | None = None):
        """Raises UserError when the endpoint cannot be bound."""
        self.operators = OperatorRegistry(heartbeat_timeout_s)
        self.counts: Counter[str] = Counter()
        """Commands by what became of them: accepted, refused, malformed."""
        options = {zmq.MAXMSGSIZE: COMMAND_BYTES, zmq.SNDHWM: COMMANDS_WAITING, zmq.RCVHWM: COMMANDS_WAITING}
        self.socket = bound(context, zmq.ROUTER, endpoint, options)
        self.received: list[list[bytes]] | None = None

    def receive(self) -> None:
        """Take what is there, for the next `requests`. Whoever judges by a clock that was read before it takes what came
        meanwhile for early, and all that comes later for late."""
        self.received = []
        while len(self.received) < COMMANDS_PER_UPDATE:
            try:
                self.received.append(self.socket.recv_multipart(zmq.NOBLOCK))
            except zmq.Again:
                return

    def requests(self, now: int) -> list[Request]:
        """What is to be carried out, stops first. Answer each with `reply`. `now` in monotonic ns."""
        if self.received is None:
            self.receive()
        received, self.received = self.received or [], None
        heard = [understood for parts in received if (understood := self._decode(parts, now))]
        heard.sort(key=lambda each: not isinstance(each[0], Stop))  # a stop overtakes all that came with it
        found = []
        for command, peer, who in heard:
            sent_t, reason = self.operators.check(command, now, who)
            request = Request(command, sent_t, peer)
            if reason:
                self.reply(request, now, reason)
            else:
                found.append(request)
        return found

    def reply(self, request: Request, now: int, refused: str = "") -> None:
        """Say that it was done, or why not. Never blocks."""
        self.counts["refused" if refused else "accepted"] += 1
        self._send_reply(request.reply_to, Reply(t=now, seq=request.command.seq, accepted=not refused, reason=refused))

    def _decode(self, parts: list[bytes], now: int) -> tuple[AnyCommand, tuple[bytes, ...], str] | None:
        """A command, the way back to who gave it, and who that is. ROUTER puts the identity of a peer in front of the
        front's three parts, of a DEALER's [payload], of a REQ's [empty, payload]."""
        peer, who = tuple(parts[:2]) if len(parts) in (3, 4) else tuple(parts[:1]), ""
        if len(parts) == 4:
            who = parts.pop(2).decode("ascii", "replace")
        elif len(parts) == 3 and parts[1]:
            peer = peer[:1]
        try:
            if len(parts) != len(peer) + 1:
                raise Malformed("not one part")
            return decode_command(parts[-1]), peer, who
        except Malformed as error:
            self.counts["malformed"] += 1
            self._send_reply(peer, Reply(t=now, seq=-1, accepted=False, reason=f"not understood: {error}"))
            return None

    def _send_reply(self, peer: tuple[bytes, ...], reply: Reply) -> None:
        try:
            self.socket.send_multipart((*peer, encode(reply)), zmq.NOBLOCK)
        except zmq.Again:
            self.counts["unanswered"] += 1

    def close(self) -> None:
        self.socket.close(0)


class CommandClient:
    """The other end of the command endpoint. Commands go out at once or not at all: an old one is of no use."""

    def __init__(self, endpoint: str, keys: ClientKeys | None = None, *, context: Context | None = None):
        options = {zmq.SNDHWM: COMMANDS_WAITING, zmq.IMMEDIATE: 1}  # nothing is queued for who is not connected
        self.socket = connected(context, zmq.DEALER, endpoint, options, keys)

    def send(self, command: AnyCommand, timeout_ms: int = 0) -> bool:
        """Send, waiting at most this long for a connection; False when it did not go out."""
        if not self.socket.poll(timeout_ms, zmq.POLLOUT):
            return False
        try:
            self.socket.send(encode(command), zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def receive_reply(self, timeout_ms: int = 0) -> Reply | None:
        """The next reply; None when there is none within the time. Raises Malformed when it is not one."""
        if not self.socket.poll(timeout_ms):
            return None
        return decode_reply(self.socket.recv_multipart()[-1])

    def close(self) -> None:
        self.socket.close(LINGER_MS)
