"""The steering tasks: hand-computed rewards, bumps that are felt, ranges, energy, and what a seed repeats."""

from __future__ import annotations

import itertools
import math
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from rov.steering.encoder import Encoder
from rov.steering.policy_input import COLUMNS, KEY_S, ROWS, Sources, features
from sim.evaluation.rows import noiseless
from sim.scene.lens import Lens
from sim.scene.render import Renderer
from sim.scene.shapes import Paint, ball, rod
from sim.scene.things.diver import diver
from sim.tasks import follow, inspect, station, transit
from sim.tasks.caster import cast, rays
from sim.tasks.controllers import Controller, servo, zero
from sim.tasks.course import Course, Targets, fish, kicks, laid, progress
from sim.tasks.drift import Frame, flow
from sim.tasks.found import ARMS_AHEAD, FINS_BEHIND, Seen, choose, find, project, start_tracker, swing
from sim.tasks.judging import Situation, start_tally
from sim.tasks.levels import LEVELS
from sim.tasks.noise import load as load_noise
from sim.tasks.picture_maps import around_target, picture_maps, start_errors
from sim.tasks.pid import PID, pid
from sim.tasks.rendered import RenderedSea
from sim.tasks.scenes import _ends, heading, label, look, middle, scene, tall
from sim.tasks.sea import TASK, Sea, Trouble
from sim.tasks.solids import HULL_M, KEEL_M, NOWHERE_M, Solids, bump
from sim.tasks.tuned import start
from sim.vehicle import DT, model, rest, rotation

pytestmark = pytest.mark.patient

CPU = torch.device("cpu")


def solids(balls: list[list[float]], rods: list[list[float]] | None = None, bottom: float = 9.0) -> Solids:
    """The same around one vehicle."""
    made = torch.tensor([balls]).reshape(1, -1, 4)
    return Solids(
        made,
        torch.zeros(1, made.shape[1], 3),
        torch.tensor([rods or []]).reshape(1, -1, 8),
        torch.tensor([bottom]),
        torch.tensor([[-1e4, 1e4, -1e4, 1e4]]),
    )


def situation(task: str, n: int = 4, **changes: Any) -> Situation:
    """Vehicles at the start of an easy course, a tenth of a second after it, that touched nothing."""
    random = torch.Generator().manual_seed(0)
    course = TASK[task].course(LEVELS["easy"], "train", n, random)
    start = torch.stack([torch.zeros(n), torch.zeros(n), course.depth], dim=1)
    told = Situation(
        course, start, start, course.heading, torch.full((n, 3), math.nan), torch.full((n,), 5.0),
        torch.zeros(n, dtype=torch.bool), torch.ones(n, dtype=torch.bool), torch.full((n,), 8.0), 0.1,
        torch.full((n,), 0.1), start_tally(n, CPU),
    )  # fmt: skip
    return told._replace(**changes)


# ---- rewards, success, failure and time-out ------------------------------------------------------------------------


def test_transit_pays_for_progress_and_asks_for_energy_and_time() -> None:
    now = situation("transit")
    moved = torch.cat([laid(now.course.goal[:, 0], torch.full((4, 1), 0.5), torch.zeros(4, 1))[:, 0]], dim=0)
    deep = now.course.goal[:, 1] + 0.2
    now = now._replace(position=torch.cat([moved, deep[:, None]], dim=1), gap=torch.full((4,), 0.1))
    verdict = transit.judge(now)
    scales = transit.SCALES
    assert verdict.rewards["progress"] == pytest.approx(torch.full((4,), 0.5 * scales["progress"]), abs=1e-5)
    assert verdict.rewards["energy"] == pytest.approx(torch.full((4,), 8.0 * scales["energy"]))
    assert verdict.rewards["time"] == pytest.approx(torch.full((4,), 0.1 * scales["time"]))
    assert verdict.rewards["near"] == pytest.approx(torch.full((4,), 0.8 * 0.1 * scales["near"]), abs=1e-6)
    assert verdict.rewards["depth"] == pytest.approx(torch.full((4,), 0.2 * 0.1 * scales["depth"]), abs=1e-5)
    assert not (verdict.success | verdict.failed | verdict.timed_out).any()


def test_transit_succeeds_past_its_length_and_fails_beside_a_gate() -> None:
    now = situation("transit")
    heading, length, gate = now.course.goal[:, 0], now.course.length, now.course.gates[:, 0]
    deep = now.course.goal[:, 1:2]

    def at(along: torch.Tensor, across: torch.Tensor) -> torch.Tensor:
        return torch.cat([laid(heading, along[:, None], across[:, None])[:, 0], deep], dim=1)

    zeros = torch.zeros(4)
    ended = transit.judge(now._replace(before=at(length - 0.1, zeros), position=at(length + 0.1, zeros)))
    assert ended.success.all() and not (ended.failed | ended.timed_out).any()
    assert ended.rewards["success"] == pytest.approx(torch.full((4,), transit.SCALES["success"]))

    through = transit.judge(
        now._replace(before=at(gate[:, 0] - 0.1, gate[:, 1]), position=at(gate[:, 0] + 0.1, gate[:, 1]))
    )
    assert not through.failed.any() and not through.tally.missed.any()
    beside = gate[:, 1] + gate[:, 2] + 0.2
    missed = transit.judge(now._replace(before=at(gate[:, 0] - 0.1, beside), position=at(gate[:, 0] + 0.1, beside)))
    assert missed.failed.all() and missed.tally.missed.all()


@pytest.mark.parametrize("task", ["transit", "inspect"])
def test_a_time_out_is_no_failure(task: str) -> None:
    late = TASK[task].judge(situation(task, elapsed=torch.full((4,), TASK[task].TIME_S)))
    assert late.timed_out.all() and not (late.failed | late.success).any()
    bumped = TASK[task].judge(
        situation(task, elapsed=torch.full((4,), TASK[task].TIME_S), touched=torch.ones(4, dtype=torch.bool))
    )
    assert bumped.failed.all() and not bumped.timed_out.any()


