"""Calibration boards: parses a board's name, finds its corners in a picture, and hints at the right name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np

from rov.errors import UserError
from rov.types import Floats, Image

CHARUCO_CORNERS_MIN = 6
MARKERS_MIN = 4
"""This many markers in a picture are no false detections."""
DICTIONARY, MARKER = "4X4_50", 0.75
"""Defaults of a ChArUco board: the dictionary, and a marker's side over a square's."""
SEARCHED_MAX, SEARCH_PX, MARKER_PICTURES = 12, 640, 2
"""To suggest another board: how many pictures are searched, scaled to what longer side, and how many for markers."""
MARKERS_SHARE = 0.9
"""The share of the seen markers that the board's dictionary must hold: a few may be false detections."""


class Board(NamedTuple):
    """A board: inner corners across and down, the side of a square in m, and OpenCV's ChArUco board if it is one.
    `older`: its pattern before OpenCV 4.6, which calib.io still sells, where that differs."""

    across: int
    down: int
    square: float
    charuco: Any = None
    older: Any = None

    def points(self) -> Floats:
        """(N, 3) corners in m, row by row."""
        grid = np.mgrid[: self.across, : self.down].T.reshape(-1, 2)
        return np.column_stack([grid, np.zeros(len(grid))]) * self.square


class View(NamedTuple):
    """A board found in one picture: the corners on the board, (N, 3) in m, and in the picture, (N, 2) in pixels."""

    name: str
    size: tuple[int, int]
    board: Floats
    corners: Floats
    older: bool = False
    """The ChArUco board has the pattern before OpenCV 4.6."""


def parse_board(text: str, square_mm: float) -> Board:
    """Parse `chessboard:8x6` (inner corners) or `charuco:11x8[:5X5_100[:0.75]]` (squares, dictionary, a marker's side
    over a square's). Raises UserError."""
    wrong = UserError(
        f"--board {text}: must look like chessboard:8x6 (inner corners) or charuco:11x8[:5X5_100[:0.75]] (squares, "
        "dictionary, side of a marker over that of a square)"
    )
    match = re.fullmatch(r"(chessboard|charuco):(\d+)[xX×](\d+)(?::(\w+))?(?::(0?\.\d+))?", text.strip(), re.ASCII)
    if match is None or (match[1] == "chessboard" and (match[4] or match[5])):
        raise wrong
    across, down = int(match[2]), int(match[3])
    if min(across, down) < 3 or max(across, down) > 50:
        raise UserError(f"--board {text}: each side must be 3 to 50")
    if match[1] == "chessboard":
        return Board(across, down, square_mm / 1e3)
    dictionary = cv2.aruco.getPredefinedDictionary(_dictionary(match[4] or DICTIONARY, text))
    if len(dictionary.bytesList) < across * down // 2:
        raise UserError(f"--board {text}: the dictionary has {len(dictionary.bytesList)} markers, too few for it")
    side, share = square_mm / 1e3, float(match[5] or MARKER)
    if not 0.1 <= share < 1:
        raise UserError(f"--board {text}: a marker's side must be at least 0.1 of its square's, and below 1")
    made, older = (cv2.aruco.CharucoBoard((across, down), side, side * share, dictionary) for _ in range(2))
    older.setLegacyPattern(True)
    return Board(across - 1, down - 1, side, made, older if down % 2 == 0 else None)


def find(board: Board, name: str, image: Image) -> View | str:
    """Find the board in a BGR picture; returns the view, or why there is none."""
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    height, width = grey.shape
    if board.charuco is not None:
        return _charuco(board, name, grey)
    flags = cv2.CALIB_CB_ADAPTIVE_THRESH | cv2.CALIB_CB_NORMALIZE_IMAGE
    found, corners = cv2.findChessboardCorners(grey, (board.across, board.down), flags=flags)
    if found:
        # a window that holds the next corner, too, would be pulled towards it
        window = int(np.clip(_spacing(board, corners) / 4, 2, 11))
        rounds = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_MAX_ITER, 40, 1e-3)
        corners = cv2.cornerSubPix(grey, corners, (window, window), (-1, -1), rounds)
    else:
        second = cv2.CALIB_CB_NORMALIZE_IMAGE
        found, corners = cv2.findChessboardCornersSB(grey, (board.across, board.down), flags=second)
        if not found:
            return "the whole board was not found"
    return View(name, (width, height), board.points(), np.asarray(corners, np.float64).reshape(-1, 2))


