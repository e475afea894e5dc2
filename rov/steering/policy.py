"""The policy from frame to frame: what it is asked to do, what it remembers, and when it must not steer."""

from __future__ import annotations

import math
from typing import NamedTuple

import msgspec
import torch

from rov.config.schema import Config, TaskConfig
from rov.messages import Box, Frame, PolicyInput, Setpoint, Task, Track, Tracks, VehicleState
from rov.optics.lens import Lens
from rov.steering.disengagement import Checkup, answer_symptom, late_symptom, picture_symptom, sanity
from rov.steering.displacement import FieldOfView
from rov.steering.observation import angles
from rov.steering.policy_input import KEY_S, TASKS, TRACK, TRACKS, VERSION, Sources, features, maps
from rov.steering.policy_model import Angles, PolicyModel, PolicySight, Sight, pack
from rov.types import Image

GAP_NS = 1_000_000_000
"""After a longer gap between two frames nothing is remembered."""
STATE_NS = 500_000_000
"""Attitude and depth further than this from the frame's time are unknown."""
CELL_V_MIN = 0.5
"""A cell voltage below this is not measured."""
GOAL_CLASS: dict[str, str] = {"transit": "gate_post", "inspect": "", "station": ""}
"""Class of the tracks that the policy sees, "" for none; `follow` has the configured target's. A pipeline is in the
maps: no policy was trained with tracks of one."""
TYPICAL_HEIGHT_M = {"diver": 0.6, "fish": 0.25}
"""Of the box around a diver who swims, and around a fish worth following: where the operator gives no height. Anything
else is of unknown height."""
UNKNOWN_HEIGHT = "nobody says how high the target is (task.target_height), so its distance is not known"
"""The symptom of a target to follow that has no usual height."""
FourNumbers = tuple[float, float, float, float]
HIDDEN: FourNumbers = (math.nan, math.nan, math.nan, math.nan)
Rows = tuple[tuple[float, ...], ...]
"""(TRACKS, TRACK) as in `Sources.tracks`."""


class VehiclePose(NamedTuple):
    """Of the vehicle when a frame was captured: rad, rad/s, m."""

    attitude: Angles
    rates: Angles
    depth: float


