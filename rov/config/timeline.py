"""What holds for each frame: the configuration as it is tuned on the way."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from rov.config.live import Values, differences, values, values_of, with_values
from rov.config.schema import Config
from rov.messages import Setting

EFFECT_NS = 100_000_000
"""Frames follow a change that is older than this when they are captured. It leaves the news time to arrive everywhere,
so that a replay, which knows only times, changes at the same frame."""


class ConfigTimeline:
    """The configuration for each frame, as it is tuned on the way."""

    def __init__(self, config: Config, *, recorded: bool = False):
        """Live, what is heard holds. `recorded`: what is heard first is where the recording began, and only what was
        changed after that is changed here, so that a dive can be replayed with other values."""
        self.config = config
        self.last: Values | None = None if recorded else values(config)
        self.coming: deque[tuple[int, Values]] = deque()

    def add(self, sent: Iterable[Setting], t: int) -> Values:
        """Take the news of `t`; returns what changes with it."""
        news = values_of(sent)
        changed = {} if self.last is None else differences(self.last, news)
        self.last = news
        if changed:
            self.coming.append((t + EFFECT_NS, changed))
        return changed

    def at(self, frame_t: int) -> Config:
        """What holds for a frame captured at `frame_t`. Frames are asked for in order."""
        while self.coming and self.coming[0][0] <= frame_t:
            self.config = with_values(self.config, self.coming.popleft()[1])
        return self.config
