"""The link to an ArduSub autopilot: state in, sticks out, beside a ground station whose pilot always wins.

ArduSub takes MANUAL_CONTROL only from its ground station's system id, and each one feeds its pilot-input failsafe. So:

- Our heartbeat has the vehicle's system id and component 191. Sticks carry the ground station's id (SYSID_MYGCS), and
  leave only while its own heartbeat is younger than 3 s: otherwise they would hide its loss from the autopilot.
- `arm` engages: it sets the ArduSub mode that ours needs, arms the vehicle if its pilot has not, and starts our sticks.
  It is refused while anybody else steers, and unless silence makes the vehicle neutral within 0.5 s
  (FS_PILOT_INPUT = 2, FS_PILOT_TIMEOUT <= 0.5): this is the protection against a crash of ours.
- The pilot wins: foreign sticks, a mode change or a disarming end our control at once, and we send nothing more.
  We hand back by silence. Only an explicit `arm` engages again.
- `disarm` while we steer sends neutral sticks, and a disarm command until the vehicle is disarmed: silence would disarm
  it 0.5 s later anyway. While we do not steer it sends nothing: then the pilot moves the vehicle.
- `hold`, `follow` and `policy` are ALT_HOLD with sticks, `surface` is SURFACE; `manual` uses the pilot's mode.
- Silence and disarming are not safe for a vehicle that must come up. A change to SURFACE by anybody, and from it to
  ALT_HOLD at the surface, does not end our control: neutral sticks go on. A refused SURFACE becomes the heave stick
  (`surfacing.py`). While the vehicle goes up, only its pilot and the loss of the link end our control.

`rov.link.vehicle_state` makes the vehicle's state of its messages. Nothing in here waits; time is an argument,
monotonic ns.

What ends our control is in this file, and in `surfacing.py` what does not while the vehicle must come up.
`connection.py` keeps what is known of the autopilot, `sticks.py` makes the frames.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import Enum
from typing import Any

from pymavlink.dialects.v20 import common

from rov.link.ardusub.connection import QUIET_AUTOPILOT_NS, ArdusubConnection, PendingCommand, explanation
from rov.link.ardusub.firmware import MODES, NAMES, PARAMETERS, SURFACE, SWITCHES, unsafe
from rov.link.ardusub.parameters import AUTOPILOT, command_long
from rov.link.ardusub.pilot_input import steered_system
from rov.link.ardusub.sticks import COMPANION, StickStream
from rov.link.ardusub.surfacing import Decision, ModeChange, OurControl, Refusal, Situation, Surfacing
from rov.link.mavlink import MS, MavlinkFrame, Packer, Parser
from rov.link.mavlink_link import ARM_DISARM, HEARTBEAT_NS, RESULTS, MavlinkLink
from rov.link.transport import NetworkTransport, transport_of
from rov.link.vehicle_state import SOURCES
from rov.messages import Event

DEPTH_SENSOR = common.MAV_SYS_STATUS_SENSOR_ABSOLUTE_PRESSURE
SET_MODE = common.MAV_CMD_DO_SET_MODE

SILENT_NS = 10_000 * MS
"""A connection without a message of an autopilot for this long is reopened. An autopilot boots in less."""
REPEAT_NS = 700 * MS
"""A command is repeated after this: longer than one answer takes over a link with a lag of 500 ms."""
ANSWER_NS = 4000 * MS
"""A command not carried out after this counts as refused."""
STRANGER_NS = 60_000 * MS
"""Another sender at our UDP port is reported this often."""


class ArdusubStage(str, Enum):
    IDLE = "idle"  # we send no sticks
    ENGAGING = "engaging"  # neutral sticks; mode and arming are requested
    LIVE = "live"


class ArdusubLink(MavlinkLink[ArdusubConnection]):
    """An ArduSub autopilot behind a serial port, TCP or UDP. Each tick: `poll`, then `send`. `mode` decides which
    mode the autopilot needs."""

    loss_consequence = "not in control until engaged again"

    def __init__(self, url: str, frame: str, *, surface_pa: float = 101_325.0, density: float = 1025.0):
        """`frame`: the configured one, compared with the autopilot's. `surface_pa` in Pa, `density` in kg/m³."""
        self.system = 1
        super().__init__(
            transport_of(url),
            Parser(version_1=True),
            Packer(self.system, COMPANION),
            ArdusubConnection,
            surface_pa,
            density,
        )
        self.frame = frame
        self.sticks = StickStream()
        self.stage = ArdusubStage.IDLE
        self.own_mode: int | None = None
        """The autopilot's mode while we steer or engage; a change to any other is somebody else's."""
        self.allowed_modes: set[int] = set()
        """Modes that we have requested."""
        self.pending_command: PendingCommand | None = None
        self.disarming: int | None = None
        """Since when a disarming is in progress."""
        self.surfacing = Surfacing()
        self.ends: list[tuple[int, str, str, int]] = []
        """What ended our control in this read: time, code, sentence, and since when texts may explain it."""
        self.open_t = 0
        self.stranger_t = -STRANGER_NS
        self.reported_parameters: dict[str, float] = {}
        """Parameters as they were last reported."""

    @property
    def live(self) -> bool:
        """Do our sticks steer the vehicle?"""
        return self.stage is ArdusubStage.LIVE

    @property
    def testing(self) -> bool:
        """Are we engaging?"""
        return self.stage is ArdusubStage.ENGAGING

    def _now(self, t: int) -> Situation:
        """What the surfacing has to know."""
        engaged, leak = self.stage is not ArdusubStage.IDLE, self.state is not None and self.state.leak
        return Situation(t, self.mode, engaged, self.live, leak, self.own_mode, self.connection)

    # ---- requests ----------------------------------------------------------------------------------------------

    def arm(self, t: int) -> str:
        """Engage; returns the reason for a refusal, or "". Ends in `live` or an event."""
        if self.stage is not ArdusubStage.IDLE:
            return ""
        if reason := self._obstacle(t)[1] or self.connection.pilot_input.takeover_reason(self.connection.armed, t):
            return reason
        if self.disarming is not None:
            return "the vehicle is still being disarmed; ask again"
        self.pending_command, self.own_mode, self.allowed_modes = None, self.connection.mode, set()
        self.surfacing.dropped.clear()
        self.connection.pilot_input.start(t)
        self.stage = ArdusubStage.ENGAGING
        return ""

    def disarm(self, t: int) -> None:
        """While we steer: neutral, and disarm the vehicle. Otherwise nothing is sent."""
        if self.stage is ArdusubStage.IDLE:
            return
        self._idle(t)
        self.disarming, self.pending_command = t, None
        if self.port.is_open:
            neutral = self._sticks((0.0,) * 4, t) if not self._obstacle(t)[0] else b""
            self._send(neutral + self._command("disarm", ARM_DISARM, 0.0, 0.0, t), t)

    def close(self, t: int) -> None:
        """End our control as far as that is still possible, and close the port."""
        self.disarm(t)
        if isinstance(self.port, NetworkTransport):
            self.port.finish()
        self.port.close()
        self._forget()

    # ---- one tick ----------------------------------------------------------------------------------------------

    def poll(self, t: int) -> tuple[Event, ...]:
        """Process what has arrived, (re)open the port, and check whether our control must end; returns the events."""
        self.surfacing.follow(self._now(t))
        for frame in self._receive_frames(t):
            self._handle_frame(frame, t)
        self._expire(t)
        self._check(t)
        self._report_ends()
        self._report_stranger(t)
        self._update_obstacle(t)
        events, self.pending = tuple(self.pending), []
        return events

    def send(self, values: Sequence[float], armed: bool, t: int) -> None:
        """The tick's sticks: surge, sway, heave, yaw, −1..1 of full scale. They leave only while `live` and `armed`;
        `armed` False ends our control. Also sends the heartbeat and requests when due."""
        if self.live and not armed:
            self.disarm(t)
        if not self.port.is_open:
            return
        data = b""
        if self.stage is not ArdusubStage.IDLE and self.sticks.due(t):
            data += self._sticks(self._values(values, t), t)
        beating = t - self.connection.heartbeat_sent_t >= HEARTBEAT_NS
        data += self._heartbeat_frame() if beating else b""
        if self.connection.known:
            data += self._due_requests(t)
        if data and self._send(data, t) and beating:
            self.connection.heartbeat_sent_t = t

    def _send(self, data: bytes, t: int) -> bool:
        taken = self._write(data, t)
        self.counters.dropped += not taken
        return taken

    def _values(self, values: Sequence[float], t: int) -> Sequence[float]:
        up = self.surfacing.needed(self._now(t)) and self.connection.mode == SURFACE
        if not self.live or self.surfacing.overruled is not None or up:
            return (0.0,) * 4
        if len(values) != 4 or not all(map(math.isfinite, values)):
            self.counters.bad_commands += 1
            return (0.0,) * 4
        return [min(max(value, -1.0), 1.0) for value in values]

    # ---- obstacles ---------------------------------------------------------------------------------------------

    def _obstacle(self, t: int) -> tuple[str, str]:
        """Code and sentence of what forbids sticks at `t`; empty when nothing does."""
        if not self.port.is_open:
            return "link_lost", f"{self.port.path} is not open"
        return self.connection.obstacle(t, self.port.path)

    # ---- what ends our control ---------------------------------------------------------------------------------

    def _check(self, t: int) -> None:
        """End our control where it must end; advance an engagement or a change of mode."""
        if self.stage is ArdusubStage.IDLE:
            return self._check_answer(t)
        decision = self.surfacing.decide(self._now(t), self._obstacle(t))
        for code, text in decision.alarms:
            self._event(t, "alarm", code, text)
        if decision.control is OurControl.ENDS:
            return self._end_by(decision, t)
        if decision.control is OurControl.WAITS:
            return
        if decision.left:
            self.own_mode, self.allowed_modes, self.pending_command = self.connection.mode, set(), None
        self._advance(t)
        self._check_answer(t)

    def _end_by(self, decision: Decision, t: int) -> None:
        """End our control as decided; with an unsafe parameter the vehicle is disarmed, too."""
        assert decision.why is not None
        code, text = decision.why
        if code != "parameter_unsafe":
            return self._end_control(t, code, text, decision.since)
        self._event(t, "alarm", code, f"{text}: our control ends")
        self.disarm(t)

    def _advance(self, t: int) -> None:
        """Ask for the mode and the arming that are missing; without any, our sticks steer."""
        up = self.surfacing.needed(self._now(t))
        wanted = self.surfacing.modes(self.connection.mode) if up else MODES[self.mode]
        if self.connection.mode not in wanted:
            self._request("mode", SET_MODE, common.MAV_MODE_FLAG_CUSTOM_MODE_ENABLED, float(wanted[0]), t)
            self.allowed_modes.add(wanted[0])
        elif not self.connection.armed:
            self._request("arming", ARM_DISARM, 1.0, 0.0, t)
        else:
            self.pending_command = None
            if self.testing:
                assert self.connection.mode is not None
                self.own_mode, self.allowed_modes = self.connection.mode, set()
                self.stage = ArdusubStage.LIVE
                self._event(
                    t, "info", "link_live", f"engaged in {NAMES.get(self.own_mode, self.own_mode)}: our sticks steer"
                )

    def _request(self, what: str, command: int, first: float, second: float, t: int) -> None:
        """Make this the pending command, unless it is already."""
        if self.pending_command is None or (self.pending_command.what, self.pending_command.second) != (what, second):
            self.pending_command = PendingCommand(what, command, first, second, t, t - REPEAT_NS)

    def _check_answer(self, t: int) -> None:
        """Handle a pending command that was refused, once the autopilot had time to give the reason, or timed out."""
        pending = self.pending_command
        if pending is None:
            return
        what = f"mode {NAMES.get(int(pending.second), int(pending.second))}" if pending.what == "mode" else pending.what
        if pending.refused is not None:
            since, answer = pending.refused
            if (texts := self.connection.texts(since)) or t > since:
                pending.refused = None
                self._handle_refusal(t, f"the autopilot refused: {what} ({answer}){explanation(texts)}")
        elif self.stage is not ArdusubStage.IDLE and t - pending.since > ANSWER_NS:
            self._handle_refusal(t, f"the autopilot did not carry out: {what}")

    def _handle_refusal(self, t: int, text: str) -> None:
        """The pending command was refused. That ends our control, except for a vehicle that must come up: it tries
        another way."""
        pending = self.pending_command
        assert pending is not None
        if self.stage is ArdusubStage.IDLE:
            return self._event(t, "alarm", "command_refused", text)
        refusal, alarm = self.surfacing.refused(self._now(t), pending)
        if alarm:
            self._event(t, "alarm", alarm.code, f"{text}: {alarm.text}")
        match refusal:
            case Refusal.OTHER_WAY:
                self.pending_command = None
            case Refusal.AGAIN:
                what, command, first, second = pending.what, pending.command, pending.first, pending.second
                self.pending_command = PendingCommand(what, command, first, second, t, t, again=True)
            case _:
                self.disarm(t)

    def _end_control(self, t: int, code: str, text: str, since: int | None = None) -> None:
        """End our control and send nothing more. Texts from `since` on, also later ones of this read, explain it."""
        if self.stage is not ArdusubStage.IDLE:
            self.ends.append((t, code, text, t + 1 if since is None else since))
        self.pending_command = None
        self._idle(t)

    def _report_ends(self) -> None:
        """Report what ended our control, with the autopilot's texts."""
        ends, self.ends = self.ends, []
        for t, code, text, since in ends:
            why = explanation(self.connection.texts(since))
            self._event(t, "alarm", code, f"{text}{why}: our control ends until engaged again")

    def _update_obstacle(self, t: int) -> None:
        """Put `surfacing` and `obstacle` into the vehicle's state."""
        if self.state is not None:
            obstacle = self._obstacle(t)[1] if self.stage is ArdusubStage.IDLE else ""
            up = self.live and self.surfacing.overruled is not None
            if (up, obstacle) != (self.state.surfacing, self.state.obstacle):
                self._update_state(surfacing=up, obstacle=obstacle)

    def _report_stranger(self, t: int) -> None:
        """Report another sender at the vehicle's UDP port."""
        if isinstance(self.port, NetworkTransport) and self.port.stranger and t - self.stranger_t >= STRANGER_NS:
            self.stranger_t = t
            text = (
                f"{self.port.path}: {self.port.stranger} sends there too; it is ignored while the vehicle is connected"
            )
            self._event(t, "warning", "stranger", text)

    def _idle(self, t: int) -> None:
        self.stage = ArdusubStage.IDLE
        self.surfacing.reset()

    # ---- sending -----------------------------------------------------------------------------------------------

    def _sticks(self, values: Sequence[float], t: int) -> bytes:
        """The frame for these fractions of full scale: surge, sway, heave, yaw."""
        self.counters.sent += 1
        return self.sticks.frame(values, self.system, self.connection, t)

    def _command(self, what: str, command: int, first: float, second: float, t: int) -> bytes:
        """The frame of a command, which becomes the pending one."""
        self.pending_command = PendingCommand(what, command, first, second, t, t, 1)
        return self.packer.pack(command_long(self.system, command, first, second))

    def _due_requests(self, t: int) -> bytes:
        """Frames of the requests due at `t`: the pending command again, a parameter, the streams."""
        out = b""
        pending = self.pending_command
        if pending is not None and t - pending.asked_t >= REPEAT_NS and not pending.accepted:
            pending.asked_t, pending.tries = t, pending.tries + 1
            out += self.packer.pack(command_long(self.system, pending.command, pending.first, pending.second))
        messages = self.connection.parameters.poll(
            self.system, t, lambda level, code, text: self._event(t, level, code, text)
        )
        return out + b"".join(self.packer.pack(message) for message in messages)

    # ---- receiving ---------------------------------------------------------------------------------------------

    def _handle_frame(self, frame: MavlinkFrame, t: int) -> None:
        message, (system, component) = frame.message, frame.sender
        if component == COMPANION and system in (self.system, self.connection.parameters.ground_station):
            return  # our own, forwarded back to us
        if (target := steered_system(message)) is not None:
            if target not in (0, self.system):
                return  # for another vehicle
            self.connection.pilot_input.sticks_t = t
            if self.stage is ArdusubStage.IDLE:
                self.disarming = self.pending_command = None
            return self._end_control(t, "pilot_sticks", f"the pilot steers (sticks of system {system})")
        if isinstance(message, common.MAVLink_heartbeat_message) and message.type == common.MAV_TYPE_GCS:
            if system == self.connection.parameters.ground_station:
                self.connection.gcs_t = t
            return
        if component != AUTOPILOT or (self.connection.known and system != self.system):
            self.counters.foreign += 1
            return
        if not self.connection.known:
            if not isinstance(message, common.MAVLink_heartbeat_message):
                return
            if system != self.system:
                self.system, self.packer = system, Packer(system, COMPANION)
            self._connected(t, f"{self.port.path}: the autopilot answers, system {system}")
        if self._is_newer(frame.sequence, t):
            self.connection.parameters.count(message)
            self._handle_message(message, t)

    def _handle_message(self, message: Any, t: int) -> None:
        match message:
            case common.MAVLink_heartbeat_message():
                self._handle_heartbeat(message, t)
            case common.MAVLink_command_ack_message():
                self._handle_ack(message, t)
            case common.MAVLink_param_value_message():
                self._handle_parameter(message.param_id, message.param_value, t)
            case common.MAVLink_rc_channels_message():
                self._handle_rc(message, t)
            case common.MAVLink_named_value_float_message() if message.name == "PilotGain":
                if math.isfinite(message.value) and 0 < message.value <= 1:
                    self.connection.gain, self.connection.gain_t = max(message.value, 0.1), t
                    self._update_telemetry(message, t)
            case common.MAVLink_named_value_float_message() if message.name in SWITCHES:
                self.connection.switched[message.name] = message.value != 0
            case common.MAVLink_statustext_message():
                self.connection.last_text.append((t, message.text))
                self._update_telemetry(message, t)
            case common.MAVLink_sys_status_message():
                there = message.onboard_control_sensors_present & message.onboard_control_sensors_enabled
                self.connection.depth_failed = bool(there & ~message.onboard_control_sensors_health & DEPTH_SENSOR)
                self._update_telemetry(message, t)
            case (
                common.MAVLink_battery_status_message()
                | common.MAVLink_named_value_float_message()
                | common.MAVLink_distance_sensor_message()
            ):
                self._update_telemetry(message, t)
            case (
                common.MAVLink_attitude_message()
                | common.MAVLink_scaled_pressure_message()
                | common.MAVLink_scaled_pressure2_message()
                | common.MAVLink_scaled_pressure3_message()
                | common.MAVLink_global_position_int_message()
                | common.MAVLink_local_position_ned_message()
            ):
                self._measurement(message, t)

    def _handle_heartbeat(self, message: Any, t: int) -> None:
        booting = message.system_status in (common.MAV_STATE_UNINIT, common.MAV_STATE_BOOT)
        if booting and not self.connection.booting and self.connection.heartbeat_t is not None:
            self._restarted(t)
        self.connection.booting = booting
        was_armed, since = self.connection.armed, self.connection.heartbeat_t or t
        self.connection.heartbeat_t = t
        self.connection.type, self.connection.mode = message.type, message.custom_mode
        self.connection.armed = bool(message.base_mode & common.MAV_MODE_FLAG_SAFETY_ARMED)
        self._update_telemetry(message, t)
        if not self.connection.armed:
            self.disarming = None
            if self.stage is ArdusubStage.IDLE:
                self.pending_command = None
        if self.stage is ArdusubStage.IDLE:
            return
        if was_armed and not self.connection.armed:
            if not self.surfacing.disarmed(self._now(t), since):
                self._end_control(t, "pilot_disarmed", "the vehicle was disarmed", since)
        elif self.connection.mode != self.own_mode:
            self._mode_changed(t)

    def _mode_changed(self, t: int) -> None:
        """The autopilot is in another mode than it was."""
        mode = self.connection.mode
        match self.surfacing.mode_changed(self._now(t), mode in self.allowed_modes):
            case ModeChange.DOUBTED:
                return
            case ModeChange.PILOTS:
                text = f"the vehicle's mode was changed to {NAMES.get(mode or 0, mode)}"
                return self._end_control(t, "pilot_mode", text, t)
            case ModeChange.ARRIVED:
                text = "the autopilot has ended SURFACE in ALT_HOLD, as it does at the surface"
                self._event(t, "info", "surfaced", text)
        self.own_mode, self.allowed_modes = mode, set()

    def _handle_ack(self, message: Any, t: int) -> None:
        """Take the answer to the pending command, if it is addressed to us."""
        pending = self.pending_command
        ours = message.target_component in (0, COMPANION) and message.target_system in (0, self.system)
        if pending is None or not ours or message.command != pending.command or not pending.tries:
            return
        if message.result == common.MAV_RESULT_ACCEPTED:
            pending.accepted = True
        elif message.result != common.MAV_RESULT_IN_PROGRESS and pending.refused is None:
            pending.refused = (t, RESULTS.get(message.result, str(message.result)))

    def _handle_parameter(self, name: str, value: float, t: int) -> None:
        """Take a parameter, also when somebody else requested it; report each new value once."""
        if name not in PARAMETERS or not math.isfinite(value):
            return
        self.connection.parameters.parameters[name] = value
        if self.reported_parameters.get(name) == value:
            return
        self.reported_parameters[name] = value
        if reason := unsafe(name, value, self.frame):
            self._event(t, "warning", "parameter_unsafe", f"{name} is {value:g}: {reason}")
        elif name == "FRAME_CONFIG" or name.startswith("FS_"):
            self._event(t, "info", "parameter", f"{name} is {value:g}")

    def _handle_rc(self, message: Any, t: int) -> None:
        """Take the RC channels, which follow our sticks while we steer."""
        rc = (message.chan3_raw, message.chan4_raw, message.chan5_raw, message.chan6_raw)
        if self.connection.pilot_input.receive_rc(rc, self.stage is not ArdusubStage.IDLE, t):
            why = "somebody else steers, has changed the gain, or holds input"
            self._end_control(t, "pilot_sticks", f"the RC channels do not follow our sticks: {why}")

    def _restarted(self, t: int) -> None:
        text = "the autopilot has restarted: not in control until engaged again"
        self._event(t, "alarm", "autopilot_restarted", text)
        self._idle(t)
        self.pending_command, self.disarming, self.open_t = None, None, t
        self.connection = ArdusubConnection(received_t=t, sequence=self.connection.sequence, known=True)

    def _update_telemetry(self, message: Any, t: int, measured_t: int | None = None) -> None:
        if self.connection.depth_failed and message.get_type() in SOURCES:
            return self._disbelieve(t, "the autopilot says that its depth sensor has failed: its depth stands still")
        super()._update_telemetry(message, t, measured_t)

    def _expire(self, t: int) -> None:
        """Drop values that are too old, a disarming without an answer, and a silent autopilot."""
        beat_t = self.connection.heartbeat_t
        if self.port.is_open and beat_t is not None and t - beat_t > QUIET_AUTOPILOT_NS:
            return self._disconnect(t, "no heartbeat of the autopilot for 2 s", "autopilot_lost")
        if self.port.is_open and beat_t is None and t - self.open_t > SILENT_NS:
            return self._disconnect(t, "no autopilot answers there")
        self.telemetry.expire(t)
        if self.disarming is not None and t - self.disarming > ANSWER_NS:
            self.disarming = self.pending_command = None
            self._event(t, "alarm", "command_refused", "the autopilot did not disarm; its pilot-input failsafe should")

    # ---- the port ----------------------------------------------------------------------------------------------

    def _opened(self, t: int) -> None:
        self.open_t = t

    def _forget(self) -> None:
        super()._forget()
        self.pending_command, self.disarming = None, None
