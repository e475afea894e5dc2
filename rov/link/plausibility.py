"""Rejects implausible vehicle states: depths above the surface, jumps that nothing makes in water, and a depth sensor
that has stopped. Time is an argument, monotonic ns."""

from __future__ import annotations

import math
from collections import deque
from typing import Any

from rov.link.mavlink import MS

DEPTH_MIN = -2.0
"""m. The configured surface pressure may be off by the weather and the altitude of a lake, not by more."""
DEPTH_SLACK, DEPTH_RATE = 0.5, 5.0
"""m, and m/s: how much the depth may change from one reading to the next."""
TURN_SLACK, TURN_RATE = 0.4, 10.0
"""rad, and rad/s, of the angle between two attitudes: near the vertical, heading and roll jump and this does not."""
AGREED_NS, AGREED = 250 * MS, 3
"""A jump is believed once this many readings over this time have agreed with it."""
FROZEN_NS = 3000 * MS
"""A noisy depth sensor that repeats itself for this long has stopped."""
FINE = 0.0015
"""m. A sensor that resolves less than this never repeats itself for long: its own noise is larger (MS5837: 2 mm)."""
CHANGES, TURNS = 40, 12
"""A depth whose direction turned TURNS times in the last CHANGES changes shows noise, not motion."""


class ContinuityCheck:
    """Accepts readings that can follow from one another, and rejects jumps."""

    def __init__(self, slack: float, rate: float):
        self.slack, self.rate = slack, rate
        self.last: tuple[float, ...] | None = None
        self.last_t = 0
        self.other: tuple[float, ...] | None = None
        """The last rejected reading."""
        self.other_t = self.since = self.agreed = 0

    def follows(self, new: tuple[float, ...], t: int) -> bool:
        """Is this reading believed? If so, it becomes the last one."""
        if self.last is not None and not self._near(self.last, self.last_t, new, t):
            if self.other is None or not self._near(self.other, self.other_t, new, t):
                self.since, self.agreed = t, 0
            self.other, self.other_t, self.agreed = new, t, self.agreed + 1
            if t - self.since < AGREED_NS or self.agreed < AGREED:
                return False
        self.last, self.last_t, self.other = new, t, None
        return True

    def _near(self, old: tuple[float, ...], old_t: int, new: tuple[float, ...], t: int) -> bool:
        return _distance(old, new) <= self.slack + self.rate * max(0, t - old_t) / 1e9


class PlausibilityCheck:
    """The plausibility checks of one connection."""

    def __init__(self) -> None:
        self.depths, self.attitudes = ContinuityCheck(DEPTH_SLACK, DEPTH_RATE), ContinuityCheck(TURN_SLACK, TURN_RATE)
        self.depth: float | None = None
        self.depth_t = 0
        """Since when the depth has not changed, to the last bit."""
        self.upward = False
        self.turns: deque[bool] = deque(maxlen=CHANGES)
        self.finest = math.inf
        self.angles: tuple[float, ...] = ()
        self.angles_t = 0
        """When the attitude last changed."""

    def reason(self, changed: dict[str, Any], t: int) -> str:
        """Why these changed fields of the state are not believed, or ""."""
        if "yaw" in changed:
            angles = (changed["roll"], changed["pitch"], changed["yaw"])
            if angles != self.angles:
                self.angles, self.angles_t = angles, t
            if not self.attitudes.follows(angles, t):
                return "the attitude jumps"
        if "depth" in changed:
            return self._depth(changed["depth"], t)
        return ""

    def _depth(self, depth: float, t: int) -> str:
        if not depth >= DEPTH_MIN:
            return f"a depth below {DEPTH_MIN:g} m is above the surface: is link.surface_pa right?"
        if self._frozen(depth, t):
            return "the depth repeats itself to the last bit: its sensor has stopped"
        return "" if self.depths.follows((depth,), t) else "the depth jumps"

    def _frozen(self, depth: float, t: int) -> bool:
        """Has a noisy sensor repeated itself for FROZEN_NS while the attitude went on changing? A coarse sensor, or one
        simulated without noise, may stand still for any time."""
        if depth != self.depth:
            step = depth - (depth if self.depth is None else self.depth)
            self.finest = min(self.finest, abs(step) or math.inf)
            self.turns.append((step > 0) != self.upward)
            self.depth, self.depth_t, self.upward = depth, t, step > 0
        noisy = len(self.turns) == CHANGES and sum(self.turns) >= TURNS and self.finest < FINE
        return noisy and t - self.depth_t > FROZEN_NS and t - self.angles_t < FROZEN_NS // 3


def _distance(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Distance of two depths in m, or angle in rad between two attitudes (roll, pitch, yaw)."""
    if len(a) == 1:
        return abs(a[0] - b[0])
    p, q = _quaternion(*a), _quaternion(*b)
    return 2 * math.acos(min(1.0, abs(sum(x * y for x, y in zip(p, q, strict=True)))))


def _quaternion(roll: float, pitch: float, yaw: float) -> tuple[float, float, float, float]:
    cr, sr, cp, sp = math.cos(roll / 2), math.sin(roll / 2), math.cos(pitch / 2), math.sin(pitch / 2)
    cy, sy = math.cos(yaw / 2), math.sin(yaw / 2)
    return (
        cr * cp * cy + sr * sp * sy,
        sr * cp * cy - cr * sp * sy,
        cr * sp * cy + sr * cp * sy,
        cr * cp * sy - sr * sp * cy,
    )
