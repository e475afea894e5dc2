"""Who else steers: seen by their sticks, or by RC channels that do not follow ours. Time is an argument, in ns."""

from __future__ import annotations

from collections import deque
from typing import Any

from pymavlink.dialects.v20 import common

from rov.link.ardusub.firmware import Rc
from rov.link.mavlink import MS

STICKS_OVER_NS = 1000 * MS
"""Somebody who has sent no stick for this long does not steer. Ground stations send at 5 Hz or more."""
HISTORY_NS = 2000 * MS
"""RC_CHANNELS is compared with what we sent over this time: a link that lags by 500 ms each way, twice."""
RC_SLACK_US = 20
RC_STRANGE = 3
"""Reports within HISTORY_NS that do not fit our sticks, or changes without us, before somebody else is steering. Where
two streams alternate, many reports show ours."""
LAG_NS = 700 * MS
"""A new gain of the pilot's is known after this at the latest. Until then reports that it explains are strange only
where they come and go, RC_STRANGE times."""
GAIN_RATIO = 10.0
"""Of the largest gain to the smallest."""
HOW = "to hand over, switch the joystick off in the ground station and engage again"


class PilotInputMonitor:
    """What one connection shows of them."""

    def __init__(self) -> None:
        self.sticks_t: int | None = None
        """When somebody else's stick was last seen."""
        self.rc: Rc | None = None
        """What the autopilot last took as its sticks."""
        self.changes: deque[int] = deque()
        """When it changed, without us."""
        self.history: deque[tuple[int, Rc]] = deque()
        """What ours should have come to."""
        self.strange: deque[int] = deque()
        """When it did not fit them, whatever the gain."""
        self.scaled: deque[int] = deque()
        """When it began not to fit them, but would with another gain."""
        self.scaled_t: int | None = None
        """Since when it does so without a pause."""

    def takeover_reason(self, armed: bool, t: int) -> str:
        """Why somebody else is thought to steer, or nothing. What a disarmed vehicle's channels rest at means
        nothing."""
        _forget(self.changes, t)
        if self.sticks_t is not None and t - self.sticks_t <= STICKS_OVER_NS:
            return f"another stick stream is present; {HOW}"
        if len(self.changes) >= RC_STRANGE:
            return f"the RC channels are moving: somebody else steers; {HOW}"
        rc = self.rc
        if armed and rc is not None and any(800 < us < 2200 and abs(us - 1500) > 2 * RC_SLACK_US for us in rc[1:]):
            return f"an RC channel is held off its centre: somebody else steers; {HOW}"
        return ""

    def start(self, t: int) -> None:
        """We engage: from now on the channels are to follow us."""
        self.history.clear()
        self.strange.clear()
        self.scaled.clear()
        self.scaled_t = None
        if self.rc is not None:
            self.history.append((t, self.rc))

    def record_sent(self, rc: Rc, t: int) -> None:
        """A stick of ours leaves, which comes to these pulses."""
        self.history.append((t, rc))
        self._shorten(t)

    def receive_rc(self, rc: Rc, engaged: bool, t: int) -> bool:
        """The autopilot's channels; while `engaged`, do they show that somebody else steers?"""
        last, self.rc = self.rc, rc
        if not engaged:
            if last is not None and any(abs(a - b) > RC_SLACK_US for a, b in zip(rc, last, strict=True)):
                self.changes.append(t)
            _forget(self.changes, t)
            return False
        self._shorten(t)
        if len(self.history) < 2:
            return False
        ranges = [
            (min(sent) - 1500, max(sent) - 1500) for sent in zip(*(each for _, each in self.history), strict=True)
        ]
        seen = [(us - 1500, *both) for us, both in zip(rc, ranges, strict=True) if us]
        fits = all(low - RC_SLACK_US <= us <= high + RC_SLACK_US for us, low, high in seen)
        if not fits and not all(_scaled(*each) for each in seen):
            self.strange.append(t)
        elif not fits and self.scaled_t is None:
            self.scaled.append(t)
            self.scaled_t = t
        elif fits:
            self.scaled_t = None
        for times in (self.strange, self.scaled):
            _forget(times, t)
        lasting = self.scaled_t is not None and t - self.scaled_t > LAG_NS
        return lasting or max(len(self.strange), len(self.scaled)) >= RC_STRANGE

    def _shorten(self, t: int) -> None:
        while len(self.history) > 1 and t - self.history[0][0] > HISTORY_NS:
            self.history.popleft()


def steered_system(message: Any) -> int | None:
    """The system that a message steers with sticks; None if it does not."""
    match message:
        case common.MAVLink_manual_control_message():
            return int(message.target)
        case common.MAVLink_rc_channels_override_message():
            return int(message.target_system)
    return None


def _forget(times: deque[int], t: int) -> None:
    while times and t - times[0] > HISTORY_NS:
        times.popleft()


def _scaled(us: float, low: float, high: float) -> bool:
    """Would another gain make this pulse, off its centre, of sticks that came to `low` to `high`?"""
    return GAIN_RATIO * min(low, 0.0) - RC_SLACK_US <= us <= GAIN_RATIO * max(high, 0.0) + RC_SLACK_US
