"""`rov listen`: what the daemon says, line by line or as a table of rates."""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec
from rich.live import Live
from rich.table import Table

from rov.bus import Reader, is_local, listen
from rov.errors import UserError
from rov.messages import TOPICS
from rov.operator.commands import Place
from rov.operator.rates import Rates
from rov.plain import say
from rov.screen import Screen

TABLE_S = 0.25
LINES_S = 1.0
"""How often the rates are shown anew: on a terminal, and to a pipe."""


def follow(there: Place, topics: Sequence[str], *, rates: bool) -> None:
    """Print until interrupted. Raises UserError."""
    for topic in topics:
        if topic not in TOPICS:
            raise UserError(f"{topic}: no such topic; there are {', '.join(TOPICS)}")
    reader = listen(there.public, topics, there.keys)
    heard = Rates(same_clock=is_local(there.public))
    try:
        if rates:
            _rates(reader, heard)
        while True:
            reader.wait(1000)
            now = time.monotonic_ns()
            for entry in heard.take(reader.read(), now):
                age = heard.age_ms(entry.message, now)
                told = f"{age:7.1f} ms" if age is not None else "      -   "
                say(f"{entry.topic:12} {told}  {msgspec.json.encode(entry.message).decode()}", flush=True)
    finally:
        reader.close()


def _rates(reader: Reader, heard: Rates) -> None:
    """The table, until interrupted."""
    console = Screen()
    if not console.is_terminal:
        while True:
            _collect(reader, heard, LINES_S)
            for topic, hz, expected, age, silent, _ in lines(heard):
                say(f"{topic:12} {hz:>6} of {expected:>4} Hz  age {age:>9}  {silent:>6} s ago", flush=True)
    with Live(console=console, auto_refresh=False) as live:
        while True:
            _collect(reader, heard, TABLE_S)
            table = Table("topic", "Hz", "expected", "age", "last heard")
            for topic, hz, expected, age, silent, stale in lines(heard):
                table.add_row(topic, hz, expected, age, f"{silent} s ago", style="red" if stale else "")
            live.update(table, refresh=True)


def lines(heard: Rates) -> list[tuple[str, str, str, str, str, bool]]:
    """Topic, rate, expected rate, age, silence, and whether it is stale."""
    return [
        (
            row.topic,
            f"{row.hz:.1f}",
            f"{TOPICS[row.topic].hz:g}" if TOPICS[row.topic].hz else "-",
            "-" if row.age_ms is None else f"{row.age_ms:.1f} ms",
            f"{row.silent_s:.1f}",
            row.stale,
        )
        for row in heard.rows(time.monotonic_ns())
    ]


def _collect(reader: Reader, heard: Rates, seconds: float) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        reader.wait(int(left * 1000) + 1)
        heard.take(reader.read(), time.monotonic_ns())
