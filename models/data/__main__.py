"""`python -m models.data`: imports labels of others, checks, splits and merges sets, shows and fills their cards."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from models.data import tables
from models.data.card import ENTRIES, FILE, Card, Split, write_card
from models.data.errors import DataError, Findings
from models.data.filling import filled
from models.data.hashing import hashes
from models.data.importing import import_set
from models.data.report import Report
from models.data.sets import TABLE, PictureSet, cards, open_set
from models.data.sources import Format, Source, identify
from rov.cli.common import enter, progress
from rov.errors import UserError
from rov.printing import print_line
from rov.resources import checkout

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Data sets with provenance: COCO JSON, pictures and a card, dataset.toml. NAME is the name of a card in"
    " models/datasets, of a folder in runs/sets, or the path of a folder.",
)
Name = Annotated[str, typer.Argument(metavar="NAME", help="A set: its name or folder.")]
Entries = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=TEXT", help="Fill an entry of the card, as `--set licence=CC-BY-4.0`; repeated."
    ),
]
NOTES_MAX = 12


@app.command(
    "import",
    epilog="Examples: `python -m models.data import dive.mcap --count 80 --out runs/sets/frames`,"
    " `python -m models.data import instances.json --images runs/sets/frames --out runs/sets/reef`,"
    " `python -m models.data import yolo_folder/ --out runs/sets/tank --rename Fisch=fish --set licence=MIT`,"
    " `python -m models.data import prices.csv --out runs/sets/prices`",
)
def import_(
    source: Annotated[
        Path, typer.Argument(help="A folder (YOLO, VOC), COCO .json, a table .csv, a dive .mcap, or a film.")
    ],
    out: Annotated[Path, typer.Option(help="The new folder of the set.")],
    form: Annotated[
        Format | None, typer.Option("--format", help="How the labels are stored, where it cannot be told.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder of the pictures, where it is not that of the labels.")
    ] = None,
    names: Annotated[str, typer.Option(help="YOLO: the classes by number, as `fish,rock`, where no file says.")] = "",
    scenes: Annotated[
        str, typer.Option(help="Scene of a picture: one, folder, prefix, FILE.csv (image,scene) or re:EXPRESSION.")
    ] = "",
    rename: Annotated[
        list[str] | None, typer.Option(metavar="THEIRS=OURS", help="Give a class another name; repeated.")
    ] = None,
    entries: Entries = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out what cannot be read, and say so.")] = False,
    count: Annotated[int, typer.Option(min=1, help="Dive, film: so many frames, spread over it.")] = 100,
    every: Annotated[float, typer.Option(min=0, help="Dive, film: a frame every so many seconds instead.")] = 0.0,
    at: Annotated[list[float] | None, typer.Option(help="Dive, film: the frames at these seconds instead.")] = None,
    alike: Annotated[
        bool, typer.Option("--alike", help="Dive, film: also frames that look like the one before.")
    ] = False,
    camera: Annotated[
        str | None, typer.Option(help="Dive: the topic of the pictures, where there are several.")
    ] = None,
) -> None:
    """Make a set of the labels of others, or of chosen frames of a dive. The source is only read."""
    found_form, labels = identify(source) if form is None else (form, source)
    form = form or found_form
    card = filled(Card(name=out.resolve().name), entries or [])
    command = "python -m models.data " + shlex.join(sys.argv[1:])
    if form == "film":
        from models.data.film import Choice, import_film

        choice = Choice(tuple(at or ()), every, count, not alike)
        with _steps("frames") as step:
            found, notes = import_film(source, out, card, command, choice, camera, step)
        print_line(f"{found.root / 'images'}: {len(found.pictures())} pictures to label; models/TEACH.md says how")
    elif form == "table":
        found, findings = tables.import_table(source, out, card, command, skip_bad)
        notes = findings.sentences()
    else:
        given = Source(
            labels,
            form,
            images or (source if source.is_dir() else None),
            [each.strip() for each in names.split(",") if each.strip()],
            scenes,
        )
        with _steps("pictures") as step:
            found, findings = import_set(
                given, out, card, command, rename=_pairs(rename or []), skip_bad=skip_bad, step=step
            )
        notes = findings.sentences()
    _told(found, notes)


def _told(found: PictureSet, notes: list[str]) -> None:
    for note in notes[:NOTES_MAX]:
        print_line(f"note: {note}", error=True)
    if found.card.layout == "table":
        print_line(f"{found.root}: {len(tables.read_table(found.root / TABLE, Findings()).rows)} rows")
    else:
        pictures = found.pictures()
        boxes = sum(len(each.objects) for each in pictures)
        print_line(
            f"{found.root}: {len(pictures)} pictures, {boxes} boxes, classes: {', '.join(found.card.classes) or 'none'}"
        )
    if missing := found.card.missing():
        print_line(f"the card lacks {', '.join(missing)}: `python -m models.data card {found.root} --ask`, or edit"
                   f" {found.card_path}")  # fmt: skip


@app.command(
    epilog="Examples: `python -m models.data check transdec tub`, `python -m models.data check runs/sets/reef`"
)
def check(
    names: Annotated[list[str], typer.Argument(metavar="NAME…", help="Sets: names or folders.")],
    out: Annotated[Path, typer.Option(help="Folder of the pages.")] = Path("runs/check"),
) -> None:
    """Examine sets and write a page of each: problems, classes, sizes, water, samples. Exit 1 when one has errors."""
    from models.data.checking import compare_sets, examine

    errors, reports = 0, []
    for found in [open_set(name) for name in names]:
        if found.card.layout == "table":
            errors += _check_table(found)
            continue
        with _steps(f"examining {found.card.name}") as step:
            reports.append(examine(found, step))
    compare_sets(reports)
    for report in reports:
        _told_of(report, out)
        errors += report.errors
    if errors:
        raise typer.Exit(1)


def _told_of(report: Report, out: Path) -> None:
    from models.data.page import MARKS, write_page

    name = report.found.card.name
    out.mkdir(parents=True, exist_ok=True)
    write_page(report, out / f"{name}.html")
    for each in report.problems:
        print_line(f"{MARKS[each.kind]} {name}: {each.text}")
    print_line(f"{out / name}.html: {len(report.pictures)} pictures, {report.errors} errors")


def _check_table(found: PictureSet) -> int:
    findings = Findings()
    content = tables.read_table(found.root / TABLE, findings)
    for line in tables.described(content):
        print_line("  ".join(f"{cell:>12}" for cell in line))
    said = [*findings.wrong, *tables.problems(found, content)]
    for each in said:
        print_line(f"✗ {found.card.name}: {each}")
    return len(said)


@app.command(epilog="Examples: `python -m models.data split runs/sets/reef --val 0.2`, with one dive only: `--clips 5`")
def split(
    name: Name,
    val: Annotated[
        float, typer.Option(min=0, max=0.9, help="Share of the pictures to measure on while training.")
    ] = 0.2,
    test: Annotated[float, typer.Option(min=0, max=0.9, help="Share kept aside until the end.")] = 0.0,
    clips: Annotated[int, typer.Option(min=1, help="Cut each scene into so many stretches first.")] = 1,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Split a set by whole scenes, never by frame, and write that to its card."""
    from models.data.splitting import split_set

    if val + test >= 1:
        raise UserError(f"--val {val:g} and --test {test:g} leave nothing to learn from")
    shares: dict[Split, float] = {"train": 1 - val - test, "val": val, "test": test}
    found = split_set(open_set(name), shares, clips, seed)
    for kind, scenes in found.card.split.items():
        members = [each for each in found.pictures() if found.split_of(each) == kind]
        print_line(
            f"{kind}: {len(members)} pictures, {sum(len(each.objects) for each in members)} boxes: {', '.join(scenes)}"
        )


