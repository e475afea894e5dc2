"""Precision, recall, average precision and calibration, computed by hand."""

from pathlib import Path

import numpy as np
import pytest

from models.data import CLASSES, Sample
from models.metrics import ClassResult, calibrate, calibration_error, evaluate
from rov.messages import Box, Detection

RED, GREEN = CLASSES.index("buoy_red"), CLASSES.index("buoy_green")
A, B = (0.0, 0.0, 10.0, 10.0), (50.0, 50.0, 60.0, 60.0)


def sample(
    boxes: list[Box], kinds: list[int], known: tuple[int, ...] = (RED, GREEN), group: str = "g", set_name: str = "s"
) -> Sample:
    says = np.zeros(len(CLASSES), bool)
    says[list(known)] = True
    return Sample(
        Path("x"), set_name, group, np.array(boxes, np.float32).reshape(-1, 4), np.array(kinds, np.int64), says
    )


def found(score: float, box: Box, label: str = "buoy_red") -> Detection:
    return Detection(label, score, box)


def test_by_hand() -> None:
    samples = [sample([A, B], [RED, RED]), sample([A], [RED])]
    near_a = (0.0, 0.0, 10.0, 8.0)  # IoU 0.8
    detections = [
        (found(0.9, near_a), found(0.8, A), found(0.7, (49.0, 49.0, 59.0, 59.0))),  # hit, second on a taken label, hit
        (found(0.6, (5.0, 0.0, 15.0, 10.0)),),  # IoU 1/3: miss
    ]
    judged = evaluate(samples, detections)
    red = judged.classes["buoy_red"]
    assert red.labels == 3 and red.hits.tolist() == [True, False, True, False]
    assert red.at(0.65) == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    # COCO's 101 points: up to recall 1/3 (34 points) at precision 1, up to 2/3 (33 more) at 2/3, then nothing.
    assert red.ap50 == pytest.approx((34 + 33 * 2 / 3) / 101)
    assert judged.mean() == (pytest.approx(red.ap50), pytest.approx(red.ap50_95)) and red.ap50_95 < red.ap50
    assert judged.picture(0) == (2, 2, 1) and judged.picture(1) == (1, 0, 1)


def test_a_class_the_picture_does_not_know_counts_neither_way() -> None:
    answers = (found(0.9, (0, 0, 9, 9)), found(0.9, (0, 0, 9, 9), "buoy_green"))
    results = evaluate([sample([], [], known=(GREEN,))], [answers]).classes
    assert len(results["buoy_red"].scores) == 0
    assert results["buoy_green"].at(0.5) == (0.0, 0.0)


def test_nothing_found_is_precise() -> None:
    red = evaluate([sample([(0, 0, 9, 9)], [RED])], [()]).classes["buoy_red"]
    assert red.at(0.5) == (1.0, 0.0) and red.ap50 == 0.0


def test_a_crowd_of_more_than_a_hundred_counts_whole() -> None:
    boxes: list[Box] = [(20.0 * i, 0.0, 20.0 * i + 10, 10.0) for i in range(120)]
    result = evaluate([sample(boxes, [RED] * 120)], [tuple(found(0.9 - i / 1000, b) for i, b in enumerate(boxes))])
    assert result.classes["buoy_red"].ap50 == pytest.approx(1.0), "COCO's usual limit is 100 answers"


def test_the_interval_draws_whole_clips() -> None:
    samples = [sample([A], [RED], group=f"clip{i // 5}") for i in range(20)]
    good, bad = (found(0.9, A),), (found(0.9, B),)
    mixed = evaluate(samples, [good if i < 10 else bad for i in range(20)])
    clips = [each.group for each in samples]
    low, high = mixed.interval(range(20), clips) or (-1, -1)
    assert low < mixed.mean()[0] < high and low < 0.2 and high > 0.7
    assert evaluate(samples, [good] * 20).interval(range(20), clips) == (pytest.approx(1.0), pytest.approx(1.0))
    assert mixed.interval(range(5), clips[:5]) is None, "frames of one clip say nothing about the next"
    assert mixed.mean(range(10))[0] == pytest.approx(1.0) and mixed.mean(range(10, 20))[0] == 0.0
    assert mixed.scenes()["s/clip3"] == [15, 16, 17, 18, 19]


def test_calibrated_scores_are_shares_of_right_answers() -> None:
    rng = np.random.default_rng(0)
    raw = np.sort(rng.uniform(0.02, 0.98, 4000))[::-1]
    true = 1 / (1 + np.exp(-(0.8 * np.log(raw / (1 - raw)) + 1.0)))  # what the scores should have been
    many = ClassResult(2000, raw, rng.random(4000) < true, 0.5, 0.3)
    few = ClassResult(1, raw[800:802], np.array([False, False]), 0.0, 0.0)
    none = ClassResult(0, raw[:0], np.zeros(0, bool), float("nan"), float("nan"))
    fits = calibrate({"many": many, "few": few, "none": none})
    assert fits["many"] == (pytest.approx(0.8, abs=0.1), pytest.approx(1.0, abs=0.2))
    assert 0.2 < fits["few"][0] < fits["many"][0], "two misses pull, and do not overturn"
    assert fits["none"] == pytest.approx(fits["many"], abs=0.1)
    slope, offset = fits["many"]
    scores = 1 / (1 + np.exp(-(slope * np.log(raw / (1 - raw)) + offset)))
    after = ClassResult(2000, scores, many.hits, 0.5, 0.3)
    assert calibration_error({"many": after}) < 0.03 < calibration_error({"many": many})
    assert calibrate({"none": none}) == {}


def test_a_steep_calibration_is_flattened_around_a_score_of_a_half() -> None:
    """A picture that is compressed anew moves raw scores a little; that must not be made several times larger."""
    raw = np.sort(np.random.default_rng(0).uniform(0.02, 0.98, 4000))[::-1]
    hits = np.random.default_rng(1).random(4000) < 1 / (1 + np.exp(-(3.0 * np.log(raw / (1 - raw)) + 1.5)))
    slope, offset = calibrate({"steep": ClassResult(2000, raw, hits, 0.5, 0.3)})["steep"]
    assert slope == 1.0 and offset == pytest.approx(0.5, abs=0.06), "0.5 stays where the logit is -1.5 / 3"
