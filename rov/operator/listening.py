"""`rov listen`: the daemon's messages, line by line or as a table of rates."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.live import Live
from rich.table import Table

from rov import json_messages
from rov.bus import Endpoints, Entry, Reader, is_local, listen
from rov.errors import UserError
from rov.messages import TOPICS
from rov.operator.rates import TopicRates
from rov.printing import print_line
from rov.terminal import PlainConsole

TABLE_S = 0.25
LINES_S = 1.0
"""How often the rates are shown: on a terminal, and to a pipe."""
POLL_MS = 500
SILENT_NS = 3_000_000_000
"""After this time without a message, the daemon is not there or does not accept our keys."""
SIGN_OF_LIFE = "health"
"""Every process of the daemon publishes this topic once a second."""


def follow(endpoints: Endpoints, topics: Sequence[str], *, rates: bool) -> None:
    """Print until interrupted. Raises UserError."""
    for topic in topics:
        if topic not in TOPICS:
            raise UserError(f"{topic}: no such topic; there are {', '.join(TOPICS)}")
    listener = TopicListener(endpoints, topics)
    try:
        if rates:
            _show_rates(listener)
        while True:
            now, entries = listener.receive(POLL_MS)
            for entry in entries:
                age = listener.rates.age_ms(entry.message, now)
                text = f"{age:7.1f} ms" if age is not None else "      -   "
                print_line(f"{entry.topic:12} {text}  {json_messages.encode(entry.message).decode()}", flush=True)
    finally:
        listener.reader.close()


class TopicListener:
    """Receives the chosen topics (none: all) and counts them. Prints a hint, once, when nothing arrives at all."""

    def __init__(self, endpoints: Endpoints, topics: Sequence[str]):
        self.where, self.topics = endpoints.public, set(topics) or set(TOPICS)
        # some topics are rare: without one that is always published, silence would not mean that the daemon is gone
        subscribed = sorted({*topics, SIGN_OF_LIFE}) if topics else ()
        self.reader: Reader = listen(endpoints.public, subscribed, endpoints.keys)
        self.rates = TopicRates(same_clock=is_local(endpoints.public))
        self.waiting_since: int | None = time.monotonic_ns()
        """None: a message has arrived, or the hint was printed."""

    def receive(self, ms: int) -> tuple[int, list[Entry]]:
        """Wait up to `ms` for messages. Returns the time (monotonic ns) and those of the chosen topics."""
        self.reader.wait(ms)
        now = time.monotonic_ns()
        entries = list(self.reader.receive())
        if entries:
            self.waiting_since = None
        elif self.waiting_since is not None and now - self.waiting_since > SILENT_NS:
            self.waiting_since = None
            print_line(silence(self.where), error=True)
        return now, self.rates.add([each for each in entries if each.topic in self.topics], now)


def silence(where: str) -> str:
    """The hint for when nothing arrives: ZeroMQ reports neither an absent peer nor a refused key."""
    return (
        f"nothing received from {where} for {SILENT_NS / 1e9:g} s; is `rov run` running there, and does it know these"
        " keys (--keys)? Still listening"
    )


def _show_rates(listener: TopicListener) -> None:
    """Print the table until interrupted."""
    console, rates = PlainConsole(), listener.rates
    if not console.is_terminal:
        while True:
            _collect(listener, LINES_S)
            for topic, hz, expected, age, silent, _ in lines(rates):
                print_line(f"{topic:12} {hz:>6} of {expected:>4} Hz  age {age:>9}  {silent:>6} s ago", flush=True)
    with Live(console=console, auto_refresh=False) as live:
        while True:
            _collect(listener, TABLE_S)
            table = Table("topic", "Hz", "expected", "age", "last received")
            for topic, hz, expected, age, silent, stale in lines(rates):
                table.add_row(topic, hz, expected, age, f"{silent} s ago", style="red" if stale else "")
            live.update(table, refresh=True)


def lines(rates: TopicRates) -> list[tuple[str, str, str, str, str, bool]]:
    """A row per topic: topic, Hz, expected Hz, age, seconds since the last message, whether it is stale."""
    return [
        (
            row.topic,
            f"{row.hz:.1f}",
            f"{TOPICS[row.topic].hz:g}" if TOPICS[row.topic].hz else "-",
            "-" if row.age_ms is None else f"{row.age_ms:.1f} ms",
            f"{row.silent_s:.1f}",
            row.stale,
        )
        for row in rates.rows(time.monotonic_ns())
    ]


def _collect(listener: TopicListener, seconds: float) -> None:
    """Count what arrives within this time."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        listener.receive(int(left * 1000) + 1)
