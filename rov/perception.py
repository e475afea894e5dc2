"""The stages after the detector: tracker, observation, steering, in that order. One source steers: the visual servo, or
with a task the policy.

`perceptiond` calls them live, `rov replay` on recorded time, the simulator in lockstep; they cannot tell which.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from rov.config.schema import Config
from rov.messages import (
    ConsumedInput,
    Detection,
    Detections,
    Frame,
    Message,
    Mode,
    Observation,
    PilotStatus,
    PolicyInput,
    Setpoint,
    Tracks,
    VehicleState,
)
from rov.steering.observation import observe
from rov.steering.policy import Policy
from rov.steering.policy_model import PolicyModel
from rov.steering.servo import steer
from rov.types import Image
from rov.vision.rectify import open_lens
from rov.vision.tracker import Tracker


def least_score(config: Config) -> float:
    """Of the detections that perception has a use for."""
    return min(config.perception.score_min, config.tracking.keep_score)


class PerceptionOutput(NamedTuple):
    """All messages computed from one frame."""

    detections: Detections
    tracks: Tracks
    observation: Observation
    policy_input: PolicyInput | None
    """None without a task."""
    setpoint: Setpoint | None
    """None when a task is set that cannot be steered for: without a policy, or while attitude or depth are unknown."""

    @property
    def messages(self) -> list[Message]:
        """Those that there are, in the order that a replay needs."""
        return [each for each in self if each is not None]


class Perception:
    """Runs the stages after the detector; `t` is now, in ns. Keeps the tracks, the followed track's id, and what the
    policy remembers."""

    def __init__(self, config: Config, model: PolicyModel | None = None):
        """`model`: the policy that steers for a task; None: nothing does."""
        self.config, self.model = config, model
        self.policy = Policy(model) if model else None
        self.mode, self.armed = Mode.MANUAL, False
        self.lens = open_lens(config.camera)
        self.tracker = Tracker(config.tracking)
        self.followed_id: int | None = None

    def apply_config(self, config: Config) -> None:
        """Use another live configuration from the next frame on."""
        if config.steering.target != self.config.steering.target:
            self.followed_id = None
        self.config, self.tracker.config = config, config.tracking

    def receive_state(self, vehicle: VehicleState) -> None:
        """Take the newest state of the vehicle."""
        if self.policy:
            self.policy.receive_state(vehicle)

    def receive_status(self, status: PilotStatus, t: int) -> list[ConsumedInput]:
        """Take the pilot's state at `t`; returns what changed, to be published before the outputs it leads to."""
        changes = []
        if status.mode is not self.mode:
            changes.append(ConsumedInput(t=t, by="perceptiond", what="mode", asked_t=status.t, mode=status.mode))
        if status.armed != self.armed:
            what: Literal["arm", "disarm"] = "arm" if status.armed else "disarm"
            changes.append(ConsumedInput(t=t, by="perceptiond", what=what, asked_t=status.t))
        for each in changes:
            self.apply(each)
        return changes

    def apply(self, consumed: ConsumedInput) -> None:
        """Take a change of the pilot's state, as it is recorded. The policy is engaged while armed in its mode."""
        if consumed.what == "mode" and consumed.mode is not None:
            self.mode = consumed.mode
        elif consumed.what in ("arm", "disarm"):
            self.armed = consumed.what == "arm"
        if self.policy:
            self.policy.engage(self.armed and self.mode is Mode.POLICY)

    def step(
        self,
        frame: Frame,
        found: tuple[Detection, ...],
        t: int,
        network_ms: float = 0.0,
        image: Image | None = None,
    ) -> PerceptionOutput:
        """Run all stages on the detections of one frame, whose boxes are in pixels of the original picture. `image`:
        the rectified picture (H, W, 3) BGR, which only the policy needs."""
        detections = self.detections(frame, found, t, network_ms)
        tracks = self.track(detections, t)
        observation = self.observe(tracks)
        if self.config.task.name == "none":
            return PerceptionOutput(detections, tracks, observation, None, self.steer(observation, t))
        return PerceptionOutput(detections, tracks, observation, *self.follow_task(frame, image, tracks, t))

    def follow_task(
        self, frame: Frame, image: Image | None, tracks: Tracks, t: int
    ) -> tuple[PolicyInput, Setpoint] | tuple[None, None]:
        """The policy's input and setpoint; None without a policy, a picture or the vehicle's state."""
        if self.policy is None or image is None:
            return None, None
        steered = self.policy.step(frame, image, tracks, self.followed_id, self.config, self.lens, t)
        return steered or (None, None)

    def detections(self, frame: Frame, found: tuple[Detection, ...], t: int, network_ms: float = 0.0) -> Detections:
        items, weak = self.tracker.split(found, self.config.perception.score_min)
        return Detections(
            t=t,
            frame_id=frame.frame_id,
            frame_t=frame.frame_t,
            width=frame.width,
            height=frame.height,
            items=items,
            weak=weak,
            network_ms=network_ms,
        )

    def track(self, detections: Detections, t: int) -> Tracks:
        return self.tracker.step(detections, t)

    def observe(self, tracks: Tracks) -> Observation:
        target, hfov_deg = self.config.steering.target, self.config.camera.hfov_deg
        observation = observe(tracks, target, self.followed_id, hfov_deg, self.lens)
        self.followed_id = observation.track_id if observation.visible else None
        return observation

    def steer(self, observation: Observation, t: int) -> Setpoint:
        return steer(observation, self.config.steering, t)
