"""Surfacing under ArduSub: in its own SURFACE, and where that is refused or has ended, in ALT_HOLD, STABILIZE or MANUAL
with the heave stick up. Also the texts that tell the autopilot's own failsafes from its pilot."""

from __future__ import annotations

from rov.link.ardusub.firmware import ALT_HOLD, MANUAL, NAMES, STABILIZE, SURFACE

STEPS = ((SURFACE,), (ALT_HOLD,), (STABILIZE, MANUAL))
"""ArduSub modes to surface in, the best first."""
FAILSAFE_TEXTS = {
    "mode": ("depth sensor error",),
    "disarmed": ("lost manual control", "heartbeat lost", "ekf bad", "crash detected", "battery"),
}
"""Parts of its texts when a failsafe of its own changes the mode (to MANUAL), or disarms: failsafe.cpp."""


class SurfacingPlan:
    """The modes that are left in one surfacing."""

    def __init__(self) -> None:
        self.dropped: set[int] = set()
        """Modes that were refused, or have ended."""

    def begin(self) -> None:
        """All modes may be tried again."""
        self.dropped.clear()

    def modes(self, now: int | None) -> tuple[int, ...]:
        """The modes to surface in now, the first one preferred; where none is left, the current one (`now`)."""
        for step in STEPS:
            if left := tuple(mode for mode in step if mode not in self.dropped):
                return left
        return () if now is None else (now,)

    def drop(self, mode: int, now: int | None) -> str:
        """Rule a mode out; returns how the surfacing goes on, as the end of a sentence."""
        self.dropped.add(mode)
        left = self.modes(now)
        mode = now if now in left else left[0] if left else mode
        return f"surfacing by heave stick in {NAMES.get(mode, mode)}"


def is_own_failsafe(what: str, texts: list[str]) -> bool:
    """Do the autopilot's texts say that it changed its mode, or disarmed, by itself?"""
    return any(mark in text.lower() for mark in FAILSAFE_TEXTS[what] for text in texts)
