"""Calibration: cameras against drawn and real boards, the port against traced rays, curves against published points,
thrusters turned by a held key alone, colours against a known tint."""

import math
import os
import pty as terminals
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.optimize import minimize

from rov.calibrate import camera, colour
from rov.calibrate.port import Port, behind_flat_port
from rov.calibrate.thrusters import DEADMAN_NS, TURN_MAX, TurnTest, advice, fit, read_points, write
from rov.calibrate.turning import turn_all
from rov.config.schema import Config, override
from rov.errors import UserError
from rov.media.files import images_in
from rov.media.pictures import read_image
from rov.motion.thrusters import load as load_curve
from rov.optics.colour import BalanceRow, WhiteBalance
from rov.optics.colour import load as load_colour
from rov.optics.lens import Calibration, distorted
from rov.types import Image
from sim.board import SimulatedBoard
from sim.wire import NoisyWire, Pty

BOARD = camera.parse_board("chessboard:8x6", 25)
TRUE = Calibration(
    "true",
    640,
    480,
    np.array([[430.0, 0, 330], [0, 432, 236], [0, 0, 1.0]]),
    "plumb_bob",
    np.array([-0.2, 0.05, 0, 0, 0]),
)


def pose(number: int) -> tuple[np.ndarray, np.ndarray]:
    """A random rotation and position of the board, anywhere in the picture."""
    rng = np.random.default_rng(number)
    turn = rng.uniform(-0.5, 0.5, 3)
    place = np.array([rng.uniform(-0.22, 0.05), rng.uniform(-0.16, 0.02), rng.uniform(0.25, 0.5)])
    return turn, place


def seen(number: int, noise: float = 0.0) -> camera.View:
    turn, place = pose(number)
    spots, _ = cv2.projectPoints(BOARD.points(), turn, place, TRUE.matrix, TRUE.distortion)
    spots = np.asarray(spots, np.float64).reshape(-1, 2) + np.random.default_rng(number).normal(0, noise, (48, 2))
    return camera.View(f"{number}", (640, 480), BOARD.points(), spots)


# ---- cameras -----------------------------------------------------------------------------------------------------


def test_the_gopro_as_its_reference(rov_data: Path) -> None:
    files = images_in(rov_data / "calibration" / "gopro_wide")
    looks = [(file.name, camera.find(BOARD, file.name, read_image(file))) for file in files]
    found = camera.fit(*camera.select_views(looks, moving=False), "pinhole", "gopro")
    assert found.rms <= 0.55 and len(found.views) >= 34
    assert abs(found.calibration.matrix[0, 0] / 560 - 1) < 0.01
    assert abs(found.calibration.distortion[0] + 0.23) < 0.01
    assert {name for name, _ in found.rejected} >= {"test_image.jpg"}
    assert 0.85 < camera.valid_share(found.calibration) < 0.95, "the pinhole's polynomial turns back in the corners"


def test_a_known_camera_is_found_again() -> None:
    found = camera.fit([seen(i, 0.2) for i in range(20)], [], "pinhole", "x")
    assert np.allclose(found.calibration.matrix, TRUE.matrix, atol=3) and found.rms < 0.4
    assert abs(found.calibration.distortion[0] + 0.2) < 0.02


def test_auto_takes_what_fits() -> None:
    assert camera.fit([seen(i, 0.2) for i in range(15)], [], "auto", "x").calibration.model == "plumb_bob"
    fish = Calibration("f", 640, 480, TRUE.matrix * [[0.5], [0.5], [1]] + [[0, 0, 155], [0, 0, 122], [0, 0, 0]],
                       "equidistant", np.array([0.1, -0.05, 0.02, 0.01]))  # fmt: skip
    views = []
    for i in range(25):
        turn, place = pose(i)
        place = place * [1.6, 1.6, 0.6]
        spots, _ = cv2.fisheye.projectPoints(
            BOARD.points().reshape(1, -1, 3), turn, place, fish.matrix, fish.distortion
        )
        views.append(camera.View(f"{i}", (640, 480), BOARD.points(), np.asarray(spots, float).reshape(-1, 2)))
    found = camera.fit(views, [], "auto", "x")
    assert found.calibration.model == "equidistant" and abs(found.calibration.matrix[0, 0] - 215) < 2


def test_a_view_that_stands_out_is_dropped_and_named() -> None:
    views = [seen(i, 0.1) for i in range(12)]
    crooked = views[5].corners.copy()
    crooked[7] += (9, -6)  # one corner taken for another
    views[5] = views[5]._replace(corners=crooked)
    found = camera.fit(views, [], "pinhole", "x")
    assert [name for name, _ in found.rejected] == ["5"] and "2.5 times the median" in found.rejected[0][1]
    assert found.rms < 0.2 and len(found.views) == 11