@pytest.mark.parametrize("task", list(TASK))
def test_a_touch_fails_everywhere(task: str) -> None:
    verdict = TASK[task].judge(situation(task, touched=torch.tensor([True, False, False, False])))
    assert verdict.failed.tolist() == [True, False, False, False]
    assert verdict.rewards["collision"].tolist() == [TASK[task].SCALES["collision"], 0.0, 0.0, 0.0]


def test_follow_counts_the_time_in_the_band() -> None:
    now = situation("follow", elapsed=torch.full((4,), 20.0))
    to = torch.tensor([1.0, 0.0, 0.0]) * now.course.goal[:, 2:3]
    far = torch.tensor([[1.0], [1.3], [1.4], [1.0]])
    now = now._replace(
        position=now.course.targets.position[:, 0] - far * to, in_picture=torch.tensor([True, True, True, False])
    )
    tally = follow.judge(now).tally
    assert tally.good.tolist() == pytest.approx([0.1, 0.1, 0.0, 0.0])
    assert tally.lost.tolist() == pytest.approx([0.0, 0.0, 0.0, 0.1])

    counted = start_tally(4, CPU)._replace(counted=torch.full((4,), 30.0), good=torch.tensor([29.0, 23.0, 21.0, 0.0]))
    over = follow.judge(now._replace(elapsed=torch.full((4,), follow.TIME_S), tally=counted))
    assert over.success.tolist() == [True, True, False, False] and over.failed.tolist() == [False, False, True, True]


def test_follow_gives_up_a_target_out_of_the_picture() -> None:
    lost = start_tally(4, CPU)._replace(lost=torch.tensor([0.0, 3.0, follow.LOST_S, follow.LOST_S]))
    unseen = torch.tensor([False, False, False, True])
    assert follow.judge(situation("follow", tally=lost, in_picture=unseen)).failed.tolist() == [
        False,
        False,
        True,
        False,
    ]


def test_inspect_wants_the_height_and_the_pipe() -> None:
    now = situation("inspect")
    pipe = now.course.gates[:, 0, 1]
    off = torch.tensor([0.0, 0.5, 0.7, 2.6])
    place = laid(now.course.goal[:, 0], torch.full((4, 1), 2.0), (pipe + off)[:, None])[:, 0]
    deep = now.course.solids.bottom - now.course.goal[:, 3]
    verdict = inspect.judge(now._replace(position=torch.cat([place, deep[:, None]], dim=1)))
    assert verdict.tally.good.tolist() == pytest.approx([0.1, 0.1, 0.0, 0.0])
    assert verdict.failed.tolist() == [False, False, False, True]
    assert verdict.rewards["across"] == pytest.approx(inspect.SCALES["across"] * 0.1 * off, abs=1e-5)


def test_station_counts_from_its_key_frame() -> None:
    now = situation("station")
    key = now.position.clone()
    off = torch.tensor([0.0, 0.4, 0.6, 3.1])
    away = now.position + torch.stack([off, torch.zeros(4), torch.zeros(4)], dim=1)
    before = station.judge(now._replace(position=away, elapsed=torch.full((4,), KEY_S - 1)))
    assert not before.failed.any() and not before.tally.counted.any(), "it may turn and drift before"
    holding = station.judge(now._replace(position=away, key=key, elapsed=torch.full((4,), KEY_S + 1)))
    assert holding.tally.good.tolist() == pytest.approx([0.1, 0.1, 0.0, 0.0])
    assert holding.failed.tolist() == [False, False, False, True]


# ---- things are felt ---------------------------------------------------------------------------------------------


def test_a_vehicle_stops_at_a_rock() -> None:
    vehicle = model("heavy")
    state = rest(vehicle, 1, 3.0)._replace(velocity=torch.tensor([[0.5, 0.2, 0.0]]))
    rock = solids([[1.0, 0.0, 3.0, 0.8]])
    after, touched = bump(rock, state._replace(position=torch.tensor([[-0.04, 0.0, 3.0]])))
    assert touched.ball.all() and touched.anything.all()
    assert float(touched.speed) == pytest.approx(0.5, abs=1e-4)
    assert after.velocity[0].tolist() == pytest.approx([0.0, 0.2, 0.0], abs=1e-5), "it slides along"
    assert float((after.position[0] - torch.tensor([1.0, 0.0, 3.0])).norm()) == pytest.approx(0.8 + HULL_M, abs=1e-5)
    free, touched = bump(rock, state._replace(position=torch.tensor([[-0.2, 0.0, 3.0]])))
    assert not touched.anything.any() and free.velocity[0].tolist() == pytest.approx([0.5, 0.2, 0.0])


def test_post_bottom_and_wall_are_felt() -> None:
    vehicle = model("heavy")
    state = rest(vehicle, 1, 3.0)._replace(velocity=torch.tensor([[0.3, 0.0, 0.2]]))
    post = solids([], [[0.2, 0.0, 3.5, 0.0, 0.0, 1.0, 0.6, 0.05]])
    after, touched = bump(post, state)
    assert touched.rod.all() and after.velocity[0].tolist() == pytest.approx([0.0, 0.0, 0.2], abs=1e-5)
    low = solids([], bottom=3.0 + KEEL_M - 0.01)
    after, touched = bump(low, state)
    assert touched.bottom.all() and float(after.velocity[0, 2]) == pytest.approx(0.0, abs=1e-6)
    assert float(after.position[0, 2]) == pytest.approx(2.99, abs=1e-5)
    walled = solids([])._replace(walls=torch.tensor([[-1e4, 0.1, -1e4, 1e4]]))
    after, touched = bump(walled, state)
    assert touched.wall.all() and float(after.velocity[0, 0]) == pytest.approx(0.0, abs=1e-6)


