"""Makes a set of our form (pictures, annotations.json, dataset.toml) from the labels of others.

Every picture is decoded once, so that a broken one is found now and not in the middle of a training; one that its EXIF
turns is stored upright, because not every tool looks there. The source is only read.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import msgspec

from models import coco
from models.coco import Labelled
from models.data.card import FILE, Card, Split, Step, read_card, write_card
from models.data.errors import DataError, Findings
from models.data.hashing import hashes
from models.data.scenes import PICTURE_FOLDERS
from models.data.sets import ANNOTATIONS, PictureSet
from models.data.sizes import orientation
from models.data.sources import Source, inherited, read, remembered, stated
from rov.errors import UserError
from rov.media.pictures import decode_image, write_image

SPLIT_NAMES: dict[str, Split] = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test",
    "testing": "test",
}  # fmt: skip
"""Folders, in lower case, by which others split their sets."""


def import_set(
    source: Source,
    out: Path,
    card: Card,
    command: str,
    *,
    rename: dict[str, str],
    skip_bad: bool = False,
    step: Callable[[int], None] = lambda total: None,
) -> tuple[PictureSet, Findings]:
    """Write the set to the folder `out`, which must be new. `card` says what is known of it; `rename`: theirs -> ours.
    `skip_bad`: leave out what cannot be read. Calls `step(total)` for each picture. Raises DataError."""
    must_be_new(out)
    findings = Findings()
    pictures, classes = read(source, findings)
    pictures = remembered(pictures, source)
    card = stated(inherited(card, source), source)
    for each in set(rename) - set(classes):
        raise DataError(f"--rename {each}: there is no such class; there are {', '.join(classes)}")
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        stored = _store(pictures, source.pictures, part, findings, lambda: step(len(pictures)))
        if skip_bad:
            for each in findings.wrong:
                findings.note("what could not be read was left out", each)
        else:
            findings.must_be_right(source.path, "put it right, or leave it out with --skip-bad")
        if not stored:
            raise DataError(f"{source.path}: no picture is left")
        ours = [rename.get(name, name) for name in classes]
        renamed = [_renamed(each, rename) for each in stored]
        coco.write(part / ANNOTATIONS, renamed, list(dict.fromkeys(ours)))
        steps = [*(card.transformations or []), Step(_told(source, findings), command)]
        _finish(msgspec.structs.replace(card, transformations=steps), part, renamed, list(dict.fromkeys(ours)))
        part.rename(out)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return PictureSet(read_card(out / FILE), out / FILE, out), findings


def must_be_new(out: Path) -> None:
    """Raises DataError where something is."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out}: is there already; name another folder with --out, or delete it")
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.is_dir():
        out.rmdir()


def _store(
    pictures: list[Labelled], root: Path, part: Path, findings: Findings, step: Callable[[], None]
) -> list[Labelled]:
    """Copy the pictures to part/images; those that cannot be decoded are findings."""
    stored: list[Labelled] = []
    taken: set[str] = set()
    for each in pictures:
        step()
        name = _new_name(each.picture.file_name, taken)
        try:
            size = _copy(root / each.picture.file_name, part / name, findings)
        except UserError as error:
            findings.wrong.append(str(error))
            continue
        picture = msgspec.structs.replace(each.picture, file_name=name, width=size[0], height=size[1])
        stored.append(each._replace(picture=picture))
    return stored


def _new_name(name: str, taken: set[str]) -> str:
    """The name in the set: its folders without those that only say `images`; no two differ by capitals alone."""
    path = PurePosixPath(name)
    parts = [part for part in path.parts[:-1] if part.lower() not in PICTURE_FOLDERS and part not in ("/", "..")]
    stem, suffix = path.stem.encode("utf-8", "replace").decode(), path.suffix.lower()
    new, number = "/".join(["images", *parts, stem + suffix]), 1
    while new.lower() in taken:
        number += 1
        new = "/".join(["images", *parts, f"{stem}-{number}{suffix}"])
    taken.add(new.lower())
    return new


def _copy(path: Path, target: Path, findings: Findings) -> tuple[int, int]:
    """Copy a picture, upright; returns its width and height. Raises UserError when it is broken."""
    data = path.read_bytes()
    image = decode_image(data, str(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    if orientation(data) > 1:
        findings.note("a picture that its EXIF turns was stored upright (JPEG, quality 95)", path)
        write_image(target, image)
    else:
        target.write_bytes(data)
    return image.shape[1], image.shape[0]


def _renamed(each: Labelled, rename: dict[str, str]) -> Labelled:
    objects = [(box, rename.get(name, name)) for box, name in each.objects]
    return Labelled(each.picture, objects, {rename.get(name, name) for name in each.unknown})


def _told(source: Source, findings: Findings) -> str:
    """What the import did, for the card."""
    what = f"Imported from {source.format.upper()} labels; only boxes were kept."
    return " ".join([what, *(f"{each}." for each in _anonymous(findings))])


def _anonymous(findings: Findings) -> list[str]:
    """The notes without the places of this machine."""
    return [f"{count} × {what}" for what, count in findings.notes.most_common()]


def _finish(card: Card, part: Path, pictures: list[Labelled], classes: list[str]) -> None:
    """Write the card: the classes found, the split that the source's folders say, the hashes."""
    scenes = list(dict.fromkeys(each.picture.scene for each in pictures))
    split: dict[Split, list[str]] = {}
    for scene in scenes:
        if kind := SPLIT_NAMES.get(PurePosixPath(scene).parts[0].lower() if scene else ""):
            split.setdefault(kind, []).append(scene)
    if "train" not in split or sum(map(len, split.values())) < len(scenes):
        split = {}
    ours = {name: name for name in classes}
    card = msgspec.structs.replace(card, classes=card.classes or ours, split=card.split or split)
    found = PictureSet(card, part / FILE, part)
    write_card(part / FILE, msgspec.structs.replace(card, hashes=hashes(found)))
