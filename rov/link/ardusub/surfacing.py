"""The ways up under ArduSub: its own SURFACE, and where that is refused or over, ALT_HOLD, STABILIZE or MANUAL with the
heave stick up. And the texts by which the autopilot says that it did something itself, which no pilot asked for."""

from __future__ import annotations

from rov.link.ardusub.firmware import ALT_HOLD, MANUAL, NAMES, STABILIZE, SURFACE

WAYS = ((SURFACE,), (ALT_HOLD,), (STABILIZE, MANUAL))
"""Best first."""
BY_ITSELF = {
    "mode": ("depth sensor error",),
    "disarmed": ("lost manual control", "heartbeat lost", "ekf bad", "crash detected", "battery"),
}
"""What it writes when its own failsafe changes the mode (to MANUAL), or disarms: failsafe.cpp."""


class SurfacingPlan:
    """Which of the ways are left in one surfacing."""

    def __init__(self) -> None:
        self.over: set[int] = set()
        """Modes that were refused, or are over."""

    def begin(self) -> None:
        """All ways are open again."""
        self.over.clear()

    def modes(self, now: int | None) -> tuple[int, ...]:
        """The autopilot's modes that will do, the first to be asked for; where none is left, the one it is in."""
        for way in WAYS:
            if left := tuple(mode for mode in way if mode not in self.over):
                return left
        return () if now is None else (now,)

    def drop(self, mode: int, now: int | None) -> str:
        """This mode is no way any more; how it goes on, as the end of a sentence."""
        self.over.add(mode)
        left = self.modes(now)
        mode = now if now in left else left[0] if left else mode
        return f"going up by stick in {NAMES.get(mode, mode)}"


def by_itself(what: str, texts: list[str]) -> bool:
    """Do the autopilot's texts say that it changed its mode, or disarmed, by itself?"""
    return any(mark in text.lower() for mark in BY_ITSELF[what] for text in texts)
