"""What the policy knows: one function from the rover's own instruments and perception to numbers, in the vehicle
(N = 1), in the simulator and in training (N = thousands).

Nothing that the real rover lacks, and nothing absolute that gives away a place or a compass's bias: headings and depths
are differences to the goal's and to those at engagement. Torch tensors, float32, N first.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from rov.steering.policy_card import VERSION as VERSION

TASKS = ("transit", "follow", "inspect", "station")
TRACKS, TRACK = 3, 7
"""Tracks of the goal's class that the policy sees, and numbers of each; see `Sources.tracks`."""
ROWS, COLUMNS = 12, 16
"""Size of the maps."""
MAPS = ("inverse_range", "log_variance", "goal_heat", "pipeline")
INVERSE_RANGE_MAX = 4.0
"""1/m: nothing nearer than 0.25 m can be told apart."""
LOG_VARIANCE = (-6.0, 3.0)
"""Limits of the inverse range's log variance."""
LEAST_PROBABILITY = 1e-4
"""Of a pipeline. Its map shows log odds, 0 here and 1 at a half: what is likely differs from water to water, and the
contrast to the rest of the picture says more than the number."""
KEY_S = 8.0
"""`station` takes its key frame this long after engagement: it turns to where it can hold best first. Other tasks have
none, because they travel: their `keyed` is zeros."""
FADE_S = 1.0
"""A hidden track's heat fades with this time constant."""


class Sources(NamedTuple):
    """Everything that the policy's input is computed from. NaN: not given, not measured or hidden."""

    task: Tensor
    """(N,) long, index into TASKS."""
    goal: Tensor
    """(N, 4) heading rad, depth m, distance m, height m."""
    target_height: Tensor
    """(N,) m: how high the followed thing is, as far as the operator knows. Its size in the picture then tells its
    distance far better than the maps do."""
    tracks: Tensor
    """(N, 3, 6) visible 0/1, bearing rad, elevation rad, size (share of the picture's height), hidden s, score: tracks
    of the goal's class, best first, zeros where there are none. A hidden track is `visible`, too: its estimate goes on,
    and `hidden` says for how long."""
    moved: Tensor
    """(N, 5) displacement of the picture since the last frame: dx, dy (share of the picture's width), log scale, roll
    rad, confidence 0..1."""
    keyed: Tensor
    """(N, 5) the same since the key frame."""
    attitude: Tensor
    """(N, 3) roll, pitch, yaw in rad."""
    rates: Tensor
    """(N, 3) body rates p, q, r in rad/s."""
    depth: Tensor
    """(N,) m."""
    start: Tensor
    """(N, 2) heading in rad and depth in m at engagement."""
    cell_v: Tensor
    """(N,) volts per battery cell."""
    previous: Tensor
    """(N, 4) the last setpoint."""
    age_s: Tensor
    """(N,) age of the frame."""
    dt_s: Tensor
    """(N,) time since the last frame."""
    view: Tensor
    """(N, 2) tangents of half the horizontal and vertical field of view."""


FEATURE_NAMES = (
    *(f"task_{name}" for name in TASKS),
    "goal_heading_given", "goal_heading_sin", "goal_heading_cos",
    "goal_depth_given", "goal_depth_near", "goal_depth_far",
    "goal_distance_given", "goal_distance", "goal_height_given", "goal_height", "goal_size_given", "goal_log_size",
    *(f"track_{i}_{name}" for i in range(TRACKS)
      for name in ("visible", "bearing", "elevation", "log_size", "hidden", "log_aspect")),
    *(f"moved_{name}" for name in ("dx", "dy", "scale", "roll", "confidence")),
    *(f"keyed_{name}" for name in ("dx", "dy", "scale", "dx_far", "dy_far", "scale_far", "roll", "confidence")),
    "roll", "pitch", "rate_p", "rate_q", "rate_r",
    "start_heading_sin", "start_heading_cos", "start_depth_near", "start_depth_far",
    "cell_v_known", "cell_v", "previous_known", "previous_surge", "previous_sway", "previous_heave", "previous_yaw",
    "age", "dt", "view_wide", "view_high",
)  # fmt: skip
"""What each column of `features` is."""
FEATURES = len(FEATURE_NAMES)