@torch.no_grad()
def test_full_ahead_into_rocks_ends_in_failure() -> None:
    sea = Sea("transit", "hard", 96, seed=2, auto_reset=False)
    sea.reset()
    ahead = torch.zeros(96, 4)
    ahead[:, 0] = 1.0
    over, touched = torch.zeros(96, dtype=torch.bool), torch.zeros(96, dtype=torch.bool)
    for _ in range(300):
        _, _, outcome = sea.step(ahead)
        touched |= outcome.touched & outcome.failed & ~over
        over |= outcome.done
    gaps = (sea.state.position[:, None] - sea.course.solids.balls[..., :3]).norm(dim=-1) - sea.course.solids.balls[
        ..., 3
    ]
    assert touched.sum() >= 18, "blind, it runs into something often"
    assert float(gaps.min()) > HULL_M - 0.01, "and never through it"


# ---- what is seen ------------------------------------------------------------------------------------------------


def test_rays_meet_balls_rods_bottom_and_surface() -> None:
    view = torch.tensor([[0.8, 0.6]])
    eye, level = torch.tensor([[0.0, 0.0, 4.0]]), torch.eye(3)[None]
    around = solids([[5.0, 0.0, 4.0, 1.0]], [[3.0, -1.5, 4.0, 0.0, 0.0, 1.0, 0.6, 0.3]], bottom=6.0)
    met = cast(around, rays(view), eye, level)
    every = rays(view)[0].reshape(ROWS, COLUMNS, 3)
    ahead, right, down = every[5, 7].tolist()
    b = 5.0 * ahead
    assert float(met.range[0, 5, 7]) == pytest.approx(b - math.sqrt(b * b - (25 - 1)), abs=1e-4)
    for row in (0, ROWS - 1):
        *_, down = every[row, 15].tolist()
        assert float(met.range[0, row, 15]) == pytest.approx((2.0 if down > 0 else 4.0) / abs(down), rel=1e-4)
        assert bool(met.surface[0, row, 15]) == (down < 0)
    column = int(met.rod[0, 0, 5].nonzero()[0])
    assert float(met.range[0, 5, column]) == pytest.approx(math.hypot(3.0, 1.5) - 0.3, abs=0.15)
    assert not met.rod[0, 0, 5, 12:].any()


def test_displacement_reads_a_step_aside() -> None:
    """10 cm to the right, 2 m from a wall all around, at 80°: everything moves left by 0.1 / (2 · 2 tan 40°)."""
    view = torch.tensor([[math.tan(math.radians(40)), 0.6]])
    near = torch.full((1, ROWS * COLUMNS), 0.5)
    before = Frame(near, torch.ones_like(near), torch.zeros(1, 3), torch.eye(3)[None], torch.zeros(1))
    aside = flow(rays(view), view, before, torch.tensor([[0.0, 0.1, 0.0]]))[0].tolist()
    assert aside == pytest.approx([-0.1 / (4 * math.tan(math.radians(40))), 0.0, 0.0, 0.0], abs=1e-6)
    ahead = flow(rays(view), view, before, torch.tensor([[0.1, 0.0, 0.0]]))[0].tolist()
    assert ahead == pytest.approx([0.0, 0.0, math.log1p(0.05), 0.0], abs=1e-6)


@pytest.mark.parametrize("task", list(TASK))
def test_observations_are_finite_and_bounded(task: str) -> None:
    sea = Sea(task, "hard", 24, seed=5)
    sources, maps = sea.reset()
    assert isinstance(sources, Sources) and maps.shape == (24, 4, ROWS, COLUMNS)
    for _ in range(25):
        sources, maps, outcome = sea.step(torch.rand(24, 4, generator=torch.Generator().manual_seed(1)) * 2 - 1)
        assert torch.isfinite(maps).all() and torch.isfinite(features(sources)).all()
        assert torch.isfinite(outcome.reward).all()
    given = torch.isfinite(sources.goal[0]).tolist()
    assert given == {"transit": [1, 1, 0, 0], "follow": [0, 0, 1, 0], "inspect": [1, 0, 0, 1], "station": [0] * 4}[task]


def test_a_false_box_does_not_exist_from_the_start() -> None:
    kicks = torch.ones(3, 2) > 0
    assert start_tracker(kicks, ~kicks, torch.Generator()).missed.tolist() == [[False, False, True]] * 3


# ---- the sea as a whole --------------------------------------------------------------------------------------------


def sailed(seed: int, **options: object) -> tuple[torch.Tensor, torch.Tensor]:
    sea = Sea("follow", "nominal", 16, seed=seed, **options)  # type: ignore[arg-type]
    sources, maps = sea.reset()
    joules = torch.zeros(16)
    for _ in range(20):
        setpoint, _ = servo(sources, maps, sea.truth(), None)
        sources, maps, outcome = sea.step(setpoint)
        joules += outcome.joules
    return sea.state.position, joules


def test_a_target_is_drawn_too_large_for_a_whole_episode() -> None:
    """Of each target by another factor; what is small in the picture by more than what is large."""
    number, places = 2000, torch.tensor([0.05, 0.4]).log()
    truth = Seen(
        torch.stack([torch.zeros(2), torch.zeros(2), places, places], dim=-1).expand(number, 2, 4),
        torch.ones(number, 2), torch.ones(number, 2, dtype=torch.bool), torch.zeros(number, 2, dtype=torch.bool),
        torch.ones(number, 2, 2),
    )  # fmt: skip
    sea = Sea("follow", "nominal", number, seed=0)
    sea.reset()
    noise = msgspec.structs.replace(
        load_noise().tracks, base=20.0, per_turning=0.0, at_edge=0.0, bearing_error=0.0, bearing_floor=0.0,
        size_error=0.0, size_mean=0.1, size_slope=-0.2, size_place=0.3, false_per_s=0.0, sure=20.0,
    )  # fmt: skip
    random, zero = torch.Generator().manual_seed(1), torch.zeros(number)
    posts = torch.zeros(number, 2) > 0
    memory = start_tracker(posts, posts, random)
    for _ in range(3):
        tracks, memory = find(noise, sea.conditions, truth, zero, zero, memory, 0.1, random)
    off = memory.place[:, :2, 2] - places
    expected = [0.1 - 0.2 * math.log(0.5), 0.1 - 0.2 * math.log(4)]
    assert off.mean(0).tolist() == pytest.approx(expected, abs=0.03)
    assert off.std(0).tolist() == pytest.approx([0.3, 0.3], abs=0.03)
    assert tracks.isfinite().all()


