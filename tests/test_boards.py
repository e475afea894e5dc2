"""Boards of all kinds are found, in rotated pictures, too; a wrong board name gets a hint at the right one."""

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from rov.calibrate import camera
from rov.calibrate.board import View, find, parse_board, suggest
from rov.calibrate.straighten import straighten
from rov.errors import UserError
from rov.media.pictures import read_image
from rov.optics.lens import Calibration, Lens
from rov.types import Image

pytestmark = pytest.mark.patient

MATRIX = np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]])


def chessboard(across: int, down: int) -> Image:
    """A flat chessboard with this number of squares, 60 px each."""
    flat = np.kron(np.indices((down, across)).sum(0) % 2 * 255, np.ones((60, 60))).astype(np.uint8)
    return flat


def charuco(text: str, older: bool = False) -> Image:
    board = parse_board(text, 30).charuco
    board.setLegacyPattern(older)
    across, down = board.getChessboardSize()
    return np.asarray(board.generateImage((across * 60, down * 60)), np.uint8)


def seen(flat: Image, number: int, size: tuple[int, int] = (640, 480)) -> Image:
    """A picture of a flat object by a pinhole camera of 500 px focal length, from a random place."""
    rng = np.random.default_rng(number)
    flat = np.asarray(cv2.copyMakeBorder(flat, 60, 60, 60, 60, cv2.BORDER_CONSTANT, value=255), np.uint8)
    turn = cv2.Rodrigues(rng.uniform(-0.4, 0.4, 3) * (1, 1, 0.4))[0]
    place = np.array([*rng.uniform(-0.05, 0.05, 2), rng.uniform(0.55, 0.7)])
    middle = np.array([flat.shape[1], flat.shape[0]]) / 2
    onto = MATRIX @ np.column_stack([turn[:, 0] * 5e-4, turn[:, 1] * 5e-4, place - turn[:, :2] @ (middle * 5e-4)])
    picture = cv2.warpPerspective(flat, onto, size, flags=cv2.INTER_AREA, borderValue=120)
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR), np.uint8)


def oriented(image: Image, orientation: int) -> bytes:
    """A JPEG with this EXIF orientation."""
    entry = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + entry + bytes(4)
    data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 98])[1].tobytes()
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:]


# ---- the board's name --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["charuco:8x6:DICT_4X4_50", "charuco:8x6:4x4_50", "charuco:8X6", "charuco:8×6:dict_4x4_50:.75"]
)
def test_a_board_has_many_spellings(text: str) -> None:
    board = parse_board(text, 30)
    assert (board.across, board.down) == (7, 5) and len(board.charuco.getDictionary().bytesList) == 50


def test_every_dictionary_has_its_name() -> None:
    assert parse_board("charuco:5x5:apriltag_36H11", 30).charuco.getDictionary().markerSize == 6
    assert parse_board("charuco:5x5:aruco_original", 30).charuco.getDictionary().markerSize == 5
    with pytest.raises(UserError, match="no dictionary 4X4_51; there are .*4X4_50"):
        parse_board("charuco:8x6:4X4_51", 30)
    for text in ("chessboard:8x6:4X4_50", "charuco:8x6:4X4_50:1.5", "charuco:8x6:4X4_50:0.01", "chessboard:8x٦"):
        with pytest.raises(UserError, match="--board"):
            parse_board(text, 30)


# ---- finding it --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["charuco:8x6", "charuco:6x8:5X5_100", "charuco:7x6:6X6_250"])
@pytest.mark.parametrize("older", [True, False])
def test_charuco_boards_of_both_patterns(text: str, older: bool) -> None:
    board = parse_board(text, 30)
    looks = [find(board, str(n), seen(charuco(text, older), n)) for n in range(10)]
    views = [each for each in looks if isinstance(each, View)]
    assert len(views) == 10 and all(view.older == older for view in views)
    found = camera.fit(views, [], "pinhole", "x")
    assert found.rms < 0.5 and abs(found.calibration.matrix[0, 0] / 500 - 1) < 0.02


def test_with_an_odd_number_of_rows_there_is_one_pattern() -> None:
    assert parse_board("charuco:8x5", 30).older is None
    view = find(parse_board("charuco:8x5", 30), "", seen(charuco("charuco:8x5", older=True), 1))
    assert isinstance(view, View) and not view.older


