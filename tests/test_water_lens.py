"""The simulated camera through a calibrated lens: OpenCV says where things must be, the daemon makes it straight."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from rov.errors import UserError
from rov.vision.lens import Calibration, save
from rov.vision.lens import Lens as Straight
from sim.dataset import dataset
from sim.scene.labels import Rules, labels
from sim.scene.lens import Lens
from sim.scene.render import Renderer
from sim.scene.scene import Ground, Scene, Sensor
from sim.scene.shapes import Paint, Thing, ball, rod
from sim.scene.water import Water
from sim.world import WorldError, load, parse, realise

MATRIX = np.array([[290.0, 0.0, 325.0], [0.0, 291.0, 236.0], [0.0, 0.0, 1.0]])
WIDE = Calibration("wide", 640, 480, MATRIX, "plumb_bob", np.array([-0.16, 0.03, 0.001, -0.002, -0.002]))
FISH = Calibration("fish", 640, 480, MATRIX, "equidistant", np.array([0.071, -0.0178, 0.0181, -0.0063]))
HERE = torch.tensor([[0.0, 0.0, 10.0]])
AHEAD = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
WHITE = Paint((0.9, 0.9, 0.9), rough=0.0)
BOTH = pytest.mark.parametrize("calibration", [WIDE, FISH], ids=lambda c: c.name)


def shoot(calibration: Calibration, *things: Thing):  # type: ignore[no-untyped-def]
    three = np.ones(3)
    water = Water(0.01 * three, 0 * three, 0 * three, 0.1 * three, forward=0.0, back=0.0)
    scene = Scene(things, Ground(bottom=1000.0), water=water, sensor=Sensor(white=0.0, noise=0.0, soft=0.0))
    renderer = Renderer([scene], Lens.of(calibration, 640, 480))
    return renderer, renderer.render(HERE, AHEAD, 0.0, alone=True)


def opencv(calibration: Calibration, points: np.ndarray) -> np.ndarray:
    """Pixels (N, 2) of points (N, 3) in camera axes, by OpenCV alone."""
    project = cv2.fisheye.projectPoints if calibration.model == "equidistant" else cv2.projectPoints
    none, c = np.zeros(3), calibration
    return np.asarray(project(points.reshape(-1, 1, 3), none, none, c.matrix, c.distortion)[0]).reshape(-1, 2)


@BOTH
def test_points_are_where_opencv_projects_them(calibration: Calibration) -> None:
    # Spheres of 3 cm, 2 m ahead: x to starboard, y down, up to 42 degrees off the axis.
    grid = [(x, y, 2.0) for x in (-1.8, -0.9, 0.0, 0.9, 1.8) for y in (-1.2, 0.0, 1.2)]
    radius, random = 0.03, np.random.default_rng(1)
    things = [Thing("buoy_red", (ball((radius,) * 3, paint=WHITE),), (z, x, 10 + y), size=0.0) for x, y, z in grid]
    renderer, shots = shoot(calibration, *things)
    found = {label.thing: label for label in labels(renderer, shots, Rules(long=3, short=3))[0]}
    for i, point in enumerate(np.array(grid)):
        expected = opencv(calibration, point)[0]
        rows, columns = np.nonzero(shots.segmentation[0].numpy() == i + 1)
        assert np.hypot(columns.mean() - expected[0], rows.mean() - expected[1]) < 0.5
        # The nearest of the sphere is on the ray through its middle: depth along the axis z · (1 − radius / distance).
        column, row = np.round(expected).astype(int)
        depth = float(shots.depth[0, row, column])
        assert depth == pytest.approx(point[2] * (1 - radius / np.linalg.norm(point)), abs=0.002)
        # Its box holds what OpenCV projects of its surface, to the pixel.
        around = random.normal(size=(4000, 3))
        edge = opencv(calibration, point + radius * around / np.linalg.norm(around, axis=1, keepdims=True))
        x1, y1, x2, y2 = found[i].box
        assert np.abs(np.subtract((x1, y1, x2 - 1, y2 - 1), (*edge.min(0), *edge.max(0)))).max() < 1.0


@BOTH
def test_the_daemon_makes_straight_what_the_lens_bent(calibration: Calibration) -> None:
    # A rod across the picture, 1 m above the axis and 2 m ahead.
    _, shots = shoot(calibration, Thing("", (rod((2, -2, -1), (2, 2, -1), 0.02, WHITE),), (0.0, 0.0, 10.0)))
    mask = ((shots.segmentation[0] == 1).numpy() * 255).astype(np.uint8)
    off = []
    for picture in (mask, Straight(calibration).undistort(mask)):
        weight = picture[:, 60:580].astype(float)
        middle = (weight * np.arange(480)[:, None]).sum(0) / weight.sum(0)
        columns = np.arange(60, 580)
        line = np.polyval(np.polyfit(columns, middle, 1), columns)
        off.append(np.sqrt(np.mean((middle - line) ** 2)))
    assert off[0] > 5.0, "the lens bends it"
    assert off[1] < 0.3


@BOTH
def test_every_ray_meets_its_pixel_again(calibration: Calibration) -> None:
    lens = Lens.of(calibration, 320, 240)
    assert (lens.cx + 0.5, lens.cy + 0.5) == pytest.approx((325.5 / 2, 236.5 / 2))
    row, column = np.mgrid[:240, :320]
    assert np.abs(lens.project(np.moveaxis(lens.rays(), 0, -1)) - np.stack((column, row), -1)).max() < 0.01


def test_a_world_names_its_calibration(tmp_path: Path) -> None:
    save(FISH, tmp_path / "fish.yaml", [])
    path = tmp_path / "mine.toml"
    world = parse(b'[camera]\ncalibration = "fish.yaml"', path)
    place = realise(world, 1)
    assert place.lens(640, 480) == Lens.of(place.calibration or WIDE, 640, 480)
    assert place.lens(640, 480).fisheye and place.hfov_deg == pytest.approx(FISH.hfov_deg)
    given = realise(load("pool", tmp_path / "fish.yaml"), 3)
    assert given.lens(320, 240) == place.lens(320, 240) and given.scene == realise(load("pool"), 3).scene
    with pytest.raises(UserError, match="another shape"):
        given.lens(320, 200)
    with pytest.raises(UserError, match="nowhere"):
        realise(parse(b'[camera]\ncalibration = "nowhere.yaml"', path), 1)
    with pytest.raises(WorldError, match="calibration"):
        parse(b"[camera]\ncalibration = 3", path)


def test_a_data_set_through_a_lens_is_told_of_another_shape_at_once(tmp_path: Path) -> None:
    save(WIDE, tmp_path / "wide.yaml", [])
    with pytest.raises(UserError, match="another shape"):
        dataset(["pool"], 1, 0, tmp_path / "out", (640, 400), 1, lambda: None, tmp_path / "wide.yaml")
    assert not (tmp_path / "out").exists()
