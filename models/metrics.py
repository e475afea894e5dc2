"""Quality of a detector: precision, recall and average precision at IoU 0.5, over the classes labelled in a picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.augment import iou
from models.data import CLASSES, Sample
from rov.messages import Detection

MATCH_IOU = 0.5


@dataclass(frozen=True)
class ClassResult:
    """One class over a set of pictures. `hits` are sorted by descending score: True for a match with a label."""

    labels: int
    scores: NDArray[np.float64]
    hits: NDArray[np.bool_]

    def average_precision(self) -> float:
        """Area under the precision-recall curve, precision made monotone (all points, as VOC 2010 and COCO)."""
        if not self.labels:
            return float("nan")
        recall = self.hits.cumsum() / self.labels
        precision = self.hits.cumsum() / np.arange(1, len(self.hits) + 1)
        precision = np.maximum.accumulate(precision[::-1])[::-1]
        return float(np.sum(np.diff(recall, prepend=0.0) * precision))

    def balance(self) -> float:
        """The score with the best F0.5, midway to the next lower one. Precision counts double, because a false alarm
        moves the vehicle, while the tracker bridges a miss."""
        precision = self.hits.cumsum() / np.arange(1, len(self.hits) + 1)
        recall = self.hits.cumsum() / max(self.labels, 1)
        score = 1.25 * precision * recall / np.maximum(0.25 * precision + recall, 1e-9)
        best = int(np.argmax(score))
        lower = self.scores[best + 1] if best + 1 < len(self.scores) else self.scores[best]
        return float(self.scores[best] + lower) / 2

    def at(self, score_min: float) -> tuple[float, float]:
        """(precision, recall) of the detections with at least this score; precision is 1 without detections."""
        hits = self.hits[self.scores >= score_min]
        return float(hits.mean()) if len(hits) else 1.0, float(hits.sum() / max(self.labels, 1))


def evaluate(samples: list[Sample], found: list[tuple[Detection, ...]]) -> dict[str, ClassResult]:
    """Match detections to labels, best score first, each label once; classes not labelled in a picture are left out."""
    rows: dict[str, list[tuple[float, bool]]] = {name: [] for name in CLASSES}
    labels = dict.fromkeys(CLASSES, 0)
    for sample, detections in zip(samples, found, strict=True):
        for kind, name in enumerate(CLASSES):
            if not sample.known[kind]:
                continue
            truth = sample.boxes[sample.kinds == kind]
            labels[name] += len(truth)
            own = sorted((d for d in detections if d.label == name), key=lambda d: -d.score)
            if not own:
                continue
            overlap = iou(np.array([d.box for d in own], np.float32), truth)
            free = np.ones(len(truth), bool)
            for d, row in zip(own, overlap, strict=True):
                best = int(np.argmax(row * free)) if len(truth) else -1
                hit = best >= 0 and bool(free[best]) and row[best] >= MATCH_IOU
                if hit:
                    free[best] = False
                rows[name].append((d.score, hit))
    results = {}
    for name, pairs in rows.items():
        pairs.sort(key=lambda pair: -pair[0])
        scores, hits = np.array([s for s, _ in pairs], float), np.array([h for _, h in pairs], bool)
        results[name] = ClassResult(labels[name], scores, hits)
    return results
