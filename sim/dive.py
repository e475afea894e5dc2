"""A simulated dive in lockstep, `python -m sim dive`: the daemon's own stages and the simulator alternate, faster than
real time, and the same seed gives the same dive."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rov.config.schema import Config
from rov.config.timeline import ConfigTimeline
from rov.media.files import TimedFrame
from rov.messages import (
    ActiveSettings,
    ConsumedInput,
    Detection,
    Event,
    Mode,
    PilotStatus,
    ThrusterCommand,
    VehicleState,
)
from rov.motion.commander import Commander
from rov.motion.pilot import Pilot
from rov.motion.thrusters import Curve
from rov.offline.replay import ReplayOutput, ReplayResult, frame_of, timer
from rov.offline.source import Recording
from rov.perception import Perception, PerceptionOutput, least_score
from rov.steering.policy_card import refusals
from rov.steering.policy_model import PolicyModel
from rov.vision.detector import Detector
from sim.course import SESSION, Course
from sim.scene.labels import labels
from sim.scene.render import Renderer
from sim.scene.things import LABELS
from sim.single_vehicle import SingleVehicle
from sim.vehicle import DT
from sim.world import RealisedWorld

TICK_NS = round(DT * 1e9)
START_NS = 1_000_000_000
"""Start of the dive's clock; not 0, which some readers take for unknown."""
LATENCY_NS = 55_000_000
"""Delay from picture to setpoint: about that of the network on a small computer."""


class DirectLink:
    """The vehicle as the pilot's link, without a wire: it answers at once."""

    def __init__(self, vehicle: SingleVehicle):
        self.vehicle = vehicle
        self.live = False
        self.testing = False
        self.mode = Mode.MANUAL
        self.surface_pa = self.density = 0.0  # its depth does not come from a pressure
        self.state: VehicleState | None = None
        self.values: Sequence[float] = (0.0,) * vehicle.motors

    def receive(self) -> None:
        """Nothing to receive: there is no port."""

    def poll(self, t: int) -> tuple[Event, ...]:
        self.state = self.vehicle.vehicle_state(t, self.live)
        return ()

    def arm(self, t: int) -> str:
        self.live = True
        return ""

    def disarm(self, t: int) -> None:
        self.live, self.values = False, (0.0,) * self.vehicle.motors

    def send(self, values: Sequence[float], armed: bool, t: int) -> None:
        self.values = values if self.live and armed else (0.0,) * self.vehicle.motors

    def close(self, t: int) -> None:
        self.disarm(t)


def dive(
    place: RealisedWorld,
    config: Config,
    detector: Detector,
    curve: Curve,
    out: Path,
    *,
    seconds: float,
    size: tuple[int, int],
    exact: bool = False,
    overlay: bool = True,
    policy: PolicyModel | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> ReplayResult:
    """Run the world's course for at most `seconds`; writes `out/dive.mcap` and, with `overlay`, `out/overlay.mp4`.

    `size` is the width and height of the pictures; their rate is perception's. `exact` replaces the detector by the
    simulator's labels, which shows steering with perfect detections. `policy` steers the course's steps in its mode.
    Ctrl-C ends it early and keeps what was done."""
    config = knowing_its_camera(config, place)
    vehicle = SingleVehicle(place)
    camera = Renderer([place.scene], place.lens(*size))
    link, perception, schedule, course = (
        DirectLink(vehicle),
        Perception(config, policy),
        ConfigTimeline(config),
        Course(place.course),
    )
    classes = tuple(LABELS) if exact else detector.card.classes
    commander = Commander(config, Pilot(config, curve), link, classes, refusals(config.steering))
    source = Recording(Path(place.name), 0, config.perception.rate_hz, True, True, True, None, iter(()), [])
    result = ReplayResult(source.path, config, detector.card.weights_sha256, 0, has_vehicle=True)
    status = PilotStatus(t=START_NS, armed=False, mode=commander.pilot.mode)
    waiting: deque[PerceptionOutput] = deque()
    observation, command, next_t, frames, asked = None, None, START_NS, 0, 0
    began = time.perf_counter()
    with ReplayOutput(out, source, result, overlay) as output:
        commander.start(START_NS)
        output.write([ConsumedInput(t=START_NS, by="perceptiond", what="start")])
        try:
            for tick in range(round(seconds / DT)):
                t = START_NS + tick * TICK_NS
                if t >= next_t:
                    next_t += round(1e9 / config.perception.rate_hz)
                    perception.apply_config(schedule.at(t))
                    with timer(result.stages_ms["decode"]):
                        shot, found = picture(camera, vehicle, frames, t, exact)
                    if not exact:
                        with timer(result.stages_ms["detect"]):
                            found = detector.detect([shot.image], least_score(perception.config))[0]
                    if link.state is not None:
                        perception.receive_state(link.state)
                    seen = perceive(shot, found, perception, result)
                    output.picture(shot, frame_of(shot), seen, command)
                    waiting.append(seen)
                    frames += 1
                    progress(f"{place.name}: {commander.pilot.mode.value}")
                while waiting and waiting[0].tracks.t <= t:
                    seen = waiting.popleft()
                    observation = seen.observation
                    if seen.setpoint:
                        commander.handle_setpoint(seen.setpoint, t)
                with timer(result.stages_ms["control"]):
                    for order in course.commands(t, status, observation):
                        asked += 1
                        command_given: Any = order.kind(t=t, session=SESSION, seq=asked, **order.fields)
                        output.write([command_given])
                        commander.handle_command(command_given, t, t)
                    messages = commander.step(SESSION, t)
                output.write(messages)
                status = next((each for each in messages if isinstance(each, PilotStatus)), status)
                output.write(perception.receive_status(status, t))
                command = next((each for each in messages if isinstance(each, ThrusterCommand)), command)
                for each in messages:
                    if isinstance(each, ActiveSettings):
                        schedule.add(each.settings, each.t)
                vehicle.advance(link.values)
                if course.over:
                    break
        except KeyboardInterrupt:
            result.interrupted = True
    result.wall_s = time.perf_counter() - began
    result.frames, result.recorded_s = frames, (t - START_NS) / 1e9
    return result


def knowing_its_camera(config: Config, place: RealisedWorld) -> Config:
    """The configuration with the field of view of the world's camera: people measure theirs, too."""
    camera = config.camera.model_copy(update={"hfov_deg": place.hfov_deg})
    return config.model_copy(update={"camera": camera})


def picture(
    camera: Renderer, vehicle: SingleVehicle, frame_id: int, t: int, exact: bool
) -> tuple[TimedFrame, tuple[Detection, ...]]:
    """The picture of the vehicle's camera; with `exact` also its labels, as detections of score 1."""
    state = vehicle.pose()
    shots = camera.render(state.position, state.attitude, t / 1e9, state.rates, alone=exact)
    found = labels(camera, shots)[0] if exact else []
    image = np.ascontiguousarray(shots.image[0].cpu().numpy())
    return TimedFrame(frame_id, t, image), tuple(Detection(each.name, 1.0, each.box) for each in found)


def perceive(
    shot: TimedFrame, found: tuple[Detection, ...], perception: Perception, result: ReplayResult
) -> PerceptionOutput:
    """Perception after the detector on one picture, with outputs LATENCY_NS later than the picture."""
    with timer(result.stages_ms["perceive"]):
        return perception.step(frame_of(shot), found, shot.t + LATENCY_NS, image=shot.image)
