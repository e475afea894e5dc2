"""A client's session with a daemon: one thread that owns its sockets, sends commands and heartbeats, and receives.

`Client` and `AsyncClient` are the two faces of it. Commands are stamped and numbered when they are sent. The heartbeat
is sent once a second while this session is the operator's and its program is in touch (`touch`): a program that hangs
must not look like an operator, so the heartbeat ends `patience_s` after its last sign of life.
"""

from __future__ import annotations

import contextlib
import getpass
import itertools
import os
import socket
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import msgspec
import zmq

from rov.bus.commands import CommandClient
from rov.bus.endpoints import Endpoints
from rov.bus.payload import Malformed, decode_command, encode
from rov.bus.reader import MAIL, Entry, listen
from rov.bus.sockets import Context, Socket
from rov.errors import UserError
from rov.messages import Command, Heartbeat, Reply, Sticks, Stop, TakeOver

ANSWER_S = 1.0
"""How long to wait for a connection and for the answer to a command."""
PATIENCE_S = 10.0
"""How long a program may be busy without using its client before the heartbeat ends."""
BEAT_NS, BEAT_AGAIN_NS = 1_000_000_000, 200_000_000
"""Pause after a heartbeat: usually, and while it has no answer. Strangers may kill the process that commands pass
through, however often; heartbeats lost with it must not add up to a lost operator."""
LEAVE_S = 0.2
"""On leaving, how long to wait for the answer that says whether this session is still the operator."""
POLL_MS, HASTE_MS = 100, 5
"""How often the thread looks at its clock: usually, and while a command waits for the connection."""
NOT_OPERATOR = "take over first"
"""How a refusal ends when this session is not the operator."""
STREAMED = (Sticks, Heartbeat)
"""Commands that are dropped, not queued, without a connection: the next one follows at once."""
HOUR_S = 3600
NO_FIELDS: Mapping[str, object] = MappingProxyType({})
_BELLS = itertools.count()


class Refused(UserError):
    """The daemon refused a command; the text says why."""


class NoAnswer(UserError):
    """The daemon did not answer."""


class Question(NamedTuple):
    """A command to send, still without its time and number, and where its answer goes."""

    command: Command
    reply: Future[Reply]
    until: int
    """Give up at this time, monotonic ns."""


class Inbox:
    """Messages for one reader, in order; the oldest are dropped when MAIL of them wait."""

    def __init__(self, topics: Iterable[str], notify: Callable[[], None]):
        """`notify` is called in the session's thread after each message."""
        self.topics, self.notify = frozenset(topics), notify
        self.entries: deque[Entry] = deque(maxlen=MAIL)
        self.dropped = 0

    def put(self, entry: Entry) -> None:
        if entry.topic in self.topics or not self.topics:
            self.dropped += len(self.entries) == MAIL
            self.entries.append(entry)
            self.notify()

    def take(self) -> list[Entry]:
        """The messages that wait."""
        return [self.entries.popleft() for _ in range(len(self.entries))]


