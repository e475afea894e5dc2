"""Evaluation: intervals, figures and pairs by hand; results that go on after a kill; the page."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from rov import toml
from rov.errors import UserError
from rov.steering.policy_network import PolicyNetwork
from sim.evaluation import page, plan, results, run
from sim.evaluation.command import prepare
from sim.evaluation.episodes import Episode, append, read
from sim.evaluation.films import chosen
from sim.evaluation.live import CourseVehicle, task_step
from sim.evaluation.plan import CHARGE_J, LAMBDA_W, Plan, keep
from sim.evaluation.rows import Student, blinded, check, noiseless
from sim.evaluation.run import Models
from sim.evaluation.statistics import paired_ratio, wilson
from sim.tasks import follow, transit
from sim.tasks.noise import load
from sim.tasks.sea import Sea

pytestmark = pytest.mark.patient

NOBODY = Models(None, None, ())


def plan_of(**changes: object) -> Plan:
    told: dict[str, object] = {
        "task": "transit",
        "level": "easy",
        "rows": ("zero",),
        "episodes": 4,
        "seed": 1,
        "tier": 1,
    }
    return Plan(**(told | changes))  # type: ignore[arg-type]


def episode(row: str, number: int, joules: float, *, success: bool = True, touched: bool = False) -> Episode:
    return Episode(
        row=row, episode=number, success=success, failed=not success, timed_out=False, touched=touched, seconds=10.0,
        joules=joules, distance=5.0,
    )  # fmt: skip


# ---- figures ----------------------------------------------------------------------------------------------------


def test_wilsons_interval() -> None:
    """95 of 100 is [0.89, 0.98]; none of 100 excludes more than 4 % (two-sided)."""
    low, high = wilson(95, 100)
    assert (round(low, 3), round(high, 3)) == (0.888, 0.978)
    low, high = wilson(0, 100)
    assert low == pytest.approx(0.0, abs=1e-12) and high == pytest.approx(3.8416 / 103.8416, rel=1e-3)
    assert wilson(0, 0) == (0.0, 1.0)


def test_a_paired_ratio() -> None:
    random = np.random.default_rng(0)
    theirs = random.uniform(50, 500, 200)
    ratio = paired_ratio(theirs * 0.9 * np.exp(random.normal(0, 0.05, 200)), theirs, seed=0)
    assert ratio.mean == pytest.approx(0.9, abs=0.02) and ratio.low < 0.9 < ratio.high
    assert ratio.high - ratio.low < 0.03, "pairs take the difference between episodes out"
    assert paired_ratio(theirs, theirs, seed=0) == (1.0, 1.0, 1.0)


def test_a_rows_figures_by_hand() -> None:
    some = [episode("pid", 0, 1000), episode("pid", 1, 2000), episode("pid", 2, 400, success=False, touched=True)]
    f = results.figures(some)
    assert (f["episodes"], f["success"], f["collisions"]) == (3, pytest.approx(2 / 3), pytest.approx(1 / 3))
    assert f["success_low"] == pytest.approx(wilson(2, 3).low)
    assert (f["seconds"], f["joules"], f["joules_per_m"]) == (10.0, 1500.0, 300.0)
    bills = [1000 + 10 * LAMBDA_W, 2000 + 10 * LAMBDA_W, 400 + 10 * LAMBDA_W + CHARGE_J]
    assert f["score"] == pytest.approx(sum(bills) / 3)


def test_pairs_compare_only_where_both_succeed() -> None:
    ours = [episode("a", i, 900.0 - 500.0) for i in range(4)] + [episode("a", 4, 9000, success=False)]
    theirs = [episode("b", i, 1000.0) for i in range(3)] + [episode("b", 3, 50, success=False), episode("b", 4, 1)]
    told = plan_of(rows=("a", "b"), episodes=5)
    found = results.compare(told, ours, theirs)
    assert found is not None and found["of"] == "score" and found["both"] == 3 and found["share"] == pytest.approx(0.6)
    assert found["ratio"] == pytest.approx((400 + 500) / (1000 + 500))
    lasting = results.compare(plan_of(task="station", rows=("a", "b")), ours, theirs)
    assert lasting is not None and lasting["of"] == "mean power" and lasting["ratio"] == pytest.approx(0.4)
    assert results.compare(told, ours[:1], theirs) is None


def test_the_best_the_median_and_the_worst() -> None:
    some = [episode("a", i, joules) for i, joules in enumerate((300, 100, 500))] + [episode("a", 3, 1, success=False)]
    assert {name: each.episode for name, each in chosen(some).items()} == {"best": 1, "median": 2, "worst": 3}


# ---- results that go on -------------------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Episodes of less than a second, in groups of four."""
    monkeypatch.setattr(transit, "TIME_S", 0.8)
    monkeypatch.setattr(plan, "CHUNK", {1: 4, 2: 2})


