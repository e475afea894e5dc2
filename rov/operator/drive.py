"""`rov drive`: an operator's session at a terminal. Sends heartbeat and sticks, shows the state of the vehicle.

One loop in one thread, and the heartbeat vouches for it: when the page, the input devices or the machine hang, the
heartbeat stops. However the loop ends, the last command is a stop, provided that this session is still the operator:
one that was refused or displaced must not stop another operator's vehicle.
"""

from __future__ import annotations

import math
import os
import signal
import sys
import time
from collections import deque
from concurrent.futures import Future
from pathlib import Path

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from rov.bus import Endpoints, is_local
from rov.bus.client import Client
from rov.bus.session import Refused, session_name
from rov.errors import UserError
from rov.messages import (
    Arm,
    Command,
    Disarm,
    Event,
    Mode,
    PilotStatus,
    Reply,
    SetMode,
    Sticks,
    Stop,
    TakeOver,
    VehicleState,
)
from rov.operator.keys import Keys, open_keys
from rov.operator.rates import TopicRates
from rov.operator.sticks import AXES, STILL, Gamepad, Keyboard, StickInput
from rov.printing import printable
from rov.terminal import PlainConsole

PERIOD_S = 0.05
"""Sticks are sent at 20 Hz. At 10 Hz, two lost messages in a row would make them stale (300 ms)."""
PATIENCE_S = 0.5
"""The heartbeat ends when the loop has hung for this long."""
PAGE_NS = 200_000_000
"""The page is drawn at 5 Hz."""
HANG_UP = getattr(signal, "SIGHUP", 1)
"""Windows has no such signal."""
ENDINGS = {signal.SIGINT, signal.SIGTERM} | ({signal.SIGHUP} if hasattr(signal, "SIGHUP") else set())
LINES = 8
"""Events on the page."""
PART_STALE_NS = 500_000_000
"""Attitude or depth older than this is shown as stale."""
STYLES = {"info": "", "warning": "yellow", "alarm": "bold red"}
HELP = (
    "w s surge · a d sway · ↑ ↓ heave · ← → yaw (shift: all of it) · x release · r arm · f disarm · 1 manual 2 hold"
    " 3 follow 4 policy 5 surface · t take over · q quit · [bold]space STOP[/]"
)


class Helm:
    """The operator's commands: sends them without waiting, and notes what was refused."""

    def __init__(self, client: Client):
        self.client = client
        self.notices: deque[Text] = deque(maxlen=LINES)
        self.asked: list[tuple[str, Future[Reply]]] = []
        """Verbs of the commands without an answer yet; sticks are not in it."""
        self.was_operator = False

    def send(self, kind: type[Command], **fields: object) -> None:
        """Send a command without waiting; one that cannot be sent soon is dropped."""
        reply = self.client.session.ask(kind, fields)
        if kind is not Sticks:
            self.asked.append((str(kind.__struct_config__.tag), reply))

    def receive(self) -> None:
        """Note the replies that have arrived, and the loss of the operator's role."""
        for what, reply in [each for each in self.asked if each[1].done()]:
            self.asked.remove((what, reply))
            if reply.exception() is None and not reply.result().accepted:
                self.notices.append(Text(printable(f"{what} refused: {reply.result().reason}"), "yellow"))
        if self.was_operator and not self.client.is_operator:
            self.notices.append(Text(printable(f"{self.client.session.why_not}: press t"), "bold red"))
        self.was_operator = self.client.is_operator

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
    for number in ENDINGS:
        signal.signal(number, lambda number, _: signals.append(number))
    name = session_name(f"drive-{os.getpid()}")
    with Client(endpoints, session=name, patience_s=PATIENCE_S) as client:  # leaving stops
        try:
            client.take_over(displace=displace)
        except Refused as refused:
            raise Refused(f"{refused}; `--take-over` does it") from None
        try:
            with open_keys() as keys:
                _loop(Helm(client), keys, Gamepad(gamepad), signals)
        except OSError:
            if sys.stdin.isatty():
                raise
            signals.append(HANG_UP)  # the terminal was closed while the page was being written
    return 128 + signals[0] if signals else 0


def _loop(helm: Helm, keys: Keys, gamepad: Gamepad, signals: list[int]) -> None:
    """Until a signal, q or the end of the terminal: read input, send, receive, draw."""
    client = helm.client
    keyboard, received = Keyboard(), TopicRates(same_clock=is_local(client.session.endpoints.public))
    inbox = client.session.inbox((), lambda: None)
    page_t = 0
    with Live(console=PlainConsole(), auto_refresh=False, screen=True) as live:
        while not signals:
            typed = keys.read(PERIOD_S)
            if typed is None:
                return
            now = time.monotonic_ns()
            inputs = keyboard.read(typed, now), gamepad.read(now)
            if gamepad.notice:
                helm.notices.append(Text(printable(gamepad.notice), "yellow"))
                gamepad.notice = ""
            actions = [action for each in inputs for action in each.actions]
            for action in sorted(actions, key=lambda each: each != "stop"):  # a stop comes first
                helm.perform(action)
            if "quit" in actions:
                return
            axes = _merged(*inputs) if "stop" not in actions else STILL
            if client.is_operator:
                helm.send(Sticks, **dict(zip(AXES, axes, strict=True)))
            client.session.touch()  # the heartbeat vouches for this loop
            helm.receive()
            for entry in received.add(inbox.take(), now):
                if isinstance(event := entry.message, Event):
                    helm.notices.append(Text(printable(f"{event.code}: {event.text}"), STYLES[event.level]))
            if now - page_t >= PAGE_NS:
                page_t = now
                live.update(page(helm, received, axes, now), refresh=True)


def _merged(keyboard: StickInput, gamepad: StickInput) -> tuple[float, float, float, float]:
    """For each axis the keyboard's value where a key is held, else the gamepad's."""
    a, b, c, d = (key or pad for key, pad in zip(keyboard.axes, gamepad.axes, strict=True))
    return a, b, c, d


# ---- the page --------------------------------------------------------------------------------------------------


def page(helm: Helm, received: TopicRates, axes: tuple[float, ...], now: int) -> Group:
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
        _shown(*_aim(status), late),
        _shown(
            "operator", (("you" if helm.client.is_operator else status.operator or "nobody") if status else None), late
        ),
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
    return Group(facts, refused, topics, *helm.notices, Text.from_markup(HELP, style="dim"))


def _aim(status: PilotStatus | None) -> tuple[str, str | None]:
    """What steers, as a name and a value: the policy's task, or what the servo follows."""
    if status is None:
        return "target", None
    return ("target", status.target) if status.task == "none" else ("task", status.task)


def _shown(name: str, value: str | None, stale: bool, style: str = "") -> Text:
    text = Text(f"{name} " if name else "", "dim")
    return text.append(value if value is not None else "-", "strike red" if stale and value is not None else style)
