"""The link to an ArduSub autopilot: state in, sticks out, beside a ground station whose pilot always wins.

ArduSub takes MANUAL_CONTROL only from its ground station's system id, and each one feeds its pilot-input failsafe. So:

- Our heartbeat is the vehicle's system id, component 191. Sticks are sent as the ground station's id (SYSID_MYGCS),
  and never without its own heartbeat in the last 3 s, or its loss would be masked.
- `arm` engages: the vehicle gets the ArduSub mode that ours needs, is armed if its pilot has not done so, and our
  sticks leave. It is refused while anybody else steers, and unless silence makes the vehicle neutral within 0.5 s
  (FS_PILOT_INPUT = 2, FS_PILOT_TIMEOUT <= 0.5): that is what protects from a crash of ours.
- The pilot wins: foreign sticks, a mode change or a disarming ends our control at once, and nothing more is sent.
  Hand-back is silence. Engaging again is an explicit act.
- `disarm` while we steer is neutral sticks, and a disarm command until the vehicle is: silence would disarm it 0.5 s
  later anyway. While we do not steer it sends nothing: what moves then is not ours to stop.
- `hold`, `follow` and `policy` are ALT_HOLD with sticks, `surface` is SURFACE; `manual` takes the pilot's mode.
- Silence and disarming are not safe for a vehicle that must come up. A change to SURFACE, whoever makes it, and from it
  to ALT_HOLD at the surface, takes nothing from us: neutral sticks go on. A refused SURFACE becomes the heave stick
  (`climb.py`); what else would end our control does not while it goes up, but for its pilot and the loss of the link.

Its state is what `rov.link.vehicle_state` makes of its messages. Nothing in here waits; time is an argument,
monotonic ns.

It is one state machine, and stays in one file for all its length: what ends our control must be read in one go.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from pymavlink.dialects.v20 import common

from rov.link.ardusub.firmware import (
    ALT_HOLD,
    MANUAL,
    MODES,
    NAMES,
    PARAMETERS,
    SURFACE,
    SWITCHES,
    first_gain,
    rc_of,
    sticks_of,
    unsafe,
)
from rov.link.ardusub.parameters import AUTOPILOT, ParameterPoller, command_long
from rov.link.ardusub.pilot_input import PilotInputMonitor, steered_system
from rov.link.ardusub.surfacing import SurfacingPlan, by_itself
from rov.link.mavlink import MS, MavlinkFrame, Packer, Parser
from rov.link.mavlink_link import ARM_DISARM, HEARTBEAT_NS, RESULTS, ConnectionState, MavlinkLink
from rov.link.transport import NetworkTransport, transport_of
from rov.link.vehicle_state import SOURCES
from rov.messages import Event, Mode

COMPANION = common.MAV_COMP_ID_ONBOARD_COMPUTER
"""191: our component, in heartbeats, commands and sticks. Sticks of other components are not ours."""
DEPTH_SENSOR = common.MAV_SYS_STATUS_SENSOR_ABSOLUTE_PRESSURE
SET_MODE = common.MAV_CMD_DO_SET_MODE

STICK_NS = 20 * MS
"""MANUAL_CONTROL at most this often; ArduSub wants 20 to 50 Hz."""
GAPS = (1, 2, 2, 1, 2, 1, 2, 2, 1, 1, 2)
"""From one stick to the next, in STICK_NS, in turn: 32 Hz, uneven over 17 ticks, a prime. A stream of the pilot's that
keeps step with ours, and is overwritten each time at once, stays in the channels for a tick in each of the longer."""
GCS_NS = 3000 * MS
"""The ground station's heartbeat may be this old while sticks leave."""
QUIET_AUTOPILOT_NS = 2000 * MS
"""The autopilot's heartbeat may be this old."""
SILENT_NS = 10_000 * MS
"""A connection on which no autopilot is heard for this long is made anew. An autopilot boots in less."""
REPEAT_NS = 700 * MS
"""A command or parameter is asked for again after this; more than a link that lags by 500 ms needs to answer once."""
ANSWER_NS = 4000 * MS
"""A command not carried out by then is taken as refused."""
TOLD_MAX = 8
"""Texts of the autopilot's that are kept, for what they explain."""
GAIN_NS = 30_000 * MS
"""A gain older than this is unknown."""
STRANGER_NS = 60_000 * MS
"""Somebody else at our UDP port is said this often."""


