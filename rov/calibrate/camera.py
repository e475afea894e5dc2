"""Fits a camera's matrix and distortion to views of a flat board: pictures, a video, or a live camera with guidance.

Zhang's method, as implemented in OpenCV. A view is dropped, with a reason, when it shows no board, differs in size
from most, repeats an earlier one (video and live), or when its error is an outlier (see OUTLIER).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from rov.calibrate.board import SEARCHED_MAX, suggest
from rov.calibrate.board import Board as Board
from rov.calibrate.board import View as View
from rov.calibrate.board import find as find
from rov.calibrate.board import parse_board as parse_board
from rov.errors import UserError
from rov.media.headers import kind_of, size_of
from rov.media.pictures import BYTES_MAX
from rov.optics.lens import Calibration, distorted, reach
from rov.types import Floats, Image

OUTLIER = 2.5
"""Views whose RMS error exceeds this many times the median are dropped, worst first, with a new fit after each."""
KEEP = 0.6
"""At least this share of the views is kept: if more are outliers, the board or its name is wrong, not the views."""
VIEWS_MIN = 8
"""With fewer views, focal length and distortion are left to chance; 20 and more are good."""
NEW_VIEW = 0.04
"""Share of the picture's width by which the corners must have moved, on average, to count as a new view."""
FISHEYE_BETTER = 0.9
"""`auto` takes the fisheye model when its RMS is below this share of the pinhole's."""
GRID = (8, 6)
"""Columns and rows of the coverage map."""


class CameraFit(NamedTuple):
    """The result of a fit. `errors` (px, RMS) has one for each of `views`; `rejected` is (name, why)."""

    calibration: Calibration
    rms: float
    views: list[View]
    errors: list[float]
    rejected: list[tuple[str, str]]


class BoardSearch:
    """Finds a board in one picture after the other; keeps some pictures without it, for a hint what they show."""

    def __init__(self, board: Board):
        self.board = board
        self.missed: list[Image] = []

    def __call__(self, name: str, image: Image) -> View | str:
        found = find(self.board, name, image)
        if isinstance(found, str) and len(self.missed) < SEARCHED_MAX:
            self.missed.append(image)
        return found

    def hint(self) -> str:
        """Which board the pictures without the given one show; "" without an idea."""
        return suggest(self.board, self.missed) if self.missed else ""


def as_stored(files: Sequence[Path]) -> bool:
    """Whether to ignore the EXIF rotation of pictures: distortion belongs to the sensor, however the camera was held.
    False only if rotation makes their sizes agree: then a program has rotated some of them."""
    data = [file.read_bytes() for file in files if file.stat().st_size < BYTES_MAX]
    if len({size_of(each, kind_of(each)) for each in data}) <= 1:
        return True
    small, turned = cv2.IMREAD_REDUCED_GRAYSCALE_8, cv2.IMREAD_IGNORE_ORIENTATION
    sizes = [
        {None if (image := _decoded(each, flags)) is None else image.shape for each in data}
        for flags in (small | turned, small)
    ]
    return len(sizes[0]) <= len(sizes[1])


def select_views(
    searched: Iterable[tuple[str, View | str]], *, moving: bool
) -> tuple[list[View], list[tuple[str, str]]]:
    """Views worth fitting, and (name, why) of the rest. `moving`: from a video, whose neighbouring frames repeat."""
    views: list[View] = []
    rejected: list[tuple[str, str]] = []
    for name, found in searched:
        if isinstance(found, str):
            rejected.append((name, found))
        elif moving and any(nearly_same(found, each) for each in views):
            rejected.append((name, "the board stands where it stood before"))
        else:
            views.append(found)
    if not views:
        return [], rejected
    usual = Counter(view.size for view in views).most_common(1)[0][0]
    for view in views:
        if view.size != usual:
            rejected.append((view.name, f"is of {view.size[0]}×{view.size[1]}, most are of {usual[0]}×{usual[1]}"))
    return [view for view in views if view.size == usual], rejected


def nearly_same(one: View, other: View) -> bool:
    """Whether two views differ too little to add information."""
    if one.corners.shape != other.corners.shape:
        return False
    moved = np.linalg.norm(one.corners - other.corners, axis=1).mean()
    return bool(moved < NEW_VIEW * one.size[0])


