"""Base class of the links: reopens a lost port, drops old and repeated frames, keeps the vehicle's state, writes all or
nothing, and reports events. A link adds its own rules.

Nothing in here waits. Time is an argument, monotonic ns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec
from pymavlink.dialects.v20 import common

from rov.link.mavlink import MS, QUIET_NS, MavlinkFrame, Packer, Parser, SenderClock
from rov.link.plausibility import PlausibilityCheck
from rov.link.vehicle_state import Telemetry
from rov.messages import Event, Level, Mode, VehicleState

if TYPE_CHECKING:
    from rov.link.transport import Transport

REOPEN_NS = (200 * MS, 2000 * MS)
"""First and longest wait before a port is reopened; doubled each time until a frame of the vehicle arrives."""
HEARTBEAT_NS = 1000 * MS
"""Period of our own heartbeat."""
BLOCKED_NS = 200 * MS
"""A port that accepts no bytes for this long has its queue discarded, so that stale commands never run."""
SHORTEST = 12
"""Bytes of a frame without payload."""
DOUBTED_NS = 10_000 * MS
"""An implausible reading is reported again after a pause of this."""
ARM_DISARM = common.MAV_CMD_COMPONENT_ARM_DISARM
RESULTS = {value: entry.name for value, entry in common.enums["MAV_RESULT"].items()}


@dataclass
class ConnectionState:
    """State of one connection; forgotten when it ends."""

    clock: SenderClock = field(default_factory=SenderClock)
    plausibility: PlausibilityCheck = field(default_factory=PlausibilityCheck)
    doubted: str = ""
    doubted_t: int = 0
    """Why a reading was last not believed, and when."""
    sequence: int | None = None
    received_t: int | None = None
    known: bool = False
    """Whether `link_open` was reported: the other end has answered, and can be lost."""
    heartbeat_sent_t: int = -HEARTBEAT_NS
    blocked_t: int | None = None
    blocked_reported: bool = False


@dataclass
class Counters:
    """What happened on the wire since the start."""

    bytes_in: int = 0
    bytes_out: int = 0
    sent: int = 0
    """Commands the port accepted."""
    dropped: int = 0
    """Commands it did not accept, or that came without time advancing."""
    bad_commands: int = 0
    """Commands not finite or of the wrong length: sent as neutral."""
    received: int = 0
    """Messages accepted."""
    skipped: int = 0
    """Bytes that belonged to no frame."""
    broken: int = 0
    """Frames with a wrong checksum."""
    lost: int = 0
    """Frames missing from the sequence numbers."""
    repeated: int = 0
    """The same frame or measurement again."""
    old: int = 0
    """Frames or measurements overtaken by newer ones."""
    foreign: int = 0
    """Frames that are not the vehicle's, and echoes of commands that were not ours."""
    implausible: int = 0
    """Messages that arrived whole with impossible values: not finite, or out of range."""
    losses: int = 0
    """Times the port was lost."""

    @property
    def spoiled(self) -> int:
        """Frames damaged, lost, repeated or delayed on the wire; garbage counts as the frames that would fit in it."""
        return self.broken + self.lost + self.repeated + self.old + self.skipped // SHORTEST


C = TypeVar("C", bound=ConnectionState)