class Policy:
    """Steers for the task of the configuration: in shadow as soon as it is set, and from a fresh memory once engaged.

    Times are in ns. It has no clock, so that a replay can repeat it."""

    def __init__(self, model: PolicyModel):
        self.model, self.memory = model, model.network.initial_memory(1)
        self.sight, self.checkup = PolicySight(model.encoder), Checkup()
        self.vehicle: VehicleState | None = None
        self.engaged = False
        """Whether the pilot lets it move the vehicle."""
        self.task: Task = "none"
        self.begin = True
        """Whether the memory begins anew with the next frame."""
        self.began_t = 0
        self.start = (0.0, 0.0)
        """Heading in rad and depth in m when it began."""
        self.last_t: int | None = None
        self.previous = HIDDEN

    def receive_state(self, vehicle: VehicleState) -> None:
        """Take the newest state of the vehicle."""
        self.vehicle = vehicle

    def engage(self, engaged: bool) -> None:
        """Tell it whether its setpoints move the vehicle: memory and key frame start at engagement."""
        self.begin |= engaged and not self.engaged
        self.engaged = engaged

    @torch.inference_mode()
    def step(
        self,
        frame: Frame,
        image: Image,
        tracks: Tracks,
        followed: int | None,
        config: Config,
        lens: Lens | None,
        t: int,
    ) -> tuple[PolicyInput, Setpoint] | None:
        """The input and the setpoint for one frame and its picture (H, W, 3) BGR, as the detector saw it; `followed` is
        the id of the followed track. None while attitude or depth are unknown: nothing can be steered then."""
        pose = None if self.vehicle is None else pose_at(self.vehicle, frame.frame_t)
        if pose is None:
            return None
        reset = self._begin(frame.frame_t, pose, config.task)
        key = self.task == "station" and self.sight.key is None and frame.frame_t - self.began_t >= KEY_S * 1e9
        view = field_of_view(frame.width, frame.height, config.camera.hfov_deg, lens)
        sight = self.sight.look(image, pose.attitude, view, key=key)
        label = GOAL_CLASS.get(self.task, config.steering.target)
        rows = track_rows(tracks, label, followed, config.camera.hfov_deg, lens)
        given = self._input(frame, pose, sight, rows, view, config, t, reset=reset, key=key)
        setpoint, spread, self.memory = self.model.answer(given, self.memory)
        given = msgspec.structs.replace(given, log_variance=tuple(spread[0].tolist()))
        return given, self._setpoint(given, setpoint, self._unfit(sight, given, (t - frame.frame_t) / 1e9))

    def _begin(self, frame_t: int, pose: VehiclePose, wanted: TaskConfig) -> bool:
        """Begin anew when engaged, given another task, or after a gap; returns whether it does."""
        gap = self.last_t is None or not 0 < frame_t - self.last_t <= GAP_NS
        if not (self.begin or gap or wanted.name != self.task):
            return False
        if gap:
            self.last_t = None
            self.sight.forget()
        self.begin, self.task, self.began_t = False, wanted.name, frame_t
        self.start, self.previous = (pose.attitude[2], pose.depth), HIDDEN
        self.sight.key = None
        return True

    def _input(
        self,
        frame: Frame,
        pose: VehiclePose,
        sight: Sight,
        rows: Rows,
        view: FieldOfView,
        config: Config,
        t: int,
        *,
        reset: bool,
        key: bool,
    ) -> PolicyInput:
        """The message that the answer is computed from."""
        goal, volts = goal_of(config.task), self._cell_v(config)
        tall = target_height(config.task, config.steering.target)
        dt_s = 1 / config.perception.rate_hz if self.last_t is None else (frame.frame_t - self.last_t) / 1e9
        self.last_t = frame.frame_t
        previous = self.previous if self.engaged else HIDDEN
        sources = Sources(
            task=torch.tensor([TASKS.index(config.task.name)]),
            goal=torch.tensor([goal]),
            target_height=torch.tensor([tall]),
            tracks=torch.tensor([rows]),
            moved=torch.tensor([sight.moved]),
            keyed=torch.tensor([sight.keyed]),
            attitude=torch.tensor([pose.attitude]),
            rates=torch.tensor([pose.rates]),
            depth=torch.tensor([pose.depth]),
            start=torch.tensor([self.start]),
            cell_v=torch.tensor([volts]),
            previous=torch.tensor([previous]),
            age_s=torch.tensor([(t - frame.frame_t) / 1e9]),
            dt_s=torch.tensor([dt_s]),
            view=torch.tensor([view]),
        )
        seen = maps(sight.inverse_range, sight.log_variance, sight.pipeline, sources.tracks, sources.view)
        return PolicyInput(
            t=t,
            frame_id=frame.frame_id,
            frame_t=frame.frame_t,
            task=config.task.name,
            version=VERSION,
            reset=reset,
            features=tuple(features(sources)[0].tolist()),
            maps=pack(seen),
            goal=goal,
            target_height=tall,
            attitude=pose.attitude,
            rates=pose.rates,
            depth=pose.depth,
            start=self.start,
            moved=(*sight.moved,),
            keyed=(*sight.keyed,),
            key=key,
            cell_v=volts,
            previous=previous,
            dt_s=dt_s,
            unlike=sight.unlike,
        )

    def _cell_v(self, config: Config) -> float:
        volts = None if self.vehicle is None else self.vehicle.battery_v
        cell = math.nan if volts is None else volts / config.vehicle.battery_cells
        return cell if cell > CELL_V_MIN else math.nan

    def _unfit(self, sight: Sight, given: PolicyInput, age_s: float) -> str:
        """Why nothing may be steered by the last frames, or ""."""
        cards = self.model.cards
        place = sight.keyed if self.engaged and self.sight.key is not None and not given.key else sight.moved
        return self.checkup.update(
            (
                "" if self.task != "follow" or math.isfinite(given.target_height) else UNKNOWN_HEIGHT,
                late_symptom(age_s, cards.policy.trained.delay_s[1]),
                self.checkup.frozen(sight.picture),
                picture_symptom(sanity(sight.picture), sight.unlike, cards.encoder.thresholds),
                self.checkup.lost(place.confidence, given.dt_s) if self.task == "station" and not given.reset else "",
                answer_symptom(given.log_variance, cards.policy.thresholds.log_variance),
            )
        )

    def _setpoint(self, given: PolicyInput, answer: torch.Tensor, unfit: str) -> Setpoint:
        surge, sway, heave, yaw = answer[0].tolist()
        self.previous = (surge, sway, heave, yaw)
        return policy_setpoint(given, self.previous, unfit)


