"""Camera files of other programs: the same lens in all their formats, and errors that name what was found."""

import math
from pathlib import Path

import numpy as np
import pytest

from rov.optics.camera_info import CalibrationError
from rov.optics.lens import Calibration, load, save

K = [[500.5, 0, 320.25], [0, 501.5, 240.75], [0, 0, 1]]
D = [-0.25, 0.07, 1e-4, -2e-4, 0.01]
SIZE = "image_width: 640\nimage_height: 480\n"
MATRIX = "camera_matrix:\n  rows: 3\n  cols: 3\n  data: [500.5, 0, 320.25, 0, 501.5, 240.75, 0, 0, 1]\n"
FIVE = "distortion_coefficients:\n  rows: 1\n  cols: 5\n  data: [-0.25, 7e-2, 1.e-04, -2E-4, .01]\n"
ROS = f"{SIZE}camera_name: front\n{MATRIX}distortion_model: plumb_bob\n{FIVE}"
FLAT = "500.5, 0, 320.25, 0, 501.5, 240.75, 0, 0, 1"
OPENCV = f"""%YAML:1.0
---
calibration_time: "Mon 1 Jun 2026"
image_width: 640
image_height: 480
flags: 0
camera_matrix: !!opencv-matrix
   rows: 3
   cols: 3
   dt: d
   data: [ 5.005e+02, 0., 3.2025e+02, 0., 5.015e+02,
       2.4075e+02, 0., 0., 1. ]
distortion_coefficients: !!opencv-matrix
   rows: 5
   cols: 1
   dt: d
   data: [ -2.5e-01, 7.e-02, 1.e-04, -2.e-04, 1.e-02 ]
image_points: !!opencv-matrix
   rows: 1
   cols: 300
   data: [ {", ".join(["1."] * 300)} ]
"""
KALIBR = """cam0:
  camera_model: pinhole
  intrinsics: [500.5, 501.5, 320.25, 240.75]
  distortion_model: radtan
  distortion_coeffs: [-0.25, 0.07, 0.0001, -0.0002]
  resolution: [640, 480]
  rostopic: /cam0/image_raw
"""


def written(text: str | bytes, folder: Path) -> Calibration:
    path = folder / "front.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load(path)


@pytest.mark.parametrize(
    "text",
    [
        ROS,
        "\ufeff" + ROS,
        ROS.replace("\n", "\r\n"),
        ROS.replace("-0.25, 7e-2, 1.e-04, -2E-4, .01", "-0.25 7e-2 1.e-04 -2E-4 .01"),
        ROS.replace(FLAT, "[500.5, 0, 320.25], [0, 501.5, 240.75], [0, 0, 1]"),
        ROS.replace("[500.5", "[ # row by row\n 500.5"),
        "---\n" + "\n".join(reversed(ROS.replace("\n  ", "#").splitlines())).replace("#", "\n  ") + "\n...\n",
        f"{{camera_matrix: {{data: [{FLAT}], rows: 3, cols: 3}}, image_width: 640, image_height: 480,\n"
        " distortion_coefficients: {data: [-0.25, 0.07, 1.e-4, -2e-4, 0.01], rows: 1}, distortion_model: 'plumb_bob'}",
        SIZE + "distortion_model: plumb_bob\ndistortion_coefficients:\n  data:\n  - -0.25\n  - 0.07\n  - 1e-4\n"
        "  - -2e-4\n  - 0.01\ncamera_matrix:\n  data: &k [[500.5, 0, 320.25], [0, 501.5, 240.75], [0, 0, 1]]\n"
        "  rows: 3\nprojection_matrix: {data: *k}\n",
        "header: {frame_id: camera}\nheight: 480\nwidth: 640\ndistortion_model: plumb_bob\n"
        f"D: [-0.25, 0.07, 1e-4, -2e-4, 0.01]\nK: [{FLAT}]\nR: [1, 0, 0, 0, 1, 0, 0, 0, 1]\nbinning_x: 0\n",
        "/**:\n  ros__parameters:\n" + "".join(f"    {line}\n" for line in ROS.splitlines()),
        OPENCV,
        OPENCV.replace("camera_matrix", "Camera_Matrix").replace("image_width", "image_Width"),
        ROS.replace("plumb_bob", "rational_polynomial").replace(".01]", ".01, 0., 0., 0.]"),
        ROS.replace("[-0.25", "[-0.25").replace(".01]", "0.01, 0, 0, 0, 0, 0, 0, 0]"),
        ROS.replace("image_width: 640", "image_width: 640.0"),
    ],
)  # fmt: skip
def test_one_lens_in_all_the_ways_it_is_written(text: str, tmp_path: Path) -> None:
    found = written(text, tmp_path)
    assert (found.width, found.height, found.model) == (640, 480, "plumb_bob")
    assert np.array_equal(found.matrix, K) and np.allclose(found.distortion, D, rtol=1e-12)
    assert found.name == "front", "its own name, or the file's"


