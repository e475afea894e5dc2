"""Runs the episodes of a plan, group by group, and keeps each as it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rov.steering.encoder import Encoder
from rov.steering.policy_card import Cards
from rov.steering.policy_network import PolicyNetwork
from rov.vision.detector import Detector
from sim.evaluation.episodes import TRACKED, Episode, append, read
from sim.evaluation.live import sail
from sim.evaluation.plan import Chunk, Plan
from sim.evaluation.rows import BLIND, Student, controller, noiseless
from sim.evaluation.watch import Watch
from sim.tasks.course import progress
from sim.tasks.follow import SETTLE_S
from sim.tasks.noise import load as load_noise
from sim.tasks.rendered import RenderedSea
from sim.tasks.scenes import label, look
from sim.tasks.sea import Outcome, Sea

Progress = Callable[[str, int], None]
"""Called with the row and the number of episodes that have ended."""


class Models(NamedTuple):
    """What the rows need."""

    policy: PolicyNetwork | None
    encoder: Encoder | None
    detector: Detector | None
    cards: Cards | None = None
    """With them the policy is let go as in the daemon."""
    weights: Path | None = None
    """Of the policy: the daemon reads them itself."""


class Poses(NamedTuple):
    """Where the vehicles of a group were, for films and tracks: (T, N, …)."""

    elapsed: list[Tensor]
    position: list[Tensor]
    attitude: list[Tensor]
    target: list[Tensor]


def run(plan: Plan, models: Models, out: Path, progress: Progress = lambda row, n: None) -> list[Episode]:
    """All episodes of the plan; those that are in `out` already are kept. Ctrl-C leaves what has ended."""
    path = out / "episodes.jsonl"
    out.mkdir(parents=True, exist_ok=True)
    episodes = [each for each in read(path) if each.row in plan.rows and each.episode < plan.episodes]
    done = {(each.row, each.episode) for each in episodes}
    for row in plan.rows:
        progress(row, sum(each.row == row for each in episodes))
    for chunk in plan.chunks():
        for row in plan.rows:
            wanted = {each for each in chunk.episodes if (row, each) not in done}
            if wanted:
                playing = live if row == "policy_live" else play
                for found in playing(plan, chunk, row, models, out, wanted):
                    if fresh := [each for each in found if each.episode in wanted]:
                        append(path, fresh)
                        episodes += fresh
                        progress(row, len(fresh))
    return episodes


def sea(plan: Plan, chunk: Chunk, row: str, models: Models) -> Sea:
    """The sea of a group of episodes. All rows get the same courses, conditions and hulls."""
    looks = [look(chunk.world, each) for each in chunk.looks_seeds()] if chunk.world else None
    common: dict[str, Any] = {
        "level": plan.level, "seed": chunk.seed, "device": plan.device, "split": "test", "hull": plan.hull,
        "loops": plan.loops, "trouble": plan.trouble,
    }  # fmt: skip
    if plan.tier == 2 and row not in BLIND and row not in ("policy_true", "policy_noise", "policy_live"):
        assert looks and models.encoder
        return RenderedSea(plan.task, models.encoder, models.detector, looks, **common)
    noise = noiseless(load_noise()) if row == "policy_true" else None
    return Sea(plan.task, n=chunk.size, looks=looks, noise=noise, auto_reset=False, **common)


@torch.inference_mode()
def play(plan: Plan, chunk: Chunk, row: str, models: Models, out: Path, wanted: set[int]) -> Any:
    """Run a group in a row until the wanted episodes have ended; yields lists of them as they end."""
    water = sea(plan, chunk, row, models)
    sources, maps = water.reset()
    steer, memory = controller(row, plan.task, models.policy), None
    over = torch.tensor([chunk.episode(i) not in wanted for i in range(water.n)], device=water.device)
    bill = torch.zeros(water.n, 3, device=water.device)  # joules, seconds, distance
    touched, let_go = torch.zeros_like(over), torch.zeros_like(over)
    watch = Watch(models.cards, water.n) if models.cards and isinstance(steer, Student) else None
    poses = Poses([], [], [], [])
    while not bool(over.all()):
        _note(poses, water)
        setpoint, memory = steer(sources, maps, water.truth(), memory)
        if watch and isinstance(steer, Student):
            let_go |= torch.tensor([bool(each) for each in watch.unfit(water, sources, steer)], device=water.device)
        sources, maps, outcome = water.step(setpoint)
        outcome = _without(outcome, let_go)
        running = ~over
        bill += torch.stack([outcome.joules, outcome.seconds, outcome.distance], dim=1) * running[:, None]
        touched |= outcome.touched & running
        ended = (outcome.done & running).nonzero()[:, 0].tolist()
        over |= outcome.done
        if isinstance(water, RenderedSea):
            water.idle = {*over.nonzero()[:, 0].tolist()}
        found = [
            _episode(plan, chunk, row, i, outcome, bill[i], (bool(touched[i]), bool(let_go[i])), water, poses)
            for i in ended
        ]
        yield found
    _keep(poses, out / "poses" / f"{row}-{chunk.number}.npz")


def live(plan: Plan, chunk: Chunk, row: str, models: Models, out: Path, wanted: set[int]) -> Iterator[list[Episode]]:
    """The wanted episodes of a group one after another, each in real time; their dives are kept."""
    assert models.weights and chunk.world
    for episode in sorted(wanted):
        water, i = sea(plan, chunk, row, models), chunk.row(episode)
        water.reset()
        folder = out / "dives" / f"{episode:04d}"
        sailed = sail(water, i, water.looks[i] if water.looks else look(chunk.world, 0), models.weights, folder)
        outcome = _without(sailed.outcome, torch.tensor(sailed.let_go))
        events = (sailed.touched, sailed.let_go)
        yield [_episode(plan, chunk, row, i, outcome, sailed.bill, events, water, Poses([], [], [], []))]


def _without(outcome: Outcome, let_go: Tensor) -> Outcome:
    """The outcome with those episodes failed in which the policy has been let go: the vehicle holds, and waits."""
    return outcome._replace(
        success=outcome.success & ~let_go,
        failed=outcome.failed | let_go,
        timed_out=outcome.timed_out & ~let_go,
        done=outcome.done | let_go,
    )


def _note(poses: Poses, water: Sea) -> None:
    poses.elapsed.append(water.elapsed)
    poses.position.append(water.state.position)
    poses.attitude.append(water.state.attitude)
    if water.course.target_ball:
        targets = water.course.targets
        poses.target.append(torch.cat([targets.position[:, 0], targets.velocity[:, 0]], dim=1))


def _episode(
    plan: Plan,
    chunk: Chunk,
    row: str,
    i: int,
    outcome: Outcome,
    bill: Tensor,
    events: tuple[bool, bool],
    water: Sea,
    poses: Poses,
) -> Episode:
    joules, seconds, distance = bill.tolist()
    number = chunk.episode(i)
    return Episode(
        row=row,
        episode=number,
        world=chunk.world,
        success=bool(outcome.success[i]),
        failed=bool(outcome.failed[i]),
        timed_out=bool(outcome.timed_out[i]),
        touched=events[0],
        disengaged=events[1],
        seconds=round(seconds, 2),
        joules=round(joules, 1),
        distance=round(distance, 2),
        night=bool(water.conditions.night[i]),
        ours=i < water.ours,
        target=label(float(water.course.targets.height[i, 0])) if water.course.target_ball else "",
        stand_off=_stand_off(poses, water, i),
        track=_track(poses, water, i) if number < TRACKED else [],
    )


def _stand_off(poses: Poses, water: Sea, i: int) -> float | None:
    settled = [step for step, elapsed in enumerate(poses.elapsed) if elapsed[i] > SETTLE_S]
    if not (poses.target and settled):
        return None
    apart = [(poses.target[step][i, :3] - poses.position[step][i]).norm() for step in settled]
    return round(float(torch.stack(apart).mean() / water.course.goal[i, 2]), 3)


def _track(poses: Poses, water: Sea, i: int) -> list[tuple[float, float]]:
    """About one point a second, along and across the course."""
    goal = water.course.goal[i, 0]
    heading = (water.course.heading[i] if goal.isnan() else goal).reshape(1)
    points = torch.stack([each[i] for each in poses.position[:: max(1, round(1 / 0.09))]] + [water.state.position[i]])
    along, across = progress(heading, points)
    return [(round(a, 2), round(b, 2)) for a, b in zip(along.tolist(), across.tolist(), strict=True)]


def _keep(poses: Poses, path: Path) -> None:
    """Write poses for the films: time (T, N), position (T, N, 3), attitude (T, N, 4), target (T, N, 6) or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part.npz")
    arrays = {
        name: torch.stack(each).cpu().numpy().astype(np.float32) for name, each in poses._asdict().items() if each
    }
    np.savez(part, **arrays)  # type: ignore[arg-type]
    part.replace(path)