def two_in_sight(number: int) -> tuple[Seen, Sea]:
    """Two targets straight ahead of each vehicle, a fifth of the picture high."""
    sea = Sea("follow", "nominal", number, seed=0)
    sea.reset()
    return Seen(
        torch.tensor([0.0, 0.0, math.log(0.2), math.log(0.2)]).expand(number, 2, 4), torch.ones(number, 2),
        torch.ones(number, 2, dtype=torch.bool), torch.zeros(number, 2, dtype=torch.bool), torch.ones(number, 2, 2),
    ), sea  # fmt: skip


def test_a_weak_box_goes_on_with_a_track_and_begins_none() -> None:
    """Of two targets that are always found the first is sure in 3 of 10 frames, until it is tracked."""
    number = 2000
    truth, sea = two_in_sight(number)
    noise = msgspec.structs.replace(noiseless(load_noise()).tracks, sure=math.log(0.3 / 0.7))
    random, zero = torch.Generator().manual_seed(1), torch.zeros(number)
    posts = torch.zeros(number, 2) > 0
    memory = start_tracker(posts, posts, random)
    known = []
    for _ in range(40):
        _, memory = find(noise, sea.conditions, truth, zero, zero, memory, 0.08, random)
        known.append((memory.hits[:, 0] >= 2).float().mean().item())
    assert known[0] == 0 and known[1] == pytest.approx(0.3 * 0.3, abs=0.02), "twice in a row"
    assert known == sorted(known) and known[-1] > 0.9, "and then for good"


def test_stones_look_like_fish_to_who_follows_one() -> None:
    """A stone straight ahead is tracked for as long as it is in sight, and lies still."""
    clear = noiseless(load_noise())
    noise = msgspec.structs.replace(clear, tracks=msgspec.structs.replace(clear.tracks, stones=2.0))
    sea = Sea("follow", "nominal", 400, seed=0, noise=noise)
    sea.reset()
    there = sea.stones.position[..., 0] < NOWHERE_M
    followed = fish(sea.course)[:, 0]
    assert 0.45 < there[followed].float().mean() < 0.55 and not there[~followed].any(), "two of four, beside fish"
    on_ground = sea.course.solids.bottom[:, None] - sea.stones.position[..., 2]
    assert ((on_ground > 0) & (on_ground < 0.2))[there].all()
    ahead = laid(sea.course.heading, torch.full((400, 4), 2.5), torch.zeros(400, 4))
    place = torch.cat([ahead, sea.state.position[:, None, 2:].expand(400, 4, 1) + 0.3], dim=-1)
    sea.stones = sea.stones._replace(position=torch.where(there[..., None], place, sea.stones.position))
    for _ in range(3):
        sources, _, _ = sea.step(torch.zeros(400, 4))
    many = sources.tracks[..., 0].sum(1)
    some = there.any(1)
    assert (many[some] >= torch.minimum(there.sum(1), torch.tensor(3))[some]).all() and many[~some].max() <= 1
    sizes = sea.stones.height / 2.5 / (2 * sea.conditions.view[:, 1:])
    only = there.sum(1) == 1
    of_stone = (sources.tracks[only][..., 3] - sizes[only][there[only]][:, None]).abs().amin(1)
    assert (of_stone < 0.1 * sizes[only][there[only]] + 0.005).all()
    without = Sea("follow", "nominal", 400, seed=0, noise=clear)
    without.reset()
    assert without.stones.height.shape == (400, 0) and torch.equal(without.course.goal[:, 2], sea.course.goal[:, 2])


def test_who_is_followed_stays_first() -> None:
    """As the daemon's tracks: the same until it is lost, then the largest and surest of those seen now."""

    def rows(*sizes: float) -> torch.Tensor:
        """Tracks of these sizes, negative ones hidden; 0: none."""
        made = [[float(s != 0), 0.0, 0.0, abs(s), float(s < 0), 0.9, 1.0] for s in sizes]
        return torch.tensor([made])

    nobody = torch.tensor([-1])
    first = choose(rows(0.1, 0.2, 0.0), nobody)
    assert first.item() == 1
    assert choose(rows(0.5, 0.2, 0.0), first).item() == 1, "another is larger now"
    assert choose(rows(0.5, -0.2, 0.0), first).item() == 1, "hidden for a moment"
    assert choose(rows(0.1, 0.0, 0.3), first).item() == 2, "lost"
    assert choose(rows(-0.1, 0.0, 0.0), nobody).item() == -1, "nothing is seen now"
    assert choose(rows(0.0, 0.0, 0.0), first).item() == -1


def test_a_divers_height_swings_and_a_fishs_does_not() -> None:
    """100 frames of both, always found: a diver's body is 0.78 of its mean height, the fins are up to 1.31 apart."""
    number = 300
    truth, sea = two_in_sight(number)
    noise = msgspec.structs.replace(noiseless(load_noise()).tracks, size_swing=1.0, tail=4.0)
    random, zero = torch.Generator().manual_seed(1), torch.zeros(number)
    divers = torch.tensor([True, False]).expand(number, 2)
    memory = start_tracker(divers, ~divers, random)
    sizes = []
    for _ in range(100):
        _, memory = find(noise, sea.conditions, truth, zero, zero, memory, 0.08, random)
        sizes.append(memory.place[:, :2, 2] - math.log(0.2))
    off = torch.stack(sizes)[20:]
    assert off[..., 1].abs().max() < 1e-3
    assert 0.18 < off[..., 0].amax(0).median() <= math.log(1.31), "the tracker smooths it a little"
    assert -0.26 < off[..., 0].amin(0).median() < -0.1
    assert off[..., 0].mean().abs() < 0.03


