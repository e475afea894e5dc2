"""`Client`: a program's way to command a vehicle and to receive what it publishes, from threads.

    with Client("192.168.2.2", keys="keys/ann") as rover:   # without arguments: the daemon on this machine
        rover.take_over()
        rover.mode("hold")
        rover.arm()
        rover.sticks(yaw=0.3, seconds=5)

Leaving the block stops the vehicle, provided that this client is still its operator. `AsyncClient` is the same for
asyncio. A command that `Client` has no method for is sent with `ask`.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path
from types import TracebackType
from typing import Generic, TypeVar

from rov.bus.endpoints import Endpoints
from rov.bus.reader import Entry
from rov.bus.session import ANSWER_S, PATIENCE_S, NoAnswer, Refused, Session, session_name, silence
from rov.errors import UserError
from rov.messages import (
    FROM_FRAMES,
    TOPICS,
    Arm,
    Command,
    Disarm,
    Message,
    Mode,
    PilotStatus,
    Reply,
    SetMode,
    Setpoint,
    SetTarget,
    SetTask,
    Sticks,
    Stop,
    TakeOver,
    Task,
)

M = TypeVar("M", bound=Message)

ARMING_S = 10.0
"""An arming that has neither succeeded nor failed by then is given up: the link tests the board, or the autopilot."""
STICKS_S = 0.05
"""Sticks are sent at 20 Hz. At 10 Hz, two lost messages in a row would make them stale (300 ms)."""
FRESH_S = 1.0
"""A message that arrived longer ago is not returned as the latest."""
LATE_S = 1.0
"""So long the next setpoint is waited for, by a mode that was refused because a picture was late."""
SLICE_S = 0.5
"""Longest wait before the program's next sign of life."""


