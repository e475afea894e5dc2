"""`rov drive`: an operator's session at a terminal. Sends heartbeat and sticks, shows the state of the vehicle.

One loop in one thread, so that the heartbeat vouches for all of it: when the page, the input devices or the machine
hang, the heartbeat stops. However the loop ends, the last command is a stop, provided that this session is still the
operator: one that was refused or displaced must not stop another operator's vehicle.
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
"""Sticks are sent at 20 Hz. At 10 Hz, two lost messages in a row would make them stale (300 ms)."""
BEAT_NS = 1_000_000_000
PAGE_NS = 200_000_000
"""The page is drawn at 5 Hz."""
LEAVE_MS = 200
"""On leaving, how long to wait for the answer that says whether this session is still the operator."""
NOT_OPERATOR = "take over first"
"""How a refusal ends when this session is not the operator."""
LINES = 8
"""Events on the page."""
PART_STALE_NS = 500_000_000
"""Attitude or depth older than this is shown as stale."""
STYLES = {"info": "", "warning": "yellow", "alarm": "bold red"}
HELP = (
    "w s surge · a d sway · ↑ ↓ heave · ← → yaw (shift: all of it) · x release · r arm · f disarm · 1 manual 2 hold"
    " 3 follow 4 policy 5 surface · t take over · q quit · [bold]space STOP[/]"
)


class OperatorSession:
    """The client's side of the command endpoint: sequence numbers, replies, and whether we are the operator."""

    def __init__(self, endpoints: Endpoints):
        self.endpoints = endpoints
        self.name = session_name(f"drive-{os.getpid()}")
        self.client = CommandClient(endpoints.commands, endpoints.keys)
        self.seq = 0
        self.is_operator = False
        self.notices: deque[Text] = deque(maxlen=LINES)
        self.asked: dict[int, str] = {}
        """Sequence number -> verb of the commands without an answer yet; sticks and heartbeats are not in it."""

    def send(self, kind: type[Command], **more: object) -> bool:
        """Send a command without waiting. False: it could not be sent now, and is dropped."""
        self.seq += 1
        if kind not in (Sticks, Heartbeat):
            self.asked[self.seq] = str(kind.__struct_config__.tag)
        return self.client.send(kind(t=time.monotonic_ns(), session=self.name, seq=self.seq, **more))  # type: ignore[arg-type]

    def take_over(self, displace: bool) -> None:
        """Become the operator. Raises UserError when that is refused, or no answer comes."""
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
        """Handle the replies that have arrived."""
        while True:
            try:
                reply = self.client.receive_reply()
            except Malformed:
                continue
            if reply is None:
                return
            self._handle(reply)

    def _handle(self, reply: Reply) -> None:
        what = self.asked.pop(reply.seq, "")
        if what == "take_over":
            self.is_operator = reply.accepted
        if not reply.accepted and reply.reason.endswith(NOT_OPERATOR) and self.is_operator:
            self.is_operator = False
            self.notices.append(Text(printable(f"{reply.reason}: press t"), "bold red"))
        elif what and not reply.accepted:
            self.notices.append(Text(printable(f"{what} refused: {reply.reason}"), "yellow"))

    def leave(self) -> None:
        """Stop the vehicle if this session is still its operator, and close. Sticks at rest are sent first: the reply
        says who the operator is; without a reply we assume that it is us. The stop is sent three times because nobody
        waits for its reply."""
        if self.is_operator:
            self.send(Sticks)
            self._settle(self.seq)
        if self.is_operator:
            for _ in range(3):
                self.send(Stop)
        self.client.close()

    def _settle(self, seq: int) -> None:
        """Handle replies until the one to `seq` has come, or LEAVE_MS are over."""
        end = time.monotonic() + LEAVE_MS / 1000
        while (left := end - time.monotonic()) > 0:
            try:
                reply = self.client.receive_reply(int(1000 * left))
            except Malformed:
                continue
            if reply is None:
                return
            self._handle(reply)
            if reply.seq == seq:
                return

    def perform(self, action: str) -> None:
        """Send the command for a key or a button."""
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


def drive(endpoints: Endpoints, *, displace: bool, gamepad: Path) -> int:
    """Drive until q, Ctrl-C, SIGTERM or a hang-up. Returns the exit code. Raises UserError when it cannot begin."""
    if not sys.stdin.isatty():
        raise UserError("rov drive needs a terminal to read the keys; `rov ctl` is for scripts")
    signals: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: signals.append(number))
    session = OperatorSession(endpoints)
    try:
        session.take_over(displace)
        with _raw_keys() as keys:
            _loop(session, keys, Gamepad(gamepad), signals)
    except OSError:
        if sys.stdin.isatty():
            raise
        signals.append(signal.SIGHUP)  # the terminal was closed while the page was being written
    finally:
        session.leave()
    return 128 + signals[0] if signals else 0


