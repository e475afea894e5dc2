"""The hashes of a card: they tell whether labels or pictures are still those that the card describes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from models.data.card import Hashes
from models.data.sets import ANNOTATIONS, TABLE, PictureSet
from rov.media.files import images_in

LABEL_SUFFIX = {"voc": ".xml", "yolo": ".txt"}


def hashes(found: PictureSet) -> Hashes:
    """Of the files as they are now. Reads everything."""
    layout = found.card.layout
    if layout in ("coco", "table"):
        labels = _sha256(found.root / (ANNOTATIONS if layout == "coco" else TABLE))
    else:
        suffix = LABEL_SUFFIX[layout]
        files = sorted(path for path in found.root.rglob("*") if path.suffix == suffix and path.parent != found.root)
        labels = of_files(files, found.root)
    if layout == "table":
        return Hashes(labels)
    if layout == "coco":
        pictures: Iterable[Path] = sorted(found.root / each.picture.file_name for each in found.pictures())
    else:
        pictures = images_in(found.root)
    return Hashes(labels, of_files(pictures, found.root))


def of_files(files: Iterable[Path], root: Path) -> str:
    """sha256 over a line for each file: its name, a tab and its own sha256."""
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.relative_to(root).as_posix()}\t{_sha256(path)}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
