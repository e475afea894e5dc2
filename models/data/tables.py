"""A table without pictures (CSV), such as prices from Quandl (today Nasdaq Data Link), water temperatures or a log: it
too needs a card that says where it is from, what its columns are and what one may do with it.

Stored as `table.csv`: UTF-8, commas, one line of names.
"""

from __future__ import annotations

import csv
import io
import math
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from models.data.boxes_table import table
from models.data.card import FILE, Card, Step, read_card, write_card
from models.data.errors import DataError, Findings
from models.data.hashing import hashes
from models.data.importing import must_be_new
from models.data.sets import TABLE, PictureSet, open_set
from rov.media.files import write_text

VAL_SHARE = 0.2
"""The last rows, in the order of the table, are for validation: time only runs forward."""


class Table(NamedTuple):
    columns: list[str]
    rows: list[list[str]]

    def numbers(self, column: str) -> list[float]:
        """A column as numbers; NaN where a cell is none. Raises KeyError."""
        if column not in self.columns:
            raise KeyError(column)
        at = self.columns.index(column)
        return [number(row[at]) for row in self.rows]


def load_table(name: str | Path) -> Table:
    """The table of a set with a complete card. Raises DataError."""
    found = open_set(name)
    if found.card.layout != "table":
        raise DataError(f"{found.card_path}: is a set of pictures, and no table")
    found.card.must_be_complete(found.card_path)
    return read_table(found.root / TABLE, Findings())


def read_table(path: Path, findings: Findings) -> Table:
    """The columns and rows of a CSV. A row of another length is wrong. Raises DataError."""
    header, *rows = table(path, findings)
    columns = [cell.strip() for cell in header]
    if twice := [name for name, count in Counter(columns).items() if count > 1]:
        raise DataError(f"{path}, line 1: two columns are called {twice[0]!r}")
    kept = []
    for line, row in enumerate(rows, 2):
        if not any(cell.strip() for cell in row):
            continue
        if len(row) != len(columns):
            findings.wrong.append(f"{path}, line {line}: has {len(row)} cells, and there are {len(columns)} columns")
            continue
        kept.append([cell.strip() for cell in row])
    if not kept:
        raise DataError(f"{path}: has no rows")
    return Table(columns, kept)


def import_table(path: Path, out: Path, card: Card, command: str, skip_bad: bool) -> tuple[PictureSet, Findings]:
    """Write the table as a set to the new folder `out`. Raises DataError."""
    must_be_new(out)
    findings = Findings()
    content = read_table(path, findings)
    if skip_bad:
        for each in findings.wrong:
            findings.note("row that could not be read was left out", each)
    else:
        findings.must_be_right(path, "put it right, or leave it out with --skip-bad")
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([content.columns, *content.rows])
        write_text(part / TABLE, text.getvalue())
        told = Step("Stored as UTF-8 with commas. " + " ".join(f"{each}." for each in findings.sentences()), command)
        card = msgspec.structs.replace(
            card, layout="table", transformations=[*(card.transformations or []), told],
            columns=card.columns or dict.fromkeys(content.columns, ""), split=card.split or {"train": ["rows"]},
        )  # fmt: skip
        card = msgspec.structs.replace(card, hashes=hashes(PictureSet(card, part / FILE, part)))
        write_card(part / FILE, card)
        part.rename(out)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return PictureSet(read_card(out / FILE), out / FILE, out), findings


def number(cell: str) -> float:
    """A cell as a number; NaN where it is none."""
    try:
        return float(cell)
    except ValueError:
        return math.nan


def described(content: Table) -> list[tuple[str, ...]]:
    """A line for each column: its name, how many cells are numbers, are empty, differ; least, mean and greatest."""
    lines: list[tuple[str, ...]] = [("column", "numbers", "empty", "different", "least", "mean", "greatest")]
    for at, name in enumerate(content.columns):
        cells = [row[at] for row in content.rows]
        values = [value for value in map(number, cells) if math.isfinite(value)]
        span = (
            (f"{min(values):g}", f"{math.fsum(values) / len(values):g}", f"{max(values):g}") if values else ("", "", "")
        )
        lines.append((name, str(len(values)), str(cells.count("")), str(len(set(cells))), *span))
    return lines


def problems(found: PictureSet, content: Table) -> Sequence[str]:
    """Sentences on what is odd in a table."""
    missing = [f"card: {entry} is missing" for entry in found.card.missing()]
    unknown = [f"card: columns.{name} does not say what the column is" for name in content.columns
               if not found.card.columns.get(name, "").strip()]  # fmt: skip
    twice = len(content.rows) - len({tuple(row) for row in content.rows})
    return [*missing, *unknown, *([f"{twice} rows are there twice"] if twice else [])]
