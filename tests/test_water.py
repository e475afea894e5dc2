"""The simulated camera: geometry by hand, water by its equation, labels by counting, the same picture every time."""

import json
import math
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from rov.optics.lens import Calibration, save
from rov.optics.lens import Lens as Straight
from rov.optics.lens import load as calibration
from sim.dataset import dataset
from sim.scene.labels import labels, stands_out
from sim.scene.lens import Lens
from sim.scene.render import Renderer
from sim.scene.scene import Ground, Light, Scene, Sensor
from sim.scene.shapes import Paint, Thing, ball, plank, rod
from sim.scene.things import LABELS
from sim.scene.water import Water
from sim.world import WorldError, load, names, parse, realise, through

pytestmark = pytest.mark.patient

LENS = Lens(161, 121, 100.0, 100.0, 80.0, 60.0)
PLAIN = Sensor(white=0.0, noise=0.0, soft=0.0, vignette=0.0)
RED = Paint((0.8, 0.02, 0.02), rough=0.0)
DEEP = Ground(bottom=1000.0)
AHEAD = torch.tensor([[1.0, 0.0, 0.0, 0.0]])


def clear(veil: float = 0.0, beam: float = 0.0) -> Water:
    three = np.ones(3)
    return Water(beam * three, 0 * three, 0 * three, veil * three, forward=0.0, back=0.0)


def sphere(at: tuple[float, float, float], radius: float = 0.25, label: str = "buoy_red") -> Thing:
    return Thing(label, (ball((radius, radius, radius), paint=RED),), at, size=0.0)


def shoot(*things: Thing, water: Water | None = None, lens: Lens = LENS, n: int = 1) -> tuple[Renderer, object]:
    renderer = Renderer([Scene(things, DEEP, water=water or clear(0.2, 0.01), sensor=PLAIN)], lens)
    return renderer, renderer.render(torch.tensor([[0.0, 0.0, 10.0]]).repeat(n, 1), AHEAD.repeat(n, 1), 0.0, alone=True)


def test_a_red_sphere_ahead_is_where_the_pinhole_puts_it() -> None:
    # At (4, 0.4, 10.2) with radius 0.25: the nearest point in its centre is hidden only by its own front, 3.75 m ahead
    # on the axis; seen from here the sphere's silhouette is f·r/sqrt(d² − r²) about f·(0.4, 0.2)/4 = (10, 5) px.
    renderer, shots = shoot(sphere((4.0, 0.4, 10.2)))
    (label,) = labels(renderer, shots)[0]
    radius = 100 * 0.25 / math.sqrt(4.0**2 - 0.25**2)
    expected = (80 + 10 - radius, 60 + 5 - radius, 80 + 10 + radius, 60 + 5 + radius)
    assert label.name == "buoy_red"
    assert np.abs(np.subtract(label.box, expected)).max() <= 1.0
    renderer, shots = shoot(sphere((4.0, 0.0, 10.0)))
    assert float(shots.depth[0, 60, 80]) == pytest.approx(3.75, abs=1e-4)
    assert torch.isinf(shots.depth[0, 60, 0])
    assert float(shots.depth[0, 0, 0]) == pytest.approx(10 / 0.6, rel=1e-4)  # the surface, 10 m above
    blue, green, red = shots.image[0, 60, 80].tolist()
    assert red > 2 * green and red > 2 * blue


def test_a_box_and_a_cylinder_have_their_depth() -> None:
    _, shots = shoot(Thing("rock", (plank((0.2, 0.3, 0.4), (0, 0, 0), RED),), (5.0, 0.0, 10.0)))
    assert float(shots.depth[0, 60, 80]) == pytest.approx(4.8, abs=1e-4)
    # 0.3 / 4.8 · 100 = 6.25 px to each side, 0.4 / 4.8 · 100 = 8.33 px up and down
    assert int((shots.segmentation[0, 60] > 0).sum()) == 13
    assert int((shots.segmentation[0, :, 80] > 0).sum()) == 17
    _, shots = shoot(Thing("gate_post", (rod((0, 0, -1), (0, 0, 1), 0.1, RED),), (5.0, 0.0, 10.0)))
    assert float(shots.depth[0, 60, 80]) == pytest.approx(4.9, abs=1e-4)


