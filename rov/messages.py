"""The vocabulary: every message that crosses a process or enters a dive, and the table of topics.

Conventions, true everywhere: `t` is monotonic time in ns (in a replay: recorded time). A message computed from a
frame repeats that frame's `frame_id` and capture time `frame_t`. World axes are NED, body axes FRD: surge forward,
sway starboard, heave down, yaw clockwise seen from above; angles in rad; depth in m, positive down.
Boxes are `(x1, y1, x2, y2)` in pixels of the original image. Readers ignore unknown fields, so old readers survive.
This module imports nothing from `rov`.
"""

from __future__ import annotations

import math
from enum import Enum
from typing import Literal, NamedTuple, TypeAlias

import msgspec

SCHEMA_VERSION = 2
"""Incremented when a field changes its meaning or a topic its name, not when a field with a default is added."""
COMMAND_VERSIONS = (1, 2)
"""Schema versions of the commands we accept: the fields of commands are the same in all of them."""

FUTURE_NS = 20_000_000
"""A stamp may be this far ahead of the reader's tick, which read its clock before it read the message; not further."""
Level: TypeAlias = Literal["info", "warning", "alarm"]
"""Of an event."""
Box = tuple[float, float, float, float]
Task: TypeAlias = Literal["none", "transit", "follow", "inspect", "station"]
"""What the policy is asked to do; with `none` the visual servo gives the setpoints."""


class Mode(str, Enum):
    """What the pilot does with the vehicle."""

    MANUAL = "manual"  # the operator's sticks
    HOLD = "hold"  # keeps depth and heading
    FOLLOW = "follow"  # the visual servo keeps a tracked object centred
    POLICY = "policy"  # the learned policy steers
    SURFACE = "surface"  # straight up; a leak or a low battery starts it


FROM_FRAMES = (Mode.FOLLOW, Mode.POLICY)
"""Modes that need a stream of setpoints from frames."""


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """Root of all messages."""

    t: int
    """When this was made, monotonic ns."""


class FromFrame(Message, frozen=True, kw_only=True):
    """Root of everything computed from one camera frame."""

    frame_id: int
    frame_t: int
    """Capture time of that frame, monotonic ns."""


# ---- camera and perception -------------------------------------------------------------------------------------


class Frame(FromFrame, frozen=True, kw_only=True):
    """Announces a new frame: its number, capture time, size in pixels and place in the ring."""

    width: int
    height: int
    slot: int = 0
    """Slot of the frame ring that holds the frame until another frame, with another `frame_id`, overwrites it."""


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
    weak: tuple[Detection, ...] = ()
    """Those below `perception.score_min` of classes that are tracked: they go on with tracks, and begin none."""
    network_ms: float = 0.0
    """Time the network took; 0 when not measured."""


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
    """The target as steering sees it: angles from the optical axis (rad) and apparent height (fraction of the image
    height). `visible` is False when there is no target; the numbers are then 0."""

    visible: bool
    track_id: int = -1
    label: str = ""
    bearing: float = 0.0
    """Positive to starboard."""
    elevation: float = 0.0
    """Positive down, as heave."""
    size: float = 0.0


class PolicyInput(FromFrame, frozen=True, kw_only=True):
    """What the policy answered for one frame, and what it was computed from: the setpoint of the same frame can be
    computed again from `features`, `maps` and the messages since `reset`. NaN: not given, not measured or hidden."""

    task: Task
    version: int
    """Of the features (`rov.steering.policy_input`)."""
    reset: bool = False
    """The policy's memory began with this frame."""
    features: tuple[float, ...] = ()
    maps: bytes = b""
    """Four maps of 12 × 16, float16, little-endian: inverse range, its log variance, goal heat, pipeline."""
    goal: tuple[float, float, float, float]
    """Heading in rad, depth, distance and height in m."""
    target_height: float = math.nan
    """Of the followed thing, m."""
    attitude: tuple[float, float, float]
    """Roll, pitch, yaw in rad when the frame was captured."""
    rates: tuple[float, float, float]
    depth: float
    start: tuple[float, float]
    """Heading in rad and depth in m at engagement."""
    moved: tuple[float, float, float, float, float] = (0.0, 0.0, 0.0, 0.0, 0.0)
    """Displacement of the picture since the last frame: dx, dy, log scale, roll, confidence."""
    keyed: tuple[float, float, float, float, float] = (0.0, 0.0, 0.0, 0.0, 0.0)
    """The same since the key frame."""
    key: bool = False
    """This frame is the new key frame."""
    cell_v: float = math.nan
    previous: tuple[float, float, float, float] = (math.nan, math.nan, math.nan, math.nan)
    """The setpoint of the frame before."""
    dt_s: float = 0.0
    log_variance: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    """How unsure the policy is of surge, sway, heave, yaw."""
    unlike: float = 0.0
    """How unlike those of the training the picture is; a usual one has about 1."""


