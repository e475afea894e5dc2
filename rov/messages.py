"""The vocabulary: every message that crosses a process or enters a dive, and the table of topics.

Conventions, true everywhere: `t` is monotonic time in ns (in a replay: recorded time). A message that came from a
frame repeats that frame's `frame_id` and capture time `frame_t`. World axes are NED, body axes FRD: surge forward,
sway starboard, heave down, yaw clockwise seen from above; angles in rad; depth in m, positive down.
Boxes are `(x1, y1, x2, y2)` in pixels of the original image. Unknown fields are ignored, so old readers survive.
This module imports nothing of ours.
"""

from __future__ import annotations

from enum import Enum
from typing import Literal, NamedTuple

import msgspec

SCHEMA_VERSION = 2
"""Raised when a field changes its meaning or a topic its name; adding a field with a default does not change it."""
COMMAND_VERSIONS = (1, 2)
"""Of the commands that are understood: their fields have stayed what they were."""

Box = tuple[float, float, float, float]


class Mode(str, Enum):
    """What the pilot does with the vehicle."""

    MANUAL = "manual"  # the operator's sticks
    HOLD = "hold"  # depth and heading kept
    FOLLOW = "follow"  # the visual servo keeps a tracked object centred
    POLICY = "policy"  # the learned policy steers
    SURFACE = "surface"  # straight up; what leak and low battery ask for


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """Root of all messages."""

    t: int
    """When this was made, monotonic ns."""


class FromFrame(Message, frozen=True, kw_only=True):
    """Root of everything computed from one camera frame."""

    frame_id: int
    frame_t: int
    """Capture time of that frame, monotonic ns."""


# ---- the camera and what is seen -------------------------------------------------------------------------------


class Frame(FromFrame, frozen=True, kw_only=True):
    """A frame is there: which one, when it was captured, how large (pixels), where in the ring."""

    width: int
    height: int
    slot: int = 0
    """Slot of the frame ring that holds it until another frame is written there; then `frame_id` is no longer in it."""


class Detection(msgspec.Struct, frozen=True):
    """One object in one frame; `score` in 0..1."""

    label: str
    score: float
    box: Box


class Detections(FromFrame, frozen=True, kw_only=True):
    """All objects found in one frame, best first."""

    width: int
    height: int
    items: tuple[Detection, ...] = ()
    network_ms: float = 0.0
    """How long the network took; 0 where that was not measured."""


class Track(msgspec.Struct, frozen=True):
    """One object followed over frames."""

    track_id: int
    label: str
    score: float
    box: Box
    """The estimate for this frame, also while the object is hidden."""
    velocity: tuple[float, float] = (0.0, 0.0)
    """Of the box centre, px/s."""
    hidden_s: float = 0.0
    """Time since it was last detected; 0 when it was detected in this frame."""


class Tracks(FromFrame, frozen=True, kw_only=True):
    """All confirmed tracks at one frame."""

    width: int
    height: int
    items: tuple[Track, ...] = ()


class Observation(FromFrame, frozen=True, kw_only=True):
    """What steering sees of its target: angles from the optical axis (rad) and apparent height (fraction of the
    image height). `visible` is False when there is no target; the numbers are then 0."""

    visible: bool
    track_id: int = -1
    label: str = ""
    bearing: float = 0.0
    """Positive to starboard."""
    elevation: float = 0.0
    """Positive down, as heave."""
    size: float = 0.0


# ---- what the vehicle should do, and does ----------------------------------------------------------------------


class Setpoint(FromFrame, frozen=True, kw_only=True):
    """A wish for motion in −1..1 per axis, streamed: it goes stale. From the operator, `frame_id` is −1 and
    `frame_t` the time of the stick."""

    source: Literal["operator", "steer", "policy"]
    surge: float = 0.0
    sway: float = 0.0
    heave: float = 0.0
    yaw: float = 0.0