class MavlinkLink(ABC, Generic[C]):
    """A port, the frames received on it, and the vehicle's state."""

    loss_consequence = "neutral until armed again"
    """The consequence of a lost link, as the end of a sentence."""

    def __init__(
        self,
        port: Transport,
        parser: Parser,
        packer: Packer,
        connection_type: type[C],
        surface_pa: float,
        density: float,
    ):
        """`surface_pa`: air pressure at the surface in Pa; `density` of the water in kg/m³. Both may be set while
        running."""
        self.port, self.parser, self.packer = port, parser, packer
        self.telemetry = Telemetry(surface_pa, density)
        self.mode = Mode.MANUAL
        """The pilot's mode; the commander sets it."""
        self.counters = Counters()
        self.pending: list[Event] = []
        self.reopen_t, self.reopen_ns = 0, REOPEN_NS[0]
        self.absent_reported = False
        self.received: bytes | OSError | None = None
        """What `receive` read and `poll` has not yet processed."""
        self.new_connection = connection_type
        self.connection = connection_type()

    @property
    def state(self) -> VehicleState | None:
        """The vehicle's state as it reports it; None until something was received."""
        return self.telemetry.state

    @property
    def surface_pa(self) -> float:
        return self.telemetry.surface_pa

    @surface_pa.setter
    def surface_pa(self, pascal: float) -> None:
        self.telemetry.surface_pa = pascal

    @property
    def density(self) -> float:
        return self.telemetry.density

    @density.setter
    def density(self, density: float) -> None:
        self.telemetry.density = density

    # ---- what a link adds --------------------------------------------------------------------------------------

    @abstractmethod
    def _idle(self, t: int) -> None:
        """Stop commanding the vehicle."""

    def _opened(self, t: int) -> None:
        """Called when the port was opened."""

    @abstractmethod
    def _restarted(self, t: int) -> None:
        """Called when the other end has restarted."""

    def _forget(self) -> None:
        """Forget the connection."""
        self.parser.reset()
        self.received = None
        self.connection = self.new_connection()

    # ---- the port ----------------------------------------------------------------------------------------------

    def receive(self) -> None:
        """Read the port, for the next `poll`, whose time is read after this."""
        if self.port.is_open and self.received is None:
            try:
                self.received = self.port.read()
            except OSError as error:
                self.received = error

    def _receive_frames(self, t: int) -> list[MavlinkFrame]:
        """The frames that have arrived; (re)opens the port."""
        if not self.port.is_open and t >= self.reopen_t:
            self._open(t)
        self.receive()
        data, self.received = self.received, None
        if isinstance(data, OSError):
            self._disconnect(t, str(data))
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
            return self._report_absent(t, reason)
        self._forget()
        self._opened(t)

    def _connected(self, t: int, text: str) -> None:
        """The other end has answered."""
        self.connection.known, self.absent_reported = True, False
        self._event(t, "info", "link_open", text)

    def _report_absent(self, t: int, reason: str) -> None:
        if not self.absent_reported:
            self.absent_reported = True
            self._event(t, "warning", "link_absent", f"{reason}; trying again")

    def _disconnect(self, t: int, reason: str, code: str = "link_lost") -> None:
        """The other end is gone: close the port and forget the connection."""
        self.port.close()
        self.reopen_t = t + self.reopen_ns
        if self.connection.known:
            self.counters.losses += 1
            self._event(t, "alarm", code, f"{self.port.path}: {reason}: {self.loss_consequence}")
        else:
            self._report_absent(t, f"{self.port.path}: {reason}")
        self._idle(t)
        self._forget()

    def _write(self, data: bytes, t: int) -> bool:
        """Write all of these bytes or none; returns whether the port accepted them."""
        try:
            taken = self.port.write(data)
            if not taken and self.connection.known:
                self._handle_blocked(t)
        except OSError as error:
            self._disconnect(t, str(error))
            return False
        if taken:
            if self.connection.blocked_reported:
                self._event(t, "info", "link_blocked_over", f"{self.port.path} accepts commands again")
            self.connection.blocked_t, self.connection.blocked_reported = None, False
            self.counters.bytes_out += len(data)
        return taken

    def _handle_blocked(self, t: int) -> None:
        """The port accepted no bytes. After BLOCKED_NS discard its queue, so that stale commands never run."""
        if self.connection.blocked_t is None:
            self.connection.blocked_t = t
        elif t - self.connection.blocked_t > BLOCKED_NS:
            if not self.connection.blocked_reported:
                self._event(
                    t, "alarm", "link_blocked", f"{self.port.path} accepts no more bytes: its queue is discarded"
                )
            self.connection.blocked_t, self.connection.blocked_reported = t, True
            self.port.discard()

    def _heartbeat_frame(self) -> bytes:
        kind, none = common.MAV_TYPE_ONBOARD_CONTROLLER, common.MAV_AUTOPILOT_INVALID
        return self.packer.pack(common.MAVLink_heartbeat_message(kind, none, 0, 0, common.MAV_STATE_ACTIVE, 3))

    # ---- receiving ---------------------------------------------------------------------------------------------

    def _is_newer(self, sequence: int, t: int) -> bool:
        """Is this frame of the vehicle neither repeated nor overtaken? If so, it counts as received."""
        if self.connection.sequence is not None:
            ahead = (sequence - self.connection.sequence) % 256
            if ahead == 0:
                self.counters.repeated += 1
                return False
            if self.connection.received_t is not None and t - self.connection.received_t <= QUIET_NS:
                if ahead > 127:
                    self.counters.old += 1
                    return False
                self.counters.lost += ahead - 1
        self.connection.sequence, self.connection.received_t = sequence, t
        self.counters.received += 1
        self.reopen_ns = REOPEN_NS[0]
        self.telemetry.receive(t)
        return True

    def _measurement(self, message: Any, t: int) -> None:
        """Accept a message that carries the sender's time, if it is newer than what is known and plausible."""
        kind, stamp = message.get_type(), message.time_boot_ms
        if self.connection.clock.restarted(kind, stamp, t):
            self._restarted(t)
        measured_t = self.connection.clock.measured(kind, stamp, t)
        if measured_t is None:
            self.counters.old += 1
        else:
            before = self.state
            self._update_telemetry(message, t, measured_t)
            if reason := self.connection.plausibility.reason(changed_fields(before, self.state), t):
                self.telemetry.state = before
                self._disbelieve(t, reason)

    def _update_telemetry(self, message: Any, t: int, measured_t: int | None = None) -> None:
        """Take the vehicle's state from a message; `measured_t` where it carries its time."""
        self.counters.implausible += not self.telemetry.update(message, t, measured_t)

    def _disbelieve(self, t: int, reason: str) -> None:
        """Report an implausible reading: once, and again after a pause of DOUBTED_NS."""
        self.counters.implausible += 1
        if reason != self.connection.doubted or t - self.connection.doubted_t > DOUBTED_NS:
            self._event(t, "warning", "not_believed", f"{reason}; not used")
        self.connection.doubted, self.connection.doubted_t = reason, t

    def _update_state(self, **changes: Any) -> None:
        assert self.state is not None
        self.telemetry.state = msgspec.structs.replace(self.state, **changes)

    def _event(self, t: int, level: Level, code: str, text: str) -> None:
        self.pending.append(Event(t=t, level=level, source="link", code=code, text=text))


def changed_fields(before: VehicleState | None, after: VehicleState | None) -> dict[str, Any]:
    """Attitude and depth, where `after` has a new measurement of them."""
    if after is None:
        return {}
    angles = {"roll": after.roll, "pitch": after.pitch, "yaw": after.yaw}
    new_attitude = after.attitude_t != (before.attitude_t if before else None)
    new_depth = after.depth_t != (before.depth_t if before else None)
    return (angles if new_attitude else {}) | ({"depth": after.depth} if new_depth else {})
