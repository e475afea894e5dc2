"""Finds when a video began in a log, from the picture's motion against gyro and depth sensor.

When the vehicle turns right the picture moves left, when its nose goes up the picture moves down, when it sinks the
picture moves up. So the motion of the whole picture correlates with yaw rate, pitch rate and sink rate at one offset.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.signal import correlate

from rov.errors import UserError
from rov.media.files import TimedFrame
from rov.messages import VehicleState
from rov.types import Floats

WIDTH = 320
"""Pictures are scaled to this width: shifts of a tenth of a pixel are still found, and noise averages out."""
FEATURES = 150
STEP_S = 0.05
"""Of the common time grid; the peak is found between its points."""
DRIFT_S = 8.0
"""Slower changes than this are removed, because they do not show the offset."""
OVERLAP_S = 5.0
"""Video and log must overlap by this, or by half of the shorter one if that is more."""
APART_S = 1.5
"""A peak at least this far away counts as another one."""
CONFIDENCE_MIN = 0.15
CORRELATION_MIN = 0.6
"""Below either the answer would be a guess, so none is given. An unrelated clip and log reached a correlation of 0.48,
where the vehicle stood still but for one push."""
GAP_S = 0.5
"""Between samples further apart than this, nothing is interpolated."""
QUIET = 0.01
"""A rate (rad/s) or sink rate (m/s) with a standard deviation below this is noise."""
TINY = 1e-12


class Motion(NamedTuple):
    """The picture's motion at times `t` (N,) in s from the video's start, in picture widths per s to the right and
    down; NaN where no corners could be followed."""

    t: Floats
    right: Floats
    down: Floats


class Alignment(NamedTuple):
    """The video's first picture was taken `offset_s` after the log's first state. `confidence` 0..1 compares the peak
    with the next best one and is at most `correlation`, which is that of yaw at the peak (of the first usable axis).
    `lags` and `scores` are for the plot."""

    offset_s: float
    confidence: float
    correlation: float
    lags: Floats
    scores: Floats


def motion(shots: Iterable[TimedFrame], progress: Callable[[], None] = lambda: None) -> Motion:
    """Follow corners from picture to picture; the median of their shifts is the picture's motion."""
    t, right, down = [], [], []
    before: NDArray[np.uint8] | None = None
    before_t = 0
    for shot in shots:
        progress()
        height = max(1, round(shot.image.shape[0] * WIDTH / shot.image.shape[1]))
        small = cv2.resize(shot.image, (WIDTH, height), interpolation=cv2.INTER_AREA)
        grey = np.asarray(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY), np.uint8)
        if before is not None and shot.t > before_t:
            x, y = _shift(before, grey)
            dt = (shot.t - before_t) / 1e9
            t.append((shot.t + before_t) / 2e9)
            right.append(x / WIDTH / dt)
            down.append(y / WIDTH / dt)
        before, before_t = grey, shot.t
    return Motion(np.array(t), np.array(right), np.array(down))