class Session:
    """See the module. Any thread may call its methods."""

    def __init__(
        self,
        endpoints: Endpoints,
        name: str,
        topics: Iterable[str] | None = None,
        *,
        patience_s: float = PATIENCE_S,
        answer_s: float = ANSWER_S,
        context: Context | None = None,
    ):
        """`topics`: those to receive; None: all. Raises UserError for endpoints that cannot be connected to."""
        self.endpoints, self.name, self.patience_s, self.answer_s = endpoints, name, patience_s, answer_s
        self.seq = time.monotonic_ns()
        """Of the last command. It grows from one session of the same name to the next."""
        self.is_operator = False
        self.why_not = NOT_OPERATOR
        """The daemon's last word on why this session is not the operator."""
        self.touched_t = time.monotonic_ns()
        self.newest: dict[str, tuple[int, Entry]] = {}
        """By topic, the last message and when it arrived."""
        self.inboxes: weakref.WeakSet[Inbox] = weakref.WeakSet()
        self.lock = threading.Lock()
        """Guards `questions`, `inboxes` and the bell."""
        self.questions: deque[Question] = deque()
        self.asked: dict[int, Question] = {}
        self.beat_t = self.beat_answered_t = 0
        """When the last heartbeat was sent, or tried to be, and when one was last answered; monotonic ns."""
        self.closed = False
        self.commands = CommandClient(endpoints.commands, endpoints.keys, context=context)
        wanted = None if topics is None else tuple(topics)
        self.reader = listen(endpoints.public, wanted or (), endpoints.keys, context=context) if wanted != () else None
        self.bell, self.ringing = _bell(context or zmq.Context.instance())
        self.thread = threading.Thread(target=self._run, name="client", daemon=True)
        self.thread.start()

    def touch(self) -> None:
        """A sign of life of the program."""
        self.touched_t = time.monotonic_ns()

    def ask(
        self, kind: type[Command], fields: Mapping[str, object] = NO_FIELDS, wait_s: float | None = None
    ) -> Future[Reply]:
        """Send a command of this kind. The future gets its reply, or NoAnswer. `wait_s`: how long it may wait for a
        connection; by default `answer_s`, but no time for what is streamed. Raises TypeError for a field that the
        command does not have, UserError for a value that it cannot have."""
        self.touch()
        command = self._valid(kind(t=0, session=self.name, seq=0, **fields))
        if wait_s is None:
            wait_s = 0.0 if kind in STREAMED else self.answer_s
        question = Question(command, Future(), time.monotonic_ns() + int(wait_s * 1e9))
        question.reply.set_running_or_notify_cancel()  # nobody can cancel a command that may be on its way
        with self.lock:
            if self.closed:
                raise RuntimeError("this client is closed")
            self.questions.append(question)
            self._ring()
        return question.reply

    @staticmethod
    def _valid(command: Command) -> Command:
        """Raises UserError for what the daemon would not understand."""
        try:
            decode_command(encode(command))
        except Malformed as error:
            raise UserError(f"{type(command).__name__}: {error}") from None
        return command

    def inbox(self, topics: Iterable[str], notify: Callable[[], None]) -> Inbox:
        """Everything that arrives on these topics (none: all) from now on, for as long as the inbox is referenced."""
        self.touch()
        found = Inbox(topics, notify)
        with self.lock:
            self.inboxes.add(found)
        return found

    def leave(self) -> None:
        """Stop the vehicle if this session is still its operator, and close. Sticks at rest are sent first: the reply
        says who the operator is; without a reply we assume that it is us. The stop is sent three times, in case one
        is lost."""
        if self.is_operator and not self.closed:
            _settled(self.ask(Sticks, wait_s=LEAVE_S))
        if self.is_operator and not self.closed:
            _settled([self.ask(Stop, wait_s=LEAVE_S) for _ in range(3)][0])
        self.close()

    def close(self) -> None:
        """End the connection. Commands that have no answer by now get NoAnswer."""
        with self.lock:
            if not self.closed:
                self.closed = True
                self._ring()
        self.thread.join()

    def _ring(self) -> None:
        """Wake the thread; with the lock held."""
        with contextlib.suppress(zmq.Again):  # so many rings wait that it is awake
            self.bell.send(b"", zmq.NOBLOCK)

    # ---- the thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        poller = zmq.Poller()
        for each in (self.ringing, self.commands.socket, *([self.reader.socket] if self.reader else ())):
            poller.register(each, zmq.POLLIN)
        try:
            while not self.closed or self.questions:
                poller.poll(HASTE_MS if self.questions else self._idle_ms(time.monotonic_ns()))
                while _rang(self.ringing):
                    pass
                self._send(time.monotonic_ns())
                self._receive_replies()
                self._receive_messages()
                self._give_up(time.monotonic_ns())
        finally:
            self._end()

    def _idle_ms(self, now: int) -> int:
        """How long the thread may wait for something to happen: until the next heartbeat, at most POLL_MS."""
        due_ms = (self._beat_due() - now) // 1_000_000 + 1 if self.is_operator else POLL_MS
        return min(POLL_MS, due_ms) if due_ms > 0 else POLL_MS

    def _beat_due(self) -> int:
        """When the next heartbeat is due, monotonic ns."""
        return self.beat_t + (BEAT_NS if self.beat_answered_t >= self.beat_t else BEAT_AGAIN_NS)

    def _send(self, now: int) -> None:
        """Send the questions that wait, and the heartbeat when it is due."""
        while self.questions and self._sent(self.questions[0], now):
            self.questions.popleft()
        in_touch = now - self.touched_t <= self.patience_s * 1e9
        if self.is_operator and in_touch and now >= self._beat_due() and not self.closed:
            self.beat_t = now
            self._sent(Question(Heartbeat(t=0, session=self.name, seq=0), Future(), now), now)

    def _sent(self, question: Question, now: int) -> bool:
        """Send one; False when it must wait for a connection."""
        self.seq += 1
        command = msgspec.structs.replace(question.command, t=time.monotonic_ns(), seq=self.seq)
        if self.commands.send(command):  # type: ignore[arg-type]  # a member of the union, though not for mypy
            self.asked[self.seq] = question._replace(until=max(question.until, now + int(self.answer_s * 1e9)))
        elif now < question.until and not self.closed:
            return False
        else:
            question.reply.set_exception(NoAnswer(silence(self.endpoints)))
        return True

    def _receive_replies(self) -> None:
        while True:
            try:
                reply = self.commands.receive_reply()
            except Malformed:
                continue
            if reply is None:
                return
            if question := self.asked.pop(reply.seq, None):
                self._note(question.command, reply)
                question.reply.set_result(reply)

    def _note(self, command: Command, reply: Reply) -> None:
        """Learn from a reply whether this session is the operator's."""
        if isinstance(command, Heartbeat):
            self.beat_answered_t = time.monotonic_ns()
        if isinstance(command, TakeOver):  # it counts as a heartbeat
            self.is_operator, self.beat_t = reply.accepted, time.monotonic_ns()
            self.beat_answered_t = self.beat_t
        elif not reply.accepted and reply.reason.endswith(NOT_OPERATOR):
            self.is_operator = False
        if not self.is_operator:
            self.why_not = reply.reason or self.why_not

    def _receive_messages(self) -> None:
        if self.reader is None:
            return
        with self.lock:
            inboxes = list(self.inboxes)
        for entry in self.reader.receive():
            self.newest[entry.topic] = (time.monotonic_ns(), entry)
            for each in inboxes:
                each.put(entry)

    def _give_up(self, now: int) -> None:
        for seq in [seq for seq, question in self.asked.items() if now > question.until]:
            self.asked.pop(seq).reply.set_exception(NoAnswer(silence(self.endpoints)))

    def _end(self) -> None:
        with self.lock:
            self.closed = True  # nobody rings from now on
        for question in (*self.asked.values(), *self.questions):
            question.reply.set_exception(NoAnswer(f"{self.endpoints.commands}: this client was closed"))
        self.commands.close()
        if self.reader:
            self.reader.close()
        for each in (self.bell, self.ringing):
            each.close(0)


