"""Examines a set before anything is learned from it: is it whole, is it labelled well, can it be measured honestly?"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from models.coco import Box, Labelled
from models.data.boxes import fit
from models.data.errors import DataError, Findings
from models.data.likeness import alike, fingerprint_of
from models.data.looks import looks_of
from models.data.problems import of_boxes, of_card, of_classes, of_labels, of_splits
from models.data.report import Pair, Problem, Report
from models.data.sets import PictureSet, scene_of
from rov.errors import UserError
from rov.media.pictures import read_image


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
            *of_card(found), *of_labels(found, findings),
            *of_classes(report), *of_boxes(report), *of_splits(report),
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