def test_a_cone_is_as_thick_as_it_says_at_both_ends() -> None:
    _, shots = shoot(Thing("rock", (rod((0, 0, -1), (0, 0, 1), 0.5, RED, 0.2),), (5.0, 0.0, 10.0)))
    wide = (shots.segmentation[0] > 0).sum(1)
    # At 4/5 of its half-length above and below: radius 0.5 − 0.4 · 0.1 = 0.46 and 0.14, seen at 5 m: ±9.2 and ±2.8 px.
    assert int(wide[60 - 16]) == pytest.approx(2 * 9.2, abs=1.6)
    assert int(wide[60 + 16]) == pytest.approx(2 * 2.8, abs=1.6)


@pytest.mark.parametrize("distance", [1.0, 3.0, 6.0])
def test_light_from_a_target_fades_by_the_beam_coefficient(distance: float) -> None:
    renderer, _ = shoot(water=clear(0.0, 0.4))
    path = torch.full((1, 161 * 121), distance)
    white = torch.ones(3, 1, 161 * 121)
    flat = torch.zeros(3, 1, 161 * 121)
    arrived = renderer._water(renderer.air, white, path, flat, torch.tensor([[10.0]]))
    assert arrived.flatten() == pytest.approx(math.exp(-0.4 * distance), rel=1e-4)


def test_endless_water_has_the_colour_of_the_veil() -> None:
    water = replace(clear(0.0, 0.5), veil=np.array((0.1, 0.3, 0.2)))
    renderer, _ = shoot(water=water)
    black, level = torch.zeros(3, 1, 161 * 121), torch.zeros(3, 1, 161 * 121)
    for distance, share in ((1.0, 1 - math.exp(-0.5)), (1000.0, 1.0)):
        got = renderer._water(renderer.air, black, torch.full((1, 161 * 121), distance), level, torch.tensor([[10.0]]))
        for colour, expected in zip(got, (0.1, 0.3, 0.2), strict=True):
            # along no direction (level is zero) the veil's unevenness is one number for all
            uneven = float(got[1].mean()) / (0.3 * share)
            assert float(colour.mean()) == pytest.approx(expected * share * uneven, rel=1e-4)
            assert uneven == pytest.approx(1.0, abs=0.17)


def test_what_stands_before_lowers_the_visible_share() -> None:
    # A plank covers everything right of the axis at 2 m: half of the sphere.
    plate = Thing("", (plank((0.01, 0.5, 2.0), (0, 0.5, 0), RED),), (2.0, 0.0, 10.0))
    renderer, shots = shoot(sphere((4.0, 0.0, 10.0), 0.5), plate)
    (label,) = labels(renderer, shots)[0]
    whole = int((shoot(sphere((4.0, 0.0, 10.0), 0.5))[1].segmentation > 0).sum())
    assert int(shots.alone[0, 0]) == whole
    assert label.pixels == int((shots.segmentation == 1).sum())
    assert label.visible == pytest.approx(0.5, abs=0.03)
    assert label.box[2] <= 81
    covered = Thing("", (plank((0.01, 2.0, 2.0), (0, 1.7, 0), RED),), (2.0, 0.0, 10.0))
    renderer, shots = shoot(sphere((4.0, 0.0, 10.0), 0.5), covered)
    assert labels(renderer, shots)[0] == []


def test_what_reaches_behind_the_camera_is_seen_where_it_is_ahead() -> None:
    # A plank 10 m long from 5 m behind to 5 m ahead, 0.4 m to starboard, 0.2 m thick and high: its inner face, at
    # 0.3 m, comes in from the right edge and ends at 0.3 / 5 · 100 = 6 px from the middle.
    beside = Thing("", (plank((5.0, 0.1, 0.1), (0, 0, 0), RED),), (0.0, 0.4, 10.0))
    _, shots = shoot(beside)
    row = shots.segmentation[0, 60] > 0
    assert row[87:].all() and not row[:86].any()
    # at the right edge, 80 px off, it is 0.1 / 0.3 · 80 = 26.7 px high to each side
    assert int((shots.segmentation[0, :, 160] > 0).sum()) == 53


def test_what_is_lost_in_the_veil_is_not_labelled() -> None:
    for beam, expected in ((0.05, 1), (2.0, 0)):
        renderer, shots = shoot(sphere((3.0, 0.0, 10.0)), water=clear(0.3, beam))
        assert len(labels(renderer, shots)[0]) == expected


