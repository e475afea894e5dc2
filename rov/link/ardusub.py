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

Depth is from the water's pressure (SCALED_PRESSURE2) and our own surface pressure and density, because it carries its
time; where that is not heard, GLOBAL_POSITION_INT. Nothing in here waits; time is an argument, monotonic ns.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import msgspec
from pymavlink.dialects.v20 import common

from rov.link.board import ARM_DISARM, GRAVITY, PRESSURE_PA, REOPEN_NS, RESULTS, UNKNOWN_MV, Level
from rov.link.firmware import (
    GCS_IDS,
    MODES,
    NAMES,
    PARAMETERS,
    REQUIRED,
    SURFACE,
    SWITCHES,
    TIMEOUT_MAX_S,
    TRIES,
    Rc,
    rc_of,
    unsafe,
)
from rov.link.mavlink import MS, QUIET_NS, Frame, Packer, Parser, SenderClock
from rov.link.way import way
from rov.messages import Event, Mode, VehicleState

COMPANION = common.MAV_COMP_ID_ONBOARD_COMPUTER
"""191: our component, in heartbeats, commands and sticks. Sticks of other components are not ours."""
AUTOPILOT = common.MAV_COMP_ID_AUTOPILOT1
SET_MODE, SET_INTERVAL = common.MAV_CMD_DO_SET_MODE, common.MAV_CMD_SET_MESSAGE_INTERVAL

STICK_NS = 20 * MS
"""MANUAL_CONTROL at most this often; ArduSub wants 20 to 50 Hz."""
GCS_NS = 3000 * MS
"""The ground station's heartbeat may be this old while sticks leave."""
QUIET_AUTOPILOT_NS = 2000 * MS
"""The autopilot's heartbeat may be this old."""
SILENT_NS = 10_000 * MS
"""A connection on which no autopilot is heard for this long is made anew. An autopilot boots in less."""
STICKS_OVER_NS = 1000 * MS
"""Somebody who has sent no stick for this long does not steer. Ground stations send at 5 Hz or more."""
HISTORY_NS = 2000 * MS
"""RC_CHANNELS is compared with what we sent over this time: a link that lags by 500 ms each way, twice."""
RC_SLACK_US = 20
RC_STRANGE = 3
"""Reports within HISTORY_NS that do not fit our sticks, or changes without us, before somebody else is steering. Where
two streams alternate, about every other report shows the foreign one."""
BEAT_NS = 1000 * MS
REPEAT_NS = 700 * MS
"""A command or parameter is asked for again after this; more than a link that lags by 500 ms needs to answer once."""
ANSWER_NS = 4000 * MS
"""A command not carried out by then is taken as refused."""
TOLD_NS = 1500 * MS
"""A text of the autopilot's explains what happens until so much later."""
BATTERY_NS = LEAK_OVER_NS = 30_000 * MS
"""ArduSub says a leak again every 20 s; a voltage older than this is unknown."""
DEPTH_OTHER_NS = 1000 * MS
RATE_NS = 3000 * MS
RATE_SHARE = 0.5
"""A stream that brings less of what was asked over RATE_NS is asked for again, and said to be slow."""
BLOCKED_NS = 200 * MS

STREAMS = {
    common.MAVLINK_MSG_ID_HEARTBEAT: 5.0,
    common.MAVLINK_MSG_ID_ATTITUDE: 20.0,
    common.MAVLINK_MSG_ID_SCALED_PRESSURE2: 10.0,
    common.MAVLINK_MSG_ID_RC_CHANNELS: 10.0,
    common.MAVLINK_MSG_ID_GLOBAL_POSITION_INT: 5.0,
    common.MAVLINK_MSG_ID_SCALED_PRESSURE: 2.0,
    common.MAVLINK_MSG_ID_SYS_STATUS: 2.0,
    common.MAVLINK_MSG_ID_BATTERY_STATUS: 1.0,
    common.MAVLINK_MSG_ID_NAMED_VALUE_FLOAT: 8.0,
}
"""What is asked for, Hz. The heartbeat's own 1 Hz would show the pilot's change of mode too late. NAMED_VALUE_FLOAT
comes in bunches, PilotGain among them."""
NEEDED = (common.MAVLINK_MSG_ID_ATTITUDE, common.MAVLINK_MSG_ID_SCALED_PRESSURE2, common.MAVLINK_MSG_ID_RC_CHANNELS)
"""Slow ones among these are a warning."""
GROUPS = {
    common.MAV_DATA_STREAM_EXTRA1: 20,
    common.MAV_DATA_STREAM_RAW_SENSORS: 10,
    common.MAV_DATA_STREAM_RC_CHANNELS: 10,
}
GROUPS |= {
    common.MAV_DATA_STREAM_EXTENDED_STATUS: 2,
    common.MAV_DATA_STREAM_POSITION: 5,
    common.MAV_DATA_STREAM_EXTRA3: 2,
}
"""REQUEST_DATA_STREAM, for autopilots that do not answer SET_MESSAGE_INTERVAL."""