@pytest.mark.usefixtures("quick")
def test_results_go_on_after_a_kill(tmp_path: Path) -> None:
    told = plan_of(episodes=6, rows=("zero",))
    whole = run.run(told, NOBODY, tmp_path / "whole")
    assert [each.episode for each in sorted(whole, key=lambda each: each.episode)] == list(range(6))

    broken = tmp_path / "broken"

    def killed(row: str, n: int) -> None:
        if n and len(read(broken / "episodes.jsonl")) >= 4:
            raise KeyboardInterrupt

    broken.mkdir()
    with pytest.raises(KeyboardInterrupt):
        run.run(told, NOBODY, broken, killed)
    with (broken / "episodes.jsonl").open("ab") as file:
        file.write(b'{"row": "zero", "episo')  # the line that was being written
    had = read(broken / "episodes.jsonl")
    assert 0 < len(had) < 6
    again = run.run(told, NOBODY, broken)
    assert sorted(map(repr, again)) == sorted(map(repr, whole)), "the same figures as without the kill"
    assert len(read(broken / "episodes.jsonl")) == 6
    calls: list[int] = []
    run.run(told, NOBODY, broken, lambda row, n: calls.append(n))
    assert calls == [6], "nothing is run twice"


@pytest.mark.usefixtures("quick")
def test_more_episodes_leave_the_first_as_they_are(tmp_path: Path) -> None:
    few = run.run(plan_of(episodes=3), NOBODY, tmp_path)
    more = run.run(plan_of(episodes=7), NOBODY, tmp_path)
    assert set(map(repr, few)) < set(map(repr, more)) and len(more) == 7


def test_follow_says_what_it_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else fish that are lost hide in the mean of divers that are not."""
    monkeypatch.setattr(follow, "TIME_S", 0.4)
    monkeypatch.setattr(plan, "CHUNK", {1: 8, 2: 2})
    told = plan_of(task="follow", episodes=8, rows=("zero",))
    found = run.run(told, NOBODY, tmp_path)
    assert {each.target for each in found} == {"diver", "fish"}
    fishes = [each.success for each in found if each.target == "fish"]
    assert results.figures(found)["success_fish"] == sum(fishes) / len(fishes)
    assert "success_fish" not in results.figures([each for each in found if each.target == "diver"])
    assert {each.stand_off for each in found} == {None}, "nothing has settled yet"


def test_how_far_from_the_target_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the poses that are kept for the films, of the teacher, who knows the distance."""
    monkeypatch.setattr(follow, "TIME_S", 14.0)
    monkeypatch.setattr(plan, "CHUNK", {1: 8, 2: 2})
    told = plan_of(task="follow", episodes=8, rows=("expert",))
    found = {each.episode: each for each in run.run(told, NOBODY, tmp_path)}
    (chunk,) = told.chunks()
    water = run.sea(told, chunk, "expert", NOBODY)
    water.reset()
    poses = np.load(tmp_path / "poses/expert-0.npz")
    apart = np.linalg.norm(poses["target"][..., :3] - poses["position"], axis=2) / water.course.goal[:, 2].numpy()
    for row in range(8):
        settled = poses["elapsed"][:, row] > follow.SETTLE_S
        assert found[chunk.episode(row)].stand_off == pytest.approx(apart[settled, row].mean(), abs=0.02)
    assert 0.85 < results.figures([*found.values()])["stand_off"] < 1.15


