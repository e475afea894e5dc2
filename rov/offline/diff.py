"""`rov replay --diff`: compares what is computed now with what was recorded, stage by stage.

Each stage gets the input that was *recorded* for it, so a changed stage shows as one differing topic, not as a
difference in everything after it. Only what works on pictures has a real tolerance: recorded ones went through JPEG.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from rov.config.schema import Config
from rov.config.timeline import ConfigTimeline
from rov.messages import (
    ActiveSettings,
    Box,
    ConsumedInput,
    Detections,
    Frame,
    FromFrame,
    Message,
    Observation,
    PolicyInput,
    Setpoint,
    ThrusterCommand,
    Tracks,
    Wrench,
    topic_of,
)
from rov.motion.thrusters import Curve
from rov.offline.pilot_replay import PilotReplay
from rov.offline.policy_diff import SIGHT_TOLERANCE, PolicyDiff
from rov.offline.source import Recording
from rov.perception import Perception
from rov.steering.policy_model import PolicyModel
from rov.types import Image

SCORE_TOLERANCE = 0.1
"""Of a detection's score. A detection this close to the threshold may appear or disappear."""
BOX_TOLERANCE = 0.1
"""Of a detection's box, as a share of its longer side (at least 4 pixels)."""
NUMBER_TOLERANCE = 1e-6
"""Stages after the detector are exact but for rounding."""
POLICY_TOLERANCE = 1e-3
"""Of the policy's setpoint: its memory carries the rounding of other processors' arithmetic along."""
FRAMES_TOLERANCE = {"detections": 0.02, "policy_input": 0.05}
"""Share of frames in which what works on pictures may differ."""
TOLERANCES = {
    "detections": f"score {SCORE_TOLERANCE}, box {BOX_TOLERANCE:.0%} of its side, 2 % of the frames",
    "policy_input": f"{SIGHT_TOLERANCE}, 5 % of the frames",
    "setpoint": f"{NUMBER_TOLERANCE:g}, of the policy {POLICY_TOLERANCE:g}",
}


@dataclass
class Difference:
    """The result for one topic. `worst` is the largest difference of a number, in its own unit."""

    topic: str
    compared: int = 0
    differing: int = 0
    worst: float = 0.0
    first: str = ""
    """When and how it first differed."""

    @property
    def tolerance(self) -> str:
        return TOLERANCES.get(self.topic, f"{NUMBER_TOLERANCE:g}")

    @property
    def verdict(self) -> str:
        """`same`, `differs`, or `not compared` where there was nothing to compare."""
        if not self.compared and not self.differing:
            return "not compared"
        return "same" if self.within else "differs"

    @property
    def within(self) -> bool:
        """Whether no more messages differ than the tolerance allows."""
        return self.differing <= FRAMES_TOLERANCE.get(self.topic, 0.0) * self.compared


