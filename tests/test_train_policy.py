"""The policy's training: the search, the windows, the pictures, the cards, and that the recipe still learns."""

from __future__ import annotations

import json
import math
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from models.policy import (
    cards,
    curves,
    dagger,
    dives,
    evolution,
    judge,
    noise,
    noise_of_maps,
    noise_of_tracks,
    pictures,
    recipe,
    reinforce,
    sights,
)
from models.policy.classroom import Classroom
from models.policy.crew import Crew, divided
from models.policy.critic import CRITIC_KNOWS, VIEW, view
from models.policy.practice import Practice, innovation
from models.policy.recipe import DaggerRecipe, RecipeError, ReinforceRecipe
from models.policy.room import hide
from models.policy.trial import FAILURE_J, PRICE_W
from models.policy.unroll import unroll
from models.policy.weights import save
from models.policy.windows import Store, Windows, loss, mirrored
from rov import toml
from rov.dives.dive import Dive
from rov.errors import UserError
from rov.messages import ConsumedInput, PolicyInput, Setpoint
from rov.resources import find_resource
from rov.steering.mirror import TURNED, mirror_features, mirror_maps
from rov.steering.policy_card import load_cards
from rov.steering.policy_input import COLUMNS, FEATURE_NAMES, FEATURES, ROWS, VERSION, features
from rov.steering.policy_model import pack
from rov.steering.policy_network import MEMORY, PolicyNetwork
from sim import pilot_dives
from sim.scene.lens import Lens
from sim.scene.render import Renderer
from sim.scene.scene import Ground, Scene
from sim.tasks.expert import EXPERT, expert
from sim.tasks.found import Seen, project
from sim.tasks.noise import FILE
from sim.tasks.noise import load as load_noise
from sim.tasks.picture_maps import optical_depth, picture_maps, start_errors
from sim.tasks.sea import Sea
from sim.tasks.solids import HULL_M, gaps
from sim.tasks.tuned import start

pytestmark = pytest.mark.patient

CPU = torch.device("cpu")
SMALL = DaggerRecipe(
    tasks=("follow",), levels=("easy",), vehicles=8, window=12, burn_in=4, rounds=2, updates=2, batch=4
)
TEACHERS = {task: dict(zip(EXPERT[task], start(EXPERT[task]), strict=True)) for task in EXPERT}


def quiet(*_: object) -> None:
    """No progress."""


def test_search_finds_a_minimum() -> None:
    """Of an ellipsoid a hundred times longer than wide, which is not at the start."""
    goal = np.array([0.3, 0.7, 0.5, 0.2, 0.8])
    scale = np.logspace(0, 2, 5)
    search, random = evolution.begin(np.full(5, 0.5)), np.random.default_rng(1)
    for _ in range(80):
        candidates = evolution.ask(search, 16, random)
        assert candidates.min() >= 0 and candidates.max() <= 1
        search = evolution.tell(search, candidates, (scale * (candidates - goal) ** 2).sum(1))
    assert np.abs(search.mean - goal).max() < 0.01


def test_search_goes_on_from_a_file() -> None:
    search = evolution.begin(np.full(3, 0.5))
    search = evolution.tell(search, evolution.ask(search, 6, np.random.default_rng(0)), np.arange(6.0))
    again = evolution.from_plain(json.loads(json.dumps(evolution.as_plain(search))))
    assert evolution.as_plain(again) == evolution.as_plain(search)


def test_unrolled_is_step_by_step() -> None:
    torch.manual_seed(0)
    network = PolicyNetwork()
    maps, known = torch.rand(5, 3, 4, 12, 16), torch.randn(5, 3, FEATURES)
    begins = torch.zeros(5, 3, dtype=torch.bool)
    begins[2, 1] = True
    first = memory = torch.randn(3, MEMORY)
    mean, spread, _ = unroll(network, maps, known, first, begins)
    for step in range(5):
        memory = memory * ~begins[step][:, None]
        one, one_spread, memory = network.decide(maps[step], known[step], memory)
        assert torch.allclose(mean[step], one, atol=1e-5) and torch.allclose(spread[step], one_spread, atol=1e-5)


def test_in_a_mirror_the_policy_does_the_mirrored_thing() -> None:
    network, sea = PolicyNetwork(), Sea("follow", "nominal", 16, 4)
    network.load_state_dict(load_file(find_resource("models/policy.safetensors")))
    sources, maps = sea.reset()
    memory = mirror = network.initial_memory(16)
    for _ in range(3):
        setpoint, spread, memory = network(maps, features(sources), memory)
        other, same, mirror = network(mirror_maps(maps), mirror_features(features(sources)), mirror)
        assert torch.allclose(other, setpoint * torch.tensor([1.0, -1.0, 1.0, -1.0]), atol=1e-5)
        assert torch.allclose(same, spread, atol=1e-4)
        sources, maps, _ = sea.step(setpoint)
    assert setpoint[:, [1, 3]].abs().max() > 0.05, "it steers to a side at all"


