"""The stage that tunes teacher and PID: CMA-ES over their numbers, all candidates on the same episodes, and the same
budget for both."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tomli_w
import torch

from models.policy import evolution
from models.policy.recipe import TuningRecipe, claim
from models.policy.trial import Trial, trial
from models.policy.workers import quiet
from rov.types import Floats
from sim.tasks import noise as sea_noise
from sim.tasks.expert import EXPERT, expert
from sim.tasks.pid import PID, pid
from sim.tasks.sea import Sea

Progress = Callable[[str, int, int], None]
TABLES = {"expert": EXPERT, "pid": PID}
CHECKED_SEED = 55_000
CHECKED = 4
"""The result is compared with the start on this many times a candidate's episodes."""


class Tuned(NamedTuple):
    """What a search found, in the table's units, and summaries of the same new episodes at its start and its end."""

    values: dict[str, float]
    start: dict[str, float]
    end: dict[str, float]


def run(
    recipe: TuningRecipe,
    folder: Path,
    workers: int,
    progress: Progress,
    noise: Path = sea_noise.FILE,
    limit_s: float = float("inf"),
) -> None:
    """Run or resume the stage: `expert.toml` and `pid.toml` in the folder. `limit_s` ends the searches early,
    each after its share."""
    claim(folder, recipe)
    jobs = [(kind, task) for kind in TABLES for task in recipe.tasks]
    found: dict[str, dict[str, Tuned]] = {kind: {} for kind in TABLES}
    each_s = limit_s * max(1, workers) / len(jobs)
    with ProcessPoolExecutor(max(1, workers), mp_context=get_context("spawn"), initializer=quiet) as pool:
        waiting = {pool.submit(tune, recipe, kind, task, folder, noise, each_s): (kind, task) for kind, task in jobs}
        try:
            for number, future in enumerate(as_completed(waiting)):
                kind, task = waiting[future]
                found[kind][task] = future.result()
                progress(f"{kind} of {task}: {told(found[kind][task])}", number + 1, len(jobs))
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    for kind, made in found.items():
        write(folder / f"{kind}.toml", {task: made[task].values for task in recipe.tasks})


def write(path: Path, values: dict[str, dict[str, float]]) -> None:
    head = (
        "# Written by `python -m models.train_policy` (CMA-ES, which pays for joules and time); what the numbers mean\n"
    )
    path.write_text(head + "# is in the module of the same name.\n" + tomli_w.dumps(values))


def tune(recipe: TuningRecipe, kind: str, task: str, folder: Path, noise: Path, limit_s: float = float("inf")) -> Tuned:
    """Search one controller's numbers, or go on with the search. The mean of the last generation is the result, unless
    the start does better. `limit_s` ends the search early."""
    done = folder / f"{kind}_{task}.done.json"
    if done.exists():
        return Tuned(**json.loads(done.read_text()))
    table = TABLES[kind][task]
    low, high, start = (np.array(each) for each in zip(*table.values(), strict=True))
    state = folder / f"{kind}_{task}.json"
    until = time.monotonic() + limit_s
    search = evolution.from_plain(json.loads(state.read_text())) if state.exists() else None
    search = search or evolution.begin((start - low) / (high - low))
    while search.generation < recipe.generations and time.monotonic() < until:
        random = np.random.default_rng((recipe.seed, search.generation))
        candidates = evolution.ask(search, recipe.population, random)
        seed = recipe.seed * 10_000 + search.generation
        tried = attempt(recipe, kind, task, low + candidates * (high - low), seed, recipe.episodes, noise)
        costs = tried.charge.view(recipe.population, -1).double().mean(1).numpy()
        search = evolution.tell(search, candidates, costs)
        part = state.with_suffix(".part")
        part.write_text(json.dumps(evolution.as_plain(search)))
        part.replace(state)
        line = {"generation": search.generation, "best": costs.min(), "mean": costs[0], "sigma": search.sigma}
        with (folder / f"{kind}_{task}.jsonl").open("a") as log:
            log.write(json.dumps(line) + "\n")
    made = checked(recipe, kind, task, start, low + np.clip(search.mean, 0, 1) * (high - low), noise)
    done.write_text(json.dumps(made._asdict(), indent=1))
    return made


def checked(recipe: TuningRecipe, kind: str, task: str, start: Floats, end: Floats, noise: Path) -> Tuned:
    """Start and end of a search on the same episodes, which it has not seen; the better one counts."""
    table = TABLES[kind][task]
    both = attempt(recipe, kind, task, np.stack([start, end]), CHECKED_SEED, CHECKED * recipe.episodes, noise)
    halves = [Trial(*(part.view(2, -1)[i] for part in both)).summary() for i in (0, 1)]
    chosen = start if halves[0]["charge"] < halves[1]["charge"] else end
    values = {
        name: min(max(float(f"{value:.4g}"), limits.low), limits.high)
        for (name, limits), value in zip(table.items(), chosen, strict=True)
    }
    return Tuned(values, *halves)


def attempt(
    recipe: TuningRecipe, kind: str, task: str, numbers: Floats, seed: int, episodes: int, noise: Path
) -> Trial:
    """Try numbers (P, K), each on the same episodes: rows are candidate by candidate."""
    noisy = sea_noise.load(noise)
    sea = Sea(task, recipe.level, len(numbers) * episodes, seed, repeat=len(numbers), auto_reset=False, noise=noisy)
    rows = torch.tensor(numbers, dtype=torch.float32).repeat_interleave(episodes, 0)
    return trial(expert(task, rows) if kind == "expert" else pid(task, rows), sea)


def told(made: Tuned) -> str:
    before, after = made.start, made.end
    change = after["charge"] / max(before["charge"], 1e-6) - 1
    return f"success {before['success']:.0%} → {after['success']:.0%}, cost {change:+.0%}"
