"""The plots of a check: classes, sizes, places and the look of the water, by split. SVG, to stand in a page."""

from __future__ import annotations

import io
from collections import Counter
from typing import Any

import numpy as np

from models.data.card import SPLITS
from models.data.report import SIZE, SMALL, Report

COLOURS = {"train": "#2b7bba", "val": "#e08214", "test": "#7b3294", "": "#999999"}


def plots(report: Report) -> str:
    """One SVG."""
    import matplotlib  # takes half a second to import

    matplotlib.use("svg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 12), layout="constrained")
    grid = figure.subplots(3, 2)
    _classes(grid[0, 0], report)
    _numbers(grid[0, 1], report)
    _sizes(grid[1, 0], report)
    _places(grid[1, 1], report)
    _cast(grid[2, 0], report)
    _water(grid[2, 1], report)
    for axes in grid.flat:
        axes.spines[["top", "right"]].set_visible(False)
    for axes in (grid[0, 0], grid[1, 0], grid[2, 0]):
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8, framealpha=0.8, edgecolor="none")
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg")
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _present(report: Report) -> list[str]:
    return [split for split in (*SPLITS, "") if split in report.splits]


def _of(report: Report, split: str) -> list[int]:
    return [i for i, each in enumerate(report.splits) if each == split]


def _classes(axes: Any, report: Report) -> None:
    names = list(report.found.card.classes)[::-1]
    left = np.zeros(len(names))
    for split in _present(report):
        count = Counter(name for i in _of(report, split) for _, name in report.pictures[i].objects)
        width = np.array([count[name] for name in names], float)
        axes.barh(names, width, left=left, color=COLOURS[split], label=split or "in no split")
        left += width
    for y, number in enumerate(left):
        axes.text(number, y, f" {number:.0f}", va="center", fontsize=8)
    axes.set_title("boxes of each class")


def _numbers(axes: Any, report: Report) -> None:
    numbers = [len(each.objects) for each in report.pictures]
    axes.hist(numbers, bins=np.arange(-0.5, min(max(numbers), 100) + 1.5), color=COLOURS["train"])
    axes.set_title("boxes in a picture")
    axes.set_ylabel("pictures")


def _sizes(axes: Any, report: Report) -> None:
    bins = np.geomspace(2, SIZE, 40)
    for split in _present(report):
        sides = [
            max(x2 - x1, y2 - y1) * SIZE / max(report.pictures[i].picture.size)
            for i in _of(report, split)
            for (x1, y1, x2, y2), _ in report.pictures[i].objects
        ]
        axes.hist(
            sides, bins, histtype="step", lw=1.5, density=True, color=COLOURS[split], label=split or "in no split"
        )
    axes.axvline(SMALL, color="#c33", lw=0.8, ls=":")
    axes.set_xscale("log")
    axes.set_title(f"longer side of a box, px at an input of {SIZE}")
    axes.set_yticks([])


def _places(axes: Any, report: Report) -> None:
    """Share of the pictures in which a place is inside a box."""
    cells = 48
    cover = np.zeros((cells, cells))
    for each in report.pictures:
        width, height = each.picture.size
        inside = np.zeros((cells, cells), bool)
        for (x1, y1, x2, y2), _ in each.objects:
            inside[
                int(y1 / height * cells) : int(np.ceil(y2 / height * cells)),
                int(x1 / width * cells) : int(np.ceil(x2 / width * cells)),
            ] = True
        cover += inside
    shown = axes.imshow(cover / len(report.pictures), extent=(0, 1, 1, 0), aspect="auto", cmap="viridis", vmin=0)
    axes.figure.colorbar(shown, ax=axes)
    axes.set_title("where boxes are: share of pictures")


def _cast(axes: Any, report: Report) -> None:
    for split in _present(report):
        looks = [report.looks[i] for i in _of(report, split)]
        axes.plot(
            [each.red_green for each in looks], [each.blue_yellow for each in looks], "o", ms=2.5, alpha=0.6,
            color=COLOURS[split], label=split or "in no split",
        )  # fmt: skip
    axes.axhline(0, color="#bbb", lw=0.6)
    axes.axvline(0, color="#bbb", lw=0.6)
    axes.set_title("colour cast: CIE a* and b* of the mean colour")
    axes.set_xlabel("green  ←  a*  →  red")
    axes.set_ylabel("blue  ←  b*  →  yellow")


def _water(axes: Any, report: Report) -> None:
    for split in _present(report):
        looks = [report.looks[i] for i in _of(report, split)]
        axes.plot(
            [each.veil for each in looks],
            [each.contrast for each in looks],
            "o",
            ms=2.5,
            alpha=0.6,
            color=COLOURS[split],
        )
    axes.set_title("turbidity: veil and contrast")
    axes.set_xlabel("veil: mean dark channel of green and blue, 0…1")
    axes.set_ylabel("contrast: standard deviation of L*")