@pytest.mark.usefixtures("quick")
def test_rows_sail_the_same_courses() -> None:
    told = plan_of(rows=("zero", "expert"))
    chunk = next(told.chunks())
    seas = [run.sea(told, chunk, row, NOBODY) for row in ("zero", "policy_true")]
    for each in seas:
        each.reset()
    assert torch.equal(seas[0].course.heading, seas[1].course.heading)
    assert torch.equal(seas[0].conditions.current, seas[1].conditions.current)
    assert [chunk.row(chunk.episode(i)) for i in range(4)] == [0, 1, 2, 3]


def test_another_plan_is_refused(tmp_path: Path) -> None:
    keep(plan_of(), tmp_path)
    keep(plan_of(episodes=9, rows=("zero", "pid")), tmp_path)
    with pytest.raises(UserError, match="holds results of level = easy"):
        keep(plan_of(level="hard"), tmp_path)
    keep(plan_of(rows=("zero", "policy_noise"), policy_sha256="aa"), tmp_path)
    keep(plan_of(), tmp_path)
    with pytest.raises(UserError, match="policy_sha256 = aa"):
        keep(plan_of(rows=("policy_noise",), policy_sha256="bb"), tmp_path)


def test_a_damaged_line_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "episodes.jsonl"
    append(path, [episode("a", 0, 1.0)])
    path.write_bytes(b"{}\n" + path.read_bytes())
    with pytest.raises(UserError, match="line 1 is no episode"):
        read(path)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"rows": ("pidd",)}, "is not known"),
        ({"task": "transit", "rows": ("servo",)}, "transit has none"),
        ({"task": "swim"}, "--task swim"),
        ({"level": "mild"}, "--level mild"),
        ({"policy": Path("nowhere.safetensors"), "rows": ("policy_noise",)}, "nowhere.safetensors"),
    ],
)
def test_what_cannot_be_is_refused(told: dict[str, object], said: str) -> None:
    options: dict[str, object] = {
        "task": "follow", "policy": Path("x"), "level": "easy", "worlds": "", "episodes": 1, "seed": 0,
        "rows": ("zero",), "hull": "heavy", "loops": "both", "trouble": (False, 0.0, None, None), "device": "cpu",
    }  # fmt: skip
    with pytest.raises(UserError, match=said):
        prepare(**(options | told))  # type: ignore[arg-type]


# ---- rows and page ------------------------------------------------------------------------------------------------


def test_the_blinded_policy_sees_nothing_and_the_true_one_everything() -> None:
    sea = Sea("transit", "nominal", 8, seed=0, noise=noiseless(load()), auto_reset=False)
    sources, maps = sea.reset()
    far = sea.truth().ranges
    assert maps[:, 0] == pytest.approx((1 / far).clamp(max=4.0), abs=2e-3)
    dark, nothing = blinded(sources, maps)
    assert not dark.tracks.any() and not dark.moved.any() and nothing[:, 0].std() < 1e-6 and not nothing[:, 2].any()
    assert torch.equal(dark.attitude, sources.attitude)
    check(("policy_blinded", "zero"), "transit")


def test_a_policy_steers_and_its_memory_matters() -> None:
    torch.manual_seed(0)
    sea = Sea("follow", "easy", 4, seed=0, auto_reset=False)
    sources, maps = sea.reset()
    keeps, forgets = Student(PolicyNetwork().eval()), Student(PolicyNetwork().eval(), forgets=True)
    forgets.network.load_state_dict(keeps.network.state_dict())
    first, memory = keeps(sources, maps, None, None)
    assert first.shape == (4, 4) and first.abs().max() <= 1
    later, _ = keeps(sources, maps, None, memory)
    anew, _ = forgets(sources, maps, None, memory)
    assert not torch.equal(later, anew) and keeps.log_variance.shape == (4,)


@pytest.mark.usefixtures("quick")
def course_vehicle(task: str = "transit") -> CourseVehicle:
    water = Sea(task, "easy", 2, seed=3, split="test", hull="heavy", auto_reset=False)
    water.reset()
    return CourseVehicle(water, 1, "vectored_6dof")


