"""What every link does with its port: opens it again when it is gone, takes frames in their order, keeps what they say
of the vehicle, writes all or nothing, and says what happened. A link is a `Line` with rules of its own.

Nothing in here waits. Time is an argument, monotonic ns.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import msgspec
from pymavlink.dialects.v20 import common

from rov.link.mavlink import MS, QUIET_NS, Frame, Packer, Parser, SenderClock
from rov.messages import Event, Mode, VehicleState

if TYPE_CHECKING:
    from rov.link.way import Way

REOPEN_NS = (200 * MS, 2000 * MS)
"""First and longest wait before a port is opened again; doubled each time until the vehicle is heard."""
BEAT_NS = 1000 * MS
"""Our own heartbeat."""
BLOCKED_NS = 200 * MS
"""A port that takes nothing for this long has its queue thrown away: those commands are history."""
SHORTEST = 12
"""Bytes of a frame without content."""
PRESSURE_PA = (1e4, 1.3e8)
"""Water pressures that are believed: from a mountain lake to below the deepest sea."""
GRAVITY = 9.80665
UNKNOWN_MV = 0xFFFF
ARM_DISARM = common.MAV_CMD_COMPONENT_ARM_DISARM
RESULTS = {value: entry.name for value, entry in common.enums["MAV_RESULT"].items()}

Level = Literal["info", "warning", "alarm"]


@dataclass
class Wire:
    """What one connection has carried; forgotten when it ends."""

    clock: SenderClock = field(default_factory=SenderClock)
    sequence: int | None = None
    heard_t: int | None = None
    known: bool = False
    """Whether `link_open` was said: somebody is there, who can be lost."""
    beat_t: int = -BEAT_NS
    blocked_t: int | None = None
    blocked_said: bool = False


@dataclass
class Counters:
    """What went wrong on the wire, and what went right, since the start."""

    bytes_in: int = 0
    bytes_out: int = 0
    sent: int = 0
    """Commands the port took."""
    dropped: int = 0
    """Commands it did not take, or that came without time advancing."""
    bad_commands: int = 0
    """Commands not finite or of the wrong length: sent as neutral."""
    received: int = 0
    """Messages accepted."""
    skipped: int = 0
    """Bytes that belonged to no frame."""
    broken: int = 0
    """Frames with a wrong checksum."""
    lost: int = 0
    """Frames that the sequence numbers miss."""
    repeated: int = 0
    """The same frame or measurement again."""
    old: int = 0
    """Frames or measurements overtaken by newer ones."""
    foreign: int = 0
    """Frames of others than the vehicle, and echoes of commands that were not ours."""
    implausible: int = 0
    """Whole, and senseless: not finite, or out of any range."""
    losses: int = 0
    """Times the port was lost."""

    @property
    def spoiled(self) -> int:
        """Frames that the line damaged, lost, repeated or delayed; garbage counts as the frames it has room for."""
        return self.broken + self.lost + self.repeated + self.old + self.skipped // SHORTEST


W = TypeVar("W", bound=Wire)


class Line(ABC, Generic[W]):
    """A port, and what is heard on it."""

    lost = "neutral until armed again"
    """What a loss means, as the end of a sentence."""

    def __init__(self, port: Way, parser: Parser, packer: Packer, wire: type[W], surface_pa: float, density: float):
        """`surface_pa`: air pressure at the surface in Pa; `density` of the water in kg/m³. Both may be set while
        running."""
        self.port, self.parser, self.packer = port, parser, packer
        self.surface_pa, self.density = surface_pa, density
        self.mode = Mode.MANUAL
        """What the pilot does, set by whoever sends."""
        self.counters = Counters()
        self.state: VehicleState | None = None
        """What the vehicle says; None until it is heard."""
        self.pending: list[Event] = []
        self.reopen_t, self.reopen_ns = 0, REOPEN_NS[0]
        self.absent_said = False
        self.received: bytes | OSError | None = None
        """What `receive` found and `poll` has not yet judged."""
        self.new_wire = wire
        self.wire = wire()

    # ---- what a link adds --------------------------------------------------------------------------------------

    @abstractmethod
    def _idle(self, t: int) -> None:
        """Nothing of ours moves the vehicle from now on."""

    def _opened(self, t: int) -> None:
        """The port was opened."""

    @abstractmethod
    def _restarted(self, t: int) -> None:
        """The other end's clock began anew."""

    def _forget(self) -> None:
        """Nothing is known of what this port leads to."""
        self.parser.reset()
        self.received = None
        self.wire = self.new_wire()

    # ---- the port ----------------------------------------------------------------------------------------------

    def receive(self) -> None:
        """Take from the port what is there, for the next `poll`, whose time is read after this."""
        if self.port.is_open and self.received is None:
            try:
                self.received = self.port.read()
            except OSError as error:
                self.received = error

    def _frames(self, t: int) -> list[Frame]:
        """What has arrived; (re)opens the port."""
        if not self.port.is_open and t >= self.reopen_t:
            self._open(t)
        self.receive()
        self.wire.clock.polled(t)
        data, self.received = self.received, None
        if isinstance(data, OSError):
            self._lose(t, str(data))
        if not isinstance(data, bytes):
            return []
        self.counters.bytes_in += len(data)
        frames = self.parser.feed(data)
        self.counters.skipped, self.counters.broken = self.parser.skipped, self.parser.broken
        return frames

    def _open(self, t: int) -> None:
        reason = self.port.open()
        self.reopen_t = t + self.reopen_ns
        self.reopen_ns = min(2 * self.reopen_ns, REOPEN_NS[1])
        if reason:
            return self._absent(t, reason)
        self._forget()
        self._opened(t)

    def _meet(self, t: int, text: str) -> None:
        """Somebody is there."""
        self.wire.known, self.absent_said = True, False
        self._event(t, "info", "link_open", text)

    def _absent(self, t: int, reason: str) -> None:
        if not self.absent_said:
            self.absent_said = True
            self._event(t, "warning", "link_absent", f"{reason}; trying again")

    def _lose(self, t: int, reason: str, code: str = "link_lost") -> None:
        """The other end is gone. Whatever comes back is not known."""
        self.port.close()
        self.reopen_t = t + self.reopen_ns
        if self.wire.known:
            self.counters.losses += 1
            self._event(t, "alarm", code, f"{self.port.path}: {reason}: {self.lost}")
        else:
            self._absent(t, f"{self.port.path}: {reason}")
        self._idle(t)
        self._forget()

    def _handed(self, data: bytes, t: int) -> bool:
        """Did the port take these bytes? All of them, or none."""
        try:
            taken = self.port.write(data)
            if not taken and self.wire.known:
                self._blocked(t)
        except OSError as error:
            self._lose(t, str(error))
            return False
        if taken:
            if self.wire.blocked_said:
                self._event(t, "info", "link_blocked_over", f"{self.port.path} takes commands again")
            self.wire.blocked_t, self.wire.blocked_said = None, False
            self.counters.bytes_out += len(data)
        return taken

    def _blocked(self, t: int) -> None:
        """The port took nothing. After a while its queue is history: what comes back shall not act on it."""
        if self.wire.blocked_t is None:
            self.wire.blocked_t = t
        elif t - self.wire.blocked_t > BLOCKED_NS:
            if not self.wire.blocked_said:
                self._event(t, "alarm", "link_blocked", f"{self.port.path} takes no more bytes: its queue is discarded")
            self.wire.blocked_t, self.wire.blocked_said = t, True
            self.port.discard()

    def _beat(self) -> bytes:
        kind, none = common.MAV_TYPE_ONBOARD_CONTROLLER, common.MAV_AUTOPILOT_INVALID
        return self.packer.pack(common.MAVLink_heartbeat_message(kind, none, 0, 0, common.MAV_STATE_ACTIVE, 3))

    # ---- what is heard -----------------------------------------------------------------------------------------

    def _newer(self, sequence: int, t: int) -> bool:
        """Is this frame of the vehicle's neither the last one again nor overtaken? If so, it counts as heard."""
        if self.wire.sequence is not None:
            ahead = (sequence - self.wire.sequence) % 256
            if ahead == 0:
                self.counters.repeated += 1
                return False
            if self.wire.heard_t is not None and t - self.wire.heard_t <= QUIET_NS:
                if ahead > 127:
                    self.counters.old += 1
                    return False
                self.counters.lost += ahead - 1
        self.wire.sequence, self.wire.heard_t = sequence, t
        self.counters.received += 1
        self.reopen_ns = REOPEN_NS[0]
        self.state = msgspec.structs.replace(self.state, t=t) if self.state else VehicleState(t=t)
        return True

    def _measurement(self, message: Any, t: int) -> None:
        """Take a message with the sender's time, if it is newer than what is known and makes sense."""
        kind, stamp = message.get_type(), message.time_boot_ms
        if self.wire.clock.restarted(kind, stamp, t):
            self._restarted(t)
        measured_t = self.wire.clock.measured(kind, stamp, t)
        if measured_t is None:
            self.counters.old += 1
        elif (news := self._news(message, measured_t, t)) is None:
            self.counters.implausible += 1
        else:
            self._update(**news)

    def _news(self, message: Any, measured_t: int, t: int) -> dict[str, Any] | None:
        """Fields of the state that a message sets; None when it makes no sense."""
        match message:
            case common.MAVLink_attitude_message():
                angles = (message.roll, message.pitch, message.yaw)
                rates = (message.rollspeed, message.pitchspeed, message.yawspeed)
                if all(map(math.isfinite, (*angles, *rates))):
                    roll, pitch, yaw = angles
                    return {"attitude_t": measured_t, "roll": roll, "pitch": pitch, "yaw": yaw, "rates": rates}
            case common.MAVLink_scaled_pressure2_message():
                pressure = message.press_abs * 100  # hPa
                if PRESSURE_PA[0] < pressure < PRESSURE_PA[1]:
                    depth = (pressure - self.surface_pa) / (self.density * GRAVITY)
                    return {"depth_t": measured_t, "depth": depth}
            case common.MAVLink_scaled_pressure_message():
                if math.isfinite(message.press_abs) and message.press_abs >= 0:
                    celsius = message.temperature / 100
                    return {"hull_pressure_kpa": message.press_abs / 10, "hull_temperature_c": celsius}
        return None

    def _update(self, **news: Any) -> None:
        assert self.state is not None
        self.state = msgspec.structs.replace(self.state, **news)

    def _event(self, t: int, level: Level, code: str, text: str) -> None:
        self.pending.append(Event(t=t, level=level, source="link", code=code, text=text))


def volts_of(message: Any) -> float | None:
    """A BATTERY_STATUS's voltage; None where it has none. Whether cell by cell or as a whole in the first (and second)
    place, it is their sum."""
    known = [mv for mv in message.voltages if mv != UNKNOWN_MV] + list(message.voltages_ext)
    return sum(known) / 1000 if any(known) else None