def features(sources: Sources) -> Tensor:
    """The numbers (N, FEATURES) that the policy sees beside the maps: finite, each within ±2, whatever comes in."""
    n = sources.task.shape[0]
    task = torch.nn.functional.one_hot(sources.task, len(TASKS)).to(torch.float32)
    parts = (
        task,
        _goal(sources),
        _goal_size(sources),
        _tracks(sources.tracks).reshape(n, -1),
        _moved(sources.moved, sources.dt_s),
        _keyed(sources.keyed),
        (sources.attitude[:, :2] / 0.5).clamp(-2, 2),
        torch.tanh(sources.rates / 0.5),
        _start(sources),
        _battery(sources.cell_v),
        _previous(sources.previous),
        (sources.age_s[:, None] / 0.2).clamp(0, 2),
        (sources.dt_s[:, None] / 0.1).clamp(0, 2),
        (2 * (sources.view - 0.8)).clamp(-2, 2),
    )
    return torch.cat([each.to(torch.float32) for each in parts], dim=1).nan_to_num().clamp(-2, 2)


def maps(inverse_range: Tensor, log_variance: Tensor, pipeline: Tensor, tracks: Tensor, view: Tensor) -> Tensor:
    """The maps (N, 4, ROWS, COLUMNS), in the order of MAPS. Inverse range in 1/m, its log variance and the probability
    of a pipeline, each (N, ROWS, COLUMNS); tracks as in Sources; `view` (N, 2) or (2,) as `goal_heat` wants it."""
    heat = goal_heat(tracks, view)
    channels = (
        inverse_range.clamp(0.0, INVERSE_RANGE_MAX),
        log_variance.clamp(*LOG_VARIANCE),
        heat,
        log_odds(pipeline),
    )
    return torch.nan_to_num(torch.stack(channels, dim=1).to(torch.float32))