def test_too_few_views_and_no_boards_are_one_sentence() -> None:
    blank = np.full((480, 640, 3), 90, np.uint8)
    look = camera.find(BOARD, "blank", blank)
    assert isinstance(look, str)
    with pytest.raises(UserError, match="0 usable views of the board are too few.*not found"):
        camera.fit(*camera.select_views([("blank", look)] * 3, moving=False), "pinhole", "x")


def test_sizes_and_repeats_are_rejected_with_the_reason() -> None:
    views = [seen(i) for i in range(9)]
    other = views[0]._replace(name="tall", size=(480, 640))
    kept, rejected = camera.select_views(
        [(v.name, v) for v in [*views, other, views[3]._replace(name="again")]], moving=True
    )
    assert len(kept) == 9 and dict(rejected)["again"] == "the board stands where it stood before"
    kept, rejected = camera.select_views([(v.name, v) for v in [*views, other]], moving=False)
    assert dict(rejected)["tall"] == "is of 480×640, most are of 640×480"


def test_a_charuco_board_half_in_the_picture() -> None:
    board = camera.parse_board("charuco:8x6:5X5_100:0.7", 30)
    picture = board.charuco.generateImage((960, 720), marginSize=40)
    cut = cv2.cvtColor(picture[:, :600], cv2.COLOR_GRAY2BGR)
    look = camera.find(board, "half", np.asarray(cut, np.uint8))
    assert isinstance(look, camera.View) and 10 < len(look.corners) < 35
    step = look.corners[1] - look.corners[0]
    assert abs(np.linalg.norm(step) - 106) < 1, "(720 - 80) / 6 px a square"
    assert isinstance(camera.find(board, "x", np.zeros((90, 90, 3), np.uint8)), str)


@pytest.mark.parametrize("text", ["chess:8x6", "chessboard:8", "chessboard:2x9", "charuco:8x6:nine", "charuco:60x6"])
def test_boards_that_are_none(text: str) -> None:
    with pytest.raises(UserError, match="--board"):
        camera.parse_board(text, 25)