class Client:
    """A connection to one daemon. Any thread may call its methods.

    Each method sends one command and raises `Refused` with the daemon's reason, or `NoAnswer`. The first command must
    be `take_over`, which makes this client the operator; `stop` needs no operator. The heartbeat is sent by itself,
    until the program has not used its client for `patience_s`: use `sleep` of the client for long pauses.
    """

    def __init__(
        self,
        address: str | Endpoints = "",
        *,
        keys: str | os.PathLike[str] | None = None,
        session: str = "",
        topics: Iterable[str] | None = None,
        patience_s: float = PATIENCE_S,
        answer_s: float = ANSWER_S,
    ):
        """`address`: the vehicle's host name or address (empty: this machine), with the default ports; or Endpoints.
        `keys`: the folder that `rov keys NAME` made for this client. `session`: the name shown as the operator's.
        `topics`: those to receive (None: all; an empty list: none). Raises UserError for an impossible address."""
        self.session = connect(address, keys, session, topics, patience_s, answer_s)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.session.leave()

    def close(self) -> None:
        """End the connection and the heartbeat, without a stop: the daemon acts as for a lost operator."""
        self.session.close()

    @property
    def is_operator(self) -> bool:
        """Whether this client took over, and has not been refused as the operator since."""
        return self.session.is_operator

    # ---- commands ----------------------------------------------------------------------------------------------

    def take_over(self, *, displace: bool = False) -> None:
        """Become the operator; `displace`: even if another one is present."""
        self._do(TakeOver, displace=displace)

    def arm(self, timeout_s: float = ARMING_S) -> None:
        """Arm, and wait until the vehicle is armed. The link is tested first, which takes about a second. Raises
        Refused with what is missing, TimeoutError when it is not armed in time."""
        began = self._do(Arm)
        status = self.wait_for(PilotStatus, lambda each: armed_or_refused(each, began), timeout_s)
        must_be_armed(status)

    def disarm(self) -> None:
        """Go to neutral; no thrust until armed again."""
        self._do(Disarm)

    def stop(self) -> None:
        """Stop and disarm at once; anybody may."""
        self._do(Stop)

    def mode(self, mode: str | Mode) -> None:
        """Change the mode: manual, hold, follow, policy or surface. Where the setpoint that it needs is late, it is
        asked for again with the next."""
        chosen = mode_of(mode)
        reply = self.ask(SetMode, mode=chosen)
        if not reply.accepted and chosen in FROM_FRAMES and next(self.messages(Setpoint, seconds=LATE_S), None):
            reply = self.ask(SetMode, mode=chosen)
        must_be_accepted(reply)

    def target(self, label: str, size: float | None = None) -> None:
        """What `follow` follows: a class of the detector, and the apparent height to keep, as a fraction of the
        picture's height (None: as before)."""
        self._do(SetTarget, label=label, size=size)

    def task(
        self,
        task: Task,
        label: str | None = None,
        *,
        heading: float | None = None,
        depth: float | None = None,
        distance: float | None = None,
        height: float | None = None,
        target_height: float | None = None,
    ) -> None:
        """What the policy is asked to do, in shadow until `mode("policy")`: `transit` to a heading (rad) at a depth
        (m), `follow` a class, `target_height` m high, at a distance, `inspect` along a heading at a height over a
        pipeline, `station` or `none`."""
        goal = {"heading": heading, "depth": depth, "distance": distance, "height": height}
        self._do(SetTask, task=task, label=label, **goal, target_height=target_height)

    def sticks(
        self, surge: float = 0.0, sway: float = 0.0, heave: float = 0.0, yaw: float = 0.0, *, seconds: float = 0.0
    ) -> None:
        """Move the sticks, −1..1: forward, to starboard, down, clockwise. They count for 0.3 s, so that a program that
        hangs moves nothing: call it at 20 Hz, or give `seconds`, after which they are released. Raises Refused when
        this client is not the operator."""
        axes = axes_of(surge, sway, heave, yaw)
        end = time.monotonic() + seconds
        self._send_sticks(axes)
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(STICKS_S, left))
            self._send_sticks(axes if time.monotonic() < end else {})

    def ask(self, kind: type[Command], **fields: object) -> Reply:
        """Send any command: `rover.ask(SetMode, mode=Mode.HOLD)`. Returns the reply, also when it was refused. Raises
        NoAnswer."""
        return self._answer(self.session.ask(kind, fields))

    def _do(self, kind: type[Command], **fields: object) -> Reply:
        return must_be_accepted(self.ask(kind, **fields))

    def _answer(self, reply: Future[Reply]) -> Reply:
        try:
            return reply.result(2 * self.session.answer_s + SLICE_S)
        except FutureTimeout:
            raise NoAnswer(silence(self.session.endpoints)) from None

    def _send_sticks(self, axes: dict[str, float]) -> None:
        must_be_operator(self.session)
        self.session.ask(Sticks, axes)

    # ---- messages ----------------------------------------------------------------------------------------------

    def latest(self, kind: type[M], max_age_s: float = FRESH_S) -> M | None:
        """The last message of this kind; None when none has arrived within `max_age_s`. Stale means unknown."""
        return newest(self.session, kind, max_age_s)

    def messages(self, kind: type[M], *, seconds: float = math.inf) -> Messages[M]:
        """The messages of this kind that arrive from now on, for `seconds`: `for event in rover.messages(Event)`. When
        the program is slower, the last 1000 wait and older ones are dropped."""
        return Messages(self.session, kind, seconds)

    def wait_for(self, kind: type[M], test: Callable[[M], bool] = lambda _: True, timeout_s: float = 10.0) -> M:
        """The latest message of this kind if it passes the test, else the next that does. Raises TimeoutError."""
        arriving = self.messages(kind, seconds=timeout_s)
        now = self.latest(kind)
        if now is not None and test(now):
            return now
        for message in arriving:
            if test(message):
                return message
        raise TimeoutError(not_in_time(kind, timeout_s))

    def sleep(self, seconds: float) -> None:
        """Wait, as an operator who watches: the heartbeat goes on."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.session.touch()
            time.sleep(min(left, SLICE_S))
        self.session.touch()


class Messages(Generic[M]):
    """An iterator over arriving messages of one kind."""

    def __init__(self, session: Session, kind: type[M], seconds: float):
        self.session, self.kind = session, kind
        self.end = time.monotonic() + seconds
        self.arrived = threading.Event()
        self.inbox = session.inbox((topic_for(kind),), self.arrived.set)

    def __iter__(self) -> Iterator[M]:
        return self

    def __next__(self) -> M:
        """The next message; waits for it. The iteration ends after `seconds`, and when the client is closed."""
        while True:
            self.session.touch()
            while self.inbox.entries:
                message = self.inbox.entries.popleft().message
                if isinstance(message, self.kind):
                    return message
            if (left := self.end - time.monotonic()) <= 0 or self.session.closed:
                raise StopIteration
            self.arrived.wait(min(left, SLICE_S))
            self.arrived.clear()

    @property
    def dropped(self) -> int:
        """Messages lost because this program was too slow."""
        return self.inbox.dropped


# ---- shared with AsyncClient -----------------------------------------------------------------------------------


def connect(
    address: str | Endpoints,
    keys: str | os.PathLike[str] | None,
    session: str,
    topics: Iterable[str] | None,
    patience_s: float,
    answer_s: float,
) -> Session:
    """The session for the arguments of a client. Raises UserError."""
    folder = Path(keys) if keys is not None else None
    endpoints = address.at("", folder) if isinstance(address, Endpoints) else Endpoints().at(address, folder)
    name = session or session_name(f"client-{os.getpid()}")
    chosen = None if topics is None else [must_be_topic(each) for each in topics]
    return Session(endpoints, name, chosen, patience_s=patience_s, answer_s=answer_s)


def topic_for(kind: type[Message]) -> str:
    """The topic that carries messages of this kind. Raises UserError."""
    for name, topic in TOPICS.items():
        if issubclass(kind, topic.type):
            return name
    raise UserError(f"{kind.__name__}: no topic carries such messages; there are {', '.join(TOPICS)}")


def must_be_topic(name: str) -> str:
    if name not in TOPICS:
        raise UserError(f"{name}: no such topic; there are {', '.join(TOPICS)}")
    return name


def newest(session: Session, kind: type[M], max_age_s: float) -> M | None:
    """The last message of this kind that arrived within `max_age_s`; None: there is none."""
    session.touch()
    found: tuple[int, Entry] | None = session.newest.get(topic_for(kind))
    if found is None or time.monotonic_ns() - found[0] > max_age_s * 1e9:
        return None
    return found[1].message if isinstance(found[1].message, kind) else None


def mode_of(mode: str | Mode) -> Mode:
    """Raises UserError for an unknown one."""
    try:
        return Mode(mode)
    except ValueError:
        raise UserError(
            f"{mode or 'nothing'}: no such mode; there are {', '.join(each.value for each in Mode)}"
        ) from None


def axes_of(surge: float, sway: float, heave: float, yaw: float) -> dict[str, float]:
    """The sticks' fields. Raises UserError for one outside −1..1."""
    axes = {"surge": surge, "sway": sway, "heave": heave, "yaw": yaw}
    for name, value in axes.items():
        if not -1 <= value <= 1:
            raise UserError(f"{name} = {value:g}: sticks go from -1 to 1")
    return axes


def must_be_accepted(reply: Reply) -> Reply:
    """Raises Refused."""
    if not reply.accepted:
        raise Refused(f"refused: {reply.reason}")
    return reply


def must_be_operator(session: Session) -> None:
    """Raises Refused."""
    if not session.is_operator:
        raise Refused(f"refused: {session.why_not}")


def armed_or_refused(status: PilotStatus, began: Reply) -> bool:
    """Whether an arming that was accepted with this reply is over. Both times are the pilot's."""
    return status.t > began.t and (status.armed or bool(status.refused))


def must_be_armed(status: PilotStatus) -> None:
    if not status.armed:
        raise Refused(f"refused: {status.refused}")


def not_in_time(kind: type[Message], seconds: float) -> str:
    return f"no such {kind.__name__} within {seconds:g} s"