def test_the_features_of_a_mirrored_vehicle_are_the_mirrored_features() -> None:
    """A target to port instead of to starboard, a turn, a roll, a drift and a goal to the other side."""
    sea = Sea("follow", "nominal", 32, 4)
    sources, _ = sea.reset()
    for _ in range(4):
        sources, _, _ = sea.step(torch.tensor([0.2, 0.3, 0.1, 0.4]).expand(32, 4))
    heading = torch.stack([torch.linspace(-3, 3, 32), *sources.goal.unbind(1)[1:]], dim=1)
    moved = torch.tensor([[0.01, 0.02, 0.03, 0.04, 0.5]]).expand(32, 5)
    there = sources._replace(goal=heading, moved=moved, keyed=moved)

    def to_port(values: Tensor, *odd: int) -> Tensor:
        return torch.stack([-each if i in odd else each for i, each in enumerate(values.unbind(-1))], dim=-1)

    mirror = there._replace(
        goal=to_port(there.goal, 0), tracks=to_port(there.tracks, 1), moved=to_port(moved, 0, 3),
        keyed=to_port(moved, 0, 3),
        attitude=to_port(there.attitude, 0, 2), rates=to_port(there.rates, 0, 2), start=to_port(there.start, 0),
        previous=to_port(there.previous, 1, 3),
    )  # fmt: skip
    assert torch.allclose(features(mirror), mirror_features(features(there)), atol=1e-6)
    nowhere = int((there.tracks[..., 0] == 0).all(0).sum())
    assert (features(mirror) != features(there)).any(0).sum() == len(TURNED) - nowhere, "but tracks that are not there"


def test_a_batch_is_seen_in_a_mirror_in_about_half() -> None:
    torch.manual_seed(0)
    windows, _ = room().round(PolicyNetwork(), 0.5)
    turned = torch.arange(8) % 2 == 1
    seen = mirrored(windows, turned)
    for name in ("features", "labels", "maps", "memory"):
        before, after = getattr(windows, name), getattr(seen, name)
        before, after = (before, after) if name != "memory" else (before[None], after[None])
        assert torch.equal(after[:, ~turned], before[:, ~turned])
    assert torch.equal(seen.labels[:, turned, 1], -windows.labels[:, turned, 1])
    assert torch.equal(seen.bearings, torch.where(turned, -windows.bearings, windows.bearings))
    assert torch.equal(seen.maps[:, turned], windows.maps[:, turned].flip(-1))
    assert torch.equal(mirrored(seen, turned).memory, windows.memory)
    store = Store(1)
    store.add(windows)
    drawn = store.draw(64, torch.Generator().manual_seed(0))
    known = {tuple(each) for each in windows.labels[0].tolist()}
    assert 20 < sum(tuple(each) in known for each in drawn.labels[0].tolist()) < 44


def room() -> Classroom:
    return Classroom("follow", 8, 3, SMALL, TEACHERS["follow"], CPU)


def test_windows_hold_what_was_seen_and_what_the_teacher_says() -> None:
    torch.manual_seed(0)
    windows, episodes = room().round(PolicyNetwork(), 0.5)
    assert windows.maps.shape == (12, 8, 4, 12, 16) and windows.features.shape == (12, 8, FEATURES)
    assert windows.labels.abs().max() <= 1 and windows.labels.std() > 0.01
    assert windows.begins[0].all() and not windows.begins[1:].any()
    known = windows.features[..., FEATURE_NAMES.index("track_0_visible")] == 1
    off = windows.bearings - windows.features[..., FEATURE_NAMES.index("track_0_bearing")]
    assert known.any() and off[known].abs().median() < 0.05, "it wants to where the target is"
    assert [each.ended for each in episodes] == [0], "no episode of 40 s ends in 12 decisions"


def test_half_of_the_rows_do_not_see_their_last_setpoint() -> None:
    sea = Sea("follow", "easy", 4, 1)
    sources, _ = sea.reset()
    seen = features(hide(sources, torch.tensor([False, True, False, True])))
    known = [i for i, name in enumerate(FEATURE_NAMES) if name == "previous_known"][0]
    assert seen[:, known].tolist() == [1.0, 0.0, 1.0, 0.0]


def test_first_decisions_only_warm_the_memory_unless_the_episode_begins() -> None:
    torch.manual_seed(0)
    network = PolicyNetwork()
    windows, _ = room().round(network, 1.0)
    late = windows._replace(begins=torch.zeros_like(windows.begins))
    spoiled = late._replace(labels=late.labels.clone())
    spoiled.labels[:4] = 1.0
    errors = [loss(network, each, 4, 0.0)[1]["error"] for each in (late, spoiled, windows)]
    assert errors[0] == errors[1] != errors[2]


def class_of(workers: int, device: torch.device) -> Crew[Windows]:
    opened = partial(dagger.opened, recipe=SMALL, teachers=TEACHERS, device=device, noise=FILE)
    return Crew(divided(SMALL, workers, 5), opened, Windows, workers, device)


