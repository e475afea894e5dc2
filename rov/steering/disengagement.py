"""When the policy must not steer: pictures that show nothing or are unlike those of the training, and a policy that is
unsure. Cheap checks first; one odd frame is nothing, most of the last ones are.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from rov.steering.policy_card import PictureThresholds

BAD, FRAMES = 5, 8
"""Frames with a symptom among the last frames that disengage."""
SATURATED = 0.98
"""A cell this bright shows nothing."""
STILL = 1e-4
"""Mean change of brightness since the last picture below which it is the same picture: a live one has noise."""
KEY_LOST, LOST_S = 0.12, 2.0
"""Confidence of the displacement since the key frame below which the place is not seen, and how long the policy goes on
by what it remembers: a gust or a fish hides the place for a moment; in a current of 0.2 m/s that is 0.4 m."""


class Sanity(NamedTuple):
    """Numbers of one picture, in brightness 0..1."""

    mean: float
    contrast: float
    gradient: float
    saturated: float


def sanity(picture: Tensor) -> Sanity:
    """Of the encoder's picture (1, 3, H, W), RGB in 0..1."""
    grey = picture[0].mean(0)
    gradient = (grey[1:] - grey[:-1]).abs().mean() + (grey[:, 1:] - grey[:, :-1]).abs().mean()
    return Sanity(float(grey.mean()), float(grey.std()), float(gradient / 2), float((grey > SATURATED).float().mean()))


def picture_symptom(found: Sanity, unlike: float, limits: PictureThresholds) -> str:
    """What is wrong with a picture, as the beginning of a sentence; "" when nothing is."""
    if not limits.mean[0] <= found.mean <= limits.mean[1]:
        return "the picture is too dark" if found.mean < limits.mean[0] else "the picture is too bright"
    if found.saturated > limits.saturated:
        return "the picture is blinded"
    if found.contrast < limits.contrast or found.gradient < limits.gradient:
        return "the picture shows nothing"
    if not unlike <= limits.unlike:  # a NaN is not
        return "the picture is unlike those of the training"
    return ""


def answer_symptom(log_variance: Sequence[float], limit: float) -> str:
    """What is wrong with the policy's answer; "" when nothing is."""
    return "" if sum(log_variance) / len(log_variance) <= limit else "the policy is unsure"


class Checkup:
    """Counts the symptoms of the last frames, and notices a picture that stands still."""

    def __init__(self) -> None:
        self.symptoms: deque[str] = deque(maxlen=FRAMES)
        self.last: Tensor | None = None
        self.unseen_s = 0.0
        """How long the place of the key frame has not been seen."""

    def frozen(self, picture: Tensor) -> str:
        """The symptom of a picture that is the last one again, or ""."""
        before, self.last = self.last, picture
        if before is None or float((picture - before).abs().mean()) > STILL:
            return ""
        return "the picture is frozen"

    def lost(self, confidence: float, dt_s: float) -> str:
        """The symptom of a key frame whose place is lost, `dt_s` after the last frame, or ""."""
        self.unseen_s = self.unseen_s + dt_s if confidence < KEY_LOST else 0.0
        return "the place of the key frame is not seen any more" if self.unseen_s > LOST_S else ""

    def update(self, symptoms: tuple[str, ...]) -> str:
        """Take the symptoms of one frame; returns why the policy must not steer, or ""."""
        self.symptoms.append(next(filter(None, symptoms), ""))
        found = Counter(filter(None, self.symptoms))
        if found.total() < BAD:
            return ""
        return f"{found.most_common(1)[0][0]} ({found.total()} of the last {FRAMES} frames)"


def late_symptom(age_s: float, longest_s: float) -> str:
    """The symptom of a frame that is older than the policy ever had them, or ""."""
    return "" if age_s <= longest_s else "the pictures come late"
