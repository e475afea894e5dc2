"""A calibrated camera: its file, rectified pictures, boxes mapped both ways, angles, and error messages."""

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rov.config.schema import Config, override
from rov.errors import UserError
from rov.messages import Detection, Track, Tracks, VehicleState
from rov.optics.lens import Calibration, CalibrationError, Lens, distorted, load, reach, save, undistorted
from rov.perception import Perception
from rov.vision.rectify import Rectifier

MATRIX = np.array([[560.0, 0.0, 650.0], [0.0, 561.0, 499.0], [0.0, 0.0, 1.0]])
WIDE = Calibration("wide", 1280, 960, MATRIX, "plumb_bob", np.array([-0.2327, 0.0616, 0.0, 0.0, -0.0075]))
FISH = Calibration("fish", 1280, 960, MATRIX, "equidistant", np.array([0.071, -0.0178, 0.0181, -0.0063]))
PLAIN = Calibration(
    "plain", 640, 480, np.array([[400.0, 0, 320], [0, 400, 240], [0, 0, 1.0]]), "plumb_bob", np.zeros(5)
)


@pytest.mark.parametrize("calibration", [WIDE, FISH, PLAIN])
def test_the_file_holds_it(calibration: Calibration, tmp_path: Path) -> None:
    save(calibration, tmp_path / "c.yaml", ["made by hand: 1, 2"])
    again = load(tmp_path / "c.yaml")
    assert again[:3] == calibration[:3] and again.model == calibration.model
    assert np.allclose(again.matrix, calibration.matrix) and np.allclose(again.distortion, calibration.distortion)


