"""`rov drive`: an operator's session at a terminal. Sends the heartbeat and the sticks, shows how the vehicle is.

One loop in one thread, so that the heartbeat proves all of it: a page that hangs, hands that hang or a machine that
hangs end it. Whatever ends the loop, the last thing sent is a stop, if we are the operator then: who was refused or
displaced stops nobody's vehicle by leaving.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import sys
import termios
import time
import tty
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from rov.bus import CommandClient, Malformed, is_local, listen
from rov.errors import UserError
from rov.messages import (
    Arm,
    Command,
    Disarm,
    Event,
    Heartbeat,
    Mode,
    PilotStatus,
    Reply,
    SetMode,
    Sticks,
    Stop,
    TakeOver,
    VehicleState,
)
from rov.operator.commands import ANSWER_MS, Endpoints, session_name
from rov.operator.rates import TopicRates
from rov.operator.sticks import AXES, STILL, Gamepad, Keyboard, StickInput
from rov.printing import printable
from rov.terminal import PlainConsole

PERIOD_S = 0.05
"""Sticks at 20 Hz: at 10 Hz two lost ones in a row would be stale."""
BEAT_NS = 1_000_000_000
PAGE_NS = 200_000_000
"""The page at 5 Hz."""
LEAVE_MS = 200
"""When leaving, so long we wait to hear whether we are still the operator."""
NOT_OURS = "take over first"
"""How a refusal ends when somebody else is the operator, or nobody."""
LINES = 8
"""Events on the page."""
STYLES = {"info": "", "warning": "yellow", "alarm": "bold red"}
HELP = (
    "w s surge · a d sway · ↑ ↓ heave · ← → yaw (shift: all of it) · x release · r arm · f disarm · 1 manual 2 hold"
    " 3 follow 4 policy 5 surface · t take over · q quit · [bold]space STOP[/]"
)


class OperatorSession:
    """Our side of the command endpoint: numbers, what was answered, and whether we are the operator."""

    def __init__(self, there: Endpoints):
        self.endpoints = there
        self.name = session_name(f"drive-{os.getpid()}")
        self.client = CommandClient(there.commands, there.keys)
        self.seq = 0
        self.is_operator = False
        self.notices: deque[Text] = deque(maxlen=LINES)
        self.asked: dict[int, str] = {}
        """What was asked under which number; sticks and heartbeats are not in it."""

    def send(self, kind: type[Command], **more: object) -> bool:
        """Say it, now or not at all."""
        self.seq += 1
        if kind not in (Sticks, Heartbeat):
            self.asked[self.seq] = str(kind.__struct_config__.tag)
        return self.client.send(kind(t=time.monotonic_ns(), session=self.name, seq=self.seq, **more))  # type: ignore[arg-type]

    def take_over(self, displace: bool) -> None:
        """Become the operator before anything else. Raises UserError when that is refused, or nobody answers."""
        self.seq += 1
        ask = TakeOver(t=time.monotonic_ns(), session=self.name, seq=self.seq, displace=displace)
        reply = self.client.receive_reply(ANSWER_MS) if self.client.send(ask, ANSWER_MS) else None
        if reply is None:
            where = self.endpoints.commands
            raise UserError(f"{where}: no answer; is `rov run` running there, and does it know these keys (--keys)?")
        if not reply.accepted:
            raise UserError(f"refused: {reply.reason}; `--take-over` does it")
        self.is_operator = True

    def receive(self) -> None:
        """Take the answers that have come."""
        while True:
            try:
                reply = self.client.receive_reply()
            except Malformed:
                continue
            if reply is None:
                return
            self._receive_replies(reply)

    def _receive_replies(self, reply: Reply) -> None:
        what = self.asked.pop(reply.seq, "")
        if what == "take_over":
            self.is_operator = reply.accepted
        if not reply.accepted and reply.reason.endswith(NOT_OURS) and self.is_operator:
            self.is_operator = False
            self.notices.append(Text(printable(f"{reply.reason}: press t"), "bold red"))
        elif what and not reply.accepted:
            self.notices.append(Text(printable(f"{what} refused: {reply.reason}"), "yellow"))

    def leave(self) -> None:
        """Stop the vehicle, if we are still its operator: that is asked first, with sticks at rest. Without an answer
        we may be. Said more than once, because nobody waits for the answer."""
        if self.is_operator:
            self.send(Sticks)
            self._settle(self.seq)
        if self.is_operator:
            for _ in range(3):
                self.send(Stop)
        self.client.close()

    def _settle(self, seq: int) -> None:
        """Take answers until this one has come, or it is late."""
        end = time.monotonic() + LEAVE_MS / 1000
        while (left := end - time.monotonic()) > 0:
            try:
                reply = self.client.receive_reply(int(1000 * left))
            except Malformed:
                continue
            if reply is None:
                return
            self._receive_replies(reply)
            if reply.seq == seq:
                return

    def perform(self, action: str) -> None:
        """What a key or a button asks for."""
        match action:
            case "stop":
                self.send(Stop)
            case "arm":
                self.send(Arm)
            case "disarm":
                self.send(Disarm)
            case "take_over":
                self.send(TakeOver, displace=True)
            case "manual" | "hold" | "follow" | "policy" | "surface":
                self.send(SetMode, mode=Mode(action))


def drive(there: Endpoints, *, displace: bool, gamepad: Path) -> int:
    """Drive until q, Ctrl-C, SIGTERM or a hang-up; returns the exit code. Raises UserError when it cannot begin."""
    if not sys.stdin.isatty():
        raise UserError("rov drive needs a terminal to hear the keys; `rov ctl` is for scripts")
    signals: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: signals.append(number))
    ours = OperatorSession(there)
    try:
        ours.take_over(displace)
        with _typing() as keys:
            _loop(ours, keys, Gamepad(gamepad), signals)
    except OSError:
        if sys.stdin.isatty():
            raise
        signals.append(signal.SIGHUP)  # the terminal went while the page was being written
    finally:
        ours.leave()
    return 128 + signals[0] if signals else 0


def _loop(ours: OperatorSession, keys: int, gamepad: Gamepad, signals: list[int]) -> None:
    keyboard, heard = Keyboard(), TopicRates(same_clock=is_local(ours.endpoints.public))
    reader = listen(ours.endpoints.public, (), ours.endpoints.keys)
    beat_t = page_t = 0
    with Live(console=PlainConsole(), auto_refresh=False, screen=True) as live:
        while not signals:
            typed = _typed(keys, PERIOD_S)
            if typed is None:
                return
            now = time.monotonic_ns()
            hands = keyboard.read(typed, now), gamepad.read(now)
            if gamepad.notice:
                ours.notices.append(Text(printable(gamepad.notice), "yellow"))
                gamepad.notice = ""
            actions = [action for hand in hands for action in hand.actions]
            for action in sorted(actions, key=lambda each: each != "stop"):  # a stop comes first
                ours.perform(action)
            if "quit" in actions:
                return
            axes = _together(*hands) if "stop" not in actions else STILL
            if ours.is_operator:
                ours.send(Sticks, **dict(zip(AXES, axes, strict=True)))
                if now - beat_t >= BEAT_NS:
                    beat_t = now
                    ours.send(Heartbeat)
            ours.receive()
            for entry in heard.add(reader.receive(), now):
                if isinstance(entry.message, Event):
                    ours.notices.append(Text(printable(entry.message.text), STYLES[entry.message.level]))
            if now - page_t >= PAGE_NS:
                page_t = now
                live.update(page(ours, heard, axes, now), refresh=True)


def _together(keyboard: StickInput, gamepad: StickInput) -> tuple[float, float, float, float]:
    """Axis by axis the keyboard's where a key is held, else the gamepad's."""
    a, b, c, d = (key or pad for key, pad in zip(keyboard.axes, gamepad.axes, strict=True))
    return a, b, c, d


@contextlib.contextmanager
def _typing() -> Iterator[int]:
    """Standard input, which sends each key as it is typed; as it was before, afterwards."""
    keys = sys.stdin.fileno()
    before = termios.tcgetattr(keys)
    tty.setcbreak(keys)  # Ctrl-C stays a signal
    quiet = termios.tcgetattr(keys)
    quiet[0] &= ~termios.IXON  # Ctrl-S must not hold the page, and with it the heartbeat
    termios.tcsetattr(keys, termios.TCSANOW, quiet)
    try:
        yield keys
    finally:
        with contextlib.suppress(termios.error):  # the terminal is gone
            termios.tcsetattr(keys, termios.TCSANOW, before)


def _typed(keys: int, seconds: float) -> str | None:
    """What is typed within this time, which is waited for in full; None when the terminal is gone."""
    text, end = b"", time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if not select.select([keys], [], [], left)[0]:
            break
        try:
            data = os.read(keys, 1024)
        except OSError:
            return None
        if not data:
            return None
        text += data
        if b" " in data:
            break  # a stop does not wait
    return text.decode(errors="replace")


# ---- the page --------------------------------------------------------------------------------------------------


def page(ours: OperatorSession, heard: TopicRates, axes: tuple[float, ...], now: int) -> Group:
    """What the operator sees. A value that is stale is struck through, one that was never heard is a dash."""
    rows = {row.topic: row for row in heard.rows(now)}
    state, pilot = rows.get("vehicle"), rows.get("pilot")
    vehicle = state.last if state and isinstance(state.last, VehicleState) else None
    status = pilot.last if pilot and isinstance(pilot.last, PilotStatus) else None
    old, late = state is None or state.stale, pilot is None or pilot.stale

    def part(t: int | None) -> bool:
        return old or vehicle is None or t is None or vehicle.t - t > 500_000_000

    facts = Table.grid(padding=(0, 3))
    armed = "ARMED" if status and status.armed else "disarmed"
    facts.add_row(
        _shown("", armed if status else None, late, "bold red" if status and status.armed else "green"),
        _shown("mode", status.mode.value if status else None, late),
        _shown("target", status.target if status else None, late),
        _shown("operator", (("you" if ours.is_operator else status.operator or "nobody") if status else None), late),
    )
    depth = f"{vehicle.depth:.2f} m" if vehicle and vehicle.depth_t is not None else None
    heading = f"{math.degrees(vehicle.yaw) % 360:.0f}°" if vehicle and vehicle.attitude_t is not None else None
    volts = f"{vehicle.battery_v:.1f} V" if vehicle and vehicle.battery_v is not None else None
    facts.add_row(
        _shown("depth", depth, part(vehicle.depth_t if vehicle else None)),
        _shown("heading", heading, part(vehicle.attitude_t if vehicle else None)),
        _shown("battery", volts, old),
        _shown("leak", "LEAK" if vehicle and vehicle.leak else ("no" if vehicle else None), old, "bold red"),
    )
    facts.add_row(*(_shown(name, f"{value:+.2f}", False) for name, value in zip(AXES, axes, strict=True)))
    topics = Table("topic", "Hz", "age", "last", box=None, header_style="dim")
    for row in rows.values():
        style = "red" if row.stale else ""
        age = "-" if row.age_ms is None else f"{row.age_ms:.0f} ms"
        topics.add_row(row.topic, f"{row.hz:.1f}", age, f"{row.silent_s:.1f} s ago", style=style)
    refused = Text(printable(f"refused: {status.refused}"), "yellow") if status and status.refused else Text("")
    return Group(facts, refused, topics, *ours.notices, Text.from_markup(HELP, style="dim"))


def _shown(name: str, value: str | None, stale: bool, style: str = "") -> Text:
    text = Text(f"{name} " if name else "", "dim")
    return text.append(value if value is not None else "-", "strike red" if stale and value is not None else style)
