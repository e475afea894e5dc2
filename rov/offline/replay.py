"""Runs a recorded dive or a plain video through every stage, on recorded time: the same input gives the same output.

Decoding, the network and writing run in threads around one loop. The detector has no state, so its frames are batched.
"""

from __future__ import annotations

import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

import cv2

from rov.concurrency import BackgroundWorker, lower_priority, prefetch
from rov.config.schema import Config
from rov.config.timeline import ConfigTimeline
from rov.dives import origin
from rov.dives.dive import DiveWriter, Record, TopicDigest
from rov.errors import UserError
from rov.media.files import TimedFrame, shown
from rov.media.overlay import OverlayWriter, draw
from rov.messages import (
    ActiveSettings,
    ConsumedInput,
    Detection,
    Event,
    Frame,
    Message,
    Setpoint,
    ThrusterCommand,
    VehicleState,
    topic_of,
)
from rov.motion.thrusters import Curve
from rov.offline.diff import Diff, Difference
from rov.offline.pilot_replay import PilotReplay
from rov.offline.source import Item, Recording
from rov.perception import Perception, PerceptionOutput, least_score
from rov.steering.policy_model import PolicyModel
from rov.vision.detector import Batch, Detector
from rov.vision.rectify import Rectifier, open_lens

SWITCH_S = 2e-4
"""How long a thread may hold the interpreter while another waits, in s. The network's thread needs it for microseconds
between layers, and would wait for Python's default of 5 ms each time."""
GAP_NS = 10_000_000_000
"""After a gap without any record longer than this, pilot and tracker restart. Stepping through it at 50 Hz would show
nothing, and a video's clock may jump by hours."""
STOPPING_NS = 1_000_000_000
"""How long the pilot still runs into such a gap, so that the replay shows it stop without new frames."""
STAGES = ("decode", "detect", "perceive", "control", "record")
MODEL_CHANGES = ("model_switched", "model_rolled_back")
"""Events after which the pictures of a dive were seen by another model."""


@dataclass
class ReplayResult:
    """What a replay did and found; `rov.offline.report` writes it to files."""

    source: Path
    config: Config
    weights_sha256: str
    frames: int
    """Frames the source declares or held, whichever is more."""
    processed: int = 0
    dropped: int = 0
    wall_s: float = 0.0
    recorded_s: float = 0.0
    interrupted: bool = False
    has_vehicle: bool = False
    skipped: list[str] = field(default_factory=list)
    fault: str = ""
    """Why the replay is no success although it reached the end."""
    stages_ms: dict[str, list[float]] = field(default_factory=lambda: {stage: [] for stage in STAGES})
    """Per frame."""
    seen: list[tuple[float, Counter[str]]] = field(default_factory=list)
    """(time in s, objects per label) of each frame."""
    setpoints: list[tuple[float, Setpoint]] = field(default_factory=list)
    thrusters: list[tuple[float, ThrusterCommand]] = field(default_factory=list)
    topics: dict[str, TopicDigest] = field(default_factory=dict)
    differences: list[Difference] | None = None


