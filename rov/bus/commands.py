"""The command endpoint, both ends: one ROUTER, each command answered with a Reply."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import zmq

from rov.bus.inside import LAST_WORDS_MS
from rov.bus.operators import Operators
from rov.bus.payload import Malformed, decode_command, decode_reply, encode
from rov.bus.sockets import Context, connected, public
from rov.messages import AnyCommand, Reply, Stop

if TYPE_CHECKING:
    from rov.bus.keys import ClientKeys, Gate

COMMANDS_PER_UPDATE = 64
"""So that a flood costs a control loop less than a ms per tick; ZeroMQ serves the peers in turn."""
COMMANDS_WAITING = 256
"""Commands, and replies, that may wait for a peer; then its replies are dropped: it does not read them."""


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
        self.socket = public(context, zmq.ROUTER, endpoint, gate, COMMANDS_WAITING)

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

    def reply(self, timeout_ms: int = 0) -> Reply | None:
        """The next reply; None when there is none within the time. Raises Malformed when it is not one."""
        if not self.socket.poll(timeout_ms):
            return None
        return decode_reply(self.socket.recv_multipart()[-1])

    def close(self) -> None:
        self.socket.close(LAST_WORDS_MS)
