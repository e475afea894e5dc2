"""What helps a detector? `python -m models.studies` trains one recipe again and again, each time with few settings
changed, and puts a table of what that gave onto a card.

Every study is a run of `models.train_detector` in a folder of its own, so that `models.compare` reads them, too. All
are judged by the same real pictures: those of the val splits, since who chooses by the test pictures has none left.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Annotated, Any

import msgspec
import tomli_w
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from models import metrics, recipe, results
from models.measure import SETS
from rov import toml
from rov.cli.common import enter
from rov.errors import UserError
from rov.printing import print_line
from rov.vision.detector import Detector

STUDIES = Path(__file__).parent / "studies.toml"
BASE = "recipe"
"""The study that the others are compared with."""


class Study(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One change of the recipe."""

    what: str
    """In words, for the table."""
    settings: tuple[str, ...] = ()
    """`section.key=value`, as of the trainer's --set."""
    without: tuple[str, ...] = ()
    """Sets that are left out; the shares of the others grow."""


class Studies(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file: a recipe as the trainer reads it, and the studies by name."""

    recipe: dict[str, Any]
    study: dict[str, Study]


def load(path: Path) -> Studies:
    """The studies of a file. Raises UserError that names the key that is wrong."""
    try:
        found = toml.convert(toml.parse(toml.read_text(path)), Studies)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except toml.TomlError as error:
        raise UserError(f"{path}: {error}") from None
    if BASE not in found.study:
        raise UserError(f"{path}: study.{BASE}: is not there; the others are compared with it")
    sets = found.recipe.get("sets", {})
    for name, study in found.study.items():
        if unknown := set(study.without) - set(sets):
            raise UserError(f"{path}: study.{name}.without: the recipe has no set {', '.join(sorted(unknown))}")
    return found


def written(studies: Studies, name: str, out: Path) -> Path:
    """The recipe of a study as a file of its own, checked. Raises UserError."""
    study = studies.study[name]
    tables = {key: dict(value) if isinstance(value, dict) else value for key, value in studies.recipe.items()}
    tables["sets"] = {each: share for each, share in tables.get("sets", {}).items() if each not in study.without}
    for setting in study.settings:
        recipe.apply(tables, setting)
    path = out / f"{name}.toml"
    path.write_text(tomli_w.dumps(tables), encoding="utf-8")
    recipe.load(path, {}, [])  # what is wrong is said before the first training
    return path


def train(path: Path, folder: Path, device: str, threads: int) -> None:
    """Train a study, or go on where it was interrupted. Raises UserError with what the trainer said last."""
    command = [sys.executable, "-m", "models.train_detector", "--recipe", str(path), "--out", str(folder)]
    command += ["--device", device, "--threads", str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise UserError(f"{path.stem}: {said[-1] if said else f'the trainer ended with {done.returncode}'}")


def finished(folder: Path, path: Path) -> bool:
    """Whether the run in this folder is complete, and of this recipe."""
    before = folder / "recipe.toml"
    if not before.is_file() or not (folder / "results.json").is_file():
        return False
    return recipe.load(before, {}, []) == recipe.load(path, {}, [])


def trained(studies: Studies, out: Path, device: str, at_once: int) -> Iterator[str]:
    """Train what is not there yet, `at_once` at a time; names as they finish."""
    threads = max(1, (os.cpu_count() or 1) // at_once)
    paths = {name: written(studies, name, out) for name in studies.study}
    done = [name for name in paths if finished(out / name, paths[name])]
    yield from done
    with ThreadPoolExecutor(at_once) as pool:
        started = {
            pool.submit(train, path, out / name, device, threads): name
            for name, path in paths.items()
            if name not in done
        }
        try:
            for run in as_completed(started):
                run.result()
                yield started[run]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def judged(weights: Path, device: str) -> tuple[float, int]:
    """mAP50 of a run over the real val pictures, and how many these are."""
    detector = Detector(weights, device, batch=8)
    own, given = results.answers(detector, SETS)["val"]
    return metrics.evaluate(own, given, detector.card.classes).mean()[0], len(own)


def told(studies: Studies, found: dict[str, float], pictures: int, how: recipe.Recipe) -> dict[str, Any]:
    """What a card says of the studies: `studies_of`, and a row for each. `how`: the recipe of the base."""
    many = how.optimisation.pictures * how.optimisation.epochs
    return {
        "studies_of": (
            f"Each {many} pictures at {how.network.size} px in batches of {how.optimisation.batch}, from"
            f" {how.network.start or 'random weights'} where nothing else is said; mAP50 over the {pictures} real val"
            " pictures. One run each: those that differ in the seed alone show what is chance. What helps in so short a"
            " training need not help in a long one."
        ),
        "studies": [{"what": studies.study[name].what, "map50": round(map50, 3)} for name, map50 in found.items()],
    }


app = typer.Typer(rich_markup_mode="markdown", add_completion=False)


@app.command(
    epilog="Examples: `python -m models.studies`, `python -m models.studies --only seed_2,company`,"
    " `python -m models.studies --card models/detector.toml`; `python -m models.compare runs/studies/recipe"
    " runs/studies/company` shows where two of them differ."
)
def main(
    file: Annotated[Path, typer.Argument(help="The studies.")] = STUDIES,
    out: Annotated[Path, typer.Option(help="Folder of the runs; what is finished there is not done again.")] = Path(
        "runs/studies"
    ),
    only: Annotated[str, typer.Option(help=f"a,b,c: names of studies; {BASE} is always among them.")] = "",
    card: Annotated[Path | None, typer.Option(help="Write the table onto this card of a detector.")] = None,
    at_once: Annotated[int, typer.Option(min=1, help="Trainings side by side.")] = os.cpu_count() or 1,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Train a recipe with one change after the other. After an interruption the same command goes on."""
    studies = chosen(load(file), only)
    out.mkdir(parents=True, exist_ok=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    found: dict[str, float] = {}
    with Progress(*columns) as progress:
        bar = progress.add_task("studies", total=len(studies.study))
        for name in trained(studies, out, device, at_once):
            found[name], pictures = judged(out / name / "detector.safetensors", device)
            progress.update(bar, advance=1)
            print_line(f"{name}: mAP50 {found[name]:.3f} ({studies.study[name].what})")
    base = recipe.load(out / f"{BASE}.toml", {}, [])
    table = told(studies, {name: found[name] for name in studies.study}, pictures, base)
    for row in table["studies"]:
        print_line(f"{row['map50']:.3f} ({row['map50'] - round(found[BASE], 3):+.3f})  {row['what']}")
    if card:
        results.write_card(card.with_suffix(".safetensors"), toml.parse(toml.read_text(card)) | table)


def chosen(studies: Studies, only: str) -> Studies:
    """The named studies and the base. Raises UserError."""
    names = {name.strip() for name in only.split(",") if name.strip()}
    if unknown := names - studies.study.keys():
        raise UserError(f"--only: there is no study {', '.join(sorted(unknown))}; use {', '.join(studies.study)}")
    wanted = names | {BASE} if names else set(studies.study)
    return Studies(studies.recipe, {name: each for name, each in studies.study.items() if name in wanted})


if __name__ == "__main__":
    enter(app)
