"""Dives of a simulated pilot, to try cloning on: the teacher holds the sticks, and what the policy would be told of
every frame is recorded beside them, as in a dive with a task set (`python -m models.train_policy --dives`)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rov.dives.dive import Dive, DiveWriter
from rov.messages import ConsumedInput, PolicyInput, Setpoint
from rov.steering.policy_input import VERSION, Sources, features
from rov.steering.policy_model import pack
from sim.tasks.expert import expert
from sim.tasks.rows import take
from sim.tasks.sea import Sea

BEGIN_NS = 1_000_000_000
LONGEST_S = 140.0
Progress = Callable[[float], None]


@torch.no_grad()
def record(
    task: str, number: int, out: Path, seed: int, progress: Progress, longest_s: float = LONGEST_S
) -> list[Path]:
    """Write `number` dives of one task on the noise models, each until its episode ends, or after `longest_s`.

    `progress` is told the share of dives that have ended."""
    sea = Sea(task, "nominal", number, seed, auto_reset=False)
    teacher, memory = expert(task), None
    paths = [out / f"{task}_{seed:03d}_{i:03d}.mcap" for i in range(number)]
    out.mkdir(parents=True, exist_ok=True)
    open_dives = {i: Dive.create(path) for i, path in enumerate(paths)}
    try:
        sources, maps = sea.reset()
        frame = 0
        while open_dives and float(sea.elapsed[0]) < longest_s:
            sticks, memory = teacher(sources, maps, sea.truth(), memory)
            t, known = BEGIN_NS + round(float(sea.elapsed[0]) * 1e9), features(sources)
            for i, dive in open_dives.items():
                only = slice(i, i + 1)
                _write(dive, task, frame, t, take(sources, only), known[i], maps[only], sticks[i])
            sources, maps, outcome = sea.step(sticks)
            frame += 1
            for i in outcome.done.nonzero()[:, 0].tolist():
                if i in open_dives:
                    open_dives.pop(i).close()
            progress(1 - len(open_dives) / number)
    finally:
        for dive in open_dives.values():
            dive.close()
    return paths


def _write(
    dive: DiveWriter, task: Any, frame: int, t: int, sources: Sources, known: Tensor, maps: Tensor, sticks: Tensor
) -> None:
    """The pilot's sticks (4,) at a frame, and what the policy is told of it: one row, its features (F,), its maps."""

    def row(some: Tensor) -> Any:
        return tuple(some[0].tolist())

    surge, sway, heave, yaw = sticks.clamp(-1, 1).tolist()
    setpoint = Setpoint(t=t, frame_id=-1, frame_t=t, source="operator", surge=surge, sway=sway, heave=heave, yaw=yaw)
    dive.write("inputs", ConsumedInput(t=t, by="pilotd", what="setpoint", setpoint=setpoint))
    given = PolicyInput(
        t=t + 1, frame_id=frame, frame_t=t, task=task, version=VERSION, reset=frame == 0,
        features=tuple(known.tolist()), maps=pack(maps), goal=row(sources.goal),
        target_height=float(sources.target_height), attitude=row(sources.attitude), rates=row(sources.rates),
        depth=float(sources.depth), start=row(sources.start), moved=row(sources.moved), keyed=row(sources.keyed),
        cell_v=float(sources.cell_v), previous=row(sources.previous), dt_s=float(sources.dt_s),
    )  # fmt: skip
    dive.write("policy_input", given)