def test_from_behind_a_diver_looks_larger_than_from_before() -> None:
    """2 m ahead, 0.6 m high: the fins end 1.32 · 0.6 m nearer to who follows, so that they look 1.66 times as large."""
    targets = Targets(
        torch.tensor([[[2.0, 0.0, 3.0]]]), torch.tensor([[[0.3, 0.0, 0.0]]]), torch.zeros(1, 1), torch.full((1, 1), 0.6)
    )
    sea = Sea("transit", "nominal", 1, seed=0)
    sea.reset()
    here, straight = torch.tensor([[0.0, 0.0, 3.0]]), torch.eye(3)[None]

    def height(velocity: list[float]) -> list[float]:
        turned = targets._replace(velocity=torch.tensor([[velocity]]))
        seen = project(turned, sea.course.solids, False, sea.conditions, here, straight)
        return [float(swing(seen.ends, torch.full((1, 1), phase)).exp()) for phase in (0.0, math.pi / 2)]

    away, beside, towards = height([0.3, 0.0, 0.0]), height([0.0, 0.3, 0.0]), height([-0.3, 0.0, 0.0])
    assert beside == pytest.approx([0.78, 1.31])
    assert away == pytest.approx([0.78 * 2 / (2 + 1.03 * 0.6), 1.31 * 2 / (2 - 1.32 * 0.6)])
    assert towards == pytest.approx([0.78 * 2 / (2 - 1.03 * 0.6)] * 2), "the fins are behind the arms"


@pytest.mark.parametrize("side", [0, 60, 120, 180])
def test_the_swing_is_the_geometrys(side: int) -> None:
    """The sea's heights of a diver are the renderer's, from any side: on average over a beat, at most, at least."""
    parts = diver(np.random.default_rng(3), (0.0, 0.0, 3.0), 6.0, 1.0)[0].parts
    ahead, down = middle(parts)
    high, angle, beat = tall(parts), math.radians(side), max(part.hertz for part in parts)
    for distance in (2.5, 4.0):  # heights of it
        toward = np.array([math.cos(angle), math.sin(angle), 0.0])
        eye = np.array([ahead, 0.0, down]) - distance * high * toward
        seen = []
        for t in np.linspace(0, 1 / beat, 24, endpoint=False):
            ends = np.concatenate([_ends(part, t) for part in parts], axis=1)
            along = (ends[..., :2].mean(0) - eye[:2]) @ toward[:2]
            seen.append(np.log(np.ptp((ends[..., 2] - eye[2]) / along) * distance))
        facing = math.cos(angle)
        near = torch.tensor([distance / (distance + ARMS_AHEAD * facing), distance / (distance - FINS_BEHIND * facing)])
        made = swing(near, torch.linspace(0, math.pi, 25)[:-1])
        assert np.mean(seen) == pytest.approx(float(made.mean()), abs=0.05)
        assert np.max(seen) == pytest.approx(float(made.max()), abs=0.15)
        assert np.min(seen) == pytest.approx(float(made.min()), abs=0.2)
    sea = Sea("transit", "nominal", 4, seed=0)
    sea.reset()
    assert not kicks(sea.course).any() and not fish(sea.course).any(), "gate posts have no fins"


def test_a_box_ends_where_the_picture_ends() -> None:
    """A target 1 m ahead, 0.6 m high: 0.4 of a picture that shows 1.5 m. Its middle on the lower edge, only the upper
    half is to be seen, around 0.6 m down."""
    sea = Sea("follow", "nominal", 3, seed=0)
    sea.reset()
    wide = sea.conditions._replace(view=torch.tensor([[1.0, 0.75]]).expand(3, 2))
    places = torch.tensor([[[1.0, 0.0, 0.0]], [[1.0, 0.0, 0.749999]], [[0.1, 0.0, 0.0]]])
    targets = sea.course.targets._replace(position=places, height=torch.full((3, 1), 0.6))
    seen = project(targets, sea.course.solids, True, wide, torch.zeros(3, 3), torch.eye(3).expand(3, 3, 3)).place[:, 0]
    assert seen[:2, 2].exp().tolist() == pytest.approx([0.4, 0.2], rel=1e-4)
    assert seen[:2, 1].tolist() == pytest.approx([0.0, math.atan(0.6)], abs=1e-4)
    assert seen[2, 2].exp().item() == pytest.approx(1.0), "no box is higher than the picture"


def test_cells_of_the_followed_thing_are_partly_water() -> None:
    """A ball at 2 m in front of nothing: it shows between none and `target_shown` of its 0.5/m, the same for as long as
    the episode lasts; whatever else there is shows all."""
    noise = msgspec.structs.replace(load_noise().range, target_shown=0.8)
    far, behind = torch.full((400, 1, 2), 2.0), torch.tensor([[[1e6, 2.0]]]).expand(400, 1, 2)
    errors = start_errors(400, *[torch.Generator().manual_seed(0)] * 2)
    seen = 1 / around_target(noise, far, behind, errors)
    assert seen[:, 0, 1].tolist() == pytest.approx([0.5] * 400)
    shown = seen[:, 0, 0] / 0.5
    assert shown.min() < 0.02 and 0.78 < shown.max() <= 0.8 and shown.mean().item() == pytest.approx(0.4, abs=0.04)
    assert torch.equal(1 / around_target(noise, far, behind, errors), seen)


