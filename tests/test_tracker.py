"""Identity, velocity and short occlusion, on synthetic motion and on the labels of a real clip."""

import csv
import math
import random
from collections import defaultdict
from pathlib import Path

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rov.config.schema import TrackingConfig
from rov.messages import Box, Detection, Detections, Track
from rov.vision.tracker import Tracker, iou


def seen(t_s: float, *items: Detection, frame_id: int = 0) -> Detections:
    t = round(t_s * 1e9)
    return Detections(t=t, frame_id=frame_id, frame_t=t, width=640, height=480, items=items)


def at(x: float, y: float, label: str = "rock", size: float = 40.0, score: float = 0.8) -> Detection:
    return Detection(label, score, (x - size / 2, y - size / 2, x + size / 2, y + size / 2))


def run(tracker: Tracker, t_s: float, *items: Detection, weak: tuple[Detection, ...] = ()) -> dict[int, Track]:
    frame = msgspec.structs.replace(seen(t_s, *items), weak=weak)
    return {track.track_id: track for track in tracker.step(frame, round(t_s * 1e9)).items}


def test_one_object_is_one_track_with_its_velocity() -> None:
    tracker = Tracker(TrackingConfig())
    assert run(tracker, 0.0, at(100, 100)) == {}, "not published before it is confirmed"
    for i in range(1, 40):
        dt = i / 15
        tracks = run(tracker, dt, at(100 + 90 * dt, 100 - 45 * dt))
    (track,) = tracks.values()
    assert track.track_id == 1 and track.hidden_s == 0
    assert track.velocity == pytest.approx((90, -45), rel=0.01)
    x1, y1, x2, y2 = track.box
    assert ((x1 + x2) / 2, (y1 + y2) / 2) == pytest.approx((100 + 90 * dt, 100 - 45 * dt), abs=0.5)


def test_irregular_frames_do_not_change_the_velocity() -> None:
    tracker, rng, t = Tracker(TrackingConfig()), random.Random(4), 0.0
    for _ in range(60):
        t += rng.choice([0.03, 0.07, 0.2, 0.35])
        tracks = run(tracker, t, at(50 + 60 * t, 200))
    assert next(iter(tracks.values())).velocity == pytest.approx((60, 0), abs=0.5) and tracker.last_id == 1


def test_hidden_for_a_moment_it_keeps_its_identity_and_its_course() -> None:
    tracker = Tracker(TrackingConfig(hidden_s=1.0))
    for i in range(15):
        run(tracker, i / 15, at(100 + 100 * i / 15, 100))
    for i in range(15, 24):  # 0.6 s out of sight
        (hidden,) = run(tracker, i / 15).values()
        assert hidden.hidden_s == pytest.approx((i - 14) / 15)
        assert (hidden.box[0] + hidden.box[2]) / 2 == pytest.approx(100 + 100 * i / 15, abs=2)
    (back,) = run(tracker, 24 / 15, at(100 + 100 * 24 / 15, 100)).values()
    assert back.track_id == 1 and back.hidden_s == 0
    for i in range(25, 60):
        tracks = run(tracker, i / 15)
    assert tracks == {}, "gone for longer than hidden_s"


def test_a_weak_detection_goes_on_with_a_track_and_begins_none() -> None:
    tracker = Tracker(TrackingConfig(confirm_hits=2))
    faint = at(100, 100, score=0.3)
    assert run(tracker, 0.0, weak=(faint,)) == {} and tracker.followed == []
    run(tracker, 0.1, at(100, 100))
    assert run(tracker, 0.2, weak=(faint,)) == {}, "it confirms none either"
    for t in (0.3, 0.4):
        run(tracker, t, at(100, 100))
    for i in range(20):
        (track,) = run(tracker, 0.5 + 0.1 * i, weak=(at(300, 100, score=0.45), at(102, 100, score=0.3))).values()
    assert track.hidden_s == 0 and track.score == 0.3 and track.box[0] == pytest.approx(82, abs=0.5)
    (left,) = run(tracker, 2.6, weak=(at(160, 100, score=0.45),)).values()
    assert left.hidden_s == pytest.approx(0.2), "near it is not on it: another thing may be there"
    (sure,) = run(tracker, 2.7, at(102, 100), weak=(at(101, 100, score=0.49),)).values()
    assert sure.score == 0.8, "a sure one comes first"


