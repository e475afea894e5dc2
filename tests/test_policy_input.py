"""The policy's input: finite, bounded, the same for one and for many, blind to compass and place."""

from __future__ import annotations

import math

import pytest
import torch

from rov.steering.encoder import LOOKS, Encoder
from rov.steering.policy_input import (
    FEATURE_NAMES,
    FEATURES,
    TASKS,
    Sources,
    features,
    goal_heat,
    goal_size,
    log_odds,
    maps,
    view_of,
)
from rov.steering.policy_network import PolicyNetwork

VIEW = view_of(80.0, 640, 480)


def some(n: int, seed: int = 1) -> Sources:
    """Plausible sources, each with a goal for its task alone."""
    random = torch.Generator().manual_seed(seed)

    def draw(*shape: int, low: float = -1.0, high: float = 1.0) -> torch.Tensor:
        return low + (high - low) * torch.rand(*shape, generator=random)

    tracks = draw(n, 3, 7)
    tracks[..., 0] = (tracks[..., 0] > 0).float()
    tracks[..., 3:] = tracks[..., 3:].abs()
    goal = torch.where(draw(n, 4) > 0, torch.nan, draw(n, 4, low=0.5, high=6.0))
    return Sources(
        task=torch.randint(0, len(TASKS), (n,), generator=random),
        goal=goal,
        target_height=draw(n, low=0.1, high=2.0),
        tracks=tracks,
        moved=draw(n, 5) * 0.1,
        keyed=draw(n, 5) * 0.1,
        attitude=draw(n, 3) * 3,
        rates=draw(n, 3),
        depth=draw(n, low=0, high=30),
        start=torch.stack((draw(n) * 3, draw(n, low=0, high=30)), 1),
        cell_v=draw(n, low=3.2, high=4.2),
        previous=draw(n, 4),
        age_s=draw(n, low=0.02, high=0.2),
        dt_s=draw(n, low=0.06, high=0.12),
        view=draw(n, 2, low=0.6, high=1.0),
    )


def column(sources: Sources, name: str) -> float:
    return float(features(sources)[0, FEATURE_NAMES.index(name)])


def test_features_have_names_and_are_float32() -> None:
    found = features(some(5))
    assert found.shape == (5, FEATURES) and found.dtype == torch.float32
    assert len(set(FEATURE_NAMES)) == FEATURES


def test_how_sure_the_detector_is_says_nothing() -> None:
    """In the simulator a score would tell the range, as no real one does."""
    sources = some(4)
    other = sources._replace(
        tracks=torch.cat((sources.tracks[..., :5], 1 - sources.tracks[..., 5:6], sources.tracks[..., 6:]), dim=-1)
    )
    assert torch.equal(features(sources), features(other))
    clear = torch.zeros(4, 12, 16)
    here, there = (maps(clear, clear, clear, each.tracks, VIEW) for each in (sources, other))
    assert here[:, 2].max() > 0.5 and torch.equal(here, there)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf, 1e30, -1e30])
def test_features_and_maps_are_finite_and_bounded_whatever_comes_in(bad: float) -> None:
    for name in Sources._fields[1:]:
        sources = some(3)
        spoiled = sources._replace(**{name: torch.full_like(getattr(sources, name), bad)})
        assert features(spoiled).abs().max() <= 2.0, name
    wrong = torch.full((3, 12, 16), bad)
    spoiled_maps = maps(wrong, wrong, wrong, torch.full((3, 3, 7), bad), VIEW)
    assert torch.isfinite(spoiled_maps).all() and spoiled_maps.abs().max() <= 6.0


def test_one_vehicle_sees_what_its_row_of_many_sees() -> None:
    many = some(7)
    together = features(many)
    for i in range(7):
        alone = Sources(*(each[i : i + 1] for each in many))
        torch.testing.assert_close(features(alone)[0], together[i], rtol=0, atol=1e-6)
        torch.testing.assert_close(goal_heat(alone.tracks, VIEW)[0], goal_heat(many.tracks, VIEW)[i])


def test_a_compass_bias_and_a_place_change_nothing() -> None:
    sources = some(6)
    turned = sources.attitude + torch.tensor([0.0, 0.0, 1.1])
    elsewhere = sources._replace(
        attitude=turned,
        depth=sources.depth + 7,
        goal=sources.goal + torch.tensor([1.1, 7.0, 0.0, 0.0]),
        start=sources.start + torch.tensor([1.1, 7.0]),
    )
    torch.testing.assert_close(features(elsewhere), features(sources), rtol=0, atol=1e-5)


def test_a_goal_is_seen_relative_to_the_vehicle() -> None:
    sources = some(1)._replace(
        goal=torch.tensor([[math.pi / 2, 2.0, torch.nan, torch.nan]]),
        attitude=torch.zeros(1, 3),
        depth=torch.tensor([1.5]),
    )
    assert column(sources, "goal_heading_sin") == pytest.approx(1.0)
    assert column(sources, "goal_depth_near") == pytest.approx(math.tanh(1.0))
    assert column(sources, "goal_depth_given") == 1 and column(sources, "goal_height_given") == 0


