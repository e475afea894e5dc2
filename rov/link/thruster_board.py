"""The link to a thruster board: state in, thruster commands out, MAVLink 2 on a serial port (`systemd/BOARD.md`).

Nothing in here waits: not for the port, the board or a full buffer. Time is an argument, monotonic ns. Thruster values
leave only after the board has shown, in this connection, that it stops by itself when commands stop.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

from pymavlink.dialects.v20 import common

from rov.link.echo_check import EchoCheck
from rov.link.mavlink import MS, QUIET_NS, MavlinkFrame, Packer, Parser, SenderClock
from rov.link.mavlink_link import ARM_DISARM, HEARTBEAT_NS, RESULTS, ConnectionState, MavlinkLink
from rov.link.transport import SerialTransport
from rov.messages import Event, Level, Mode

REPEAT_NS = 100 * MS
"""Arming and disarming are requested this often until the board's heartbeat confirms them."""
UNANSWERED_NS = 300 * MS
"""A live board that echoes nothing newer for this long does not receive our commands, even if the port accepts them: a
pty accepts 20 kB, 7 s of commands, before it blocks."""
NOISE_NS, NOISE_FRAMES = 1000 * MS, 5
"""The line is reported as noisy when more frames than this, of 180, are damaged, lost or out of order in this time."""
BATTERY_NS = 5000 * MS
"""An older voltage is unknown."""

WATCHDOG_NS = 500 * MS
"""The board goes neutral this long after the last valid, advancing command."""
WATCHDOG_EARLY_NS, WATCHDOG_LATE_NS = 100 * MS, 200 * MS
"""Deviation from that which the arming test accepts, as seen from here: two ticks, the wire, the board's own tick."""
WAKE_NS = 1000 * MS
"""Time for the board to arm and echo."""
ARMING_TEST_COMMAND = 0.001
"""The command of the arming test: 0.4 µs of pulse width. No thruster turns (a T200's dead band is ±28 µs), and outputs
in whole microseconds do not even change; but the echo, which is not rounded, shows that it is applied."""

GROUP = 8
"""Thrusters per SET_ACTUATOR_CONTROL_TARGET."""


class BoardStage(str, Enum):
    """How far the board is trusted. Only in LIVE do thruster values leave."""

    IDLE = "idle"  # neutral, the board disarmed
    ARMING = "arming"  # arming test: the board is armed, and must echo ARMING_TEST_COMMAND
    SILENT = "silent"  # arming test: no commands; the board must disarm and go neutral
    RESUMING = "resuming"  # it has done so; it is armed again, on neutral
    LIVE = "live"


class Echo(NamedTuple):
    """The command that the board last reported to apply."""

    t: int
    """When the echo arrived."""
    sent_t: int
    """Time stamp of the command it applies, as given to `send`, to the µs."""
    values: tuple[float, ...]


@dataclass
class BoardConnection(ConnectionState):
    """State of one connection; forgotten when it ends."""

    armed: bool | None = None
    """By the board's heartbeat; None while not known."""
    answer: str = ""
    """The board's last answer to arming or disarming, as MAVLink names it."""
    echo: Echo | None = None
    echo_parts: dict[int, tuple[int, list[float]]] = field(default_factory=dict)
    """Newest echo of each group: stamp and controls."""
    sent_us: int = 0
    """Stamp of the last command."""
    sent_t: int = 0
    unanswered_t: int | None = None
    """Since when a command waits for its echo, and nothing newer was echoed."""
    asked_t: int = -REPEAT_NS
    armed_t: int = 0
    """When its heartbeat last reported it armed."""
    echoes: EchoCheck = field(default_factory=EchoCheck)
    """The echoes of this stage."""


