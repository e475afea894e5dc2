"""`AsyncClient`: as `Client`, for programs on asyncio.

    async with AsyncClient("192.168.2.2", keys="keys/ann") as rover:
        await rover.take_over()
        await rover.arm()
        async for event in rover.messages(Event):
            print(event.text)

The heartbeat vouches for the event loop: while it is blocked for longer than `patience_s`, none is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable
from types import TracebackType
from typing import Generic

from rov.bus.client import (
    ARMING_S,
    FRESH_S,
    LATE_S,
    SLICE_S,
    STICKS_S,
    M,
    armed_or_refused,
    axes_of,
    connect,
    mode_of,
    must_be_accepted,
    must_be_armed,
    must_be_operator,
    newest,
    not_in_time,
    topic_for,
)
from rov.bus.endpoints import Endpoints
from rov.bus.session import ANSWER_S, PATIENCE_S, Session
from rov.messages import (
    FROM_FRAMES,
    Arm,
    Command,
    Disarm,
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


class AsyncClient:
    """A connection to one daemon, with the methods of `Client` to await. Use it in `async with`, in one event loop."""

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
        """As `Client`. Raises UserError for an impossible address."""
        self.session = connect(address, keys, session, topics, patience_s, answer_s)
        self.vouching: asyncio.Task[None] | None = None

    async def __aenter__(self) -> AsyncClient:
        self.vouching = asyncio.create_task(self._vouch())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if self.vouching:
            self.vouching.cancel()
        await asyncio.shield(asyncio.to_thread(self.session.leave))

    async def close(self) -> None:
        """End the connection and the heartbeat, without a stop: the daemon acts as for a lost operator."""
        await asyncio.to_thread(self.session.close)

    @property
    def is_operator(self) -> bool:
        """Whether this client took over, and has not been refused as the operator since."""
        return self.session.is_operator

    async def take_over(self, *, displace: bool = False) -> None:
        """Become the operator; `displace`: even if another one is present."""
        await self._do(TakeOver, displace=displace)

    async def arm(self, timeout_s: float = ARMING_S) -> None:
        """Arm, and wait until the vehicle is armed. Raises Refused with what is missing, TimeoutError."""
        began = await self._do(Arm)
        must_be_armed(await self.wait_for(PilotStatus, lambda each: armed_or_refused(each, began), timeout_s))

    async def disarm(self) -> None:
        """Go to neutral; no thrust until armed again."""
        await self._do(Disarm)

    async def stop(self) -> None:
        """Stop and disarm at once; anybody may."""
        await self._do(Stop)

    async def mode(self, mode: str | Mode) -> None:
        """Change the mode: manual, hold, follow, policy or surface. Where the setpoint that it needs is late, it is
        asked for again with the next."""
        chosen = mode_of(mode)
        reply = await self.ask(SetMode, mode=chosen)
        refused = not reply.accepted and chosen in FROM_FRAMES
        if refused and await anext(self.messages(Setpoint, seconds=LATE_S), None) is not None:
            reply = await self.ask(SetMode, mode=chosen)
        must_be_accepted(reply)

    async def target(self, label: str, size: float | None = None) -> None:
        """What `follow` follows: a class of the detector, and the apparent height to keep (fraction of the picture)."""
        await self._do(SetTarget, label=label, size=size)

    async def task(
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
        await self._do(SetTask, task=task, label=label, **goal, target_height=target_height)

    async def sticks(
        self, surge: float = 0.0, sway: float = 0.0, heave: float = 0.0, yaw: float = 0.0, *, seconds: float = 0.0
    ) -> None:
        """Move the sticks, −1..1, for 0.3 s or for `seconds`. Raises Refused when this client is not the operator."""
        axes = axes_of(surge, sway, heave, yaw)
        end = time.monotonic() + seconds
        self._send_sticks(axes)
        while (left := end - time.monotonic()) > 0:
            await asyncio.sleep(min(STICKS_S, left))
            self._send_sticks(axes if time.monotonic() < end else {})

    async def ask(self, kind: type[Command], **fields: object) -> Reply:
        """Send any command. Returns the reply, also when it was refused. Raises NoAnswer."""
        return await asyncio.wrap_future(self.session.ask(kind, fields))

    async def _do(self, kind: type[Command], **fields: object) -> Reply:
        return must_be_accepted(await self.ask(kind, **fields))

    def _send_sticks(self, axes: dict[str, float]) -> None:
        must_be_operator(self.session)
        self.session.ask(Sticks, axes)

    def latest(self, kind: type[M], max_age_s: float = FRESH_S) -> M | None:
        """The last message of this kind; None when none has arrived within `max_age_s`. Stale means unknown."""
        return newest(self.session, kind, max_age_s)

    def messages(self, kind: type[M], *, seconds: float = math.inf) -> AsyncMessages[M]:
        """The messages of this kind that arrive from now on, for `seconds`: `async for seen in rover.messages(Tracks)`.
        When the program is slower, the last 1000 wait and older ones are dropped."""
        return AsyncMessages(self.session, kind, seconds)

    async def wait_for(self, kind: type[M], test: Callable[[M], bool] = lambda _: True, timeout_s: float = 10.0) -> M:
        """The latest message of this kind if it passes the test, else the next that does. Raises TimeoutError."""
        arriving = self.messages(kind, seconds=timeout_s)
        now = self.latest(kind)
        if now is not None and test(now):
            return now
        async for message in arriving:
            if test(message):
                return message
        raise TimeoutError(not_in_time(kind, timeout_s))

    async def _vouch(self) -> None:
        """Signs of life of the event loop, until cancelled."""
        while True:
            self.session.touch()
            await asyncio.sleep(SLICE_S)


class AsyncMessages(Generic[M]):
    """An asynchronous iterator over arriving messages of one kind."""

    def __init__(self, session: Session, kind: type[M], seconds: float):
        self.session, self.kind = session, kind
        self.end = time.monotonic() + seconds
        self.arrived = asyncio.Event()
        loop = asyncio.get_running_loop()
        self.inbox = session.inbox((topic_for(kind),), lambda: _wake(loop, self.arrived))

    def __aiter__(self) -> AsyncIterator[M]:
        return self

    async def __anext__(self) -> M:
        """The next message; waits for it. The iteration ends after `seconds`, and when the client is closed."""
        while True:
            self.arrived.clear()
            while self.inbox.entries:
                message = self.inbox.entries.popleft().message
                if isinstance(message, self.kind):
                    return message
            if (left := self.end - time.monotonic()) <= 0 or self.session.closed:
                raise StopAsyncIteration
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.arrived.wait(), min(left, SLICE_S))

    @property
    def dropped(self) -> int:
        """Messages lost because this program was too slow."""
        return self.inbox.dropped


def _wake(loop: asyncio.AbstractEventLoop, arrived: asyncio.Event) -> None:
    """Set the event, from the session's thread; the loop may have ended meanwhile."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(arrived.set)
