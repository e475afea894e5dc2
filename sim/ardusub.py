"""A scripted ArduSub autopilot and ground station, with a simple vehicle: `python -m sim ardusub`.

It enforces what the real one does: sticks only from its ground station's id, failsafes for pilot input, ground
station, leak, battery and depth sensor, checked arming, streams only on request, the pilot's gain. A mode change is
reported by a heartbeat at once, then by a text; a refusal by an acknowledgement, then by a text. SURFACE needs a
position, and ends in ALT_HOLD by itself. Behaviour: ArduSub's Parameters.cpp, joystick.cpp, failsafe.cpp, mode.cpp,
GCS_MAVLink_Sub.cpp, and a run of the firmware. Time is an argument, ns; only `run` has a clock.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from pymavlink.dialects.v20 import common

from rov.link.ardusub.firmware import ALT_HOLD, MANUAL, POSHOLD, STABILIZE, SURFACE, Rc, rc_of
from rov.link.ardusub.link import SET_MODE
from rov.link.ardusub.parameters import SET_INTERVAL
from rov.link.mavlink import MS, MavlinkFrame, Packer, Parser
from rov.link.mavlink_link import ARM_DISARM
from rov.motion.allocation import allocate
from sim.board import Vehicle, Vessel, t200
from sim.flight import Flight, climb
from sim.wire import Pty

NEUTRAL: Rc = (1500.0, 1500.0, 1500.0, 1500.0)
MODES = (0, 1, 2, 9, 16, 19)
STEP_NS = 20 * MS
CLIMB = 0.5
"""Speed at full stick in ALT_HOLD, m/s."""
BOOT_MS = 1500
ARRIVED = 0.1
"""SURFACE_DEPTH: above this depth, m, SURFACE has arrived."""
DISARM, HOLD, UP = 2, 3, 4
"""Values of FS_GCS_ENABLE."""
NAMES = {9: "SURFACE", 16: "POSHOLD", 2: "ALT_HOLD"}


class Stick(NamedTuple):
    """One MANUAL_CONTROL that the autopilot accepted."""

    t: int
    component: int
    x: int
    y: int
    z: int
    r: int


class AutopilotParser(Parser):
    """Drops with a broken frame all bytes that its length claimed, as MAVLink's own parser does. Ours would find a good
    frame among them, but late: when the next bytes arrive."""

    def feed(self, data: bytes) -> list[MavlinkFrame]:
        self.buffer += data
        frames: list[MavlinkFrame] = []
        while found := self.starts.search(self.buffer):
            del self.buffer[: found.start()]
            length = self._length(0)
            if length is not None and len(self.buffer) < length:
                return frames
            frame = None if length is None else self._frame(self.buffer[:length])
            frames += [] if frame is None else [frame]
            del self.buffer[: length or 1]
        self.buffer.clear()
        return frames


class Autopilot:
    """The firmware and the vehicle behind it. Channels are named; heartbeats and sticks from one are forwarded to the
    others."""

    def __init__(self, frame: str = "vectored_6dof", depth: float = 2.0, flight: Flight | None = None):
        """`flight`: the firmware's loops on a vehicle of the simulator; without, simple ones steer a simple one from
        `depth` m."""
        self.frame, self.flight = frame, flight
        self.vessel: Vehicle = Vessel(frame, t200(), depth) if flight is None else flight.vehicle
        self.parameters: dict[str, float] = {
            "SYSID_MYGCS": 255,
            "FS_PILOT_INPUT": 2,
            "FS_PILOT_TIMEOUT": 0.5,
            "FS_GCS_ENABLE": 2,
            "FS_GCS_TIMEOUT": 5.0,
            "FS_LEAK_ENABLE": 1,
            "BATT_FS_LOW_ACT": 0,
            "BATT_LOW_VOLT": 13.5,
            "FRAME_CONFIG": 2,
            "JS_GAIN_DEFAULT": 0.5,
            "JS_GAIN_MIN": 0.25,
            "JS_GAIN_MAX": 1.0,
            "JS_GAIN_STEPS": 4,
            "JS_THR_GAIN": 1.0,
            "THR_DZ": 100.0,
            "RC4_DZ": 40.0,
            "RC_OVERRIDE_TIME": 3.0,
        }
        self.gain = 0.5
        self.battery_v = 16.0
        self.leak = False
        self.refuses: set[int] = set()
        """Commands answered with MAV_RESULT_DENIED."""
        self.refuses_modes: set[int] = set()
        self.because = ""
        """Text sent after a refusal."""
        self.position = False
        """Whether it has a position estimate. Without one SURFACE and POSHOLD are always refused."""
        self.barometer = True
        """Whether the depth sensor works. Else the depth freezes and is reported unhealthy."""
        self.last_depth = depth
        self.ripple = np.random.default_rng(0)
        self.texts: list[bytes] = []
        """Texts to send, after the heartbeat that reports a mode change."""
        self.changed = False
        self.leaking = self.empty = self.gcs_lost = self.depth_lost = False
        """Failsafes that have acted."""
        self.ignores: set[int] = set()
        """Commands that get no acknowledgement."""
        self.receiver: Rc = NEUTRAL
        """RC channels without sticks. The firmware's own simulation shows a transmitter's switches there."""
        self.switches = {"InputHold": 0.0, "RollPitch": 0.0}
        self.reports = True
        """Whether sticks are forwarded to the other channels."""
        self.version_1 = False
        self.t: int | None = None
        self.mode, self.armed = 19, False
        self.rc: Rc = NEUTRAL
        self.pilot_t: int | None = None
        self.gcs_t: int | None = None
        self.pilot_lost = True
        self.target: float | None = None
        self.effort = np.zeros(6)
        self.taken: deque[Stick] = deque(maxlen=200_000)
        self.refused_sticks = 0
        self.reasons: list[str] = []
        """Why it was armed, disarmed or changed its mode, each time."""
        self.parsers: dict[str, AutopilotParser] = {}
        self.packers: dict[str, Packer] = {}
        self.intervals: dict[str, dict[int, int]] = {}
        self.due: dict[tuple[str, int], int] = {}

    def step(self, t: int, received: dict[str, bytes]) -> dict[str, list[bytes]]:
        """Move on to `t` ns and handle the bytes received by channel; returns the frames to send on each."""
        if self.t is None:
            self.t = self.boot_t = t
        dt, self.t = (t - self.t) / 1e9, t
        out: dict[str, list[bytes]] = {channel: [] for channel in received}
        for channel, data in received.items():
            self.packers.setdefault(channel, Packer(1, 1))
            for frame in self.parsers.setdefault(channel, AutopilotParser()).feed(data):
                kind = frame.message.get_type()
                everybody = getattr(frame.message, "target_component", 0) == 0
                sticks = kind in ("MANUAL_CONTROL", "RC_CHANNELS_OVERRIDE") and self.reports and everybody
                if sticks or kind == "HEARTBEAT":
                    for other in out:
                        if other != channel:
                            out[other].append(bytes(frame.message.get_msgbuf()))
                out[channel] += [
                    self.packers[channel].pack(m) for m in self._handle(frame.message, frame.sender, channel)
                ]
        self._failsafes()
        self._move(dt)
        for channel, frames in out.items():
            frames += [self._packed(channel, message) for message in self._report(channel)]
        self.changed, self.texts = False, []
        return out

    def restart(self) -> None:
        """Power off and on."""
        self.mode, self.armed, self.rc, self.pilot_t, self.gcs_t = 19, False, NEUTRAL, None, None
        self.boot_t = self.t or 0
        self.intervals, self.packers = {}, {}

    def _packed(self, channel: str, message: Any) -> bytes:
        packer = self.packers[channel]
        if not self.version_1:
            return packer.pack(message)
        frame: bytes = message.pack(packer.codec, force_mavlink1=True)
        packer.codec.seq = (packer.codec.seq + 1) % 256
        return frame

    def _handle(self, message: Any, sender: tuple[int, int], channel: str) -> list[Any]:
        assert self.t is not None
        gcs = sender[0] == self.parameters.get("SYSID_MYGCS", 255)
        match message:
            case common.MAVLink_heartbeat_message() if gcs:
                self.gcs_t = self.t
            case common.MAVLink_manual_control_message():
                if not gcs or message.target != 1:
                    self.refused_sticks += 1
                    return []
                self.taken.append(Stick(self.t, sender[1], message.x, message.y, message.z, message.r))
                self.rc = rc_of(message.x, message.y, message.z, message.r, self.gain, self.parameters["JS_THR_GAIN"])
                self.pilot_t = self.gcs_t = self.t
            case common.MAVLink_rc_channels_override_message():
                if gcs and message.target_system == 1:
                    pulses = (message.chan3_raw, message.chan4_raw, message.chan5_raw, message.chan6_raw)
                    throttle, yaw, forward, lateral = (
                        float(new) if 0 < new < 0xFFFF else old for new, old in zip(pulses, self.rc, strict=True)
                    )
                    self.rc, self.pilot_t = (throttle, yaw, forward, lateral), self.t
            case common.MAVLink_param_request_read_message() if message.param_id in self.parameters:
                return [self._parameter(message.param_id)]
            case common.MAVLink_param_set_message() if message.param_id in self.parameters:
                self.parameters[message.param_id] = message.param_value
                return [self._parameter(message.param_id)]
            case common.MAVLink_request_data_stream_message() if message.target_system == 1:
                if message.req_stream_id == common.MAV_DATA_STREAM_EXTENDED_STATUS and message.req_message_rate:
                    for kind in (common.MAVLINK_MSG_ID_SYS_STATUS, common.MAVLINK_MSG_ID_NAMED_VALUE_FLOAT):
                        self.intervals.setdefault(channel, {})[kind] = 1000 * MS // message.req_message_rate
            case common.MAVLink_command_long_message() if message.target_system == 1:
                if message.command in self.ignores:
                    return []
                result = self._command(message, channel)
                if result and self.because:
                    self.texts.append(self.because.encode())
                return [common.MAVLink_command_ack_message(message.command, result, 0, 0, *sender)]
        return []

    def _command(self, message: Any, channel: str) -> int:
        denied: int = common.MAV_RESULT_DENIED
        if message.command in self.refuses:
            return denied
        match message.command:
            case value if value == ARM_DISARM:
                if bool(message.param1) != self.armed:
                    self._arm(bool(message.param1), "command")
            case value if value == SET_MODE:
                if message.param2 not in MODES:
                    return denied
                if not self._set_mode(int(message.param2), "command"):
                    return int(common.MAV_RESULT_FAILED)
            case value if value == SET_INTERVAL and message.param1 == common.MAVLINK_MSG_ID_NAMED_VALUE_FLOAT:
                self.texts.append(b"No ap_message for mavlink id (251)")
                return int(common.MAV_RESULT_FAILED)
            case value if value == SET_INTERVAL:
                self.intervals.setdefault(channel, {})[int(message.param1)] = int(message.param2 * 1000)
            case _:
                return int(common.MAV_RESULT_UNSUPPORTED)
        return int(common.MAV_RESULT_ACCEPTED)

    def _arm(self, armed: bool, why: str) -> None:
        self.armed, self.target = armed, None
        self.reasons.append(f"{'armed' if armed else 'disarmed'}: {why}")
        self.texts.append(b"Arming motors" if armed else b"Disarming motors")

    def _set_mode(self, mode: int, why: str) -> bool:
        if mode == self.mode:
            return True
        lacks_position = mode in (SURFACE, POSHOLD) and not self.position
        if lacks_position or mode in self.refuses_modes or mode in (SURFACE, ALT_HOLD) and not self.barometer:
            need = "requires position" if lacks_position else "need alt estimate"
            self.texts.append(f"Mode change failed: {NAMES.get(mode, mode)} {need}".encode())
            return False
        self.mode, self.target, self.changed = mode, None, True
        self.reasons.append(f"mode {mode}: {why}")
        return True

    def _failsafes(self) -> None:
        assert self.t is not None
        lost = self.pilot_t is None or self.t - self.pilot_t > self.parameters["FS_PILOT_TIMEOUT"] * 1e9
        if lost and not self.pilot_lost and self.parameters["FS_PILOT_INPUT"] > 0:
            self.rc = NEUTRAL
            self.texts.append(b"Lost manual control")
            if self.armed and self.parameters["FS_PILOT_INPUT"] == 2:
                self._arm(False, "pilot input")
        self.pilot_lost = lost
        self._ground_station()
        self._check_sensors()
        if self.pilot_t is not None and self.t - self.pilot_t > self.parameters["RC_OVERRIDE_TIME"] * 1e9:
            self.rc = self.receiver

    def _ground_station(self) -> None:
        assert self.t is not None
        if self.gcs_t is None or self.t - self.gcs_t <= self.parameters.get("FS_GCS_TIMEOUT", 5.0) * 1e9:
            self.gcs_lost = False
        elif self.armed and not self.gcs_lost:
            self.gcs_lost = True
            self.texts.append(b"MYGCS: 255, heartbeat lost")
            act = self.parameters["FS_GCS_ENABLE"]
            mode = {HOLD: ALT_HOLD, UP: SURFACE}.get(int(act))
            if act == DISARM or mode is not None and not self._set_mode(mode, "ground station"):
                self._arm(False, "ground station")

    def _check_sensors(self) -> None:
        """Leak, battery and depth sensor: each acts once."""
        leak = self.leak and self.parameters["FS_LEAK_ENABLE"] > 0
        if leak and not self.leaking and self.parameters["FS_LEAK_ENABLE"] == 2 and self.armed:
            self._set_mode(SURFACE, "leak")
        self.leaking = leak
        low = self.battery_v < self.parameters["BATT_LOW_VOLT"] and self.parameters["BATT_FS_LOW_ACT"] > 0
        if low and not self.empty:
            self.texts.append(f"Battery 1 is low {self.battery_v:.2f}V used 0 mAh".encode())
            if self.armed and self.parameters["BATT_FS_LOW_ACT"] == 2:
                self._arm(False, "battery")
            if self.armed and self.parameters["BATT_FS_LOW_ACT"] == 3:
                self._set_mode(SURFACE, "battery")
        self.empty = low
        if not self.barometer and not self.depth_lost:
            self.texts.append(b"Depth sensor error!")
            if self.mode in (ALT_HOLD, SURFACE):
                self._set_mode(MANUAL, "depth sensor")
        self.depth_lost = not self.barometer

    def _move(self, dt: float) -> None:
        throttle, yaw, forward, lateral = ((us - 1500) / 400 for us in self.rc)
        vessel = self.vessel
        heave = -throttle
        if self.mode == SURFACE and self.armed and vessel.depth <= ARRIVED:
            self._set_mode(ALT_HOLD, "surfaced")
        if self.mode == SURFACE:
            heave = -0.5
        if self.flight is not None:
            rc = (1700.0, *self.rc[1:]) if self.mode == SURFACE else self.rc
            self.flight.step(self.mode, rc, self.gain, self.battery_v, min(dt, 0.1), armed=self.armed)
            return
        if self.mode == ALT_HOLD:
            if self.target is None:
                self.target = vessel.depth
            self.target = max(0.0, self.target - climb(self.rc[0], self.gain) * CLIMB * dt)
            heave = 1.5 * (self.target - vessel.depth) - 0.8 * float(vessel.speed[2])
        if self.mode in (ALT_HOLD, STABILIZE, SURFACE):
            yaw = 0.8 * (yaw - float(vessel.speed[5]))
        roll, pitch = -0.5 * vessel.attitude[:2]
        wanted = np.clip(np.array([forward, lateral, heave, roll, pitch, yaw]), -1, 1)
        self.effort = wanted if self.armed else np.zeros(6)
        if dt > 0:
            vessel.step(np.asarray(allocate(self.effort, self.frame)), self.battery_v, min(dt, 0.1))

    # ---- telemetry ---------------------------------------------------------------------------------------------

    def _parameter(self, name: str) -> Any:
        kind = common.MAV_PARAM_TYPE_REAL32
        return common.MAVLink_param_value_message(name.encode(), self.parameters[name], kind, len(self.parameters), 0)

    def _report(self, channel: str) -> list[Any]:
        assert self.t is not None
        out = []
        for kind, interval in {common.MAVLINK_MSG_ID_HEARTBEAT: 1000 * MS, **self.intervals.get(channel, {})}.items():
            beat = kind == common.MAVLINK_MSG_ID_HEARTBEAT and self.changed
            if beat or self.t >= self.due.get((channel, kind), 0):
                self.due[channel, kind] = max(self.due.get((channel, kind), 0) + interval, self.t + interval // 2)
                out += self._messages(kind)
        if self.leak and self.t >= self.due.get((channel, -1), 0):
            self.due[channel, -1] = self.t + 20_000 * MS
            out.append(common.MAVLink_statustext_message(common.MAV_SEVERITY_WARNING, b"Leak Detected"))
        return out + [common.MAVLink_statustext_message(common.MAV_SEVERITY_CRITICAL, text) for text in self.texts]

    def _messages(self, kind: int) -> list[Any]:
        assert self.t is not None
        ms = (self.t - self.boot_t) // MS
        if kind == common.MAVLINK_MSG_ID_NAMED_VALUE_FLOAT:
            values = {"PilotGain": self.gain, **self.switches}
            return [common.MAVLink_named_value_float_message(ms, name.encode(), v) for name, v in values.items()]
        return [message for message in [self._message(kind, ms)] if message is not None]

    def _message(self, kind: int, ms: int) -> Any:
        match kind:
            case common.MAVLINK_MSG_ID_HEARTBEAT:
                base = common.MAV_MODE_FLAG_CUSTOM_MODE_ENABLED | (common.MAV_MODE_FLAG_SAFETY_ARMED * self.armed)
                state = common.MAV_STATE_ACTIVE if self.armed else common.MAV_STATE_STANDBY
                state = common.MAV_STATE_BOOT if ms < BOOT_MS else state
                return common.MAVLink_heartbeat_message(
                    common.MAV_TYPE_SUBMARINE, common.MAV_AUTOPILOT_ARDUPILOTMEGA, base, self.mode, state, 3
                )
            case common.MAVLINK_MSG_ID_ATTITUDE:
                return common.MAVLink_attitude_message(
                    ms, *self.vessel.attitude.tolist(), *self.vessel.speed[3:].tolist()
                )
            case common.MAVLINK_MSG_ID_SCALED_PRESSURE2:
                if self.barometer:
                    self.last_depth = self.vessel.depth + float(self.ripple.normal(0.0, 0.002))
                hpa = (101_325 + 1025 * 9.80665 * self.last_depth) / 100
                return common.MAVLink_scaled_pressure2_message(ms, hpa, 0.0, 1500)
            case common.MAVLINK_MSG_ID_SYS_STATUS:
                there = common.MAV_SYS_STATUS_SENSOR_ABSOLUTE_PRESSURE | common.MAV_SYS_STATUS_SENSOR_3D_GYRO
                well = there if self.barometer else common.MAV_SYS_STATUS_SENSOR_3D_GYRO
                volts = round(self.battery_v * 1000)
                return common.MAVLink_sys_status_message(there, there, well, 100, volts, -1, -1, 0, 0, 0, 0, 0, 0)
            case common.MAVLINK_MSG_ID_SCALED_PRESSURE:
                return common.MAVLink_scaled_pressure_message(ms, 950.0, 0.0, 3000)
            case common.MAVLINK_MSG_ID_RC_CHANNELS:
                throttle, yaw, forward, lateral = (int(us) for us in self.rc)
                channels = [1500, 1500, throttle, yaw, forward, lateral, *[0] * 12]
                return common.MAVLink_rc_channels_message(ms, 18, *channels, 0)
            case common.MAVLINK_MSG_ID_BATTERY_STATUS:
                cells = [round(self.battery_v * 1000)] + [0xFFFF] * 9
                return common.MAVLink_battery_status_message(0, 0, 1, 32767, cells, -1, -1, -1, -1)
        return None


class GroundStation:
    """Sends heartbeats, and the pilot's sticks (x, y, z, r) while `sticks` is set."""

    def __init__(self) -> None:
        self.packer = Packer(255, 190)
        self.alive = True
        self.sticks: tuple[int, int, int, int] | None = None
        self.override: tuple[Rc, float, int] | None = None
        """RC_CHANNELS_OVERRIDE: pulses, Hz, target component. An override for component 1 is not forwarded."""
        self.commands: list[bytes] = []
        self.due = {"beat": 0, "sticks": 0, "override": 0}

    def step(self, t: int) -> bytes:
        """The bytes sent at `t` ns."""
        out, self.commands = b"".join(self.commands), []
        if self.alive and t >= self.due["beat"]:
            self.due["beat"] = t + 1000 * MS
            kind, none = common.MAV_TYPE_GCS, common.MAV_AUTOPILOT_INVALID
            out += self.packer.pack(common.MAVLink_heartbeat_message(kind, none, 0, 0, common.MAV_STATE_ACTIVE, 3))
        if self.sticks is not None and t >= self.due["sticks"]:
            self.due["sticks"] = t + 40 * MS
            out += self.packer.pack(common.MAVLink_manual_control_message(1, *self.sticks, 0))
        if self.override is not None and t >= self.due["override"]:
            pulses, hz, component = self.override
            self.due["override"] = max(self.due["override"], t - MS) + int(1e9 / hz)
            channels = [0xFFFF, 0xFFFF, *map(int, pulses), 0xFFFF, 0xFFFF]
            out += self.packer.pack(common.MAVLink_rc_channels_override_message(1, component, *channels))
        return out

    def command(self, command: int, *values: float) -> None:
        values = (values + (0.0,) * 7)[:7]
        self.commands.append(self.packer.pack(common.MAVLink_command_long_message(1, 1, command, 0, *values)))


