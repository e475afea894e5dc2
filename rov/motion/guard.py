"""The last step before the wire: lets only finite, limited and permitted values through, whatever was computed.

Owns arming, because what disarms must not depend on the code that it guards against. Time is an argument, monotonic ns.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from rov.config import schema
from rov.motion.thrusters import Curve
from rov.types import Floats

STEP_MAX_S = 0.1
"""Longest time step for the slew limit: after a gap an output may still change only by `slew` times this."""


class GuardResult(NamedTuple):
    """The values that may go over the wire, and why they differ from those asked for."""

    values: tuple[float, ...]
    neutral_because: str
    """Code of the reason for neutral; empty when there is none."""
    conditions: frozenset[str]
    """Codes of what is wrong now: `bad_output`, `too_deep`, `tilted`."""


class Guard:
    """Checks, limits and gates outputs −1..1: thrusters, or the axes of an autopilot that allocates itself."""

    def __init__(self, limits: schema.GuardConfig, max_depth: float, down: ArrayLike, curve: Curve | None = None):
        """`down` (n,): how much the thrust of each output pushes down, in any unit; `max_depth` in m. `curve` gives
        the thrust of a command; without one an output is its own thrust, as for the axes of an autopilot."""
        self.limits = limits
        self.curve = curve
        self.max_depth = max_depth
        downward = np.asarray(down, dtype=np.float64)
        self.down: Floats = downward / np.linalg.norm(downward)
        self.armed = False
        self.off_because = "disarmed"
        self.off_t: int | None = None
        self.bad_outputs = 0
        self.last: Floats = np.zeros_like(self.down)
        self.last_t: int | None = None
        self.tilted_s = 0.0
        self.too_deep = False

    def limit(self, limits: schema.GuardConfig, max_depth: float) -> None:
        """Apply other limits from now on. A smaller gain acts at once; slew goes on from there."""
        self.limits, self.max_depth = limits, max_depth
        self.last = np.clip(self.last, -limits.gain, limits.gain)

    def arm(self, t: int) -> str:
        """Let values through. `t`: when that was asked for. Returns the reason for a refusal, or "".

        Refused when asked for before, or at, the last stop or disarming: a request on its way undoes neither."""
        if self.off_t is not None and t <= self.off_t:
            return f"arming was asked for before the vehicle was {self.off_because}; ask again"
        if not self.armed:
            self.armed, self.last, self.tilted_s = True, np.zeros_like(self.down), 0.0
        return ""

    def disarm(self, t: int, because: str = "disarmed") -> None:
        """Neutral from now on; also when already disarmed, because a stop voids the arming requests on their way."""
        if self.armed or because == "stopped":
            self.off_because = because
        self.armed = False
        self.off_t = t if self.off_t is None else max(t, self.off_t)

    def step(
        self,
        values: ArrayLike,
        t: int,
        *,
        tilt: float | None,
        depth: float | None,
        volts: float | None = None,
        neutral_because: str = "",
    ) -> GuardResult:
        """Check and limit `values` at `t`. `tilt` from level in rad, `depth` in m and `volts` of the battery: None
        where unknown. A given `neutral_because` asks for neutral.

        Neutral is immediate; other values are clamped to ±gain, kept from pushing down when too deep, and slewed.
        """
        elapsed = (
            0.0 if self.last_t is None else max(0, t - self.last_t) / 1e9
        )  # time that runs backwards counts as none
        self.last_t = t
        conditions = set()
        self._watch_tilt(tilt, elapsed, t)
        if not self.armed and self.off_because == "tilted":
            conditions.add("tilted")
        if depth is not None:
            self.too_deep = depth > self.max_depth  # an unknown depth keeps the last verdict
        if self.too_deep:
            conditions.add("too_deep")
        wanted = self._checked(values)
        if wanted is None:
            conditions.add("bad_output")
            self.bad_outputs += 1
        because = neutral_because or ("bad_output" if wanted is None else "")
        if not self.armed:
            because = self.off_because
        if because or wanted is None:
            self.last = np.zeros_like(self.down)
        else:
            change = self.limits.slew * min(elapsed, STEP_MAX_S)
            slewed = np.clip(self._limited(wanted, volts), self.last - change, self.last + change)
            self.last = self._upward_first(slewed, volts) if self.too_deep else slewed
        return GuardResult(tuple(self.last.tolist()), because, frozenset(conditions))

    def _checked(self, values: ArrayLike) -> Floats | None:
        """The values as an array; None unless they are finite numbers, one per output."""
        try:
            array = np.asarray(values, dtype=np.float64)
        except (TypeError, ValueError, OverflowError):
            return None
        return array if array.shape == self.down.shape and np.isfinite(array).all() else None

    def _limited(self, values: Floats, volts: float | None) -> Floats:
        """Values within ±gain and, when too deep, without downward push."""
        gain = self.limits.gain
        limited = np.clip(values, -gain, gain)
        if self.too_deep and self._push(limited, volts) > 0:
            limited = self._balanced(self._level(limited, volts), volts)
        return np.clip(limited, -gain, gain)  # once more, for the last bit of the scaling

    def _level(self, values: Floats, volts: float | None) -> Floats:
        """Values whose thrust has no downward part; the rest of its direction is kept, as far as ±gain reaches."""
        gain = np.full_like(values, self.limits.gain)
        thrust = self._thrust(values, volts)
        thrust = thrust - float(thrust @ self.down) * self.down
        most = np.where(thrust < 0, -self._thrust(-gain, volts), self._thrust(gain, volts))
        over = np.abs(thrust) > most
        return self._commands_for(thrust * np.min(most[over] / np.abs(thrust[over]), initial=1.0), volts)

    def _balanced(self, values: Floats, volts: float | None) -> Floats:
        """Values whose downward thrust does not exceed the upward thrust. In its dead band a thruster gives less than
        it was asked for: where that weakens the upward ones, the downward ones are scaled down."""
        thrust = self._thrust(values, volts)
        pushes = thrust * self.down
        up, down = -float(pushes[pushes < 0].sum()), float(pushes[pushes > 0].sum())
        if down <= up:
            return values
        return np.where(pushes > 0, self._commands_for(thrust * (up / down), volts), values)

    def _upward_first(self, slewed: Floats, volts: float | None) -> Floats:
        """Where slewed outputs would push down for a moment, those that move downward wait for the others."""
        if self._push(slewed, volts) <= 0:
            return slewed
        further = (self._thrust(slewed, volts) - self._thrust(self.last, volts)) * self.down > 0
        return np.where(further, self.last, slewed)

    def _push(self, values: Floats, volts: float | None) -> float:
        """The downward push of these values together."""
        return float(self._thrust(values, volts) @ self.down)

    def _thrust(self, values: Floats, volts: float | None) -> Floats:
        return values if self.curve is None else self.curve.force(values, volts)

    def _commands_for(self, thrust: Floats, volts: float | None) -> Floats:
        return thrust if self.curve is None else self.curve.commands_for(thrust, volts, self.limits.gain)

    def _watch_tilt(self, tilt: float | None, elapsed: float, t: int) -> None:
        """Disarm after `tilt_s` beyond `tilt_deg`. An unknown tilt neither counts nor resets the time."""
        if tilt is None or not self.armed:
            return
        self.tilted_s = self.tilted_s + elapsed if tilt > math.radians(self.limits.tilt_deg) else 0.0
        if self.tilted_s >= self.limits.tilt_s:
            self.disarm(t, "tilted")