def fit(
    views: list[View],
    rejected: list[tuple[str, str]],
    model: Literal["pinhole", "fisheye", "auto"],
    name: str,
    progress: Callable[[], None] = lambda: None,
    hint: Callable[[], str] = lambda: "",
) -> CameraFit:
    """Fit a model, dropping outliers. `hint` is called when there are too few views, for the error message. Raises
    UserError when there are too few views, or no model fits."""
    if len(views) < VIEWS_MIN:
        why = Counter(reason for _, reason in rejected).most_common(1)
        reason = f" (most others: {why[0][0]})" if why else ""
        more = f"; {suggestion}" if (suggestion := hint()) else ""
        raise UserError(
            f"{len(views)} usable views of the board are too few, {VIEWS_MIN} is the least, 20 are good{reason}{more}"
        )
    answers = []
    for kind in ("pinhole", "fisheye") if model == "auto" else (model,):
        try:
            answers.append(_fit(views, list(rejected), kind, name, progress))
        except cv2.error as error:
            if model != "auto":
                raise UserError(f"the {kind} model cannot be fitted to these views: {error.err.strip()}") from None
    if not answers:
        raise UserError("no model can be fitted to these views: is the board flat, and --board right?")
    best = answers[0]
    for other in answers[1:]:
        best = other if other.rms < FISHEYE_BETTER * best.rms else best
    return best


def _fit(
    views: list[View], rejected: list[tuple[str, str]], kind: str, name: str, progress: Callable[[], None]
) -> CameraFit:
    total = len(views)
    while True:
        progress()
        rms, matrix, distortion, errors = _solve(views, kind)
        worst = int(np.argmax(errors))
        limit = OUTLIER * float(np.median(errors))
        if errors[worst] <= limit or len(views) - 1 < max(KEEP * total, VIEWS_MIN):
            model: Any = "equidistant" if kind == "fisheye" else "plumb_bob"
            found = Calibration(name, *views[0].size, matrix, model, distortion)
            return CameraFit(found, rms, views, [float(each) for each in errors], rejected)
        rejected.append(
            (
                views[worst].name,
                f"its error of {errors[worst]:.2f} px is over {limit:.2f} px, {OUTLIER} times the median",
            )
        )
        views = views[:worst] + views[worst + 1 :]


def _solve(views: list[View], kind: str) -> tuple[float, Floats, Floats, Floats]:
    """RMS over all corners (px), matrix (3, 3), distortion, RMS of each view."""
    size = views[0].size
    if kind == "pinhole":
        answer = cv2.calibrateCameraExtended(
            [view.board.astype(np.float32) for view in views],
            [view.corners.astype(np.float32).reshape(-1, 1, 2) for view in views],
            size, np.eye(3), np.zeros(5),
        )  # fmt: skip
        matrix, distortion, errors = (np.asarray(answer[i], np.float64) for i in (1, 2, 7))
        return float(answer[0]), matrix, distortion.ravel()[:5], errors.ravel()
    # (1, N, …): with (N, 1, …) OpenCV 5's fisheye solver fails
    boards = [view.board.reshape(1, -1, 3) for view in views]
    corners = [view.corners.reshape(1, -1, 2) for view in views]
    flags = cv2.CALIB_RECOMPUTE_EXTRINSIC | cv2.CALIB_FIX_SKEW
    rounds = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 100, 1e-8)
    rms, lens, bend, turns, shifts = cv2.fisheye.calibrate(
        boards, corners, size, np.eye(3), np.zeros(4), flags=flags, criteria=rounds
    )
    each = []
    for board, seen, turn, shift in zip(boards, corners, turns, shifts, strict=True):
        again = cv2.fisheye.projectPoints(board, turn, shift, lens, bend)[0]
        each.append(math.sqrt(float(np.mean(np.sum((again - seen) ** 2, axis=-1)))))
    return float(rms), np.asarray(lens, np.float64), np.asarray(bend, np.float64).ravel(), np.array(each)


def coverage(views: list[View], size: tuple[int, int]) -> NDArray[np.int64]:
    """(rows, columns) corners seen in each cell of GRID."""
    columns, rows = GRID
    corners = np.concatenate([view.corners for view in views]) if views else np.zeros((0, 2))
    counts, _, _ = np.histogram2d(
        corners[:, 1], corners[:, 0], bins=(rows, columns), range=((0, size[1]), (0, size[0]))
    )
    return np.asarray(counts, np.int64)


