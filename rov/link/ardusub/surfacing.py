"""Surfacing under ArduSub: in its own SURFACE, and where that is refused or has ended, in ALT_HOLD, STABILIZE or MANUAL
with the heave stick up.

A vehicle that must come up keeps our sticks in spite of what else would end our control. `Surfacing` decides so, as a
state machine; the link tells it what happens, and carries out what it decides:

    not surfacing ── our mode is surface ──▸ surfacing by our mode
                  ── a leak with an obstacle or a refusal, SURFACE by anybody ──▸ surfacing without our mode: neutral
                     sticks, until the operator's mode changes
    either        ── a disarming, or MANUAL ──▸ in doubt, until a text of the autopilot's failsafes says that it was
                     the autopilot: surfacing goes on; without such a text it was the pilot, who ends our control
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from rov.link.ardusub.connection import ArdusubConnection, PendingCommand, explanation
from rov.link.ardusub.firmware import ALT_HOLD, MANUAL, NAMES, STABILIZE, SURFACE
from rov.messages import Mode

STEPS = ((SURFACE,), (ALT_HOLD,), (STABILIZE, MANUAL))
"""ArduSub modes to surface in, the best first."""
GCS_SURFACE = 4
"""FS_GCS_ENABLE: surface when the ground station is lost. Our silence would disarm the vehicle before that."""
NO_STICKS = ("link_lost", "autopilot_lost", "parameters_unknown")
"""Obstacles with which no stick can be sent at all."""
FAILSAFE_TEXTS = {
    "mode": ("depth sensor error",),
    "disarmed": ("lost manual control", "heartbeat lost", "ekf bad", "crash detected", "battery"),
}
"""Parts of its texts when a failsafe of its own changes the mode (to MANUAL), or disarms: failsafe.cpp."""


class Situation(NamedTuple):
    """What the link knows at a moment."""

    t: int
    """Monotonic ns."""
    wanted: Mode
    """The operator's mode."""
    engaged: bool
    live: bool
    """Whether our sticks steer; `engaged` before that, too."""
    leak: bool
    own_mode: int | None
    """The autopilot's mode while we are engaged; any other is somebody else's."""
    connection: ArdusubConnection


class OurControl(Enum):
    GOES_ON = "goes on"
    WAITS = "waits"
    """The text that tells who it was may come one read later."""
    ENDS = "ends"


class Alarm(NamedTuple):
    code: str
    text: str


class Decision(NamedTuple):
    """What becomes of our control in a tick."""

    control: OurControl
    why: Alarm | None = None
    """Why it ends."""
    since: int | None = None
    """Since when texts of the autopilot may explain it."""
    alarms: tuple[Alarm, ...] = ()
    left: bool = False
    """The autopilot has left our mode by itself: its present one is ours now."""


class ModeChange(Enum):
    OURS = "ours"
    """We asked for it, or go on in it."""
    ARRIVED = "arrived"
    """SURFACE has ended in ALT_HOLD, as at the surface."""
    DOUBTED = "doubted"
    PILOTS = "pilot's"


class Refusal(Enum):
    """What a refused command means."""

    OTHER_WAY = "other way"
    """It is dropped, and the vehicle surfaces without it."""
    AGAIN = "again"
    FINAL = "final"
    """The vehicle need not come up."""


class Doubt(NamedTuple):
    """A change of which it is not known yet who made it."""

    what: str
    """mode or disarmed."""
    since: int
    """Texts from then on may explain it."""
    seen_t: int


