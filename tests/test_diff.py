"""What counts as the same."""

from rov.messages import Box, Detection, Detections, Setpoint, Track, Tracks
from rov.offline.diff import Difference, detections_differ, numbers_differ

BOX: Box = (100.0, 100.0, 200.0, 150.0)


def seen(*items: Detection) -> Detections:
    return Detections(t=0, frame_id=0, frame_t=0, width=640, height=480, items=items)


def test_rounding_is_no_difference_anything_more_is() -> None:
    then = Setpoint(t=5, frame_id=1, frame_t=4, source="steer", surge=0.25)
    assert numbers_differ(Setpoint(t=5, frame_id=1, frame_t=4, source="steer", surge=0.25 + 1e-9), then)[1] == ""
    worst, where = numbers_differ(Setpoint(t=5, frame_id=1, frame_t=4, source="steer", surge=0.35), then)
    assert abs(worst - 0.1) < 1e-12 and where == "surge is 0.35, was 0.25"
    assert "source" in numbers_differ(Setpoint(t=5, frame_id=1, frame_t=4, source="policy", surge=0.25), then)[1]


def test_nested_and_of_different_length() -> None:
    one = Tracks(t=0, frame_id=0, frame_t=0, width=9, height=9, items=(Track(1, "rock", 0.5, BOX),))
    moved = Tracks(
        t=0, frame_id=0, frame_t=0, width=9, height=9, items=(Track(1, "rock", 0.5, (100.0, 100.0, 203.0, 150.0)),)
    )
    assert numbers_differ(moved, one) == (3.0, "items[0].box[2] is 203.0, was 200.0")
    assert "items" in numbers_differ(Tracks(t=0, frame_id=0, frame_t=0, width=9, height=9), one)[1]


def test_nan_is_a_difference() -> None:
    nan = Setpoint(t=0, frame_id=0, frame_t=0, source="steer", yaw=float("nan"))
    assert numbers_differ(nan, Setpoint(t=0, frame_id=0, frame_t=0, source="steer"))[1]


def test_jpeg_may_move_a_box_and_a_score_a_little() -> None:
    then = seen(Detection("rock", 0.8, BOX))
    near = seen(Detection("rock", 0.75, (104.0, 103.0, 195.0, 150.0)))
    assert detections_differ(near, then, 0.4)[1] == ""
    assert "no longer" in detections_differ(seen(Detection("rock", 0.8, (100.0, 100.0, 240.0, 150.0))), then, 0.4)[1]
    assert "no longer" in detections_differ(seen(Detection("bag", 0.8, BOX)), then, 0.4)[1]
    assert "moved by 0.15" in detections_differ(seen(Detection("rock", 0.65, BOX)), then, 0.4)[1]


def test_what_is_near_the_threshold_may_come_and_go() -> None:
    faint = seen(Detection("rock", 0.45, BOX))
    assert detections_differ(seen(), faint, 0.4)[1] == "" and detections_differ(faint, seen(), 0.4)[1] == ""
    clear = seen(Detection("rock", 0.55, BOX))
    assert detections_differ(seen(), clear, 0.4)[1] and detections_differ(clear, seen(), 0.4)[1]


def test_what_was_not_compared_is_neither_same_nor_different() -> None:
    assert Difference("tracks").verdict == "not compared"
    assert Difference("tracks", compared=3).verdict == "same"
    assert Difference("tracks", compared=3, differing=1).verdict == "differs"
    assert Difference("detections", compared=100, differing=2).verdict == "same"  # 2 % may
    assert Difference("detections", compared=100, differing=3).verdict == "differs"
    assert Difference("detections", differing=1).verdict == "differs"  # seen then, and no picture to look at now
