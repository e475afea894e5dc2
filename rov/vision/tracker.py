"""The tracker: turns detections into tracks with identity and velocity.

Each track filters its box in real time; assignment is optimal per frame and never across classes. What is left then
may go on with a weak detection, one below `perception.score_min` (ByteTrack, Zhang et al. 2022): what was surely a fish
a moment ago still is one when it turns its head. A weak one begins nothing, and `confirm_hits` suppresses flicker.

Why not a library (as of November 2026): norfair and supervision count frames, but a rover's frames come late, get
dropped and jump. `trackers` 2.6 takes time stamps, but lets a track change its class, gates by overlap alone, reports
neither velocity nor where a hidden object is, needs the OpenCV build with libGL and numpy 2, and takes 0.5 ms for ten
objects.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from rov.config.schema import TrackingConfig
from rov.messages import Box, Detection, Detections, Track, Tracks

MEMORY_S = 0.1
"""Time constant of the filter: at 15 frames/s half of the last estimate remains after a frame, at 5 an eighth."""
REACH = 0.4
"""How far an object may be from its expected place, in diagonals of its box: jitter and its own motion."""
SWING_PER_S, SWING = 1.0, 0.25
"""Added to that for a turning camera: picture widths per s unseen, and their upper limit. Small objects at 5 frames/s
do not overlap their own last box; beyond the limit, matches would be guesses."""
WEAK = 0.1
"""Extra cost of a detection of score 0 over one of score 1: of two boxes on an object, the surer one wins."""
GAP_S = 0.5
"""Frames this far apart still connect, even if `hidden_s` is less: else slow video would have no identities."""
LARGEST = 1e6
"""Boxes beyond this, in px, are discarded."""
FORBIDDEN = 1e6
"""Cost of a pair that cannot be the same object."""
OVERLAPS = 1.0
"""What a pair that overlaps costs less than. Of weak detections nothing else is taken: they are many, and one somewhere
near a lost object would be followed in its place."""
SAME_IOU = 0.5
"""A second detection of the same class over a followed object is that object again, not a new one."""


@dataclass
class TrackedObject:
    """One object's state in pixels and px/s; (x, y) is the centre of the box, `seen_t` in ns."""

    track_id: int
    label: str
    score: float
    x: float
    y: float
    w: float
    h: float
    seen_t: int
    vx: float = 0.0
    vy: float = 0.0
    hits: int = 1

    def box(self, dt: float = 0.0) -> Box:
        """The box expected `dt` s after it was last seen, at constant velocity."""
        x, y = self.x + self.vx * dt, self.y + self.vy * dt
        return (x - self.w / 2, y - self.h / 2, x + self.w / 2, y + self.h / 2)

    def correct(self, found: Detection, t: int) -> None:
        """Update the state with a later detection.

        The critically damped fading-memory filter (Brookner, Tracking and Kalman Filtering Made Easy, 1998, 1.2.6):
        gains 1 - q^2 on the position and (1 - q)^2 on the velocity, where q is the weight that the past keeps.
        """
        dt = (t - self.seen_t) / 1e9
        left = math.exp(-dt / MEMORY_S)
        gain = 1 - left**2
        # The second hit is the first information on velocity. The floor keeps a repeated frame from dividing by zero.
        gain_v = ((1 - left) ** 2 if self.hits > 1 else 1.0) / max(dt, 1e-3)
        x1, y1, x2, y2 = found.box
        px, py = self.x + self.vx * dt, self.y + self.vy * dt
        rx, ry = (x1 + x2) / 2 - px, (y1 + y2) / 2 - py
        self.x, self.y = px + gain * rx, py + gain * ry
        self.vx, self.vy = self.vx + gain_v * rx, self.vy + gain_v * ry
        self.w += gain * (x2 - x1 - self.w)
        self.h += gain * (y2 - y1 - self.h)
        self.score, self.seen_t, self.hits = found.score, t, self.hits + 1


