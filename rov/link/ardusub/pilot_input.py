"""Detects another pilot from stick messages, and from RC channels that do not follow our sticks. Time is an argument,
monotonic ns."""

from __future__ import annotations

from collections import deque
from typing import Any

from pymavlink.dialects.v20 import common

from rov.link.ardusub.firmware import Rc
from rov.link.mavlink import MS

STICKS_OVER_NS = 1000 * MS
"""A pilot who has sent no stick for this long does not steer. Ground stations send at 5 Hz or more."""
HISTORY_NS = 2000 * MS
"""RC_CHANNELS is compared with what we sent over this time: two round trips of a link that lags 500 ms each way."""
RC_SLACK_US = 20
RC_STRANGE = 3
"""This many reports within HISTORY_NS that do not fit our sticks, or change without us, mean another pilot. Where two
streams alternate, many reports show ours."""
LAG_NS = 700 * MS
"""We know a new gain of the pilot after this at the latest. Until then, reports that a new gain explains count only if
they come and go RC_STRANGE times."""
GAIN_RATIO = 10.0
"""Ratio of the largest gain to the smallest."""
HOW = "to hand over, switch the joystick off in the ground station and engage again"


class PilotInputMonitor:
    """Evidence of another pilot in one connection."""

    def __init__(self) -> None:
        self.sticks_t: int | None = None
        """When another pilot's stick message was last received."""
        self.rc: Rc | None = None
        """The RC channels that the autopilot last reported."""
        self.changes: deque[int] = deque()
        """When they changed while we did not steer."""
        self.history: deque[tuple[int, Rc]] = deque()
        """The RC pulses that our sticks should have produced, with their times."""
        self.strange: deque[int] = deque()
        """When the channels did not fit them, whatever the gain."""
        self.scaled: deque[int] = deque()
        """When the channels began to fit them only with another gain."""
        self.scaled_t: int | None = None
        """Since when they do so without a pause, or without coming to rest."""

    def takeover_reason(self, armed: bool, t: int) -> str:
        """Why another pilot seems to be in control, or "". RC values of a disarmed vehicle are ignored."""
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
        """We engage: from now on the channels must follow our sticks."""
        self.history.clear()
        self.strange.clear()
        self.scaled.clear()
        self.scaled_t = None
        if self.rc is not None:
            self.history.append((t, self.rc))

    def record_sent(self, rc: Rc, t: int) -> None:
        """Record the RC pulses that the MANUAL_CONTROL we just sent should produce."""
        self.history.append((t, rc))
        self._shorten(t)

    def receive_rc(self, rc: Rc, engaged: bool, t: int) -> bool:
        """Take the autopilot's RC channels; while `engaged`, do they show another pilot?"""
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
        elif not fits and (self.scaled_t is None or _rests(rc) and last is not None and not _rests(last)):
            # Channels that come to rest may be the pilot-input failsafe's: the autopilot's heartbeat tells soon.
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
    """The system that a stick message is addressed to; None for other messages."""
    match message:
        case common.MAVLink_manual_control_message():
            return int(message.target)
        case common.MAVLink_rc_channels_override_message():
            return int(message.target_system)
    return None


def _forget(times: deque[int], t: int) -> None:
    while times and t - times[0] > HISTORY_NS:
        times.popleft()


def _rests(rc: Rc) -> bool:
    """Are the channels at their centres?"""
    return all(abs(us - 1500) <= RC_SLACK_US for us in rc if us)


def _scaled(us: float, low: float, high: float) -> bool:
    """Does another gain explain this pulse, for sticks that produced `low` to `high`? All µs off the centre."""
    return GAIN_RATIO * min(low, 0.0) - RC_SLACK_US <= us <= GAIN_RATIO * max(high, 0.0) + RC_SLACK_US
