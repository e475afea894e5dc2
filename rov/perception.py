"""The stages after the detector: tracker, observation, steering, in that order.

`perceptiond` calls them live, `rov replay` on recorded time, the simulator in lockstep; they cannot tell which.
"""

from __future__ import annotations

from typing import NamedTuple

from rov.config.schema import Config
from rov.messages import Detection, Detections, Frame, Observation, Setpoint, Tracks
from rov.steering.observation import observe
from rov.steering.servo import steer
from rov.vision.rectify import open_lens
from rov.vision.tracker import Tracker


class PerceptionOutput(NamedTuple):
    """All messages computed from one frame."""

    detections: Detections
    tracks: Tracks
    observation: Observation
    setpoint: Setpoint


class Perception:
    """Runs the stages after the detector; `t` is now, in ns. Keeps the tracks and the followed track's id."""

    def __init__(self, config: Config):
        self.config = config
        self.lens = open_lens(config.camera)
        self.tracker = Tracker(config.tracking)
        self.followed_id: int | None = None

    def apply_config(self, config: Config) -> None:
        """Use another live configuration from the next frame on."""
        if config.steering.target != self.config.steering.target:
            self.followed_id = None
        self.config, self.tracker.config = config, config.tracking

    def step(self, frame: Frame, found: tuple[Detection, ...], t: int, network_ms: float = 0.0) -> PerceptionOutput:
        """Run all stages on the detections of one frame, whose boxes are in pixels of the original picture."""
        detections = self.detections(frame, found, t, network_ms)
        tracks = self.track(detections, t)
        observation = self.observe(tracks)
        return PerceptionOutput(detections, tracks, observation, self.steer(observation, t))

    def detections(self, frame: Frame, found: tuple[Detection, ...], t: int, network_ms: float = 0.0) -> Detections:
        return Detections(
            t=t,
            frame_id=frame.frame_id,
            frame_t=frame.frame_t,
            width=frame.width,
            height=frame.height,
            items=found,
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