def replay(
    source: Recording,
    config: Config,
    detector: Detector,
    curve: Curve,
    out: Path,
    *,
    overlay: bool = True,
    diff: bool = False,
    limit: int | None = None,
    policy: PolicyModel | None = None,
    progress: Callable[[], None] = lambda: None,
) -> ReplayResult:
    """Run a source through all stages; writes `out/dive.mcap` and `out/overlay.mp4`.

    `diff` compares with what was recorded; `limit` is the most frames to process; `policy` steers where a task is set.
    Ctrl-C ends early and keeps what was done. Raises UserError when `out` cannot be written.
    """
    result = ReplayResult(
        source.path, config, detector.card.weights_sha256, source.frames, has_vehicle=source.has_vehicle
    )
    stages = ReplayStages(source, config, curve, result, policy, diff=diff)
    sys.setswitchinterval(SWITCH_S)
    began = time.perf_counter()
    with ReplayOutput(out, source, result, overlay) as output:
        items = timed(source.items, result.stages_ms["decode"])
        groups = prefetch(prepare_groups(group_pictures(items, detector.batch, limit), detector, stages.rectifier), 2)
        found = detect_groups(groups, detector, config, result.stages_ms["detect"], detector.workers)
        stream = prefetch(found, 8)
        try:
            for item, objects in stream:
                stages.restart_after_gap(item.t, output)
                if isinstance(item, Record):
                    stages.receive(item, output)
                else:
                    stages.process(item, objects, output)
                    progress()
            stages.finish(output)
        except KeyboardInterrupt:
            result.interrupted = True
        finally:
            stream.close()
    result.wall_s = time.perf_counter() - began
    result.recorded_s = stages.recorded_s(output.gap)
    result.skipped, result.frames = source.skipped, max(source.frames, result.processed)
    if not (result.interrupted or limit):
        result.dropped = source.lost() if source.lost else result.frames - result.processed
        result.frames = result.processed + result.dropped
        result.fault = source.fault()
    result.differences = stages.comparison.summary() if stages.comparison else None
    return result


class ReplayStages:
    """The stages after the detector and the comparison, with the time they have reached."""

    def __init__(
        self,
        source: Recording,
        config: Config,
        curve: Curve,
        result: ReplayResult,
        policy: PolicyModel | None = None,
        *,
        diff: bool,
    ):
        self.source, self.config, self.result, self.policy = source, config, result, policy
        self.perception, self.pilot = Perception(config, policy), PilotReplay(config, curve, source)
        self.comparison = Diff(config, curve, source, policy) if diff else None
        self.rectifier = Rectifier(config.camera)
        """For the detector's pictures, which another thread prepares ahead of time."""
        self.policy_rectifier = Rectifier(config.camera)
        self.timeline = ConfigTimeline(config, recorded=True)
        self.first_t: int | None = None
        self.last_t = 0
        self.previous_t: int | None = None
        """Time of the last item, picture or message."""

    def restart_after_gap(self, t: int, output: ReplayOutput) -> None:
        """Restart pilot and perception if more than GAP_NS passed since the last item."""
        before, self.previous_t = self.previous_t, t
        if self.source.has_ticks or before is None or t - before <= GAP_NS:
            return
        output.write(self.pilot.run_until(before + STOPPING_NS))
        self.pilot.restart()
        self.perception = Perception(self.config, self.policy)
        output.gap += t - before

    def receive(self, record: Record, output: ReplayOutput) -> None:
        """Give a recorded message to perception, the pilot and the comparison."""
        if not self.source.frames:  # without pictures, messages advance the time
            output.write(self.pilot.run_until(record.t))
            self._advance(record.t)
        output.write(self.pilot.receive(record.data))
        match record.data:
            case ActiveSettings():
                self.timeline.add(record.data.settings, record.data.t)
            case VehicleState():
                self.policy_rectifier.receive_state(record.data)
                self.perception.receive_state(record.data)
            case ConsumedInput(by="perceptiond"):
                self.perception.apply(record.data)
            case Event() if record.data.code in MODEL_CHANGES:
                text = f"another model from then on, and here one for all pictures: {record.data.text}"
                self.source.skipped.append(text)
        if self.comparison:
            self.comparison.recorded(record.data)

    def process(self, shot: TimedFrame, objects: tuple[Detection, ...], output: ReplayOutput) -> None:
        """Take a picture and its detections through perception and pilot."""
        with timer(self.result.stages_ms["control"]):
            output.write(self.pilot.run_until(shot.t))
        frame = frame_of(shot)
        self.perception.apply_config(self.timeline.at(shot.t))
        with timer(self.result.stages_ms["perceive"]):
            image = self.policy_rectifier.rectify(shot.image) if self.policy else None
            perceived = self.perception.step(frame, self.rectifier.unrectify(objects), shot.t, image=image)
        if perceived.setpoint:
            self.pilot.receive_setpoint(perceived.setpoint)
        if self.comparison:
            self.comparison.detected(perceived.detections, image)
        output.picture(shot, frame, perceived, self.pilot.command)
        self._advance(shot.t)

    def finish(self, output: ReplayOutput) -> None:
        """Run the pilot until the end of the last frame."""
        output.write(self.pilot.run_until(self.last_t + int(1e9 / self.source.fps)))

    def recorded_s(self, gap: int) -> float:
        """Length of what was replayed in s, without gaps of `gap` ns in all."""
        return (self.last_t - self.first_t - gap) / 1e9 + 1 / self.source.fps if self.first_t is not None else 0.0

    def _advance(self, t: int) -> None:
        self.first_t = t if self.first_t is None else self.first_t
        self.last_t = t


