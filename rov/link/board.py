"""The link to a thruster board: state in, thruster commands out, MAVLink 2 on a serial port (`systemd/BOARD.md`).

Nothing in here waits: not for the port, the board or a full buffer. Time is an argument, monotonic ns. The board is
only let loose after it has shown, in this connection, that it stops by itself when commands stop.
"""

from __future__ import annotations

import contextlib
import math
import os
import termios
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal, NamedTuple

import msgspec
import serial
from pymavlink.dialects.v20 import common

from rov.link.mavlink import MS, QUIET_NS, Frame, Packer, Parser, SenderClock
from rov.messages import Event, Mode, VehicleState

READ_MAX = 4096
"""Bytes parsed per poll: at 50 Hz twice what 921,600 baud carries."""
REOPEN_NS = (200 * MS, 2000 * MS)
"""First and longest wait before a port is opened again; doubled each time until the board is heard."""
BEAT_NS = 1000 * MS
"""Our own heartbeat."""
REPEAT_NS = 100 * MS
"""Arming and disarming are asked for this often until the board's heartbeat shows it done."""
BLOCKED_NS = 200 * MS
"""A port that takes nothing for this long has its queue thrown away: those commands are history."""
UNANSWERED_NS = 300 * MS
"""A live board that echoes nothing newer for this long is not hearing us, whatever the port pretends to send: a pty
takes 20 kB, 7 s of commands, before it blocks."""
NOISE_NS, NOISE_FRAMES = 1000 * MS, 5
"""A line on which more frames than this are damaged, lost or out of order in that time is said to be noisy: of 180."""
SHORTEST = 12
"""Bytes of a frame without content."""
BATTERY_NS = 5000 * MS
"""An older voltage is unknown."""

WATCHDOG_NS = 500 * MS
"""The board goes neutral this long after the last valid, advancing command."""
WATCHDOG_EARLY_NS, WATCHDOG_LATE_NS = 100 * MS, 200 * MS
"""How far from that the arming test lets it be, seen from here: two ticks, the wire, and the board's own tick."""
WAKE_NS = 1000 * MS
"""Time for the board to arm and echo."""
WHISPER = 0.001
"""The command of the arming test: 0.4 µs of pulse width. No thruster turns (a T200's dead band is ±28 µs), and no
output that counts whole microseconds even changes; but the echo, which is not rounded, shows that it is applied."""

PRESSURE_PA = (1e4, 1.3e8)
"""Water pressures that are believed: from a mountain lake to below the deepest sea."""
GRAVITY = 9.80665
GROUP = 8
"""Thrusters per SET_ACTUATOR_CONTROL_TARGET."""
UNKNOWN_MV = 0xFFFF
ARM_DISARM = common.MAV_CMD_COMPONENT_ARM_DISARM
RESULTS = {value: entry.name for value, entry in common.enums["MAV_RESULT"].items()}

Level = Literal["info", "warning", "alarm"]


class Stage(str, Enum):
    """How far the board is trusted. Only in LIVE do thruster values leave."""

    IDLE = "idle"  # neutral, the board disarmed
    ROUSING = "rousing"  # arming test: the board is armed, and shall echo WHISPER
    SILENT = "silent"  # arming test: no commands; the board shall disarm and go neutral
    RESUMING = "resuming"  # it did; it is armed again, on neutral
    LIVE = "live"


class Echo(NamedTuple):
    """What the board last said that it applies."""

    t: int
    """When that arrived."""
    sent_t: int
    """Time stamp of the command it applies, as given to `send`, to the µs."""
    values: tuple[float, ...]


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
    """Frames of others than the board, and echoes of commands that were not ours."""
    implausible: int = 0
    """Whole, and senseless: not finite, or out of any range."""
    losses: int = 0
    """Times the port was lost."""

    @property
    def spoiled(self) -> int:
        """Frames that the line damaged, lost, repeated or delayed; garbage counts as the frames it has room for."""
        return self.broken + self.lost + self.repeated + self.old + self.skipped // SHORTEST


