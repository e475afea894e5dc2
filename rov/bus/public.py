"""The public endpoint of all messages, for any number of ZeroMQ SUB sockets: `[topic, payload]`."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from rov.bus.payload import encode
from rov.bus.public_server import PeerConnection, PublicServer
from rov.messages import TOPICS, Message, topic_of

if TYPE_CHECKING:
    from rov.bus.keys import Gate

TOPIC_BYTES = 64
"""Longest subscription."""
SUBSCRIBE, CANCEL = 1, 0
"""First byte of what a SUB sends."""


class PublicPublisher:
    """Publishes messages to anybody. A subscriber that does not read loses messages; nobody waits for it."""

    def __init__(self, endpoint: str, gate: Gate | None = None):
        """Raises UserError when the endpoint cannot be bound, or is not on this machine and there are no keys."""
        self.server = PublicServer(endpoint, b"PUB", gate, TOPIC_BYTES)
        self.wanted: dict[PeerConnection, Counter[bytes]] = {}
        """Subscriptions of each peer: prefixes of topics, and how often it subscribed to each."""
        self.listeners: dict[str, dict[int, PeerConnection]] = {topic: {} for topic in TOPICS}
        self.server.on_disconnect = self._forget

    def publish(self, message: Message) -> None:
        self.step(0)
        self.forward(topic_of(message), encode(message))
        self.flush()

    def step(self, timeout_s: float) -> None:
        """Wait at most `timeout_s` for something to happen, and handle subscriptions."""
        for peer, message in self.server.step(timeout_s):
            if not self._ask(peer, message):
                self.server.penalise(peer)

    def forward(self, topic: str, payload: bytes) -> None:
        """Queue a message for its subscribers; the next `flush` sends it."""
        for peer in self.listeners[topic].values():
            self.server.queue(peer, topic.encode(), payload)

    def flush(self) -> None:
        """Send what is queued. A peer that accepts bytes is alive."""
        for peer in list(self.wanted):
            waiting = len(peer.protocol.out)
            if waiting:
                self.server.flush(peer)
                if len(peer.protocol.out) < waiting:
                    self.server.mark_active(peer)

    def _ask(self, peer: PeerConnection, message: bytes) -> bool:
        """Begin or end a subscription: only to prefixes of existing topics, so that their number is limited. False when
        it changes nothing."""
        beginning, topics = message[1:], [topic for topic in TOPICS if topic.encode().startswith(message[1:])]
        if not topics or message[0] not in (SUBSCRIBE, CANCEL) or peer.closed:
            return False
        wanted = self.wanted.setdefault(peer, Counter())
        before = wanted[beginning]
        wanted[beginning] = max(0, before + (1 if message[0] == SUBSCRIBE else -1))
        for topic in topics:
            if any(count and topic.encode().startswith(each) for each, count in wanted.items()):
                self.listeners[topic][peer.fd] = peer
            else:
                self.listeners[topic].pop(peer.fd, None)
        return (before == 0) != (wanted[beginning] == 0)

    def _forget(self, peer: PeerConnection) -> None:
        self.wanted.pop(peer, None)
        for listeners in self.listeners.values():
            listeners.pop(peer.fd, None)

    def close(self) -> None:
        self.server.close()