def log_odds(probability: Tensor) -> Tensor:
    """0..2: 0 at LEAST_PROBABILITY, 1 at a half."""
    sure = probability.clamp(LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
    return 1 - torch.logit(sure) / math.log(LEAST_PROBABILITY / (1 - LEAST_PROBABILITY))


def goal_heat(tracks: Tensor, view: Tensor) -> Tensor:
    """Where the goal is in the picture (N, ROWS, COLUMNS), 0..1: a soft disc as high as each track's box, fading while
    hidden. `view`: tangents of half the horizontal and vertical field of view, (N, 2) or (2,)."""
    visible, bearing, elevation, size, hidden = tracks[..., :5].unbind(-1)  # each (N, 3)
    wide, high = view[..., 0:1], view[..., 1:2]
    bearing, elevation = bearing.clamp(-1.4, 1.4), elevation.clamp(-1.4, 1.4)
    x = torch.tan(bearing) / wide  # −1..1 over the picture
    y = torch.tan(elevation) / torch.cos(bearing) / high
    across = (2 * torch.arange(COLUMNS, device=tracks.device) + 1) / COLUMNS - 1  # centres of the cells
    down = (2 * torch.arange(ROWS, device=tracks.device) + 1) / ROWS - 1
    # Half the box's height plus half a cell, so that a distant goal still warms one cell.
    reach = size.clamp(0, 2) + 1 / ROWS
    apart_x = (across - x[..., None]) * (wide / high)[..., None] / reach[..., None]  # (N, 3, COLUMNS)
    apart_y = (down - y[..., None]) / reach[..., None]  # (N, 3, ROWS)
    disc = torch.exp(-(apart_x[..., None, :] ** 2 + apart_y[..., :, None] ** 2))
    weight = visible.clamp(0, 1) * torch.exp(-hidden.clamp(0, 10) / FADE_S)
    return torch.nan_to_num((disc * weight[..., None, None]).amax(1))


def _goal(sources: Sources) -> Tensor:
    """(N, 10) the goal relative to where the vehicle is."""
    heading, depth, distance, height = sources.goal.unbind(1)
    turn, dive = heading - sources.attitude[:, 2], depth - sources.depth
    columns = (
        _given(heading), torch.sin(turn), torch.cos(turn),
        _given(depth), torch.tanh(dive / 0.5), torch.tanh(dive / 4),
        _given(distance), torch.log2(distance.clamp(0.1, 100) / 2).clamp(-4, 4) / 2,
        _given(height), torch.log2(height.clamp(0.1, 100)).clamp(-4, 4) / 2,
    )  # fmt: skip
    return torch.nan_to_num(torch.stack(columns, dim=1))


def goal_size(sources: Sources) -> Tensor:
    """(N,) the size (share of the picture's height) that the followed thing has at the goal's distance; NaN where its
    height is not known."""
    return sources.target_height / (2 * sources.view[:, 1] * sources.goal[:, 2])


def _goal_size(sources: Sources) -> Tensor:
    """(N, 2) whether that size is known, and its logarithm, scaled as the tracks' is."""
    size = goal_size(sources)
    return torch.nan_to_num(torch.stack((_given(size), _log_size(size)), dim=1))


def _log_size(size: Tensor) -> Tensor:
    return torch.log(size.clamp(0.003, 3) / 0.1) / 2


def _tracks(tracks: Tensor) -> Tensor:
    """(N, 3, 6) scaled, zeros where there is no track. Not the score: how sure a detector is of a thing differs from
    water to water and class to class, and a simulator that makes it a matter of range teaches to read the range in
    it. The aspect says from which side a diver is seen: from behind, the fins are nearer and look it."""
    visible, bearing, elevation, size, hidden, _, aspect = tracks.unbind(-1)
    columns = (
        visible,
        bearing.clamp(-2, 2),
        elevation.clamp(-2, 2),
        _log_size(size),
        hidden.clamp(0, 2),
        torch.log(aspect.clamp(0.05, 20)),
    )
    return torch.stack(columns, dim=-1) * visible[..., None].clamp(0, 1)


def _moved(moved: Tensor, dt_s: Tensor) -> Tensor:
    """(N, 5) as speeds per second, weighed by the confidence: no answer is zero, not "standing still"."""
    dx, dy, scale, roll, confidence = moved.unbind(1)
    sure, dt = confidence.clamp(0, 1), dt_s.clamp(0.02, 1)
    columns = (torch.tanh(2 * dx / dt), torch.tanh(2 * dy / dt), torch.tanh(2 * scale / dt), torch.tanh(2 * roll / dt))
    return torch.stack([*(each.nan_to_num() * sure for each in columns), sure], dim=1)


def _keyed(keyed: Tensor) -> Tensor:
    """(N, 8) near and far scales of the displacement since the key frame, weighed by the confidence."""
    dx, dy, scale, roll, confidence = keyed.unbind(1)
    sure = confidence.clamp(0, 1)
    columns = (
        *(torch.tanh(10 * each) for each in (dx, dy, scale)),
        *(torch.tanh(2 * each) for each in (dx, dy, scale)),
    )
    return torch.stack([*(each.nan_to_num() * sure for each in (*columns, torch.tanh(2 * roll))), sure], dim=1)


def _start(sources: Sources) -> Tensor:
    """(N, 4) heading and depth since engagement."""
    turn, dive = sources.start[:, 0] - sources.attitude[:, 2], sources.start[:, 1] - sources.depth
    return torch.stack((torch.sin(turn), torch.cos(turn), torch.tanh(dive / 0.5), torch.tanh(dive / 4)), dim=1)


def _battery(cell_v: Tensor) -> Tensor:
    """(N, 2) whether it is measured, and how it lies about the 3.7 V of a half-full cell."""
    return torch.stack((_given(cell_v), ((cell_v - 3.7) / 0.5).clamp(-2, 2).nan_to_num()), dim=1)


def _previous(previous: Tensor) -> Tensor:
    """(N, 5) whether the last setpoint is shown, and that setpoint."""
    return torch.cat((_given(previous[:, 0])[:, None], previous.clamp(-1, 1).nan_to_num()), dim=1)


def _given(value: Tensor) -> Tensor:
    return torch.isfinite(value).to(torch.float32)


def view_of(hfov_deg: float, width: int, height: int) -> Tensor:
    """(2,) tangents of half the horizontal and vertical field of view of a pinhole camera, for `goal_heat`."""
    wide = math.tan(math.radians(hfov_deg) / 2)
    return torch.tensor([wide, wide * height / width], dtype=torch.float32)
