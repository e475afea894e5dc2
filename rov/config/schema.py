"""The schema of `rover.toml`. Its errors name file, line and key, what was found and what is allowed.

Each key declares how a change takes effect: `live` (within a second, while running) or `restart`. A safety key also
declares which direction is the safer one; while armed it may only move that way.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import ErrorDetails

from rov import toml
from rov.errors import UserError
from rov.messages import Task
from rov.printing import hide_passwords
from rov.resources import find_resource

PROBLEMS_MAX = 50
"""Problems shown of one file; the rest is counted."""
SHOWN_MAX = 80
"""Characters shown of a wrong value."""
IPC_PATH_MAX = 107
"""Bytes of sockaddr_un."""
KEYS_MAX, COMMAS_MAX = 1000, 5000
"""Limits of a file: ten times our number of keys, and we have no lists. Reading more would take the supervisor's loop
too long."""


class ConfigError(UserError):
    """One or more problems of a configuration; `problems` has a line for each."""

    def __init__(self, problems: list[str]):
        self.problems = problems
        super().__init__("\n".join(problems))


def live(**more: Any) -> dict[str, Any]:
    return {"apply": "live", **more}


RESTART: dict[str, Any] = {"apply": "restart"}
SAFER_LOWER: dict[str, Any] = live(safer="lower")
"""A safety key: while armed it may only be lowered."""

Gain = Annotated[float, Field(ge=0, le=100, json_schema_extra=live())]


def _endpoint(text: str) -> str:
    """Accept an endpoint that ZeroMQ can bind and others can find. Raises ValueError with the reason."""
    scheme, _, place = text.partition("://")
    if scheme == "ipc":
        if place == "*":
            raise ValueError("nobody could find it: name a path, as ipc:///run/rov/public")
        if len(place.encode()) > IPC_PATH_MAX:
            raise ValueError(
                f"the path of a socket has at most {IPC_PATH_MAX} bytes; this one has {len(place.encode())}"
            )
        return text
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+(?:%\w+)?\]|[\w.-]+|\*):(\d{1,5})", place, re.ASCII)
    if not match or not 0 < int(match[2]) < 65536:
        raise ValueError("must look like tcp://HOST:PORT, with a port of 1 to 65535, as tcp://127.0.0.1:5555")
    return text


Endpoint = Annotated[str, Field(pattern=r"^(tcp|ipc)://.+"), AfterValidator(_endpoint)]
Label = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]


class Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True, str_max_length=1000
    )


class CameraConfig(Section):
    """The camera and its optics."""

    source: str = Field("0", min_length=1, json_schema_extra=RESTART)
    """0, /dev/video0, [loop:]dive.mp4, rtp://:5600, rtsp://…, http://…, pipe:WIDTHxHEIGHT:COMMAND, or
    process:COMMAND, which replaces camerad."""
    width: int = Field(0, ge=0, le=16384, json_schema_extra=RESTART)
    """Requested from the camera, in pixels; 0 leaves it to the camera."""
    height: int = Field(0, ge=0, le=16384, json_schema_extra=RESTART)
    fps: float = Field(0.0, ge=0, le=1000, json_schema_extra=RESTART)
    fourcc: str = Field("", max_length=4, json_schema_extra=RESTART)
    """Requested pixel format; USB cameras give more than 640×480 at full rate only as MJPG."""
    latency_ms: float = Field(0.0, ge=0, le=2000, json_schema_extra=RESTART)
    """Time from the middle of the exposure to the arrival of the frame."""
    hfov_deg: float = Field(80.0, gt=10, lt=170, json_schema_extra=RESTART)
    """Horizontal field of view, in water, in degrees; used until a calibration is set."""
    calibration: str = Field("", json_schema_extra=RESTART)
    """ROS camera_info of this camera, in the water it works in (`rov calibrate camera`, then `rov calibrate port`)."""
    colour: str = Field("", json_schema_extra=RESTART)
    """White balance by depth (`rov calibrate colour`), applied to the network's input."""