MEASURED = {
    "plumb_bob": (-0.25, 0.06, 0.001, -0.002, -0.005),
    "equidistant": (0.03, -0.01, 0.002, -0.0005),
}


@pytest.fixture(params=MEASURED)
def measured(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A file as `rov calibrate camera` writes it, of a lens with its axis off the middle."""
    matrix = np.array([[300.0, 0, 322.5], [0, 302.0, 236.5], [0, 0, 1]])
    path = tmp_path / "camera.yaml"
    save(Calibration("wide", 640, 480, matrix, request.param, np.array(MEASURED[request.param])), path, [])
    return path


def test_through_a_measured_lens_things_are_where_opencv_puts_them(measured: Path) -> None:
    place = realise(through(load("pool"), measured), 1)
    lens, c = place.lens(640, 480), calibration(measured)
    # small balls 4 m ahead, at the corners of a drawn board
    grid = [(y, z) for y in (-3.2, -1.6, 0.0, 1.6, 3.2) for z in (-2.2, 0.0, 2.2)]
    renderer, shots = shoot(*(sphere((4.0, y, 10.0 + z), 0.06) for y, z in grid), lens=lens)
    points = np.array([(y, z, 4.0) for y, z in grid])[:, None]
    project = cv2.fisheye.projectPoints if c.model == "equidistant" else cv2.projectPoints
    expected = project(points, np.zeros(3), np.zeros(3), c.matrix, c.distortion)[0][:, 0]
    seen = 0
    for i, at in enumerate(expected):
        mask = (shots.segmentation[0] == i + 1).numpy()
        if 8 < at[0] < 631 and 8 < at[1] < 471:
            ys, xs = np.nonzero(mask)
            assert math.hypot(xs.mean() - at[0], ys.mean() - at[1]) < 0.5, (grid[i], at)
            assert float(shots.depth[0][mask].min()) == pytest.approx(4.0, abs=0.07)
            seen += 1
    assert seen >= 11
    found = labels(renderer, shots)[0]
    for label in found:  # the box of what OpenCV makes of the ball's outline
        at = np.array(renderer.scenes[0].things[label.thing].at) - (0, 0, 10)
        turn = np.linspace(0, 2 * math.pi, 90)
        far = np.linalg.norm(at)
        one = np.cross(at, (0, 0, 1.0)) / np.linalg.norm(np.cross(at, (0, 0, 1.0)))
        two = np.cross(at / far, one)
        # the tangent circle: nearer by r²/d, smaller by cos(asin(r/d))
        middle, radius = at * (1 - (0.06 / far) ** 2), 0.06 * math.sqrt(1 - (0.06 / far) ** 2)
        rim = middle + radius * (np.cos(turn)[:, None] * one + np.sin(turn)[:, None] * two)
        around = project(rim[:, None, [1, 2, 0]], np.zeros(3), np.zeros(3), c.matrix, c.distortion)[0][:, 0]
        box = np.clip((*around.min(0), *around.max(0)), (0, 0, 0, 0), (640, 480, 640, 480))
        # a pixel belongs to the ball where its centre does: less than one pixel inside the outline, and float32
        assert np.abs(np.subtract(label.box, box)).max() <= 1.01


def test_the_daemon_makes_the_picture_of_the_same_lens_straight(measured: Path) -> None:
    # A straight rod across the upper part of the view: 4 m ahead, 1 m up.
    c = calibration(measured)
    bar = Thing("channel", (rod((0, -6, 0), (0, 6, 0), 0.04, RED),), (4.0, 0.0, 9.0), size=0.0)
    _, shots = shoot(bar, lens=Lens.of(c), water=clear(0.0, 0.0))
    bent = shots.image[0].numpy().copy()
    bent[(shots.segmentation[0] > 0).numpy()] = (0, 0, 255)
    bent[(shots.segmentation[0] == 0).numpy()] = 0

    def off_line(image: np.ndarray) -> float:
        red = image[..., 2].astype(float)
        columns = np.nonzero(red.sum(0) > 255)[0]
        middle = (red * np.arange(480)[:, None]).sum(0)[columns] / red.sum(0)[columns]
        return float(np.abs(middle - np.polyval(np.polyfit(columns, middle, 1), columns)).max())

    assert off_line(bent) > 4.0
    assert off_line(Straight(c).rectify(bent)) < 1.0


def test_a_measured_lens_of_another_shape_is_refused(measured: Path) -> None:
    place = realise(through(load("pool"), measured), 1)
    assert place.lens(320, 240).fx == 150.0
    with pytest.raises(WorldError, match="use --size 640x480"):
        place.lens(320, 200)


def buoy(distance: float, light: Light) -> tuple[int, int]:
    """Of a white ball that is 20 px wide at any distance: labels, and contrast in the middle in levels."""
    white = Thing("buoy_red", (ball((0.1 * distance,) * 3, paint=Paint((0.9, 0.9, 0.9), rough=0.0)),),
                  (distance, 0.0, 10.0), size=0.0)  # fmt: skip
    scene = Scene((white,), DEEP, light, clear(0.2, 0.15), replace(PLAIN, noise=1.5))
    renderer = Renderer([scene], LENS)
    shots = renderer.render(torch.tensor([[0.0, 0.0, 10.0]]), AHEAD, 0.0, alone=True)
    image = shots.image[0].numpy().astype(int)
    return len(labels(renderer, shots)[0]), int(np.abs(image[58:63, 78:83].mean((0, 1)) - image[60, 50]).max())


def test_a_box_needs_contrast_in_the_picture() -> None:
    # The water is 0.2 of a white target's light. Facing us, the ball sends about 0.9 · 0.6 · 0.5 = 0.27 or more; of the
    # difference exp(−0.15 · 1) = 0.86 arrives from 1 m, exp(−0.15 · 30) = 0.011 from 30 m: less than a level.
    found, contrast = buoy(1.0, Light(sun=0.5))
    assert found == 1 and contrast > 20
    found, contrast = buoy(30.0, Light(sun=0.5))
    assert found == 0 and contrast < 8
    # At night nothing arrives, and the noise makes no box; a lamp shows it at 1 m and not at 30 m.
    night = Light(day=0.0)
    assert buoy(1.0, night)[0] == buoy(30.0, night)[0] == 0
    lamp = Light(day=0.0, lamps=1.0)
    assert buoy(1.0, lamp)[0] == 1 and buoy(30.0, lamp)[0] == 0


def test_contrast_and_noise_by_hand() -> None:
    random = np.random.default_rng(1)
    image = np.full((60, 60, 3), 100.0) + random.normal(0, 6.0, (60, 60, 3)) + np.arange(60)[:, None] * 0.5
    mask = np.zeros((60, 60), bool)
    mask[20:40, 20:40] = True
    image[mask] += (0.0, 12.0, 0.0)
    contrast, noise = stands_out(image.round(), mask, (20, 20, 40, 40))
    assert contrast == pytest.approx(12.0, abs=1.5) and noise == pytest.approx(6.0, rel=0.15)


def test_distortion_there_and_back() -> None:
    lens = Lens.wide(640, 480, 80.0, MEASURED["plumb_bob"])
    rays = lens.rays()
    row, column = np.mgrid[:480, :640]
    assert np.abs(lens.project(np.moveaxis(rays, 0, -1)) - np.stack((column, row), -1)).max() < 1e-5


def test_the_lens_bends_the_boxes_on_the_screen_too() -> None:
    lens = Lens.wide(160, 120, 90.0, (-0.2, 0.03, 0.0, 0.0, 0.0))
    things = [sphere((2.0, y, 10.0 + z), 0.12) for y in (-1.7, 0.0, 1.7) for z in (-1.2, 0.0, 1.2)]
    renderer, shots = shoot(*things, lens=lens)
    for i, thing in enumerate(things):
        x, y, z = thing.at
        px, py = lens.project(np.array((y, z - 10, x)))
        if 4 < px < 155 and 4 < py < 115:
            assert int(shots.segmentation[0, round(float(py)), round(float(px))]) == i + 1


def test_one_camera_is_a_row_of_many() -> None:
    place = realise(load("reef"), 4)
    renderer = Renderer([place.scene], place.lens(64, 48))
    position = torch.tensor(place.start) + torch.arange(8)[:, None] * torch.tensor([0.2, 0.1, 0.0])
    attitude = AHEAD.repeat(8, 1)
    times = torch.arange(8) * 0.5
    many = renderer.render(position, attitude, times)
    one = renderer.render(position[5:6], attitude[5:6], times[5:6])
    assert torch.equal(one.segmentation[0], many.segmentation[5])
    assert torch.allclose(one.depth[0], many.depth[5])
    assert int((one.image[0].int() - many.image[5].int()).abs().max()) <= 1


def test_each_row_may_have_its_own_water() -> None:
    near = Scene((sphere((4.0, 0.0, 10.0)),), DEEP, water=clear(0.3, 0.02), sensor=PLAIN)
    murky = replace(near, water=clear(0.3, 1.5))
    both = Renderer([near, murky], LENS).render(torch.tensor([[0.0, 0.0, 10.0]] * 2), AHEAD.repeat(2, 1), 0.0)
    for i, scene in enumerate((near, murky)):
        alone = Renderer([scene], LENS).render(torch.tensor([[0.0, 0.0, 10.0]]), AHEAD, 0.0)
        assert int((alone.image[0].int() - both.image[i].int()).abs().max()) <= 1
    assert float(both.image[0].float().std()) > 2 * float(both.image[1].float().std())


@pytest.mark.parametrize("name", names())
def test_a_seed_is_one_world(name: str) -> None:
    first, again, other = (realise(load(name), seed) for seed in (3, 3, 4))
    assert first.start == again.start and first.start != other.start
    shots = []
    for place in (first, again):
        renderer = Renderer([place.scene], place.lens(64, 48))
        shots.append(renderer.render(torch.tensor([place.start]), AHEAD, 2.0))
    assert all(torch.equal(a, b) for a, b in zip(*shots, strict=True))
    assert {thing.label for thing in first.scene.things} - {""} <= set(LABELS)
    assert float(shots[0].image.float().std()) > 1


def test_night_is_dark_without_lamps() -> None:
    scene = Scene((sphere((2.0, 0.0, 10.0)),), DEEP, Light(day=0.0, lamps=0.0), clear(0.3, 0.1), PLAIN)
    lit = replace(scene, light=Light(day=0.0, lamps=1.0))
    at = torch.tensor([[0.0, 0.0, 10.0]])
    assert int(Renderer([scene], LENS).render(at, AHEAD, 0.0).image.max()) < 20
    assert int(Renderer([lit], LENS).render(at, AHEAD, 0.0).image[0, 60, 80].max()) > 60


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('about = "x"\nwter = 1', "wter"),
        ('about = "x"\n[water]\nturbidity = "thick"', "water.turbidity"),
        ('about = "x"\n[water]\ntype = "sea"', "type 'sea' is not known"),
        ('about = "x"\n[water]\nveil = {uniform = [2, 1]}', "uniform wants from <= to"),
        ('about = "x"\n[water]\nveil = {uniform = [0, 1], normal = [0, 1]}', "exactly one"),
        ('about = "x"\n[[things]]\nkind = "whale"', "kind 'whale' is not known"),
        ("about = ", "my.toml"),
    ],
)
def test_a_wrong_world_says_where(text: str, said: str) -> None:
    with pytest.raises(WorldError) as error:
        parse(text.encode(), Path("my.toml"))
    assert said in str(error.value) and "my.toml" in str(error.value)


def test_a_data_set_goes_on_where_it_was(tmp_path: Path) -> None:
    steps: list[int] = []
    coco = dataset(["pool"], 2, 5, tmp_path, (160, 120), 1, lambda: steps.append(1))
    assert len(steps) == len(coco["images"]) == 2
    first = (tmp_path / "images/pool_00000.jpg").read_bytes()
    (tmp_path / "labels/pool_00000.json").unlink()
    (tmp_path / "images/pool_00000.jpg").unlink()
    kept = (tmp_path / "images/pool_00001.jpg").stat().st_mtime_ns
    assert dataset(["pool"], 2, 5, tmp_path, (160, 120), 0, lambda: None) == coco, "with any number of workers"
    assert (tmp_path / "images/pool_00000.jpg").read_bytes() == first
    assert (tmp_path / "images/pool_00001.jpg").stat().st_mtime_ns == kept
    assert json.loads((tmp_path / "annotations.json").read_text()) == coco
    for each in coco["annotations"]:
        x, y, w, h = each["bbox"]
        assert 0 <= x and 0 <= y and x + w <= 160 and y + h <= 120 and each["area"] <= w * h