def test_a_target_at_its_distance_is_as_large_as_the_goal_says() -> None:
    """0.6 m at 2 m through a lens that shows 2 × 0.75 m in 1 m: a fifth of the picture's height."""
    sources = some(1)._replace(
        goal=torch.tensor([[torch.nan, torch.nan, 2.0, torch.nan]]),
        target_height=torch.tensor([0.6]),
        view=torch.tensor([[1.0, 0.75]]),
        tracks=torch.tensor([[[1.0, 0.0, 0.0, 0.2, 0.0, 0.9, 1.0]] * 3]),
    )
    assert float(goal_size(sources)) == pytest.approx(0.2)
    assert column(sources, "goal_log_size") == pytest.approx(column(sources, "track_0_log_size")) != 0
    unknown = sources._replace(target_height=torch.tensor([torch.nan]))
    assert column(sources, "goal_size_given") == 1 and column(unknown, "goal_size_given") == 0
    assert column(unknown, "goal_log_size") == 0


def test_the_map_of_the_pipeline_shows_log_odds() -> None:
    found = log_odds(torch.tensor([0.0, 1e-4, 0.01, 0.5, 0.99, 1.0, torch.nan]))
    assert found[:6].tolist() == pytest.approx([0.0, 0.0, 0.501, 1.0, 1.499, 2.0], abs=1e-3)
    assert found[4] - found[3] == pytest.approx(float(found[3] - found[2])), "even steps for even odds"


def test_a_hidden_previous_setpoint_reads_as_not_known() -> None:
    shown, hidden = some(1), some(1)._replace(previous=torch.full((1, 4), torch.nan))
    assert column(shown, "previous_known") == 1 and column(hidden, "previous_known") == 0
    assert column(hidden, "previous_surge") == 0


def test_displacement_without_confidence_reads_as_none() -> None:
    unsure = some(1)._replace(moved=torch.tensor([[0.1, 0.1, 0.1, 0.1, 0.0]]))
    assert column(unsure, "moved_dx") == 0 and column(unsure, "moved_confidence") == 0


def test_heat_lies_where_the_track_is() -> None:
    bearing = math.atan(math.tan(math.radians(40)) * 0.5)  # half-way to the right edge
    tracks = torch.zeros(1, 3, 7)
    tracks[0, 0] = torch.tensor([1.0, bearing, 0.0, 0.2, 0.0, 1.0, 1.0])
    heat = goal_heat(tracks, VIEW)[0]
    row, across = divmod(int(heat.argmax()), 16)
    assert across in (11, 12) and row in (5, 6) and 0.5 < heat.max() <= 1.0
    assert heat[0, 0] < 0.01
    tracks[0, 0, 4] = 1.0
    assert float(goal_heat(tracks, VIEW)[0].max()) == pytest.approx(float(heat.max()) * math.exp(-1), rel=1e-4)


def test_networks_have_the_shapes_and_sizes_they_promise() -> None:
    torch.manual_seed(0)
    policy, encoder, sources = PolicyNetwork().eval(), Encoder().eval(), some(2)
    encoded = encoder(torch.rand(2, 3, 48, 64))
    assert encoded.inverse_range.shape == encoded.pipeline.shape == (2, 1, 12, 16)
    assert encoded.looks.shape == (2, LOOKS) and bool((encoded.inverse_range >= 0).all())
    seen = maps(encoded.inverse_range[:, 0], encoded.log_variance[:, 0], encoded.pipeline[:, 0], sources.tracks, VIEW)
    setpoint, spread, memory = policy(seen, features(sources), policy.initial_memory(2))
    assert setpoint.shape == spread.shape == (2, 4) and memory.shape == (2, 256)
    assert float(setpoint.detach().abs().max()) <= 1
    assert 150_000 <= sum(each.numel() for each in policy.parameters()) <= 220_000
    looks = torch.randn(500, LOOKS) * 3 + 1
    encoder.looks_mean, encoder.looks_whitening = looks.mean(0), torch.eye(LOOKS) / 3
    assert float(encoder.unlike(looks).mean()) == pytest.approx(1.0, abs=0.05)
    assert 60_000 <= sum(each.numel() for each in encoder.parameters()) <= 150_000


def test_the_policy_remembers() -> None:
    torch.manual_seed(0)
    policy, sources = PolicyNetwork().eval(), some(1)
    seen, numbers = torch.rand(1, 4, 12, 16), features(sources)
    first, _, memory = policy(seen, numbers, policy.initial_memory(1))
    second, _, _ = policy(seen, numbers, memory)
    assert not torch.allclose(first, second)
