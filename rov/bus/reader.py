"""Reads messages in the order they arrived, from the mail inside or from the public endpoint."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import zmq

from rov.bus.payload import Malformed, decode
from rov.bus.sockets import Context, Socket, connected
from rov.messages import Message

if TYPE_CHECKING:
    from rov.bus.keys import ClientKeys

MAIL = 1000
"""Messages that may wait for a sink, at each end: about 4 s of all messages of `pilotd`."""


class Entry(NamedTuple):
    """One message as published; `message` was decoded from `payload`."""

    topic: str
    message: Message
    payload: bytes


class Reader:
    """Reads messages in the order they arrived, from a sink's inbox or from the public endpoint."""

    def __init__(self, socket: Socket):
        self.socket = socket
        """For a poller."""
        self.malformed = 0

    def receive(self, limit: int = 256) -> Iterator[Entry]:
        """The messages waiting now, at most `limit` of them."""
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


def listen(
    endpoint: str,
    topics: Iterable[str] = (),
    keys: ClientKeys | None = None,
    *,
    context: Context | None = None,
) -> Reader:
    """Subscribe to the public endpoint: to these topics, or all."""
    socket = connected(context, zmq.SUB, endpoint, {zmq.RCVHWM: MAIL}, keys)
    for topic in topics or ("",):
        socket.setsockopt(zmq.SUBSCRIBE, topic.encode())
    return Reader(socket)