def test_weak_detections_are_those_of_classes_that_are_tracked() -> None:
    tracker = Tracker(TrackingConfig())
    found = (at(100, 100, "rock", score=0.8), at(1, 1, "fish", score=0.3), at(9, 9, "rock", score=0.3))
    assert tracker.split(found, 0.5) == (found[:1], ())
    run(tracker, 0.0, found[0])
    assert tracker.split(found, 0.5) == (found[:1], found[2:])


def test_two_that_cross_keep_their_names_and_classes_never_mix() -> None:
    tracker = Tracker(TrackingConfig())
    for i in range(40):
        tracks = run(tracker, i / 15, at(100 + 8 * i, 100), at(420 - 8 * i, 112))
    centres = {k: (t.box[0] + t.box[2]) / 2 for k, t in tracks.items()}
    assert centres[1] == pytest.approx(412, abs=3) and centres[2] == pytest.approx(108, abs=3)
    mixed = Tracker(TrackingConfig())
    for i in range(10):
        tracks = run(mixed, i / 15, at(100, 100, "rock"), at(103, 100, "bottle"))
    assert {t.label for t in tracks.values()} == {"rock", "bottle"} and mixed.last_id == 2


def test_small_and_fast_at_five_frames_a_second() -> None:
    tracker = Tracker(TrackingConfig())
    for i in range(12):  # moves by more than its own size per frame: no overlap ever
        tracks = run(tracker, i / 5, at(60 + 24 * i, 100, size=20))
    assert set(tracks) == {1} and tracker.last_id == 1


def test_a_flicker_is_no_object_and_a_double_box_is_one() -> None:
    tracker = Tracker(TrackingConfig(confirm_hits=2))
    for i in range(20):
        boxes = (at(100, 100), at(103, 101, score=0.5)) + ((at(400, 300),) if i % 2 else ())
        tracks = run(tracker, i / 15, *boxes)
        assert set(tracks) <= {1}


def test_a_turning_camera_does_not_make_new_objects() -> None:
    """A 24 px object moves to and fro across the picture, five of its widths per frame, at 5 frames/s."""
    tracker = Tracker(TrackingConfig())
    for i in range(30):
        tracks = run(tracker, i / 5, at(200 + 120 * (i % 2), 240, size=24), at(500, 40, "fish"))
        assert i == 0 or set(tracks) == {1, 2}
        assert i == 0 or (tracks[1].box[0] + tracks[1].box[2]) / 2 == pytest.approx(200 + 120 * (i % 2), abs=12)


def test_jitter_is_damped() -> None:
    tracker, rng, off = Tracker(TrackingConfig()), random.Random(2), []
    for i in range(150):
        x = 300 + rng.gauss(0, 3)
        tracks = run(tracker, i / 15, at(x, 200))
        if i > 15:
            off.append(((tracks[1].box[0] + tracks[1].box[2]) / 2 - 300) ** 2)
    assert tracker.last_id == 1 and (sum(off) / len(off)) ** 0.5 < 2.7, "steadier than the detections' 3 px"


def test_of_two_boxes_over_an_object_the_surer_is_it() -> None:
    tracker = Tracker(TrackingConfig())
    for i in range(10):
        (track,) = run(tracker, i / 15, at(101, 100, score=0.4), at(101.5, 100, score=0.9)).values() or (None,)
        assert track is None or track.score == 0.9


def test_time_that_runs_backwards_starts_afresh() -> None:
    tracker = Tracker(TrackingConfig(confirm_hits=1))
    assert set(run(tracker, 5.0, at(100, 100))) == {1}
    assert set(run(tracker, 1.0, at(100, 100))) == {2}