# ---- motion: from setpoint to thrusters ------------------------------------------------------------------------


class Setpoint(FromFrame, frozen=True, kw_only=True):
    """The desired motion, −1..1 per axis; streamed, because it goes stale. From the operator, `frame_id` is −1 and
    `frame_t` the time of the stick."""

    source: Literal["operator", "steer", "policy"]
    surge: float = 0.0
    sway: float = 0.0
    heave: float = 0.0
    yaw: float = 0.0
    unfit: str = ""
    """Why nothing may steer by this frame; the mode that needs it ends in hold. Empty: it may."""


class VehicleState(Message, frozen=True, kw_only=True):
    """Telemetry of the vehicle. None: never received. Each part arrives at its own rate and has its own time."""

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
    """The autopilot is surfacing, or must, though we did not ask for it."""
    obstacle: str = ""
    """Why we may not engage the autopilot now; empty when we may."""
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
    """0 .. 1 as the autopilot reports it, 0.5 in the middle."""
    pilot_gain: float | None = None
    """Factor by which the autopilot multiplies its pilot's sticks, 0 .. 1."""


class Wrench(FromFrame, frozen=True, kw_only=True):
    """Total force and torque that control demands, −1..1 per axis, before allocation. `frame_id` is −1 when it does
    not come from a frame."""

    mode: Mode
    surge: float = 0.0
    sway: float = 0.0
    heave: float = 0.0
    roll: float = 0.0
    pitch: float = 0.0
    yaw: float = 0.0


class ThrusterCommand(FromFrame, frozen=True, kw_only=True):
    """The command sent to the vehicle, after the guard: −1..1 per thruster, motor 1 first; for an autopilot −1..1 per
    axis: surge, sway, heave, yaw."""

    armed: bool
    mode: Mode
    values: tuple[float, ...]
    neutral_because: str = ""
    """Why the guard sent neutral; empty when it did not."""


class PilotStatus(Message, frozen=True, kw_only=True):
    """What the pilot is doing, and why it refused the last request."""

    armed: bool
    mode: Mode
    operator: str = ""
    target: str = ""
    task: Task = "none"
    refused: str = ""
    """Why the pilot, commander or link refused the last arming, mode, target or task; empty when it was accepted."""


class ConsumedInput(Message, frozen=True, kw_only=True):
    """An input that a process consumed, published before the outputs it led to. A process acts on a message later than
    the message was made; an exact replay needs the time of consumption."""

    by: Literal["pilotd", "perceptiond"]
    what: Literal["start", "setpoint", "arm", "disarm", "stop", "mode"]
    """`start`: the process began, without any earlier state. Targets are in `ActiveSettings`."""
    asked_t: int = 0
    """When the input was requested, monotonic ns."""
    mode: Mode | None = None
    """For `mode`: the new mode, requested by an operator or by an alarm that surfaces the vehicle."""
    setpoint: Setpoint | None = None
    """For `setpoint`: from an operator's sticks or from perception."""


# ---- the service itself ----------------------------------------------------------------------------------------


class Event(Message, frozen=True, kw_only=True):
    """Something happened that an operator wants to know."""

    level: Level
    source: str
    """The process or stage that reports it."""
    code: str
    """Stable name for programs: `setpoint_stale`, `bad_output`, …"""
    text: str


class Health(Message, frozen=True, kw_only=True):
    """Rate, latency and losses of a process. Times in ms, rates in Hz."""

    process: str
    rate_hz: float
    latency_ms: float = 0.0
    dropped: int = 0


class HostStatus(Message, frozen=True, kw_only=True):
    """Temperature and power of the computer. None: it has no such instrument."""

    hottest: str = ""
    """Name of the hottest zone."""
    celsius: float | None = None
    """Its temperature."""
    margin_c: float | None = None
    """Smallest number of degrees left before the kernel throttles a part."""
    watts: float | None = None
    """Power taken from the supply."""
    throttled: bool = False
    """Whether the processors are kept below their full speed."""


class Clock(Message, frozen=True, kw_only=True):
    """The wall clock at `t`. These pairs give the date of a dive, even when somebody sets the clock during it."""

    utc_ns: int
    """UTC, ns since 1970."""