def test_coverage_counts_corners_where_they_are() -> None:
    counts = camera.coverage([seen(0), seen(1)], (640, 480))
    assert counts.shape == (6, 8) and counts.sum() <= 96
    x, y = seen(0).corners[0]
    assert counts[int(y // 80), int(x // 80)] > 0
    assert set(camera.coverage_map(counts)) <= set(".+*# \n") and camera.coverage_map(counts).count("\n") == 5


def test_the_guide_asks_for_what_is_missing() -> None:
    guide = camera.Guide()
    assert guide.advice().startswith("0 views of 24: hold the board in the upper left")
    assert guide.add(seen(0)) and not guide.add(seen(0)), "the same view twice adds nothing"
    said: list[str] = []
    pictures: list[Image | None] = [None, np.zeros((48, 64, 3), np.uint8)]
    assert list(camera.guide_views(BOARD, pictures, said.append)) == [] and len(said) == 1
    for number in range(1, 400):
        guide.add(seen(number))
        if guide.done:
            break
    assert guide.done and len(guide.views) >= 24 and not guide.wanted()


# ---- the port ----------------------------------------------------------------------------------------------------


def slowest_path(point: np.ndarray, port: Port) -> float:
    """tan θa of the ray from the camera to a point (r, z) in water, by Fermat's principle: the path of least optical
    length."""
    r, z = point

    def length(at: np.ndarray) -> float:
        inner, outer = at
        return float(
            math.hypot(inner, port.gap)
            + port.n_glass * math.hypot(outer - inner, port.glass)
            + port.n_water * math.hypot(r - outer, z - port.gap - port.glass)
        )

    start = np.array([port.gap, port.gap + port.glass]) * r / z
    found = minimize(length, start, method="Nelder-Mead", options={"xatol": 1e-12, "fatol": 1e-16, "maxiter": 4000})
    return float(found.x[0] / port.gap)


@pytest.mark.parametrize("model", ["plumb_bob", "equidistant"])
def test_the_port_against_rays_of_least_time(model: str) -> None:
    port = Port(gap=0.02, glass=0.008, distance=1.5)
    distortion = np.array([-0.12, 0.02, 0.001, -0.001, 0]) if model == "plumb_bob" else np.array([0.05, -0.01, 0, 0])
    air = Calibration("air", 1920, 1080, np.array([[1144.0, 0, 970], [0, 1146, 530], [0, 0, 1]]), model, distortion)  # type: ignore[arg-type]
    water = behind_flat_port(air, port)
    assert abs(water.calibration.matrix[0, 0] / 1144 - 1.333) < 0.01 and water.rms < 0.2
    for x, y in ((0.0, 0.0), (0.2, -0.1), (-0.35, 0.2), (0.45, 0.22), (0.0, -0.25)):
        z = port.gap + port.glass + port.distance
        point = np.array([x, y]) * z
        r = math.hypot(*point)
        slope = slowest_path(np.array([r, z]), port) if r else 0.0
        pixel = distorted(air, np.array([[x, y]]) / math.hypot(x, y) * slope if r else np.zeros((1, 2)))[0]
        assert np.hypot(*(distorted(water.calibration, np.array([[x, y]]))[0] - pixel)) < 0.5


def test_a_port_of_nothing_changes_nothing() -> None:
    water = behind_flat_port(TRUE, Port(n_glass=1.0, n_water=1.0))
    assert np.allclose(water.calibration.matrix, TRUE.matrix, rtol=1e-4) and water.worst < 0.01


# ---- thrusters ---------------------------------------------------------------------------------------------------


def no_current(command: np.ndarray, voltage: float) -> np.ndarray:
    return np.zeros_like(command)


def test_published_points_are_fitted(tmp_path: Path) -> None:
    """Fitted to every tenth point of the T200 at 16 V, with noise, the curve agrees with all other points."""
    t200 = load_curve(Path("calibration/t200.toml").resolve(), 4)
    rng = np.random.default_rng(3)
    commands = np.linspace(-1, 1, 41)
    lines = [f"{1500 + 400 * u:.0f},{float(t200.force(u, 16.0)) + rng.normal(0, 0.2):.3f},16.1" for u in commands]
    (tmp_path / "points.csv").write_text("pwm_us,force_n,voltage_v\n" + "\n".join(lines))
    (found,) = fit(read_points(tmp_path / "points.csv"), 12.0, no_current)
    assert found.table.voltage_v == 16 and found.points == 41 and found.rms_n < 0.6
    write(tmp_path / "curve.toml", "test", [found])
    curve = load_curve(tmp_path / "curve.toml", 4)
    fine = np.linspace(-1, 1, 161)
    assert np.abs(curve.force(fine, 16.0) - t200.force(fine, 16.0)).max() < 1.5
    assert 1460 < found.dead_us[0] < 1490 and 1510 < found.dead_us[1] < 1540, "published: 1472 to 1528"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "needs a first line"),
        ("a,b\n1,2\n", "needs a first line"),
        ("pwm_us,force_n\n1600,x\n", ":2: is not a line of numbers"),
        ("pwm_us,force_n\n1600,nan\n", ":2: is not finite"),
        ("pwm_us,force_n\n2000,1\n", "outside 1100 to 1900"),
    ],
)
def test_points_that_are_none(text: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(UserError, match=why):
        read_points(tmp_path / "p.csv")


def test_reversed_and_scarce_points_are_refused(tmp_path: Path) -> None:
    commands = np.linspace(1100, 1900, 21)
    (tmp_path / "p.csv").write_text("pwm_us,force_n\n" + "\n".join(f"{p},{-(p - 1500) / 20}" for p in commands))
    with pytest.raises(UserError, match="wrong sign"):
        fit(read_points(tmp_path / "p.csv"), 16, no_current)
    with pytest.raises(UserError, match="too few"):
        fit(read_points(tmp_path / "p.csv")[:9], 16, no_current)


def test_only_a_held_key_turns_a_thruster_and_only_one() -> None:
    turning, dt = TurnTest(8), 0.02
    assert turning.step(0, dt) == (0.0,) * 8
    t = 0
    for _ in range(500):  # held for 10 s: it stays gentle
        t += 20_000_000
        turning.press("f", t)
        values = turning.step(t, dt)
        assert all(value == 0 for value in values[1:]) and 0 < values[0] <= TURN_MAX
    assert values[0] == TURN_MAX
    assert turning.step(t + DEADMAN_NS - 1, dt)[0] > 0
    assert turning.step(t + DEADMAN_NS, dt) == (0.0,) * 8, "let go"
    turning.press("b", t + DEADMAN_NS)
    assert -0.002 < turning.step(t + DEADMAN_NS, dt)[0] < 0, "the other way begins gently"
    turning.press(" ", t + DEADMAN_NS)
    assert turning.step(t + DEADMAN_NS, dt) == (0.0,) * 8, "any other key stops"
    turning.press("f", t + DEADMAN_NS)
    turning.press("q", t + DEADMAN_NS)
    assert turning.done and turning.step(t + DEADMAN_NS, dt) == (0.0,) * 8


def test_what_was_seen_becomes_advice() -> None:
    turning = TurnTest(4)
    for key in ("\n", "r", "4", "n"):
        turning.press(key, 0)
    assert turning.done and not turning.aborted
    sentences = advice(turning.verdicts)
    assert len(sentences) == 3
    assert "thruster 2 turns the wrong way" in sentences[0]
    assert "output 3 turns thruster 4" in sentences[1] and "output 4: nothing turned" in sentences[2]


def test_turning_through_the_link_ends_disarmed(config: Config, tmp_path: Path) -> None:
    board, line, port = SimulatedBoard(), NoisyWire(), Pty(tmp_path / "board")
    stopped = threading.Event()

    def firmware() -> None:
        while not stopped.is_set():
            port.wait([], 0.005)
            t = time.monotonic_ns()
            port.write(line.carry(board.step(t, port.read()), t))

    running = threading.Thread(target=firmware)
    running.start()
    ours, theirs = terminals.openpty()

    def hands() -> None:
        while not board.armed or not any("output 1 of" in text for text in said):
            time.sleep(0.02)
        for _ in range(40):
            os.write(ours, b"f")
            time.sleep(0.02)
        os.write(ours, b"m\n")
        time.sleep(0.2)
        os.write(ours, b"q")

    said: list[str] = []
    hand = threading.Thread(target=hands, daemon=True)
    hand.start()
    try:
        found = turn_all(override(config, [f"link.port={tmp_path / 'board'}"]), said.append, theirs)
        time.sleep(0.1)
        assert not board.armed and not np.any(board.outputs)
    finally:
        stopped.set()
        running.join()
        port.unplug()
        for end in (ours, theirs):
            os.close(end)
    assert "ended after 1 of 8" in found and any("output 1 begins to turn at 15" in text for text in found)
    moved = [each.values for each in board.applied if max(map(abs, each.values)) > 0.002]
    assert moved and all(values[0] > 0 and not any(map(float, values[1:])) for values in moved)


def test_an_autopilot_turns_its_own_thrusters(config: Config) -> None:
    with pytest.raises(UserError, match="motor test"):
        turn_all(override(config, ['link.kind="ardusub"']), print)


def test_no_keyboard_no_turning(config: Config) -> None:
    read, write_end = os.pipe()
    with pytest.raises(UserError, match="keyboard"):
        turn_all(config, print, read)
    os.close(read)
    os.close(write_end)


# ---- colours -----------------------------------------------------------------------------------------------------


def tinted(gains: tuple[float, float, float], seed: int = 0) -> Image:
    grey = np.random.default_rng(seed).integers(60, 200, (60, 80, 1))
    return np.asarray((grey * np.array(gains)).clip(0, 255), np.uint8)


def test_a_known_tint_is_taken_away() -> None:
    gains = colour.measure(tinted((0.9, 1.0, 0.4)), None)
    assert gains is not None and np.allclose(gains, [1 / 0.9, 1, 2.5], rtol=0.02)
    clear = WhiteBalance((BalanceRow(0, *map(float, gains)),)).apply(tinted((0.9, 1.0, 0.4)), None)
    assert np.ptp(clear.reshape(-1, 3).mean(0)) < 2


def test_a_patch_counts_alone() -> None:
    image = tinted((1.0, 1.0, 0.3))
    image[10:20, 30:50] = (100, 120, 60)
    gains = colour.measure(image, colour.parse_patch("30,10,20,10"))
    assert gains is not None and np.allclose(gains, [1.2, 1, 2])
    with pytest.raises(UserError, match="not inside the picture"):
        colour.measure(image, colour.parse_patch("70,10,20,10"))
    for text in ("1,2,3", "a,b,c,d", "1,2,0,4"):
        with pytest.raises(UserError, match="--patch"):
            colour.parse_patch(text)


def test_rows_by_depth_and_in_between(tmp_path: Path) -> None:
    measured = [(d + 0.1 * i, np.array([1.0, 1.0, red])) for d, red in ((2.0, 1.5), (8.0, 3.0)) for i in (-1, 0, 1)]
    rows = colour.rows(measured)
    assert [(row.depth_m, row.red) for row in rows] == [(2.0, 1.5), (8.0, 3.0)]
    colour.write(tmp_path / "c.toml", "test", rows)
    balance = load_colour(tmp_path / "c.toml")
    assert balance.gain(5.0)[2] == pytest.approx(2.25) and balance.gain(None)[2] == 1.5 and balance.gain(99)[2] == 3.0
    image = np.full((2, 2, 3), 40, np.uint8)
    assert balance.apply(image, 5.0)[0, 0].tolist() == [40, 40, 90]
    assert balance.apply(image, 8.0)[0, 0].tolist() == [40, 40, 120]


def test_dark_pictures_say_nothing_and_bad_files_one_sentence(tmp_path: Path) -> None:
    assert colour.measure(np.zeros((9, 9, 3), np.uint8), None) is None
    with pytest.raises(UserError, match="bright enough"):
        colour.rows([])
    for text in ("", "source='x'\nbalance=[]", "source='x'\n[[balance]]\ndepth_m=1\nblue=1\ngreen=1\nred=9", "]"):
        (tmp_path / "c.toml").write_text(text)
        with pytest.raises(UserError, match="c.toml"):
            load_colour(tmp_path / "c.toml")