class VehicleState(Message, frozen=True, kw_only=True):
    """What the vehicle says of itself. None: never heard. Parts arrive at their own rates, so each has its time."""

    armed: bool = False
    attitude_t: int | None = None
    roll: float = 0.0
    pitch: float = 0.0
    yaw: float = 0.0
    rates: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Body rates p, q, r in rad/s."""
    depth_t: int | None = None
    depth: float = 0.0
    velocity_t: int | None = None
    velocity: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Over ground along surge, sway, heave in m/s, from a DVL."""
    battery_v: float | None = None
    leak: bool = False
    surfacing: bool = False
    """The autopilot goes up, or has to, though nobody here asked for it."""
    obstacle: str = ""
    """What forbids to engage an autopilot now."""
    hull_temperature_c: float | None = None
    hull_pressure_kpa: float | None = None
    water_temperature_c: float | None = None
    altitude_t: int | None = None
    altitude: float = 0.0
    """Height above the bottom in m, from an echo sounder."""
    range_ahead_t: int | None = None
    range_ahead: float = 0.0
    """Distance ahead in m, from an echo sounder."""
    position_t: int | None = None
    position: tuple[float, float] = (0.0, 0.0)
    """North and east of the autopilot's origin in m."""
    latitude: float | None = None
    longitude: float | None = None
    """Degrees."""
    lights: float | None = None
    """0 dark .. 1 full."""
    camera_tilt: float | None = None
    """0 .. 1 as the autopilot says it, 0.5 in the middle."""
    pilot_gain: float | None = None
    """What the autopilot multiplies its pilot's sticks with, 0 .. 1."""


class Wrench(FromFrame, frozen=True, kw_only=True):
    """What control asks of the thrusters together: −1..1 per axis, before allocation. `frame_id` is −1 when no
    frame moved it."""

    mode: Mode
    surge: float = 0.0
    sway: float = 0.0
    heave: float = 0.0
    roll: float = 0.0
    pitch: float = 0.0
    yaw: float = 0.0


class ThrusterCommand(FromFrame, frozen=True, kw_only=True):
    """What went over the wire, after the guard: −1..1 per thruster, motor 1 first; for an autopilot −1..1 per axis:
    surge, sway, heave, yaw."""

    armed: bool
    mode: Mode
    values: tuple[float, ...]
    neutral_because: str = ""
    """Why the guard sent neutral; empty when it did not."""


class PilotStatus(Message, frozen=True, kw_only=True):
    """What the pilot is doing, and what stands in its way."""

    armed: bool
    mode: Mode
    operator: str = ""
    target: str = ""
    refused: str = ""
    """Why the last arming, mode or target was refused, by whomever: pilot, commander or link. Empty when it was not."""


class ConsumedInput(Message, frozen=True, kw_only=True):
    """Something a process took in, before all that it says at the same `t` or later. A message is not acted on when it
    is made: without this no recording would replay exactly."""

    by: Literal["pilotd", "perceptiond"]
    what: Literal["start", "setpoint", "arm", "disarm", "stop", "mode"]
    """`start`: the process began, and remembers nothing of what was before. Targets are in `Tuning`."""
    asked_t: int = 0
    """When that was asked for."""
    mode: Mode | None = None
    """Of `mode`, whoever asked for it: an operator, or an alarm that takes the vehicle up."""
    setpoint: Setpoint | None = None
    """Of `setpoint`: an operator's sticks, or what perception wants."""


# ---- the service itself ----------------------------------------------------------------------------------------


class Event(Message, frozen=True, kw_only=True):
    """Something happened that an operator would want to read."""

    level: Literal["info", "warning", "alarm"]
    source: str
    """The process or stage that says so."""
    code: str
    """Stable, for programs: `setpoint_stale`, `bad_output`, …"""
    text: str


class Health(Message, frozen=True, kw_only=True):
    """How a process is doing. Times in ms, rates in Hz."""

    process: str
    rate_hz: float
    latency_ms: float = 0.0
    dropped: int = 0


class HostStatus(Message, frozen=True, kw_only=True):
    """The computer itself. None: it has no such instrument."""

    hottest: str = ""
    """Name of the hottest zone."""
    celsius: float | None = None
    """Its temperature."""
    margin_c: float | None = None
    """Degrees left until the kernel slows down some part."""
    watts: float | None = None
    """Power taken from the supply."""
    throttled: bool = False
    """Whether the processors may not run as fast as they could."""


class Clock(Message, frozen=True, kw_only=True):
    """What the wall clock showed at `t`. Pairs of both tell when a dive was, and keep telling when somebody sets it."""

    utc_ns: int
    """UTC, ns since 1970."""


class Setting(msgspec.Struct, frozen=True):
    """One key of the configuration, as `guard.gain`, and its value as JSON (which is how TOML writes it, too)."""

    key: str
    value: str


class ConfigEdit(Message, frozen=True, kw_only=True):
    """What the saved configuration says now, checked: every live key."""

    settings: tuple[Setting, ...]
    overruled: tuple[str, ...] = ()
    """Keys that an operator has set after the file was last changed in them: there the file is not the last word."""


