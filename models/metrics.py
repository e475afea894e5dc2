"""Quality of a detector, by COCO's own evaluation (pycocotools): average precision per class and scene, over the
pictures that are labelled for a class, with bootstrap intervals over clips; and the calibration of its scores.
"""

from __future__ import annotations

import contextlib
import copy
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from models.data import CLASSES, Sample
from rov.messages import Detection

TOP = 1000
"""Answers per picture and class that are judged: all that a detector gives."""
RESAMPLES = 200
PRIOR = 5.0
"""Detections at which a class' own calibration and that of all classes have about equal weight."""
FLATTEST, STEEPEST = 0.2, 1.0
"""Limits of a calibration's slope. A raw score's logit moves by a few tenths when the same picture is compressed anew:
a steep slope would make that several times larger, and live and replayed scores would differ widely."""


@dataclass(frozen=True)
class ClassResult:
    """One class over a set of pictures. `hits` are sorted by descending score: True for a match at IoU 0.5."""

    labels: int
    scores: NDArray[np.float64]
    hits: NDArray[np.bool_]
    ap50: float
    """Average precision at IoU 0.5; nan without labels."""
    ap50_95: float
    """Mean over the IoUs 0.5, 0.55 … 0.95."""

    def at(self, score_min: float) -> tuple[float, float]:
        """(precision, recall) of the detections with at least this score; precision is 1 without detections."""
        hits = self.hits[self.scores >= score_min]
        return float(hits.mean()) if len(hits) else 1.0, float(hits.sum() / max(self.labels, 1))


class Evaluation:
    """Answers matched to labels. Where a picture is not labelled for a class, its answers of it do not count."""

    def __init__(self, samples: Sequence[Sample], found: Sequence[Sequence[Detection]], classes: Sequence[str]):
        self.samples, self.names = list(samples), tuple(classes)
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools talks
            self._matched = COCOeval(_labels(self.samples, self.names), _answers(found, self.names), "bbox")
            self._matched.params.areaRng, self._matched.params.areaRngLbl = [[0, 1e10]], ["all"]
            self._matched.params.maxDets = [TOP]
            self._matched.evaluate()
        # One entry per class and picture, class by class.
        entries, count = self._matched.evalImgs, len(self.samples)
        self._entries: list[list[dict[str, Any] | None]] = [
            [
                entry if sample.known[kind] else None
                for entry, sample in zip(entries[kind * count :], samples, strict=False)
            ]
            for kind in range(len(self.names))
        ]
        self.classes = self._results()

    def precision(self, pictures: Sequence[int]) -> NDArray[np.float64]:
        """(IoUs, classes) average precision over these pictures, which may repeat; nan for a class without labels."""
        judge = copy.copy(self._matched)
        judge.params = copy.copy(self._matched.params)
        judge.params.imgIds = list(range(len(pictures)))
        judge._paramsEval = judge.params
        judge.evalImgs = [row[i] for row in self._entries for i in pictures]
        with contextlib.redirect_stdout(io.StringIO()):
            judge.accumulate()
        values: NDArray[np.float64] = judge.eval["precision"][:, :, :, 0, 0]  # (IoUs, recalls, classes), -1: no labels
        return np.where(values[:, 0] < 0, np.nan, values.mean(1))

    def mean(self, pictures: Sequence[int] | None = None) -> tuple[float, float]:
        """(mAP50, mAP50-95) over the classes with labels in these pictures, or in all; nan where there is none."""
        values = self.precision(range(len(self.samples)) if pictures is None else pictures)
        labelled = ~np.isnan(values[0])
        if not labelled.any():
            return float("nan"), float("nan")
        return float(values[0, labelled].mean()), float(values[:, labelled].mean())

    def scenes(self) -> dict[str, list[int]]:
        """The pictures of each `SET/SCENE`."""
        found: dict[str, list[int]] = {}
        for i, sample in enumerate(self.samples):
            found.setdefault(f"{sample.set_name}/{sample.group}", []).append(i)
        return found

    def interval(self, pictures: Sequence[int], clips: Sequence[str], seed: int = 0) -> tuple[float, float] | None:
        """95 % bootstrap interval of their mAP50, drawing whole clips (one name per picture); None for a single clip,
        since frames of one clip say nothing about the next."""
        names = sorted(set(clips))
        if len(names) < 2:
            return None
        members = [[p for p, clip in zip(pictures, clips, strict=True) if clip == name] for name in names]
        rng = np.random.default_rng(seed)
        drawn = [rng.integers(len(names), size=len(names)) for _ in range(RESAMPLES)]
        means = [self.mean([p for i in each for p in members[i]])[0] for each in drawn]
        low, high = np.nanpercentile(means, [2.5, 97.5])
        return float(low), float(high)

    def picture(self, i: int) -> tuple[int, int, int]:
        """(labels, hits, false alarms) of one picture at a score of 0.5, over all classes."""
        entries = [entry for row in self._entries if (entry := row[i]) is not None]
        hits = [entry["dtMatches"][0][np.array(entry["dtScores"]) >= 0.5] > 0 for entry in entries]
        found = sum(int(h.sum()) for h in hits)
        return sum(len(entry["gtIds"]) for entry in entries), found, sum(len(h) for h in hits) - found

    def _results(self) -> dict[str, ClassResult]:
        values = self.precision(range(len(self.samples)))
        results = {}
        for kind, name in enumerate(self.names):
            entries = [entry for entry in self._entries[kind] if entry is not None]
            scores = np.concatenate([np.array(e["dtScores"], float) for e in entries] or [np.zeros(0)])
            hits = np.concatenate([e["dtMatches"][0] > 0 for e in entries] or [np.zeros(0, bool)])
            order = np.argsort(-scores, kind="stable")
            results[name] = ClassResult(
                sum(len(e["gtIds"]) for e in entries), scores[order], hits[order].astype(bool),
                float(values[0, kind]), float(values[:, kind].mean()),
            )  # fmt: skip
        return results


