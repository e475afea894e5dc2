"""Examines a set before anything is learned from it: is it whole, is it labelled well, can it be measured honestly?"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.coco import Box, Labelled
from models.data.boxes import fit
from models.data.card import ENTRIES, SPLITS
from models.data.errors import DataError, Findings
from models.data.hashing import hashes
from models.data.likeness import LIKE, alike, fingerprint_of, same_bytes
from models.data.looks import Looks, looks_of
from models.data.sets import PictureSet, scene_of
from rov.errors import UserError
from rov.media.pictures import read_image

FEW = 20
"""Boxes of a class below which its figures are chance."""
SMALL = 8.0
"""px at an input of SIZE: smaller objects are hardly learned."""
SIZE = 512
"""The usual side of a network's input, px."""
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


class Problem(NamedTuple):
    kind: Literal["error", "warning", "note"]
    """error: do not train on it like this. warning: look at it. note: good to know."""
    text: str


class Pair(NamedTuple):
    """Two pictures (numbers) that look nearly the same."""

    first: int
    second: int
    likeness: float


class Report(NamedTuple):
    """What was found; lists go by picture."""

    found: PictureSet
    pictures: list[Labelled]
    """Those that can be decoded, boxes inside, under our class names; others under theirs."""
    splits: list[str]
    scenes: list[str]
    looks: list[Looks]
    leaks: list[Pair]
    """Nearly the same picture in two splits."""
    problems: list[Problem]

    @property
    def errors(self) -> int:
        return sum(each.kind == "error" for each in self.problems)


def examine(found: PictureSet, step: Callable[[int], None] = lambda total: None) -> Report:
    """Decodes every picture; calls `step(total)` for each. Raises DataError when the labels cannot be read at all."""
    findings = Findings()
    listed = found.pictures(findings)
    pictures, looks, prints = [], [], []
    for labelled in listed:
        step(len(listed))
        path = found.root / labelled.picture.file_name
        try:
            image = read_image(path)
        except (UserError, OSError) as error:
            findings.wrong.append(str(error) if isinstance(error, UserError) else f"{path}: {error.strerror}")
            continue
        pictures.append(_ours(found, labelled, (image.shape[1], image.shape[0]), findings))
        looks.append(looks_of(image))
        prints.append(fingerprint_of(image))
    if not pictures:
        raise DataError("\n".join([*findings.wrong[:5], f"{found.root}: none of its pictures can be read"]))
    splits = [found.split_of(each) for each in pictures]
    scenes = [scene_of(found, each) for each in pictures]
    leaks = _leaks(np.stack(prints), splits)
    report = Report(found, pictures, splits, scenes, looks, leaks, [])
    report.problems.extend(
        [
            *(Problem("error", each) for each in findings.wrong),
            *_of_card(found), *_of_labels(found, findings),
            *_of_classes(report), *_of_boxes(report), *_of_splits(report),
        ]
    )  # fmt: skip
    return report


def _ours(found: PictureSet, labelled: Labelled, size: tuple[int, int], findings: Findings) -> Labelled:
    """The picture with its true size, its boxes inside it, classes under our names."""
    ours = {theirs: name for name, theirs in found.card.classes.items()}
    where = labelled.picture.file_name
    stated = labelled.picture.size
    if all(stated) and stated != size:
        findings.wrong.append(f"{where}: the labels say {stated[0]}×{stated[1]} px, and it has {size[0]}×{size[1]}")
    labelled.picture.width, labelled.picture.height = size
    objects: list[tuple[Box, str]] = []
    for box, name in labelled.objects:
        if inside := fit(box, size, where, findings):
            objects.append((inside, ours.get(name, name)))
    return Labelled(labelled.picture, objects, {ours.get(name, name) for name in labelled.unknown})


def _leaks(prints: NDArray[np.float32], splits: list[str]) -> list[Pair]:
    """Pairs across two splits, the likest first."""
    pairs = [Pair(i, j, r) for i, j, r in alike(prints) if splits[i] != splits[j] and splits[i] and splits[j]]
    return sorted(pairs, key=lambda pair: -pair.likeness)


def _of_card(found: PictureSet) -> list[Problem]:
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


def _of_labels(found: PictureSet, findings: Findings) -> list[Problem]:
    return [Problem("warning", each.replace(str(found.root) + "/", "")) for each in findings.sentences()]


def _of_classes(report: Report) -> list[Problem]:
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


def _of_boxes(report: Report) -> list[Problem]:
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


def _of_splits(report: Report) -> list[Problem]:
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
