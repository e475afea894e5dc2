"""Turns the thrusters one at a time from the keyboard, through the link: the loop around `thrusters.TurnTest`."""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable

from rov.calibrate.thrusters import TurnTest, advice
from rov.config.schema import Config
from rov.errors import UserError
from rov.link.thruster_board import ThrusterBoardLink
from rov.motion.allocation import mixer
from rov.motion.thrusters import NEUTRAL_US, SPAN_US

RATE_HZ = 50.0
READY_S = 10.0
"""Time-out for the first message of the board, and then for its arming test."""
HELP = "hold f: ahead, b: astern, gently; m: it begins to turn; Enter: the right one the right way; r: the wrong way;"


def turn_all(config: Config, show: Callable[[str], None], keys: int | None = None) -> list[str]:
    """Turn every output by hand; returns what to change. `keys` is a file descriptor, the terminal by default. The
    board is disarmed at the end in any case. Raises UserError without a terminal, or when the board does not arm."""
    if config.link.kind != "thrusters":
        text = f"link.kind is {config.link.kind!r}: an autopilot turns its thrusters itself"
        raise UserError(f"{text}; use QGroundControl's motor test, or put a board there and link.kind = 'thrusters'")
    keys = sys.stdin.fileno() if keys is None else keys
    if not os.isatty(keys):
        raise UserError("turning thrusters needs a keyboard: somebody must hold a key; run it in a terminal")
    outputs = len(mixer(config.vehicle.frame))
    link = ThrusterBoardLink(
        config.link.port, config.link.baud, outputs, surface_pa=config.link.surface_pa, density=config.link.density
    )
    test = TurnTest(outputs)
    before = termios.tcgetattr(keys)
    try:
        _arm(link, outputs, show)
        show(f"{HELP} 1 to {outputs}: that one turned; n: none; q: end")
        tty.setcbreak(keys)
        _run(test, link, keys, show)
    finally:
        termios.tcsetattr(keys, termios.TCSADRAIN, before)
        now = time.monotonic_ns()
        link.disarm(now)
        link.send([0.0] * outputs, False, now)
        link.close(now + 1_000_000)
    return _report(test)


def _run(test: TurnTest, link: ThrusterBoardLink, keys: int, show: Callable[[str], None]) -> None:
    """The loop: keys in, commands out, until every output was tried. Raises UserError when the board falls silent."""
    shown = -1
    while not test.done:
        now = time.monotonic_ns()
        while select.select([keys], [], [], 0)[0]:
            if not (read := os.read(keys, 1)):  # the terminal is gone
                test.aborted = True
                break
            test.press(read.decode("ascii", "replace"), now)
        for event in link.poll(now):
            show(f"{event.level}: {event.text}")
        if not link.live:
            raise UserError("the board no longer answers; nothing turns, start again")
        if test.output != shown and not test.done:
            shown = test.output
            show(f"output {shown + 1} of {test.outputs}")
        link.send(test.step(now, 1 / RATE_HZ), True, now)
        time.sleep(1 / RATE_HZ)


def _report(test: TurnTest) -> list[str]:
    """Sentences: the dead bands, what to change, and whether the test was ended early."""
    bands = [
        f"output {each.output} begins to turn at "
        + " and ".join(f"{NEUTRAL_US + SPAN_US * start:.0f} us" for start in each.starts if start is not None)
        for each in test.verdicts
        if any(start is not None for start in each.starts)
    ]
    ended = [f"ended after {len(test.verdicts)} of {test.outputs}"] if test.aborted else []
    changes = advice(test.verdicts)
    return [*bands, *changes, *ended] if changes or test.aborted else [*bands, "all thrusters are where they belong"]


def _arm(link: ThrusterBoardLink, outputs: int, show: Callable[[str], None]) -> None:
    """Wait for the board and arm it with the daemon's test: only a board that stops by itself may turn thrusters."""
    end, asked, refusal = time.monotonic() + READY_S, False, "it sent nothing"
    while not link.live:
        now = time.monotonic_ns()
        for event in link.poll(now):
            show(f"{event.level}: {event.text}")
        if not asked:
            refusal = link.arm(now)
            asked = not refusal
            end = time.monotonic() + READY_S if asked else end
        elif not link.testing and not link.live:
            raise UserError("the board failed its arming test; see above")
        link.send([0.0] * outputs, asked, now)
        if time.monotonic() > end:
            raise UserError(f"the board at the link's port cannot be armed: {refusal or 'its test did not end'}")
        time.sleep(1 / RATE_HZ)
