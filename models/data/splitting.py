"""Splits a set by whole scenes or clips: frames of one scene are nearly the same picture, so that a split by frame
would measure what was learned by heart."""

from __future__ import annotations

from collections import Counter

import msgspec
import numpy as np

from models import coco
from models.coco import Labelled
from models.data.card import Split, write_card
from models.data.errors import DataError
from models.data.hashing import hashes
from models.data.sets import ANNOTATIONS, PictureSet, open_set, scene_of

TRIES = 2000
"""Random assignments of scenes that are compared."""


def split_set(found: PictureSet, shares: dict[Split, float], clips: int, seed: int) -> PictureSet:
    """Write to the card which scenes are train, val and test: of many assignments, the one nearest to these shares of
    pictures and of each class' boxes. `clips` above 1: first cut each scene into so many stretches of consecutive
    pictures, which count as scenes. Raises DataError where there are too few scenes."""
    if found.card.layout != "coco":
        raise DataError(f"{found.card_path}: this set's split stands in its hand-written card; edit [split] there")
    if any(each.picture.split for each in found.pictures()):
        raise DataError(f"{found.root / 'annotations.json'}: its pictures have their own split; each is its own scene")
    if clips > 1:
        found = _cut(found, clips)
    pictures = found.pictures()
    scenes = sorted({scene_of(found, each) for each in pictures})
    wanted = {kind: share for kind, share in shares.items() if share > 0}
    if len(scenes) < len(wanted):
        what = (
            f"has {len(scenes)} scene"
            + ("s" if len(scenes) > 1 else "")
            + f", and {' and '.join(wanted)} need one each"
        )
        raise DataError(f"{found.root}: {what}: record another dive, or cut it into clips, --clips {5 * len(wanted)}")
    split = _best(pictures, [scene_of(found, each) for each in pictures], scenes, wanted, seed)
    card = msgspec.structs.replace(found.card, split=split)
    write_card(found.card_path, card)
    return found._replace(card=card)


def _best(
    pictures: list[Labelled], of: list[str], scenes: list[str], shares: dict[Split, float], seed: int
) -> dict[Split, list[str]]:
    """The assignment whose pictures and boxes are nearest to the shares."""
    classes = sorted({name for each in pictures for _, name in each.objects})
    counts = np.zeros((len(scenes), 1 + len(classes)))
    for each, scene in zip(pictures, of, strict=True):
        row = counts[scenes.index(scene)]
        row[0] += 1
        for name, number in Counter(name for _, name in each.objects).items():
            row[1 + classes.index(name)] += number
    parts = counts / np.maximum(counts.sum(0), 1)
    weight = np.array([2.0, *[1.0 / max(len(classes), 1)] * len(classes)])
    kinds = list(shares)
    want = np.array([shares[kind] for kind in kinds]) / sum(shares.values())
    rng, best, least = np.random.default_rng(seed), np.zeros(0, int), np.inf
    for _ in range(TRIES):
        chosen = rng.choice(len(kinds), len(scenes), p=want)
        if len(set(chosen.tolist())) < len(kinds):
            chosen[rng.permutation(len(scenes))[: len(kinds)]] = np.arange(len(kinds))
        got = np.stack([parts[chosen == i].sum(0) for i in range(len(kinds))])
        cost = float((((got - want[:, None]) ** 2) * weight).sum())
        if cost < least:
            best, least = chosen, cost
    return {kind: [scenes[j] for j in np.flatnonzero(best == i)] for i, kind in enumerate(kinds)}


def _cut(found: PictureSet, clips: int) -> PictureSet:
    """Name the scenes of annotations.json anew: `dive` becomes `dive/1`, `dive/2`, … in the order of time and names."""
    pictures = found.pictures()
    by_scene: dict[str, list[int]] = {}
    for i in sorted(range(len(pictures)), key=lambda i: (pictures[i].picture.t or 0.0, pictures[i].picture.file_name)):
        by_scene.setdefault(scene_of(found, pictures[i]), []).append(i)
    named = list(pictures)
    for scene, members in by_scene.items():
        for place, i in enumerate(members):
            clip = f"{scene}/{place * clips // len(members) + 1}"
            named[i] = pictures[i]._replace(picture=msgspec.structs.replace(pictures[i].picture, scene=clip))
    coco.write(found.root / ANNOTATIONS, named, coco.contents(found.root / ANNOTATIONS).classes)
    unknown = {
        clip: found.card.unknown[scene_of(found, old)]
        for old, new in zip(pictures, named, strict=True)
        if scene_of(found, old) in found.card.unknown
        for clip in [new.picture.scene]
    }
    kept = {key: names for key, names in found.card.unknown.items() if key == "*"}
    card = msgspec.structs.replace(found.card, unknown=kept | unknown, split={})
    card = msgspec.structs.replace(card, hashes=hashes(found))
    write_card(found.card_path, card)
    return open_set(found.root)