class Setting(msgspec.Struct, frozen=True):
    """One key of the configuration, as `guard.gain`, and its value as JSON (TOML writes such values the same way)."""

    key: str
    value: str


class ConfigEdit(Message, frozen=True, kw_only=True):
    """The saved configuration, checked: every live key."""

    settings: tuple[Setting, ...]
    overruled: tuple[str, ...] = ()
    """Keys that an operator set after the file last changed them: for these the operator's value holds."""


class ActiveSettings(Message, frozen=True, kw_only=True):
    """The settings in force from `t` on: every live key. Frames follow a moment later (`rov.config.timeline`)."""

    settings: tuple[Setting, ...]


# ---- commands of an operator -----------------------------------------------------------------------------------


class Command(Message, frozen=True, kw_only=True, tag_field="verb"):
    """Root of operator commands. `session` names the operator's session; `seq` only grows within it, so that a replayed
    command is recognised."""

    session: str
    seq: int


class Heartbeat(Command, frozen=True, kw_only=True, tag="heartbeat"):
    """The operator is there. Sent at 1 Hz, never on another's behalf."""


class Arm(Command, frozen=True, kw_only=True, tag="arm"):
    """Let the thrusters turn."""


class Disarm(Command, frozen=True, kw_only=True, tag="disarm"):
    """Go to neutral; no thrust until armed again."""


class Stop(Command, frozen=True, kw_only=True, tag="stop"):
    """Disarm at once; accepted from anybody, never undone by a command that was already on its way."""


class SetMode(Command, frozen=True, kw_only=True, tag="mode"):
    """Change the mode; refused, with the reason, when an input that the mode needs is missing."""

    mode: Mode


class SetTarget(Command, frozen=True, kw_only=True, tag="target"):
    """What `follow` follows: a class name, and its apparent height to keep (fraction of the image height; None: as
    before)."""

    label: str
    size: float | None = None


class SetTask(Command, frozen=True, kw_only=True, tag="task"):
    """What the policy is asked to do. It computes setpoints at once, but only `mode policy` lets them move the vehicle.
    Headings and depths that are not given are those of the vehicle now; other numbers stay as they are."""

    task: Task
    label: str | None = None
    """What `follow` follows: a class name; None: as before."""
    heading: float | None = None
    """Of `transit` and `inspect`, rad."""
    depth: float | None = None
    """Of `transit`, m."""
    distance: float | None = None
    """Of `follow`, m."""
    height: float | None = None
    """Of `inspect`, m over the pipeline."""
    target_height: float | None = None
    """Of `follow`, m: how high the followed thing is; 0: as usual for its class. None: as before, or as usual if a
    class is given."""


class Sticks(Command, frozen=True, kw_only=True, tag="sticks"):
    """The operator's sticks, −1..1, streamed."""

    surge: float = 0.0
    sway: float = 0.0
    heave: float = 0.0
    yaw: float = 0.0


class TakeOver(Command, frozen=True, kw_only=True, tag="take_over"):
    """Make this session the operator's. `displace`: even if another operator is present."""

    displace: bool = False


AnyCommand = Heartbeat | Arm | Disarm | Stop | SetMode | SetTarget | SetTask | Sticks | TakeOver


class Reply(Message, frozen=True, kw_only=True):
    """The answer to one command."""

    seq: int
    accepted: bool
    reason: str = ""


# ---- the table -------------------------------------------------------------------------------------------------


class Topic(NamedTuple):
    """One line of the table from which freshness, recording and `rov listen` are derived."""

    type: type[Message]
    publisher: str
    kind: Literal["state", "event"]
    """state: the latest wins, older ones may be lost. event: each one counts; queues are bounded, losses counted."""
    hz: float
    """Expected rate; 0 for events."""


TOPICS: dict[str, Topic] = {
    "frame": Topic(Frame, "camerad", "state", 15.0),
    "detections": Topic(Detections, "perceptiond", "state", 15.0),
    "tracks": Topic(Tracks, "perceptiond", "state", 15.0),
    "observation": Topic(Observation, "perceptiond", "state", 15.0),
    "policy_input": Topic(PolicyInput, "perceptiond", "state", 15.0),
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
"""Topic names of version 1, found in the dives recorded then."""


def topic_of(message: Message) -> str:
    """The topic a message belongs to."""
    return "commands" if isinstance(message, Command) else _TOPIC_OF_TYPE[type(message)]


_TOPIC_OF_TYPE: dict[type[Message], str] = {topic.type: name for name, topic in TOPICS.items()}