class Port:
    """A serial port that never blocks. All methods but `open` may raise OSError when the device is gone."""

    def __init__(self, path: str, baud: int):
        self.path = path
        self.baud = baud
        self.serial: serial.Serial | None = None
        self.unsent = b""
        """The rest of what the kernel took only in part."""

    @property
    def is_open(self) -> bool:
        return self.serial is not None

    def open(self) -> str:
        """Open it for ourselves alone; returns why not, or nothing. What lay in its queues is discarded."""
        try:
            self.serial = serial.Serial(self.path, self.baud, timeout=0, write_timeout=0, exclusive=True)
        except (OSError, ValueError, termios.error) as error:  # missing or busy; a baud rate it cannot do; just gone
            return str(error)
        return ""

    def read(self) -> bytes:
        """What is there, at most READ_MAX bytes."""
        assert self.serial is not None
        data: bytes = self.serial.read(READ_MAX)
        return data

    def write(self, data: bytes) -> bool:
        """Send all of it, or nothing and return False.

        What the kernel takes only in part is finished before anything else is sent: a frame that was cut would cost
        the board the next one too. The system call is our own because pyserial's spins until there is room, even with
        a time-out of zero (pyserial issue 280).
        """
        if self.unsent:
            self.unsent = self.unsent[self._take(self.unsent) :]
            if self.unsent:
                return False
        taken = self._take(data)
        self.unsent = data[taken:] if taken else b""
        return taken > 0

    def _take(self, data: bytes) -> int:
        """How many of these bytes the kernel took."""
        assert self.serial is not None
        try:
            return os.write(self.serial.fileno(), data)
        except BlockingIOError:
            return 0

    def discard(self) -> None:
        """Throw away what was written and not yet sent."""
        self.unsent = b""
        if self.serial is not None:
            with contextlib.suppress(termios.error):  # gone: the next read says so
                termios.tcflush(self.serial.fileno(), termios.TCOFLUSH)

    def close(self) -> None:
        """Close it; the next `open` starts clean."""
        if self.serial is not None:
            self.serial.close()
        self.serial = None
        self.unsent = b""


@dataclass
class Wire:
    """What one connection has carried; forgotten when it ends."""

    clock: SenderClock = field(default_factory=SenderClock)
    sequence: int | None = None
    heard_t: int | None = None
    battery_t: int = 0
    armed: bool | None = None
    """By the board's heartbeat; None while not known."""
    answer: str = ""
    """The board's last answer to arming or disarming, as MAVLink names it."""
    echo: Echo | None = None
    echo_parts: dict[int, tuple[int, list[float]]] = field(default_factory=dict)
    """Newest of each group: stamp and controls."""
    sent_us: int = 0
    """Stamp of the last command."""
    sent_t: int = 0
    unanswered_t: int | None = None
    """Since when nothing newer was echoed, while there was something to echo."""
    asked_t: int = -REPEAT_NS
    beat_t: int = -BEAT_NS
    blocked_t: int | None = None
    blocked_said: bool = False