def test_a_live_vehicle_hangs_on_its_hook_until_the_policy_steers() -> None:
    vehicle, outputs = course_vehicle(), np.full(8, 0.5)
    start = vehicle.pose()[0].clone()
    vehicle.step(outputs, None, 1.0)
    assert torch.equal(vehicle.pose()[0], start) and vehicle.outcome is None
    vehicle.hooked = False
    vehicle.step(outputs, None, 1.01)
    assert not torch.allclose(vehicle.pose()[0], start) and vehicle.outcome is not None
    assert vehicle.bill[1].item() == pytest.approx(1.0), "s"
    assert vehicle.bill[0] > 50.0, "J: thrusters at a half"
    assert vehicle.volts > 10.0 and vehicle.attitude.shape == (3,) and vehicle.speed.shape == (6,)


def test_a_live_vehicle_is_judged_as_in_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes longer than the task has is over, and moves no more."""
    monkeypatch.setattr(transit, "TIME_S", 0.5)
    vehicle = course_vehicle()
    vehicle.hooked = False
    vehicle.step(np.zeros(8), None, 2.0)
    assert vehicle.outcome is not None and vehicle.outcome.timed_out[1] and not vehicle.outcome.success[1]
    assert vehicle.bill[1].item() == pytest.approx(0.5)
    assert vehicle.target() is None
    target = course_vehicle("follow").target()
    assert target is not None
    (north, east, down), velocity = target
    assert math.hypot(north, east) > 0.5 and down > 0 and 0.0 < math.hypot(*velocity) < 0.5


def test_a_task_is_given_as_an_operator_would() -> None:
    water = course_vehicle("follow").water
    step = task_step(water, 1)
    assert (step.task, step.mode, step.heading_deg, step.depth) == ("follow", "policy", None, None)
    assert step.distance == pytest.approx(float(water.course.goal[1, 2])) and step.target in ("diver", "fish")
    assert step.target_height == pytest.approx(float(water.course.told_height[1]))
    step = task_step(course_vehicle().water, 1)
    assert step.heading_deg is not None and step.depth is not None and step.target_height is None


def test_the_whole_way_to_the_page(tmp_path: Path) -> None:
    weights = tmp_path / "policy.safetensors"
    save_file(PolicyNetwork().state_dict(), weights)
    told, models = prepare(
        "transit", weights, "easy", "", 3, 0, ("policy_noise", "zero"), "heavy", "both", (False, 0.0, None, None), "cpu"
    )
    assert told.policy_sha256 and told.tier == 1 and models.policy is not None
    out = tmp_path / "out"
    keep(told, out)
    episodes = run.run(told, models, out)
    found = results.write(told, episodes, out)
    page.write(told, found, episodes, {}, out)
    read_back = json.loads((out / "results.json").read_text())
    assert read_back["complete"] and {*read_back["rows"]} == {"policy_noise", "zero"}
    assert {"episodes", "success", "success_low", "collisions", "seconds", "joules", "score", "disengagements"} <= {
        *read_back["rows"]["zero"]
    }
    sailed_s = sum(each.seconds for each in episodes if each.row == "zero")
    assert read_back["rows"]["zero"]["hours"] * 3600 == pytest.approx(sailed_s)
    text = (out / "index.html").read_text()
    assert text.count("<polyline") == 6 and "No episode succeeded" in text
    assert all(math.isfinite(each["score"]) for each in read_back["rows"].values())
    card = weights.with_suffix(".toml")
    with pytest.raises(UserError, match="has no card"):
        results.must_fit_card(["policy_noise"], weights)
    card.write_text('name = "mine"\n[results.transit]\nsuccess = 0.5\nepisodes = 7\n[results.follow]\nsuccess = 0.25\n')
    with pytest.raises(UserError, match="must be policy_noise or policy_frames, not policy_true"):
        results.must_fit_card(["policy_true", "policy_noise"], weights)
    results.must_fit_card(["policy_noise", "expert"], weights)
    results.put_on_card(told, found, weights)
    said = toml.parse(card.read_text())
    assert said["name"] == "mine" and said["results"]["follow"] == {"success": 0.25}
    assert said["results"]["transit"]["episodes"] == 3 and said["results"]["transit"]["success"] == 0.0
    assert said["results"]["transit"]["row"] == "policy_noise"