GO_UP = 4
"""FS_GCS_ENABLE: go up when the ground station is lost. Our silence would have it disarmed before."""
GONE = ("link_lost", "autopilot_lost", "parameters_unknown")
"""Obstacles with which no stick can be sent at all."""


class ArdusubStage(str, Enum):
    IDLE = "idle"  # nothing of ours leaves
    ENGAGING = "engaging"  # neutral sticks; mode and arming are asked for
    LIVE = "live"


@dataclass
class PendingCommand:
    """A command under way to the autopilot."""

    what: str
    command: int
    first: float
    second: float
    since: int
    asked_t: int
    tries: int = 0
    accepted: bool = False
    again: bool = False
    """It was refused before, and that was said."""
    refused: tuple[int, str] | None = None
    """When it was, and the answer. The text that says why comes after that, in the same read or the next."""


@dataclass
class ArdusubConnection(ConnectionState):
    """What one connection has shown of the autopilot; forgotten when it ends."""

    heartbeat_t: int | None = None
    type: int = 0
    booting: bool = False
    """Its last heartbeat was of one that starts: that it restarted, and not its pilot, disarmed it."""
    mode: int | None = None
    armed: bool = False
    gcs_t: int | None = None
    pilot_input: PilotInputMonitor = field(default_factory=PilotInputMonitor)
    parameters: ParameterPoller = field(default_factory=ParameterPoller)
    gain: float | None = None
    gain_t: int = 0
    switched: dict[str, bool] = field(default_factory=dict)
    """The pilot's switches that change what sticks do (SWITCHES), by name."""
    last_text: deque[tuple[int, str]] = field(default_factory=lambda: deque(maxlen=TOLD_MAX))
    """What the autopilot wrote to its people, and when: why it refuses is only in there."""
    depth_failed: bool = False
    """The autopilot says that its depth sensor has: what it goes on sending is the last of it."""