class Stage(str, Enum):
    IDLE = "idle"  # nothing of ours leaves
    ENGAGING = "engaging"  # neutral sticks; mode and arming are asked for
    LIVE = "live"


@dataclass
class Wish:
    """A command under way to the autopilot."""

    what: str
    command: int
    first: float
    second: float
    since: int
    asked_t: int
    tries: int = 0
    accepted: bool = False


@dataclass
class Wire:
    """What one connection has shown; forgotten when it ends."""

    clock: SenderClock = field(default_factory=SenderClock)
    sequence: int | None = None
    heard_t: int | None = None
    beat_heard_t: int | None = None
    type: int = 0
    mode: int | None = None
    armed: bool = False
    gcs_t: int | None = None
    others_t: int | None = None
    """When somebody else's stick was last seen."""
    rc: Rc | None = None
    rc_changes: deque[int] = field(default_factory=deque)
    parameters: dict[str, float] = field(default_factory=dict)
    tries: dict[str, int] = field(default_factory=dict)
    gain: float | None = None
    gain_t: int = 0
    switched: dict[str, bool] = field(default_factory=dict)
    """The pilot's switches that change what sticks do (SWITCHES), by name."""
    told: tuple[int, str] = (-ANSWER_NS, "")
    """What the autopilot last wrote to its people, and when: why it refuses is only in there."""
    battery_t: int = -BATTERY_NS
    cells_t: int = -BATTERY_NS
    """When BATTERY_STATUS last said it; SYS_STATUS counts only without."""
    leak_t: int = 0
    depth_t: int | None = None
    beat_t: int = -BEAT_NS
    parameter_t: int = -REPEAT_NS
    rates_t: int | None = None
    counts: dict[int, int] = field(default_factory=dict)
    slow: dict[int, int] = field(default_factory=dict)
    """Windows in a row in which a stream was too slow."""
    blocked_t: int | None = None


@dataclass
class Counters:
    """What went over the wire, and what went wrong, since the start."""

    sent: int = 0
    dropped: int = 0
    bad_commands: int = 0
    received: int = 0
    repeated: int = 0
    old: int = 0
    foreign: int = 0
    implausible: int = 0
    losses: int = 0


