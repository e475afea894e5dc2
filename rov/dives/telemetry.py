"""Reads the vehicle's state from MAVLink in JSON, as BlueOS's recorder writes it beside the pictures.

    mavlink/1/1/ATTITUDE   {"header": {…}, "message": {"type": "ATTITUDE", "roll": 0.0, …}}

Messages are translated as on a live link (`rov.link.vehicle_state`). In this JSON, enumerations are names and texts may
be lists of characters.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from rov.link.vehicle_state import Telemetry
from rov.messages import VehicleState

TOPIC = re.compile(r"/?mavlink/(\d+)/1/(\w+)")
"""The number of the MAVLink system and the message's name; component 1 is the autopilot."""
PACE = "ATTITUDE"
"""Each message of this type yields a VehicleState."""
ORIENTATIONS = {"MAV_SENSOR_ROTATION_PITCH_270": 25, "MAV_SENSOR_ROTATION_NONE": 0}


def system_of(topic: str, encoding: str) -> int | None:
    """The MAVLink system of a topic; None for other topics."""
    match = TOPIC.fullmatch(topic)
    return int(match[1]) if match and encoding == "json" else None


def paces(topic: str) -> bool:
    return topic.endswith(f"/{PACE}")


class Envelope(msgspec.Struct):
    """The JSON around one MAVLink message."""

    message: dict[str, Any]


class JsonMavlinkMessage:
    """A message with its fields as attributes, like pymavlink's. A missing field raises ValueError."""

    def __init__(self, fields: dict[str, Any]):
        self.fields = {"voltages_ext": [], "signal_quality": 0, "id": 0} | fields

    def get_type(self) -> str:
        return str(self.fields.get("type"))

    def __getattr__(self, name: str) -> Any:
        try:
            return number_of(name, self.fields[name])
        except KeyError:
            raise ValueError(f"{name} is missing") from None


def number_of(name: str, value: Any) -> Any:
    """A field's value as MAVLink has it on the wire."""
    if isinstance(value, dict):
        value = value.get("bits", value.get("type", 0))
    if name == "base_mode" and isinstance(value, str):
        return 128 if "SAFETY_ARMED" in value else 0
    if name == "orientation":
        return ORIENTATIONS.get(value, value if isinstance(value, int) else -1)
    if name in ("text", "name") and isinstance(value, list):
        value = "".join(each if isinstance(each, str) else chr(each) for each in value)
    return value.split("\0")[0] if isinstance(value, str) else value


class RecordedVehicle:
    """Collects the state of one vehicle from its recorded messages."""

    def __init__(self) -> None:
        self.telemetry = Telemetry()
        self.decoder = msgspec.json.Decoder(Envelope)

    def receive(self, t: int, data: bytes) -> VehicleState | None:
        """The state, after an ATTITUDE message; else None. Raises msgspec.DecodeError or ValueError if malformed."""
        message = JsonMavlinkMessage(self.decoder.decode(data).message)
        try:
            if not self.telemetry.update(message, t):
                raise msgspec.ValidationError(f"{message.get_type()}: values that make no sense")
        except (TypeError, AttributeError, OverflowError) as error:
            raise ValueError(str(error)) from None
        if message.get_type() != PACE:
            return None
        self.telemetry.expire(t)
        self.telemetry.receive(t)
        return self.telemetry.state
