"""What anybody may hear: one PUB endpoint, `[topic, payload]`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import zmq

from rov.bus.payload import encode
from rov.bus.reader import MAIL, Reader
from rov.bus.sockets import Context, connected, public
from rov.messages import Message, topic_of

if TYPE_CHECKING:
    from rov.bus.keys import ClientKeys, Gate


class PublicPub:
    """What anybody may hear. A subscriber that does not read loses messages; nobody waits for it."""

    def __init__(self, endpoint: str, gate: Gate | None = None, *, context: Context | None = None):
        """Raises UserError when the endpoint cannot be bound, or is not on this machine and there are no keys."""
        self.socket = public(context, zmq.PUB, endpoint, gate, MAIL)

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
    socket = connected(context, zmq.SUB, endpoint, {zmq.RCVHWM: MAIL}, keys)
    for topic in topics or ("",):
        socket.setsockopt(zmq.SUBSCRIBE, topic.encode())
    return Reader(socket)
