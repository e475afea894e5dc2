"""Per topic: the last message, its rate, its age on arrival, and whether it is stale."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from rov.bus import Entry
from rov.messages import TOPICS, Message

WINDOW_NS = 3_000_000_000
"""Rates are counted over this time."""
PLAUSIBLE_NS = (-20_000_000, 3600_000_000_000)
"""An age outside these bounds is not believed: the sender's clock is not ours, whatever its address says."""
QUIET_PERIODS = 3.0
"""A state topic is stale after this many of its periods without a message."""


class TopicRate(NamedTuple):
    """One row of the table of rates."""

    topic: str
    hz: float
    """Over the last 3 s."""
    age_ms: float | None
    """Age of the last message when it arrived; None where the sender's clock is not ours."""
    silent_s: float
    """Since the last message arrived."""
    stale: bool
    """A state topic that is silent for longer than its rate allows; False for events."""
    last: Message


class TopicRates:
    """Counts arriving messages per topic. Time is an argument, monotonic ns."""

    def __init__(self, *, same_clock: bool):
        """`same_clock`: the daemon runs on this machine, so ages are known."""
        self.same_clock = same_clock
        self.arrivals: dict[str, deque[int]] = {}
        self.last: dict[str, tuple[int, Message]] = {}

    def add(self, entries: Iterable[Entry], now: int) -> list[Entry]:
        """Count these messages as arrived at `now`; returns them."""
        counted = list(entries)
        for entry in counted:
            self.arrivals.setdefault(entry.topic, deque(maxlen=1000)).append(now)
            self.last[entry.topic] = (now, entry.message)
        return counted

    def age_ms(self, message: Message, now: int) -> float | None:
        """Age of a message at `now`; None where the sender's clock is not ours."""
        age = now - message.t
        return age / 1e6 if self.same_clock and PLAUSIBLE_NS[0] <= age <= PLAUSIBLE_NS[1] else None

    def rows(self, now: int) -> list[TopicRate]:
        """A row for each topic received so far, in the order of `TOPICS`."""
        rows = []
        for topic in [name for name in TOPICS if name in self.last]:
            arrived, message = self.last[topic]
            times = self.arrivals[topic]
            while times and now - times[0] > WINDOW_NS:
                times.popleft()
            silent_s = (now - arrived) / 1e9
            hz = TOPICS[topic].hz
            stale = hz > 0 and silent_s > QUIET_PERIODS / hz
            rate = len(times) * 1e9 / WINDOW_NS
            rows.append(TopicRate(topic, rate, self.age_ms(message, arrived), silent_s, stale, message))
        return rows
