"""`python -m sim evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rov.errors import UserError
from rov.printing import print_line

if TYPE_CHECKING:
    from rov.steering.encoder import Encoder
    from rov.steering.policy_card import Cards
    from rov.vision.detector import Detector
    from sim.evaluation.episodes import Episode
    from sim.evaluation.plan import Plan
    from sim.evaluation.run import Models

app = typer.Typer(rich_markup_mode="markdown")


@app.callback()
def root() -> None:
    """A group, although of one command: `sim.__main__` takes it from there."""


WORLDS = {
    "transit": "harbour,reef,pond",
    "follow": "reef,harbour,pond",
    "inspect": "harbour,pipeline_night",
    "station": "reef,harbour",
}
"""Looks of the rendered pictures where none are named."""


@app.command(
    epilog="Examples: `python -m sim evaluate --task follow --rows policy_noise,pid,servo --episodes 1000 --out ev`,"
    " `python -m sim evaluate --task transit --rows policy_frames,pid --worlds harbour,reef --episodes 30 --out ev2`,"
    " `python -m sim evaluate --task follow --rows expert,pid --dead-thruster --hull wu --out ev3`"
)
def evaluate(
    task: Annotated[str, typer.Option(help="transit, follow, inspect or station.")],
    out: Annotated[Path, typer.Option(help="Folder for results.json, index.html and films; a second run goes on.")],
    policy: Annotated[
        Path, typer.Option(help="The policy's weights; its encoder (encoder.safetensors) lies beside it.")
    ] = Path("models/policy.safetensors"),
    level: Annotated[str, typer.Option(help="easy, nominal or hard.")] = "nominal",
    worlds: Annotated[
        str, typer.Option(help="Looks: worlds of sim/worlds or files, separated by commas; their things are left out.")
    ] = "",
    episodes: Annotated[int, typer.Option(min=1, help="Of each row.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="The same seed, the same courses.")] = 0,
    rows: Annotated[
        str,
        typer.Option(
            help="Who steers, separated by commas: expert, policy_true, policy_noise, policy_frames, policy_blinded,"
            " policy_live, policy_memoryless, pid, servo, zero."
        ),
    ] = "policy_noise,pid,zero",
    hull: Annotated[str, typer.Option(help="heavy (von Benzon's), wu, or drawn: another one for each.")] = "heavy",
    loops: Annotated[str, typer.Option(help="Inner loops: rov, ardusub, or both, half of the episodes each.")] = "both",
    dead_thruster: Annotated[bool, typer.Option("--dead-thruster", help="One horizontal thruster is dead.")] = False,
    late_ms: Annotated[float, typer.Option(min=0, max=500, help="More delay from frame to setpoint.")] = 0.0,
    current: Annotated[
        float | None, typer.Option(min=0, max=1, help="m/s, in place of the level's; in any direction.")
    ] = None,
    peak: Annotated[
        float | None, typer.Option(min=0, max=1, help="m/s that current and gust together reach once.")
    ] = None,
    card: Annotated[
        bool,
        typer.Option("--card", help="Put what the first row reaches on the policy's card: then `rov` offers the task."),
    ] = False,
    films: Annotated[bool, typer.Option(help="Film the best, the median and the worst of the first row.")] = True,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    threads: Annotated[int, typer.Option(min=1, help="Processor threads.")] = 1,
) -> None:
    """Evaluate steering on a task: success, collisions, and the energy bill, row by row on the same courses.

    Rows with pictures (policy_frames, policy_live) make every sighted row see rendered pictures; without one, all see
    the noise models. policy_live sails in real time, so let nothing else run. Interrupt it at any time: the
    same command goes on."""
    import torch

    from rov.resources import find_resource
    from sim.evaluation import results
    from sim.evaluation.plan import keep

    torch.set_num_threads(threads)
    named = tuple(each.strip() for each in rows.split(",") if each.strip())
    if card:
        results.must_fit_card(named, find_resource(str(policy)))
    plan, models = prepare(
        task, policy, level, worlds, episodes, seed, named, hull, loops, (dead_thruster, late_ms, current, peak), device
    )
    keep(plan, out)
    _run(plan, models, out, films)
    found = results.write(plan, _kept(plan, out), out)
    _say(plan, found, out)
    if card:
        path = results.put_on_card(plan, found, find_resource(str(policy)))
        print_line(f"{path}: tells what {plan.rows[0]} reaches in {task}")


def prepare(
    task: str,
    policy: Path,
    level: str,
    worlds: str,
    episodes: int,
    seed: int,
    rows: tuple[str, ...],
    hull: str,
    loops: str,
    trouble: tuple[bool, float, float | None, float | None],
    device: str,
) -> tuple[Plan, Models]:
    """The plan and its networks. Raises UserError."""
    from rov.resources import find_resource
    from rov.vision.model_card import sha256
    from sim import world
    from sim.evaluation.plan import Plan
    from sim.evaluation.rows import RENDERED, check, needs_policy, open_policy
    from sim.evaluation.run import Models
    from sim.tasks.levels import LEVELS
    from sim.tasks.sea import TASK

    for name, value, known in (
        ("task", task, tuple(TASK)), ("level", level, tuple(LEVELS)),
        ("hull", hull, ("heavy", "wu", "drawn")), ("loops", loops, ("both", "rov", "ardusub")),
    ):  # fmt: skip
        if value not in known:
            raise UserError(f"--{name} {value}: must be one of {', '.join(known)}")
    check(rows, task)
    tier = 2 if set(rows) & {*RENDERED} else 1
    if "policy_live" in rows and (hull != "heavy" or any(trouble)):
        raise UserError("--rows policy_live: sails the heavy hull, and knows no trouble; leave out the other options")
    looks = tuple(each.strip() for each in (worlds or (WORLDS[task] if tier == 2 else "")).split(",") if each.strip())
    for each in looks:
        world.load(each)
    if needs_policy(rows) and not policy.exists():
        policy = find_resource(str(policy))
    network = open_policy(policy) if needs_policy(rows) else None
    dead, late_ms, current, peak = trouble
    plan = Plan(
        task=task, level=level, rows=rows, episodes=episodes, seed=seed, tier=tier, worlds=looks, hull=hull,
        loops=loops, dead_thruster=dead, late_s=late_ms / 1000, current=current, peak=peak,
        policy_sha256=sha256(policy) if network else "", device=device,
    )  # fmt: skip
    encoder, detector = _eyes(policy, device) if tier == 2 else (None, None)
    cards = _cards(policy) if network else None
    return plan, Models(None if network is None else network.to(device), encoder, detector, cards, policy)


def _cards(policy: Path) -> Cards | None:
    """The cards of the policy and of its encoder; None for weights without a card, which nobody has shipped."""
    from rov.steering.policy_card import load_cards

    return load_cards(policy, policy.with_name("encoder.safetensors")) if policy.with_suffix(".toml").exists() else None


def _eyes(policy: Path, device: str) -> tuple[Encoder, Detector]:
    """The encoder beside the policy, and the shipped detector."""
    from rov.resources import find_resource
    from rov.vision.detector import Detector
    from sim.evaluation.rows import open_encoder

    weights, numbers = find_resource("models/detector.safetensors"), "auto" if device == "cuda" else "float32"
    encoder = open_encoder(policy.with_name("encoder.safetensors"))
    batch = 10 if device == "cuda" else 1  # a processor gains nothing by more, and pays for those whose episode is over
    return encoder, Detector(weights, device, numbers, batch=batch)


def _run(plan: Plan, models: Models, out: Path, films: bool) -> None:
    """Episodes, results and page; Ctrl-C leaves what has ended, and a page of it."""
    from rov.cli.common import progress
    from sim.evaluation import page, results
    from sim.evaluation.films import films as film
    from sim.evaluation.run import run

    with progress() as bar:
        tasks = {row: bar.add_task(row, total=plan.episodes) for row in plan.rows}
        try:
            run(plan, models, out, lambda row, n: bar.advance(tasks[row], n))
        finally:
            episodes = _kept(plan, out)
            found = results.write(plan, episodes, out)
            page.write(plan, found, episodes, {}, out)
        if films:
            task = bar.add_task("films", total=None)
            made = film(plan, plan.rows[0], episodes, out, lambda: bar.advance(task))
            page.write(plan, found, episodes, made, out)
            bar.remove_task(task)


def _kept(plan: Plan, out: Path) -> list[Episode]:
    from sim.evaluation.episodes import read

    kept = read(out / "episodes.jsonl")
    return [each for each in kept if each.row in plan.rows and each.episode < plan.episodes]


def _say(plan: Plan, found: dict[str, Any], out: Path) -> None:
    from rich.table import Table

    from rov.terminal import PlainConsole

    heads = ("row", "episodes", "success", "touched", "let go", "s", "J", "score")
    table = Table(*heads, title=f"{plan.task}, {plan.level}")
    for row, f in found["rows"].items():
        seconds, joules = ("–" if f[name] is None else f"{f[name]:.0f}" for name in ("seconds", "joules"))
        success = f"{100 * f['success']:.1f} % ({100 * f['success_low']:.1f}…{100 * f['success_high']:.1f})"
        touched, let_go = f"{100 * f['collisions']:.1f} %", f"{f['disengagements']} in {f['hours']:.1f} h"
        table.add_row(row, str(f["episodes"]), success, touched, let_go, seconds, joules, f"{f['score']:.0f}")
    PlainConsole().print(table)
    print_line(f"{out}/results.json and {out}/index.html written")