def policy_setpoint(given: PolicyInput, axes: FourNumbers, unfit: str = "") -> Setpoint:
    """The setpoint of an input's frame."""
    surge, sway, heave, yaw = axes
    return Setpoint(
        t=given.t,
        frame_id=given.frame_id,
        frame_t=given.frame_t,
        source="policy",
        surge=surge,
        sway=sway,
        heave=heave,
        yaw=yaw,
        unfit=unfit,
    )


def pose_at(vehicle: VehicleState, t: int) -> VehiclePose | None:
    """Attitude, turned back from the newest one by the rates, rates and depth at `t`; None where they are unknown."""
    if vehicle.attitude_t is None or vehicle.depth_t is None:
        return None
    if abs(t - vehicle.attitude_t) > STATE_NS or abs(t - vehicle.depth_t) > STATE_NS:
        return None
    ahead = (t - vehicle.attitude_t) / 1e9
    p, q, r = vehicle.rates
    pose = VehiclePose(
        (vehicle.roll + p * ahead, vehicle.pitch + q * ahead, vehicle.yaw + r * ahead), (p, q, r), vehicle.depth
    )
    return pose if all(map(math.isfinite, (*pose.attitude, *pose.rates, pose.depth))) else None


def goal_of(task: TaskConfig) -> FourNumbers:
    """Heading in rad, depth, distance and height in m of a task; NaN where it has none."""
    heading, none = math.radians(task.heading_deg), math.nan
    match task.name:
        case "transit":
            return heading, task.depth, none, none
        case "follow":
            return none, none, task.distance, none
        case "inspect":
            return heading, none, none, task.height
    return HIDDEN


def target_height(task: TaskConfig, target: str) -> float:
    """How high the followed thing is, m; NaN: unknown, or nothing is followed."""
    if task.name != "follow":
        return math.nan
    return task.target_height or TYPICAL_HEIGHT_M.get(target, math.nan)


def field_of_view(width: int, height: int, hfov_deg: float, lens: Lens | None) -> FieldOfView:
    """The field of view of a rectified picture; a calibrated `lens` gives it more exactly than `hfov_deg`."""
    if lens is not None:
        return FieldOfView(width / 2 / float(lens.matrix[0, 0]), height / 2 / float(lens.matrix[1, 1]))
    wide = math.tan(math.radians(hfov_deg) / 2)
    return FieldOfView(wide, wide * height / width)


def track_rows(tracks: Tracks, label: str, followed: int | None, hfov_deg: float, lens: Lens | None) -> Rows:
    """The tracks of a class as the policy sees them (TRACKS, TRACK): the followed one, then the largest and surest."""

    def worth(track: Track) -> tuple[bool, bool, float]:
        return (track.track_id == followed, track.hidden_s == 0, track.score * (track.box[3] - track.box[1]))

    same = sorted((each for each in tracks.items if label and each.label == label), key=worth, reverse=True)[:TRACKS]
    size = tracks.width, tracks.height
    rows = [
        (1.0, *angles(each.box, *size, hfov_deg, lens), each.hidden_s, each.score, aspect(each.box)) for each in same
    ]
    return tuple(rows + [(0.0,) * TRACK] * (TRACKS - len(rows)))


def aspect(box: Box) -> float:
    """Width over height."""
    x1, y1, x2, y2 = box
    return (x2 - x1) / max(y2 - y1, 1e-3)
