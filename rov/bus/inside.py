"""Messages between the processes: the newest of each state, and bounded mail with every message to the sinks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Generic, TypeVar

import zmq

from rov.bus.payload import Malformed, decode, encode
from rov.bus.reader import MAIL, Reader
from rov.bus.sockets import Context, Socket, bound, connected, ipc
from rov.messages import FUTURE_NS, TOPICS, Message, topic_of

SINKS = ("recorder", "public", "supervisor")
"""Receivers of mail."""
SOME = {"supervisor": ("events", "health", "frame")}
"""Sinks that receive only these topics."""
LINGER_MS = 200
"""How long closing waits for mail to be sent: the reason why a process ended is worth 200 ms."""

M = TypeVar("M", bound=Message)


class Publisher:
    """Publishes the messages of one process: each on its state endpoint and as mail to the sinks."""

    def __init__(self, process: str, root: Path, *, sinks: Iterable[str] = SINKS, context: Context | None = None):
        """`root` is the directory of the endpoints, the same for all processes. Raises UserError when one cannot be
        bound."""
        self.dropped: Counter[str] = Counter()
        """Messages dropped because a sink's queue was full, by sink."""
        self.state: dict[str, Socket] = {}
        self.mail: dict[str, Socket] = {}
        for name, topic in TOPICS.items():
            if topic.kind == "state" and topic.publisher == process:
                options = {zmq.CONFLATE: 1}  # on this side, too: nothing piles up for a suspended reader
                self.state[name] = bound(context, zmq.PUB, ipc(root, name), options)
        for sink in sinks:
            options = {zmq.SNDHWM: MAIL, zmq.LINGER: LINGER_MS}
            self.mail[sink] = connected(context, zmq.PUSH, ipc(root, f"to-{sink}"), options)

    def publish(self, message: Message) -> None:
        """Publish a message. Never blocks. Raises ValueError for a state topic of another process."""
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
            socket.close()  # with the linger time set when it was made


class Subscriber(Generic[M]):
    """The newest message of a state topic, and whether it is recent enough to act on: `Subscriber(Frame, root)`."""

    def __init__(self, kind: type[M], root: Path, *, hz: float | None = None, context: Context | None = None):
        """`hz`: the actual rate, if the configuration changes that of the table of topics."""
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
        """Receive the newest message; True when there is a new one. `now` in monotonic ns."""
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
        """Is there a message no older than three periods of its topic?"""
        return self.message is not None and now - self.message.t <= self.max_age_ns

    def wait(self, timeout_ms: int) -> bool:
        """Wait for the next message; True when there is one to receive."""
        return bool(self.socket.poll(timeout_ms))

    def close(self) -> None:
        self.socket.close(0)


def inbox(sink: str, root: Path, *, context: Context | None = None) -> Reader:
    """Reads the mail of a sink, from all processes. Raises UserError when its endpoint cannot be bound."""
    return Reader(bound(context, zmq.PULL, ipc(root, f"to-{sink}"), {zmq.RCVHWM: MAIL}))
