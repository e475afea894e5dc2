"""The stage that teaches: the student steers, the teacher says what it would have done (DAgger, Ross et al. 2011).

All tasks in turn, one network. A part of the rows is driven by the student alone, as in the water: their episodes are
the closed-loop figures while it trains, and what is kept is chosen by them, never by the loss.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from models.policy.classroom import Episodes
from models.policy.crew import Crew, Numbers, divided
from models.policy.recipe import DaggerRecipe, RecipeError, claim
from models.policy.trial import trial
from models.policy.unroll import KNOWN
from models.policy.windows import Store, loss
from models.policy.workers import quiet
from rov.steering.disengagement import BAD, FRAMES
from rov.steering.policy_input import Sources, features
from rov.steering.policy_network import PolicyNetwork
from sim.tasks import noise as sea_noise
from sim.tasks.expert import EXPERT, expert
from sim.tasks.sea import Sea, Truth
from sim.tasks.tuned import load

Progress = Callable[[str, int, int], None]
JUDGED_SEED = 77_000
START, MEAN = "round_0000", "mean"
"""Weights, by name: those that the training started from, and the mean of many of it."""
FALSE_SHARE = 0.01
"""Share of normal episodes that may count as unsure once."""


class Learner:
    """Networks, optimiser and what was best; saved after every round."""

    def __init__(self, recipe: DaggerRecipe, device: torch.device):
        torch.manual_seed(recipe.seed)
        self.recipe, self.device = recipe, device
        self.network = PolicyNetwork().to(device)
        # An eighth faster on a CPU.
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stubs
        self.student = PolicyNetwork().to(device)
        """The moving average of the network: it steers, and it is what ships."""
        self.student.load_state_dict(self.network.state_dict())
        self.bearing = nn.Linear(KNOWN, 1).to(device)
        learning = [*self.network.parameters(), *self.bearing.parameters()]
        self.optimiser = torch.optim.AdamW(learning, lr=recipe.rate, weight_decay=recipe.decay)
        self.random = torch.Generator().manual_seed(recipe.seed)
        self.round, self.updates, self.seconds = 0, 0, 0.0

    def learn(self, store: Store, share: float) -> dict[str, float]:
        """The updates of one round; `share` of the training is done."""
        sums: dict[str, float] = {}
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.rate * (0.02 + 0.98 * min(1.0, (self.round + 1) / 5) * (1 - share) ** 1.5)
        for _ in range(self.recipe.updates):
            batch = store.draw(self.recipe.batch, self.random)
            value, parts = loss(self.network, batch, self.recipe.burn_in, self.recipe.smooth, self.bearing)
            self.optimiser.zero_grad(set_to_none=True)
            value.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
            self.optimiser.step()
            self.updates += 1
            with torch.no_grad():
                for mine, its in zip(self.student.parameters(), self.network.parameters(), strict=True):
                    mine.lerp_(its, 1 / (1 + self.recipe.average * self.updates))
            sums = {name: sums.get(name, 0.0) + part / self.recipe.updates for name, part in parts.items()}
        return sums

    def save(self, path: Path) -> None:
        state: dict[str, Any] = {"network": self.network.state_dict(), "student": self.student.state_dict()}
        state |= {"bearing": self.bearing.state_dict(), "optimiser": self.optimiser.state_dict()}
        state |= {
            "round": self.round,
            "updates": self.updates,
            "seconds": self.seconds,
            "random": self.random.get_state(),
        }
        torch.save(state, path.with_suffix(".new"))
        path.with_suffix(".new").replace(path)  # an interrupted run leaves the last whole round

    def resume(self, path: Path) -> None:
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.student.load_state_dict(state["student"])
        self.bearing.load_state_dict(state["bearing"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.round, self.updates, self.seconds = state["round"], state["updates"], state["seconds"]
        self.random.set_state(state["random"].cpu())


def run(
    recipe: DaggerRecipe,
    folder: Path,
    device: torch.device,
    workers: int,
    progress: Progress,
    teachers: Numbers,
    noise: Path = sea_noise.FILE,
    start: Path | None = None,
    limit_s: float = float("inf"),
) -> None:
    """Run or resume the stage. `teachers`: their tuned numbers; `noise`: of the sea. `limit_s` ends it early: the
    learning rate falls in that time."""
    claim(folder, recipe)
    learner = Learner(recipe, device)
    if start:
        learner.network.load_state_dict(load_file(start, device=str(device)))
        learner.student.load_state_dict(learner.network.state_dict())
    checkpoint, log = folder / "checkpoint.pt", folder / "log.jsonl"
    if checkpoint.exists():
        learner.resume(checkpoint)
    elif start:
        save(learner.student, folder / f"{START}.safetensors")
    store = Store(recipe.keep * len(divided(recipe, workers, 0)))
    crew = Crew(recipe, teachers, workers, recipe.seed + 1_000_000 * learner.round, device, noise)
    began = time.monotonic() - learner.seconds
    try:
        while learner.round < recipe.rounds and learner.seconds < limit_s:
            share = min(1.0, max(learner.round / recipe.rounds, learner.seconds / limit_s))
            teaching = max(recipe.teaching_last, recipe.teaching_first * (1 - share * 3))
            crew.begin(learner.student, teaching)
            line: dict[str, Any] = {"round": learner.round + 1, "teaching": teaching}
            line |= learner.learn(store, share) if store.sets else {}
            gathered = crew.end()
            for _, windows, _ in gathered:
                store.add(windows)
            for number, level in enumerate(recipe.levels):
                line |= {
                    task if number == 0 else f"{task} {level}": together(
                        [ended[number] for name, _, ended in gathered if name == task]
                    )
                    for task in recipe.tasks
                }
            learner.round, learner.seconds = learner.round + 1, time.monotonic() - began
            line["seconds"] = learner.seconds
            with log.open("a") as file:
                file.write(json.dumps(line) + "\n")
            learner.save(checkpoint)
            if learner.round % recipe.snapshot == 0:
                save(learner.student, folder / f"round_{learner.round:04d}.safetensors")
            progress(f"round {learner.round}: {shown(line, recipe.tasks)}", learner.round, recipe.rounds)
    finally:
        crew.close()
    save(learner.student, folder / f"round_{learner.round:04d}.safetensors")


def together(parts: list[Episodes]) -> dict[str, float]:
    """Episodes of several rooms as one."""
    count = sum(each.ended for each in parts)
    names = ("success", "touched", "charge")
    whole = {name: sum(getattr(each, name) * each.ended for each in parts) / max(count, 1) for name in names}
    return {"ended": count, **whole}


def shown(line: dict[str, Any], tasks: tuple[str, ...]) -> str:
    """The success of each task for the progress bar."""
    told = [f"{task} {line[task]['success']:.0%}" for task in tasks if line[task]["ended"]]
    return ", ".join(told) or "no episode has ended yet"


class Judged(NamedTuple):
    """What the judging says of the weights that were kept."""

    weights: Path
    log_variance: float
    """Limit above which the policy counts as unsure; see `unsure`."""
    results: dict[str, dict[str, float]]
    """By task."""
    teacher: dict[str, dict[str, float]]


def judge(
    recipe: DaggerRecipe,
    folder: Path,
    workers: int,
    progress: Progress,
    teachers: Numbers,
    noise: Path = sea_noise.FILE,
) -> Judged:
    """Whole episodes with each of the last snapshots and with the mean of many, all on the same seeds: the best by
    closed-loop cost is kept."""
    snapshots = sorted(folder.glob("round_*.safetensors"))
    tried = (None, *snapshots[-recipe.judged :], mean(snapshots, folder))
    jobs = [(path, task) for path in tried for task in recipe.tasks]
    results: dict[str, dict[str, dict[str, float]]] = {}
    with ProcessPoolExecutor(max(workers, 1), mp_context=get_context("spawn"), initializer=quiet) as pool:
        asked = [pool.submit(judged, path, task, recipe.judging, teachers[task], noise) for path, task in jobs]
        for number, ((path, task), future) in enumerate(zip(jobs, asked, strict=True)):
            name, summary = path.stem if path else "expert", future.result()
            results.setdefault(name, {})[task] = summary
            progress(f"judging: {name}, {task} {summary['success']:.0%}", number + 1, len(jobs))
    teacher = results.pop("expert")
    best = min(results, key=lambda name: sum(results[name][t]["charge"] / teacher[t]["charge"] for t in recipe.tasks))
    (folder / "judged.json").write_text(json.dumps({"best": best, "snapshots": results, "expert": teacher}, indent=1))
    shutil.copy(folder / f"{best}.safetensors", folder / "policy.safetensors")
    progress(f"the best is {best}", 1, 1)
    limit = max(each.pop("log_variance") for each in results[best].values())
    return Judged(folder / "policy.safetensors", limit, results[best], teacher)


def mean(snapshots: list[Path], folder: Path) -> Path:
    """The mean of the weights that the training started from, where it did from any, and of the later half of its
    snapshots, in a file of its own: where the last weights wander about what is right, their mean is nearer to it
    (Izmailov et al. 2018)."""
    first = [path for path in snapshots if path.stem == START]
    made = [path for path in snapshots if path.stem != START]
    loaded = [load_file(path) for path in (*first, *made[len(made) // 2 :])]
    whole = {name: torch.stack([each[name] for each in loaded]).mean(0) for name in loaded[0]}
    path = folder / f"{MEAN}.safetensors"
    save_file(whole, path)
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


def numbers(path: Path, recipe: DaggerRecipe) -> Numbers:
    """The teacher's numbers by task: the tuned ones of a file, and the recipe's. Raises RecipeError."""
    found = {task: dict(zip(EXPERT[task], load(path, task, EXPERT[task]), strict=True)) for task in recipe.tasks}
    for task, changed in recipe.teacher.items():
        if unknown := changed.keys() - EXPERT.get(task, {}).keys():
            raise RecipeError(f"dagger.teacher.{task}: knows no {', '.join(sorted(unknown))}")
        found[task] = found.get(task, {}) | changed
    return found


def save(network: PolicyNetwork, path: Path) -> None:
    save_file({key: value.contiguous().cpu() for key, value in network.state_dict().items()}, path)
