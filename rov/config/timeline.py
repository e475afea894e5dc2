"""The configuration in force for each frame, while live settings change."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from rov.config.live import Values, differences, values, values_of, with_values
from rov.config.schema import Config
from rov.messages import Setting

EFFECT_NS = 100_000_000
"""A change applies to frames captured at least this long after it. By then every process has received it, so that a
replay, which knows only the times, changes at the same frame."""


class ConfigTimeline:
    """The configuration in force for each frame, while live settings change."""

    def __init__(self, config: Config, *, recorded: bool = False):
        """Live, every message changes `config`. `recorded`: the first message is only the recording's initial state;
        later changes are applied to `config`, so that a dive can be replayed with other values."""
        self.config = config
        self.last: Values | None = None if recorded else values(config)
        self.pending: deque[tuple[int, Values]] = deque()

    def add(self, sent: Iterable[Setting], t: int) -> Values:
        """Add the settings of a message made at `t` (ns); returns the values that it changes."""
        new = values_of(sent)
        changed = {} if self.last is None else differences(self.last, new)
        self.last = new
        if changed:
            self.pending.append((t + EFFECT_NS, changed))
        return changed

    def at(self, frame_t: int) -> Config:
        """The configuration for a frame captured at `frame_t`. Frames must be asked for in order."""
        while self.pending and self.pending[0][0] <= frame_t:
            self.config = with_values(self.config, self.pending.popleft()[1])
        return self.config