def _charuco(board: Board, name: str, grey: Any) -> View | str:
    """The ChArUco corners in a picture; where markers give no corners, the older pattern is tried."""
    most, markers = 0, 0
    for drawn in (board.charuco, board.older):
        if drawn is None:
            continue
        corners, ids, _, seen = cv2.aruco.CharucoDetector(drawn).detectBoard(grey)
        number, markers = 0 if ids is None else len(ids), max(markers, 0 if seen is None else len(seen))
        if number >= CHARUCO_CORNERS_MIN:
            spots = np.asarray(corners, np.float64).reshape(-1, 2)
            points = board.points()[np.asarray(ids).ravel()]
            return View(name, (grey.shape[1], grey.shape[0]), points, spots, drawn is board.older)
        most = max(most, number)
        if markers < MARKERS_MIN:
            break
    return f"only {most} corners of the board were found, and {markers} markers"


def suggest(board: Board, images: Sequence[Image]) -> str:
    """A hint which board these pictures show, for when the given one was found in too few; "" without an idea."""
    family, markers = _family(images[:MARKER_PICTURES])
    if family:
        name = _named(family, markers, images[0])
        return f"{name} fits: for a ChArUco board, --board takes the number of squares and the dictionary"
    small = [_reduced(image) for image in images[:SEARCHED_MAX]]
    sizes = Counter(size for image in small if (size := _inner(image)))
    if not sizes:
        return ""
    (across, down), number = sizes.most_common(1)[0]
    if board.charuco is not None:
        return f"chessboard:{across}x{down} is found in {number} of {len(small)}, and no markers"
    if {across, down} == {board.across, board.down}:
        return ""
    if board.across < board.down:
        across, down = down, across
    return f"chessboard:{across}x{down} is found in {number} of {len(small)}: --board counts inner corners, not squares"


def _named(family: str, markers: int, image: Image) -> str:
    """The name of the ChArUco board with this number of markers that is found in a picture; 11x8 and 8x11 differ."""
    for across, down in ((a, b) for a in range(3, 51) for b in range(3, 51) if a * b // 2 == markers):
        name = f"charuco:{across}x{down}:{family}"
        if isinstance(find(parse_board(name, 30), "", image), View):
            return name
    return f"charuco:…:{family} with {markers} markers"


def _inner(grey: Any) -> tuple[int, int] | None:
    """Inner corners of a chessboard of unknown size in a picture: the longer side, the shorter; None without one."""
    flags = cv2.CALIB_CB_NORMALIZE_IMAGE | cv2.CALIB_CB_LARGER
    found, _, meta = cv2.findChessboardCornersSBWithMeta(grey, (3, 3), flags)
    return (max(meta.shape), min(meta.shape)) if found and meta is not None else None


def _family(images: Sequence[Image]) -> tuple[str, int]:
    """The dictionary with the most markers in the pictures (of 4X4_50, 4X4_100, … the smallest that fits), and the
    board's number of markers by the highest id. ("", 1) without one."""
    kinds: dict[str, list[tuple[int, str]]] = {}  # by the common part of the names: (markers, name), small to large
    for name, number in _dictionaries().items():
        markers = len(cv2.aruco.getPredefinedDictionary(number).bytesList)
        kinds.setdefault(re.sub(r"(?<=\dX\d)_\d+$", "", name), []).append((markers, name))
    best: list[int] = [0] * (MARKERS_MIN - 1)
    answer, highest = "", 0
    for alike in kinds.values():
        detector = cv2.aruco.ArucoDetector(cv2.aruco.getPredefinedDictionary(_dictionaries()[max(alike)[1]]))
        ids = [int(each) for image in images for each in np.ravel(_seen(detector, image))]
        if len(ids) > len(best):
            best = ids
            size, answer = next(each for each in sorted(alike) if np.mean(np.less(ids, each[0])) >= MARKERS_SHARE)
            highest = max(each for each in ids if each < size)
    return answer, highest + 1


def _seen(detector: Any, image: Image) -> Any:
    ids = detector.detectMarkers(image)[1]
    return [] if ids is None else ids


def _reduced(image: Image) -> Any:
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    scale = SEARCH_PX / max(grey.shape)
    return cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else grey


def _dictionaries() -> dict[str, int]:
    """OpenCV's dictionaries: name, as `4X4_50`, to number. Some have two names, as 36h11 and 36H11: one of them."""
    names = {name[5:].upper(): name for name in dir(cv2.aruco) if name.startswith("DICT_")}
    return {name: getattr(cv2.aruco, full) for name, full in names.items()}


def _dictionary(text: str, board: str) -> int:
    """The number of a dictionary; `4X4_50`, `4x4_50` and `DICT_4X4_50` are the same. Raises UserError."""
    names = _dictionaries()
    number = names.get(text.upper().removeprefix("DICT_"))
    if number is None:
        raise UserError(f"--board {board}: there is no dictionary {text}; there are {', '.join(names)}")
    return number


def _spacing(board: Board, corners: Any) -> float:
    """The smallest distance between neighbouring corners, px."""
    grid = np.asarray(corners).reshape(board.down, board.across, 2)
    steps = [np.linalg.norm(np.diff(grid, axis=axis), axis=-1).min() for axis in (0, 1)]
    return float(min(steps))