def session_name(what: str) -> str:
    """The name of a session. All of one user on this machine with the same `what` share it until it reboots."""
    user = str(os.getuid()) if hasattr(os, "getuid") else _login()
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")[:8]
    except OSError:  # not Linux: the hour of the boot
        boot = f"{round((time.time() - time.monotonic()) / HOUR_S):x}"
    return f"{what}-{socket.gethostname()[: 50 - len(what) - len(user)]}-{user}-{boot}"


def _login() -> str:
    """The user's name where users have no numbers (Windows)."""
    try:
        return "".join(each if each.isalnum() else "-" for each in getpass.getuser())[:16]
    except (ImportError, OSError):  # the environment does not tell it
        return "user"


def silence(endpoints: Endpoints) -> str:
    """The sentence for when no answer comes: ZeroMQ reports neither an absent peer nor a refused key."""
    return f"{endpoints.commands}: no answer; is `rov run` running there, and does it know these keys (--keys)?"


def _bell(context: Context) -> tuple[Socket, Socket]:
    """Two connected sockets: a message to the first one wakes the thread that polls the second."""
    inside, outside = context.socket(zmq.PULL), context.socket(zmq.PUSH)
    name = f"inproc://client-{next(_BELLS)}"  # closing frees a name only later: never the same one again
    inside.bind(name)
    outside.connect(name)
    return outside, inside


def _rang(ringing: Socket) -> bool:
    try:
        ringing.recv(zmq.NOBLOCK)
    except zmq.Again:
        return False
    return True


def _settled(reply: Future[Reply]) -> None:
    """Wait for a reply that need not come."""
    with contextlib.suppress(NoAnswer, FutureTimeout):
        reply.result(2 * LEAVE_S)
