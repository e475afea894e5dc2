"""Who is who over time: detections in, tracks with identity and velocity out.

Our own, because of the kept libraries (looked at in November 2026) norfair and supervision count frames, and a rover's
frames come late, get dropped and jump; `trackers` 2.6 takes time stamps, but lets a track change its class, gates by
overlap alone, tells neither velocity nor where a hidden object is, needs the OpenCV build with libGL and numpy 2, and
takes 0.5 ms for ten objects. Each track here is a filter on its box in real time; assignment is optimal per frame and
never across classes. Weak detections ended at `perception.score_min`, so there is no second round for them: they fit a
little worse than sure ones, and `confirm_hits` keeps flicker out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from rov.config.schema import TrackingConfig
from rov.messages import Box, Detection, Detections, Track, Tracks

MEMORY_S = 0.1
"""Time constant with which the filter forgets: at 15 frames/s half of the last frame is left, at 5 nearly nothing."""
REACH = 0.4
"""How far an object may be from where it is expected, in diagonals of its box: jitter and its own motion."""
SWING_PER_S, SWING = 1.0, 0.25
"""What a turning camera adds to that: picture widths per s unseen, and at most. Small objects at 5 frames/s do not
overlap their own last box; beyond the limit it is anybody's guess who appears there."""
WEAK = 0.1
"""How much worse a detection of score 0 fits than one of score 1: of two boxes over an object, the surer is it."""
GAP_S = 0.5
"""Frames this far apart still connect, even when `hidden_s` is less: else slow video would have no identities."""
LARGEST = 1e6
"""Boxes beyond this, in px, are nonsense."""
FORBIDDEN = 1e6
"""Cost of a pair that cannot be the same object."""
SAME_IOU = 0.5
"""A second detection of the same class over a followed object is that object again, not a new one."""


@dataclass
class TrackedObject:
    """One object's state; pixels and s. (x, y) is the centre."""

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
        """Where it is expected `dt` after it was seen, if it goes on as before."""
        x, y = self.x + self.vx * dt, self.y + self.vy * dt
        return (x - self.w / 2, y - self.h / 2, x + self.w / 2, y + self.h / 2)

    def correct(self, found: Detection, t: int) -> None:
        """Take in a later detection of it.

        The critically damped fading-memory filter (Brookner, Tracking and Kalman Filtering Made Easy, 1998, 1.2.6):
        gains 1 - q^2 on the position and (1 - q)^2 on the velocity, where q is how much is left of the past.
        """
        dt = (t - self.seen_t) / 1e9
        left = math.exp(-dt / MEMORY_S)
        gain = 1 - left**2
        # The second sighting is the first word about velocity. The floor keeps a repeated frame from dividing by zero.
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
    """Keeps the tracks. Ids start at 1 and are never used twice."""

    def __init__(self, config: TrackingConfig):
        self.config = config
        self.followed: list[TrackedObject] = []
        self.last_id = 0
        self.last_t: int | None = None

    def step(self, detections: Detections, t: int) -> Tracks:
        """One frame; `t` (ns) is when this is made, motion is reckoned on capture times.

        Time that runs backwards starts afresh; a frame that comes twice says nothing new. Detections that are not
        finite or have no area are left out.
        """
        now = detections.frame_t
        if self.last_t is not None and now < self.last_t:
            self.followed = []
        if now != self.last_t:
            self._update([item for item in detections.items if _sound(item)], now, detections.width)
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

    def _update(self, found: list[Detection], now: int, width: int) -> None:
        """Give each detection to a track, old or new, and let go of those hidden for too long."""
        hidden = now - self.config.hidden_s * 1e9
        oldest = min(hidden, now - GAP_S * 1e9)
        self.followed = [each for each in self.followed if each.seen_t >= oldest]
        pairs = self._pairs(found, now, width)
        for i, j in pairs:
            self.followed[i].correct(found[j], now)
        # An object may hide for a while; one seen only now and then never was.
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

    def _pairs(self, found: list[Detection], now: int, width: int) -> list[tuple[int, int]]:
        """The cheapest assignment of tracks to detections, without forbidden pairs."""
        if not found or not self.followed:
            return []
        cost = np.array([self._costs(each, found, now, width) for each in self.followed])
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
        """Whether a followed object is already there."""
        return any(
            each.label == item.label and iou(each.box((now - each.seen_t) / 1e9), item.box) > SAME_IOU
            for each in self.followed
        )


def iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes."""
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if w <= 0 or h <= 0:
        return 0.0
    return w * h / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - w * h)


def _apart(a: Box, b: Box) -> float:
    """Distance of the centres."""
    return math.hypot(a[0] + a[2] - b[0] - b[2], a[1] + a[3] - b[1] - b[3]) / 2


def _sound(item: Detection) -> bool:
    x1, y1, x2, y2 = item.box
    return -LARGEST < x1 < x2 < LARGEST and -LARGEST < y1 < y2 < LARGEST and 0 <= item.score <= 1