def test_some_places_are_hazy_and_the_encoder_says_so() -> None:
    """Nothing for 100 m: what is said of it is the place's haze, log-normal, and 1.6 of it may be error."""
    noise = msgspec.structs.replace(noiseless(load_noise()).range, haze=0.03, haze_place=1.0, haze_said=1.6)
    sea, random = Sea("station", "easy", 2000, seed=0), torch.Generator().manual_seed(0)
    sea.reset()
    far, pipe = torch.full((2000, ROWS, COLUMNS), 100.0), torch.zeros(2000, ROWS, COLUMNS) > 0
    errors = start_errors(2000, random, random)
    maps, later = picture_maps(noise, sea.conditions, far, pipe, errors, 0.1, random)
    whole = (maps.inverse_range - 0.01).flatten(1).median(1).values
    assert whole.quantile(torch.tensor([0.1, 0.5, 0.9])).tolist() == pytest.approx([0.0083, 0.03, 0.108], rel=0.15)
    hazy = whole > 0.1
    said = (maps.log_variance / 2).exp().mean((1, 2))
    assert (said[hazy] / whole[hazy]).median().item() == pytest.approx(1.6, rel=0.1)
    assert said[~hazy].max() < said[hazy].max() and torch.equal(later.haze, errors.haze), "for a whole episode"


