"""The page of a comparison: verdicts, what was changed, figures, curves and pictures, in one file that can be sent."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from models.compare import Picture, Run, apart, changed, difference, number, rows, sentence
from rov.errors import UserError
from rov.media.files import shown, write_text
from rov.media.pictures import read_image

WIDTH = 260
"""px of a picture on the page."""


def write_page(runs: list[Run], split: str, worst: int, path: Path) -> None:
    """Write the page. Raises UserError."""
    parts = [run.splits[split] for run in runs]
    verdicts = [
        sentence(runs[0], run, difference(parts[0], part)) for run, part in zip(runs[1:], parts[1:], strict=True)
    ]
    names = [run.name for run in runs]
    body = [
        f"<h1>{html.escape(' · '.join(names))}</h1><p>Measured on {html.escape(split)}.</p>",
        "".join(f"<p><b>{html.escape(each)}</b></p>" for each in verdicts),
        "<h2>What was changed</h2>"
        + _table([["", *names], *([key, *values] for key, values in changed(runs).items())]),
        "<h2>Metrics</h2>"
        + _figures(names, {key: [part.metrics.get(key) for part in parts] for key in parts[0].metrics}),
        "<h2>Classes: AP50</h2>" + _figures(names, rows([part.per_class for part in parts], "ap50")),
        "<h2>Classes: AP50-95</h2>" + _figures(names, rows([part.per_class for part in parts], "ap50_95")),
        "<h2>Scenes: mAP50</h2>" + _figures(names, rows([part.per_scene for part in parts], "map50")),
        "<h2>Curves</h2>" + _curves(runs),
        "<h2>Pictures that differ most</h2>" + _apart(runs, split, worst),
        *(f"<h2>Worst of {html.escape(run.name)}</h2>{_worst(run, worst)}" for run in runs),
    ]
    write_text(path, TEMPLATE.format(title=html.escape(" · ".join(names)), body="\n".join(body)))


def _figures(names: list[str], lines: dict[str, list[float | None]]) -> str:
    found = [
        [name, number(values[0]), *(number(value, values[0]) for value in values[1:])] for name, values in lines.items()
    ]
    return _table([["", *names], *found])


def _apart(runs: list[Run], split: str, worst: int) -> str:
    found = apart(runs[0].splits[split], [run.splits[split] for run in runs[1:]], worst)
    if not found:
        return "<p>None.</p>"
    return "".join(
        f"<figure>{_picture(Path(first.path))}<figcaption>{html.escape(first.set)}/{html.escape(first.scene)}"
        + "".join(
            f"<br>{html.escape(run.name)}: {_told(each)}" for run, each in zip(runs, [first, *others], strict=True)
        )
        + "</figcaption></figure>"
        for first, others in found
    )


def _told(each: Picture | None) -> str:
    return f"F1 {each.f1:.2f}, {each.misses} missed, {each.false_alarms} false" if each else "not measured"


def _worst(run: Run, worst: int) -> str:
    paths = sorted((run.folder / "worst").glob("*.jpg"))[:worst]
    figures = [
        f"<figure>{_picture(path)}<figcaption>{html.escape(shown(path.stem))}</figcaption></figure>" for path in paths
    ]
    return "".join(figures) or "<p>None were kept.</p>"


def _picture(path: Path) -> str:
    try:
        image = read_image(path)
    except (UserError, OSError):
        return f"<p>{html.escape(shown(path.name))} is not there any more</p>"
    small = cv2.resize(image, (WIDTH, round(image.shape[0] * WIDTH / image.shape[1])), interpolation=cv2.INTER_AREA)
    data = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes()
    return f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(data).decode()}">'


def _curves(runs: list[Run]) -> str:
    import matplotlib  # takes half a second to import

    matplotlib.use("svg")
    from matplotlib.figure import Figure

    keys = [key for key in ("focal", "box", "map50") if any(key in line for run in runs for line in run.log)]
    if not keys:
        return "<p>No run kept a log.</p>"
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    for axes, key in zip(np.atleast_1d(figure.subplots(1, len(keys))), keys, strict=True):
        for run in runs:
            points = [(line["epoch"], line[key]) for line in run.log if line.get(key) is not None]
            if points:
                axes.plot(*zip(*points, strict=True), label=run.name, lw=1.2, marker="." if len(points) < 40 else "")
        axes.set_title(key)
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        if axes.lines:
            axes.legend(fontsize=8)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg")
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _table(lines: Iterable[Iterable[str]]) -> str:
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(shown(cell))}</td>" for cell in line) + "</tr>" for line in lines
    )
    return f"<table>{body}</table>"


TEMPLATE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>runs: {title}</title>
<style>
 body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 74rem; margin: 2rem auto; padding: 0 1rem; color: #16242e }}
 h1 {{ font-size: 1.4rem }} h2 {{ font-size: 1.1rem; margin-top: 2rem }}
 table {{ border-collapse: collapse }} td {{ padding: .15rem 1.4rem .15rem 0; font-variant-numeric: tabular-nums }}
 td:first-child {{ font-weight: 600 }} tr:first-child {{ font-weight: 600 }}
 figure {{ display: inline-block; width: 260px; margin: 0 8px 12px 0; vertical-align: top; font-size: 12px }}
 svg, img {{ max-width: 100%; height: auto }}
</style>
{body}
</html>
"""