def test_what_other_tools_write_is_read(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(
        "image_width: 640\nimage_height: 480\ncamera_name: 'narrow'  # a comment\n"
        "camera_matrix:\n  rows: 3\n  cols: 3\n  data:\n  - 4.0e+02\n  - 0\n  - 320\n  - 0\n  - 400.\n  - 240\n  - 0\n"
        "  - 0\n  - 1\ndistortion_model: plumb_bob\ndistortion_coefficients:\n  rows: 1\n  cols: 5\n"
        "  data: [-.25, 1e-1,\n    0, 0, 0.0]\n"
    )
    found = load(path)
    assert found.name == "narrow" and (found.width, found.height) == (640, 480)
    assert found.matrix[0].tolist() == [400, 0, 320] and found.distortion.tolist() == [-0.25, 0.1, 0, 0, 0]


@pytest.mark.parametrize(
    "text",
    ["", "rubbish", "image_width: 3", "a: [1,2", "\x00", "distortion_model: rational_polynomial\n",
     "image_width: 640\nimage_height: 480\ndistortion_model: plumb_bob\ncamera_matrix:\n  data: [1, 2]\n",
     "image_width: 640\nimage_height: 480\ndistortion_model: equidistant\ncamera_matrix:\n"
     "  data: [-400, 0, 320, 0, 400, 240, 0, 0, 1]\ndistortion_coefficients:\n  data: [0, 0, 0, .nan]\n"],
)  # fmt: skip
def test_what_is_no_calibration_is_one_sentence(text: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(CalibrationError) as caught:
        load(tmp_path / "c.yaml")
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("calibration", [WIDE, FISH])
@given(angle=st.floats(0, 2 * math.pi), tilt=st.floats(0, 0.95))
def test_directions_go_there_and_back(calibration: Calibration, angle: float, tilt: float) -> None:
    slope = tilt * min(reach(calibration), 1.7)
    direction = np.array([[slope * math.cos(angle), slope * math.sin(angle)]])
    assert np.allclose(undistorted(calibration, distorted(calibration, direction)), direction, atol=2e-4)


def test_beyond_its_reach_a_pixel_gets_the_last_direction() -> None:
    end = reach(WIDE)  # 1 - 3 * .2327 r² + 5 * .0616 r⁴ - 7 * .0075 r⁶ = 0
    assert abs(1 - 0.6981 * end**2 + 0.308 * end**4 - 0.0525 * end**6) < 1e-9
    corner = undistorted(WIDE, np.array([[0.0, 0.0]]))[0]
    assert 0.8 * end < np.hypot(*corner) <= end * 1.001 and (corner < 0).all()
    assert math.isinf(reach(PLAIN))


@pytest.mark.parametrize("calibration", [WIDE, FISH])
def test_straight_lines_are_straight_again(calibration: Calibration) -> None:
    """Vertical bars, drawn as this lens would distort them, are vertical in the rectified picture."""
    small = calibration._replace(width=320, height=240, matrix=calibration.matrix / [[4], [4], [1]])
    y, x = np.mgrid[0:240, 0:320].astype(np.float64)
    directions = undistorted(small, np.column_stack([x.ravel(), y.ravel()]))
    bars = np.where(np.floor(directions[:, 0] * 5) % 2 == 0, 255, 0).reshape(240, 320).astype(np.uint8)
    straight = Lens(small).rectify(cv2.cvtColor(bars, cv2.COLOR_GRAY2BGR))[:, :, 0].astype(int)
    edge = round(140 * 0.4 + 162.5)  # between the bars at 0.4 to starboard
    for row in (10, 120, 230):
        assert abs(straight[row, edge - 4] - straight[row, edge + 4]) > 200
        assert abs(straight[row, edge - 8] - straight[120, edge - 8]) < 40


def test_a_box_is_handed_on_in_the_original_picture() -> None:
    lens = Lens(WIDE)
    (found,) = lens.unrectify((Detection("fish", 0.9, (900.0, 200.0, 1000.0, 330.0)),))
    middle = distorted(WIDE, np.array([[(950 - 650) / 560, (265 - 499) / 561]]))[0]
    x1, y1, x2, y2 = found.box
    assert x1 < middle[0] < x2 and y1 < middle[1] < y2
    assert x2 < 1000 and y1 > 200, "barrel distortion draws it towards the middle"
    assert found.label == "fish" and found.score == 0.9


def test_the_view_of_a_plain_lens_is_the_pinhole() -> None:
    bearing, elevation, size = Lens(PLAIN).angles((420.0, 140.0, 620.0, 260.0))
    assert math.isclose(bearing, math.atan(200 / 400), abs_tol=1e-6)
    assert math.isclose(elevation, math.atan2(-40, math.hypot(200, 400)), abs_tol=1e-6)
    assert math.isclose(size, 120 / 480, abs_tol=1e-6)


def test_the_daemon_takes_angles_from_the_calibration(config: Config, tmp_path: Path) -> None:
    save(WIDE, tmp_path / "c.yaml", [])
    calibrated = override(config, [f"camera.calibration={tmp_path / 'c.yaml'}", "steering.target=fish"])
    tracks = Tracks(
        t=0,
        frame_id=0,
        frame_t=0,
        width=1280,
        height=960,
        items=(Track(1, "fish", 0.9, (1150.0, 480.0, 1170.0, 520.0)),),
    )
    seen = Perception(calibrated).observe(tracks)
    direction = undistorted(WIDE, np.array([[1160.0, 500.0]]))[0]
    assert math.isclose(seen.bearing, math.atan(direction[0]))
    assert seen.bearing > math.atan(510 / 560) + 0.08, "at the edge a pinhole would be far off"


def test_a_picture_of_another_size_is_refused(config: Config, tmp_path: Path) -> None:
    save(WIDE, tmp_path / "c.yaml", [])
    rectifier = Rectifier(override(config, [f"camera.calibration={tmp_path / 'c.yaml'}"]).camera)
    assert rectifier.rectify(np.zeros((960, 1280, 3), np.uint8)).shape == (960, 1280, 3)
    with pytest.raises(UserError, match=r"of pictures of 1280×960, the camera gives 640×480") as caught:
        rectifier.rectify(np.zeros((480, 640, 3), np.uint8))
    assert "\n" not in str(caught.value)


def test_without_calibrations_nothing_is_touched(config: Config) -> None:
    rectifier, image = Rectifier(config.camera), np.zeros((48, 64, 3), np.uint8)
    found = (Detection("fish", 0.5, (1.0, 2.0, 3.0, 4.0)),)
    rectifier.receive_state(VehicleState(t=0, depth_t=0, depth=3.0))
    assert rectifier.rectify(image) is image and rectifier.unrectify(found) is found