def test_a_pipeline_stands_out_more_in_one_place_than_in_another() -> None:
    """On the right half of the picture, 2 m away: log odds of 4 ± 2 over the rest, never below; the same for a whole
    episode."""
    noise = msgspec.structs.replace(
        noiseless(load_noise()).range, pipeline_off=-7.0, pipeline_gap=4.0, pipeline_gap_place=2.0
    )
    sea, random = Sea("inspect", "easy", 2000, seed=0), torch.Generator().manual_seed(0)
    sea.reset()
    far, pipe = torch.full((2000, ROWS, COLUMNS), 2.0), torch.zeros(2000, ROWS, COLUMNS) > 0
    pipe[:, :, COLUMNS // 2 :] = True
    errors = start_errors(2000, random, random)
    maps, errors = picture_maps(noise, sea.conditions, far, pipe, errors, 0.1, random)
    later, _ = picture_maps(noise, sea.conditions, far, pipe, errors, 0.1, random)
    odds = torch.logit(maps.pipeline.double())
    gap = odds[:, 0, -1] - odds[:, 0, 0]
    assert gap.quantile(torch.tensor([0.16, 0.5, 0.84]).double()).tolist() == pytest.approx([2.0, 4.0, 6.0], abs=0.15)
    assert gap.min().item() == pytest.approx(0.0, abs=1e-5) and torch.equal(later.pipeline, maps.pipeline)


def test_some_fish_never_begin_a_track() -> None:
    """Always found, sure with log odds of -0.5 ± 4.5: of the standard normal's lowest fifth, in less than one frame of
    a hundred; a diver beside it begins at once."""
    number = 2000
    truth, sea = two_in_sight(number)
    noise = msgspec.structs.replace(noiseless(load_noise()).tracks, sure_fish=-0.5, sure_fish_place=4.5)
    random, zero = torch.Generator().manual_seed(1), torch.zeros(number)
    divers = torch.tensor([True, False]).expand(number, 2)
    memory = start_tracker(divers, ~divers, random)
    for _ in range(100):
        _, memory = find(noise, sea.conditions, truth, zero, zero, memory, 0.08, random)
    known = memory.hits[:, :2] >= 2
    assert known[:, 0].all()
    lowest = memory.drawn[:, 1, 2] < memory.drawn[:, 1, 2].quantile(0.2)
    assert known[lowest, 1].float().mean() < 0.02 and known[~lowest, 1].float().mean() > 0.8


def test_the_sea_knows_what_is_behind_the_followed_thing() -> None:
    sea = Sea("follow", "nominal", 16, seed=0)
    sea.reset()
    on = sea.behind > sea.cast.range
    assert on.flatten(1).any(1).float().mean() > 0.8, "targets are in the picture at the start"
    assert torch.equal(sea.behind[~on], sea.cast.range[~on])
    for task in ("transit", "inspect", "station"):
        other = Sea(task, "nominal", 4, seed=0)
        other.reset()
        assert torch.equal(other.behind, other.cast.range)


def test_a_seed_repeats_everything() -> None:
    (a, b), (c, d), (e, _) = sailed(3), sailed(3), sailed(4)
    assert torch.equal(a, c) and torch.equal(b, d) and not torch.equal(a, e)


def test_the_energy_bill_is_the_integral_of_the_batterys_power() -> None:
    sea = Sea("transit", "nominal", 8, seed=1, hull="heavy", auto_reset=False)
    sea.reset()
    ahead = torch.zeros(8, 4)
    ahead[:, 0] = 0.6
    bill, integral = torch.zeros(8), torch.zeros(8)
    advance = sea.advance

    def metered(commands: torch.Tensor) -> torch.Tensor:
        nonlocal integral
        touched = advance(commands)
        integral = integral + sea.state.volts * sea.state.current * DT
        return touched

    sea.advance = metered  # type: ignore[method-assign]
    for _ in range(30):
        *_, outcome = sea.step(ahead)
        bill += outcome.joules
    assert bill == pytest.approx(integral, rel=0.02), "volts a tick apart"
    assert bill == pytest.approx(sea.state.energy, rel=1e-4)
    assert (bill > 15.0 * float(sea.elapsed[0])).all(), "more than the computer needs"


@pytest.mark.parametrize("seed", [3, 5, 7])
def test_drawn_hulls_stay_upright_at_every_stick(seed: int) -> None:
    """Every corner, edge and face of the sticks for 5 s, under our loops and ArduSub's, in deep still water."""
    corners = torch.tensor(list(itertools.product((-1.0, 0.0, 1.0), repeat=4)))
    sea = Sea("station", "easy", 2 * len(corners), seed, split="test", auto_reset=False)
    sea.reset()
    sea.state = sea.state._replace(position=sea.state.position + torch.tensor([0.0, 0.0, 50.0]))
    sea.course = sea.course._replace(solids=sea.course.solids._replace(bottom=torch.full((sea.n,), 200.0)))
    worst = torch.zeros(sea.n)
    for tick in range(250):
        if tick % 5 == 0:
            sea.helm.ask(sea.tick, torch.cat([corners, corners]))
        sea.advance(sea.helm.commands(sea.tick, sea.readings))
        worst = torch.maximum(worst, rotation(sea.state.attitude.T)[2, 2].clamp(-1.0, 1.0).acos())
    assert math.degrees(float(worst.max())) < 30


def test_rows_repeat_where_asked() -> None:
    sea = Sea("inspect", "nominal", 12, seed=7, repeat=3, auto_reset=False)
    sea.reset()
    for each in (sea.course.heading, sea.conditions.current, sea.hulls.model.scale.T, sea.course.solids.bottom):
        parts = each.reshape(3, 4, -1)
        assert torch.equal(parts[0], parts[1]) and torch.equal(parts[0], parts[2])


def test_every_second_row_is_hard_and_stays_so() -> None:
    """By the water: easy's is clearer than 0.25 1/m in the training, hard's never."""
    sea = Sea("transit", ("easy", "hard"), 8, 3)
    sea.reset()
    begun = sea.conditions.attenuation.clone()
    for rows in (torch.arange(8), torch.tensor([1, 2, 3, 7])):
        sea._restart(rows)
        hard = sea.conditions.attenuation >= 0.25
        assert hard.tolist() == [False, True] * 4
    assert not torch.equal(begun, sea.conditions.attenuation)


def test_an_episode_that_ends_begins_anew() -> None:
    sea = Sea("transit", "nominal", 16, seed=2)
    sea.reset()
    sea.elapsed[:4] = transit.TIME_S
    sources, _, outcome = sea.step(torch.zeros(16, 4))
    assert outcome.done[:4].all() and outcome.timed_out[:4].all() and not outcome.done[4:].any()
    assert sea.elapsed[:4].tolist() == [0.0] * 4 and not sources.previous[:4].any()
    assert not sea.state.position[:4, :2].any() and sources.moved[:4, 4].tolist() == [0.0] * 4


def test_a_dead_thruster_is_dead_and_more_delay_is_later() -> None:
    sea = Sea("transit", n=8, seed=0, trouble=Trouble(dead_thruster=1.0, late_s=0.1), auto_reset=False)
    plain = Sea("transit", n=8, seed=0, auto_reset=False)
    sea.reset(), plain.reset()
    assert sea.hulls.alive[:, :4].sum(1).tolist() == [3.0] * 8 and sea.hulls.alive[:, 4:].all()
    assert (sea.conditions.late - plain.conditions.late).tolist() == [5.0] * 8
    ahead = torch.ones(8, 4) * torch.tensor([1.0, 0.0, 0.0, 0.0])
    for _ in range(12):
        sea.step(ahead)
    assert not sea.state.thrust[sea.hulls.alive == 0].any() and sea.state.thrust[:, :4].abs().sum() > 10
    some = Sea("transit", n=2000, seed=0, trouble=Trouble(dead_thruster=0.05))
    some.reset()
    assert 60 < (some.hulls.alive[:, :4].sum(1) == 3).sum() < 140 and some.hulls.alive[:, :4].sum(1).min() == 3


def test_current_and_gust_peak_together() -> None:
    sea = Sea("follow", n=8, seed=0, trouble=Trouble(peak=0.4), auto_reset=False)
    sea.reset()
    sea.elapsed = sea.peak_at.clone()
    assert sea.current.norm(dim=1).tolist() == pytest.approx([0.4] * 8)


def successes(sea: Sea, steer: Controller) -> float:
    """The share of episodes that succeed."""
    sources, maps = sea.reset()
    success = over = torch.zeros(sea.n, dtype=torch.bool)
    memory = None
    while not over.all():
        setpoint, memory = steer(sources, maps, sea.truth(), memory)
        sources, maps, outcome = sea.step(setpoint)
        success, over = success | (outcome.success & ~over), over | outcome.done
    return float(success.float().mean())


def test_the_servo_turns_to_the_target_and_lets_go_without_one() -> None:
    sea = Sea("follow", "easy", 3, seed=0, auto_reset=False)
    sources, maps = sea.reset()
    tracks = torch.zeros(3, 3, 6)
    tracks[:2, 0] = torch.tensor([[1.0, 0.2, -0.1, 0.02, 0.0, 0.9], [1.0, -0.2, 0.1, 0.9, 0.0, 0.9]])
    setpoint, _ = servo(sources._replace(tracks=tracks), maps, sea.truth(), None)
    surge, sway, heave, yaw = setpoint.T
    assert yaw[0] > 0 > yaw[1] and heave[0] < 0 < heave[1] and surge[0] > 0 > surge[1]
    assert not sway.any() and not setpoint[2].any()


def test_the_pid_reaches_its_goal_where_it_is_easy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Untuned, over the first three metres; without anybody at the sticks nobody arrives."""
    plain = pid("transit", torch.tensor([start(PID["transit"])]))
    laid_out = transit.course

    def short(*args: object) -> Course:
        return laid_out(*args)._replace(length=torch.full((8,), 3.0))  # type: ignore[arg-type]

    monkeypatch.setattr(transit, "course", short)
    monkeypatch.setattr(transit, "TIME_S", 15.0)
    share = {
        steer: successes(Sea("transit", "easy", 8, seed=1, hull="heavy", loops="rov", auto_reset=False), steer)
        for steer in (plain, zero)
    }
    assert share[plain] > 0.6 and share[zero] == 0.0, share


def test_progress_is_measured_along_the_heading() -> None:
    heading = torch.tensor([0.0, math.pi / 2])
    along, across = progress(heading, torch.tensor([[3.0, 1.0, 0.0], [3.0, 1.0, 0.0]]))
    assert along.tolist() == pytest.approx([3.0, 1.0]) and across.tolist() == pytest.approx([1.0, -3.0])


# ---- rendered pictures ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["transit", "inspect"])
def test_pictures_show_what_the_caster_meets(task: str) -> None:
    """Ranges of the rendered scene and of the caster agree at the cells' centres, but for dents, ripples and cables."""
    sea = Sea(task, "nominal", 3, seed=3, auto_reset=False)
    sea.reset()
    for row in range(3):
        wide = math.degrees(2 * math.atan(float(sea.conditions.view[row, 0])))
        seen = look("reef", 1_000_000 + row)
        renderer = Renderer([scene(task, sea.course, row, seen)], Lens.wide(COLUMNS * 5, ROWS * 5, wide))
        shots = renderer.render(sea.state.position[row : row + 1], sea.state.attitude[row : row + 1], 0.0)
        along = (shots.depth[0] / renderer.rays[2].reshape(ROWS * 5, COLUMNS * 5))[2::5, 2::5].clamp(max=40.0)
        off = (along / sea.cast.range[row].clamp(max=40.0)).log().abs()
        assert float(off.median()) < 0.05 and float(off.quantile(0.8)) < 0.15


def test_the_target_is_drawn_where_it_swims() -> None:
    sea = RenderedSea("follow", Encoder(), None, [look("reef", 1), look("reef", 2)], level="easy", seed=0)
    sources, maps = sea.reset()
    assert maps.shape == (2, 4, ROWS, COLUMNS) and not sources.tracks.any(), "nobody detects"
    for _ in range(3):
        sources, maps, _ = sea.step(torch.zeros(2, 4))
    shown = sea._targets(sea.truth().turn)
    for row, camera in enumerate(sea.cameras):
        only = slice(row, row + 1)
        shots = camera.renderer.render(sea.state.position[only], sea.state.attitude[only], sea.elapsed[only])
        height, width = shots.segmentation.shape[1:]
        rows, columns = (shots.segmentation[0] == 1).nonzero(as_tuple=True)
        bearing, elevation, _, log_width = shown.place[row, 0].tolist()
        wide, high = sea.conditions.view[row].tolist()
        assert float(columns.float().mean()) / width * 2 - 1 == pytest.approx(math.tan(bearing) / wide, abs=0.12)
        middle = math.tan(elevation) / math.cos(bearing) / high
        assert float(rows.float().mean()) / height * 2 - 1 == pytest.approx(middle, abs=0.15)
        across = float(columns.max() - columns.min() + 1) / height
        assert across == pytest.approx(math.exp(log_width), rel=0.35), "as wide as the course says"
    assert sources.moved[:, 4].max() > 0.2, "the displacement answers"


def test_a_fish_is_no_diver() -> None:
    assert [label(height) for height in (0.2, 0.6)] == ["fish", "diver"]


def test_a_rendered_target_is_where_and_as_high_as_the_course_says() -> None:
    """Whatever shape the catalogue draws, and however it kicks: its size in the picture tells the distance, and
    the middle of its box the way."""
    sea = Sea("follow", "nominal", 8, seed=4, auto_reset=False)
    sea.reset()
    heights = sea.course.targets.height[:, 0].tolist()
    assert max(heights) > 1.5 * min(heights)
    for row, true in enumerate(heights[:5]):
        made = scene("follow", sea.course, row, look("reef", row))
        beside = heading(sea.course, row) + math.pi / 2
        place = sea.course.targets.position[row] - 4.0 * torch.tensor([[math.cos(beside), math.sin(beside), 0.0]])
        attitude = torch.tensor([[math.cos(beside / 2), 0.0, 0.0, math.sin(beside / 2)]])
        renderer = Renderer([made], Lens.wide(320, 240, 50.0))
        seen, middles = [], []
        for t in torch.linspace(0.0, 2.0, 9):
            shown = renderer.render(place, attitude, t[None]).segmentation[0] == 1
            lines, columns = shown.any(1).nonzero().float(), shown.any(0).nonzero().float()
            middles.append([(columns.max() + columns.min()) / 2 - 159.5, (lines.max() + lines.min()) / 2 - 119.5])
            seen.append((float(lines.max() - lines.min()) + 1) / renderer.lens.fy * 4.0)
        assert sum(seen) / len(seen) == pytest.approx(true, rel=0.12), f"a {label(true)} {true:.2f} m high"
        across, down = (torch.tensor(middles).mean(0) / renderer.lens.fy * 4.0).tolist()
        assert (across, down) == pytest.approx((0.0, 0.0), abs=0.05), f"a {label(true)}, m off"


def test_height_of_what_swings_is_the_mean_over_the_swing() -> None:
    """A small ball 1 m from its hinge, and one at the hinge: the box is as high as the arm's end is off."""
    paint = Paint((0.5, 0.5, 0.5))
    still = ball((0.3, 0.2, 0.1), paint=paint)
    assert tall([still]) == pytest.approx(0.2)
    assert tall([rod((0, 0, -0.5), (0, 0, 0.5), 0.05, paint)]) == pytest.approx(1.0)
    arm = ball((0.01,) * 3, (1.0, 0, 0), paint, hinge=(0.0, 0.0, 0.0), axis=(0.0, 1.0, 0.0), swing=0.3, hertz=2.0)
    # The mean of |sin(0.3 sin x)| is near 0.3 · 2/π · (1 − 0.3² · 2/3 / 6) = 0.189
    assert tall([ball((0.01,) * 3, paint=paint), arm]) == pytest.approx(0.189 + 0.02, abs=0.004)
    # Between the ball and the arm's end, which is 1 m ahead, less the mean of 1 − cos(0.3 sin x), 0.3² / 4
    assert middle([ball((0.01,) * 3, paint=paint), arm]) == pytest.approx((0.489, 0.0), abs=0.003)