# ---- what is there instead ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "flat", "said"),
    [
        ("chessboard:9x7", chessboard(9, 7), "chessboard:8x6 is found in 1 of 1: --board counts inner corners"),
        ("chessboard:7x9", chessboard(9, 7), "chessboard:6x8 is found in 1 of 1"),
        ("charuco:9x7", chessboard(9, 7), "chessboard:8x6 is found in 1 of 1, and no markers"),
        ("charuco:7x5", charuco("charuco:8x6"), "charuco:8x6:4X4_50 fits"),
        ("charuco:8x6", charuco("charuco:8x6:5X5_100"), "charuco:8x6:5X5_50 fits"),
        ("chessboard:7x6", charuco("charuco:8x6"), "charuco:8x6:4X4_50 fits"),
        ("chessboard:9x7", np.full((300, 300), 90, np.uint8), ""),
    ],
)  # fmt: skip
def test_the_pictures_say_what_they_hold(asked: str, flat: Image, said: str) -> None:
    answer = suggest(parse_board(asked, 30), [seen(flat, 0)])
    assert answer.startswith(said) and bool(answer) == bool(said)


def test_too_few_views_say_what_the_pictures_hold() -> None:
    looks = camera.BoardSearch(parse_board("chessboard:9x7", 30))
    found = [(str(n), looks(str(n), seen(chessboard(9, 7), n))) for n in range(2)]
    views, rejected = camera.select_views(found, moving=False)
    with pytest.raises(UserError, match="0 usable views .*; chessboard:8x6 is found in 2 of 2") as caught:
        camera.fit(views, rejected, "pinhole", "x", hint=looks.hint)
    assert "\n" not in str(caught.value)


# ---- how the camera was held -------------------------------------------------------------------------------------


def test_a_lens_does_not_turn_with_the_camera(tmp_path: Path) -> None:
    """Eight pictures by one sensor, in all eight EXIF orientations: all are read in the sensor's shape."""
    for orientation in range(1, 9):
        (tmp_path / f"{orientation}.jpg").write_bytes(oriented(seen(chessboard(9, 7), orientation), orientation))
    files = sorted(tmp_path.glob("*.jpg"))
    assert read_image(files[5]).shape[:2] == (640, 480), "upright it would be"
    assert camera.as_stored(files)
    board = parse_board("chessboard:8x6", 30)
    looks = [(file.name, find(board, file.name, read_image(file, stored=True))) for file in files]
    views, rejected = camera.select_views(looks, moving=False)
    assert len(views) == 8 and not rejected and {view.size for view in views} == {(640, 480)}


def test_pictures_that_a_program_turned_are_read_upright(tmp_path: Path) -> None:
    turns = {1: None, 6: cv2.ROTATE_90_COUNTERCLOCKWISE, 8: cv2.ROTATE_90_CLOCKWISE, 3: cv2.ROTATE_180}
    for orientation, turn in turns.items():
        image = seen(chessboard(9, 7), orientation)
        stored = image if turn is None else np.asarray(cv2.rotate(image, turn), np.uint8)
        (tmp_path / f"{orientation}.jpg").write_bytes(oriented(stored, orientation))
    files = sorted(tmp_path.glob("*.jpg"))
    assert not camera.as_stored(files)
    assert {read_image(file).shape[:2] for file in files} == {(480, 640)}
    (tmp_path / "empty.jpg").write_bytes(b"")
    assert camera.as_stored([files[0], tmp_path / "empty.jpg"]), "what is no picture decides nothing"


# ---- straight pictures -------------------------------------------------------------------------------------------


def test_straight_pictures_keep_their_names_and_folders(tmp_path: Path) -> None:
    lens = Lens(Calibration("c", 64, 48, MATRIX / [[10], [10], [1]], "plumb_bob", np.array([-0.2, 0, 0, 0, 0])))
    for folder, level in (("a/1", 40), ("a/2", 90), ("b/1", 140)):
        (tmp_path / folder).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / folder / "p.JPG.jpg"), np.full((48, 64, 3), level, np.uint8))
    (tmp_path / "a/2/p.png").write_bytes(b"")
    cv2.imwrite(str(tmp_path / "a/2/q.png"), np.zeros((50, 64, 3), np.uint8))
    (tmp_path / "b/1/turned.jpg").write_bytes(oriented(np.full((48, 64, 3), 200, np.uint8), 6))
    done = straighten(lens, [tmp_path / "a", tmp_path / "b", tmp_path / "a/1/p.JPG.jpg"], tmp_path / "out")
    written = {str(path.relative_to(tmp_path / "out")): path for path in (tmp_path / "out").rglob("*.jpg")}
    assert sorted(written) == ["1/p.JPG.jpg", "1/p.JPG_2.jpg", "1/turned.jpg", "2/p.JPG.jpg", "p.JPG.jpg"]
    levels = [int(read_image(written[name])[24, 32, 0]) for name in sorted(written)]
    assert np.allclose(levels, [40, 140, 200, 90, 40], atol=2) and done.written == 5
    empty, other = sorted(done.skipped)
    assert empty == f"{tmp_path / 'a/2/p.png'}: the file is empty"
    assert other.startswith(f"{tmp_path / 'a/2/q.png'}: the calibration c is of pictures of 64×48")
    with pytest.raises(UserError, match="no such file"):
        straighten(lens, [tmp_path / "none.jpg"], tmp_path / "out")