def test_worker_processes_gather_the_same_as_this_one() -> None:
    torch.manual_seed(0)
    student = PolicyNetwork()
    made = []
    for workers in (0, 1):
        crew = class_of(workers, CPU)
        try:
            crew.begin(student, 0.5)
            made.append(crew.end())
        finally:
            crew.close()
    (task, here, _), (_, there, _) = made[0][0], made[1][0]
    assert task == "follow"
    assert torch.allclose(here.labels, there.labels, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_worker_processes_sail_on_the_learners_gpu() -> None:
    crew = class_of(1, torch.device("cuda"))
    try:
        for _ in range(2):  # the memory of the first is taken anew for the second
            crew.begin(PolicyNetwork(), 0.5)
            ((_, windows, _),) = crew.end()
            assert all(each.is_cuda for each in windows)
            assert windows.labels.abs().max() <= 1
    finally:
        crew.close()


def test_training_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    """The first run ends after one round, as if killed: what is on the disk is all that the second one knows."""
    dagger.run(SMALL, tmp_path, CPU, 0, quiet, TEACHERS, limit_s=0.01)
    dagger.run(SMALL, tmp_path, CPU, 0, quiet, TEACHERS)
    assert [json.loads(line)["round"] for line in (tmp_path / "log.jsonl").read_text().splitlines()] == [1, 2]
    with pytest.raises(RecipeError, match="another recipe"):
        dagger.run(DaggerRecipe(tasks=("transit",)), tmp_path, CPU, 0, quiet, TEACHERS)
    assert curves.draw(tmp_path, SMALL.tasks).stat().st_size > 5000


def test_advantages_are_what_came_beyond_what_was_expected() -> None:
    """By hand, two vehicles: the first fails at its second decision, so nothing of what comes then counts for it."""
    half = ReinforceRecipe(discount=0.5, trace=0.5)
    rewards, worth = (
        torch.tensor([[-1.0, -1.0], [-15.0, -2.0]]),
        torch.tensor([[-4.0, -4.0], [-6.0, -6.0], [-8.0, -8.0]]),
    )
    done = torch.tensor([[False, False], [True, False]])
    better, still = reinforce.advantages(rewards, worth, done, half)
    # First: -15 + 6 = -9, and before it -1 - 3 + 4 - 9 / 4. Second: -2 - 4 + 6 = 0, and before it -1 - 3 + 4.
    assert better.tolist() == [[-2.25, 0.0], [-9.0, 0.0]]
    assert still.tolist() == [[-6.25, -4.0], [-15.0, -6.0]]


SHORT = ReinforceRecipe(tasks=("follow",), levels=("easy",), vehicles=8, window=12, rounds=2, warm=0, batch=4)


def test_what_is_tried_is_charged_for() -> None:
    """Over 40 decisions in a sea of its own: the rewards of rows that never ended are their energy and time, and those
    outside of the band; a failure costs what it costs the judge, and a touch as much again."""
    recipe_ = msgspec.structs.replace(SHORT, window=40, vehicles=32, outside_w=0.0)
    torch.manual_seed(0)
    student, room = PolicyNetwork(), Practice("transit", 32, 3, recipe_, TEACHERS["transit"], CPU)
    charged, failed = torch.zeros(32), torch.zeros(32, dtype=torch.bool)
    step = room.sea.step

    def counted(setpoint: Tensor) -> Any:
        nonlocal charged, failed
        *seen, outcome = step(setpoint)
        fails = outcome.done & ~outcome.success
        charged = charged + outcome.joules + PRICE_W * outcome.seconds
        charged = charged + FAILURE_J * fails + recipe_.touch_j * outcome.touched
        failed = failed | fails
        return *seen, outcome

    room.sea.step = counted  # type: ignore[method-assign]
    tries, _ = room.round(student)
    while not failed.any():
        charged = torch.zeros(32)
        tries, _ = room.round(student)
    assert tries.rewards.sum(0).tolist() == pytest.approx((-charged / 1000).tolist(), rel=1e-4)
    assert tries.known.shape == (41, 32, CRITIC_KNOWS) and tries.known.isfinite().all()
    spread = tries.drawn.std().item()
    assert spread == pytest.approx(innovation(recipe_), rel=0.05) == pytest.approx(0.1 * 0.6, rel=0.05)


@pytest.mark.parametrize("task", EXPERT)
def test_the_critic_sees_where_the_vehicle_is(task: str) -> None:
    sea = Sea(task, "hard", 64, seed=2)
    sea.reset()
    for _ in range(3):
        sea.step(torch.tensor([0.3, 0.0, 0.0, 0.0]).expand(64, 4))
    seen = view(sea.truth(), sea.tally)
    assert seen.shape == (64, VIEW) and seen.isfinite().all() and seen.abs().max() <= 4
    if task == "transit":
        course, turn = sea.course, sea.truth().turn
        gap = (
            (course.solids.balls[..., :3] - sea.state.position[:, None]).norm(dim=2)
            - course.solids.balls[..., 3]
            - HULL_M
        )
        nearest = gap.argmin(1)
        rods = gaps(course.solids, sea.state.position)[1].amin(1) - HULL_M
        rows = (gap.amin(1) < 3.0) & (gap.amin(1) < rods)
        to = course.solids.balls[torch.arange(64), nearest, :3] - sea.state.position
        to = (to[:, None] @ turn)[:, 0] / to.norm(dim=1, keepdim=True)
        assert rows.sum() > 5
        assert torch.allclose(seen[rows, 2:5] / seen[rows, 1:2], to[rows], atol=1e-3), "the nearest, in body axes"
        assert torch.allclose(seen[rows, 0], torch.exp(-gap.amin(1)[rows] / 0.6), atol=1e-4)


def test_a_student_does_more_of_what_went_well() -> None:
    """What was drawn to port was better than expected, to starboard worse: the sticks then lie farther to port."""
    torch.manual_seed(0)
    recipe_ = msgspec.structs.replace(SHORT, vehicles=64, window=16, batch=64, teacher=0.0, rate=1e-3)
    learner = reinforce.Learner(recipe_, CPU)
    tries, _ = Practice("follow", 64, 1, recipe_, TEACHERS["follow"], CPU).round(learner.network)
    better = -tries.drawn[..., 1] / innovation(recipe_)

    def sway() -> float:
        mean, _, _ = unroll(learner.network, tries.maps.float(), tries.features.float(), tries.memory, tries.begins)
        return mean[..., 1].mean().item()

    before = sway()
    assert before == pytest.approx(tries.means[..., 1].mean().item(), abs=1e-3), "what it tried is what it is asked"
    for _ in range(10):
        whole, told = reinforce.loss(learner.network, learner.where, tries, better, recipe_)
        learner.optimiser.zero_grad()
        whole.backward()  # type: ignore[no-untyped-call]
        learner.optimiser.step()
    assert sway() < before - 0.01
    assert told["moved"] > 0


def test_a_student_learns_to_know_where_it_is() -> None:
    """Nothing is gained or lost by what it tried: it learns alone how far off its line it is, and which way things are,
    from what it remembers."""
    torch.manual_seed(0)
    recipe_ = msgspec.structs.replace(SHORT, vehicles=64, window=16, batch=64, teacher=0.0, rate=1e-3, critic_rate=1e-2)
    learner = reinforce.Learner(recipe_, CPU)
    tries, _ = Practice("transit", 64, 1, recipe_, TEACHERS["transit"], CPU).round(learner.network)
    remembers = learner.network.remember.weight_hh.clone()
    told = []
    for _ in range(40):
        whole, parts = reinforce.loss(learner.network, learner.where, tries, torch.zeros_like(tries.rewards), recipe_)
        told.append(parts["lost"])
        learner.optimiser.zero_grad()
        learner.critics.zero_grad()
        whole.backward()  # type: ignore[no-untyped-call]
        learner.optimiser.step()
        learner.critics.step()
    assert told[-1] < 0.5 * told[0]
    assert not torch.equal(learner.network.remember.weight_hh, remembers), "the memory learns it, too"


def test_trying_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    start, folder = tmp_path / "start.safetensors", tmp_path / "run"
    torch.manual_seed(3)
    save(PolicyNetwork(), start)
    reinforce.run(SHORT, folder, CPU, 0, quiet, TEACHERS, start, limit_s=0.01)
    reinforce.run(SHORT, folder, CPU, 0, quiet, TEACHERS, start)
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [line["round"] for line in lines] == [1, 2] and lines[1]["moved"] > 0
    first, last = (load_file(folder / f"round_000{number}.safetensors") for number in (0, 2))
    assert all(torch.equal(value, first[name]) for name, value in load_file(start).items())
    assert any(not torch.equal(value, first[name]) for name, value in last.items())
    assert curves.draw(folder, SHORT.tasks).stat().st_size > 5000


def test_range_of_a_picture_is_the_geometry() -> None:
    """Level, 1 m over a flat bottom: a ray `a` below the horizon meets it after 1 m / sin a."""
    lens = Lens.wide(2 * 64, 2 * 48, 80.0)
    renderer = Renderer([Scene(ground=Ground(bottom=5.0))], lens)
    shots = renderer.render(torch.tensor([[0.0, 0.0, 4.0]]), torch.tensor([[1.0, 0.0, 0.0, 0.0]]), 0.0)
    found = pictures.labelled(renderer, shots)
    down = (2 * 11.5 / 12 - 1) * math.tan(math.radians(40)) * 0.75
    across = (2 * 8.5 / 16 - 1) * math.tan(math.radians(40))
    wanted = down / math.sqrt(1 + down**2 + across**2)
    assert found.inverse_range[0, 11, 8].item() == pytest.approx(wanted, rel=0.03)
    assert found.pictures.shape == (1, 3, 48, 64) and found.pipeline.max() == 0


def test_what_counts_as_unsure() -> None:
    """The limit is what the fifth largest of eight in a row reaches: four outliers in a row are forgiven."""
    said = torch.full((20, 2), -3.0)
    said[5:9, 0], said[5:10, 1] = 1.0, -2.0
    assert judge.unsure(said, torch.ones(20, 2, dtype=torch.bool)) == pytest.approx(-2.0, abs=0.02)


def watched(size: torch.Tensor, off: torch.Tensor) -> sights.Watched:
    """Frames (F, N, 1) of targets that are all found; the cells are left out."""
    nothing, every = torch.zeros_like(size), torch.ones_like(size, dtype=torch.bool)
    off = torch.stack([nothing, off, off - 0.1], dim=-1)
    seen = sights.Sights(every, every, size, nothing, ~every, nothing, off, every, ~every, ~every, nothing)
    return sights.Watched(None, seen, torch.full((len(size),), 0.1), False)  # type: ignore[arg-type]


def test_noise_of_sizes_is_a_line_a_place_and_a_rest() -> None:
    random = torch.Generator().manual_seed(0)
    size = (torch.rand(1, 200, 1, generator=random) * 2 - 1).expand(60, 200, 1)
    place = 0.2 * torch.randn(1, 200, 1, generator=random)
    off = 0.3 - 0.4 * size + place + 0.1 * torch.randn(60, 200, 1, generator=random)
    found = noise_of_tracks.fit_sizes([watched(size, off)])
    assert found == pytest.approx(
        {
            "size_mean": 0.3,
            "size_slope": -0.4,
            "size_place": 0.2,
            "size_error": 0.1,
            "aspect_mean": -0.1,
            "aspect_place": 0.0,
        },
        abs=0.03,
    )
    assert noise_of_tracks.fit_sizes([watched(size[:, :3], off[:, :3])]) == {}, "too few targets say nothing"
    kicking = watched(size, off + 0.4 * torch.randn(60, 200, 1, generator=random))
    kicking = kicking._replace(sights=kicking.sights._replace(kicks=kicking.sights.hit))
    both = noise_of_tracks.fit_sizes([watched(size, off), kicking])
    assert both["size_error"] == found["size_error"], "fins that swing are no error of the box"


def test_noise_of_being_sure_is_its_odds_and_how_they_differ() -> None:
    """150 targets that are found in 400 frames, sure with log odds of 1 ± 0.8."""
    random = torch.Generator().manual_seed(0)
    odds = 1 + 0.8 * torch.randn(150, 1, generator=random)
    each = watched(torch.zeros(400, 150, 1), torch.zeros(400, 150, 1))
    sure = torch.rand(400, 150, 1, generator=random) < torch.sigmoid(odds)
    each = each._replace(sights=each.sights._replace(sure=sure))
    assert noise_of_tracks.fit_sure([each]) == pytest.approx({"sure": 1.0, "sure_place": 0.8}, abs=0.12)
    each = each._replace(sights=each.sights._replace(fish=each.sights.hit))
    assert noise_of_tracks.fit_sure([each]) == pytest.approx({"sure_fish": 1.0, "sure_fish_place": 0.8}, abs=0.12)
    assert noise_of_tracks.fit_sure([]) == {}


def test_who_is_sure_for_a_while_begins_a_track_sooner_than_who_is_so_now_and_then() -> None:
    """Each is sure in half of 200 frames: one all at once, one in every second frame, which begins none."""
    each = watched(torch.zeros(200, 6, 1), torch.zeros(200, 6, 1))
    frames = torch.arange(200)[:, None, None].expand(200, 6, 1)
    once, by_turns = (each._replace(sights=each.sights._replace(sure=sure)) for sure in (frames < 100, frames % 2 == 0))
    half = math.sqrt(99.5 / 200)
    assert noise_of_tracks.fit_sure([once])["sure"] == pytest.approx(math.log(half / (1 - half)), abs=1e-4)
    assert noise_of_tracks.fit_sure([by_turns])["sure"] < -2.9


def test_a_fish_that_never_began_a_track_was_found_and_never_sure() -> None:
    """Ten fish in boxes: of half of them these are always sure, of half never."""
    large = torch.ones(50, 10, 1)
    each = watched(large, torch.zeros_like(large))
    sure = (torch.arange(10) % 2 == 0)[None, :, None].expand(50, 10, 1)
    fish = each._replace(sights=each.sights._replace(sure=sure, fish=each.sights.hit))
    always, never = (math.log(p / (1 - p)) for p in (math.sqrt(49.5 / 50), math.sqrt(0.5 / 50)))  # pairs in a row
    found = noise_of_tracks.fit_sure([fish])
    assert found["sure_fish"] == pytest.approx((always + never) / 2, abs=1e-4)
    assert found["sure_fish_place"] == pytest.approx((always - never) / 2 * math.sqrt(10 / 9), abs=1e-4)
    unseen = fish._replace(sights=fish.sights._replace(hit=~fish.sights.hit))
    assert noise_of_tracks.fit_sure([unseen]) == {}, "of what has no box nobody knows how sure it would be"


def test_noise_of_tracks_of_nothing_is_how_often_they_begin_and_how_long_their_boxes_stay() -> None:
    """By hand: of 60 s one stands for 6 s and one from 50 s to the end; a tracker kept the first for 1 s. What is seen
    beside a fish does not count."""
    each = watched(torch.zeros(600, 1, 1), torch.zeros(600, 1, 1))
    ghosts = torch.zeros(600, 1, 1)
    ghosts[100:160] = ghosts[500:] = 1.0
    diver = each._replace(sights=each.sights._replace(ghosts=ghosts))
    found = noise_of_tracks.fit_false([diver])
    assert found == pytest.approx({"false_per_s": 2 / 44, "false_s": 16 - 1}), "one of both has ended"
    fish = diver._replace(sights=diver.sights._replace(fish=each.sights.hit))
    assert noise_of_tracks.fit_false([diver, fish]) == found
    assert noise_of_tracks.fit_false([diver._replace(dt=each.dt / 10)]) == {}, "4 s say nothing of what is rare"


def test_noise_of_bearings_is_what_changes_from_frame_to_frame() -> None:
    """What stays on one target for all its frames, or comes and goes over seconds, would be far too much as noise of
    each."""
    random = torch.Generator().manual_seed(0)
    size = torch.rand(60, 100, 1, generator=random)
    each = watched(size, torch.zeros(60, 100, 1))
    slow = 0.03 * torch.linspace(0, math.pi, 60).sin()[:, None, None]
    stays, moves = (
        0.05 * torch.randn(1, 100, 1, generator=random) + slow,
        0.004 * torch.randn(60, 100, 1, generator=random),
    )
    off = torch.stack([stays + moves, *each.sights.off[..., 1:].unbind(-1)], dim=-1)
    found = noise_of_tracks.fit_tracks([each._replace(sights=each.sights._replace(off=off))], load_noise().tracks)
    assert found.bearing_floor == pytest.approx(0.004, abs=0.0005)


def test_cells_of_what_is_followed_say_nothing_of_the_noise_of_ranges() -> None:
    """Around a diver is water: what such a cell says is a matter of how much of it the diver fills."""
    shown = torch.linspace(0.0, 0.8, 10)[None, :, None, None].expand(5, 10, 3, 4)
    nothing, here = torch.zeros_like(shown), torch.ones_like(shown, dtype=torch.bool)
    cells = sights.Cells(nothing + 0.5, nothing, 0.5 * shown, nothing, ~here, nothing, here, nothing)
    assert not cells.plain.any() and cells._replace(behind=cells.inverse).plain.all()


def test_the_haze_of_places_is_found_again_in_what_the_noise_model_says() -> None:
    """200 places with open water above and a bottom 2 to 4 m away below, five times through the model's own haze."""
    usual = load_noise().range
    there = msgspec.structs.replace(usual, unseen=0.05, haze=0.04, haze_place=0.9, haze_said=1.4, place=0.0)
    sea, random = Sea("station", "easy", 200, seed=0), torch.Generator().manual_seed(0)
    sea.reset()
    far = torch.full((200, ROWS, COLUMNS), 100.0)
    far[:, ROWS // 2 :] = 2.0 + 2.0 * torch.rand(200, 1, 1, generator=random)
    errors, every = start_errors(200, random, random), []
    nothing = torch.zeros_like(far, dtype=torch.bool)
    for _ in range(5):
        maps, errors = picture_maps(there, sea.conditions, far, nothing, errors, 0.1, random)
        depth = optical_depth(sea.conditions, far)
        every.append((1 / far, depth, maps.inverse_range, maps.log_variance, nothing, maps.pipeline, ~nothing, 1 / far))
    cells = sights.Cells(*(torch.stack(each) for each in zip(*every, strict=True)))
    hazes, _ = noise_of_maps.fit_haze([cells], usual)
    assert hazes[0].shape == (200,) and hazes[0].min() == 0
    found = noise_of_maps.fit_range([cells], [], torch.full((5,), 0.1), usual)
    assert found.haze == pytest.approx(there.haze, rel=0.3)
    assert found.haze_place == pytest.approx(there.haze_place, rel=0.3)
    assert found.haze_said == pytest.approx(there.haze_said, rel=0.3)
    assert found.said_floor == pytest.approx(there.said_floor, rel=0.3)
    assert found.unseen == pytest.approx(there.unseen, rel=0.4)
    assert noise_of_maps.fit_haze([cells._replace(running=nothing[None])], usual)[1] == usual, "nobody looked"


def test_how_well_pipelines_stand_out_is_found_again_in_what_the_noise_model_says() -> None:
    """In 500 places, on the lower half of the picture; what the water hides of it counts as hidden."""
    usual = load_noise().range
    there = msgspec.structs.replace(usual, pipeline_gap=5.0, pipeline_gap_place=1.5, pipeline_place=0.8)
    sea, random = Sea("inspect", "easy", 500, seed=0), torch.Generator().manual_seed(0)
    sea.reset()
    far = torch.full((500, ROWS, COLUMNS), 1.5)
    pipe = torch.zeros_like(far, dtype=torch.bool)
    pipe[:, ROWS // 2 :] = True
    errors, every, depth = start_errors(500, random, random), [], optical_depth(sea.conditions, far)
    for _ in range(5):
        maps, errors = picture_maps(there, sea.conditions, far, pipe, errors, 3.0, random)
        every.append((1 / far, depth, maps.inverse_range, maps.log_variance, pipe, maps.pipeline, far > 0, 1 / far))
    cells = sights.Cells(*(torch.stack(each) for each in zip(*every, strict=True)))
    found = noise_of_maps.fit_pipeline(usual, [cells])
    assert found.pipeline_gap == pytest.approx(5.0, abs=0.3)
    assert found.pipeline_gap_place == pytest.approx(1.5, abs=0.3)
    assert found.pipeline_place == pytest.approx(0.8, abs=0.2)
    assert noise_of_maps.fit_pipeline(usual, [cells._replace(pipe=cells.pipe & False)]) == usual, "no pipeline was seen"


def test_a_track_of_what_stands_in_front_is_no_sight_of_what_stands_behind() -> None:
    """Two posts in one line, a near one and a far one, 0.1 rad apart; one box, around the near one."""
    sea = Sea("follow", "nominal", 1, seed=0)
    sea.reset()
    place = torch.tensor([[[0.0, 0.0, -1.0, -1.0], [0.1, 0.0, -2.0, -2.0]]])
    inside = torch.ones(1, 2, dtype=torch.bool)
    known = Seen(place, torch.tensor([[2.0, 6.0]]), inside, ~inside, torch.ones(1, 2, 2))
    boxes, tracks = torch.zeros(1, 16, 7), torch.zeros(1, 3, 7)
    boxes[0, 0] = torch.tensor([1.0, 0.02, 0.0, 0.4, 0.0, 0.8, 1.0])
    assert sights.compared(boxes, tracks, known, sea.truth(), torch.zeros(1)).hit.tolist() == [[True, False]]
    known = known._replace(inside=torch.tensor([[False, True]]))  # the near one is hidden
    assert sights.compared(boxes, tracks, known, sea.truth(), torch.zeros(1)).hit.tolist() == [[False, True]]


def test_what_is_boxed_and_never_tracked_is_found_all_the_same() -> None:
    """Four posts in boxes, the last one never surely; a track on the first and one on nothing."""
    sea = Sea("follow", "nominal", 1, seed=0)
    sea.reset()
    place = torch.tensor([[[0.3 * i, 0.0, -1.0, -1.0] for i in range(4)]])
    inside = torch.ones(1, 4, dtype=torch.bool)
    known = Seen(place, torch.full((1, 4), 3.0), inside, ~inside, torch.ones(1, 4, 2))
    boxes, tracks = torch.zeros(1, 16, 7), torch.zeros(1, 3, 7)
    for i, score in enumerate((0.9, 0.8, 0.7, 0.3)):
        boxes[0, i] = torch.tensor([1.0, 0.3 * i, 0.0, 0.4, 0.0, score, 1.0])
    tracks[0, :2] = torch.stack([boxes[0, 0], boxes[0, 0] - torch.eye(7)[1]])
    seen = sights.compared(boxes, tracks, known, sea.truth(), torch.zeros(1))
    assert seen.hit.all() and seen.sure.tolist() == [[True, True, True, False]] and seen.ghosts[0, 0] == 1


def test_no_sea_makes_a_target_easier_to_see() -> None:
    """100 targets that are found the more often the farther away they are, by chance: water hides, if anything."""
    random = torch.Generator().manual_seed(0)
    size = torch.zeros(60, 100, 1)
    each = watched(size, size)
    depth = torch.rand(60, 100, 1, generator=random)
    hit = torch.rand(60, 100, 1, generator=random) < 0.5 + 0.5 * depth
    each = each._replace(sights=each.sights._replace(depth=depth, hit=hit))
    assert noise_of_tracks.fit_tracks([each], load_noise().tracks).per_optical_depth == 0.0
    each = each._replace(sights=each.sights._replace(hit=torch.rand(60, 100, 1, generator=random) < 1 - 0.5 * depth))
    assert noise_of_tracks.fit_tracks([each], load_noise().tracks).per_optical_depth < -1.0


def test_where_nothing_can_be_tracked_nothing_is_compared() -> None:
    """A pipeline is in the maps, not among the tracks."""
    sea = Sea("inspect", "nominal", 2, seed=0)
    sea.reset()
    truth = sea.truth()
    known = project(
        truth.course.targets,
        truth.course.solids,
        truth.course.target_ball,
        truth.conditions,
        truth.position,
        truth.turn,
    )
    tracks = torch.zeros(2, 3, 7)
    tracks[0, 0] = torch.tensor([1.0, 0.02, 0.0, 0.4, 0.0, 0.8, 1.0])
    assert sights.compared(torch.zeros(2, 16, 7), tracks, known, truth, torch.zeros(2)).hit.shape == (2, 0)


def test_fitted_noise_keeps_the_words_of_the_shipped_file(tmp_path: Path) -> None:
    shipped = load_noise()
    other = msgspec.structs.replace(
        shipped, source='by a "test"', tracks=msgspec.structs.replace(shipped.tracks, base=1.25)
    )
    path = tmp_path / "noise.toml"
    path.write_text(noise.written(other))
    assert load_noise(path) == other
    remarks = [line.partition("#")[2].strip() for line in FILE.read_text().splitlines()]
    assert [line.partition("#")[2].strip() for line in path.read_text().splitlines()] == remarks


def test_decisions_beside_a_thing_count_more() -> None:
    """In `follow` the target is the nearest thing."""
    here = room()
    truth = here.sea.truth()
    to = truth.course.targets.position[:, 0] - truth.position
    touching = truth._replace(position=truth.course.targets.position[:, 0])
    assert here._weight(touching).tolist() == pytest.approx([1 + here.recipe.near] * len(to))
    assert here._weight(truth).max() < 1.5 and here._weight(truth).min() >= 1, "the stand-off is 1.5 m or more"


def test_shipped_recipe_is_read_and_a_wrong_one_is_named(tmp_path: Path) -> None:
    shipped = recipe.load(Path(recipe.__file__).parent / "recipe.toml")
    assert shipped.dagger.tasks == ("transit", "follow", "inspect", "station")
    wrong = tmp_path / "wrong.toml"
    wrong.write_text("[dagger]\nround = 3\n")
    with pytest.raises(RecipeError, match="round"):
        recipe.load(wrong)


def test_settings_change_a_recipe(tmp_path: Path) -> None:
    file = Path(recipe.__file__).parent / "recipe.toml"
    changed = recipe.load(file, ["dagger.vehicles=4096", "dagger.weight={follow = 2.0}"])
    assert changed.dagger == msgspec.structs.replace(recipe.load(file).dagger, vehicles=4096, weight={"follow": 2.0}), (
        "all else is the file's"
    )
    with pytest.raises(UserError, match="vehicle"):
        recipe.load(file, ["dagger.vehicle=4096"])
    with pytest.raises(UserError, match="section.key=value"):
        recipe.load(file, ["vehicles=4096"])


def test_the_student_starts_from_weights(tmp_path: Path) -> None:
    torch.manual_seed(7)
    first = PolicyNetwork()
    save(first, tmp_path / "start.safetensors")
    none = msgspec.structs.replace(SMALL, rounds=1, updates=0)
    dagger.run(none, tmp_path / "run", CPU, 0, quiet, TEACHERS, start=tmp_path / "start.safetensors")
    kept = load_file(tmp_path / "run" / "policy.safetensors")
    assert all(torch.equal(value, kept[name]) for name, value in first.state_dict().items())


def test_means_of_many_weights_are_judged_beside_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the start (0) and snapshots of 10, 20, 30 and 40 the mean is of 30 and 40; it is the cheapest, so it is kept.
    What the stage started from is judged, too, and what lies half way between."""
    for number in range(5):
        network = PolicyNetwork()
        for each in network.parameters():
            torch.nn.init.constant_(each, 10.0 * number)
        save(network, tmp_path / f"round_{number:04d}.safetensors")

    def judged(weights: Path | None, *_: Any) -> dict[str, float]:
        value = next(iter(load_file(weights).values())).flatten()[0].item() if weights else 20.0
        return {"success": 0.5, "charge": 1.0 + abs(value - 36.0), "log_variance": -value}

    monkeypatch.setattr(judge, "judged", judged)
    monkeypatch.setattr(judge, "ProcessPoolExecutor", lambda *_, **__: ThreadPoolExecutor(1))
    found = judge.judge(ReinforceRecipe(tasks=("follow",), judged=2), tmp_path, 1, quiet, {"follow": {}})
    told = json.loads((tmp_path / "judged.json").read_text())
    assert (
        sorted(told["snapshots"]) == ["half", "mean", "round_0000", "round_0003", "round_0004"]
        and told["best"] == "mean"
    )
    assert found.log_variance == pytest.approx(-35.0)
    assert all((each == 17.5).all() for each in load_file(tmp_path / "half.safetensors").values())
    assert all(torch.allclose(each, torch.tensor(35.0)) for each in load_file(found.weights).values())


def test_cards_are_what_the_daemon_reads(tmp_path: Path) -> None:
    weights, encoder = tmp_path / "policy.safetensors", tmp_path / "encoder.safetensors"
    for path in (weights, encoder):
        save(PolicyNetwork(), path)
    limits = {"unlike": 2.0, "mean": [0.05, 0.9], "contrast": 0.01, "gradient": 0.001, "saturated": 0.5}
    cards.encoder_card(encoder, recipe.Recipe(), {"pictures": 3.0}, limits)
    cards.policy_card(weights, encoder, recipe.Recipe(), -1.0, {"follow": {"success": 0.9, "episodes": 256}})
    read = load_cards(weights, encoder)
    assert read.policy.results["follow"].success == 0.9
    assert read.policy.trained.rates_hz[0] < 8.5 < 16 < read.policy.trained.rates_hz[1]
    assert read.policy.trained.delay_s == (0.03, 0.266), "the training's delays, which reach beyond the test's"


def recorded(path: Path, frames: int, *, surge: float) -> None:
    """A dive in which a person steers ahead in every frame, after the policy has steered for the first ten."""
    with Dive.create(path) as dive:
        for i in range(frames):
            t = 1_000_000_000 + i * 100_000_000
            source, ahead = ("policy", 0.0) if i < 10 else ("operator", 0.0 if i > frames - 10 else surge)
            setpoint = Setpoint(t=t, frame_id=i, frame_t=t, source=source, surge=ahead)  # type: ignore[arg-type]
            dive.write("inputs", ConsumedInput(t=t, by="pilotd", what="setpoint", setpoint=setpoint))
            known, four = torch.zeros(FEATURES).tolist(), (math.nan,) * 4
            given = PolicyInput(
                t=t + 1_000_000, frame_id=i, frame_t=t, task="follow", version=VERSION, reset=i == 0,
                features=tuple(known), maps=pack(torch.zeros(1, 4, 12, 16)), goal=four, attitude=(0.0, 0.0, 0.0),
                rates=(0.0, 0.0, 0.0),
                depth=1.0, start=(0.0, 1.0), previous=four,
            )  # fmt: skip
            dive.write("policy_input", given)


def test_take_over_of_a_person_counts_most_and_pauses_least(tmp_path: Path) -> None:
    recorded(tmp_path / "a.mcap", 80, surge=0.5)
    said = list(dives.moments(tmp_path / "a.mcap"))
    assert [each[2] for each in said[:10]] == [0.0] * 10
    assert said[10][2] == dives.TAKEN_OVER_WEIGHT and said[10][1].surge == 0.5  # type: ignore[union-attr]
    assert said[50][2] == 1.0 and said[75][2] == dives.IDLE_WEIGHT


def test_cloning_comes_nearer_to_the_person(tmp_path: Path) -> None:
    torch.manual_seed(0)
    folder, start_at = tmp_path / "dives", tmp_path / "policy.safetensors"
    folder.mkdir()
    recorded(folder / "a.mcap", 200, surge=0.5)
    save(PolicyNetwork(), start_at)
    save(PolicyNetwork(), tmp_path / "encoder.safetensors")
    cards.policy_card(start_at, tmp_path / "encoder.safetensors", recipe.Recipe(), -1.0, {"follow": {"success": 0.9}})
    short = recipe.CloneRecipe(length=32, burn_in=4, updates=60, batch=4, rate=2e-3, share=1.0)
    made = dives.clone(short, folder, tmp_path / "out", start_at, quiet)
    card = toml.parse(toml.read_text(made.with_suffix(".toml")))
    assert card["cloned"]["error_after"] < 0.3 * card["cloned"]["error_before"]
    assert "results" not in card, "nobody has tried the clone"
    assert (made.parent / "encoder.safetensors").read_bytes() == (tmp_path / "encoder.safetensors").read_bytes()
    some = msgspec.structs.replace(short, share=0.25)
    less = load_file(dives.clone(some, folder, tmp_path / "less", start_at, quiet))
    trunk, most = load_file(start_at), load_file(made)
    for key, each in less.items():
        assert torch.allclose(each, 0.75 * trunk[key] + 0.25 * most[key], atol=1e-6)


def test_a_simulated_pilot_can_be_cloned(tmp_path: Path) -> None:
    """Its dives hold the teacher's sticks and what the policy is told at the same frames."""
    paths = pilot_dives.record("transit", 2, tmp_path, 3, lambda share: None, longest_s=8.0)
    windows = dives.windows(tmp_path, 64)
    assert len(paths) == 2 and windows.maps.shape[:2] == (64, windows.memory.shape[0])
    sea = Sea("transit", "nominal", 2, 3, auto_reset=False)
    sources, maps = sea.reset()
    sticks, _ = expert("transit")(sources, maps, sea.truth(), None)
    assert windows.begins[0].any() and torch.equal(windows.features[0, 0], features(sources)[0].half())
    assert windows.labels[0, 0].tolist() == pytest.approx(sticks[0].tolist(), abs=1e-6)
    assert bool((windows.weights > 0).all()), "somebody steers all the time"


def test_dives_without_a_task_are_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no dives"):
        dives.windows(tmp_path, 32)
    with Dive.create(tmp_path / "a.mcap") as dive:
        dive.write("inputs", ConsumedInput(t=1, by="pilotd", what="start"))
    with pytest.raises(UserError, match="rov ctl task"):
        dives.windows(tmp_path, 32)


def test_a_student_learns_from_its_teacher() -> None:
    """From nothing, a few seconds of the recipe: on vehicles that it has not met it comes nearer to the teacher."""
    torch.manual_seed(0)
    short = DaggerRecipe(
        tasks=("follow",), levels=("easy",), vehicles=64, window=40, burn_in=4, updates=120, batch=16, rate=2e-3,
    )  # fmt: skip
    learner = dagger.Learner(short, CPU)
    learner.round = 4  # its rate has risen to the recipe's
    rooms = [Classroom("follow", 64, seed, short, TEACHERS["follow"], CPU) for seed in (1, 99)]
    seen, unseen = (room.round(learner.student, 1.0)[0] for room in rooms)
    before = loss(learner.student, unseen, 4, 0.0)[1]["error"]
    store = Store(1)
    store.add(seen)
    learner.learn(store, 0.0)
    after = loss(learner.student, unseen, 4, 0.0)[1]["error"]
    assert after < 0.75 * before
