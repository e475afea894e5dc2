"""What was heard of each topic: the last message, how often, and how old it was."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from rov.bus import Entry
from rov.messages import TOPICS, Message

WINDOW_NS = 3_000_000_000
"""Rates are counted over this time."""
PLAUSIBLE_NS = (-20_000_000, 3600_000_000_000)
"""An age outside this is not one: the sender's clock is not ours, whatever the address says."""
QUIET_PERIODS = 3.0
"""A state topic that is silent for so many of its periods is stale."""


class TopicRate(NamedTuple):
    """One topic now."""

    topic: str
    hz: float
    """Over the last 3 s."""
    age_ms: float | None
    """Of the last message when it came; None where the sender's clock is not ours."""
    silent_s: float
    """Since the last message came."""
    stale: bool
    """Of a state: silent for longer than its rate allows."""
    last: Message


class TopicRates:
    """Fed with what comes, asked for what is."""

    def __init__(self, *, same_clock: bool):
        """`same_clock`: the daemon runs on this machine, so that ages can be told."""
        self.same_clock = same_clock
        self.arrivals: dict[str, deque[int]] = {}
        self.last: dict[str, tuple[int, Message]] = {}

    def add(self, entries: Iterable[Entry], now: int) -> list[Entry]:
        """Count these; returns them."""
        taken = list(entries)
        for entry in taken:
            self.arrivals.setdefault(entry.topic, deque(maxlen=1000)).append(now)
            self.last[entry.topic] = (now, entry.message)
        return taken

    def age_ms(self, message: Message, now: int) -> float | None:
        """How old a message is at `now`, monotonic ns."""
        age = now - message.t
        return age / 1e6 if self.same_clock and PLAUSIBLE_NS[0] <= age <= PLAUSIBLE_NS[1] else None

    def rows(self, now: int) -> list[TopicRate]:
        """All topics that were heard, in the order of the table."""
        rows = []
        for topic in [name for name in TOPICS if name in self.last]:
            came, message = self.last[topic]
            times = self.arrivals[topic]
            while times and now - times[0] > WINDOW_NS:
                times.popleft()
            silent_s = (now - came) / 1e9
            hz = TOPICS[topic].hz
            stale = hz > 0 and silent_s > QUIET_PERIODS / hz
            rate = len(times) * 1e9 / WINDOW_NS
            rows.append(TopicRate(topic, rate, self.age_ms(message, came), silent_s, stale, message))
        return rows
