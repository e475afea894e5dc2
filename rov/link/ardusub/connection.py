"""The state of one connection to an ArduSub autopilot, and what in it forbids to send sticks."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from pymavlink.dialects.v20 import common

from rov.link.ardusub.firmware import SWITCHES, first_gain
from rov.link.ardusub.parameters import ParameterPoller
from rov.link.ardusub.pilot_input import PilotInputMonitor
from rov.link.mavlink import MS
from rov.link.mavlink_link import ConnectionState

GCS_NS = 3000 * MS
"""The ground station's heartbeat may be this old while sticks leave."""
QUIET_AUTOPILOT_NS = 2000 * MS
"""The autopilot's heartbeat may be this old."""
GAIN_NS = 30_000 * MS
"""A gain older than this is unknown."""
TEXTS_MAX = 8
"""Texts of the autopilot that are kept, to explain what it does."""


@dataclass
class PendingCommand:
    """A command sent to the autopilot and not yet carried out."""

    what: str
    command: int
    first: float
    second: float
    since: int
    asked_t: int
    tries: int = 0
    accepted: bool = False
    again: bool = False
    """It was refused before, and that was reported."""
    refused: tuple[int, str] | None = None
    """When it was refused, and the answer. The text that gives the reason follows in the same read or the next."""


@dataclass
class ArdusubConnection(ConnectionState):
    """What is known of the autopilot in one connection; forgotten when it ends."""

    heartbeat_t: int | None = None
    type: int = 0
    booting: bool = False
    """Whether its last heartbeat reported a start: then a restart disarmed it, and not its pilot."""
    mode: int | None = None
    armed: bool = False
    gcs_t: int | None = None
    pilot_input: PilotInputMonitor = field(default_factory=PilotInputMonitor)
    parameters: ParameterPoller = field(default_factory=ParameterPoller)
    gain: float | None = None
    gain_t: int = 0
    switched: dict[str, bool] = field(default_factory=dict)
    """The pilot's switches that change what sticks do (SWITCHES), by name."""
    last_text: deque[tuple[int, str]] = field(default_factory=lambda: deque(maxlen=TEXTS_MAX))
    """The autopilot's status texts with their times: the only place where it gives the reason of a refusal."""
    depth_failed: bool = False
    """The autopilot reports that its depth sensor has failed: it goes on sending the last reading."""

    def obstacle(self, t: int, port: str) -> tuple[str, str]:
        """Code and sentence of what forbids sticks at `t`; empty when nothing does. `port`: its path, for the text."""
        if self.heartbeat_t is None or t - self.heartbeat_t > QUIET_AUTOPILOT_NS:
            return "autopilot_lost", "no heartbeat of the autopilot for 2 s"
        if self.type != common.MAV_TYPE_SUBMARINE:
            return "not_ardusub", "the autopilot does not say that it is ArduSub"
        code, text = self.parameters.obstacle()
        if code:
            return code, text
        if self.gcs_t is None or t - self.gcs_t > GCS_NS:
            where = f"(system {self.parameters.ground_station}) for 3 s on {port}"
            text = f"no heartbeat of the ground station {where}: sticks of ours would hide its loss from the autopilot"
            return "gcs_lost", f"{text}; start it, or have its heartbeat forwarded"
        if switched := [SWITCHES[name] for name, on in self.switched.items() if on]:
            return "pilot_switch", switched[0]
        return "", ""

    def pilot_gain(self, t: int) -> float:
        """The pilot's gain: the one that the autopilot reports, else the one with which it starts."""
        if self.gain is not None and t - self.gain_t < GAIN_NS:
            return self.gain
        return first_gain(self.parameters.parameters)

    def texts(self, since: int) -> list[str]:
        """The autopilot's texts that arrived at `since` or later."""
        return [text for t, text in self.last_text if t >= since]


def explanation(texts: Sequence[str]) -> str:
    """The autopilot's texts, as the end of a sentence."""
    return f' (it says "{"; ".join(texts)}")' if texts else ""
