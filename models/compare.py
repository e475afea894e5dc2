"""Compare training runs: `python -m models.compare runs/a runs/b`. The first run is the base of every difference.

Reads what the trainer leaves in a run's folder: `results.json` (all that was measured, per class, scene and picture),
`recipe.toml`, `data.toml` and `log.jsonl`. Prints tables and writes a page with the curves and the pictures that differ
most, so that a change of data or recipe is a decision and not a feeling.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
import typer
from rich.table import Table
from rich.text import Text

from rov import toml
from rov.cli.common import enter
from rov.errors import UserError
from rov.printing import print_line
from rov.terminal import PlainConsole

RESAMPLES = 2000
"""Of the bootstrap over clips."""
CLIPS_MIN = 3
"""Fewer clips give no interval."""
SETTINGS = 24
"""Most settings listed that differ."""


class Picture(msgspec.Struct):
    path: str
    set: str
    scene: str
    f1: float
    misses: int
    false_alarms: int


class Split(msgspec.Struct):
    """What was measured on one split; figures by name, None where there were no labels."""

    metrics: dict[str, int | float | None]
    per_class: dict[str, dict[str, int | float | None]]
    per_scene: dict[str, dict[str, int | float | None]]
    pictures: list[Picture]


class Run(NamedTuple):
    name: str
    folder: Path
    splits: dict[str, Split]
    settings: dict[str, str]
    """Recipe and data, flat: `optimisation.rate` -> its value."""
    log: list[dict[str, Any]]
    """An entry for each epoch."""


class Difference(NamedTuple):
    """Of the mean F1 of a picture from the base to a run, on the pictures of both."""

    pictures: int
    clips: int
    mean: float
    low: float | None
    """95 % interval by a bootstrap over clips; None for fewer than CLIPS_MIN."""
    high: float | None

    @property
    def verdict(self) -> str:
        if self.low is None or self.high is None:
            return "no interval can be given"
        return "better" if self.low > 0 else "worse" if self.high < 0 else "not decided"


def read_run(folder: Path) -> Run:
    """A finished run. Raises UserError that names what is missing or wrong."""
    results = folder / "results.json"
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; name the folders of runs (--out of the trainer)")
    try:
        splits = msgspec.json.decode(results.read_bytes(), type=dict[str, Split])
    except FileNotFoundError:
        raise UserError(f"{results}: is not there: the run is not finished; its command continues it") from None
    except (OSError, msgspec.DecodeError) as error:
        raise UserError(f"{results}: {error}") from None
    settings: dict[str, str] = {}
    for name in ("recipe.toml", "data.toml"):
        if (folder / name).is_file():
            settings |= flat(toml.parse(toml.read_text(folder / name)), "" if name == "recipe.toml" else "data.")
    return Run(folder.name, folder, splits, settings, _log(folder / "log.jsonl"))


def _log(path: Path) -> list[dict[str, Any]]:
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    try:
        return [json.loads(line) for line in lines if line.strip()]
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested tables as `a.b` -> text."""
    found: dict[str, str] = {}
    for key, value in tree.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": str(value)}
    return found


def changed(runs: list[Run]) -> dict[str, list[str]]:
    """Settings that are not the same in all runs -> the value in each; "–" where a run has none."""
    keys = dict.fromkeys(key for run in runs for key in run.settings)
    rows = {key: [run.settings.get(key, "–") for run in runs] for key in keys}
    return {key: values for key, values in rows.items() if len(set(values)) > 1}


def difference(base: Split, other: Split, seed: int = 0) -> Difference:
    """Compares the pictures that both measured, pair by pair; resamples whole clips, since frames of one are alike."""
    before = {each.path: each for each in base.pictures}
    pairs = [(before[each.path], each) for each in other.pictures if each.path in before]
    if not pairs:
        return Difference(0, 0, 0.0, None, None)
    gains: dict[str, list[float]] = {}
    for old, new in pairs:
        gains.setdefault(f"{new.set}/{new.scene}", []).append(new.f1 - old.f1)
    total = np.array([sum(each) for each in gains.values()])
    count = np.array([len(each) for each in gains.values()])
    mean = float(total.sum() / count.sum())
    if len(gains) < CLIPS_MIN:
        return Difference(len(pairs), len(gains), mean, None, None)
    drawn = np.random.default_rng(seed).integers(len(total), size=(RESAMPLES, len(total)))
    means = total[drawn].sum(1) / count[drawn].sum(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Difference(len(pairs), len(gains), mean, float(low), float(high))


def rows(parts: list[dict[str, dict[str, int | float | None]]], key: str) -> dict[str, list[float | None]]:
    """Name -> the figure `key` in each run."""
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: [part.get(name, {}).get(key) for part in parts] for name in names}