@app.command(epilog="Example: `python -m models.data merge runs/sets/reef runs/sets/pier --out runs/sets/both`")
def merge(
    names: Annotated[list[str], typer.Argument(metavar="NAME…", help="Sets: names or folders.")],
    out: Annotated[Path, typer.Option(help="The new folder.")],
) -> None:
    """Merge sets into one; what a set does not label stays unknown in its pictures."""
    from models.data.merging import merge as run

    with _steps("pictures") as step:
        found = run([open_set(each) for each in names], out, "python -m models.data " + shlex.join(sys.argv[1:]), step)
    _told(found, [])


@app.command(
    epilog="Entries of a complete card: " + "; ".join(f"`{key}`: {what}" for key, what in ENTRIES.items()) + "."
    "\n\nExamples: `python -m models.data card tub`, `python -m models.data card runs/sets/reef --ask`,"
    " `python -m models.data card runs/sets/reef --set people=none --set absent.classes=diver,fish`"
)
def card(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="A set; without it all cards are listed.")] = None,
    entries: Entries = None,
    ask: Annotated[bool, typer.Option("--ask", help="Ask for each text that is missing.")] = False,
    rehash: Annotated[
        bool, typer.Option("--hash", help="Compute the hashes anew: labels or pictures were changed.")
    ] = False,
) -> None:
    """Show a card and what it lacks, or fill it. Exit 1 when it is not complete."""
    if name is None:
        for each, path in cards().items():
            print_line(f"{each}: {open_card(path).about}")
        for path in sorted((checkout() / "runs" / "sets").glob(f"*/{FILE}")):
            print_line(f"{path.parent.name}: {open_card(path).about}")
        return
    found = open_set(name)
    now = filled(found.card, entries or [])
    if ask:
        now = filled(
            now, [f"{key}={typer.prompt(f'{key} ({ENTRIES[key]})')}" for key in now.missing() if key not in TABLES]
        )
    if now != found.card or rehash:
        if found.card.path:
            raise DataError(f"{found.card_path}: is written by hand; edit it there. Hashes now: {hashes(found)}")
        now = msgspec.structs.replace(now, hashes=hashes(found._replace(card=now)))
        write_card(found.card_path, now)
    print_line(found.card_path.read_text(encoding="utf-8", errors="replace"))
    for key in now.missing():
        print_line(f"missing: {key}: {ENTRIES[key]}", error=True)
    if now.missing():
        raise typer.Exit(1)


TABLES = ("classes", "split", "hashes")
"""Entries that `--ask` does not ask for: `import`, `split` and `card --hash` write them."""


def open_card(path: Path) -> Card:
    return open_set(path.parent).card if path.name == FILE else open_set(path.stem).card


def _pairs(texts: list[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts]
    if wrong := [text for text, (left, _, right) in zip(texts, pairs, strict=True) if not (left and right)]:
        raise UserError(f"--rename {wrong[0]}: wants THEIRS=OURS")
    return {left: right for left, _, right in pairs}


@contextmanager
def _steps(what: str) -> Iterator[Callable[[int], None]]:
    """A progress bar; the function it gives takes the total and makes one step."""
    with progress() as bar:
        task = bar.add_task(what, total=None)

        def step(total: int) -> None:
            bar.update(task, total=total, advance=1)

        yield step


if __name__ == "__main__":
    enter(app)
