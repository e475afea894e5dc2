"""Stick input: a keyboard through the terminal, and a gamepad through the kernel's joystick interface.

Both return axes −1..1 (surge sway heave yaw) and the names of actions. A terminal reports no key releases, so a key
counts as held for a while after its last repeat. An unplugged gamepad has its sticks in the middle.
"""

from __future__ import annotations

import contextlib
import os
import re
import struct
from pathlib import Path
from typing import NamedTuple

HELD_NS = 500_000_000
"""A key counts as released this long after its last repeat: terminals begin to repeat after 250 to 660 ms."""
AXES = ("surge", "sway", "heave", "yaw")
MOVES = {"w": (0, 1), "s": (0, -1), "d": (1, 1), "a": (1, -1), "down": (2, 1), "up": (2, -1)} | {
    "right": (3, 1),
    "left": (3, -1),
}
"""Key: axis and direction."""
ACTIONS = {" ": "stop", "q": "quit", "r": "arm", "f": "disarm", "t": "take_over", "x": "release"} | {
    "1": "manual",
    "2": "hold",
    "3": "follow",
    "4": "policy",
    "5": "surface",
}
ARROWS = {"A": "up", "B": "down", "C": "right", "D": "left"}
EFFORT = 0.5
"""Axis value of a key; with shift it is 1."""

EVENT = struct.Struct("=IhBB")
"""js_event of linux/joystick.h: time in ms, value, type, number."""
BUTTON, AXIS, INITIAL = 0x01, 0x02, 0x80
STICKS = {4: (0, -1), 3: (1, 1), 1: (2, 1), 0: (3, 1)}
"""Axis of the pad (xpad's numbering): axis of the vehicle and direction. Left stick heave and yaw, right one surge and
sway, as QGroundControl has them."""
BUTTONS = {1: "stop", 7: "arm", 6: "disarm", 2: "manual", 0: "hold", 3: "follow"}
"""B, start, back, X, A, Y."""
DEAD_ZONE = 0.1
"""Worn sticks rest up to this far from the middle."""
REOPEN_NS = 1_000_000_000


class StickInput(NamedTuple):
    """The sticks now, and the actions asked for since the last call."""

    axes: tuple[float, float, float, float]
    actions: tuple[str, ...] = ()


STILL = (0.0, 0.0, 0.0, 0.0)


class Keyboard:
    """Keys from a terminal that delivers them as they are typed."""

    def __init__(self) -> None:
        self.pressed: dict[str, tuple[int, float]] = {}
        """Key -> when it was last received (ns), and its axis value."""
        self.rest = ""
        """The beginning of an escape sequence: half an arrow must not be taken for a letter."""

    def read(self, typed: str, now: int) -> StickInput:
        """The sticks at `now` (ns), after these characters and those before them."""
        actions = []
        typed = self.rest + typed
        self.rest = typed[cut:] if (cut := _unfinished(typed)) >= 0 else ""
        for key in re.findall(r"\x1b[\[O](?:1;2)?[A-D]|[^\x1b]", typed[: cut if cut >= 0 else None]):
            name = ARROWS.get(key[-1], key) if key[0] == "\x1b" else key
            shifted = name.isupper() or "1;2" in key
            name = name.lower() if len(name) == 1 else name
            if name in MOVES:
                axis, direction = MOVES[name]
                self.pressed = {each: held for each, held in self.pressed.items() if MOVES[each] != (axis, -direction)}
                self.pressed[name] = (now, 1.0 if shifted else EFFORT)
            elif name in ACTIONS:
                actions.append(ACTIONS[name])
        if {"stop", "release", "quit"} & set(actions):
            self.pressed.clear()
        self.pressed = {each: held for each, held in self.pressed.items() if now - held[0] <= HELD_NS}
        axes = [0.0] * 4
        for each, (_, effort) in self.pressed.items():
            axis, direction = MOVES[each]
            axes[axis] = direction * effort
        return StickInput((axes[0], axes[1], axes[2], axes[3]), tuple(actions))


def _unfinished(typed: str) -> int:
    """Index where an unfinished escape sequence begins; -1 without one."""
    match = re.search(r"\x1b(?:[\[O](?:1(?:;2?)?)?)?$", typed)
    return match.start() if match else -1


class Gamepad:
    """A joystick device such as /dev/input/js0, which may come and go."""

    def __init__(self, path: Path):
        self.path = path
        self.fd: int | None = None
        self.tried_t: int | None = None
        self.rest = b""
        self.axes = [0.0] * 4
        self.notice = ""
        """To be shown once: the device has come, or is gone. The reader empties it."""

    def read(self, now: int) -> StickInput:
        """The sticks and the new actions at `now` (ns). Tries to open a missing device once a second."""
        if self.fd is None and (self.tried_t is None or now - self.tried_t >= REOPEN_NS):
            self.tried_t = now
            with contextlib.suppress(OSError):
                self.fd = os.open(self.path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
                self.notice = f"gamepad {self.path} is there"
        actions: list[str] = []
        while self.fd is not None:
            try:
                data = os.read(self.fd, 64 * EVENT.size)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            if not data:
                self.close(f"gamepad {self.path} is gone: its sticks are released")
                break
            actions += self._parse(self.rest + data)
        surge, sway, heave, yaw = self.axes
        return StickInput((surge, sway, heave, yaw), tuple(actions))

    def _parse(self, data: bytes) -> list[str]:
        """Apply whole events and keep an incomplete one for later. Returns the actions of buttons that went down."""
        whole = len(data) - len(data) % EVENT.size
        self.rest = data[whole:]
        actions = []
        for _, value, kind, number in EVENT.iter_unpack(data[:whole]):
            if kind & ~INITIAL == AXIS and number in STICKS:
                axis, direction = STICKS[number]
                deflection = max(-1.0, value / 32767)
                beyond = max(0.0, abs(deflection) - DEAD_ZONE) / (1 - DEAD_ZONE)
                self.axes[axis] = direction * (beyond if deflection > 0 else -beyond) + 0.0  # no -0.0
            elif (
                kind == BUTTON and value and number in BUTTONS
            ):  # not INITIAL: those report buttons held when the device was opened
                actions.append(BUTTONS[number])
        return actions

    def close(self, why: str = "") -> None:
        """Close the device, put its sticks in the middle, leave `why` as the notice."""
        if self.fd is not None:
            os.close(self.fd)
            self.fd, self.rest, self.axes, self.notice = None, b"", [0.0] * 4, why
