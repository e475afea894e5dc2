"""Requests ArduSub's parameters and message streams, and keeps the parameters and rates that arrive."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from pymavlink.dialects.v20 import common

from rov.link.ardusub.firmware import GCS_IDS, PARAMETERS, REQUIRED, TRIES, unsafe_failsafe
from rov.link.mavlink import MS
from rov.link.mavlink_link import HEARTBEAT_NS
from rov.messages import Level

AUTOPILOT = common.MAV_COMP_ID_AUTOPILOT1
SET_INTERVAL = common.MAV_CMD_SET_MESSAGE_INTERVAL
PARAMETER_NS = 60 * MS
"""Time from one parameter request to the next."""
RATE_NS = 3000 * MS
RATE_SHARE = 0.5
"""A stream with less than this share of its rate over RATE_NS is requested again, and reported as slow."""

STREAMS = {
    common.MAVLINK_MSG_ID_HEARTBEAT: 5.0,
    common.MAVLINK_MSG_ID_ATTITUDE: 20.0,
    common.MAVLINK_MSG_ID_SCALED_PRESSURE2: 10.0,
    common.MAVLINK_MSG_ID_RC_CHANNELS: 1000 / 17,
    common.MAVLINK_MSG_ID_GLOBAL_POSITION_INT: 5.0,
    common.MAVLINK_MSG_ID_SCALED_PRESSURE: 2.0,
    common.MAVLINK_MSG_ID_SYS_STATUS: 2.0,
    common.MAVLINK_MSG_ID_BATTERY_STATUS: 1.0,
}
"""The requested streams, Hz. The heartbeat's own 1 Hz would show the pilot's change of mode too late. RC_CHANNELS comes
every 17 ms, out of step with our sticks: in step, it might show only our sticks and never the pilot's."""
NAMED = common.MAVLINK_MSG_ID_NAMED_VALUE_FLOAT
NAMED_HZ, NAMED_MIN = 4, 3.0
"""NAMED_VALUE_FLOAT, PilotGain among them, has no interval of its own in ArduSub: it comes in bunches with the group
EXTENDED_STATUS. That is requested at NAMED_HZ where fewer than NAMED_MIN arrive per second."""
NEEDED = (common.MAVLINK_MSG_ID_ATTITUDE, common.MAVLINK_MSG_ID_SCALED_PRESSURE2, common.MAVLINK_MSG_ID_RC_CHANNELS)
"""A warning is given when one of these is slow."""
GROUPS = {
    common.MAV_DATA_STREAM_EXTRA1: 20,
    common.MAV_DATA_STREAM_RAW_SENSORS: 10,
    common.MAV_DATA_STREAM_RC_CHANNELS: 50,
    common.MAV_DATA_STREAM_EXTENDED_STATUS: 2,
    common.MAV_DATA_STREAM_POSITION: 5,
    common.MAV_DATA_STREAM_EXTRA3: 2,
}
"""REQUEST_DATA_STREAM, for autopilots that do not answer SET_MESSAGE_INTERVAL."""

ReportEvent = Callable[[Level, str, str], None]
"""Level, code and text of an event."""


@dataclass
class ParameterPoller:
    """The parameters and stream rates of one connection, and the requests that are due."""

    parameters: dict[str, float] = field(default_factory=dict)
    tries: dict[str, int] = field(default_factory=dict)
    parameter_t: int = -HEARTBEAT_NS
    rates_t: int | None = None
    counts: dict[int, int] = field(default_factory=dict)
    slow: dict[int, int] = field(default_factory=dict)
    """Windows in a row in which a stream was too slow."""

    @property
    def ground_station(self) -> int:
        """The ground station's system id; 0 while not known."""
        known = (self.parameters.get(name, 0.0) for name in GCS_IDS)
        return next((int(value) for value in known if 1 <= value <= 255), 0)

    def obstacle(self) -> tuple[str, str]:
        """Code and sentence of why the parameters forbid to steer; empty when they do not."""
        missing = [name for name in REQUIRED if name not in self.parameters] or (
            [] if self.ground_station else [GCS_IDS[0]]
        )
        if missing:
            return "parameters_unknown", f"parameters not read yet: {', '.join(missing)}"
        if reason := unsafe_failsafe(self.parameters):
            return "parameter_unsafe", reason
        return "", ""

    def count(self, message: Any) -> None:
        """Count a message of a stream."""
        kind = message.get_msgId()
        if kind in STREAMS or kind == NAMED:
            self.counts[kind] = self.counts.get(kind, 0) + 1

    def poll(self, system: int, t: int, report: ReportEvent) -> Iterator[Any]:
        """The request messages due at `t`; slow streams are reported to `report`."""
        if t - self.parameter_t >= PARAMETER_NS and (name := self._next(t)):
            self.tries[name] = self.tries.get(name, 0) + 1
            self.parameter_t = t
            yield common.MAVLink_param_request_read_message(system, AUTOPILOT, name.encode(), -1)
        if self.rates_t is None or t - self.rates_t >= RATE_NS:
            yield from self._streams(system, t, report)

    def _next(self, t: int) -> str:
        """The next unknown parameter; once all are known, one of the required ones each second."""
        unknown = [n for n in PARAMETERS if n not in self.parameters and self.tries.get(n, 0) < TRIES]
        if not unknown:
            if t - self.parameter_t < HEARTBEAT_NS:
                return ""
            required = [
                n for n in (*REQUIRED, *GCS_IDS) if n in self.parameters or n in REQUIRED or not self.ground_station
            ]
            unknown = [required[t // HEARTBEAT_NS % len(required)]]
        return min(unknown, key=lambda n: self.tries.get(n, 0))

    def _streams(self, system: int, t: int, report: ReportEvent) -> Iterator[Any]:
        """Check the rates since the last time; request slow streams again."""
        since, self.rates_t = self.rates_t, t
        counts, self.counts = self.counts, {}
        groups = False
        for kind, hz in STREAMS.items():
            seconds = 0.0 if since is None else (t - since) / 1e9
            slow = since is None or counts.get(kind, 0) < RATE_SHARE * hz * seconds
            times = self.slow.get(kind, 0)
            self.slow[kind] = times + 1 if slow else 0
            name = common.mavlink_map[kind].msgname
            if slow:
                yield command_long(system, SET_INTERVAL, float(kind), 1e6 / hz)
                groups |= times in (2, 3)
                if times == 3 and kind in NEEDED:
                    rate = counts.get(kind, 0) / max(seconds, 0.1)
                    report("warning", "stream_slow", f"{name} comes at {rate:.1f} Hz instead of {hz:g}")
            elif times > 3 and kind in NEEDED:
                report("info", "stream_slow_over", f"{name} comes at its rate")
        seconds = 0.0 if since is None else (t - since) / 1e9
        if counts.get(NAMED, 0) < NAMED_MIN * seconds or since is None:
            extended = common.MAV_DATA_STREAM_EXTENDED_STATUS
            yield common.MAVLink_request_data_stream_message(system, AUTOPILOT, extended, NAMED_HZ, 1)
        if groups:
            for group, rate in GROUPS.items():
                yield common.MAVLink_request_data_stream_message(system, AUTOPILOT, group, rate, 1)


def command_long(system: int, command: int, *values: float) -> Any:
    """COMMAND_LONG to the autopilot."""
    values = (values + (0.0,) * 7)[:7]
    return common.MAVLink_command_long_message(system, AUTOPILOT, command, 0, *values)