class ReplayOutput:
    """Writes the dive and the overlay, and collects the numbers of the report, in a thread of its own."""

    def __init__(self, out: Path, source: Recording, result: ReplayResult, overlay: bool):
        if (out / "dive.mcap").resolve() == source.path.resolve():
            raise UserError(f"{out}: writing there would replace the dive being replayed; choose another --out")
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{out}: cannot be made a folder: {error.strerror}") from None
        self.result, self.quality = result, result.config.recording.jpeg_quality
        meta = {
            "source": shown(source.path.name),
            "config_sha256": result.config.sha256(),
            "weights_sha256": result.weights_sha256,
        }
        self.lens = open_lens(result.config.camera)
        self.path = out / "dive.mcap"
        files = origin.attachments(result.config)
        self.dive = DiveWriter(self.path, meta, attachments=files, overwrite=True)
        self.film_path, self.fps = (out / "overlay.mp4" if overlay else None), source.fps
        self.film: OverlayWriter | None = None
        self.worker = BackgroundWorker(depth=16)
        self.gap = 0
        """Total of the gaps so far in ns, which the overlay video leaves out."""

    def __enter__(self) -> ReplayOutput:
        return self

    def __exit__(self, kind: type[BaseException] | None, *why: object) -> None:
        try:
            self.worker.close()
        finally:
            self.dive.close()
            if self.film:
                self.film.close()
            self.result.topics = self.dive.topics
            if kind is not None and not self.dive.topics:  # failed before anything was written
                self.path.unlink(missing_ok=True)

    def write(self, messages: Iterable[Message]) -> None:
        """Write messages that belong to no picture."""
        if messages := list(messages):
            self.worker.submit(partial(self._write, messages))

    def picture(self, shot: TimedFrame, frame: Frame, seen: PerceptionOutput, command: ThrusterCommand | None) -> None:
        """Write a picture and what perception made of it; `command`: the thruster command of that time."""
        self.worker.submit(partial(self._picture, shot, frame, seen, command, shot.t - self.gap))

    def _write(self, messages: list[Message]) -> None:
        for message in messages:
            self.dive.write(topic_of(message), message)
            if isinstance(message, ThrusterCommand):
                self.result.thrusters.append((message.t / 1e9, message))

    def _picture(
        self, shot: TimedFrame, frame: Frame, seen: PerceptionOutput, command: ThrusterCommand | None, film_t: int
    ) -> None:
        with timer(self.result.stages_ms["record"]):
            jpeg = shot.jpeg
            if jpeg is None:
                jpeg = cv2.imencode(".jpg", shot.image, [cv2.IMWRITE_JPEG_QUALITY, self.quality])[1].tobytes()
            self.dive.write("frame", frame)
            if not self.result.processed and self.lens is not None:
                self.dive.calibration(shot.t, self.lens.calibration)
            self.dive.picture(shot.t, jpeg, shot.frame_id)
            self.dive.annotations(seen.tracks)
            self._write(seen.messages)
        self.result.processed += 1
        self.result.seen.append((shot.t / 1e9, Counter(item.label for item in seen.detections.items)))
        if seen.setpoint:
            self.result.setpoints.append((shot.t / 1e9, seen.setpoint))
        if self.film_path:
            if self.film is None:
                self.film = OverlayWriter(self.film_path, frame.width, frame.height, self.fps)
            mode = command.mode.value if command else ""
            self.film.write(draw(shot.image, seen.tracks, seen.setpoint, command, mode, shot.t / 1e9), film_t)