class Tracker:
    """Tracks objects over frames. Ids start at 1 and are never reused."""

    def __init__(self, config: TrackingConfig):
        self.config = config
        self.followed: list[TrackedObject] = []
        self.last_id = 0
        self.last_t: int | None = None

    def split(
        self, found: Iterable[Detection], score_min: float
    ) -> tuple[tuple[Detection, ...], tuple[Detection, ...]]:
        """A frame's detections that count by themselves, and weak ones of classes that are tracked now."""
        found, tracked = tuple(found), {each.label for each in self.followed}
        weak = (each for each in found if each.score < score_min and each.label in tracked)
        return tuple(each for each in found if each.score >= score_min), tuple(weak)

    def step(self, detections: Detections, t: int) -> Tracks:
        """Process one frame. `t` (ns) stamps the result; motion is computed from capture times.

        If capture time runs backwards, all tracks are dropped; a repeated frame changes nothing. Detections that are
        not finite or have no area are ignored.
        """
        now = detections.frame_t
        if self.last_t is not None and now < self.last_t:
            self.followed = []
        if now != self.last_t:
            found, weak = ([each for each in some if _sound(each)] for some in (detections.items, detections.weak))
            self._update(found, weak, now, detections.width)
        self.last_t = now
        items = tuple(
            Track(each.track_id, each.label, each.score, each.box(hidden_s), (each.vx, each.vy), hidden_s)
            for each in self.followed
            if each.hits >= self.config.confirm_hits
            for hidden_s in [(now - each.seen_t) / 1e9]
        )
        return Tracks(
            t=t,
            frame_id=detections.frame_id,
            frame_t=now,
            width=detections.width,
            height=detections.height,
            items=items,
        )

    def _update(self, found: list[Detection], weak: list[Detection], now: int, width: int) -> None:
        """Assign each detection to an old or new track, weak ones to old ones that have none, and drop tracks that were
        hidden for too long."""
        hidden = now - self.config.hidden_s * 1e9
        oldest = min(hidden, now - GAP_S * 1e9)
        self.followed = [each for each in self.followed if each.seen_t >= oldest]
        pairs = self._pairs(self.followed, found, now, width, FORBIDDEN)
        for i, j in pairs:
            self.followed[i].correct(found[j], now)
        missed = [each for each in self.followed if each.seen_t != now and each.hits >= self.config.confirm_hits]
        for i, j in self._pairs(missed, weak, now, width, OVERLAPS):
            missed[i].correct(weak[j], now)
        # A confirmed object may hide for a while; an unconfirmed one must be seen in every frame.
        self.followed = [
            each
            for each in self.followed
            if each.seen_t == now or (each.hits >= self.config.confirm_hits and each.seen_t >= hidden)
        ]
        matched = {j for _, j in pairs}
        for j, item in enumerate(found):
            if j not in matched and not self._known(item, now):
                self.last_id += 1
                x1, y1, x2, y2 = item.box
                x, y, w, h = (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1
                self.followed.append(TrackedObject(self.last_id, item.label, item.score, x, y, w, h, now))

    def _pairs(
        self, followed: list[TrackedObject], found: list[Detection], now: int, width: int, limit: float
    ) -> list[tuple[int, int]]:
        """The cheapest assignment of tracks to detections, without pairs that cost `limit` or more."""
        if not found or not followed:
            return []
        cost = np.array([self._costs(each, found, now, width) for each in followed])
        cost[cost >= limit] = FORBIDDEN
        rows, columns = linear_sum_assignment(cost)
        return [(int(i), int(j)) for i, j in zip(rows, columns, strict=True) if cost[i, j] < FORBIDDEN]

    def _costs(self, each: TrackedObject, found: list[Detection], now: int, width: int) -> list[float]:
        """How badly each detection fits: 0..1 by overlap, 1..2 by distance (plus WEAK), or FORBIDDEN.

        Measured from where the object is expected and from where it was, whichever is better: when the camera stops
        turning, what seemed the object's velocity is gone.
        """
        dt = (now - each.seen_t) / 1e9
        here, there = each.box(), each.box(dt)
        reach = REACH * math.hypot(each.w, each.h) + min(SWING_PER_S * dt, SWING) * width
        costs = []
        for item in found:
            if item.label != each.label:
                costs.append(FORBIDDEN)
                continue
            overlap = max(iou(there, item.box), iou(here, item.box))
            if overlap >= self.config.match_iou:
                costs.append(1.0 - overlap + WEAK * (1.0 - item.score))
                continue
            far = min(_apart(there, item.box), _apart(here, item.box))
            costs.append(1.0 + far / reach + WEAK * (1.0 - item.score) if far < reach else FORBIDDEN)
        return costs

    def _known(self, item: Detection, now: int) -> bool:
        """Whether the detection lies on an object that is tracked already."""
        return any(
            each.label == item.label and iou(each.box((now - each.seen_t) / 1e9), item.box) > SAME_IOU
            for each in self.followed
        )


def iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes."""
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = w * h
    if w <= 0 or h <= 0 or shared == 0:  # an area may be too small for a number
        return 0.0
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def _apart(a: Box, b: Box) -> float:
    """Distance of the centres, px."""
    return math.hypot(a[0] + a[2] - b[0] - b[2], a[1] + a[3] - b[1] - b[3]) / 2


def _sound(item: Detection) -> bool:
    x1, y1, x2, y2 = item.box
    return -LARGEST < x1 < x2 < LARGEST and -LARGEST < y1 < y2 < LARGEST and 0 <= item.score <= 1
