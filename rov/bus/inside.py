"""Between the processes: the newest of each state, and bounded mail to the sinks that keep everything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Generic, TypeVar

import zmq

from rov.bus.payload import Malformed, decode, encode
from rov.bus.reader import MAIL, Reader
from rov.bus.sockets import Context, Socket, bound, connected, ipc
from rov.messages import TOPICS, Message, topic_of
from rov.types import FUTURE_NS

SINKS = ("recorder", "public", "supervisor")
"""Who gets the mail."""
SOME = {"supervisor": ("events", "health", "frame")}
"""Who does not get all of it."""
LINGER_MS = 200
"""How long closing waits for mail that is under way: why a process ended is worth more than 200 ms."""

M = TypeVar("M", bound=Message)


class Publisher:
    """Everything one process says: `send` puts a message on its state endpoint and into the mail."""

    def __init__(self, process: str, root: Path, *, sinks: Iterable[str] = SINKS, context: Context | None = None):
        """`root` is the directory of the endpoints, the same for all processes. Raises UserError when it cannot be."""
        self.dropped: Counter[str] = Counter()
        """Messages that a sink's queue had no room for."""
        self.state: dict[str, Socket] = {}
        self.mail: dict[str, Socket] = {}
        for name, topic in TOPICS.items():
            if topic.kind == "state" and topic.publisher == process:
                options = {zmq.CONFLATE: 1}  # also here: nothing piles up for a reader that is stopped
                self.state[name] = bound(context, zmq.PUB, ipc(root, name), options)
        for sink in sinks:
            options = {zmq.SNDHWM: MAIL, zmq.LINGER: LINGER_MS}
            self.mail[sink] = connected(context, zmq.PUSH, ipc(root, f"to-{sink}"), options)

    def publish(self, message: Message) -> None:
        """Say it. Never blocks. Raises ValueError for a state topic that is another process's."""
        topic, payload = topic_of(message), encode(message)
        if topic in self.state:
            self.state[topic].send(payload, zmq.NOBLOCK)
        elif TOPICS[topic].kind == "state" and TOPICS[topic].publisher != "all":
            raise ValueError(f"{topic} is published by {TOPICS[topic].publisher}")
        for sink, socket in self.mail.items():
            if topic not in SOME.get(sink, (topic,)):
                continue
            try:
                socket.send_multipart((topic.encode(), payload), zmq.NOBLOCK)
            except zmq.Again:
                self.dropped[sink] += 1

    def close(self) -> None:
        for socket in (*self.state.values(), *self.mail.values()):
            socket.close()  # each lingers as it was told when it was made


class Subscriber(Generic[M]):
    """The newest message of a state topic, and whether it is recent enough to act on: `Sub(Frame, root)`."""

    def __init__(self, kind: type[M], root: Path, *, hz: float | None = None, context: Context | None = None):
        """`hz`: the rate it really has, where the configuration changes that of the table."""
        self.topic = next(name for name, topic in TOPICS.items() if topic.type is kind)
        if TOPICS[self.topic].kind != "state" or TOPICS[self.topic].publisher == "all":
            raise ValueError(f"{self.topic} has no single newest message: read it from a sink")
        self.max_age_ns = int(3e9 / (hz or TOPICS[self.topic].hz))  # three missed messages
        self.message: M | None = None
        self.malformed = 0
        """Messages dropped: not decodable, or from the future."""
        options = {zmq.CONFLATE: 1, zmq.SUBSCRIBE: b""}  # one topic per socket, or topics evict each other
        self.socket = connected(context, zmq.SUB, ipc(root, self.topic), options)

    def receive(self, now: int) -> bool:
        """Take what came since the last call; True when there is a new message. `now` in monotonic ns."""
        try:
            message: M = decode(self.topic, self.socket.recv(zmq.NOBLOCK))  # type: ignore[assignment]
        except zmq.Again:
            return False
        except Malformed:
            self.malformed += 1
            return False
        if message.t > now + FUTURE_NS:
            self.malformed += 1
            return False
        self.message = message
        return True

    def fresh(self, now: int) -> bool:
        """Is there a message, made no longer ago than three periods of its topic?"""
        return self.message is not None and now - self.message.t <= self.max_age_ns

    def wait(self, timeout_ms: int) -> bool:
        """Wait for the next message; True when there is one to take."""
        return bool(self.socket.poll(timeout_ms))

    def close(self) -> None:
        self.socket.close(0)


def inbox(sink: str, root: Path, *, context: Context | None = None) -> Reader:
    """The mail of a sink, from all processes. Raises UserError when its endpoint cannot be bound."""
    return Reader(bound(context, zmq.PULL, ipc(root, f"to-{sink}"), {zmq.RCVHWM: MAIL}))