def test_a_long_gap_ends_identities_and_a_repeated_frame_changes_nothing() -> None:
    tracker = Tracker(TrackingConfig(confirm_hits=1))
    before = run(tracker, 0.0, at(100, 100))
    assert run(tracker, 0.0, at(130, 100)) == before
    assert set(run(tracker, 10.0, at(100, 100))) == {2}


def test_nothing_hides_when_hiding_is_off() -> None:
    tracker = Tracker(TrackingConfig(hidden_s=0.0))
    for i in range(5):
        tracks = run(tracker, i / 5, at(100, 100))
    assert set(tracks) == {1} and run(tracker, 1.0) == {}


NUMBERS = st.floats(-1e5, 1e5) | st.floats()
"""Mostly valid box coordinates; also NaN, infinities and huge values."""


@given(
    st.lists(
        st.tuples(
            st.floats(-1.0, 5.0) | st.just(1e-9),
            st.lists(
                st.builds(
                    Detection,
                    st.sampled_from(["rock", "fish"]),
                    st.floats(0.0, 1.0) | st.floats(),
                    st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS),
                ),
                max_size=6,
            ),
        ),
        max_size=20,
    )
)
@example([(0.0, [Detection("fish", 0.0, (0.0, -9e-249, 3e-91, 0.0))] * 2)])
def test_whatever_comes_boxes_are_finite_and_ids_unique(frames: list[tuple[float, list[Detection]]]) -> None:
    tracker, t = Tracker(TrackingConfig(confirm_hits=1)), 10_000_000_000
    for step, items in frames:
        t += round(step * 1e9)
        tracks = tracker.step(seen(t / 1e9, *items), t).items
        assert len({track.track_id for track in tracks}) == len(tracks)
        assert all(math.isfinite(v) for track in tracks for v in (*track.box, *track.velocity))
        assert all(track.box[0] <= track.box[2] and track.box[1] <= track.box[3] for track in tracks)


def test_iou_by_hand() -> None:
    a: Box = (0, 0, 10, 10)
    assert iou(a, a) == 1.0 and iou(a, (5, 0, 15, 10)) == pytest.approx(1 / 3)
    assert iou(a, (20, 20, 30, 30)) == 0.0 and iou((3, 3, 3, 3), (3, 3, 3, 3)) == 0.0


def test_real_boxes_with_some_missing_keep_their_identity(rov_data: Path) -> None:
    """The labels of a real clip as detections, 15 % of them dropped. The clip alternates between two recordings, so
    that objects are hidden at every change. True identities come from the overlap of the complete labels."""
    frames: dict[int, list[Detection]] = defaultdict(list)
    with (rov_data / "video" / "tub_B02_15fps_gt.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row["class"]:  # else a frame without objects
                x1, y1, x2, y2 = (float(row[key]) for key in ("x1", "y1", "x2", "y2"))
                frames[int(row["video_frame"])].append(Detection(row["class"], 0.9, (x1, y1, x2, y2)))
    tracker, rng = Tracker(TrackingConfig()), random.Random(7)
    objects: list[tuple[int, Detection]] = []  # when and where each was last
    followed_as: dict[int, int] = {}
    boxes = published = switches = 0
    for i in range(max(frames) + 1):
        kept = [item for item in frames[i] if rng.random() > 0.15]
        tracks = run(tracker, i / 15, *kept)
        for item in frames[i]:
            same = [
                (iou(last.box, item.box), k)
                for k, (when, last) in enumerate(objects)
                if last.label == item.label and i - 15 <= when < i
            ]
            overlap, k = max(same, default=(0.0, -1))
            if overlap < 0.3:
                k = len(objects)
                objects.append((i, item))
            objects[k] = (i, item)
            mine = [
                t for t in tracks.values() if t.label == item.label and not t.hidden_s and iou(t.box, item.box) > 0.5
            ]
            if item in kept:
                boxes += 1
                published += bool(mine)
            if mine:
                switches += followed_as.get(k, mine[0].track_id) != mine[0].track_id
                followed_as[k] = mine[0].track_id
    assert published > 0.9 * boxes, f"{published} of {boxes}"
    assert switches <= 3
