"""The perception process: takes the newest frame; publishes detections, tracks, observation, the policy's input and the
setpoint. It may stall or crash without harm: its readers judge messages by age."""

from __future__ import annotations

import os
import signal
import time

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: spinning threads starve the control loop

import torch

from rov.bus import Publisher, Subscriber
from rov.config.schema import Config
from rov.config.timeline import ConfigTimeline
from rov.errors import UserError
from rov.host.placement import pin
from rov.media.ring import RingReader
from rov.messages import (
    ActiveSettings,
    ConsumedInput,
    Detections,
    Event,
    Frame,
    Health,
    Level,
    Message,
    PilotStatus,
    Setpoint,
    VehicleState,
)
from rov.perception import Perception, least_score
from rov.service.process import RateMeter, run_main, start
from rov.steering.policy_card import rate_doubt
from rov.steering.policy_model import PolicyModel, open_model
from rov.types import Image
from rov.vision.detector import Detector
from rov.vision.model_swap import ModelSwap, kept_model, load_warm
from rov.vision.rectify import Rectifier


class FrameProcessor:
    """Turns each frame into messages; a fault that lasts over many frames is reported once."""

    def __init__(self, config: Config, detector: Detector, policy: PolicyModel | None = None):
        self.detector = detector
        self.rectifier, self.perception, self.timeline = (
            Rectifier(config.camera),
            Perception(config, policy),
            ConfigTimeline(config),
        )
        self.refused = self.broken = False
        """Whether the pictures do not fit the calibration, and whether the network's output is not finite."""

    def receive_state(self, vehicle: VehicleState) -> None:
        """Take the newest state of the vehicle."""
        self.rectifier.receive_state(vehicle)
        self.perception.receive_state(vehicle)

    def step(self, frame: Frame, image: Image) -> list[Message]:
        """Process one frame (H, W, 3) BGR: events first, then all that perception made of it, in the order that a
        replay needs. A frame that is refused gives no setpoint, so nothing moves by it."""
        self.perception.apply_config(self.timeline.at(frame.frame_t))
        bad, started = self.detector.bad, time.monotonic_ns()
        messages: list[Message] = []
        try:
            rectified = self.rectifier.rectify(image)
        except UserError as error:  # a calibration of another camera: wrong angles are worse than none
            text = f"{error}. Until then frames are ignored"
            messages = [] if self.refused else [_event("alarm", "calibration_refused", text)]
            self.refused = True
            return messages
        if self.refused:
            self.refused = False
            messages.append(_event("info", "calibration_refused_over", "pictures are of the calibration's size"))
        found = self.detector.detect([rectified], least_score(self.perception.config))[0]
        found = self.rectifier.unrectify(found)
        if self.broken != (self.detector.bad > bad):
            self.broken = not self.broken
            messages.append(_network_event(self.broken))
        if self.broken:
            return messages
        now = time.monotonic_ns()
        perceived = self.perception.step(frame, found, now, (now - started) / 1e6, rectified)
        return [*messages, *perceived.messages]


def open_policy(config: Config) -> tuple[PolicyModel | None, Event]:
    """The configured policy, or None, and an event that says what there is of it."""
    try:
        model = open_model(config.steering)
    except UserError as error:
        return None, _event("info", "no_policy", f"mode policy is refused, the rest runs: {error}")
    if doubt := rate_doubt(model.cards.policy, config.perception.rate_hz):
        return model, _event("warning", "untrained_rate", doubt)
    known = ", ".join(sorted(model.cards.policy.results))
    return model, _event("info", "policy", f"{model.cards.policy.name} steers {known}, once told to")


def main() -> int:
    process = start(orphaned=signal.SIGKILL, expendable=800)  # it may hang in a GPU call, where only SIGKILL works
    config = process.config
    wanted = config.perception
    pin(config.compute, "gpu", config.camera.source)
    torch.set_num_threads(wanted.threads)
    pub, vehicle = Publisher("perceptiond", process.root), Subscriber(VehicleState, process.root)
    pilot = Subscriber(PilotStatus, process.root)
    frames, settings = Subscriber(Frame, process.root, hz=wanted.rate_hz), Subscriber(ActiveSettings, process.root)
    ring = RingReader(process.ring)
    weights = kept_model(process.root) or wanted.weights
    detector = load_warm(weights, wanted)
    policy, found = open_policy(config)
    processor = FrameProcessor(config, detector, policy)
    swap = ModelSwap(detector, weights, lambda name: load_warm(name, wanted, pace=True), wanted.rate_hz, process.root)
    now = time.monotonic_ns()
    pub.publish(found)
    pub.publish(Event(t=now, level="info", source="perceptiond", code="warm", text=f"ready on {detector.device}"))
    pub.publish(ConsumedInput(t=now, by="perceptiond", what="start"))
    period, last, due, meter = int(1e9 / wanted.rate_hz), -1, now, RateMeter(now)
    while not process.stopped.is_set():
        frame = frames.message if frames.wait(timeout_ms=100) and frames.receive(time.monotonic_ns()) else None
        fit = frame is not None and frame.frame_id != last and time.monotonic_ns() >= due
        image = ring.read(frame) if frame is not None and fit else None
        if frame is not None and image is not None:
            # `due` may lag by one period: else a camera at just this rate would lose each frame that is a bit early.
            last, due = frame.frame_id, max(due + period, time.monotonic_ns() - period)
            if settings.receive(now := time.monotonic_ns()) and settings.message is not None:
                processor.timeline.add(settings.message.settings, settings.message.t)
            if vehicle.receive(now) and vehicle.message is not None:
                processor.receive_state(vehicle.message)
            if pilot.receive(now) and pilot.message is not None:
                for taken in processor.perception.receive_status(pilot.message, now):
                    pub.publish(taken)
            for message in processor.step(frame, image):
                pub.publish(message)
                if isinstance(message, Detections):
                    swap.add_frame(message.network_ms)
                if isinstance(message, Setpoint):
                    meter.add((message.t - frame.frame_t) / 1e6)
            swap.want(processor.perception.config.perception.weights)
        now = time.monotonic_ns()
        for change in swap.step(now, broken=processor.broken):
            pub.publish(change)
            processor.detector = swap.detector
        if meter.due(now):  # with or without frames: Health shows that the loop runs, not that it sees anything
            hz, ms = meter.read(now)
            pub.publish(Health(t=now, process="perceptiond", rate_hz=hz, latency_ms=ms, dropped=ring.missed))
    pub.close()
    return 0


def _network_event(broken: bool) -> Event:
    if broken:
        return _event("alarm", "bad_network", "the network's output is not finite: these frames give no setpoint")
    return _event("info", "bad_network_over", "the network's output is finite again")


def _event(level: Level, code: str, text: str) -> Event:
    return Event(t=time.monotonic_ns(), level=level, source="perceptiond", code=code, text=text)


if __name__ == "__main__":
    run_main(main)
