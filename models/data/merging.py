"""Merges sets into one. What a set does not label stays unknown in its pictures: annotations.json says so for each."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from models import coco
from models.coco import EVERY, Labelled
from models.data.card import FILE, Absent, Card, Step, read_card, write_card
from models.data.errors import DataError
from models.data.hashing import hashes
from models.data.importing import must_be_new
from models.data.sets import ANNOTATIONS, PictureSet, scene_of

TEXTS = ("about", "creator", "source", "licence", "collected", "intent", "labelling", "bias", "people", "use", "misuse")


def merge(sets: Sequence[PictureSet], out: Path, command: str, step: Callable[[int], None]) -> PictureSet:
    """Write all pictures of sets with complete cards to the new folder `out`, as one set whose scenes are `SET/SCENE`.
    Splits stay as they are. Raises DataError."""
    must_be_new(out)
    for each in sets:
        each.card.must_be_complete(each.card_path)
    names = [each.card.name for each in sets]
    if len(set(names)) < len(names):
        raise DataError(f"two of the sets have the same name: {', '.join(names)}")
    if len(sets) < 2:
        raise DataError("name at least two sets to merge")
    absent = set.intersection(*(set(each.card.absent.classes) for each in sets))
    classes = list(dict.fromkeys(name for each in sets for name in each.card.classes))
    # A class that is absent in some sets and neither labelled nor absent in others is known of the first: it is listed.
    listed = classes + sorted({name for each in sets for name in each.card.absent.classes} - absent - set(classes))
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        total = [each.pictures() for each in sets]
        pictures = [
            _moved(found, labelled, listed, part, lambda: step(sum(map(len, total))))
            for found, members in zip(sets, total, strict=True)
            for labelled in members
        ]
        coco.write(part / ANNOTATIONS, pictures, listed)
        card = _card(sets, out.name, listed, absent, command)
        write_card(part / FILE, msgspec.structs.replace(card, hashes=hashes(PictureSet(card, part / FILE, part))))
        part.rename(out)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return PictureSet(read_card(out / FILE), out / FILE, out)


def _moved(found: PictureSet, labelled: Labelled, classes: list[str], part: Path, step: Callable[[], None]) -> Labelled:
    """Copy a picture; its labels under our names, its unknown classes spelled out."""
    step()
    card, scene = found.card, scene_of(found, labelled)
    ours = {theirs: name for name, theirs in card.classes.items()}
    source = Path(labelled.picture.file_name)
    name = f"images/{card.name}/{source.relative_to('images') if source.parts[0] == 'images' else source}"
    (part / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(found.root / labelled.picture.file_name, part / name)
    picture = msgspec.structs.replace(labelled.picture, file_name=name, scene=f"{card.name}/{scene}")
    unknown = {ours.get(each, each) for each in labelled.unknown}
    known = set() if EVERY in unknown else card.known(scene) - unknown
    return Labelled(
        picture, [(box, ours[kind]) for box, kind in labelled.objects if kind in ours], set(classes) - known
    )


def _card(sets: Sequence[PictureSet], name: str, classes: list[str], absent: set[str], command: str) -> Card:
    texts: dict[str, Any] = {
        key: "\n".join(f"{each.card.name}: {getattr(each.card, key).strip()}" for each in sets) for key in TEXTS
    }
    split = {
        kind: [f"{each.card.name}/{scene}" for each in sets for scene in each.card.split.get(kind, [])]
        for kind in dict.fromkeys(kind for each in sets for kind in each.card.split)
    }
    steps = [
        Step(f"{each.card.name}: {step.what}", step.command)
        for each in sets
        for step in each.card.transformations or []
    ]
    versions = ", ".join(f"{each.card.name} {each.card.version}" for each in sets if each.card.version)
    rendered = {each.card.name: each.card.rendered for each in sets if each.card.rendered}
    return Card(
        name=name, **texts, version=versions, classes={each: each for each in classes}, split=split,
        absent=Absent(sorted(absent), "\n".join(f"{each.card.name}: {each.card.absent.why}" for each in sets)),
        transformations=[*steps, Step(f"Merged from {', '.join(each.card.name for each in sets)}.", command)],
        rendered=rendered if len(rendered) == len(sets) else {},
    )  # fmt: skip