def coverage_map(counts: NDArray[np.int64]) -> str:
    """The coverage as text: `.` for no corners, + for 1 to 9, * for 10 to 39, # for more."""
    marks = np.array([".", "+", "*", "#"])[np.digitize(counts, [1, 10, 40])]
    return "\n".join(" ".join(row) for row in marks)


def valid_share(calibration: Calibration) -> float:
    """The share of the picture within the model's reach; beyond it the model is not valid (see `lens.reach`)."""
    limit = reach(calibration)
    if not math.isfinite(limit):
        return 1.0
    c = calibration
    edge = distorted(c, np.array([[limit, 0.0], [0.0, limit]])) - c.matrix[:2, 2]
    x, y = np.meshgrid(np.arange(c.width) + 0.5 - c.matrix[0, 2], np.arange(c.height) + 0.5 - c.matrix[1, 2])
    return float(((x / edge[0, 0]) ** 2 + (y / edge[1, 1]) ** 2 <= 1).mean())


class Guide:
    """For a live camera: which views are still missing, and where to hold the board next."""

    WANTED = 24
    SPOTS = (("upper", "middle", "lower"), ("left", "centre", "right"))
    NEAR = 0.25
    """Share of the picture's area above which a board counts as near."""
    TILTED = 0.12
    """Relative difference of opposite sides above which a board counts as tilted."""

    def __init__(self) -> None:
        self.views: list[View] = []
        self.spots: Counter[tuple[int, int]] = Counter()
        self.near = self.tilted = 0

    def add(self, view: View) -> bool:
        """Keep a view if it adds something; returns whether it did."""
        if any(nearly_same(view, each) for each in self.views):
            return False
        middle = view.corners.mean(0) / view.size
        self.spots[min(int(middle[1] * 3), 2), min(int(middle[0] * 3), 2)] += 1
        low, high = view.corners.min(0), view.corners.max(0)
        self.near += bool(np.prod((high - low) / view.size) > self.NEAR)
        self.tilted += _tilt(view) > self.TILTED
        self.views.append(view)
        return True

    @property
    def done(self) -> bool:
        return len(self.views) >= self.WANTED and not self.wanted()

    def wanted(self) -> list[str]:
        """Instructions for the views that are missing, the most useful first."""
        down, across = self.SPOTS
        missing = [
            f"{down[row]} {across[column]}" for row in range(3) for column in range(3) if not self.spots[row, column]
        ]
        advice = [f"hold the board in the {spot} of the picture" for spot in missing]
        if self.near < 4:
            advice.insert(1 if advice else 0, "bring it nearer, so that it fills a quarter of the picture")
        if self.tilted < 6:
            advice.insert(1 if advice else 0, "tilt it by 30 to 45 degrees, each time about another side")
        return advice

    def advice(self) -> str:
        advice = self.wanted()
        return f"{len(self.views)} views of {self.WANTED}: {advice[0] if advice else 'anywhere else'}"


def guide_views(board: Board, pictures: Iterable[Image | None], show: Callable[[str], None]) -> Iterator[View]:
    """Guide the person who holds the board before a live camera; yields each view kept, until there are enough."""
    guide, last = Guide(), ""
    for image in pictures:
        found = "no picture" if image is None else find(board, f"view {len(guide.views) + 1}", image)
        if not isinstance(found, str) and guide.add(found):
            yield found
        if guide.done:
            return
        if (advice := guide.advice()) != last:
            show(advice)
            last = advice


def _decoded(data: bytes, flags: int) -> Any:
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    except cv2.error:
        return None


def _tilt(view: View) -> float:
    """The relative difference in length of the board's opposite sides."""
    low, high = view.board.min(0), view.board.max(0)

    def corner(x: float, y: float) -> Floats:
        at = np.argmin(np.abs(view.board[:, :2] - (x, y)).sum(1))
        return np.asarray(view.corners[at])

    a, b = corner(low[0], low[1]), corner(high[0], low[1])
    c, d = corner(low[0], high[1]), corner(high[0], high[1])

    def unequal(one: Floats, other: Floats) -> float:
        first, second = float(np.linalg.norm(one)), float(np.linalg.norm(other))
        return abs(first - second) / max(first, second, 1e-9)

    return max(unequal(a - b, c - d), unequal(a - c, b - d))
