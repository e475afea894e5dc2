"""From pictures of a board to steering by straight angles: a simulated camera with a known, strong lens is calibrated,
and a video of it is replayed as a user does it."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from foxglove_schemas_protobuf.CameraCalibration_pb2 import CameraCalibration
from mcap.reader import make_reader
from typer.testing import CliRunner

from rov.cli.app import app
from rov.config.schema import load
from rov.dives.dive import Dive
from rov.errors import UserError
from rov.messages import Detections, Frame, Observation
from rov.optics.lens import Calibration, undistorted
from rov.recorderd import DiveRecording
from rov.resources import checkout
from sim.scene.lens import Lens
from sim.scene.render import Renderer
from sim.scene.scene import Scene
from sim.viewpoints import quaternion
from sim.world import parse, realise
from tests.daemon.harness import environment

pytestmark = pytest.mark.patient

TRUE = Lens(480, 360, 250.0, 251.0, 243.0, 176.0, (-0.25, 0.06, 0.0, 0.0, 0.0))
BUOYS = {"buoy_red": (1.7, -1.15), "buoy_green": (1.9, 0.0), "buoy_yellow": (1.7, 1.15)}
"""North and east, m; the camera is at the origin and looks north."""
WORLD = """
about = "Three buoys before a camera."
[water]
type = "pool"
[ground]
kind = "tiles"
depth = 4.0
""" + "".join(
    f'[[things]]\nkind = "{name}"\nnorth = {north}\neast = {east}\nabove = 2.5\n'
    for name, (north, east) in BUOYS.items()
)
YAWS = [math.radians(4 * math.sin(0.7 * i)) for i in range(12)]
SQUARE = 0.03


FINE = TRUE.scaled(2 * TRUE.width, 2 * TRUE.height)
RAYS = FINE.rays().reshape(3, -1)


def board(number: int) -> np.ndarray:
    """The picture of a chessboard of 9×7 squares somewhere before the camera, by its rays."""
    rng = np.random.default_rng(number)
    turn, _ = cv2.Rodrigues(rng.uniform(-0.45, 0.45, 3))
    place = np.array([rng.uniform(-0.3, 0.03), rng.uniform(-0.22, 0.01), rng.uniform(0.2, 0.4)])
    along = (turn[:, 2] @ place) / (turn[:, 2] @ RAYS)  # to the board's plane
    across, down, _ = turn.T @ (RAYS * along - place[:, None]) / SQUARE
    inside = (across > -1) & (across < 10) & (down > -1) & (down < 8) & (along > 0)
    on = (across > 0) & (across < 9) & (down > 0) & (down < 7)
    black = on & ((np.floor(across) + np.floor(down)) % 2 == 0)
    grey = np.where(inside, np.where(black, 25, 225), 110).astype(np.uint8).reshape(FINE.height, FINE.width)
    return cv2.cvtColor(cv2.resize(grey, (TRUE.width, TRUE.height), interpolation=cv2.INTER_AREA), cv2.COLOR_GRAY2BGR)


def rov(*arguments: object) -> Any:
    """The command, in this process."""
    return CliRunner().invoke(app, list(map(str, arguments)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`camera.yaml` and `colour.toml`, calibrated by the commands, and `dive.avi` seen through the same lens."""
    folder = tmp_path_factory.mktemp("calibrated")
    (folder / "boards").mkdir()
    for number in range(16):
        cv2.imwrite(str(folder / f"boards/{number:02}.png"), board(number))
    run = rov("calibrate", "camera", folder / "boards", "--board", "chessboard:8x6", "--out", folder / "camera.yaml")
    assert run.exit_code == 0, run.output
    scene: Scene = realise(parse(WORLD.encode(), Path("buoys.toml")), 1).scene
    attitudes = torch.tensor([quaternion(0.0, 0.0, yaw) for yaw in YAWS])
    places = torch.tensor([[0.0, 0.0, 1.5]] * len(YAWS))
    images = Renderer([scene], TRUE).render(places, attitudes, 0.0).image.numpy()
    film = cv2.VideoWriter(str(folder / "dive.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (TRUE.width, TRUE.height))
    film.set(cv2.VIDEOWRITER_PROP_QUALITY, 95)
    for image in images:
        film.write(image)
    film.release()
    run = rov("calibrate", "colour", folder / "dive.avi", "--out", folder / "colour.toml")
    assert run.exit_code == 0, run.output
    (folder / "rover.toml").write_text(
        f"[vehicle]\nmax_depth = 20.0\n[camera]\ncalibration = '{folder}/camera.yaml'\n"
        f"colour = '{folder}/colour.toml'\n[steering]\ntarget = 'buoy_red'\n"
    )
    return folder


def arguments(folder: Path, name: str, *more: str) -> list[object]:
    return ["replay", folder / "dive.avi", "--no-overlay", "-c", folder / "rover.toml", "--out", folder / name, *more]


@pytest.fixture(scope="module")
def dive(folder: Path) -> Path:
    """The video replayed with its calibrations."""
    run = rov(*arguments(folder, "out"))
    assert run.exit_code == 0, run.output
    return folder / "out" / "dive.mcap"


def said(path: Path, topic: str) -> list[Any]:
    with Dive(path) as dive:
        return [record.data for record in dive.messages([topic])]


def test_it_steers_by_straight_angles(folder: Path, dive: Path) -> None:
    north, east = BUOYS["buoy_red"]
    truth = np.array([math.atan2(east, north) - yaw for yaw in YAWS])  # -34° on average

    def off(path: Path) -> float:
        """Error of the bearing in degrees, the middle one."""
        seen = [each for each in said(path, "observation") if isinstance(each, Observation)]
        assert sum(each.visible for each in seen) > 8 and len(seen) == len(YAWS)
        errors = [each.bearing - angle for each, angle in zip(seen, truth, strict=True) if each.visible]
        return math.degrees(float(np.median(errors)))

    # Without: seen 250 tan 34° (1 - 0.25 × 0.46 + 0.06 × 0.21) = 152 px left of 243, which a pinhole takes for
    # atan((152 - 3) / 250) = 31°.
    hfov = math.degrees(2 * math.atan(240 / 250))
    run = rov(*arguments(folder, "plain", "--set", "camera.calibration=", "--set", f"camera.hfov_deg={hfov}"))
    assert run.exit_code == 0, run.output
    assert off(folder / "plain/dive.mcap") > 2.5
    assert abs(off(dive)) < 0.8


def test_boxes_are_of_the_original_picture(dive: Path) -> None:
    """Their middles are where the lens puts the buoys."""
    frame = said(dive, "detections")[0]
    assert isinstance(frame, Detections)
    middles = [(each.label, (each.box[0] + each.box[2]) / 2) for each in frame.items]
    for name in ("buoy_red", "buoy_green"):
        north, east = BUOYS[name]
        wanted, _ = TRUE.project(np.array([east, 0.0, north]))
        assert [x for label, x in middles if label == name and abs(x - wanted) < 4], (name, wanted, middles)


def test_the_dive_holds_the_lens_and_it_straightens(dive: Path) -> None:
    with dive.open("rb") as stream:
        [(schema, _, message)] = make_reader(stream).iter_messages(["calibration"])
    assert schema is not None and schema.name == "foxglove.CameraCalibration"
    info = CameraCalibration.FromString(message.data)
    assert (info.width, info.height, info.distortion_model) == (480, 360, "plumb_bob")
    matrix = np.array(info.K).reshape(3, 3)
    assert matrix[[0, 1], [0, 1]] == pytest.approx([250, 251], rel=0.01)
    lens = Calibration("recorded", info.width, info.height, matrix, "plumb_bob", np.array(info.D))
    # The upper edge of a wall 1 m above the axis, 2 m ahead: straight in the world.
    wall = np.column_stack([np.linspace(-1.3, 1.3, 21), np.full(21, -1.0), np.full(21, 2.0)])
    pixels = TRUE.project(wall)
    straight = undistorted(lens, pixels) * 250

    def bend(line: np.ndarray) -> float:
        """Largest distance from the straight line through the points, px."""
        return float(np.abs(line[:, 1] - np.polyval(np.polyfit(line[:, 0], line[:, 1], 1), line[:, 0])).max())

    assert bend(pixels) > 5 and bend(straight) < 0.5


def test_replays_are_the_same_bit_by_bit(folder: Path, dive: Path) -> None:
    command = [sys.executable, "-m", "rov", *map(str, arguments(folder, "two"))]
    subprocess.run(command, cwd=checkout(), env=environment(), check=True, timeout=120)
    with Dive(dive) as first, Dive(folder / "two/dive.mcap") as second:
        digests = first.digests()
        assert digests == second.digests() and {"camera", "calibration", "detections", "thrusters"} <= {*digests}


def test_the_dive_replays_alike_and_the_network_sees_its_colours(folder: Path, dive: Path) -> None:
    command = ["replay", dive, "--diff", "--no-overlay", "-c", folder / "rover.toml", "--out"]
    assert rov(*command, folder / "again").exit_code == 0
    rov(*command, folder / "grey", "--set", "camera.colour=")
    scores = [[item.score for item in said(folder / name / "dive.mcap", "detections")[0].items] for name in
              ("again", "grey")]  # fmt: skip
    assert scores[0] != scores[1]


def test_a_recorded_dive_holds_the_lens_once_if_it_is_the_pictures(folder: Path, tmp_path: Path) -> None:
    recording = DiveRecording(tmp_path, load(folder / "rover.toml"))
    for number, (width, height) in enumerate([(160, 120), (480, 360), (480, 360)]):
        recording.open()
        for i in range(2):
            frame = Frame(t=i, frame_id=i, frame_t=i, width=width, height=height)
            recording.picture(frame, np.zeros((height, width, 3), np.uint8))
        path = recording.path
        recording.close()
        assert path is not None
        with Dive(path) as recorded:
            assert recorded.counts.get("calibration", 0) == (number > 0)


def test_a_picture_of_another_size_is_refused(folder: Path, tmp_path: Path) -> None:
    small = tmp_path / "small.avi"
    film = cv2.VideoWriter(str(small), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (160, 120))
    random = np.random.default_rng(0)
    for _ in range(30):
        film.write(random.integers(60, 130, (120, 160, 3), np.uint8))
    film.release()
    run = rov("replay", small, "-c", folder / "rover.toml", "--out", tmp_path / "out")
    assert isinstance(run.exception, UserError)
    assert "is of pictures of 480×360, the camera gives 160×120" in str(run.exception)