class Surfacing:
    """Whether the vehicle must come up, by which modes, and who changed what meanwhile."""

    def __init__(self) -> None:
        self.overruled: Mode | None = None
        """The operator's mode when the vehicle began to surface without it; our sticks stay neutral until he changes
        it."""
        self.doubt: Doubt | None = None
        self.tolerated = ""
        """Code of the obstacle that does not end our control only because the vehicle surfaces."""
        self.dropped: set[int] = set()
        """Modes that were refused, or have ended."""

    def needed(self, now: Situation) -> bool:
        """Must the vehicle surface, by the operator's mode or without it?"""
        return now.engaged and (now.wanted is Mode.SURFACE or self.overruled is not None)

    def urgent(self, now: Situation) -> bool:
        """Do we steer a vehicle that surfaces, or leaks?"""
        return now.live and (self.needed(now) or now.leak)

    # ---- one tick ----------------------------------------------------------------------------------------------

    def follow(self, now: Situation) -> None:
        """Begin a tick: another mode of the operator's counts again; a vehicle that is up may try all modes next
        time."""
        if self.overruled is not now.wanted:
            self.overruled = None
        if not self.needed(now):
            self.dropped.clear()

    def decide(self, now: Situation, obstacle: tuple[str, str]) -> Decision:
        """Does our control go on? `obstacle`: code and sentence of what forbids sticks, both empty when nothing
        does."""
        code, text = obstacle
        alarms = self._overcome(now, code, text) if code else ()
        if alarms is None:
            return Decision(OurControl.ENDS, Alarm(code, text))
        self.tolerated = code
        if self.doubt is None:
            return Decision(OurControl.GOES_ON, alarms=alarms)
        doubt, texts = self.doubt, now.connection.texts(self.doubt.since)
        if is_own_failsafe(doubt.what, texts):
            return self._go_on(now, doubt, texts, alarms)
        if doubt.seen_t == now.t:
            return Decision(OurControl.WAITS, alarms=alarms)
        self.doubt = None
        name = NAMES.get(now.connection.mode or 0, str(now.connection.mode))
        text = "the vehicle was disarmed" if doubt.what == "disarmed" else f"the vehicle's mode was changed to {name}"
        return Decision(OurControl.ENDS, Alarm(f"pilot_{doubt.what}", text), doubt.since, alarms)

    def reset(self) -> None:
        """Our control has ended."""
        self.overruled, self.doubt, self.tolerated = None, None, ""

    def _overcome(self, now: Situation, code: str, text: str) -> tuple[Alarm, ...] | None:
        """The alarms with which our control goes on in spite of this obstacle; None when it ends."""
        if not now.live or code in NO_STICKS:
            return None
        up = code == "gcs_lost" and now.connection.parameters.parameters.get("FS_GCS_ENABLE") == GCS_SURFACE
        if not self.needed(now) and (self.urgent(now) or up):
            self._begin(now)
        if not self.needed(now):
            return None
        return () if code == self.tolerated else (Alarm(code, f"{text}: our control goes on until it has surfaced"),)

    def _go_on(self, now: Situation, doubt: Doubt, texts: list[str], alarms: tuple[Alarm, ...]) -> Decision:
        """The autopilot disarmed, or changed its mode, by itself: surface all the same."""
        self.doubt, why = None, explanation(texts)
        if not self.needed(now):
            self._begin(now)
        if doubt.what == "disarmed":
            alarms += (Alarm("rearmed", f"the autopilot disarmed by itself{why}: armed again, to surface"),)
        # One heartbeat may tell of both: a crash, and a depth sensor that fails in it.
        left = doubt.what == "mode" or now.connection.mode != now.own_mode and is_own_failsafe("mode", texts)
        if left:  # ask no more for the modes that need what it has lost
            self.drop(SURFACE, now.connection.mode)
            on = self.drop(ALT_HOLD, now.connection.mode)
            alarms += (Alarm("surface_refused", f"the autopilot left the mode by itself{why}: {on}"),)
        return Decision(OurControl.GOES_ON, alarms=alarms, left=left)

    def _begin(self, now: Situation) -> None:
        """Surface from now on, whatever the operator's mode is."""
        self.dropped.clear()
        if now.wanted is not Mode.SURFACE:
            self.overruled = now.wanted

    # ---- what happens to it ------------------------------------------------------------------------------------

    def mode_changed(self, now: Situation, asked: bool) -> ModeChange:
        """The autopilot is in another mode than it was; `asked`: we asked for it."""
        mode = now.connection.mode
        if mode == SURFACE and not asked:
            self._begin(now)  # a failsafe, or the pilot: our silence would disarm it on its way
        elif mode == ALT_HOLD and now.own_mode == SURFACE and self.needed(now):
            self.drop(SURFACE, mode)
            return ModeChange.ARRIVED
        elif mode == MANUAL and self.urgent(now) and not asked:
            self.doubt = Doubt("mode", now.t, now.t)
            return ModeChange.DOUBTED
        elif not asked:
            return ModeChange.PILOTS
        return ModeChange.OURS

    def disarmed(self, now: Situation, since: int) -> bool:
        """The autopilot is disarmed, at `since` at the earliest; may it have been the autopilot itself?"""
        if not self.urgent(now):
            return False
        self.doubt = Doubt("disarmed", since, now.t)
        return True

    def refused(self, now: Situation, command: PendingCommand) -> tuple[Refusal, Alarm | None]:
        """The autopilot refused a command: what that means, and an alarm whose text is the end of a sentence."""
        if self.needed(now) and command.what == "mode":
            return Refusal.OTHER_WAY, Alarm("surface_refused", self.drop(int(command.second), now.connection.mode))
        if self.needed(now) and now.live:
            alarm = None if command.again else Alarm("command_refused", "asked again until it is armed")
            return Refusal.AGAIN, alarm
        if self.urgent(now):
            self._begin(now)
            return Refusal.OTHER_WAY, Alarm("command_refused", "the vehicle leaks, and surfaces")
        return Refusal.FINAL, Alarm("command_refused", "our control ends")

    # ---- the modes ---------------------------------------------------------------------------------------------

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
