"""The public command endpoint: reads what strangers send, and passes only valid commands on to the pilot.

    to the pilot    [token, who, payload], never more than it takes in one tick
    from the pilot  [token, reply]

A stop goes first, and only once: every peer that asks for a stop meanwhile receives the same answer, so that a flood of
stops costs the pilot one per tick. Peers with a recently accepted command come next. The others share the rest in turn.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec
import zmq

from rov.bus.commands import INSIDE
from rov.bus.operators import USER
from rov.bus.payload import COMMAND_BYTES, Malformed, decode_command, decode_reply, encode
from rov.bus.peer_user import peer_user
from rov.bus.public_server import PeerConnection, PublicServer
from rov.bus.sockets import Context, connected, ipc
from rov.messages import Reply, Stop

if TYPE_CHECKING:
    from rov.bus.keys import Gate

UNANSWERED = 8
"""Unanswered commands of one peer; at this number it is not read until an answer arrives."""
STRANGERS = 16
"""Unanswered commands of all peers together that have no recently accepted command."""
GRANTED_NS = 3_000_000_000
"""How long an accepted command gives its peer priority."""
ANSWER_NS = 1_000_000_000
"""A command without an answer is forgotten after this: the pilot is gone."""
STOP_AGAIN_NS = 200_000_000
"""A stop without an answer is sent again after this."""
ANSWERS_PER_STEP = 256
OUT_BYTES = 16 * 1024
"""Bytes of answers that may wait for a peer that does not read them."""


@dataclass(eq=False)
class UnansweredCommand:
    """A command, and the peer that waits for its answer."""

    peer: PeerConnection
    payload: bytes
    kind: Literal["stop", "granted", "stranger"]
    seq: int
    enveloped: bool
    t: int = 0
    """When it was passed on."""
    also: list[UnansweredCommand] = field(default_factory=list)
    """Other stops that receive the same answer."""


class CommandGateway:
    """Passes commands of public peers to the pilot, and its replies back."""

    def __init__(self, endpoint: str, root: Path, gate: Gate | None = None, *, context: Context | None = None):
        """`root` is the directory of the daemon's own endpoints. Raises UserError when the endpoint cannot be bound, or
        is not on this machine and there are no keys."""
        self.server = PublicServer(endpoint, b"ROUTER", gate, COMMAND_BYTES)
        self.server.on_disconnect = self._forget
        self.inside = connected(context, zmq.DEALER, ipc(root, INSIDE), {zmq.IMMEDIATE: 1})
        self.server.watch(self.inside.fileno())
        self.asked: dict[bytes, UnansweredCommand] = {}
        """Commands passed on, by token, the longest unanswered first."""
        self.stops: list[UnansweredCommand] = []
        self.waiting: OrderedDict[PeerConnection, UnansweredCommand] = OrderedDict()
        """One command of each stranger, waiting for room."""
        self.owed: dict[PeerConnection, int] = {}
        """Number of answers still to come."""
        self.granted: dict[PeerConnection, int] = {}
        """When a command of theirs, other than a stop, was last accepted."""
        self.strangers = self.count = 0

    def step(self, timeout_s: float) -> None:
        """Wait at most `timeout_s` for commands or replies, and handle them."""
        for peer, payload in self.server.step(timeout_s):
            self._handle(peer, payload, time.monotonic_ns())
        now = time.monotonic_ns()
        self._answer(now)
        self._give_up(now)
        self._keep(now)
        self._stop(now)
        while self.waiting and self.strangers < STRANGERS:
            self._pass_on(self.waiting.popitem(last=False)[1], now)

    # ---- commands ----------------------------------------------------------------------------------------------

    def _handle(self, peer: PeerConnection, payload: bytes, now: int) -> None:
        try:
            command = decode_command(payload)
        except Malformed as error:
            return self._reject(peer, -1, f"not understood: {error}", now)
        lately = now - self.granted.get(peer, now - GRANTED_NS) < GRANTED_NS
        kind: Literal["stop", "granted", "stranger"] = "granted" if lately else "stranger"
        kind = "stop" if isinstance(command, Stop) else kind
        asked = UnansweredCommand(peer, payload, kind, command.seq, peer.protocol.enveloped)
        if kind == "stranger" and peer in self.waiting:
            return self._reject(peer, command.seq, "too many commands at once; ask again", now)
        self._owe(peer, 1)
        if kind == "stop":
            self.stops.append(asked)
        elif kind == "granted" or (not self.waiting and self.strangers < STRANGERS):
            self._pass_on(asked, now)
        else:
            self.waiting[peer] = asked

    def _reject(self, peer: PeerConnection, seq: int, reason: str, now: int) -> None:
        """Answer a bad command ourselves. A peer that sends too many, or has sent nothing else, is disconnected."""
        self._say(peer, peer.protocol.enveloped, Reply(t=now, seq=seq, accepted=False, reason=reason))
        if peer in self.owed:
            return self.server.penalise(peer)
        self.server.flush(peer)
        self.server.disconnect(peer)

    def _stop(self, now: int) -> None:
        """Pass one stop on for all peers that want one, unless one is under way."""
        if not self.stops:
            return
        first, *others = self.stops
        others = [each for each in others if not each.peer.closed]
        self.stops = [first, *others]
        if not any(each.kind == "stop" for each in self.asked.values()):
            self.stops, first.also = [], [*first.also, *others]
            self._pass_on(first, now)

    def _pass_on(self, asked: UnansweredCommand, now: int) -> None:
        """Send a command to the pilot. Without a pilot a stop waits; other commands are dropped."""
        who = self._who(asked.peer)
        self.count += 1
        token = self.count.to_bytes(8, "big")
        if asked.kind != "stop" and not who:
            return self._settle(asked)
        try:
            self.inside.send_multipart((token, who.encode(), asked.payload), zmq.NOBLOCK)
        except zmq.Again:
            return self.stops.append(asked) if asked.kind == "stop" else self._settle(asked)
        asked.t, self.asked[token] = now, asked
        self.strangers += asked.kind == "stranger"

    def _who(self, peer: PeerConnection) -> str:
        """The name of a peer's key, or its user on this machine; empty for one that left before we could ask."""
        if not peer.name and not peer.closed:
            if key := peer.protocol.mechanism.who:
                peer.name = f"key {key}"
            elif (user := peer_user(peer.connection)) is not None:
                peer.name = f"{USER}{user}"
        return peer.name

    # ---- replies -----------------------------------------------------------------------------------------------

    def _answer(self, now: int) -> None:
        for _ in range(ANSWERS_PER_STEP):
            try:
                token, payload = self.inside.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            asked = self._taken_back(token)
            if asked is None:
                continue
            reply = decode_reply(payload)
            if reply.accepted and asked.kind != "stop" and not asked.peer.closed:
                self.granted[asked.peer] = now
            for each in (asked, *asked.also):
                self._say(each.peer, each.enveloped, msgspec.structs.replace(reply, seq=each.seq))
                self.server.flush(each.peer)
            self._settle(asked)

    def _give_up(self, now: int) -> None:
        """Give up commands that the pilot did not answer: it is gone, or was restarted. A stop is sent again."""
        for token, asked in list(islice(self.asked.items(), STRANGERS)):
            if now - asked.t > (STOP_AGAIN_NS if asked.kind == "stop" else ANSWER_NS):
                self._taken_back(token)
                if asked.kind == "stop":
                    self.stops.append(asked)
                else:
                    self._settle(asked)

    def _keep(self, now: int) -> None:
        """Never disconnect a peer with a recently accepted command to make room, however seldom it sends."""
        for peer, granted_t in list(self.granted.items()):
            peer.priority = now - granted_t < GRANTED_NS
            if peer.priority:
                self.server.mark_active(peer)
            else:
                del self.granted[peer]

    def _taken_back(self, token: bytes) -> UnansweredCommand | None:
        asked = self.asked.pop(token, None)
        self.strangers -= asked is not None and asked.kind == "stranger"
        return asked

    def _settle(self, asked: UnansweredCommand) -> None:
        """Count a command, and the stops it answers, as done."""
        for each in (asked, *asked.also):
            self._owe(each.peer, -1)

    def _owe(self, peer: PeerConnection, more: int) -> None:
        if peer.closed:
            return
        self.owed[peer] = self.owed.get(peer, 0) + more
        if self.owed[peer] >= UNANSWERED:
            self.server.pause(peer)
        else:
            self.server.resume(peer)

    def _say(self, peer: PeerConnection, enveloped: bool, reply: Reply) -> None:
        envelope = (b"",) if enveloped else ()
        if not peer.closed:
            self.server.queue(peer, *envelope, encode(reply), limit=OUT_BYTES)

    def _forget(self, peer: PeerConnection) -> None:
        self.owed.pop(peer, None)
        self.granted.pop(peer, None)
        self.waiting.pop(peer, None)

    def close(self) -> None:
        self.server.close()
        self.inside.close(0)
