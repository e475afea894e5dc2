"""The link to a thruster board: state in, thruster commands out, MAVLink 2 on a serial port (`systemd/BOARD.md`).

Nothing in here waits: not for the port, the board or a full buffer. Time is an argument, monotonic ns. The board is
only let loose after it has shown, in this connection, that it stops by itself when commands stop.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

import msgspec
from pymavlink.dialects.v20 import common

from rov.link.line import ARM_DISARM, BEAT_NS, RESULTS, Level, Line, Wire, volts_of
from rov.link.mavlink import MS, QUIET_NS, Frame, Packer, Parser, SenderClock
from rov.link.way import Serial
from rov.messages import Event

REPEAT_NS = 100 * MS
"""Arming and disarming are asked for this often until the board's heartbeat shows it done."""
UNANSWERED_NS = 300 * MS
"""A live board that echoes nothing newer for this long is not hearing us, whatever the port pretends to send: a pty
takes 20 kB, 7 s of commands, before it blocks."""
NOISE_NS, NOISE_FRAMES = 1000 * MS, 5
"""A line on which more frames than this are damaged, lost or out of order in that time is said to be noisy: of 180."""
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

GROUP = 8
"""Thrusters per SET_ACTUATOR_CONTROL_TARGET."""


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
class Connection(Wire):
    """What one connection has carried; forgotten when it ends."""

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


class ThrusterLink(Line[Connection]):
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
        """`system` and `component` are ours, `board` the board's. A board has no modes, whatever `mode` is."""
        super().__init__(
            Serial(port, baud, "link.port"), Parser(), Packer(system, component), Connection, surface_pa, density
        )
        self.motors = motors
        self.address = board
        self.stage = Stage.IDLE
        self.neutral = (0.0,) * motors
        self.stage_t = 0
        self.noise_t = self.noise_count = 0
        self.noisy = False

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
        for frame in self._frames(t):
            self._hear(frame, t)
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

    def _write(self, data: bytes, t: int, command: bool) -> bool:
        """Hand bytes to the port, all or none. `command`: is there one in them?"""
        taken = self._handed(data, t)
        if not self.port.is_open:
            return False  # it is gone
        if command and self.wire.unanswered_t is None:
            self.wire.unanswered_t = t
        if not taken:
            self.counters.dropped += command
        elif command:
            self.counters.sent += 1
            self.wire.sent_us, self.wire.sent_t = self._stamp(t), t
        return taken

    def _unanswered(self, t: int) -> int:
        """For how long, in ns, nothing newer was echoed while there was something to echo."""
        return 0 if self.wire.unanswered_t is None else t - self.wire.unanswered_t

    # ---- in ----------------------------------------------------------------------------------------------------

    def _hear(self, frame: Frame, t: int) -> None:
        """Take one frame, if it is the board's and newer than what was there."""
        if frame.sender != self.address:
            self.counters.foreign += 1
            return
        if not self._newer(frame.sequence, t):
            return
        match message := frame.message:
            case common.MAVLink_heartbeat_message():
                self._heartbeat(message, t)
            case common.MAVLink_actuator_control_target_message():
                self._echoed(message, t)
            case common.MAVLink_battery_status_message() if message.id == 0:
                self._update(battery_v=volts_of(message))
                self.wire.battery_t = t
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

    def _restarted(self, t: int) -> None:
        self.wire.clock = SenderClock()
        self.wire.armed = None
        self._event(t, "alarm", "board_restarted", "the board has restarted: neutral until armed again")
        self._idle(t)

    def _news(self, message: Any, measured_t: int, t: int) -> dict[str, Any] | None:
        if isinstance(message, common.MAVLink_named_value_int_message):
            return {"leak": message.value != 0}
        return super()._news(message, measured_t, t)

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

    def _idle(self, t: int) -> None:
        self._enter(Stage.IDLE, t)

    def _opened(self, t: int) -> None:
        self._meet(t, f"{self.port.path} is open")
