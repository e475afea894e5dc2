"""Train the policy: `python -m models.train_policy` runs the committed recipe, from the simulator to the weights.

Stages, in order: `encoder` (small pictures with the renderer's own ranges), `noise` (of the sea, fitted to encoder and
detector), `tuning` (teacher and PID), `dagger` (the student learns from the teacher on the batched sea), `reinforce`
(it learns from what it tries there). Each keeps
what it made in its folder under `--out`; the same command goes on where an interrupted one stopped, and `--from-stage`
does a stage and those after it again. `--dives` clones a person instead.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import torch
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from models.policy import cards, curves, dagger, dives, encoder, judge, noise, reinforce, tuning
from models.policy.recipe import Recipe, load
from rov.errors import UserError
from rov.printing import print_line
from rov.resources import checkout

RECIPE = Path(__file__).parent / "policy" / "recipe.toml"
STAGES = ("encoder", "noise", "tuning", "dagger", "reinforce")


@dataclass(frozen=True)
class Run:
    """One training."""

    recipe: Recipe
    out: Path
    device: torch.device
    workers: int
    limit_s: float
    """For each of tuning, dagger and reinforce."""
    say: Callable[[str, int, int], None]
    start: Path | None = None
    """Weights that the student starts from."""

    def folder(self, stage: str) -> Path:
        return self.out / stage

    @property
    def noise(self) -> Path:
        """What the stage of that name has fitted."""
        return self.folder("noise") / "noise.toml"


def do_encoder(run: Run) -> None:
    folder = run.folder("encoder")
    weights = encoder.run(run.recipe.encoder, folder, run.device, max(1, run.workers), run.say)
    metrics = json.loads((folder / "metrics.json").read_text())
    thresholds = json.loads((folder / "thresholds.json").read_text())
    cards.encoder_card(weights, run.recipe, metrics, thresholds)


def do_noise(run: Run) -> None:
    """The stages after it sail in this noise."""
    noise.run(
        run.recipe.noise, run.folder("noise"), run.folder("encoder") / "encoder.safetensors", run.workers, run.say
    )


def do_tuning(run: Run) -> None:
    tuning.run(run.recipe.tuning, run.folder("tuning"), run.workers, run.say, run.noise, run.limit_s)


def do_dagger(run: Run) -> None:
    folder = run.folder("dagger")
    # The learner computes while the crew gathers, and both take about as long: each has half of the processors.
    crew = (run.workers + 1) // 2
    if run.device.type == "cpu":
        torch.set_num_threads(max(1, min(torch.get_num_threads(), (os.cpu_count() or 1) - crew)))
    teachers = dagger.numbers(run.recipe.dagger)
    dagger.run(run.recipe.dagger, folder, run.device, crew, run.say, teachers, run.noise, run.start, run.limit_s)
    curves.draw(folder, run.recipe.dagger.tasks)


def do_reinforce(run: Run) -> None:
    folder, recipe = run.folder("reinforce"), run.recipe.reinforce
    teachers = dagger.numbers(run.recipe.dagger)
    start = run.folder("dagger") / "policy.safetensors"
    reinforce.run(recipe, folder, run.device, run.workers, run.say, teachers, start, run.noise, run.limit_s)
    judged = judge.judge(recipe, folder, run.workers, run.say, teachers, run.noise)
    results = {task: {**each, "episodes": recipe.judging} for task, each in judged.results.items()}
    cards.policy_card(
        judged.weights, run.folder("encoder") / "encoder.safetensors", run.recipe, judged.log_variance, results
    )
    curves.draw(folder, recipe.tasks, judged.teacher)


DO = {"encoder": do_encoder, "noise": do_noise, "tuning": do_tuning, "dagger": do_dagger, "reinforce": do_reinforce}


def train(run: Run) -> None:
    """Run the stages that are not done. A stage whose recipe has changed is done again, and those after it."""
    again = False
    for stage in STAGES:
        mark = run.folder(stage) / "done.json"
        mine = {"recipe": msgspec.to_builtins(getattr(run.recipe, stage))}
        again = again or not mark.exists() or json.loads(mark.read_text())["recipe"] != mine["recipe"]
        if not again:
            run.say(f"{stage}: done before", 1, 1)
            continue
        began = time.monotonic()
        DO[stage](run)
        seconds: dict[str, Any] = {"seconds": round(time.monotonic() - began)}
        mark.write_text(json.dumps(mine | seconds, indent=1))


def start_again(out: Path, stage: str) -> None:
    """Put the folders of a stage and of those after it aside, as `NAME.old`."""
    for each in STAGES[STAGES.index(stage) :]:
        folder, old = out / each, out / f"{each}.old"
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
            folder.rename(old)


def install(out: Path) -> None:
    """Copy weights, cards and tuned numbers to where the vehicle and the simulator look for them."""
    models, tasks = checkout() / "models", checkout() / "sim" / "tasks"
    for source, target in (
        (out / "encoder" / "encoder.safetensors", models),
        (out / "encoder" / "encoder.toml", models),
        (out / "reinforce" / "policy.safetensors", models),
        (out / "reinforce" / "policy.toml", models),
        (out / "noise" / "noise.toml", tasks),
        (out / "tuning" / "expert.toml", tasks),
        (out / "tuning" / "pid.toml", tasks),
    ):
        shutil.copy(source, target / source.name)


def main(
    out: Annotated[Path, typer.Option(help="Folder of the run; the same command continues it.")] = Path("runs/policy"),
    recipe: Annotated[Path, typer.Option(help="Recipe to follow.")] = RECIPE,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="section.key=value of the recipe, repeated.")
    ] = None,
    start: Annotated[Path | None, typer.Option(help="Weights that the student starts from, instead of none.")] = None,
    from_stage: Annotated[str, typer.Option(help=f"Do this stage and those after it again: {', '.join(STAGES)}.")] = "",
    smoke: Annotated[bool, typer.Option(help="A run in miniature, to see that everything works.")] = False,
    device: Annotated[str, typer.Option(help="cpu or cuda; auto: cuda where there is one.")] = "auto",
    workers: Annotated[int, typer.Option(min=0, help="Processes that simulate.")] = os.cpu_count() or 1,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads of the learner; 0: all.")] = 0,
    limit_minutes: Annotated[
        float, typer.Option(help="Longest time for each of tuning, dagger and reinforce; what is reached then counts.")
    ] = float("inf"),
    dives_: Annotated[
        Path | None,
        typer.Option("--dives", help="Instead: clone a person from recorded dives, on the weights of models/."),
    ] = None,
    install_: Annotated[
        bool, typer.Option("--install", help="Copy weights, cards and tuned numbers into the checkout at the end.")
    ] = False,
) -> None:
    """Train encoder, teacher and policy. After an interruption, even kill -9, the same command goes on.

    Examples: `python -m models.train_policy`, `python -m models.train_policy --from-stage dagger --install`,
    `python -m models.train_policy --smoke --out runs/try`,
    `python -m models.train_policy --device cuda --set dagger.vehicles=4096 --set dagger.batch=256` (a GPU steers 4096
    vehicles as fast as 100), `python -m models.train_policy --start models/policy.safetensors --out runs/more`,
    `python -m models.train_policy --dives dives --out runs/clone`."""
    if threads:
        torch.set_num_threads(threads)
    chosen = "cuda" if device == "auto" and torch.cuda.is_available() else "cpu" if device == "auto" else device
    try:
        if from_stage and from_stage not in STAGES:
            raise UserError(f"--from-stage {from_stage}: is no stage; use one of {', '.join(STAGES)}")
        if start and not start.is_file():
            raise UserError(f"--start {start}: no such weights file")
        followed = load(recipe, settings or [])
        if from_stage:
            start_again(out, from_stage)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns) as progress:
            bar = progress.add_task("")

            def say(what: str, done: int, total: int) -> None:
                progress.update(bar, description=what, completed=done, total=total)
                if not progress.console.is_terminal:
                    print_line(f"{what} ({done}/{total})")

            if dives_:
                dives.clone(followed.clone, dives_, out, checkout() / "models" / "policy.safetensors", say)
                return
            plan = followed.miniature() if smoke else followed
            train(Run(plan, out, torch.device(chosen), workers, limit_minutes * 60, say, start))
    except UserError as error:
        print_line(f"error: {error}", error=True)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        typer.echo(f"stopped; the same command goes on from what is in {out}", err=True)
        raise typer.Exit(130) from None
    if install_:
        install(out)
    typer.echo((out / "reinforce" / "policy.toml").read_text())


if __name__ == "__main__":
    typer.run(main)
