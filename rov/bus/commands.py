"""Both ends of the command endpoint: `CommandServer` in the pilot, `CommandClient` at the operator. `CommandGateway`
stands between them. Each command is answered with a Reply."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import zmq

from rov.bus.inside import LINGER_MS
from rov.bus.operators import OperatorRegistry
from rov.bus.payload import COMMAND_BYTES, Malformed, decode_command, decode_reply, encode
from rov.bus.sockets import Context, bound, connected
from rov.messages import AnyCommand, Heartbeat, Reply, Sticks, Stop

if TYPE_CHECKING:
    from rov.bus.keys import ClientKeys

log = logging.getLogger(__name__)

INSIDE = "to-pilotd"
"""The pilot's own endpoint."""
COMMANDS_PER_UPDATE = 64
"""Limit per tick, so that a flood costs a control loop less than a ms; ZeroMQ serves the peers in turn."""
COMMANDS_WAITING = 256
"""Commands, and replies, that may wait per peer; further replies to a peer that does not read are dropped."""


class Request(NamedTuple):
    """A permitted command that waits for its reply."""

    command: AnyCommand
    t: int
    """Estimated send time on our clock: arrival minus the extra delay over this session's fastest command."""
    reply_to: tuple[bytes, ...]


class CommandServer:
    """Decodes commands, checks permission, and answers refused ones; the caller answers the rest. Commands come from
    the gateway as [token, who, payload], or directly from a DEALER or REQ socket of the daemon's own user."""

    def __init__(self, endpoint: str, *, heartbeat_timeout_s: float = 3.0, context: Context | None = None):
        """Raises UserError when the endpoint cannot be bound."""
        self.operators = OperatorRegistry(heartbeat_timeout_s)
        self.counts: Counter[str] = Counter()
        """Number of commands that were accepted, refused, malformed or unanswered."""
        options = {zmq.MAXMSGSIZE: COMMAND_BYTES, zmq.SNDHWM: COMMANDS_WAITING, zmq.RCVHWM: COMMANDS_WAITING}
        self.socket = bound(context, zmq.ROUTER, endpoint, options)
        self.received: list[list[bytes]] | None = None

    def receive(self) -> None:
        """Receive waiting commands for the next `requests`. Read the clock for `requests` after this call: with an
        earlier time, commands that arrive in between would seem early, and all later ones late."""
        self.received = []
        while len(self.received) < COMMANDS_PER_UPDATE:
            try:
                self.received.append(self.socket.recv_multipart(zmq.NOBLOCK))
            except zmq.Again:
                return

    def requests(self, now: int) -> list[Request]:
        """The permitted commands, stops first; answer each with `reply`. `now` in monotonic ns."""
        if self.received is None:
            self.receive()
        received, self.received = self.received or [], None
        decoded = [each for parts in received if (each := self._decode(parts, now))]
        decoded.sort(key=lambda each: not isinstance(each[0], Stop))  # a stop overtakes commands that arrived with it
        found = []
        for command, peer, who in decoded:
            sent_t, reason = self.operators.check(command, now, who)
            request = Request(command, sent_t, peer)
            if reason:
                self.reply(request, now, reason)
            else:
                found.append(request)
        return found

    def reply(self, request: Request, now: int, refused: str = "") -> None:
        """Reply that it was accepted, or why it was refused. Never blocks."""
        self.counts["refused" if refused else "accepted"] += 1
        if not isinstance(request.command, Heartbeat | Sticks):
            verb = type(request.command).__struct_config__.tag
            log.debug("%s of %s: %s", verb, request.command.session, refused or "accepted")
        self._send_reply(request.reply_to, Reply(t=now, seq=request.command.seq, accepted=not refused, reason=refused))

    def _decode(self, parts: list[bytes], now: int) -> tuple[AnyCommand, tuple[bytes, ...], str] | None:
        """A command, the route back to its sender, and the sender's name. ROUTER puts the peer's identity before the
        gateway's three parts, before a DEALER's [payload], and before a REQ's [empty, payload]."""
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
    """The operator's end of the command endpoint. Commands are sent at once or not at all: an old one is useless."""

    def __init__(self, endpoint: str, keys: ClientKeys | None = None, *, context: Context | None = None):
        options = {zmq.SNDHWM: COMMANDS_WAITING, zmq.IMMEDIATE: 1}  # no queue without a connection
        self.socket = connected(context, zmq.DEALER, endpoint, options, keys)

    def send(self, command: AnyCommand, timeout_ms: int = 0) -> bool:
        """Send, waiting at most this long for a connection; False when it was not sent."""
        if not self.socket.poll(timeout_ms, zmq.POLLOUT):
            return False
        try:
            self.socket.send(encode(command), zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def receive_reply(self, timeout_ms: int = 0) -> Reply | None:
        """The next reply; None when none arrives in time. Raises Malformed for something else."""
        if not self.socket.poll(timeout_ms):
            return None
        return decode_reply(self.socket.recv_multipart()[-1])

    def close(self) -> None:
        self.socket.close(LINGER_MS)