class ThrusterBoardLink(MavlinkLink[BoardConnection]):
    """A thruster board on a serial port. Each tick: `poll`, then `send`. `arm` starts the arming test, `disarm` ends
    everything at once. The caller waits for `live` before it commands thrust, and disarms when that ends."""

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
        """`system` and `component` are our MAVLink ids, `board` the board's. A board has no modes: of `mode` it matters
        only whether the vehicle surfaces."""
        super().__init__(
            SerialTransport(port, baud, "link.port"),
            Parser(),
            Packer(system, component),
            BoardConnection,
            surface_pa,
            density,
        )
        self.telemetry.battery_ns = BATTERY_NS
        self.outputs = motors
        self.address = board
        self.stage = BoardStage.IDLE
        self.neutral = (0.0,) * motors
        self.stage_t = 0
        self.noise_t = self.noise_count = 0
        self.noisy = False

    @property
    def live(self) -> bool:
        """Is the board tested, armed and answering?"""
        return self.stage is BoardStage.LIVE

    @property
    def echo(self) -> Echo | None:
        """The board's last echo in this connection."""
        return self.connection.echo

    @property
    def testing(self) -> bool:
        """Is the arming test in progress?"""
        return self.stage in (BoardStage.ARMING, BoardStage.SILENT, BoardStage.RESUMING)

    # ---- requests ----------------------------------------------------------------------------------------------

    def arm(self, t: int) -> str:
        """Start the arming test; returns the reason for a refusal, or "". The test takes about 0.6 s, and ends in
        `live` or an event `arming_failed`. Refused unless the board reports itself disarmed."""
        if self.live or self.testing:
            return ""
        if not self.port.is_open:
            return f"{self.port.path} is not open"
        if self.connection.received_t is None or t - self.connection.received_t > QUIET_NS:
            return "nothing is heard from the thruster board"
        if self.connection.armed is not False:
            return "the thruster board does not say that it is disarmed"
        self._enter(BoardStage.ARMING, t)
        return ""

    def disarm(self, t: int) -> None:
        """Neutral and disarmed at once, discarding everything that still waits to be sent; repeated by `send` until the
        board confirms."""
        self._enter(BoardStage.IDLE, t)
        if self.connection.armed is False:
            self.connection.armed = None  # a request to arm may still be on its way
        if not self.port.is_open:
            return
        if self.port.unsent or self._unanswered(t) > REPEAT_NS:
            self.port.discard()
        self.connection.asked_t = t
        self._write_command(self._command(self.neutral, t) + self._arm_request(armed=False), t, command=True)

    def close(self, t: int) -> None:
        """Disarm, as far as that is still possible, and close the port. The next `poll` opens it again."""
        self.disarm(t)
        if self._unanswered(t) > UNANSWERED_NS:
            self.port.discard()  # or closing would wait for bytes that nobody reads
        self.port.close()
        self._forget()

    # ---- one tick ----------------------------------------------------------------------------------------------

    def poll(self, t: int) -> tuple[Event, ...]:
        """Process what has arrived, (re)open the port, advance the arming test; returns the events."""
        for frame in self._receive_frames(t):
            self._handle_frame(frame, t)
        self.telemetry.expire(t)
        self._check(t)
        self._check_noise(t)
        events, self.pending = tuple(self.pending), []
        return events

    def send(self, values: Sequence[float], armed: bool, t: int) -> None:
        """The tick's command, −1..1 per thruster, motor 1 first. Values leave only while the link is live and `armed`;
        otherwise neutral, or what the arming test needs. `armed` False in LIVE disarms the board."""
        if self.live and not armed:
            return self.disarm(t)
        if not self.port.is_open:
            return
        command = self.stage is not BoardStage.SILENT
        if command and t // 1000 <= self.connection.sent_us:  # our clock stands still: that must not feed the watchdog
            self.counters.dropped += 1
            return
        allowed = tuple(self._values(values))
        data = self._command(allowed, t) if command else b""
        arming = self.stage in (BoardStage.ARMING, BoardStage.RESUMING) and not self.connection.armed
        disarming = self.stage is BoardStage.IDLE and self.connection.armed is not False
        requesting = (arming or disarming) and t - self.connection.asked_t >= REPEAT_NS
        beating = t - self.connection.heartbeat_sent_t >= HEARTBEAT_NS
        data += (self._arm_request(arming) if requesting else b"") + (self._heartbeat_frame() if beating else b"")
        if data and self._write_command(data, t, command):
            if command and self.live:
                self.connection.echoes.sent(self.connection.sent_us, allowed)
            self.connection.asked_t = t if requesting else self.connection.asked_t
            self.connection.heartbeat_sent_t = t if beating else self.connection.heartbeat_sent_t

    def _values(self, values: Sequence[float]) -> Sequence[float]:
        """The values that may leave at this stage."""
        if self.stage is BoardStage.ARMING:
            return (ARMING_TEST_COMMAND,) * self.outputs
        if self.stage is not BoardStage.LIVE:
            return self.neutral
        if len(values) != self.outputs or not all(map(math.isfinite, values)):
            self.counters.bad_commands += 1
            return self.neutral
        return [min(max(value, -1.0), 1.0) for value in values]

    # ---- sending -----------------------------------------------------------------------------------------------

    def _stamp(self, t: int) -> int:
        """Time stamp of the next command in µs; always later than the last one."""
        return max(t // 1000, self.connection.sent_us + 1)

    def _command(self, values: Sequence[float], t: int) -> bytes:
        """SET_ACTUATOR_CONTROL_TARGET for all thrusters, eight to a group."""
        frames = b""
        for group, first in enumerate(range(0, self.outputs, GROUP)):
            controls = [*values[first : first + GROUP], *(0.0,) * GROUP][:GROUP]
            frames += self.packer.pack(
                common.MAVLink_set_actuator_control_target_message(self._stamp(t), group, *self.address, controls)
            )
        return frames

    def _arm_request(self, armed: bool) -> bytes:
        """COMMAND_LONG to arm or disarm."""
        return self.packer.pack(
            common.MAVLink_command_long_message(*self.address, ARM_DISARM, 0, float(armed), 0, 0, 0, 0, 0, 0)
        )

    def _write_command(self, data: bytes, t: int, command: bool) -> bool:
        """Write all bytes or none. `command`: do they contain a thruster command?"""
        taken = self._write(data, t)
        if not self.port.is_open:
            return False  # it is gone
        if command and self.connection.unanswered_t is None:
            self.connection.unanswered_t = t
        if not taken:
            self.counters.dropped += command
        elif command:
            self.counters.sent += 1
            self.connection.sent_us, self.connection.sent_t = self._stamp(t), t
        return taken

    def _unanswered(self, t: int) -> int:
        """For how long, in ns, a command has waited for an echo; 0 when none does."""
        return 0 if self.connection.unanswered_t is None else t - self.connection.unanswered_t

    # ---- receiving ---------------------------------------------------------------------------------------------

    def _handle_frame(self, frame: MavlinkFrame, t: int) -> None:
        """Process a frame, if it is the board's and not an old one."""
        if frame.sender != self.address:
            self.counters.foreign += 1
            return
        if not self._is_newer(frame.sequence, t):
            return
        match message := frame.message:
            case common.MAVLink_heartbeat_message():
                self._handle_heartbeat(message, t)
            case common.MAVLink_actuator_control_target_message():
                self._handle_echo(message, t)
            case common.MAVLink_battery_status_message():
                self._update_telemetry(message, t)
            case common.MAVLink_command_ack_message() if message.command == ARM_DISARM:
                self.connection.answer = RESULTS.get(message.result, str(message.result))
            case (
                common.MAVLink_attitude_message()
                | common.MAVLink_scaled_pressure_message()
                | common.MAVLink_scaled_pressure2_message()
            ):
                self._measurement(message, t)
            case common.MAVLink_named_value_int_message() if message.name == "LEAK":
                self._measurement(message, t)

    def _handle_heartbeat(self, message: Any, t: int) -> None:
        armed = bool(message.base_mode & common.MAV_MODE_FLAG_SAFETY_ARMED)
        self.connection.armed = armed
        self.connection.armed_t = t if armed else self.connection.armed_t
        self._update_telemetry(message, t)
        if self.live and not armed:
            self._event(t, "alarm", "board_disarmed", "the board has disarmed itself: neutral until armed again")
            self._enter(BoardStage.IDLE, t)

    def _handle_echo(self, message: Any, t: int) -> None:
        """Take the board's echo of a command; with several groups, once all of them echo the same one."""
        stamp = message.time_usec
        if stamp > self.connection.sent_us or message.group_mlx * GROUP >= self.outputs:
            self.counters.foreign += 1
            return self.connection.echoes.unknown(t)
        if self.connection.echo is not None and stamp < self.connection.echo.sent_t // 1000:
            self.counters.old += 1
            return
        if not all(map(math.isfinite, message.controls)):
            self.counters.implausible += 1
            return
        self.connection.echo_parts[message.group_mlx] = (stamp, message.controls)
        groups = range(-(-self.outputs // GROUP))
        if all(self.connection.echo_parts.get(group, (None,))[0] == stamp for group in groups):
            values = [value for group in groups for value in self.connection.echo_parts[group][1]]
            self.connection.echo = Echo(t, stamp * 1000, tuple(values[: self.outputs]))
            if self.connection.echoes.receive(stamp, self.connection.echo.values, t):
                self._event(t, "info", "echo_differs_over", "the board applies what is commanded again")
            if stamp == self.connection.sent_us:
                self.connection.unanswered_t = None
            elif self.connection.unanswered_t is not None:
                self.connection.unanswered_t = max(self.connection.unanswered_t, stamp * 1000)

    def _restarted(self, t: int) -> None:
        self.connection.clock = SenderClock()
        self.connection.armed = None
        self._event(t, "alarm", "board_restarted", "the board has restarted: neutral until armed again")
        self._idle(t)

    # ---- the arming test ---------------------------------------------------------------------------------------

    def _check(self, t: int) -> None:
        """Advance the arming test; end LIVE when echoes stop or differ."""
        since = t - self.stage_t
        match self.stage:
            case BoardStage.ARMING:
                if self.connection.armed and self._applies(ARMING_TEST_COMMAND):
                    self._enter(BoardStage.SILENT, t)
                elif since > WAKE_NS:
                    self._fail(t, "warning", "it does not arm, or does not echo what it applies")
            case BoardStage.SILENT:
                fallen = self.connection.armed is False, self._applies(0.0)
                silent = t - self.connection.sent_t
                if silent > WATCHDOG_NS + WATCHDOG_LATE_NS:
                    self._fail(t, "alarm", f"it does not go neutral by itself: {silent / MS:.0f} ms without a command")
                elif any(fallen) and silent < WATCHDOG_NS - WATCHDOG_EARLY_NS:
                    self._fail(t, "warning", f"its watchdog fell after {silent / MS:.0f} ms instead of 500")
                elif all(fallen):
                    self._event(t, "info", "watchdog_tested", f"the board goes neutral by itself, {silent // MS} ms")
                    self._enter(BoardStage.RESUMING, t)
            case BoardStage.RESUMING:
                if self.connection.armed and self._applies(0.0):
                    self._enter(BoardStage.LIVE, t)
                    self._event(t, "info", "link_live", "the thruster board is tested and armed")
                elif since > WAKE_NS:
                    self._fail(t, "warning", "it does not arm a second time")
            case BoardStage.LIVE:
                if self._unanswered(t) > UNANSWERED_NS:
                    text = f"the board has echoed nothing new for {self._unanswered(t) / MS:.0f} ms: disarmed"
                    self._event(t, "alarm", "board_deaf", text)
                    self.disarm(t)
                elif self.connection.echoes.doubted(self.connection.armed_t, t):
                    self._handle_difference(t)

    def _handle_difference(self, t: int) -> None:
        """Echoes have differed for too long: disarm. Not while surfacing: a vehicle left at depth is lost."""
        surfacing, echoes = self.mode is Mode.SURFACE, self.connection.echoes
        if not echoes.reported:
            echoes.reported = True
            action = "it goes on surfacing" if surfacing else "disarmed"
            text = f"the board does not apply what is commanded ({echoes.difference}): {action}"
            self._event(t, "alarm", "echo_differs", text)
        if not surfacing:
            self.disarm(t)

    def _check_noise(self, t: int) -> None:
        """Report when the line begins to damage or lose frames, and when it stops."""
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
        """Has the board echoed this value for every thruster since this stage began?"""
        echo = self.connection.echo
        return echo is not None and echo.t >= self.stage_t and all(abs(v - value) < 1e-6 for v in echo.values)

    def _fail(self, t: int, level: Level, why: str) -> None:
        answer = f" (its last answer: {self.connection.answer})" if self.connection.answer else ""
        self._event(t, level, "arming_failed", f"the thruster board failed the arming test: {why}{answer}")
        self.disarm(t)

    def _enter(self, stage: BoardStage, t: int) -> None:
        if stage is not self.stage:
            self.stage, self.stage_t, self.connection.asked_t = stage, t, t - REPEAT_NS
            self.connection.echoes = EchoCheck()
        if stage is BoardStage.ARMING:
            self.connection.answer = ""

    def _idle(self, t: int) -> None:
        self._enter(BoardStage.IDLE, t)

    def _opened(self, t: int) -> None:
        self._connected(t, f"{self.port.path} is open")
