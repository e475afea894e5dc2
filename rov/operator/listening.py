"""`rov listen`: what the daemon says, line by line or as a table of rates."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.live import Live
from rich.table import Table

from rov import json_messages
from rov.bus import Entry, Reader, is_local, listen
from rov.errors import UserError
from rov.messages import TOPICS
from rov.operator.commands import Endpoints
from rov.operator.rates import TopicRates
from rov.printing import print_line
from rov.terminal import PlainConsole

TABLE_S = 0.25
LINES_S = 1.0
"""How often the rates are shown anew: on a terminal, and to a pipe."""
LOOK_MS = 500
SILENT_NS = 3_000_000_000
"""A daemon that says nothing at all for so long is not there, or not for us."""
SIGN = "health"
"""What every daemon says once a second, and each of its processes."""


def follow(there: Endpoints, topics: Sequence[str], *, rates: bool) -> None:
    """Print until interrupted. Raises UserError."""
    for topic in topics:
        if topic not in TOPICS:
            raise UserError(f"{topic}: no such topic; there are {', '.join(TOPICS)}")
    ears = TopicListener(there, topics)
    heard = ears.heard
    try:
        if rates:
            _rates(ears)
        while True:
            now, entries = ears.receive(LOOK_MS)
            for entry in entries:
                age = heard.age_ms(entry.message, now)
                told = f"{age:7.1f} ms" if age is not None else "      -   "
                print_line(f"{entry.topic:12} {told}  {json_messages.encode(entry.message).decode()}", flush=True)
    finally:
        ears.reader.close()


class TopicListener:
    """What comes from a daemon, of the topics that are asked for; says once when nothing at all does."""

    def __init__(self, there: Endpoints, topics: Sequence[str]):
        self.where, self.topics = there.public, set(topics) or set(TOPICS)
        # a topic that is said rarely is no silence, so one that is said all the time is heard as well
        self.reader: Reader = listen(there.public, sorted({*topics, SIGN}) if topics else (), there.keys)
        self.heard = TopicRates(same_clock=is_local(there.public))
        self.began: int | None = time.monotonic_ns()
        """None: there was something, or it was said that there is nothing."""

    def receive(self, ms: int) -> tuple[int, list[Entry]]:
        """Wait so long for something; when that was, in ns, and what came."""
        self.reader.wait(ms)
        now = time.monotonic_ns()
        entries = list(self.reader.receive())
        if entries:
            self.began = None
        elif self.began is not None and now - self.began > SILENT_NS:
            self.began = None
            print_line(silence(self.where), error=True)
        return now, self.heard.add([each for each in entries if each.topic in self.topics], now)


def silence(where: str) -> str:
    """What it may be when nothing is heard: ZeroMQ does not say."""
    return (
        f"nothing heard from {where} for {SILENT_NS / 1e9:g} s; is `rov run` running there, and does it know these keys"
        " (--keys)? Listening on"
    )


def _rates(ears: TopicListener) -> None:
    """The table, until interrupted."""
    console, heard = PlainConsole(), ears.heard
    if not console.is_terminal:
        while True:
            _collect(ears, LINES_S)
            for topic, hz, expected, age, silent, _ in lines(heard):
                print_line(f"{topic:12} {hz:>6} of {expected:>4} Hz  age {age:>9}  {silent:>6} s ago", flush=True)
    with Live(console=console, auto_refresh=False) as live:
        while True:
            _collect(ears, TABLE_S)
            table = Table("topic", "Hz", "expected", "age", "last heard")
            for topic, hz, expected, age, silent, stale in lines(heard):
                table.add_row(topic, hz, expected, age, f"{silent} s ago", style="red" if stale else "")
            live.update(table, refresh=True)


def lines(heard: TopicRates) -> list[tuple[str, str, str, str, str, bool]]:
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


def _collect(ears: TopicListener, seconds: float) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        ears.receive(int(left * 1000) + 1)