class ActiveSettings(Message, frozen=True, kw_only=True):
    """What holds from `t` on: every live key. What comes from frames follows a moment later (`rov.config.live`)."""

    settings: tuple[Setting, ...]


# ---- what an operator may say ----------------------------------------------------------------------------------


class Command(Message, frozen=True, kw_only=True, tag_field="verb"):
    """Root of operator commands. `session` names the operator's session, `seq` only ever grows in it, so that a
    replayed command is known as one."""

    session: str
    seq: int


class Heartbeat(Command, frozen=True, kw_only=True, tag="heartbeat"):
    """The operator is there. Sent at 1 Hz, never on another's behalf."""


class Arm(Command, frozen=True, kw_only=True, tag="arm"):
    """Let the thrusters turn."""


class Disarm(Command, frozen=True, kw_only=True, tag="disarm"):
    """Neutral, then no thrust until armed again."""


class Stop(Command, frozen=True, kw_only=True, tag="stop"):
    """Disarm at once; accepted from anybody, never undone by a command already under way."""


class SetMode(Command, frozen=True, kw_only=True, tag="mode"):
    """Change the mode; refused, with the reason, when the mode lacks something."""

    mode: Mode


class SetTarget(Command, frozen=True, kw_only=True, tag="target"):
    """What `follow` follows: a class name, and how high in the image it shall be (fraction of the height; None: as
    high as before)."""

    label: str
    size: float | None = None


class Sticks(Command, frozen=True, kw_only=True, tag="sticks"):
    """The operator's sticks, −1..1, streamed."""

    surge: float = 0.0
    sway: float = 0.0
    heave: float = 0.0
    yaw: float = 0.0


class TakeOver(Command, frozen=True, kw_only=True, tag="take_over"):
    """This session becomes the operator's. `displace`: also where another operator is there."""

    displace: bool = False


AnyCommand = Heartbeat | Arm | Disarm | Stop | SetMode | SetTarget | Sticks | TakeOver


class Reply(Message, frozen=True, kw_only=True):
    """The answer to one command."""

    seq: int
    accepted: bool
    reason: str = ""


# ---- the table -------------------------------------------------------------------------------------------------


class Topic(NamedTuple):
    """One line of the table: freshness, recording, `rov listen` and the documentation are derived from it."""

    type: type[Message]
    publisher: str
    kind: Literal["state", "event"]
    """state: the latest wins, older ones may be lost. event: each counts, bounded queues, drops are counted."""
    hz: float
    """Expected rate; 0 for events."""


TOPICS: dict[str, Topic] = {
    "frame": Topic(Frame, "camerad", "state", 15.0),
    "detections": Topic(Detections, "perceptiond", "state", 15.0),
    "tracks": Topic(Tracks, "perceptiond", "state", 15.0),
    "observation": Topic(Observation, "perceptiond", "state", 15.0),
    "setpoint": Topic(Setpoint, "perceptiond", "state", 15.0),
    "vehicle": Topic(VehicleState, "pilotd", "state", 50.0),
    "wrench": Topic(Wrench, "pilotd", "state", 50.0),
    "thrusters": Topic(ThrusterCommand, "pilotd", "state", 50.0),
    "pilot": Topic(PilotStatus, "pilotd", "state", 5.0),
    "config_edit": Topic(ConfigEdit, "supervisor", "state", 1.0),
    "settings": Topic(ActiveSettings, "pilotd", "state", 1.0),
    "health": Topic(Health, "all", "state", 1.0),
    "host": Topic(HostStatus, "hostd", "state", 1.0),
    "clock": Topic(Clock, "recorderd", "state", 1.0),
    "inputs": Topic(ConsumedInput, "all", "event", 0.0),
    "events": Topic(Event, "all", "event", 0.0),
    "commands": Topic(Command, "operator", "event", 0.0),
}
"""Every topic of the system. The pictures themselves go through the frame ring, and into dives as `camera`."""


FORMER_TOPICS = {"heard": "inputs", "edit": "config_edit", "tuning": "settings", "machine": "host"}
"""What topics were called in version 1, and are in the dives of then."""


def topic_of(message: Message) -> str:
    """The topic a message belongs to."""
    return "commands" if isinstance(message, Command) else _TOPIC_OF_TYPE[type(message)]


_TOPIC_OF_TYPE: dict[type[Message], str] = {topic.type: name for name, topic in TOPICS.items()}