def frame_of(shot: TimedFrame) -> Frame:
    """The `frame` message of a picture."""
    height, width = shot.image.shape[:2]
    return Frame(t=shot.t, frame_id=shot.frame_id, frame_t=shot.t, width=width, height=height)


def group_pictures(items: Iterable[Item], pictures: int, limit: int | None) -> Iterator[list[Item]]:
    """Split a stream into groups of `pictures` pictures each and the messages between; ends after `limit` pictures."""
    group: list[Item] = []
    count = total = 0
    for item in items:
        group.append(item)
        if isinstance(item, TimedFrame):
            count, total = count + 1, total + 1
            if count == pictures or total == limit:
                yield group
                group, count = [], 0
            if total == limit:
                return
    if group:
        yield group


def prepare_groups(
    groups: Iterable[list[Item]], detector: Detector, rectifier: Rectifier
) -> Iterator[tuple[list[Item], Batch | None]]:
    """Each group with its pictures rectified and prepared for the network."""
    lower_priority()
    for group in groups:
        images = []
        for item in group:
            if isinstance(item, TimedFrame):
                images.append(rectifier.rectify(item.image))
            elif isinstance(item.data, VehicleState):
                rectifier.receive_state(item.data)
        yield group, detector.prepare(images) if images else None


def detect_groups(
    groups: Iterable[tuple[list[Item], Batch | None]],
    detector: Detector,
    config: Config,
    ms: list[float],
    workers: int,
) -> Iterator[tuple[Item, tuple[Detection, ...]]]:
    """Each item with its detections, in order; messages have none. `workers` groups are in the network at once, and
    the times per picture go to `ms`."""

    timeline = ConfigTimeline(config, recorded=True)

    def infer(batch: Batch | None, limits: list[float]) -> tuple[list[tuple[Detection, ...]], float]:
        began = time.perf_counter()
        found = detector.objects(batch, detector.infer(batch.pictures), limits) if batch else []
        return found, (time.perf_counter() - began) * 1e3

    waiting: deque[tuple[list[Item], Future[tuple[list[tuple[Detection, ...]], float]]]] = deque()
    pool = ThreadPoolExecutor(workers, "network")
    try:
        iterator = iter(groups)
        while True:
            for group, batch in islice(iterator, workers + 1 - len(waiting)):
                waiting.append((group, pool.submit(infer, batch, thresholds(group, timeline))))
            if not waiting:
                return
            group, future = waiting.popleft()
            found, took = future.result()
            ms += [took / len(found)] * len(found) if found else []
            answers = iter(found)
            for item in group:
                yield item, (next(answers) if isinstance(item, TimedFrame) else ())
    finally:
        pool.shutdown(cancel_futures=True)


def thresholds(group: list[Item], timeline: ConfigTimeline) -> list[float]:
    """The least score for each picture of a group, by the settings of its time."""
    found = []
    for item in group:
        if isinstance(item, TimedFrame):
            found.append(least_score(timeline.at(item.t)))
        elif isinstance(item.data, ActiveSettings):
            timeline.add(item.data.settings, item.data.t)
    return found


def timed(items: Iterable[Item], ms: list[float]) -> Iterator[Item]:
    """The same items; the time each picture took to decode goes to `ms`."""
    iterator = iter(items)
    while True:
        began = time.perf_counter()
        item = next(iterator, None)
        if item is None:
            return
        if isinstance(item, TimedFrame):
            ms.append((time.perf_counter() - began) * 1e3)
        yield item


@contextmanager
def timer(ms: list[float]) -> Iterator[None]:
    """Appends the time spent in the block, in ms."""
    began = time.perf_counter()
    yield
    ms.append((time.perf_counter() - began) * 1e3)
