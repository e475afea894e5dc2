"""The noise of what the rover sees, as numbers fitted to the shipped detector, encoder and displacement."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import msgspec

from rov import toml
from rov.errors import UserError

FILE = Path(__file__).parent / "noise.toml"


class NoiseError(UserError):
    """A noise file cannot be used."""


class RangeNoise(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Maps of inverse range and of a pipeline; meanings in noise.toml."""

    share: float
    half: float
    place: float
    floor: float
    said_floor: float
    fade: float
    fade_width: float
    unseen: float
    unseen_error: float
    haze: float
    haze_place: float
    haze_said: float
    persistent: float
    persistent_s: float
    log_variance_error: float
    target_shown: float
    pipeline_off: float
    pipeline_gap: float
    pipeline_gap_place: float
    pipeline_place: float
    pipeline_error: float


class TrackNoise(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Detector and tracker; meanings in noise.toml."""

    base: float
    per_log_size: float
    per_optical_depth: float
    at_edge: float
    per_turning: float
    burst_s: float
    sure: float
    sure_place: float
    sure_fish: float
    sure_fish_place: float
    bearing_error: float
    bearing_floor: float
    size_error: float
    size_mean: float
    size_slope: float
    size_place: float
    size_swing: float
    aspect_mean: float
    aspect_place: float
    tail: float
    score_error: float
    false_per_s: float
    false_s: float
    stones: float


class DisplacementNoise(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Displacement frame to frame and against the key frame; meanings in noise.toml."""

    error: float
    keyed_error: float
    scale_error: float
    roll_error: float
    reach: float
    clear: float
    lost_s: float


class Noise(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A noise file."""

    source: str
    range: RangeNoise
    tracks: TrackNoise
    """Of what is followed."""
    posts: TrackNoise
    """Of gates: a thin post is found by how large it is and how clear the water, a diver nearly always."""
    displacement: DisplacementNoise

    def of_tracks(self, task: str) -> TrackNoise:
        """Of the things that a task's tracks are of."""
        return self.posts if task == "transit" else self.tracks


@cache
def load(path: Path = FILE) -> Noise:
    """Raises NoiseError, which names file and key."""
    try:
        return toml.load(path, Noise)
    except (OSError, toml.TomlError) as error:
        raise NoiseError(f"{path}: cannot be used as noise: {error}") from None