class PerceptionConfig(Section):
    """The detector."""

    weights: str = Field("models/detector.safetensors", json_schema_extra=live())
    """Weights file, with its card (.toml) beside it: an absolute path, or one in the checkout or package. `rov models
    use` sets it. While running, a new one is tried beside the old one, and refused when it does not fit."""
    device: Literal["auto", "cpu", "cuda"] = Field("auto", json_schema_extra=RESTART)
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field("auto", json_schema_extra=RESTART)
    """auto: float16 on CUDA, bfloat16 on processors with AVX512-BF16 or AMX, else float32."""
    rate_hz: float = Field(15.0, gt=0, le=120, json_schema_extra=RESTART)
    """Frames processed per second while live; the newest each time."""
    threads: int = Field(1, ge=1, le=64, json_schema_extra=RESTART)
    """Processor threads of the network; the other cores decode, control and record."""
    batch: int = Field(8, ge=1, le=256, json_schema_extra=RESTART)
    """Frames per network call in replay and `rov detect`."""
    score_min: float = Field(0.5, gt=0, lt=1, json_schema_extra=live())
    """Detections below this begin no track; 0.5 is the balance of misses and false alarms found in validation."""


class TrackingConfig(Section):
    """Identity over time."""

    keep_score: float = Field(0.25, gt=0, lt=1, json_schema_extra=live())
    """Least score of a detection that goes on with a track; to begin one takes `perception.score_min`."""
    match_iou: float = Field(0.2, gt=0, lt=1, json_schema_extra=live())
    """Least overlap of a detection with a track's prediction to be the same object."""
    confirm_hits: int = Field(2, ge=1, le=20, json_schema_extra=live())
    """Detections in a row before a track is published."""
    hidden_s: float = Field(1.0, ge=0, le=10, json_schema_extra=live())
    """How long a track lives on its prediction alone, in s."""


class SteeringConfig(Section):
    """The visual servo, and the files of the policy."""

    policy: str = Field("models/policy.safetensors", json_schema_extra=RESTART)
    """Weights of the policy, with their card (.toml) beside them. Without them `mode policy` is refused."""
    encoder: str = Field("models/encoder.safetensors", json_schema_extra=RESTART)
    """Weights of its encoder, from small pictures to maps of ranges, with their card."""

    target: Label = Field("buoy_red", json_schema_extra=live())
    """Class that `follow` follows."""
    size: float = Field(0.25, gt=0, lt=1, json_schema_extra=live())
    """Apparent height at which the target is kept, as a fraction of the image height."""
    yaw_gain: Gain = 1.2
    """Yaw per rad of bearing."""
    heave_gain: Gain = 1.0
    """Heave per rad of elevation."""
    surge_gain: Gain = 0.6
    """Surge per unit of log(wanted size / apparent size)."""
    surge_max: float = Field(0.6, ge=0, le=1, json_schema_extra=SAFER_LOWER)
    """Largest surge."""
    centred_deg: float = Field(15.0, gt=0, le=60, json_schema_extra=live())
    """Surge falls to 0 as the bearing grows to this: turn first, then go. In degrees."""


class TaskConfig(Section):
    """What the policy is asked to do; `rov ctl task` sets it, too."""

    name: Task = Field("none", json_schema_extra=live())
    """none (the visual servo steers), transit (to a heading at a depth, around what is in the way), follow
    (steering.target, at a distance), inspect (along a pipeline, at a height), station (over this place, by sight)."""
    heading_deg: float = Field(0.0, ge=-360, le=360, json_schema_extra=live())
    """Of transit and inspect."""
    depth: float = Field(2.0, ge=0, le=6000, json_schema_extra=live())
    """Of transit, in m."""
    distance: float = Field(2.0, ge=0.5, le=10, json_schema_extra=live())
    """Of follow, in m."""
    height: float = Field(1.0, ge=0.3, le=5, json_schema_extra=live())
    """Of inspect, in m over the pipeline."""
    target_height: float = Field(0.0, ge=0, le=10, json_schema_extra=live())
    """Of follow: how high the followed thing is, in m, as it lies or stands in the water; 0: as usual for its class."""


