"""The page of a check: problems first, then classes, scenes, plots and sheets; one file that can be sent."""

from __future__ import annotations

import base64
import html
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from models.data import sheets
from models.data.plots import plots
from models.data.report import Report
from rov.media.files import shown, write_text
from rov.types import Image

MARKS = {"error": "✗", "warning": "!", "note": "·"}
SCENES_MAX = 60
"""Most scenes in the table."""


def write_page(report: Report, path: Path) -> None:
    """Write the page. Raises UserError."""
    card = report.found.card
    name = html.escape(shown(card.name))
    body = [
        f"<h1>{name}</h1><p>{html.escape(card.about)}</p>",
        _facts(report),
        "<h2>Problems</h2>" + _problems(report),
        "<h2>Classes</h2>" + _classes(report),
        "<h2>Plots</h2>" + plots(report),
        "<h2>Scenes</h2>" + _scenes(report),
    ]
    if (pairs := sheets.leaks(report)) is not None:
        body.append("<h2>Nearly the same, in two splits</h2><p>Each column is a pair.</p>" + _image(pairs, "pairs"))
    body += [f"<h2>{html.escape(kind)}</h2>{_image(sheet, kind)}" for kind, sheet in sheets.splits(report).items()]
    body += [f"<h2>{html.escape(kind)}</h2>{_image(sheet, kind)}" for kind, sheet in sheets.classes(report).items()]
    body.append("<h2>The card</h2>" + _card(report))
    write_text(path, TEMPLATE.format(title=name, body="\n".join(body)))


def _facts(report: Report) -> str:
    sizes = Counter(each.picture.size for each in report.pictures).most_common(3)
    boxes = sum(len(each.objects) for each in report.pictures)
    facts = {
        "pictures": f"{len(report.pictures)}, " + ", ".join(f"{w}×{h} ({n})" for (w, h), n in sizes),
        "boxes": str(boxes),
        "scenes": str(len(set(report.scenes))),
        "splits": ", ".join(f"{split or 'none'} {n}" for split, n in Counter(report.splits).most_common()),
        "licence": report.found.card.licence or "not stated",
        "folder": shown(report.found.root.name),
    }
    return _table((key, value) for key, value in facts.items())


def _problems(report: Report) -> str:
    order = ("error", "warning", "note")
    lines = [
        f'<li class="{each.kind}"><b>{MARKS[each.kind]}</b> {html.escape(shown(each.text))}</li>'
        for each in sorted(report.problems, key=lambda each: order.index(each.kind))
    ]
    return f"<ul>{''.join(lines)}</ul>"


def _classes(report: Report) -> str:
    rows: list[tuple[object, ...]] = [
        ("class", "in the source", "pictures", "boxes", "of them in train", "val", "test", "median side, px")
    ]
    for name, theirs in report.found.card.classes.items():
        boxes = [
            (max(x2 - x1, y2 - y1), split)
            for each, split in zip(report.pictures, report.splits, strict=True)
            for (x1, y1, x2, y2), kind in each.objects
            if kind == name
        ]
        having = sum(any(kind == name for _, kind in each.objects) for each in report.pictures)
        by_split = Counter(split for _, split in boxes)
        median = f"{np.median([side for side, _ in boxes]):.0f}" if boxes else "–"
        rows.append((name, theirs, having, len(boxes), *(by_split[each] for each in ("train", "val", "test")), median))
    absent = ", ".join(report.found.card.absent.classes) or "none"
    return (
        _table(rows)
        + f"<p>Absent from all pictures: {html.escape(absent)}. Of any other class a missing box says nothing.</p>"
    )


def _scenes(report: Report) -> str:
    rows: list[tuple[object, ...]] = [
        ("scene", "split", "pictures", "boxes", "brightness", "a*", "b*", "veil", "contrast", "sharpness")
    ]
    names = list(dict.fromkeys(report.scenes))
    for name in names[:SCENES_MAX]:
        members = [i for i, scene in enumerate(report.scenes) if scene == name]
        mean = np.mean([report.looks[i] for i in members], 0)
        red, blue, veil, contrast, sharp, bright = mean
        splits = ", ".join(dict.fromkeys(report.splits[i] or "none" for i in members))
        boxes = sum(len(report.pictures[i].objects) for i in members)
        rows.append((name, splits, len(members), boxes, f"{bright:.0f}", f"{red:+.0f}", f"{blue:+.0f}", f"{veil:.2f}",
                     f"{contrast:.0f}", f"{sharp:.0f}"))  # fmt: skip
    more = f"<p>and {len(names) - SCENES_MAX} more</p>" if len(names) > SCENES_MAX else ""
    return _table(rows) + more


def _card(report: Report) -> str:
    text = report.found.card_path.read_text(encoding="utf-8", errors="replace")
    return f"<pre>{html.escape(text)}</pre>"


def _image(image: Image, name: str) -> str:
    data = base64.b64encode(sheets.encoded(image)).decode()
    return f'<img alt="{html.escape(name)}" src="data:image/jpeg;base64,{data}">'


def _table(rows: Iterable[tuple[object, ...]]) -> str:
    lines = ["<tr>" + "".join(f"<td>{html.escape(shown(str(cell)))}</td>" for cell in row) + "</tr>" for row in rows]
    return f"<table>{''.join(lines)}</table>"


TEMPLATE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>data check: {title}</title>
<style>
 body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 74rem; margin: 2rem auto; padding: 0 1rem; color: #16242e }}
 h1 {{ font-size: 1.4rem }} h2 {{ font-size: 1.1rem; margin-top: 2rem }}
 table {{ border-collapse: collapse }} td {{ padding: .15rem 1.2rem .15rem 0; font-variant-numeric: tabular-nums }}
 td:first-child {{ font-weight: 600 }}
 ul {{ list-style: none; padding: 0 }} li b {{ display: inline-block; width: 1.2rem; text-align: center }}
 .error b {{ color: #c22 }} .warning b {{ color: #c80 }} .note {{ color: #567 }}
 svg, img {{ max-width: 100%; height: auto }} pre {{ white-space: pre-wrap; background: #f3f6f8; padding: 1rem;
       font-size: 12px }}
</style>
{body}
</html>
"""
