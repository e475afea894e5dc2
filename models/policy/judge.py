"""Which of the weights ships: whole episodes say it, never the loss."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from models.policy.crew import Numbers
from models.policy.recipe import ReinforceRecipe
from models.policy.trial import trial
from models.policy.weights import HALF, MEAN
from models.policy.workers import quiet
from rov.steering.disengagement import BAD, FRAMES
from rov.steering.policy_input import Sources, features
from rov.steering.policy_network import PolicyNetwork
from sim.tasks import noise as sea_noise
from sim.tasks.expert import EXPERT, expert
from sim.tasks.sea import Sea, Truth

Progress = Callable[[str, int, int], None]
JUDGED_SEED = 77_000
FALSE_SHARE = 0.01
"""Share of normal episodes that may count as unsure once."""


class Judged(NamedTuple):
    """What the judging says of the weights that were kept."""

    weights: Path
    log_variance: float
    """Limit above which the policy counts as unsure; see `unsure`."""
    results: dict[str, dict[str, float]]
    """By task."""
    teacher: dict[str, dict[str, float]]


def judge(
    recipe: ReinforceRecipe,
    folder: Path,
    workers: int,
    progress: Progress,
    teachers: Numbers,
    noise: Path = sea_noise.FILE,
) -> Judged:
    """Whole episodes with what the stage started from, each of its last snapshots, the mean of many and what lies half
    way from the start to that, all on the same seeds: the best by closed-loop cost is kept. How unsure it normally is
    takes more episodes: of a hundredth of 256 nobody knows where it begins."""
    first, *snapshots = sorted(folder.glob("round_*.safetensors"))
    late = mean(snapshots[len(snapshots) // 2 :], folder / f"{MEAN}.safetensors")
    half = mean([first, late], folder / f"{HALF}.safetensors")
    tried = (None, first, *snapshots[-recipe.judged :], late, half)
    jobs = [(path, task) for path in tried for task in recipe.tasks]
    results: dict[str, dict[str, dict[str, float]]] = {}
    with ProcessPoolExecutor(max(workers, 1), mp_context=get_context("spawn"), initializer=quiet) as pool:
        asked = [pool.submit(judged, path, task, recipe.judging, teachers[task], noise) for path, task in jobs]
        for number, ((path, task), future) in enumerate(zip(jobs, asked, strict=True)):
            name, summary = path.stem if path else "expert", future.result()
            results.setdefault(name, {})[task] = summary
            progress(f"judging: {name}, {task} {summary['success']:.0%}", number + 1, len(jobs))
        teacher = results.pop("expert")
        costs = {
            name: sum(result[task]["charge"] / teacher[task]["charge"] for task in recipe.tasks)
            for name, result in results.items()
        }
        best = min(costs, key=costs.__getitem__)
        path = folder / f"{best}.safetensors"
        asked = [pool.submit(judged, path, task, recipe.limiting, teachers[task], noise) for task in recipe.tasks]
        limit = max(each.result()["log_variance"] for each in asked)
    (folder / "judged.json").write_text(json.dumps({"best": best, "snapshots": results, "expert": teacher}, indent=1))
    shutil.copy(path, folder / "policy.safetensors")
    progress(f"the best is {best}", 1, 1)
    for each in results[best].values():
        del each["log_variance"]
    return Judged(folder / "policy.safetensors", limit, results[best], teacher)


def mean(weights: list[Path], path: Path) -> Path:
    """The mean of weights, in a file of its own. Of the later snapshots: where the last ones wander about what is
    right, their mean is nearer to it (Izmailov et al. 2018). With those that the stage started from: what was known
    is kept beside what is new (Wortsman et al. 2022)."""
    loaded = [load_file(each) for each in weights]
    save_file({name: torch.stack([each[name] for each in loaded]).mean(0) for name in loaded[0]}, path)
    return path


def judged(weights: Path | None, task: str, episodes: int, numbers: dict[str, float], noise: Path) -> dict[str, float]:
    """A summary of nominal episodes that no training has seen, of the training's ranges: the test's choose nothing.
    Without weights: of the teacher with its numbers."""
    sea = Sea(task, "nominal", episodes, JUDGED_SEED, auto_reset=False, noise=sea_noise.load(noise))
    if weights is None:
        return trial(expert(task, torch.tensor([[numbers[name] for name in EXPERT[task]]])), sea).summary()
    network = PolicyNetwork()
    network.load_state_dict(load_file(weights))
    said: list[Tensor] = []
    times: list[float] = []

    def step(sources: Sources, maps: Tensor, truth: Truth, memory: Tensor | None) -> tuple[Tensor, Tensor]:
        memory = network.initial_memory(len(maps)) if memory is None else memory
        setpoint, spread, memory = network(maps, features(sources), memory)
        said.append(spread.mean(1))
        times.append(float(truth.elapsed[0]))
        return setpoint, memory

    tried = trial(step, sea)
    running = torch.tensor(times)[:, None] < tried.seconds
    return tried.summary() | {"log_variance": unsure(torch.stack(said), running & tried.success)}


def unsure(said: Tensor, counted: Tensor) -> float:
    """The log variance (T, N) that all but FALSE_SHARE of whole successful episodes stay below for all but BAD - 1 of
    FRAMES decisions in a row: a conformal limit on the maximum of normal runs."""
    most = said.masked_fill(~counted, -torch.inf).unfold(0, FRAMES, 1).sort(-1).values[..., FRAMES - BAD].amax(0)
    normal = most[torch.isfinite(most)]
    return torch.quantile(normal, 1 - FALSE_SHARE).item() if len(normal) else 0.0