class ControlConfig(Section):
    """The inner loops: depth, heading, attitude."""

    rate_hz: float = Field(50.0, ge=10, le=200, json_schema_extra=RESTART)
    """Pace of the pilot's loop."""
    depth_kp: Gain = 1.5
    """Heave per m of depth error."""
    depth_ki: Gain = 0.2
    """Heave per m s."""
    depth_kd: Gain = 1.2
    """Heave per m/s."""
    heading_kp: Gain = 1.2
    """Yaw per rad of heading error."""
    heading_ki: Gain = 0.05
    heading_kd: Gain = 0.5
    """Yaw per rad/s."""
    attitude_kp: Gain = 2.2
    """Roll and pitch per rad, on frames that can hold them."""
    attitude_kd: Gain = 0.3
    """Roll and pitch per rad/s."""


class VehicleConfig(Section):
    """The vehicle."""

    frame: Literal["bluerov1", "vectored", "vectored_6dof", "vectored_6dof_90deg", "simplerov_3", "simplerov_4"] = (
        Field("vectored_6dof", json_schema_extra=RESTART)
    )
    """ArduSub frame; vectored_6dof is the BlueROV2 Heavy, vectored the standard BlueROV2."""
    thrusters: str = Field("calibration/t200.toml", json_schema_extra=RESTART)
    """Thruster curve."""
    max_depth: float = Field(gt=0, le=6000, json_schema_extra=SAFER_LOWER)
    """Below this the pilot only goes up. In m; required: nobody else knows your housing."""
    battery_cells: int = Field(4, ge=1, le=20, json_schema_extra=RESTART)
    """Cells in series; an unknown voltage is taken as a full battery, 4.2 V per cell."""


class GuardConfig(Section):
    """Limits of commands, applied last before they are sent."""

    gain: float = Field(0.5, gt=0, le=1, json_schema_extra=SAFER_LOWER)
    """Largest command to any output: 0.5 is 1300 to 1700 µs of a thruster. Full stick is the thrust it reaches both
    ways; beside an autopilot, this share of its axis."""
    slew: float = Field(2.0, gt=0, le=20, json_schema_extra=SAFER_LOWER)
    """Fastest change of an output (a thruster, or an axis of an autopilot), in full scales per second."""
    setpoint_stale_ms: float = Field(300.0, gt=0, le=1000, json_schema_extra=SAFER_LOWER)
    """A setpoint is ignored when its frame (or stick) is older than this."""
    frame_age_ms: float = Field(200.0, gt=0, le=1000, json_schema_extra=SAFER_LOWER)
    """A frame is ignored when it is older than this at the end of its inference."""
    perception_gone_s: float = Field(1.0, gt=0, le=10, json_schema_extra=SAFER_LOWER)
    """Without perception for this long, follow and policy end in hold."""
    state_stale_ms: float = Field(500.0, gt=0, le=2000, json_schema_extra=SAFER_LOWER)
    """Attitude or depth older than this is unknown."""
    tilt_deg: float = Field(30.0, gt=5, le=90, json_schema_extra=SAFER_LOWER)
    """A tilt beyond this for `tilt_s`: neutral and disarm."""
    tilt_s: float = Field(2.0, gt=0, le=10, json_schema_extra=SAFER_LOWER)

    battery_low_v: float = Field(3.3, ge=2.5, le=4.2, json_schema_extra=live(safer="higher"))
    """Volt per cell; below this for `battery_low_s`: surface."""
    battery_warn_v: float = Field(3.5, ge=2.5, le=4.2, json_schema_extra=live(safer="higher"))
    """Volt per cell; below this: a warning."""
    battery_low_s: float = Field(5.0, gt=0, le=60, json_schema_extra=SAFER_LOWER)
    hull_c: float = Field(62.0, gt=0, le=100, json_schema_extra=SAFER_LOWER)
    """Hotter inside for `hull_s`: alarm."""
    hull_kpa: float = Field(105.0, gt=50, le=300, json_schema_extra=SAFER_LOWER)
    """More pressure inside for `hull_s`: alarm."""
    hull_s: float = Field(2.0, gt=0, le=60, json_schema_extra=SAFER_LOWER)


