"""Commands on detectors: list, show, use, verify."""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from rov.cli import common
from rov.cli.common import ConfigFile, configuration, own_file
from rov.config.edit import write_key
from rov.config.schema import Config, ConfigError, load, override
from rov.errors import UserError
from rov.printing import print_line, printable
from rov.resources import checkout, find_resource
from rov.terminal import PlainConsole
from rov.validate import file_problems, problems
from rov.vision import store
from rov.vision.model_card import ModelError

app = typer.Typer(no_args_is_help=True, help="The detectors at hand: list, show, use and verify them.")

Name = Annotated[str, typer.Argument(help="A model's name, or the path of its weights (.safetensors).")]
Folder = Annotated[
    list[Path] | None, typer.Option(help="Folder to look in, also repeated; without it ./models and rov's own.")
]


@app.command("list", epilog="Examples: `rov models list`, `rov models list --folder runs`")
def models_list(folder: Folder = None, config: ConfigFile = None) -> None:
    """All models, with their classes and input; `*` marks the one that the configuration names."""
    folders = folder or store.usual_folders()
    found = store.models_in(folders)
    if not found:
        raise UserError(f"no models in {', '.join(map(str, folders))}")
    in_use = _in_use(configuration(config))
    table = Table("", "model", "input", "classes", "sha256", "where")
    for each in found:
        mark = "*" if in_use is not None and each.weights.samefile(in_use) else ""
        if each.card is None:
            table.add_row(mark, each.name, "", f"cannot be used: {each.problem}", "", str(each.weights))
        else:
            names = f"{len(each.card.classes)}: {', '.join(each.card.classes)}"
            table.add_row(mark, each.name, str(each.card.input.size), names, each.card.weights_sha256[:12],
                          str(each.weights))  # fmt: skip
    PlainConsole().print(table)


@app.command(
    "show", epilog="Examples: `rov models show detector`, `rov models show runs/reef/detector.safetensors --json`"
)
def models_show(
    name: Name,
    folder: Folder = None,
    as_json: Annotated[bool, typer.Option("--json", help="The whole card, for programs.")] = False,
) -> None:
    """A model's card: what it knows, what it learned from, how good it is, and its limits."""
    weights = store.find_model(name, folder or store.usual_folders())
    card = store.card_of(weights)
    if as_json:
        print_line(json.dumps(card, default=str))
        return
    print_line(f"{weights}")
    for key, value in card.items():
        if not isinstance(value, dict):
            shown = ", ".join(map(str, value)) if isinstance(value, list) else " ".join(str(value).split())
            print_line(f"{key}: {printable(shown)}")
    for key in ("input", "recipe"):
        if isinstance(card.get(key), dict):
            print_line(f"{key}: " + printable(", ".join(f"{k} = {v}" for k, v in card[key].items())))
    for data, about in _tables(card.get("data")):
        print_line(f"learned from {printable(data)}: {printable(about.get('pictures', '?'))} pictures,"
                   f" {printable(about.get('licence', 'licence unknown'))}")  # fmt: skip
    for split, rows in _tables(card.get("metrics")):
        _print_metrics(split, rows)


def _print_metrics(split: str, rows: dict[str, Any]) -> None:
    """One split's figures: a table per class, or a line where they are plain numbers."""
    classes = list(_tables(rows))
    if plain := [f"{k} {v}" for k, v in rows.items() if not isinstance(v, dict)]:
        print_line(f"{split}: {printable(', '.join(plain))}")
    if classes:
        columns = list(dict.fromkeys(key for _, row in classes for key in row))
        table = Table("class", *columns, title=split)
        for name, row in classes:
            table.add_row(name, *(str(row.get(key, "")) for key in columns))
        PlainConsole().print(table)


def _tables(value: Any) -> list[tuple[str, dict[str, Any]]]:
    return [(k, v) for k, v in value.items() if isinstance(v, dict)] if isinstance(value, dict) else []


@app.command("verify", epilog="Examples: `rov models verify`, `rov models verify reef --folder runs`")
def models_verify(
    names: Annotated[list[str] | None, typer.Argument(help="Models; without any, all.")] = None,
    folder: Folder = None,
    config: ConfigFile = None,
) -> None:
    """Check models as a running daemon would before it takes one: hash, card, shapes, classes, and a picture through
    the network. Exit 1 when one cannot be used."""
    folders, settings = folder or store.usual_folders(), configuration(config)
    named = [store.find_model(each, folders) for each in names or ()]
    paths = named or [each.weights for each in store.models_in(folders)]
    if not paths:
        raise UserError(f"no models in {', '.join(map(str, folders))}")
    bad = 0
    for weights in paths:
        try:
            print_line(f"{weights}: good; {_run_once(weights, settings)}")
        except ModelError as error:
            print_line(f"{error}" if str(error).startswith(str(weights)) else f"{weights}: {error}")
            bad += 1
    if bad:
        print_line(f"{bad} of {len(paths)} models cannot be used", error=True)
        raise typer.Exit(1)


def _run_once(weights: Path, config: Config) -> str:
    """Run a model on a grey picture; says what it is. Raises ModelError."""
    import numpy as np

    changed = override(config, [f"perception.weights={weights.resolve()}"])
    detector = common.detector(changed, batch=1)
    picture, times = np.full((480, 640, 3), 127, np.uint8), []
    for _ in range(5):
        began = time.monotonic()
        detector.detect([picture], config.perception.score_min)
        times.append(1000 * (time.monotonic() - began))
    if detector.bad:
        raise ModelError(f"{weights}: its output is not finite")
    size, count = detector.card.input.size, len(detector.card.classes)
    return f"{count} classes, input {size}, {statistics.median(times):.0f} ms for a picture on {detector.device}"


@app.command(
    "use", epilog="Examples: `rov models use detector`, `rov models use runs/reef/detector.safetensors -c rover.toml`"
)
def models_use(name: Name, folder: Folder = None, config: ConfigFile = None) -> None:
    """Write a model into the configuration. A running daemon tries it beside the one it has, and changes over between
    two frames; or it says why not, and goes on with the old one."""
    path = config or own_file()
    if path is None:
        raise UserError("there is no configuration to write it into; `rov config show > rover.toml` makes one")
    weights = store.find_model(name, folder or store.usual_folders())
    changed = override(load(path), [f"perception.weights={_as_configured(weights)}"])
    wrong = [each for each in (*problems(changed), *file_problems(changed)) if "weights" in each or "target" in each]
    if wrong:
        raise ConfigError([f"{path}: {each}" for each in wrong])
    write_key(path, "perception", "weights", changed.perception.weights)
    print_line(f"{path}: perception.weights = {changed.perception.weights}")
    print_line("a running rov tries it now: `rov listen events` shows model_switched, or model_refused and why")


def _as_configured(weights: Path) -> str:
    """A weights file as the configuration names it: relative to the checkout where it lies there, else absolute."""
    whole = weights.resolve()
    for root in (checkout().resolve(), (checkout() / "rov" / "assets").resolve()):
        if whole.is_relative_to(root):
            return str(whole.relative_to(root))
    return str(whole)


def _in_use(config: Config) -> Path | None:
    try:
        return find_resource(config.perception.weights)
    except UserError:
        return None