class Diff:
    """Receives all messages of a dive, in order, and what the detector finds in its pictures now."""

    def __init__(self, config: Config, curve: Curve, source: Recording, policy: PolicyModel | None = None):
        """`policy`: None leaves what the policy did uncompared."""
        self.policy = PolicyDiff(policy) if policy else None
        self.timeline = ConfigTimeline(config, recorded=True)
        self.perception = Perception(config)
        self.known = not source.has_inputs
        """Whether perception's state is known; it is not in a dive that began in the middle of a run."""
        self.pilot = PilotReplay(config, curve, source)
        self.now: dict[tuple[str, int], Message] = {}
        """Computed and not yet compared messages, by topic and time (of the frame, where there is one)."""
        self.last_frame_t = -1
        """Time of the last frame that perception said anything of."""
        self.pictureless = 0
        """How many recorded detections have no picture in the dive."""
        self.table = {
            name: Difference(name)
            for name in ("detections", "tracks", "observation", "setpoint", "wrench", "thrusters")
        }

    def detected(self, detections: Detections, image: Image | None = None) -> None:
        """Take what the detector finds now in a recorded picture, and the rectified picture, if there is a policy."""
        self._computed(detections)
        if self.policy and image is not None:
            self.policy.add_picture(detections.frame_t, image)

    def recorded(self, message: object) -> None:
        """Take a recorded message: compare it with what is computed now, then feed it to the next stage."""
        if isinstance(message, Detections | Tracks | Observation):
            self.perception.apply_config(self.timeline.at(message.frame_t))
            self.last_frame_t = max(self.last_frame_t, message.frame_t)
        match message:
            case ActiveSettings():
                self.timeline.add(message.settings, message.t)
                self._feed(message)
            case Detections():
                self._compare(message)
                if self.known:
                    self._computed(self.perception.track(message, message.t))
            case Tracks():
                if self.known:
                    self._compare(message)
                    self._computed(self.perception.observe(message))
            case Observation():
                if self.known:
                    self._compare(message)
                if self.perception.config.task.name == "none":
                    self._computed(self.perception.steer(message, message.t))
            case PolicyInput():
                self._compare_policy(message)
            case Setpoint():
                self._compare_setpoint(message)
                self.pilot.setpoint = message
            case ConsumedInput() if message.by == "perceptiond":
                if message.what == "start":
                    self.perception, self.known = Perception(self.perception.config), True
            case Wrench():
                self.now[("recorded wrench", message.t)] = message
            case ThrusterCommand():
                answers = [*self.pilot.receive(message)]
                wrench = self.now.pop(("recorded wrench", message.t), None)
                if not self.pilot.known:
                    return
                for answer in answers:
                    if isinstance(answer, Wrench | ThrusterCommand):
                        self._computed(answer)
                self._compare(message)
                if wrench:
                    self._compare(wrench)
            case Message() if not isinstance(message, Frame):
                self._feed(message)

    def _feed(self, message: Message) -> None:
        for _ in self.pilot.receive(message):
            pass

    def summary(self) -> list[Difference]:
        """One row per topic. Messages that were computed now but not recorded count as differing; but those of the last
        frame, in whose midst a recording may end: on a full disk, say."""
        for (topic, at), message in self.now.items():
            ended = isinstance(message, FromFrame) and at == self.last_frame_t
            if topic in self.table and topic != "detections" and self.table[topic].compared and not ended:
                self._count(topic, message, 0.0, "computed now, not recorded")
        row = self.table["detections"]  # live, some frames are not analysed and some not recorded
        if self.pictureless and not row.compared:
            row.differing, row.first = self.pictureless, "no picture of the frames that were looked at is in the dive"
        return list(self.table.values())

    def _compare_policy(self, then: PolicyInput) -> None:
        """Compare what the pictures gave for the policy, and compute its setpoint from the recorded input."""
        self.table.setdefault("policy_input", Difference("policy_input"))
        if self.policy is None:
            return
        if (seen := self.policy.sight_differs(then, self.perception)) is not None:
            self._count("policy_input", then, *seen)
        if (setpoint := self.policy.answer(then)) is not None:
            self._computed(setpoint)

    def _compare_setpoint(self, then: Setpoint) -> None:
        """Compare a setpoint; the policy's only where its input is known, and without `unfit`, which needs pictures."""
        now = self.now.get(_key(then))
        if then.source != "policy":
            self._compare(then)
        elif isinstance(now, Setpoint):
            self.now[_key(then)] = msgspec.structs.replace(now, unfit=then.unfit)
            self._compare(then)

    def _computed(self, message: Message) -> None:
        self.now[_key(message)] = message

    def _compare(self, then: Message) -> None:
        topic, at = key = _key(then)
        now = self.now.pop(key, None)
        if now is None and isinstance(then, Detections):
            self.pictureless += 1
        elif now is None:
            self._count(topic, then, 0.0, "recorded, not computed now")
        elif isinstance(now, Detections) and isinstance(then, Detections):
            self._count(topic, then, *detections_differ(now, then, self.perception.config.perception.score_min))
        else:
            policy = isinstance(then, Setpoint) and then.source == "policy"
            worst, where = numbers_differ(now, then, POLICY_TOLERANCE if policy else NUMBER_TOLERANCE)
            self._count(topic, then, worst, where)

    def _count(self, topic: str, message: Message, worst: float, why: str) -> None:
        row = self.table[topic]
        row.compared += 1
        row.worst = max(row.worst, worst)
        if why:
            row.differing += 1
            row.first = row.first or f"at {message.t / 1e9:.3f} s: {why}"


def _key(message: Message) -> tuple[str, int]:
    by_frame = isinstance(message, FromFrame) and not isinstance(message, Wrench | ThrusterCommand)
    return topic_of(message), message.frame_t if by_frame and isinstance(message, FromFrame) else message.t


def numbers_differ(now: Message, then: Message, tolerance: float = NUMBER_TOLERANCE) -> tuple[float, str]:
    """(largest difference of a number, a sentence on the first field that differs by more than that or "")."""
    worst, where = 0.0, ""
    for name, a, b in _leaves("", now, then):
        if isinstance(a, float | int) and isinstance(b, float | int) and not isinstance(a, bool):
            same = a == b or (a != a and b != b)  # NaN equals NaN here; inf - inf is no difference
            if not same and not math.isnan(difference := abs(a - b)):
                worst, same = max(worst, difference), difference <= tolerance
        else:
            same = a == b
        where = where or ("" if same else f"{name} is {a!r}, was {b!r}")
    return worst, where


def _leaves(name: str, a: object, b: object) -> Iterator[tuple[str, object, object]]:
    fields = getattr(a, "__struct_fields__", None)
    if fields and type(a) is type(b):
        for each in fields:
            yield from _leaves(f"{name}.{each}" if name else each, getattr(a, each), getattr(b, each))
    elif isinstance(a, tuple) and isinstance(b, tuple) and len(a) == len(b):
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            yield from _leaves(f"{name}[{i}]", x, y)
    else:
        yield name, a, b


def detections_differ(now: Detections, then: Detections, score_min: float) -> tuple[float, str]:
    """(largest difference of a matched score, what exceeds the tolerance or "")."""
    worst, missing = 0.0, list(now.items)
    for old in then.items:
        near = [new for new in missing if new.label == old.label and _box_near(new.box, old.box)]
        if near:
            new = min(near, key=lambda each: abs(each.score - old.score))
            missing.remove(new)
            worst = max(worst, abs(new.score - old.score))
        elif old.score > score_min + SCORE_TOLERANCE:
            return worst, f"{old.label} ({old.score:.2f}) is no longer found"
    for new in missing:
        if new.score > score_min + SCORE_TOLERANCE:
            return worst, f"{new.label} ({new.score:.2f}) was not found then"
    return worst, f"a score moved by {worst:.2f}" if worst > SCORE_TOLERANCE else ""


def _box_near(a: Box, b: Box) -> bool:
    side = max(b[2] - b[0], b[3] - b[1])
    return all(abs(x - y) <= max(BOX_TOLERANCE * side, 4.0) for x, y in zip(a, b, strict=True))