class LinkConfig(Section):
    """The connection to the vehicle."""

    kind: Literal["thrusters", "ardusub"] = Field("thrusters", json_schema_extra=RESTART)
    """A bare thruster board at `port`, or an ArduSub autopilot at `url`."""
    url: str = Field(
        "tcp:127.0.0.1:5760", pattern=r"^(serial:[^:]+|(tcp|udp|udpout):[^:]+):\d+$", json_schema_extra=RESTART
    )
    """Where ArduSub is: tcp:HOST:PORT, udp:0.0.0.0:PORT (listens), udpout:HOST:PORT or serial:DEVICE:BAUD."""
    port: str = Field("/dev/ttyACM0", min_length=1, json_schema_extra=RESTART)
    """Serial port of the thruster board (systemd/BOARD.md describes what it must do)."""
    baud: int = Field(115200, ge=9600, le=4_000_000, json_schema_extra=RESTART)
    surface_pa: float = Field(101_325.0, gt=50_000, lt=120_000, json_schema_extra=SAFER_LOWER)
    """Air pressure at the surface, Pa. Lower is safer, here and below: the depth then reads as more."""
    density: float = Field(1025.0, ge=950, le=1100, json_schema_extra=SAFER_LOWER)
    """Of the water, kg/m³: 1025 sea, 997 fresh."""


class OperatorConfig(Section):
    """The operator's heartbeat and its loss."""

    lost_s: float = Field(3.0, gt=0, le=30, json_schema_extra=SAFER_LOWER)
    """Without the operator's heartbeat for this long, `on_lost` happens."""
    on_lost: Literal["disarm", "hold", "surface"] = Field("disarm", json_schema_extra=live())
    """disarm: neutral and disarmed. hold and surface fall back to disarm when they are impossible."""


class BusConfig(Section):
    """The endpoints that can be reached from outside."""

    public: Endpoint = Field("tcp://127.0.0.1:5555", json_schema_extra=RESTART)
    """Endpoint where every message is published."""
    commands: Endpoint = Field("tcp://127.0.0.1:5556", json_schema_extra=RESTART)
    """Endpoint for operators' commands. Any address but this machine's own needs keys."""
    keys: str = Field("", json_schema_extra=RESTART)
    """Folder of keys made by `rov keys`; relative to where rov was started. Empty: no keys, this machine only."""


class RecordingConfig(Section):
    """Dives: format, size, and room on the disk."""

    folder: str = Field("dives", min_length=1, json_schema_extra=RESTART)
    """Where dives go; relative to where rov was started."""
    codec: Literal["jpeg", "h264"] = Field("jpeg", json_schema_extra=RESTART)
    """h264 is a tenth of the size and costs more of the processor."""
    jpeg_quality: int = Field(90, ge=30, le=100, json_schema_extra=live())
    part_minutes: float = Field(30.0, gt=0, le=1440, json_schema_extra=live())
    """A longer dive continues in another file."""
    part_gb: float = Field(4.0, gt=0, le=1000, json_schema_extra=live())
    """A larger dive continues in another file."""
    keep_gb: float = Field(5.0, ge=0, le=10_000, json_schema_extra=live())
    """Disk space kept free by deleting the oldest unmarked dives; 0 with keep_share 0: never delete."""
    keep_share: float = Field(0.10, ge=0, le=0.5, json_schema_extra=live())
    """The same as a share of the disk; the larger of the two counts."""
    disk_warn: float = Field(0.85, gt=0, lt=1, json_schema_extra=live())
    """A warning when more of the disk than this share is used."""
    disk_free: float = Field(0.07, ge=0.01, le=0.5, json_schema_extra=live())
    """Recording stops when less of the disk than this share is free."""