def test_four_coefficients_are_those_without_k3(tmp_path: Path) -> None:
    assert written(ROS.replace(", .01]", "]"), tmp_path).distortion.tolist() == [*D[:4], 0]
    found = written(KALIBR, tmp_path)
    assert np.array_equal(found.matrix, K) and found.distortion.tolist() == [*D[:4], 0]


@pytest.mark.parametrize("name", ["equidistant", "fisheye", "Fisheye", "equi"])
def test_the_fisheye_has_many_names(name: str, tmp_path: Path) -> None:
    found = written(ROS.replace(", .01]", "]").replace("plumb_bob", name), tmp_path)
    assert found.model == "equidistant" and found.distortion.tolist() == D[:4]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (ROS.replace("plumb_bob", "rational_polynomial").replace(".01]", ".01, 0.1, 0.2, 0.01]"),
         "distortion_model rational_polynomial with 8 coefficients"),
        (ROS.replace("plumb_bob", "thin_prism"), "distortion_model thin_prism is not known"),
        (ROS.replace("plumb_bob", "fisheye"), "distortion_model fisheye needs 4 coefficients, the file has 5"),
        (ROS.replace("-0.25, 7e-2, 1.e-04, -2E-4, .01", "-0.25, 7e-2"), "needs 5 coefficients, the file has 2"),
        (OPENCV.replace(", 1.e-02", ""), "has 4 distortion coefficients and no distortion_model"),
        (KALIBR.replace("pinhole", "omni"), "camera_model omni"),
        (KALIBR + KALIBR.replace("cam0", "cam1"), r"holds 2 cameras \(cam0, cam1\)"),
        (SIZE + "a: 1\n", "has image_width, image_height, a"),
        ("", "has no keys"), ("[1, 2]", "has no keys"), ("rubbish", "has no keys"),
        (ROS.replace(FLAT, "1, 2"), "camera_matrix needs 9 numbers, and has 2"),
        (ROS.replace(FLAT, FLAT.replace("500.5", "wide")), "camera_matrix needs 9 numbers, and has something else"),
        (ROS.replace(FLAT, FLAT.replace("500.5", "-500.5")), "the matrix is not a camera's"),
        (ROS.replace(FLAT, FLAT.replace("500.5", ".inf")), "the matrix is not a camera's"),
        (ROS.replace(FLAT, FLAT.replace("500.5", "1e300")), "does not fit pictures of 640×480"),
        (ROS.replace("7e-2", ".nan"), "all of them finite"),
        (ROS.replace("image_width: 640", ""), "needs image_width and image_height"),
        (ROS.replace("640", "0"), "is of pictures of 0×480"), (ROS.replace("640", "nan"), "is of pictures of nan×480"),
        (ROS.replace("640", "100000000").replace("480", "100000000"), "64 million pixels are the most"),
        (ROS.replace("  rows", "\trows"), "front.yaml:.: not YAML"), (ROS + "a: [1, 2", "front.yaml:1.: not YAML"),
        ("[" * 50_000, "not YAML"), ("\0", "not YAML"), (b"\xff\xfe\x00", "as a text file"),
        (ROS + " " * 400_000, "kB"),
        (ROS.replace("[" + FLAT, "[" + ", ".join(["[[[[[[" + FLAT] * 1)), "not YAML"),
    ],
)  # fmt: skip
def test_what_cannot_be_taken_says_what_was_found(text: str | bytes, said: str, tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match=said) as caught:
        written(text, tmp_path)
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_list_that_names_others_many_times_is_no_matrix(tmp_path: Path) -> None:
    lists = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
    for one, other in zip("abcdefghijk", "bcdefghijkl", strict=True):
        lists += f"{other}: &{other} [{', '.join([f'*{one}'] * 10)}]\n"
    with pytest.raises(CalibrationError, match="camera_matrix needs 9 numbers"):
        written(lists + SIZE + "camera_matrix: *l\n", tmp_path)


@pytest.mark.parametrize("name", ["front cam #2", "a: b", "esc\x1b[31m", "ünder", "'", "- x", "true"])
def test_any_name_comes_back_from_our_own_file(name: str, tmp_path: Path) -> None:
    lens = Calibration(name, 640, 480, np.array(K, float), "plumb_bob", np.array(D))
    save(lens, tmp_path / "c.yaml", ["from a file\nimage_width: 3"])
    assert load(tmp_path / "c.yaml").name == name and load(tmp_path / "c.yaml").width == 640
    assert "\x1b" not in (tmp_path / "c.yaml").read_text()
    assert math.isclose(load(tmp_path / "c.yaml").hfov_deg, lens.hfov_deg)