def _shift(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> tuple[float, float]:
    """Shift in pixels to the right and down; NaN when too few corners were followed."""
    corners = cv2.goodFeaturesToTrack(before, FEATURES, 0.01, 6)
    if corners is None or len(corners) < 8:
        return math.nan, math.nan
    moved, found, _ = cv2.calcOpticalFlowPyrLK(before, after, corners, np.empty_like(corners), winSize=(15, 15))
    good = found.ravel() == 1
    if good.sum() < 8:
        return math.nan, math.nan
    x, y = np.median((moved - corners).reshape(-1, 2)[good], axis=0)
    return float(x), float(y)


def align(seen: Motion, states: list[VehicleState]) -> Alignment:
    """Find the offset. Raises UserError when the vehicle hardly moves or no offset stands out."""
    if len(seen.t) < 2 or len(states) < 2:
        raise UserError("too few pictures or states to align by; say --offset SECONDS")
    log_t = np.array([(state.t - states[0].t) / 1e9 for state in states])
    depth_t, depth = _depths(states)
    sinking = np.gradient(depth, depth_t) if len(depth_t) > 2 else np.zeros(0)
    pairs = [
        (-seen.right, log_t, np.array([state.rates[2] for state in states])),
        (seen.down, log_t, np.array([state.rates[1] for state in states])),
        (-seen.down, depth_t, sinking),
    ]
    end = math.ceil(max(log_t[-1], depth_t[-1] if len(depth_t) else 0.0) / STEP_S)
    grid_seen, grid_log = np.arange(math.ceil(seen.t[-1] / STEP_S) + 1) * STEP_S, np.arange(end + 1) * STEP_S
    least = max(OVERLAP_S, min(grid_seen[-1], grid_log[-1]) / 2) / STEP_S
    total: Floats | None = None
    first: Floats | None = None
    for picture, t, felt in pairs:
        if len(felt) < 3 or np.nanstd(felt) < QUIET or not np.isfinite(picture).any():
            continue
        rho, shared = correlation(_even(seen.t, picture, grid_seen), _even(t, felt, grid_log))
        rho[shared < least] = 0.0
        # Fisher's transformation: how far a correlation over `shared` samples is above chance
        worth = np.asarray(np.arctanh(rho.clip(-0.999, 0.999)) * np.sqrt(np.maximum(shared, 0)), np.float64)
        total = worth if total is None else total + np.maximum(worth, 0.0)
        first = rho if first is None else first
    if total is None or first is None:
        raise UserError("the vehicle of the log hardly moves: nothing to align by; say --offset SECONDS")
    lags = np.asarray((np.arange(len(total)) - (len(grid_seen) - 1)) * STEP_S, np.float64)
    found = _best(lags, total, first)
    _must_be_clear(found)
    return found


def _best(lags: Floats, total: Floats, first: Floats) -> Alignment:
    """The highest peak of the score `total`, and how far it is above the next best one elsewhere."""
    best = int(np.argmax(total))
    elsewhere = total[np.abs(lags - lags[best]) > APART_S]
    second = float(max(elsewhere.max(), 0.0)) if len(elsewhere) else 0.0
    clear = 1.0 - second / max(float(total[best]), TINY)  # also 1 where nothing fits at any offset
    confidence = max(0.0, min(clear, float(first[best])))
    return Alignment(float(lags[best]) + _between(total, best) * STEP_S, confidence, float(first[best]), lags, total)


def _must_be_clear(found: Alignment) -> None:
    """Raises UserError when the motion fits nowhere, or at several offsets."""
    if max(found.correlation, 0.0) < CORRELATION_MIN:
        raise UserError(
            f"the picture's motion does not fit the log's anywhere (best at {found.offset_s:.2f} s, where yaw"
            f" correlates to {found.correlation:.2f}; {CORRELATION_MIN} is needed); say --offset SECONDS"
        )
    if found.confidence < CONFIDENCE_MIN:
        raise UserError(
            f"the picture's motion fits the log's nearly as well at several places (best at {found.offset_s:.2f} s,"
            f" confidence {found.confidence:.2f}; {CONFIDENCE_MIN} is needed); say --offset SECONDS"
        )


def correlation(seen: Floats, felt: Floats) -> tuple[Floats, Floats]:
    """Pearson's correlation of two evenly sampled series at every lag, and the number of samples they share there.
    NaN samples are left out. Element i: `seen` begins i − (len(seen) − 1) samples after `felt`."""
    known_a, known_b = np.isfinite(seen).astype(float), np.isfinite(felt).astype(float)
    a, b = np.where(known_a > 0, seen, 0.0), np.where(known_b > 0, felt, 0.0)
    n, sum_a, sum_b, aa, bb, ab = (
        correlate(y, x, method="fft")
        for x, y in (
            (known_a, known_b), (a, known_b), (known_a, b), (a * a, known_b), (known_a, b * b), (a, b),
        )
    )  # fmt: skip
    n = np.maximum(n.round(), 1e-9)
    var_a, var_b = aa - sum_a**2 / n, bb - sum_b**2 / n
    floor_a, floor_b = TINY + 1e-3 * (a * a).sum(), TINY + 1e-3 * (b * b).sum()
    rho = (ab - sum_a * sum_b / n) / np.sqrt(np.maximum(var_a, floor_a) * np.maximum(var_b, floor_b))
    return np.asarray(rho.clip(-1, 1)), n


def plot(seen: Motion, states: list[VehicleState], found: Alignment, path: Path) -> None:
    """Plot the score over all offsets, and the yaw rate from the camera and from the gyro. Writes `path`. Raises
    ModuleNotFoundError without matplotlib, an optional part."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6), layout="constrained")
    score, yaw = figure.subplots(2, 1)
    score.plot(found.lags, found.scores, lw=0.8)
    score.axvline(found.offset_s, color="tab:red", lw=0.8)
    score.set_xlabel("offset of the video in the log, s")
    score.set_ylabel("score")
    score.set_title(f"offset {found.offset_s:.2f} s, confidence {found.confidence:.2f}")
    t = np.array([(state.t - states[0].t) / 1e9 for state in states])
    rate = np.array([state.rates[2] for state in states])
    shown = (t > found.offset_s - 5) & (t < found.offset_s + seen.t[-1] + 5)
    yaw.plot(t[shown], rate[shown], label="gyro, rad/s", lw=0.9)
    scale = float(np.nanstd(rate[shown]) / max(float(np.nanstd(seen.right)), TINY)) if shown.any() else 1.0
    yaw.plot(seen.t + found.offset_s, -seen.right * scale, label="picture, scaled", lw=0.9)
    yaw.set_xlabel("s in the log")
    yaw.legend()
    figure.savefig(path, dpi=100)


def _depths(states: list[VehicleState]) -> tuple[Floats, Floats]:
    """Times (s from the first state) and values (m) of all depth readings."""
    found: dict[int, float] = {state.depth_t: state.depth for state in states if state.depth_t is not None}
    times = sorted(found)
    return np.array([(t - states[0].t) / 1e9 for t in times]), np.array([found[t] for t in times])


def _even(t: Floats, values: Floats, grid: Floats) -> Floats:
    """Resample to an even grid and remove the drift; NaN in gaps."""
    good = np.isfinite(values)
    if good.sum() < 2:
        return np.full(len(grid), np.nan)
    t, values = t[good], values[good]
    even = np.interp(grid, t, values)
    after = np.searchsorted(t, grid).clip(1, len(t) - 1)
    known = (grid >= t[0]) & (grid <= t[-1]) & (t[after] - t[after - 1] <= max(GAP_S, 3 * float(np.median(np.diff(t)))))
    window = np.ones(max(3, round(DRIFT_S / STEP_S)))
    slow = np.convolve(np.where(known, even, 0.0), window, "same") / np.maximum(
        np.convolve(known.astype(float), window, "same"), 1.0
    )
    return np.asarray(np.where(known, even - slow[: len(even)], np.nan))


def _between(score: Floats, best: int) -> float:
    """The peak's position between samples, −0.5..0.5: the vertex of the parabola through three points."""
    if not 0 < best < len(score) - 1:
        return 0.0
    left, top, right = score[best - 1 : best + 2]
    bend = left - 2 * top + right
    return float(np.clip((left - right) / (2 * bend), -0.5, 0.5)) if bend < 0 else 0.0