class ComputeConfig(Section):
    """Where the processes run."""

    cpus: str = Field("auto", pattern=r"^(auto|\d+(-\d+)?(,\d+(-\d+)?)*)$", json_schema_extra=RESTART)
    """Processors for camera and network, as 0-3,6; auto: all there are."""
    numa: Literal["auto", "off"] = Field("auto", json_schema_extra=RESTART)
    """auto: the network runs near the GPU, the camera near its controller, on machines with several NUMA nodes."""


class Config(Section):
    """All of `rover.toml`: `Config.load("rover.toml").camera.source`."""

    camera: CameraConfig = CameraConfig()
    perception: PerceptionConfig = PerceptionConfig()
    tracking: TrackingConfig = TrackingConfig()
    steering: SteeringConfig = SteeringConfig()
    task: TaskConfig = TaskConfig()
    control: ControlConfig = ControlConfig()
    vehicle: VehicleConfig
    guard: GuardConfig = GuardConfig()
    link: LinkConfig = LinkConfig()
    operator: OperatorConfig = OperatorConfig()
    bus: BusConfig = BusConfig()
    recording: RecordingConfig = RecordingConfig()
    compute: ComputeConfig = ComputeConfig()

    def sha256(self) -> str:
        """Hash of all values, independent of comments and order in the file."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    @classmethod
    def load(cls, path: str | Path | None = None, settings: Sequence[str] = ()) -> Config:
        """Read and check a file (None: the annotated default), then apply `settings` such as "steering.target=fish".
        Raises ConfigError, a UserError with a line for each problem: file, line, key, and what is allowed."""
        return override(load(find_resource("rover.toml") if path is None else Path(path)), list(settings))


def load(path: Path) -> Config:
    """Read and check a configuration. Raises ConfigError with all problems."""
    try:
        text = toml.read_text(path)
    except FileNotFoundError:
        raise ConfigError([f"{path}: no such file; `rov config show > {path}` writes one to start from"]) from None
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read as a text file: {error.strerror}"]) from None
    except toml.TomlError as error:
        raise ConfigError([str(error)]) from None
    return parse(text, path)


def parse(text: str, path: Path = Path("rover.toml")) -> Config:
    """Check the text of a configuration; `path` is for the messages."""
    if text.count("=") > KEYS_MAX or text.count(",") > COMMAS_MAX:
        raise ConfigError([f"{path}: is no configuration: more than {KEYS_MAX} keys, or lists of numbers"])
    try:
        data = toml.parse(text)
    except toml.TomlError as error:
        raise ConfigError([f"{path}: {error}"]) from None
    try:
        return Config.model_validate(data)
    except pydantic.ValidationError as error:
        raise ConfigError(_problems(path, key_lines(text), error)) from None


def override(config: Config, settings: list[str]) -> Config:
    """The configuration with `section.key=value` settings applied. A value is TOML, or else text; for a text key
    everything but a TOML string is text: camera 0, a folder named 2026."""
    data = config.model_dump()
    for setting in settings:
        key, equals, text = setting.partition("=")
        where = key.strip().split(".")
        if not equals or len(where) < 2:
            raise ConfigError([f"--set {setting}: must look like section.key=value"])
        table = data
        for name in where[:-1]:
            table = table.setdefault(name, {})
            if not isinstance(table, dict):
                raise ConfigError([f"--set {setting}: {name} is not a section"])
        table[where[-1]] = _value(text, wants_text=_wants_text(where))
    try:
        return Config.model_validate(data)
    except pydantic.ValidationError as error:
        raise ConfigError(_problems(Path("--set"), {}, error)) from None


def _value(text: str, *, wants_text: bool) -> Any:
    try:
        value = toml.parse(f"value = {text}")["value"]
    except toml.TomlError:
        return text
    return text.strip() if wants_text and not isinstance(value, str) else value


def _wants_text(where: list[str]) -> bool:
    section = Config.model_fields.get(where[0])
    field = getattr(section.annotation, "model_fields", {}).get(where[1]) if section and len(where) == 2 else None
    return field is not None and field.annotation is str


def _problems(path: Path, lines: dict[tuple[str, ...], int], error: pydantic.ValidationError) -> list[str]:
    """A sentence for each problem, the first PROBLEMS_MAX of them."""
    found = error.errors(include_url=False)
    more = [f"{path}: {len(found) - PROBLEMS_MAX} more problems"] if len(found) > PROBLEMS_MAX else []
    return [problem(path, lines, each) for each in found[:PROBLEMS_MAX]] + more


def problem(path: Path, lines: dict[tuple[str, ...], int], error: ErrorDetails) -> str:
    """The sentence for one problem."""
    where = tuple(str(part) for part in error["loc"])
    line = next((lines[where[:n]] for n in range(len(where), 0, -1) if where[:n] in lines), 1)
    start, key = f"{path}:{line}: " if lines else f"{path}: ", _shown(".".join(where))
    if error["type"] == "missing":
        return start + f"{key} is missing; it has no default: {_field(where).description or 'set it'}"
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(where[-1], siblings := _names(where[:-1]), 1, 0.6)
        hint = f"did you mean {near[0]}?" if near else f"allowed here: {', '.join(siblings)}"
        return start + f"{key} is not a known key; {hint}"
    text = str(error["ctx"]["error"]) if error["type"] == "value_error" else error["msg"]
    return start + f"{key} = {_shown(repr_of(error['input']))}: {text[0].lower()}{text[1:]}"


def repr_of(value: object) -> str:
    """The `repr` of any value, also of those that Python does not print."""
    try:
        return repr(value)
    except (ValueError, RecursionError):  # of more digits, or nested more deeply, than Python prints
        return f"a very long {type(value).__name__}"


def _shown(text: str) -> str:
    text = re.sub(r"[\x00-\x1f\x7f]", "?", hide_passwords(text))
    return text if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]}…"


def schema() -> dict[str, Any]:
    """JSON Schema of the file, for editors; each key has `apply`, safety keys also `safer`."""
    return Config.model_json_schema()


def key_lines(text: str) -> dict[tuple[str, ...], int]:
    """Line number of every table header and `key =` in a TOML text (the parser does not keep them).

    Keys inside inline tables and arrays are found under their parent's line.
    """
    lines: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    inside = ""  # the closing marks of a multi-line string we are in
    for number, line in enumerate(text.split("\n"), 1):
        if inside:
            inside = "" if inside in line else inside
            continue
        line = line.strip()
        if match := re.match(r"\[\[?([^\[\]]+)\]", line):
            table = _dotted(match[1])
            lines.setdefault(table, number)
        elif match := re.match(r"""((?:[\w\-. \t]|"[^"]*"|'[^']*')+)=(.*)""", line):
            lines.setdefault(table + _dotted(match[1]), number)
            inside = next((q for q in ('"""', "'''") if match[2].count(q) == 1), "")
    return lines


def _dotted(key: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in key.split("."))


def _section(where: tuple[str, ...]) -> type[BaseModel]:
    model: type[BaseModel] = Config
    for name in where:
        kind = model.model_fields[name].annotation
        assert isinstance(kind, type) and issubclass(kind, BaseModel)  # only sections have keys
        model = kind
    return model


def _names(where: tuple[str, ...]) -> list[str]:
    return list(_section(where).model_fields)


def _field(where: tuple[str, ...]) -> pydantic.fields.FieldInfo:
    return _section(where[:-1]).model_fields[where[-1]]
