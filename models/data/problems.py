"""Judges what a check found: errors, warnings and notes, a sentence each."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
from numpy.typing import NDArray

from models.data.card import ENTRIES, SPLITS
from models.data.errors import Findings
from models.data.hashing import hashes
from models.data.likeness import LIKE, same_bytes
from models.data.report import SIZE, SMALL, Problem, Report
from models.data.sets import PictureSet

FEW = 20
"""Boxes of a class below which its figures are chance."""
BALANCE = 50
"""One class with so many times the boxes of another is told."""
SAME_BOX = 0.9
"""Overlap (IoU) from which two boxes of one class are the same object twice."""
PERMISSIVE = (
    "mit",
    "apache",
    "bsd",
    "cc0",
    "cc-by",
    "cc by",
    "isc",
    "public domain",
    "own picture",
    "that of this repo",
)
"""How licences begin that allow weights to be shipped; attribution may be asked for."""
NARROW = {
    "-nc": "no commercial use", " nc": "no commercial use", "noncommercial": "no commercial use",
    "non-commercial": "no commercial use", "-nd": "no changed copies", " nd": "no changed copies",
    "research only": "research only", "gpl": "what is made of it must be under the same licence",
    "-sa": "what is made of it must be under the same licence",
    " sa": "what is made of it must be under the same licence",
}  # fmt: skip
"""Parts of a licence's name, and what it forbids or asks."""


def of_card(found: PictureSet) -> list[Problem]:
    card = found.card
    problems = [Problem("error", f"card: {entry} is missing: {ENTRIES[entry]}") for entry in card.missing()]
    licence = card.licence.lower()
    forbidden = dict.fromkeys(what for part, what in NARROW.items() if part in licence)
    problems += [
        Problem("warning", f"licence {card.licence!r}: {what}; may the weights be shipped?") for what in forbidden
    ]
    if licence and not forbidden and not licence.startswith(PERMISSIVE):
        problems.append(Problem("warning", f"licence {card.licence!r} is none that is known here: read it"))
    if card.hashes.labels and card.hashes != (now := hashes(found)):
        changed = (each for each in ("labels", "pictures") if getattr(card.hashes, each) != getattr(now, each))
        told = f"{' and '.join(changed)} are no longer those of the card's hashes: if that is meant, tell in the card"
        problems.append(Problem("warning", f"{told} what changed and run `python -m models.data card SET --hash`"))
    return problems


def of_labels(found: PictureSet, findings: Findings) -> list[Problem]:
    return [Problem("warning", each.replace(str(found.root) + "/", "")) for each in findings.sentences()]


def of_classes(report: Report) -> list[Problem]:
    card = report.found.card
    count = Counter(name for each in report.pictures for _, name in each.objects)
    by_split: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for each, split in zip(report.pictures, report.splits, strict=True):
        by_split[split].update(name for _, name in each.objects)
    problems = []
    for name in card.classes:
        if not count[name]:
            problems.append(Problem("warning", f"{name}: labelled, says the card, and there is not one box"))
        elif count[name] < FEW:
            problems.append(Problem("warning", f"{name}: {count[name]} boxes; below {FEW} its figures are chance"))
        for split in ("val", "test"):
            if by_split[split][name] and not by_split["train"][name]:
                problems.append(Problem("warning", f"{name}: is in {split}, and not in train"))
    have = {name: count[name] for name in card.classes if count[name]}
    if have and max(have.values()) > BALANCE * min(have.values()):
        most, least = max(have, key=have.__getitem__), min(have, key=have.__getitem__)
        problems.append(
            Problem("note", f"{have[most]} boxes of {most} and {have[least]} of {least}: draw the rare more often")
        )
    if others := {name: number for name, number in count.items() if name not in card.classes}:
        listed = ", ".join(f"{name} {number}" for name, number in sorted(others.items()))
        problems.append(Problem("note", f"labelled, and no class of the card, so not used: {listed}"))
    absent = {name: count[name] for name in card.absent.classes if count[name]}
    problems += [
        Problem("error", f"{name}: absent, says the card, and it has boxes: {n}") for name, n in absent.items()
    ]
    return problems


def of_boxes(report: Report) -> list[Problem]:
    problems, twice, all_over, small, total = [], [], 0, 0, 0
    for each in report.pictures:
        width, height = each.picture.size
        scale = SIZE / max(width, height)
        boxes = np.array([box for box, _ in each.objects], np.float64).reshape(-1, 4)
        sides = boxes[:, 2:] - boxes[:, :2]
        total += len(boxes)
        small += int((sides.max(1, initial=0) * scale < SMALL).sum())
        all_over += int((sides.prod(1) > 0.95 * width * height).sum())
        if _repeated(boxes, [name for _, name in each.objects]):
            twice.append(each.picture.file_name)
    if twice:
        problems.append(Problem("warning", f"{len(twice)} pictures have an object twice (first: {twice[0]})"))
    if all_over:
        problems.append(Problem("note", f"{all_over} boxes fill their whole picture"))
    if small:
        share = f"{small} of {total} boxes ({small / total:.0%})"
        problems.append(Problem("note", f"{share} are under {SMALL:g} px when a picture is scaled to {SIZE}"))
    empty = sum(not each.objects for each in report.pictures)
    problems.append(Problem("note", f"{empty} of {len(report.pictures)} pictures have no box"))
    return problems


def _repeated(boxes: NDArray[np.float64], names: list[str]) -> bool:
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    shared = np.maximum(high - low, 0).prod(-1)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    iou = np.triu(shared / np.maximum(area[:, None] + area[None] - shared, 1e-9), 1)
    return any(names[i] == names[j] for i, j in np.argwhere(iou > SAME_BOX))


def of_splits(report: Report) -> list[Problem]:
    problems, paths = [], [report.found.root / each.picture.file_name for each in report.pictures]
    if nowhere := sum(split not in SPLITS for split in report.splits):
        problems.append(
            Problem("warning", f"{nowhere} pictures are in no split: nothing is learned or measured on them")
        )
    same = list(same_bytes(paths).values())
    for apart in (True, False):
        groups = [numbers for numbers in same if (len({report.splits[i] for i in numbers}) > 1) == apart]
        if groups:
            names = ", ".join(report.pictures[i].picture.file_name for i in groups[0][:3])
            where = "in different splits" if apart else "in one split"
            told = f"files that are there several times, {where}: {len(groups)} (first: {names})"
            problems.append(Problem("error" if apart else "warning", told))
    for split in ("val", "test"):
        inside = {i for pair in report.leaks for i in (pair.first, pair.second) if report.splits[i] == split}
        of = report.splits.count(split)
        if inside:
            what = f"{len(inside)} of {of} pictures of {split} look nearly like one of another split"
            problems.append(
                Problem("warning", f"{what} (correlation ≥ {LIKE}): what is measured there was partly learned by heart")
            )
        elif not of and split == "val":
            problems.append(
                Problem("warning", "no picture is in val: nothing tells when to stop, or what a change is worth")
            )
    problems += _of_scenes(report)
    return problems


def _of_scenes(report: Report) -> list[Problem]:
    """A scene that is in several splits, where pictures have their own."""
    if report.found.card.rendered:
        return []  # each realised world is another place
    of: defaultdict[str, set[str]] = defaultdict(set)
    for scene, split in zip(report.scenes, report.splits, strict=True):
        of[scene].add(split)
    return [
        Problem("warning", f"scene {scene} is in {' and '.join(sorted(splits))}")
        for scene, splits in of.items()
        if len(splits - {""}) > 1
    ]