def _loop(session: OperatorSession, keys: int, gamepad: Gamepad, signals: list[int]) -> None:
    """Until a signal, q or the end of the terminal: read input, send, receive, draw."""
    keyboard, received = Keyboard(), TopicRates(same_clock=is_local(session.endpoints.public))
    reader = listen(session.endpoints.public, (), session.endpoints.keys)
    beat_t = page_t = 0
    with Live(console=PlainConsole(), auto_refresh=False, screen=True) as live:
        while not signals:
            typed = _read_keys(keys, PERIOD_S)
            if typed is None:
                return
            now = time.monotonic_ns()
            inputs = keyboard.read(typed, now), gamepad.read(now)
            if gamepad.notice:
                session.notices.append(Text(printable(gamepad.notice), "yellow"))
                gamepad.notice = ""
            actions = [action for each in inputs for action in each.actions]
            for action in sorted(actions, key=lambda each: each != "stop"):  # a stop comes first
                session.perform(action)
            if "quit" in actions:
                return
            axes = _merged(*inputs) if "stop" not in actions else STILL
            if session.is_operator:
                session.send(Sticks, **dict(zip(AXES, axes, strict=True)))
                if now - beat_t >= BEAT_NS:
                    beat_t = now
                    session.send(Heartbeat)
            session.receive()
            for entry in received.add(reader.receive(), now):
                if isinstance(entry.message, Event):
                    session.notices.append(Text(printable(entry.message.text), STYLES[entry.message.level]))
            if now - page_t >= PAGE_NS:
                page_t = now
                live.update(page(session, received, axes, now), refresh=True)


def _merged(keyboard: StickInput, gamepad: StickInput) -> tuple[float, float, float, float]:
    """For each axis the keyboard's value where a key is held, else the gamepad's."""
    a, b, c, d = (key or pad for key, pad in zip(keyboard.axes, gamepad.axes, strict=True))
    return a, b, c, d


@contextlib.contextmanager
def _raw_keys() -> Iterator[int]:
    """Standard input, set to deliver each key as it is typed; its settings are restored afterwards."""
    keys = sys.stdin.fileno()
    before = termios.tcgetattr(keys)
    tty.setcbreak(keys)  # Ctrl-C stays a signal
    settings = termios.tcgetattr(keys)
    settings[0] &= ~termios.IXON  # Ctrl-S must not hold the page, and with it the heartbeat
    termios.tcsetattr(keys, termios.TCSANOW, settings)
    try:
        yield keys
    finally:
        with contextlib.suppress(termios.error):  # the terminal is gone
            termios.tcsetattr(keys, termios.TCSANOW, before)


def _read_keys(keys: int, seconds: float) -> str | None:
    """What is typed within this time; a space (stop) ends the wait early. None: the terminal is gone."""
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


def page(session: OperatorSession, received: TopicRates, axes: tuple[float, ...], now: int) -> Group:
    """What the operator sees. A stale value is struck through, a value that never arrived is a dash."""
    rows = {row.topic: row for row in received.rows(now)}
    state, pilot = rows.get("vehicle"), rows.get("pilot")
    vehicle = state.last if state and isinstance(state.last, VehicleState) else None
    status = pilot.last if pilot and isinstance(pilot.last, PilotStatus) else None
    old, late = state is None or state.stale, pilot is None or pilot.stale

    def is_stale(t: int | None) -> bool:
        return old or vehicle is None or t is None or vehicle.t - t > PART_STALE_NS

    facts = Table.grid(padding=(0, 3))
    armed = "ARMED" if status and status.armed else "disarmed"
    facts.add_row(
        _shown("", armed if status else None, late, "bold red" if status and status.armed else "green"),
        _shown("mode", status.mode.value if status else None, late),
        _shown("target", status.target if status else None, late),
        _shown("operator", (("you" if session.is_operator else status.operator or "nobody") if status else None), late),
    )
    depth = f"{vehicle.depth:.2f} m" if vehicle and vehicle.depth_t is not None else None
    heading = f"{math.degrees(vehicle.yaw) % 360:.0f}°" if vehicle and vehicle.attitude_t is not None else None
    volts = f"{vehicle.battery_v:.1f} V" if vehicle and vehicle.battery_v is not None else None
    facts.add_row(
        _shown("depth", depth, is_stale(vehicle.depth_t if vehicle else None)),
        _shown("heading", heading, is_stale(vehicle.attitude_t if vehicle else None)),
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
    return Group(facts, refused, topics, *session.notices, Text.from_markup(HELP, style="dim"))


def _shown(name: str, value: str | None, stale: bool, style: str = "") -> Text:
    text = Text(f"{name} " if name else "", "dim")
    return text.append(value if value is not None else "-", "strike red" if stale and value is not None else style)