def evaluate(
    samples: Sequence[Sample], found: Sequence[Sequence[Detection]], classes: Sequence[str] = CLASSES
) -> Evaluation:
    """Match the answers of each picture to its labels, whose kinds are indices into `classes`."""
    return Evaluation(samples, found, classes)


def _coco(images: int, classes: Sequence[str], annotations: list[dict[str, Any]]) -> COCO:
    coco = COCO()
    coco.dataset = {
        "images": [{"id": i} for i in range(images)],
        "categories": [{"id": i, "name": name} for i, name in enumerate(classes)],
        "annotations": [each | {"id": i, "iscrowd": 0} for i, each in enumerate(annotations, 1)],
    }
    coco.createIndex()
    return coco


def _labels(samples: Sequence[Sample], classes: Sequence[str]) -> COCO:
    return _coco(
        len(samples), classes,
        [
            _annotation(i, int(kind), *box.tolist())
            for i, sample in enumerate(samples) for box, kind in zip(sample.boxes, sample.kinds, strict=True)
        ],
    )  # fmt: skip


def _answers(found: Sequence[Sequence[Detection]], classes: Sequence[str]) -> COCO:
    kinds = {name: i for i, name in enumerate(classes)}
    return _coco(
        len(found), classes,
        [
            _annotation(i, kinds[each.label], *each.box) | {"score": each.score}
            for i, answers in enumerate(found) for each in answers if each.label in kinds
        ],
    )  # fmt: skip


def _annotation(image: int, kind: int, x1: float, y1: float, x2: float, y2: float) -> dict[str, Any]:
    box = [x1, y1, x2 - x1, y2 - y1]
    return {"image_id": image, "category_id": kind, "bbox": box, "area": box[2] * box[3]}


def calibrate(results: dict[str, ClassResult]) -> dict[str, tuple[float, float]]:
    """Slope and offset per class that turn the logit of a raw score into that of the share of right answers at this
    score (Platt 1999, by Newton's method). The fewer answers of a class, the nearer to the fit of all classes."""
    every = [r for r in results.values() if r.labels]
    if not every or not any(r.hits.any() for r in every):
        return {}
    scores, hits = np.concatenate([r.scores for r in every]), np.concatenate([r.hits for r in every])
    common = _platt(scores, hits, np.array([1.0, 0.0]), 1.0)
    fits = {n: _platt(r.scores, r.hits, common, PRIOR) if r.labels else common for n, r in results.items()}
    return {name: _limited(*fit.tolist()) for name, fit in fits.items()}


def _limited(slope: float, offset: float) -> tuple[float, float]:
    """The fit with a slope within its limits; where it is made flatter, 0.5 stays at the same raw score."""
    flatter = min(1.0, STEEPEST / max(slope, FLATTEST))
    return round(max(slope, FLATTEST) * flatter, 3), round(offset * flatter, 3)


def _platt(
    scores: NDArray[np.float64], hits: NDArray[np.bool_], prior: NDArray[np.float64], strength: float
) -> NDArray[np.float64]:
    x = np.stack([logit(scores), np.ones(len(scores))], 1)
    fit = prior.copy()
    for _ in range(30):
        p = 1 / (1 + np.exp(-(x @ fit)))
        slope = x.T @ (p - hits) + strength * (fit - prior)
        bend = (x * (p * (1 - p))[:, None]).T @ x + strength * np.eye(2)
        fit = fit - np.clip(np.linalg.solve(bend, slope), -1.0, 1.0)
    return fit


def logit(p: NDArray[np.float64]) -> NDArray[np.float64]:
    p = np.clip(p, 1e-6, 1 - 1e-6)
    return np.asarray(np.log(p / (1 - p)))


def calibration_error(results: dict[str, ClassResult], bins: int = 10) -> float:
    """Expected calibration error (Naeini et al. 2015): mean gap between score and share of hits, over equal bins of the
    score, weighted by their answers."""
    every = [r for r in results.values() if r.labels]
    scores = np.concatenate([r.scores for r in every] or [np.zeros(0)])
    hits = np.concatenate([r.hits for r in every] or [np.zeros(0, bool)])
    if not len(scores):
        return float("nan")
    which = np.minimum((scores * bins).astype(int), bins - 1)
    gaps = [abs(scores[which == b].sum() - hits[which == b].sum()) for b in range(bins)]
    return float(sum(gaps) / len(scores))