def apart(base: Split, others: list[Split], count: int) -> list[tuple[Picture, list[Picture | None]]]:
    """The pictures of the base on which the runs differ most, and those of the other runs."""
    by_path = [{each.path: each for each in other.pictures} for other in others]
    found = [(each, [pictures.get(each.path) for pictures in by_path]) for each in base.pictures]

    def spread(row: tuple[Picture, list[Picture | None]]) -> float:
        scores = [row[0].f1, *(each.f1 for each in row[1] if each)]
        return max(scores) - min(scores)

    return [row for row in sorted(found, key=spread, reverse=True)[:count] if spread(row) > 0]


def number(value: float | None, base: float | None = None) -> str:
    """A figure, and its difference from the base."""
    if value is None:
        return "–"
    if isinstance(value, int):
        return f"{value}" if base is None or value == base else f"{value} ({value - base:+g})"
    return f"{value:.3f}" if base is None else f"{value:.3f} ({value - base:+.3f})"


def _print(runs: list[Run], split: str) -> None:
    console = PlainConsole()
    parts = [run.splits[split] for run in runs]

    def table(title: str, lines: dict[str, list[float | None]], extra: str = "") -> None:
        out = Table(title or "", *(run.name for run in runs), title=f"{title}, {split}{extra}")
        for name, values in lines.items():
            cells = [number(values[0]), *(number(value, values[0]) for value in values[1:])]
            styles = ["", *(_style(value, values[0]) for value in values[1:])]
            out.add_row(name, *(Text(cell, style) for cell, style in zip(cells, styles, strict=True)))
        console.print(out)

    table("metrics", {key: [part.metrics.get(key) for part in parts] for key in parts[0].metrics})
    table("class", rows([part.per_class for part in parts], "ap50"), ": AP50")
    table("scene", rows([part.per_scene for part in parts], "map50"), ": mAP50")
    for key, values in list(changed(runs).items())[:SETTINGS]:
        print_line(f"{key}: {' | '.join(values)}")
    for run, part in zip(runs[1:], parts[1:], strict=True):
        print_line(sentence(runs[0], run, difference(parts[0], part)))


def _style(value: float | None, base: float | None) -> str:
    if value is None or base is None or value == base:
        return ""
    return "green" if value > base else "red"


def sentence(base: Run, run: Run, found: Difference) -> str:
    """The verdict on a run, in words."""
    if not found.pictures:
        return f"{run.name} against {base.name}: they measured no picture in common"
    interval = f", 95 % interval {found.low:+.3f} to {found.high:+.3f}" if found.low is not None else ""
    what = f"mean F1 of a picture {found.mean:+.3f}{interval} over {found.clips} clips, {found.pictures} pictures"
    return f"{run.name} against {base.name}: {found.verdict}: {what}"


app = typer.Typer(rich_markup_mode="markdown", add_completion=False)


@app.command(epilog="Example: `python -m models.compare runs/base runs/mosaic --out runs/mosaic.html`")
def main(
    folders: Annotated[
        list[Path], typer.Argument(metavar="RUN…", help="Folders of finished runs; the first is the base.")
    ],
    split: Annotated[str, typer.Option(help="Which split to compare.")] = "val",
    worst: Annotated[int, typer.Option(min=0, help="Pictures on the page that differ most.")] = 12,
    out: Annotated[Path | None, typer.Option(help="The page (default: compare.html beside the last run).")] = None,
) -> None:
    """Put training runs side by side: metrics, per class, per scene, what was changed, and the pictures that differ."""
    from models.compare_page import write_page

    runs = [read_run(folder) for folder in folders]
    names = [run.name for run in runs]
    runs = [run if names.count(run.name) == 1 else run._replace(name=str(run.folder)) for run in runs]
    for run in runs:
        if split not in run.splits:
            raise UserError(f"{run.folder}: measured nothing on {split}; there is {', '.join(run.splits) or 'nothing'}")
    _print(runs, split)
    page = out or folders[-1].parent / "compare.html"
    write_page(runs, split, worst, page)
    print_line(page)


if __name__ == "__main__":
    enter(app)
