"""Precision and recall, computed by hand."""

from pathlib import Path

import numpy as np
import pytest

from models.data import CLASSES, Sample
from models.metrics import ClassResult, evaluate
from rov.messages import Box, Detection

RED, GREEN = CLASSES.index("buoy_red"), CLASSES.index("buoy_green")


def sample(boxes: list[Box], kinds: list[int], known: tuple[int, ...] = (RED, GREEN)) -> Sample:
    says = np.zeros(len(CLASSES), bool)
    says[list(known)] = True
    return Sample(Path("x"), "s", "g", np.array(boxes, np.float32).reshape(-1, 4), np.array(kinds), says)


def found(score: float, box: Box, label: str = "buoy_red") -> Detection:
    return Detection(label, score, box)


def test_by_hand() -> None:
    a, b = (0.0, 0.0, 10.0, 10.0), (50.0, 50.0, 60.0, 60.0)
    samples = [sample([a, b], [RED, RED]), sample([a], [RED])]
    near_a = (0.0, 0.0, 10.0, 8.0)  # IoU 0.8
    detections = [
        (
            found(0.9, near_a),
            found(0.8, a),
            found(0.7, (49.0, 49.0, 59.0, 59.0)),
        ),  # hit, second on a taken label, hit (0.68)
        (found(0.6, (5.0, 0.0, 15.0, 10.0)),),  # IoU 1/3: miss
    ]
    red = evaluate(samples, detections)["buoy_red"]
    assert red.labels == 3 and red.hits.tolist() == [True, False, True, False]
    assert red.at(0.65) == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    # recall 1/3 at precision 1, then 2/3 at the best precision that follows, 2/3: 1/3 + 1/3 * 2/3
    assert red.average_precision() == pytest.approx(1 / 3 + 2 / 9)


def test_a_class_the_picture_does_not_know_counts_neither_way() -> None:
    results = evaluate(
        [sample([], [], known=(GREEN,))], [(found(0.9, (0, 0, 9, 9)), found(0.9, (0, 0, 9, 9), "buoy_green"))]
    )
    assert len(results["buoy_red"].scores) == 0
    assert results["buoy_green"].at(0.5) == (0.0, 0.0)


def test_the_balance_leans_to_precision() -> None:
    """Hits, best first: 1 1 0 1 of 4 labels. F0.5 of the first n: 0.625, 0.833, 0.588..., 0.75: two it is."""
    result = ClassResult(4, np.array([0.9, 0.8, 0.6, 0.5]), np.array([True, True, False, True]))
    assert result.balance() == pytest.approx(0.7)


def test_nothing_found_is_precise() -> None:
    red = evaluate([sample([(0, 0, 9, 9)], [RED])], [()])["buoy_red"]
    assert red.at(0.5) == (1.0, 0.0) and red.average_precision() == 0.0