class ArdusubLink(MavlinkLink[ArdusubConnection]):
    """An ArduSub autopilot behind a serial port, TCP or UDP. Each tick: `poll`, then `send`. The autopilot needs a mode
    of its own that fits `mode`."""

    lost = "not in control until engaged again"

    def __init__(self, url: str, frame: str, *, surface_pa: float = 101_325.0, density: float = 1025.0):
        """`frame` is what the configuration says, to compare; `surface_pa` and `density` as for a thruster board."""
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
        self.stick_packer: Packer | None = None
        self.stage = ArdusubStage.IDLE
        self.own_mode: int | None = None
        """The autopilot's mode while we steer or engage; any other is somebody else's wish."""
        self.allowed_modes: set[int] = set()
        self.pending_command: PendingCommand | None = None
        self.disarming: int | None = None
        """Since when the vehicle is to be disarmed."""
        self.climb = SurfacingPlan()
        self.yielded: Mode | None = None
        """What `mode` was when the vehicle began to go up without it; until it is another, the vehicle has its way."""
        self.borne = ""
        """Code of what would have ended our control, and did not because the vehicle goes up."""
        self.puzzle: tuple[str, int, int] | None = None
        """The autopilot changed its mode, or disarmed, while it went up: what, since when texts explain it, and when it
        was seen."""
        self.ends: list[tuple[int, str, str, int]] = []
        """What ended our control in this read: since when texts explain it, code, sentence, time."""
        self.stick_t, self.gap = -STICK_NS, 0
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
        """Is an engagement under way?"""
        return self.stage is ArdusubStage.ENGAGING

    @property
    def climbing(self) -> bool:
        """Is the vehicle to go up, by our mode or without it?"""
        return self.stage is not ArdusubStage.IDLE and (self.mode is Mode.SURFACE or self.yielded is not None)

    @property
    def urgent(self) -> bool:
        """Do we steer a vehicle that goes up, or would have to if we stopped?"""
        return self.live and (self.climbing or self.state is not None and self.state.leak)

    # ---- what may be asked of it -------------------------------------------------------------------------------

    def arm(self, t: int) -> str:
        """Engage; returns why not, or nothing. It ends in `live` or an event."""
        if self.stage is not ArdusubStage.IDLE:
            return ""
        if reason := self._obstacle(t)[1] or self.connection.pilot_input.takeover_reason(self.connection.armed, t):
            return reason
        if self.disarming is not None:
            return "the vehicle is still being disarmed; ask again"
        self.pending_command, self.own_mode, self.allowed_modes = None, self.connection.mode, set()
        self.climb.begin()
        self.connection.pilot_input.start(t)
        self.stage = ArdusubStage.ENGAGING
        return ""

    def disarm(self, t: int) -> None:
        """If we steer: neutral, and the vehicle disarmed. If not, nothing is sent."""
        if self.stage is ArdusubStage.IDLE:
            return
        self._idle(t)
        self.disarming, self.pending_command = t, None
        if self.port.is_open:
            neutral = self._sticks((0.0,) * 4, t) if not self._obstacle(t)[0] else b""
            self._send(neutral + self._command("disarm", ARM_DISARM, 0.0, 0.0, t), t)

    def close(self, t: int) -> None:
        """End our control, as far as that is still possible, and close the port."""
        self.disarm(t)
        if isinstance(self.port, NetworkTransport):
            self.port.finish()
        self.port.close()
        self._forget()

    # ---- one tick ----------------------------------------------------------------------------------------------

    def poll(self, t: int) -> tuple[Event, ...]:
        """Take in what has arrived, (re)open the port, judge; returns what happened."""
        if self.yielded is not None and self.mode is not self.yielded:
            self.yielded = None
        if not self.climbing:
            self.climb.begin()
        for frame in self._receive_frames(t):
            self._handle_frame(frame, t)
        self._expire(t)
        self._check(t)
        self._explain()
        self._strangers(t)
        self._report(t)
        events, self.pending = tuple(self.pending), []
        return events

    def send(self, values: Sequence[float], armed: bool, t: int) -> None:
        """The tick's sticks: surge, sway, heave, yaw, −1..1 of full scale. They leave only while `live` and `armed`;
        `armed` False ends our control. Also what else is due: heartbeat, requests."""
        if self.live and not armed:
            self.disarm(t)
        if not self.port.is_open:
            return
        data = b""
        if self.stage is not ArdusubStage.IDLE and t - self.stick_t >= GAPS[self.gap] * STICK_NS - MS:
            data += self._sticks(self._values(values), t)
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

    def _values(self, values: Sequence[float]) -> Sequence[float]:
        if not self.live or self.yielded is not None or self.climbing and self.connection.mode == SURFACE:
            return (0.0,) * 4
        if len(values) != 4 or not all(map(math.isfinite, values)):
            self.counters.bad_commands += 1
            return (0.0,) * 4
        return [min(max(value, -1.0), 1.0) for value in values]

    # ---- what stands in the way --------------------------------------------------------------------------------

    def _obstacle(self, t: int) -> tuple[str, str]:
        """Code and sentence of what forbids sticks at `t`; empty when nothing does."""
        wire = self.connection
        if not self.port.is_open:
            return "link_lost", f"{self.port.path} is not open"
        if wire.heartbeat_t is None or t - wire.heartbeat_t > QUIET_AUTOPILOT_NS:
            return "autopilot_lost", "no heartbeat of the autopilot for 2 s"
        if wire.type != common.MAV_TYPE_SUBMARINE:
            return "not_ardusub", "the autopilot does not say that it is ArduSub"
        code, text = wire.parameters.obstacle()
        if code:
            return code, text
        if wire.gcs_t is None or t - wire.gcs_t > GCS_NS:
            where = f"(system {wire.parameters.ground_station}) for 3 s on {self.port.path}"
            text = f"no heartbeat of the ground station {where}: sticks of ours would hide its loss from the autopilot"
            return "gcs_lost", f"{text}; start it, or have its heartbeat forwarded"
        if switched := [SWITCHES[name] for name, on in wire.switched.items() if on]:
            return "pilot_switch", switched[0]
        return "", ""

    def _gain(self, t: int) -> float:
        """The pilot's gain: as the autopilot says, else as it begins."""
        if self.connection.gain is not None and t - self.connection.gain_t < GAIN_NS:
            return self.connection.gain
        return first_gain(self.connection.parameters.parameters)

    # ---- judging -----------------------------------------------------------------------------------------------

    def _check(self, t: int) -> None:
        """Ends our control where it has to end; moves an engagement, or a change of mode, on."""
        if self.stage is ArdusubStage.IDLE:
            return self._answered(t)
        code, text = self._obstacle(t)
        if code and not self._tolerates(t, code, text):
            if code == "parameter_unsafe":
                self._event(t, "alarm", code, f"{text}: our control ends")
                return self.disarm(t)
            return self._end_control(t, code, text)
        self.borne = code
        if not self._solved(t):
            return
        wanted = self.climb.modes(self.connection.mode) if self.climbing else MODES[self.mode]
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
        self._answered(t)

    def _tolerates(self, t: int, code: str, text: str) -> bool:
        """Does our control go on in spite of this, because the vehicle must come up?"""
        if not self.live or code in GONE:
            return False
        up = code == "gcs_lost" and self.connection.parameters.parameters.get("FS_GCS_ENABLE") == GO_UP
        if not self.climbing and (self.urgent or up):
            self._go_up()
        if self.climbing and code != self.borne:
            self._event(t, "alarm", code, f"{text}: our control goes on until it is up")
        return self.climbing

    def _go_up(self) -> None:
        """The vehicle goes up from now on, whatever `mode` is."""
        self.climb.begin()
        if self.mode is not Mode.SURFACE:
            self.yielded = self.mode

    def _solved(self, t: int) -> bool:
        """Who changed the mode, or disarmed, while the vehicle goes up? Ends our control if it was the pilot. The text
        that says so may come one read later."""
        if self.puzzle is None:
            return True
        what, since, seen_t = self.puzzle
        if not by_itself(what, texts := self._texts(since)):
            if t == seen_t:
                return False
            self.puzzle = None
            name = NAMES.get(self.connection.mode or 0, str(self.connection.mode))
            text = "the vehicle was disarmed" if what == "disarmed" else f"the vehicle's mode was changed to {name}"
            self._end_control(t, f"pilot_{what}", text, since)
            return False
        self.puzzle, why = None, _why(texts)
        if not self.climbing:
            self._go_up()
        if what == "mode":
            self.own_mode, self.allowed_modes, self.pending_command = self.connection.mode, set(), None
            self.climb.drop(SURFACE, self.own_mode)
            on = self.climb.drop(ALT_HOLD, self.own_mode)
            self._event(t, "alarm", "surface_refused", f"the autopilot has left the mode by itself{why}: {on}")
        else:
            self._event(t, "alarm", "rearmed", f"the autopilot disarmed by itself{why}: armed again, to come up")
        return True

    def _request(self, what: str, command: int, first: float, second: float, t: int) -> None:
        """See to it that this command is under way."""
        if self.pending_command is None or (self.pending_command.what, self.pending_command.second) != (what, second):
            self.pending_command = PendingCommand(what, command, first, second, t, t - REPEAT_NS)

    def _answered(self, t: int) -> None:
        """Is the command under way refused, or never carried out? Said when the autopilot has had time to say why."""
        wish = self.pending_command
        if wish is None:
            return
        what = f"mode {NAMES.get(int(wish.second), int(wish.second))}" if wish.what == "mode" else wish.what
        if wish.refused is not None:
            since, answer = wish.refused
            if (texts := self._texts(since)) or t > since:
                wish.refused = None
                self._handle_refusal(t, f"the autopilot refused: {what} ({answer}){_why(texts)}")
        elif self.stage is not ArdusubStage.IDLE and t - wish.since > ANSWER_NS:
            self._handle_refusal(t, f"the autopilot did not carry out: {what}")

    def _handle_refusal(self, t: int, text: str) -> None:
        """The command under way was. That ends our control, but for a vehicle that must come up: it does so another
        way."""
        wish = self.pending_command
        assert wish is not None
        if self.climbing and wish.what == "mode":
            self.pending_command = None
            on = self.climb.drop(int(wish.second), self.connection.mode)
            self._event(t, "alarm", "surface_refused", f"{text}: {on}")
        elif self.climbing and self.live:
            if not wish.again:
                self._event(t, "alarm", "command_refused", f"{text}: asked again until it is armed")
            self.pending_command = PendingCommand(wish.what, wish.command, wish.first, wish.second, t, t, again=True)
        elif self.urgent:
            self.pending_command = None
            self._go_up()
            self._event(t, "alarm", "command_refused", f"{text}: it leaks, and goes up")
        elif self.stage is ArdusubStage.IDLE:
            self._event(t, "alarm", "command_refused", text)
        else:
            self._event(t, "alarm", "command_refused", f"{text}: our control ends")
            self.disarm(t)

    def _end_control(self, t: int, code: str, text: str, since: int | None = None) -> None:
        """Our control ends, and nothing more is sent. Texts from `since` on, also later ones of this read, say why."""
        if self.stage is not ArdusubStage.IDLE:
            self.ends.append((t, code, text, t + 1 if since is None else since))
        self.pending_command = None
        self._idle(t)

    def _explain(self) -> None:
        """Say what ended our control, and why."""
        ends, self.ends = self.ends, []
        for t, code, text, since in ends:
            why = _why(self._texts(since))
            self._event(t, "alarm", code, f"{text}{why}: our control ends, until engaged again")

    def _texts(self, since: int) -> list[str]:
        return [text for t, text in self.connection.last_text if t >= since]

    def _report(self, t: int) -> None:
        """Keep in the state what others need of ours."""
        if self.state is not None:
            obstacle = self._obstacle(t)[1] if self.stage is ArdusubStage.IDLE else ""
            up = self.live and self.yielded is not None
            if (up, obstacle) != (self.state.surfacing, self.state.obstacle):
                self._update_state(surfacing=up, obstacle=obstacle)

    def _strangers(self, t: int) -> None:
        """Say that somebody else speaks where the vehicle does."""
        if isinstance(self.port, NetworkTransport) and self.port.stranger and t - self.stranger_t >= STRANGER_NS:
            self.stranger_t = t
            text = f"{self.port.path}: {self.port.stranger} sends there too, and is not heard while the vehicle is"
            self._event(t, "warning", "stranger", text)

    def _idle(self, t: int) -> None:
        self.stage = ArdusubStage.IDLE
        self.yielded, self.puzzle, self.borne = None, None, ""

    # ---- out ---------------------------------------------------------------------------------------------------

    def _sticks(self, values: Sequence[float], t: int) -> bytes:
        """MANUAL_CONTROL such that these fractions of full scale come out of the autopilot's gain law."""
        gcs = self.connection.parameters.ground_station
        if self.stick_packer is None or self.stick_packer.codec.srcSystem != gcs:
            self.stick_packer = Packer(gcs, COMPANION)
        gain, throttle = self._gain(t), max(self.connection.parameters.parameters["JS_THR_GAIN"], 0.1)
        x, y, z, r = sticks_of(values, gain, throttle)
        self.connection.pilot_input.record_sent(rc_of(x, y, z, r, gain, throttle), t)
        self.stick_t, self.gap = t, (self.gap + 1) % len(GAPS)
        self.counters.sent += 1
        return self.stick_packer.pack(common.MAVLink_manual_control_message(self.system, x, y, z, r, 0))

    def _command(self, what: str, command: int, first: float, second: float, t: int) -> bytes:
        """Begin a command and send it."""
        self.pending_command = PendingCommand(what, command, first, second, t, t, 1)
        return self.packer.pack(command_long(self.system, command, first, second))

    def _due_requests(self, t: int) -> bytes:
        """What is asked of the autopilot at `t`: the command under way, a parameter, the streams."""
        out = b""
        wish = self.pending_command
        if wish is not None and t - wish.asked_t >= REPEAT_NS and not wish.accepted:
            wish.asked_t, wish.tries = t, wish.tries + 1
            out += self.packer.pack(command_long(self.system, wish.command, wish.first, wish.second))
        asked = self.connection.parameters.poll(
            self.system, t, lambda level, code, text: self._event(t, level, code, text)
        )
        return out + b"".join(self.packer.pack(message) for message in asked)

    # ---- in ----------------------------------------------------------------------------------------------------

    def _handle_frame(self, frame: MavlinkFrame, t: int) -> None:
        message, (system, component) = frame.message, frame.sender
        if component == COMPANION and system in (self.system, self.connection.parameters.ground_station):
            return  # ours, come back
        if (target := steered_system(message)) is not None:
            if target not in (0, self.system):
                return  # of another vehicle
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
            self._connected(t, f"{self.port.path}: the autopilot is heard, system {system}")
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
                self._parameter_is(message.param_id, message.param_value, t)
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
            if not self.urgent:
                return self._end_control(t, "pilot_disarmed", "the vehicle was disarmed", since)
            self.puzzle = ("disarmed", since, t)
        elif self.connection.mode != self.own_mode:
            self._turned(message.custom_mode, t)

    def _turned(self, mode: int, t: int) -> None:
        """The autopilot's mode is another than it was."""
        if mode == SURFACE and mode not in self.allowed_modes:
            self._go_up()  # a failsafe, or the pilot: silence would have it disarmed on its way
        elif mode == ALT_HOLD and self.own_mode == SURFACE and self.climbing:
            self._event(t, "info", "surfaced", "the autopilot has ended SURFACE in ALT_HOLD, as it does at the surface")
            self.climb.drop(SURFACE, mode)
        elif mode == MANUAL and self.urgent and mode not in self.allowed_modes:
            self.puzzle = ("mode", t, t)
            return
        elif mode not in self.allowed_modes:
            return self._end_control(t, "pilot_mode", f"the vehicle's mode was changed to {NAMES.get(mode, mode)}", t)
        self.own_mode, self.allowed_modes = mode, set()

    def _handle_ack(self, message: Any, t: int) -> None:
        """The answer to the command under way, if it is to us."""
        wish = self.pending_command
        ours = message.target_component in (0, COMPANION) and message.target_system in (0, self.system)
        if wish is None or not ours or message.command != wish.command or not wish.tries:
            return
        if message.result == common.MAV_RESULT_ACCEPTED:
            wish.accepted = True
        elif message.result != common.MAV_RESULT_IN_PROGRESS and wish.refused is None:
            wish.refused = (t, RESULTS.get(message.result, str(message.result)))

    def _parameter_is(self, name: str, value: float, t: int) -> None:
        """Take a parameter, whoever asked for it; say it once for each value that is new."""
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
        """What the autopilot takes as its sticks: ours, while we steer."""
        rc = (message.chan3_raw, message.chan4_raw, message.chan5_raw, message.chan6_raw)
        if self.connection.pilot_input.receive_rc(rc, self.stage is not ArdusubStage.IDLE, t):
            why = "somebody else steers, has changed the gain, or holds input"
            self._end_control(t, "pilot_sticks", f"the RC channels do not follow our sticks: {why}")

    def _restarted(self, t: int) -> None:
        text = "the autopilot has restarted: not in control until engaged again"
        self._event(t, "alarm", "autopilot_restarted", text)
        self._idle(t)
        self.pending_command, self.disarming, self.open_t = None, None, t
        self.connection = ArdusubConnection(heard_t=t, sequence=self.connection.sequence, known=True)

    def _update_telemetry(self, message: Any, t: int, measured_t: int | None = None) -> None:
        if self.connection.depth_failed and message.get_type() in SOURCES:
            return self._disbelieve(t, "the autopilot says that its depth sensor has failed: its depth stands still")
        super()._update_telemetry(message, t, measured_t)

    def _expire(self, t: int) -> None:
        """Forget what is too old to be known, a disarming that nobody answers, and an autopilot that is silent."""
        beat_t = self.connection.heartbeat_t
        if self.port.is_open and beat_t is not None and t - beat_t > QUIET_AUTOPILOT_NS:
            return self._disconnect(t, "no heartbeat of the autopilot for 2 s", "autopilot_lost")
        if self.port.is_open and beat_t is None and t - self.open_t > SILENT_NS:
            return self._disconnect(t, "no autopilot is heard there")
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


def _why(texts: Sequence[str]) -> str:
    """What the autopilot has just written, as the end of a sentence."""
    return f' (it says "{"; ".join(texts)}")' if texts else ""