class ArdusubLink:
    """An ArduSub autopilot behind a serial port, TCP or UDP. Each tick: `poll`, then `send`."""

    def __init__(self, url: str, frame: str, *, surface_pa: float = 101_325.0, density: float = 1025.0):
        """`frame` is what the configuration says, to compare; `surface_pa` and `density` as for a thruster board."""
        self.port = way(url)
        self.frame = frame
        self.surface_pa, self.density = surface_pa, density
        self.mode = Mode.MANUAL
        """What the pilot does, set by whoever sends: the autopilot needs a mode of its own that fits."""
        self.system = 1
        self.packer = Packer(self.system, COMPANION)
        self.stick_packer: Packer | None = None
        self.parser = Parser(version_1=True)
        self.counters = Counters()
        self.state: VehicleState | None = None
        self.stage, self.stage_t = Stage.IDLE, 0
        self.own: int | None = None
        """The autopilot's mode while we steer or engage; any other is somebody else's wish."""
        self.allowed: set[int] = set()
        self.wish: Wish | None = None
        self.disarming: int | None = None
        """Since when the vehicle is to be disarmed."""
        self.history: deque[tuple[int, Rc]] = deque()
        self.strange: deque[int] = deque()
        """When channels did not fit our sticks."""
        self.stick_t = -STICK_NS
        self.open_t = self.reopen_t = 0
        self.reopen_ns = REOPEN_NS[0]
        self.said: dict[str, float] = {}
        """Parameters as they were last reported."""
        self.absent_said = False
        self.pending: list[Event] = []
        self.wire = Wire()

    @property
    def live(self) -> bool:
        """Do our sticks steer the vehicle?"""
        return self.stage is Stage.LIVE

    @property
    def testing(self) -> bool:
        """Is an engagement under way?"""
        return self.stage is Stage.ENGAGING

    # ---- what may be asked of it -------------------------------------------------------------------------------

    def arm(self, t: int) -> str:
        """Engage; returns why not, or nothing. It ends in `live` or an event."""
        if self.stage is not Stage.IDLE:
            return ""
        if reason := self._obstacle(t)[1] or self._steered(t):
            return reason
        if self.disarming is not None:
            return "the vehicle is still being disarmed; ask again"
        self.wish, self.own, self.allowed = None, self.wire.mode, set()
        self.history.clear()
        if self.wire.rc is not None:
            self.history.append((t, self.wire.rc))
        self.strange.clear()
        self._enter(Stage.ENGAGING, t)
        return ""

    def disarm(self, t: int) -> None:
        """If we steer: neutral, and the vehicle disarmed. If not, nothing is sent."""
        if self.stage is Stage.IDLE:
            return
        self._enter(Stage.IDLE, t)
        self.disarming, self.wish = t, None
        if self.port.is_open:
            neutral = self._sticks((0.0,) * 4, t) if not self._obstacle(t)[0] else b""
            self._write(neutral + self._wish("disarm", ARM_DISARM, 0.0, 0.0, t), t)

    def close(self, t: int) -> None:
        """End our control, as far as that is still possible, and close the port."""
        self.disarm(t)
        self.port.close()
        self._forget()

    # ---- one tick ----------------------------------------------------------------------------------------------

    def poll(self, t: int) -> tuple[Event, ...]:
        """Take in what has arrived, (re)open the port, judge; returns what happened."""
        if not self.port.is_open and t >= self.reopen_t:
            self._open(t)
        if self.port.is_open:
            try:
                data = self.port.read()
            except OSError as error:
                self._lose(t, str(error))
            else:
                for frame in self.parser.feed(data):
                    self._hear(frame, t)
        self._expire(t)
        self._judge(t)
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
        if self.stage is not Stage.IDLE and t - self.stick_t >= STICK_NS - MS:
            data += self._sticks(self._values(values), t)
        if t - self.wire.beat_t >= BEAT_NS:
            data += self._beat()
        if self.wire.heard_t is not None:
            data += self._requests(t)
        if data:
            self._write(data, t)

    def _values(self, values: Sequence[float]) -> Sequence[float]:
        if not self.live:
            return (0.0,) * 4
        if len(values) != 4 or not all(map(math.isfinite, values)):
            self.counters.bad_commands += 1
            return (0.0,) * 4
        return [min(max(value, -1.0), 1.0) for value in values]

    # ---- what stands in the way --------------------------------------------------------------------------------

    def _obstacle(self, t: int) -> tuple[str, str]:
        """Code and sentence of what forbids sticks at `t`; empty when nothing does."""
        wire, known = self.wire, self.wire.parameters
        if not self.port.is_open:
            return "link_lost", f"{self.port.path} is not open"
        if wire.beat_heard_t is None or t - wire.beat_heard_t > QUIET_AUTOPILOT_NS:
            return "autopilot_lost", "no heartbeat of the autopilot for 2 s"
        if wire.type != common.MAV_TYPE_SUBMARINE:
            return "not_ardusub", "the autopilot does not say that it is ArduSub"
        if missing := [name for name in REQUIRED if name not in known] or ([] if self._gcs() else [GCS_IDS[0]]):
            return "parameters_unknown", f"parameters not read yet: {', '.join(missing)}"
        if known["FS_PILOT_INPUT"] != 2:
            text = f"FS_PILOT_INPUT is {known['FS_PILOT_INPUT']:g}; it must be 2 (disarm), or a crash leaves thrust on"
            return "parameter_unsafe", text
        if not 0 < known["FS_PILOT_TIMEOUT"] <= TIMEOUT_MAX_S + 1e-6:
            text = f"FS_PILOT_TIMEOUT is {known['FS_PILOT_TIMEOUT']:g} s; it must be 0.5 s or less"
            return "parameter_unsafe", f"{text}, or a crash leaves the last thrust on for so long"
        if wire.gcs_t is None or t - wire.gcs_t > GCS_NS:
            text = (
                f"no heartbeat of the ground station (system {self._gcs()}) for 3 s on {self.port.path}: sticks of ours"
            )
            return (
                "gcs_lost",
                f"{text} would hide its loss from the autopilot; start it, or have its heartbeat forwarded",
            )
        if switched := [SWITCHES[name] for name, on in wire.switched.items() if on]:
            return "pilot_switch", switched[0]
        return "", ""

    def _steered(self, t: int) -> str:
        """Why somebody else is thought to steer, or nothing."""
        how = "to hand over, switch the joystick off in the ground station and engage again"
        if self.wire.others_t is not None and t - self.wire.others_t <= STICKS_OVER_NS:
            return f"another stick stream is present; {how}"
        if len(self.wire.rc_changes) >= RC_STRANGE:
            return f"the RC channels are moving: somebody else steers; {how}"
        rc = self.wire.rc
        held = rc is not None and any(800 < us < 2200 and abs(us - 1500) > 2 * RC_SLACK_US for us in rc[1:])
        if held and self.wire.armed:  # what a disarmed vehicle's channels rest at means nothing
            return f"an RC channel is held off its centre: somebody else steers; {how}"
        return ""

    def _gcs(self) -> int:
        """The ground station's system id; 0 while not known."""
        known = (self.wire.parameters.get(name, 0.0) for name in GCS_IDS)
        return next((int(value) for value in known if 1 <= value <= 255), 0)

    def _gain(self, t: int) -> float:
        """The pilot's gain: as the autopilot says, else as it begins (ArduSub's init_joystick)."""
        if self.wire.gain is not None and t - self.wire.gain_t < BATTERY_NS:
            return self.wire.gain
        known = self.wire.parameters
        low, high, first = known.get("JS_GAIN_MIN", 0.25), known.get("JS_GAIN_MAX", 1.0), known["JS_GAIN_DEFAULT"]
        steps = int(known.get("JS_GAIN_STEPS", 4))
        if steps > 1 and not low - 0.01 < first < high + 0.01:
            first = low + (steps // 2 - 1) * (high - low) / (steps - 1)
        return min(max(min(max(first, low), high), 0.1), 1.0)

    # ---- judging -----------------------------------------------------------------------------------------------

    def _judge(self, t: int) -> None:
        """Ends our control where it has to end; moves an engagement, or a change of mode, on."""
        if self.stage is Stage.IDLE:
            return
        code, text = self._obstacle(t)
        if code == "parameter_unsafe":
            self._event(t, "alarm", code, f"{text}: our control ends")
            return self.disarm(t)
        if code:
            return self._end(t, code, text)
        wanted = MODES[self.mode]
        if self.wire.mode not in wanted:
            self._want("mode", SET_MODE, common.MAV_MODE_FLAG_CUSTOM_MODE_ENABLED, float(wanted[0]), t)
            self.allowed.add(wanted[0])
        elif self.testing and not self.wire.armed:
            self._want("arming", ARM_DISARM, 1.0, 0.0, t)
        else:
            self.wish = None
            if self.testing:
                assert self.wire.mode is not None
                self.own, self.allowed = self.wire.mode, set()
                self._enter(Stage.LIVE, t)
                self._event(t, "info", "link_live", f"engaged in {NAMES.get(self.own, self.own)}: our sticks steer")
        if self.wish is not None and t - self.wish.since > ANSWER_NS:
            self._refused(t, f"the autopilot did not carry out: {self.wish.what}{self._why(t)}")

    def _want(self, what: str, command: int, first: float, second: float, t: int) -> None:
        """See to it that this command is under way."""
        if self.wish is None or (self.wish.what, self.wish.second) != (what, second):
            self.wish = Wish(what, command, first, second, t, t - REPEAT_NS)

    def _refused(self, t: int, text: str) -> None:
        self._event(t, "alarm", "command_refused", f"{text}: our control ends")
        self.disarm(t)

    def _end(self, t: int, code: str, text: str) -> None:
        """Our control ends, and nothing more is sent."""
        if self.stage is not Stage.IDLE:
            self._event(t, "alarm", code, f"{text}: our control ends, until engaged again")
        self.wish = None
        self._enter(Stage.IDLE, t)

    def _enter(self, stage: Stage, t: int) -> None:
        self.stage, self.stage_t = stage, t

    # ---- out ---------------------------------------------------------------------------------------------------

    def _sticks(self, values: Sequence[float], t: int) -> bytes:
        """MANUAL_CONTROL such that these fractions of full scale (400 µs) come out of the autopilot's gain law."""
        gcs = self._gcs()
        if self.stick_packer is None or self.stick_packer.codec.srcSystem != gcs:
            self.stick_packer = Packer(gcs, COMPANION)
        gain, throttle = self._gain(t), max(self.wire.parameters["JS_THR_GAIN"], 0.1)
        surge, sway, heave, yaw = values
        x, y, r = (round(min(max(1000 * value / gain, -1000), 1000)) for value in (surge, sway, yaw))
        z = round(min(max(500 - 500 * heave / (gain * throttle), 0), 1000))
        self.history.append((t, rc_of(x, y, z, r, gain, throttle)))
        self.stick_t = t
        self.counters.sent += 1
        return self.stick_packer.pack(common.MAVLink_manual_control_message(self.system, x, y, z, r, 0))

    def _beat(self) -> bytes:
        kind, none = common.MAV_TYPE_ONBOARD_CONTROLLER, common.MAV_AUTOPILOT_INVALID
        return self.packer.pack(common.MAVLink_heartbeat_message(kind, none, 0, 0, common.MAV_STATE_ACTIVE, 3))

    def _long(self, command: int, *values: float) -> bytes:
        values = (values + (0.0,) * 7)[:7]
        return self.packer.pack(common.MAVLink_command_long_message(self.system, AUTOPILOT, command, 0, *values))

    def _wish(self, what: str, command: int, first: float, second: float, t: int) -> bytes:
        """Begin a command and send it."""
        self.wish = Wish(what, command, first, second, t, t, 1)
        return self._long(command, first, second)

    def _requests(self, t: int) -> bytes:
        """What is asked of the autopilot at `t`: the command under way, a parameter, the streams."""
        out = b""
        wish = self.wish
        if wish is not None and t - wish.asked_t >= REPEAT_NS and not wish.accepted:
            wish.asked_t, wish.tries = t, wish.tries + 1
            out += self._long(wish.command, wish.first, wish.second)
        if t - self.wire.parameter_t >= 60 * MS:
            out += self._parameter(t)
        if self.wire.rates_t is None or t - self.wire.rates_t >= RATE_NS:
            out += self._streams(t)
        return out

    def _parameter(self, t: int) -> bytes:
        """Ask for the next parameter that is not known; once all are, for one each second again."""
        unknown = [n for n in PARAMETERS if n not in self.wire.parameters and self.wire.tries.get(n, 0) < TRIES]
        if not unknown:
            if t - self.wire.parameter_t < BEAT_NS:
                return b""
            required = [
                n for n in (*REQUIRED, *GCS_IDS) if n in self.wire.parameters or n in REQUIRED or not self._gcs()
            ]
            unknown = [required[t // BEAT_NS % len(required)]]
        name = min(unknown, key=lambda n: self.wire.tries.get(n, 0))
        self.wire.tries[name] = self.wire.tries.get(name, 0) + 1
        self.wire.parameter_t = t
        message = common.MAVLink_param_request_read_message(self.system, AUTOPILOT, name.encode(), -1)
        return self.packer.pack(message)

    def _streams(self, t: int) -> bytes:
        """Look at what came since the last time; ask again for what is too slow."""
        since, self.wire.rates_t = self.wire.rates_t, t
        counts, self.wire.counts = self.wire.counts, {}
        out, groups = b"", False
        for kind, hz in STREAMS.items():
            seconds = 0.0 if since is None else (t - since) / 1e9
            slow = since is None or counts.get(kind, 0) < RATE_SHARE * hz * seconds
            times = self.wire.slow.get(kind, 0)
            self.wire.slow[kind] = times + 1 if slow else 0
            name = common.mavlink_map[kind].msgname
            if slow:
                out += self._long(SET_INTERVAL, float(kind), 1e6 / hz)
                groups |= times in (2, 3)
                if times == 3 and kind in NEEDED:
                    rate = counts.get(kind, 0) / max(seconds, 0.1)
                    self._event(t, "warning", "stream_slow", f"{name} comes at {rate:.1f} Hz instead of {hz:g}")
            elif times > 3 and kind in NEEDED:
                self._event(t, "info", "stream_slow_over", f"{name} comes at its rate")
        if groups:
            for group, rate in GROUPS.items():
                message = common.MAVLink_request_data_stream_message(self.system, AUTOPILOT, group, rate, 1)
                out += self.packer.pack(message)
        return out

    def _write(self, data: bytes, t: int) -> None:
        try:
            taken = self.port.write(data)
            if taken:
                self.wire.blocked_t = None
                self.wire.beat_t = t if t - self.wire.beat_t >= BEAT_NS else self.wire.beat_t
                return
            self.counters.dropped += 1
            if self.wire.heard_t is None:
                return
            self.wire.blocked_t = t if self.wire.blocked_t is None else self.wire.blocked_t
            if t - self.wire.blocked_t > BLOCKED_NS:
                self.wire.blocked_t = t
                self._event(t, "alarm", "link_blocked", f"{self.port.path} takes no more bytes: its queue is discarded")
                self.port.discard()
        except OSError as error:
            self._lose(t, str(error))

    # ---- in ----------------------------------------------------------------------------------------------------

    def _hear(self, frame: Frame, t: int) -> None:
        message, (system, component) = frame.message, frame.sender
        if component == COMPANION and system in (self.system, self._gcs()):
            return  # ours, come back
        if (target := _steers(message)) is not None:
            if target not in (0, self.system):
                return  # of another vehicle
            self.wire.others_t = t
            if self.stage is Stage.IDLE:
                self.disarming = self.wish = None
            return self._end(t, "pilot_sticks", f"the pilot steers (sticks of system {system})")
        if isinstance(message, common.MAVLink_heartbeat_message) and message.type == common.MAV_TYPE_GCS:
            if system == self._gcs():
                self.wire.gcs_t = t
            return
        if component != AUTOPILOT or (self.wire.heard_t is not None and system != self.system):
            self.counters.foreign += 1
            return
        if self.wire.heard_t is None:
            if not isinstance(message, common.MAVLink_heartbeat_message):
                return
            self._meet(system, t)
        if self._repeated(frame.sequence, t):
            return
        self.wire.sequence, self.wire.heard_t = frame.sequence, t
        self.counters.received += 1
        self.reopen_ns = REOPEN_NS[0]
        kind = message.get_msgId()
        if kind in STREAMS:
            self.wire.counts[kind] = self.wire.counts.get(kind, 0) + 1
        self.state = msgspec.structs.replace(self.state, t=t) if self.state else VehicleState(t=t)
        self._take(message, t)

    def _meet(self, system: int, t: int) -> None:
        if system != self.system:
            self.system, self.packer = system, Packer(system, COMPANION)
        self._event(t, "info", "link_open", f"{self.port.path}: the autopilot is heard, system {system}")

    def _repeated(self, sequence: int, t: int) -> bool:
        """Is this frame the last one again, or one overtaken by it?"""
        if self.wire.sequence is None or self.wire.heard_t is None:
            return False
        ahead = (sequence - self.wire.sequence) % 256
        self.counters.repeated += ahead == 0
        old = ahead > 127 and t - self.wire.heard_t <= QUIET_NS
        self.counters.old += old
        return ahead == 0 or old

    def _take(self, message: Any, t: int) -> None:
        match message:
            case common.MAVLink_heartbeat_message():
                self._heartbeat(message, t)
            case common.MAVLink_command_ack_message():
                self._acknowledged(message, t)
            case common.MAVLink_param_value_message():
                self._parameter_is(message.param_id, message.param_value, t)
            case common.MAVLink_rc_channels_message():
                self._rc(message, t)
            case common.MAVLink_named_value_float_message() if message.name == "PilotGain":
                if math.isfinite(message.value) and 0 < message.value <= 1:
                    self.wire.gain, self.wire.gain_t = max(message.value, 0.1), t
            case common.MAVLink_named_value_float_message() if message.name in SWITCHES:
                self.wire.switched[message.name] = message.value != 0
            case common.MAVLink_statustext_message():
                self.wire.told = (t, message.text)
                if "leak detected" in message.text.lower():
                    self.wire.leak_t = t
                    self._update(leak=True)
            case common.MAVLink_battery_status_message() if message.id == 0:
                known = [mv for mv in message.voltages if mv != UNKNOWN_MV] + list(message.voltages_ext)
                if any(known):
                    self._update(battery_v=sum(known) / 1000)
                    self.wire.battery_t = self.wire.cells_t = t
            case common.MAVLink_sys_status_message():
                if 0 < message.voltage_battery < UNKNOWN_MV and t - self.wire.cells_t > BATTERY_NS:
                    self._update(battery_v=message.voltage_battery / 1000)
                    self.wire.battery_t = t
            case (
                common.MAVLink_attitude_message()
                | common.MAVLink_scaled_pressure_message()
                | common.MAVLink_scaled_pressure2_message()
                | common.MAVLink_global_position_int_message()
            ):
                self._measurement(message, t)

    def _heartbeat(self, message: Any, t: int) -> None:
        was_armed = self.wire.armed
        self.wire.beat_heard_t = t
        self.wire.type, self.wire.mode = message.type, message.custom_mode
        self.wire.armed = bool(message.base_mode & common.MAV_MODE_FLAG_SAFETY_ARMED)
        self._update(armed=self.wire.armed)
        if not self.wire.armed:
            self.disarming = None
            if self.stage is Stage.IDLE:
                self.wish = None
        if self.stage is Stage.IDLE:
            return
        if was_armed and not self.wire.armed:
            return self._end(t, "pilot_disarmed", f"the vehicle was disarmed{self._why(t)}")
        if self.wire.mode != self.own:
            assert self.wire.mode is not None
            leaking = self.wire.mode == SURFACE and self.state is not None and self.state.leak  # FS_LEAK_ENABLE = 2
            if self.wire.mode not in self.allowed and not leaking:
                name = NAMES.get(self.wire.mode, str(self.wire.mode))
                return self._end(t, "pilot_mode", f"the vehicle's mode was changed to {name}{self._why(t)}")
            self.own, self.allowed = self.wire.mode, set()

    def _why(self, t: int) -> str:
        """What the autopilot has just written, as the end of a sentence."""
        told_t, text = self.wire.told
        return f' (it says "{text}")' if text and t - told_t <= TOLD_NS else ""

    def _acknowledged(self, message: Any, t: int) -> None:
        """The answer to the command under way, if it is to us."""
        wish = self.wish
        ours = message.target_component in (0, COMPANION) and message.target_system in (0, self.system)
        if wish is None or not ours or message.command != wish.command or not wish.tries:
            return
        if message.result == common.MAV_RESULT_ACCEPTED:
            wish.accepted = True
        elif message.result != common.MAV_RESULT_IN_PROGRESS:
            answer = RESULTS.get(message.result, str(message.result))
            if self.stage is Stage.IDLE:
                self._event(
                    t, "alarm", "command_refused", f"the autopilot refused: {wish.what} ({answer}){self._why(t)}"
                )
                self.wish = self.disarming = None
            else:
                self._refused(t, f"the autopilot refused: {wish.what} ({answer}){self._why(t)}")

    def _parameter_is(self, name: str, value: float, t: int) -> None:
        """Take a parameter, whoever asked for it; say it once for each value that is new."""
        if name not in PARAMETERS or not math.isfinite(value):
            return
        self.wire.parameters[name] = value
        if self.said.get(name) == value:
            return
        self.said[name] = value
        if reason := unsafe(name, value, self.frame):
            self._event(t, "warning", "parameter_unsafe", f"{name} is {value:g}: {reason}")
        elif name == "FRAME_CONFIG" or name.startswith("FS_"):
            self._event(t, "info", "parameter", f"{name} is {value:g}")

    def _rc(self, message: Any, t: int) -> None:
        """What the autopilot takes as its sticks: ours, while we steer."""
        rc = (message.chan3_raw, message.chan4_raw, message.chan5_raw, message.chan6_raw)
        last, self.wire.rc = self.wire.rc, rc
        changes = self.wire.rc_changes
        if self.stage is Stage.IDLE:
            if last is not None and any(abs(a - b) > RC_SLACK_US for a, b in zip(rc, last, strict=True)):
                changes.append(t)
            return
        while self.history and t - self.history[0][0] > HISTORY_NS and len(self.history) > 1:
            self.history.popleft()
        if len(self.history) < 2:
            return
        sent = list(zip(*(each for _, each in self.history), strict=True))
        fits = (min(s) - RC_SLACK_US <= us <= max(s) + RC_SLACK_US for s, us in zip(sent, rc, strict=True) if us)
        while self.strange and t - self.strange[0] > HISTORY_NS:
            self.strange.popleft()
        if not all(fits):
            self.strange.append(t)
        if len(self.strange) >= RC_STRANGE:
            text = (
                "the RC channels do not follow our sticks: somebody else steers, has changed the gain, or holds input"
            )
            self._end(t, "pilot_sticks", text)

    def _measurement(self, message: Any, t: int) -> None:
        kind, stamp = message.get_type(), message.time_boot_ms
        if self.wire.clock.restarted(kind, stamp, t):
            text = "the autopilot has restarted: not in control until engaged again"
            self._event(t, "alarm", "autopilot_restarted", text)
            self._enter(Stage.IDLE, t)
            self.wish, self.disarming, self.open_t = None, None, t
            self.wire = Wire(heard_t=t, sequence=self.wire.sequence)
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
                    self.wire.depth_t = t
                    depth = (pressure - self.surface_pa) / (self.density * GRAVITY)
                    return self._update(depth_t=measured_t, depth=depth)
            case common.MAVLink_global_position_int_message():
                if self.wire.depth_t is None or t - self.wire.depth_t > DEPTH_OTHER_NS:
                    self._update(depth_t=measured_t, depth=-message.relative_alt / 1000)
                return
            case common.MAVLink_scaled_pressure_message():
                if math.isfinite(message.press_abs) and message.press_abs >= 0:
                    celsius = message.temperature / 100
                    return self._update(hull_pressure_kpa=message.press_abs / 10, hull_temperature_c=celsius)
        self.counters.implausible += 1

    def _update(self, **news: Any) -> None:
        assert self.state is not None
        self.state = msgspec.structs.replace(self.state, **news)

    def _expire(self, t: int) -> None:
        """Forget what is too old to be known, a disarming that nobody answers, and an autopilot that is silent."""
        beat_t = self.wire.beat_heard_t
        if self.port.is_open and beat_t is not None and t - beat_t > QUIET_AUTOPILOT_NS:
            return self._lose(t, "no heartbeat of the autopilot for 2 s", "autopilot_lost")
        if self.port.is_open and beat_t is None and t - self.open_t > SILENT_NS:
            return self._lose(t, "no autopilot is heard there")
        if self.state is not None and self.state.battery_v is not None and t - self.wire.battery_t > BATTERY_NS:
            self.state = msgspec.structs.replace(self.state, battery_v=None)
        if self.state is not None and self.state.leak and t - self.wire.leak_t > LEAK_OVER_NS:
            self.state = msgspec.structs.replace(self.state, leak=False)
        while self.wire.rc_changes and t - self.wire.rc_changes[0] > HISTORY_NS:
            self.wire.rc_changes.popleft()
        if self.disarming is not None and t - self.disarming > ANSWER_NS:
            self.disarming = self.wish = None
            self._event(t, "alarm", "command_refused", "the autopilot did not disarm; its pilot-input failsafe should")

    # ---- the port ----------------------------------------------------------------------------------------------

    def _open(self, t: int) -> None:
        reason = self.port.open()
        self.reopen_t = t + self.reopen_ns
        self.reopen_ns = min(2 * self.reopen_ns, REOPEN_NS[1])
        self.open_t = t
        if not reason:
            self._forget()
        else:
            self._absent(t, reason)

    def _absent(self, t: int, reason: str) -> None:
        if not self.absent_said:
            self.absent_said = True
            self._event(t, "warning", "link_absent", f"{reason}; trying again")

    def _lose(self, t: int, reason: str, code: str = "link_lost") -> None:
        """The other end is gone. Whatever comes back is an autopilot that is not known."""
        self.port.close()
        self.reopen_t = t + self.reopen_ns
        if self.wire.heard_t is None:
            self._absent(t, f"{self.port.path}: {reason}")
        else:
            self.counters.losses += 1
            self.absent_said = False
            self._event(t, "alarm", code, f"{self.port.path}: {reason}: not in control until engaged again")
        self._enter(Stage.IDLE, t)
        self._forget()

    def _forget(self) -> None:
        self.parser.reset()
        self.wire = Wire()
        self.wish, self.disarming = None, None

    def _event(self, t: int, level: Level, code: str, text: str) -> None:
        self.pending.append(Event(t=t, level=level, source="link", code=code, text=text))


def _steers(message: Any) -> int | None:
    """The system that a message steers with sticks; None if it does not."""
    match message:
        case common.MAVLink_manual_control_message():
            return int(message.target)
        case common.MAVLink_rc_channels_override_message():
            return int(message.target_system)
    return None