class TcpEnd:
    """The autopilot's end of a TCP connection: one companion at a time."""

    def __init__(self, port: int = 0):
        self.server = socket.create_server(("127.0.0.1", port))
        self.server.setblocking(False)
        self.url = f"tcp:127.0.0.1:{self.server.getsockname()[1]}"
        self.client: socket.socket | None = None

    def read(self) -> bytes:
        if self.client is None:
            with contextlib.suppress(BlockingIOError):
                self.client, _ = self.server.accept()
                self.client.setblocking(False)
        if self.client is None:
            return b""
        try:
            data = self.client.recv(65536)
        except BlockingIOError:
            return b""
        except OSError:
            data = b""
        if not data:
            self.drop()
        return data

    def write(self, data: bytes) -> None:
        if self.client is not None and data:
            with contextlib.suppress(OSError):
                self.client.send(data)

    def drop(self) -> None:
        """The connection breaks."""
        if self.client is not None:
            self.client.close()
        self.client = None

    def close(self) -> None:
        self.drop()
        self.server.close()


class UdpEnd:
    """The autopilot's end over UDP: sends to a companion that listens."""

    def __init__(self, port: int):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.address = ("127.0.0.1", port)

    def read(self) -> bytes:
        out = b""
        with contextlib.suppress(BlockingIOError, ConnectionRefusedError):
            while True:
                out += self.socket.recv(65536)
        return out

    def write(self, data: bytes) -> None:
        if data:
            with contextlib.suppress(BlockingIOError, ConnectionRefusedError):
                self.socket.sendto(data, self.address)

    def close(self) -> None:
        self.socket.close()


class PtyEnd(Pty):
    """The autopilot's end of a serial line."""

    @property
    def url(self) -> str:
        return f"serial:{self.link or self.path}:115200"

    def close(self) -> None:
        self.unplug()


def serve(autopilot: Autopilot, end: TcpEnd, after_step: Callable[[int], None] = lambda _: None) -> None:
    """Run on the real clock until interrupted; calls `after_step` with the time, ns, after each step."""
    station = GroundStation()
    while True:
        select.select([end.client or end.server], [], [], 0.005)
        t = time.monotonic_ns()
        out = autopilot.step(t, {"rov": end.read(), "gcs": station.step(t)})
        end.write(b"".join(out["rov"]))
        after_step(t)


def run(port: int, depth: float) -> None:
    """Serve an autopilot on a TCP port until Ctrl-C; prints its URL. `depth` at the start, m."""
    end = TcpEnd(port)
    print(end.url, flush=True)
    try:
        serve(Autopilot(depth=depth), end)
    except KeyboardInterrupt:
        pass
    finally:
        end.close()