class ThrusterLink:
    """A thruster board on a serial port. Each tick: `poll`, then `send`. `arm` starts the arming test, `disarm` ends
    everything at once; whoever wants to move waits for `live`, and disarms when it ends."""

    def __init__(
        self,
        port: str,
        baud: int,
        motors: int,
        *,
        system: int = 1,
        component: int = common.MAV_COMP_ID_ONBOARD_COMPUTER,
        board: tuple[int, int] = (1, common.MAV_COMP_ID_AUTOPILOT1),
        surface_pa: float = 101_325.0,
        density: float = 1025.0,
    ):
        """`system` and `component` are ours, `board` the board's. `surface_pa`: air pressure at the surface in Pa;
        `density` of the water in kg/m³. Both may be set while running."""
        self.port = Port(port, baud)
        self.motors = motors
        self.address = board
        self.surface_pa = surface_pa
        self.density = density
        self.mode = Mode.MANUAL
        """What the pilot does. A board has no modes; autopilots do."""
        self.parser = Parser()
        self.packer = Packer(system, component)
        self.counters = Counters()
        self.state: VehicleState | None = None
        """What the board says; None until it is heard."""
        self.stage = Stage.IDLE
        self.pending: list[Event] = []
        self.neutral = (0.0,) * motors
        self.stage_t = 0
        self.reopen_t = 0
        self.reopen_ns = REOPEN_NS[0]
        self.absent_said = False
        self.noise_t = self.noise_count = 0
        self.noisy = False
        self.wire = Wire()

    @property
    def live(self) -> bool:
        """Has the board been tested and armed, and does it hear us?"""
        return self.stage is Stage.LIVE

    @property
    def echo(self) -> Echo | None:
        """What the board last said that it applies, in this connection."""
        return self.wire.echo

    @property
    def testing(self) -> bool:
        """Is an arming under way?"""
        return self.stage in (Stage.ROUSING, Stage.SILENT, Stage.RESUMING)

    # ---- what may be asked of it -------------------------------------------------------------------------------

    def arm(self, t: int) -> str:
        """Start the arming test; returns why not, or nothing. It takes about 0.6 s, and ends in `live` or an event
        `arming_failed`. The board must be heard and disarmed."""
        if self.live or self.testing:
            return ""
        if not self.port.is_open:
            return f"{self.port.path} is not open"
        if self.wire.heard_t is None or t - self.wire.heard_t > QUIET_NS:
            return "nothing is heard from the thruster board"
        if self.wire.armed is not False:
            return "the thruster board does not say that it is disarmed"
        self._enter(Stage.ROUSING, t)
        return ""

    def disarm(self, t: int) -> None:
        """Neutral and disarmed at once, past everything that still waits to be sent; repeated by `send` until the
        board says that it is."""
        self._enter(Stage.IDLE, t)
        if self.wire.armed is False:
            self.wire.armed = None  # an arming may be on its way to it
        if not self.port.is_open:
            return
        if self.port.unsent or self._unanswered(t) > REPEAT_NS:
            self.port.discard()
        self.wire.asked_t = t
        self._write(self._command(self.neutral, t) + self._ask(armed=False), t, command=True)

    def close(self, t: int) -> None:
        """Disarm, as far as that is still possible, and close the port. The next `poll` opens it again."""
        self.disarm(t)
        if self._unanswered(t) > UNANSWERED_NS:
            self.port.discard()  # or closing would wait for what nobody reads
        self.port.close()
        self._forget()

    # ---- one tick ----------------------------------------------------------------------------------------------

    def poll(self, t: int) -> tuple[Event, ...]:
        """Take in what has arrived, (re)open the port, move the arming test on; returns what happened."""
        if not self.port.is_open and t >= self.reopen_t:
            self._open(t)
        if self.port.is_open:
            try:
                data = self.port.read()
            except OSError as error:
                self._lose(t, str(error))
            else:
                self.counters.bytes_in += len(data)
                for frame in self.parser.feed(data):
                    self._hear(frame, t)
                self.counters.skipped, self.counters.broken = self.parser.skipped, self.parser.broken
        if self.state is not None and self.state.battery_v is not None and t - self.wire.battery_t > BATTERY_NS:
            self.state = msgspec.structs.replace(self.state, battery_v=None)
        self._judge(t)
        self._listen_for_noise(t)
        events, self.pending = tuple(self.pending), []
        return events

    def send(self, values: Sequence[float], armed: bool, t: int) -> None:
        """The tick's command, −1..1 per thruster, motor 1 first. Values leave only while the link is live and `armed`;
        else neutral does, or what the arming test needs. `armed` False in LIVE disarms the board."""
        if self.live and not armed:
            return self.disarm(t)
        if not self.port.is_open:
            return
        command = self.stage is not Stage.SILENT
        if command and t // 1000 <= self.wire.sent_us:  # time stands still: that must not keep a board awake
            self.counters.dropped += 1
            return
        data = self._command(self._values(values), t) if command else b""
        waking = self.stage in (Stage.ROUSING, Stage.RESUMING) and not self.wire.armed
        resting = self.stage is Stage.IDLE and self.wire.armed is not False
        asking = (waking or resting) and t - self.wire.asked_t >= REPEAT_NS
        beating = t - self.wire.beat_t >= BEAT_NS
        data += (self._ask(waking) if asking else b"") + (self._beat() if beating else b"")
        if data and self._write(data, t, command):
            self.wire.asked_t = t if asking else self.wire.asked_t
            self.wire.beat_t = t if beating else self.wire.beat_t

    def _values(self, values: Sequence[float]) -> Sequence[float]:
        """What may leave at this stage."""
        if self.stage is Stage.ROUSING:
            return (WHISPER,) * self.motors
        if self.stage is not Stage.LIVE:
            return self.neutral
        if len(values) != self.motors or not all(map(math.isfinite, values)):
            self.counters.bad_commands += 1
            return self.neutral
        return [min(max(value, -1.0), 1.0) for value in values]

    # ---- out ---------------------------------------------------------------------------------------------------

    def _stamp(self, t: int) -> int:
        """Time of the next command in µs; always later than the last one's."""
        return max(t // 1000, self.wire.sent_us + 1)

    def _command(self, values: Sequence[float], t: int) -> bytes:
        """SET_ACTUATOR_CONTROL_TARGET for all thrusters, eight to a group."""
        frames = b""
        for group, first in enumerate(range(0, self.motors, GROUP)):
            controls = [*values[first : first + GROUP], *(0.0,) * GROUP][:GROUP]
            frames += self.packer.pack(
                common.MAVLink_set_actuator_control_target_message(self._stamp(t), group, *self.address, controls)
            )
        return frames

    def _ask(self, armed: bool) -> bytes:
        """COMMAND_LONG to arm or disarm."""
        return self.packer.pack(
            common.MAVLink_command_long_message(*self.address, ARM_DISARM, 0, float(armed), 0, 0, 0, 0, 0, 0)
        )

    def _beat(self) -> bytes:
        return self.packer.pack(
            common.MAVLink_heartbeat_message(
                common.MAV_TYPE_ONBOARD_CONTROLLER, common.MAV_AUTOPILOT_INVALID, 0, 0, common.MAV_STATE_ACTIVE, 3
            )
        )

    def _write(self, data: bytes, t: int, command: bool) -> bool:
        """Hand bytes to the port, all or none. `command`: is there one in them?"""
        try:
            taken = self.port.write(data)
        except OSError as error:
            self._lose(t, str(error))
            return False
        if command and self.wire.unanswered_t is None:
            self.wire.unanswered_t = t
        if not taken:
            self.counters.dropped += command
            self._blocked(t)
            return False
        if self.wire.blocked_said:
            self._event(t, "info", "link_blocked_over", f"{self.port.path} takes commands again")
        self.wire.blocked_t, self.wire.blocked_said = None, False
        self.counters.bytes_out += len(data)
        if command:
            self.counters.sent += 1
            self.wire.sent_us, self.wire.sent_t = self._stamp(t), t
        return True

    def _blocked(self, t: int) -> None:
        """The port took nothing. After a while its queue is history: a board that comes back shall not act on it."""
        if self.wire.blocked_t is None:
            self.wire.blocked_t = t
        elif t - self.wire.blocked_t > BLOCKED_NS:
            if not self.wire.blocked_said:
                self._event(t, "alarm", "link_blocked", f"{self.port.path} takes no more bytes: its queue is discarded")
            self.wire.blocked_t, self.wire.blocked_said = t, True
            self.port.discard()

    def _unanswered(self, t: int) -> int:
        """For how long, in ns, nothing newer was echoed while there was something to echo."""
        return 0 if self.wire.unanswered_t is None else t - self.wire.unanswered_t

    # ---- in ----------------------------------------------------------------------------------------------------

    def _hear(self, frame: Frame, t: int) -> None:
        """Take one frame, if it is the board's and newer than what was there."""
        if frame.sender != self.address:
            self.counters.foreign += 1
            return
        if self.wire.sequence is not None:
            ahead = (frame.sequence - self.wire.sequence) % 256
            if ahead == 0:
                self.counters.repeated += 1
                return
            if self.wire.heard_t is not None and t - self.wire.heard_t <= QUIET_NS:
                if ahead > 127:
                    self.counters.old += 1
                    return
                self.counters.lost += ahead - 1
        self.wire.sequence = frame.sequence
        self.wire.heard_t = t
        self.counters.received += 1
        self.reopen_ns = REOPEN_NS[0]
        self.state = msgspec.structs.replace(self.state, t=t) if self.state else VehicleState(t=t)
        match message := frame.message:
            case common.MAVLink_heartbeat_message():
                self._heartbeat(message, t)
            case common.MAVLink_actuator_control_target_message():
                self._echoed(message, t)
            case common.MAVLink_battery_status_message() if message.id == 0:
                self._battery(message, t)
            case common.MAVLink_command_ack_message() if message.command == ARM_DISARM:
                self.wire.answer = RESULTS.get(message.result, str(message.result))
            case (
                common.MAVLink_attitude_message()
                | common.MAVLink_scaled_pressure_message()
                | common.MAVLink_scaled_pressure2_message()
            ):
                self._measurement(message, t)
            case common.MAVLink_named_value_int_message() if message.name == "LEAK":
                self._measurement(message, t)

    def _heartbeat(self, message: Any, t: int) -> None:
        armed = bool(message.base_mode & common.MAV_MODE_FLAG_SAFETY_ARMED)
        self.wire.armed = armed
        self._update(armed=armed)
        if self.live and not armed:
            self._event(t, "alarm", "board_disarmed", "the board has disarmed itself: neutral until armed again")
            self._enter(Stage.IDLE, t)

    def _echoed(self, message: Any, t: int) -> None:
        """Take what the board says that it applies; with several groups, once all are of one command."""
        stamp = message.time_usec
        if stamp > self.wire.sent_us or message.group_mlx * GROUP >= self.motors:
            self.counters.foreign += 1
            return
        if self.wire.echo is not None and stamp < self.wire.echo.sent_t // 1000:
            self.counters.old += 1
            return
        if not all(map(math.isfinite, message.controls)):
            self.counters.implausible += 1
            return
        self.wire.echo_parts[message.group_mlx] = (stamp, message.controls)
        groups = range(-(-self.motors // GROUP))
        if all(self.wire.echo_parts.get(group, (None,))[0] == stamp for group in groups):
            values = [value for group in groups for value in self.wire.echo_parts[group][1]]
            self.wire.echo = Echo(t, stamp * 1000, tuple(values[: self.motors]))
            if stamp == self.wire.sent_us:
                self.wire.unanswered_t = None
            elif self.wire.unanswered_t is not None:
                self.wire.unanswered_t = max(self.wire.unanswered_t, stamp * 1000)

    def _battery(self, message: Any, t: int) -> None:
        """The pack's voltage. Whether cell by cell or as a whole in the first (and second) place, it is their sum."""
        known = [mv for mv in message.voltages if mv != UNKNOWN_MV] + list(message.voltages_ext)
        self._update(battery_v=sum(known) / 1000 if any(known) else None)
        self.wire.battery_t = t

    def _measurement(self, message: Any, t: int) -> None:
        """Attitude, depth, hull or leak, if it is newer than what is known and makes sense."""
        kind, stamp = message.get_type(), message.time_boot_ms
        if self.wire.clock.restarted(kind, stamp, t):
            self.wire.clock = SenderClock()
            self.wire.armed = None
            self._event(t, "alarm", "board_restarted", "the board has restarted: neutral until armed again")
            self._enter(Stage.IDLE, t)
        measured_t = self.wire.clock.measured(kind, stamp, t)
        if measured_t is None:
            self.counters.old += 1
            return
        match message:
            case common.MAVLink_attitude_message():
                angles = (message.roll, message.pitch, message.yaw)
                rates = (message.rollspeed, message.pitchspeed, message.yawspeed)
                if all(map(math.isfinite, (*angles, *rates))):
                    roll, pitch, yaw = angles
                    return self._update(attitude_t=measured_t, roll=roll, pitch=pitch, yaw=yaw, rates=rates)
            case common.MAVLink_scaled_pressure2_message():
                pressure = message.press_abs * 100  # hPa
                if PRESSURE_PA[0] < pressure < PRESSURE_PA[1]:
                    depth = (pressure - self.surface_pa) / (self.density * GRAVITY)
                    return self._update(depth_t=measured_t, depth=depth)
            case common.MAVLink_scaled_pressure_message():
                if math.isfinite(message.press_abs) and message.press_abs >= 0:
                    celsius = message.temperature / 100
                    return self._update(hull_pressure_kpa=message.press_abs / 10, hull_temperature_c=celsius)
            case common.MAVLink_named_value_int_message():
                return self._update(leak=message.value != 0)
        self.counters.implausible += 1

    def _update(self, **news: Any) -> None:
        assert self.state is not None
        self.state = msgspec.structs.replace(self.state, **news)

    # ---- the arming test ---------------------------------------------------------------------------------------

    def _judge(self, t: int) -> None:
        """Move the arming test on; end LIVE when the board does not hear us."""
        since = t - self.stage_t
        match self.stage:
            case Stage.ROUSING:
                if self.wire.armed and self._applies(WHISPER):
                    self._enter(Stage.SILENT, t)
                elif since > WAKE_NS:
                    self._fail(t, "warning", "it does not arm, or does not echo what it applies")
            case Stage.SILENT:
                fallen = self.wire.armed is False, self._applies(0.0)
                silent = t - self.wire.sent_t
                if silent > WATCHDOG_NS + WATCHDOG_LATE_NS:
                    self._fail(t, "alarm", f"it does not go neutral by itself: {silent / MS:.0f} ms without a command")
                elif any(fallen) and silent < WATCHDOG_NS - WATCHDOG_EARLY_NS:
                    self._fail(t, "warning", f"its watchdog fell after {silent / MS:.0f} ms instead of 500")
                elif all(fallen):
                    self._event(t, "info", "watchdog_tested", f"the board goes neutral by itself, {silent // MS} ms")
                    self._enter(Stage.RESUMING, t)
            case Stage.RESUMING:
                if self.wire.armed and self._applies(0.0):
                    self._enter(Stage.LIVE, t)
                    self._event(t, "info", "link_live", "the thruster board is tested and armed")
                elif since > WAKE_NS:
                    self._fail(t, "warning", "it does not arm a second time")
            case Stage.LIVE:
                if self._unanswered(t) > UNANSWERED_NS:
                    text = f"the board has echoed nothing new for {self._unanswered(t) / MS:.0f} ms: disarmed"
                    self._event(t, "alarm", "board_deaf", text)
                    self.disarm(t)

    def _listen_for_noise(self, t: int) -> None:
        """Say when the line begins to spoil frames, and when it does no more."""
        if t - self.noise_t < NOISE_NS:
            return
        spoiled = self.counters.spoiled - self.noise_count
        self.noise_t, self.noise_count = t, self.counters.spoiled
        if self.noisy != (spoiled > NOISE_FRAMES):
            self.noisy = not self.noisy
            if self.noisy:
                text = f"{self.port.path}: {spoiled} frames in a second were damaged, lost or out of order"
                self._event(t, "warning", "link_noisy", text)
            else:
                self._event(t, "info", "link_noisy_over", f"{self.port.path}: frames arrive whole again")

    def _applies(self, value: float) -> bool:
        """Has the board said, since this stage began, that it applies this to every thruster?"""
        echo = self.wire.echo
        return echo is not None and echo.t >= self.stage_t and all(abs(v - value) < 1e-6 for v in echo.values)

    def _fail(self, t: int, level: Level, why: str) -> None:
        answer = f" (its last answer: {self.wire.answer})" if self.wire.answer else ""
        self._event(t, level, "arming_failed", f"the thruster board failed the arming test: {why}{answer}")
        self.disarm(t)

    def _enter(self, stage: Stage, t: int) -> None:
        if stage is not self.stage:
            self.stage, self.stage_t, self.wire.asked_t = stage, t, t - REPEAT_NS
        if stage is Stage.ROUSING:
            self.wire.answer = ""

    # ---- the port ----------------------------------------------------------------------------------------------

    def _open(self, t: int) -> None:
        reason = self.port.open()
        self.reopen_t = t + self.reopen_ns
        self.reopen_ns = min(2 * self.reopen_ns, REOPEN_NS[1])
        if not reason:
            self._forget()
            self.absent_said = False
            self._event(t, "info", "link_open", f"{self.port.path} is open")
        elif not self.absent_said:
            self.absent_said = True
            self._event(t, "warning", "link_absent", f"{reason}; trying again")

    def _lose(self, t: int, reason: str) -> None:
        """The device is gone. Whatever comes back is a board that is not known."""
        self.port.close()
        self.counters.losses += 1
        self.reopen_t = t + self.reopen_ns
        self._enter(Stage.IDLE, t)
        self._forget()
        self._event(t, "alarm", "link_lost", f"{self.port.path}: {reason}: neutral until armed again")

    def _forget(self) -> None:
        """Nothing is known of the board that this port leads to."""
        self.parser.reset()
        self.wire = Wire()

    def _event(self, t: int, level: Level, code: str, text: str) -> None:
        self.pending.append(Event(t=t, level=level, source="link", code=code, text=text))
