"""COCO files: reads those from any source (the boxes of each picture, drawn as boxes, outlines, masks or points) and
writes our own."""

from __future__ import annotations

import codecs
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from rov.errors import UserError

Box = tuple[float, float, float, float]
"""x1 y1 x2 y2 in pixels."""
EVERY = "*"
"""All classes, among those that a picture is not labelled for."""


class Rle(msgspec.Struct):
    """A mask as run lengths, column by column, the first run outside: numbers, or COCO's own characters."""

    size: tuple[int, int]
    """Height and width."""
    counts: list[int] | str


class Category(msgspec.Struct):
    id: int
    name: str


class Picture(msgspec.Struct, omit_defaults=True):
    id: int | str
    file_name: str
    width: float | None = None
    height: float | None = None
    scene: str = ""
    """The site or clip that it shows: sets are split by scenes. (Ours, as the next two keys.)"""
    split: str = ""
    """train, val or test, where each picture is a scene of its own; else the card says it by scenes."""
    t: float | None = None
    """Seconds since the start of its dive."""
    not_exhaustive_category_ids: list[int] = []
    """Categories of which it may show more than is labelled (a key of LVIS)."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels; (0, 0) where the file does not say."""
        return int(self.width or 0), int(self.height or 0)


class Annotation(msgspec.Struct):
    image_id: int | str
    category_id: int
    bbox: list[float] | None = None
    """x y width height."""
    segmentation: Rle | list[list[float]] | None = None
    keypoints: list[float] = []
    """x y v per point; v is 0 for a point that is not in the picture."""
    iscrowd: int | bool | None = 0


class Licence(msgspec.Struct):
    name: str = ""
    url: str = ""


class Info(msgspec.Struct):
    """Where a file is from; tools leave it empty, or fill it with their own names."""

    description: str | None = ""
    contributor: str | None = ""
    url: str | None = ""
    version: str | float | None = ""


class File(msgspec.Struct):
    images: list[Picture]
    categories: list[Category]
    annotations: list[Annotation] = []
    info: Info | None = None
    licenses: list[Licence] = []


class Labelled(NamedTuple):
    """A picture with its objects. Of the classes in `unknown` (EVERY: of all) it may show more than is labelled."""

    picture: Picture
    objects: list[tuple[Box, str]]
    unknown: set[str]


class Contents(NamedTuple):
    """A file's pictures, in its order, and its classes."""

    pictures: list[Labelled]
    classes: list[str]
    empty: int
    """How many annotations have no area; they are left out."""
    info: Info
    licences: list[str]


def read(path: Path) -> list[Labelled]:
    """The pictures in the order of the file. Raises UserError for an invalid file."""
    return contents(path).pictures


def contents(path: Path) -> Contents:
    """Pictures and classes. Raises UserError for an invalid file."""
    file = _decoded(path)
    names = _names(path, file.categories)
    found: dict[int | str, Labelled] = {}
    for number, picture in enumerate(file.images, 1):
        if picture.id in found:
            raise UserError(f"{path}: image {number} ({picture.file_name}): another image has its id, {picture.id}")
        unknown = {names[each] for each in picture.not_exhaustive_category_ids if each in names}
        found[picture.id] = Labelled(picture, [], unknown)
    empty = 0
    for number, each in enumerate(file.annotations, 1):
        where = f"{path}: annotation {number}"
        if each.category_id not in names:
            raise UserError(f"{where}: is of category {each.category_id}, and `categories` has no such id")
        if each.image_id not in found:
            raise UserError(f"{where}: is in image {each.image_id}, and `images` has no such id")
        name, labelled = names[each.category_id], found[each.image_id]
        if each.iscrowd:
            labelled.unknown.add(name)
        elif box := _box(each, where):
            labelled.objects.append((box, name))
        else:
            empty += 1
    licences = [each.name or each.url for each in file.licenses if each.name or each.url]
    classes = list(dict.fromkeys(names.values()))
    return Contents(list(found.values()), classes, empty, file.info or Info(), licences)


def write(path: Path, pictures: Iterable[Labelled], classes: Sequence[str]) -> None:
    """A file that every tool takes: one annotation with a bbox for each object. Pictures are numbered anew."""
    ids = {name: number for number, name in enumerate(classes, 1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (picture, objects, unknown) in enumerate(pictures, 1):
        open_ids = sorted(ids.values() if EVERY in unknown else (ids[name] for name in unknown if name in ids))
        images.append(
            msgspec.to_builtins(msgspec.structs.replace(picture, id=number, not_exhaustive_category_ids=open_ids))
        )
        for (x1, y1, x2, y2), name in objects:
            width, height = round(x2 - x1, 3), round(y2 - y1, 3)
            annotations.append(
                {"id": len(annotations) + 1, "image_id": number, "category_id": ids[name],
                 "bbox": [round(x1, 3), round(y1, 3), width, height], "area": round(width * height, 3),
                 "segmentation": [], "iscrowd": 0}
            )  # fmt: skip
    categories = [{"id": number, "name": name} for name, number in ids.items()]
    file = {"images": images, "categories": categories, "annotations": annotations}
    path.write_bytes(msgspec.json.encode(file))


def _decoded(path: Path) -> File:
    try:
        data = path.read_bytes()
        if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            data = data.decode("utf-16").encode()
        data = data.removeprefix(codecs.BOM_UTF8)
        return msgspec.json.decode(data, type=File, strict=False)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        if data.lstrip().startswith(b"["):
            said = "is a list, and COCO is an object with images and categories: export as COCO"
            raise UserError(f"{path}: {said}") from None
        raise UserError(f"{path}: {error}") from None


def _names(path: Path, categories: list[Category]) -> dict[int, str]:
    names: dict[int, str] = {}
    for number, each in enumerate(categories, 1):
        if names.setdefault(each.id, each.name) != each.name:
            raise UserError(f"{path}: category {number} ({each.name}): {names[each.id]} has its id, {each.id}")
    return names


def _box(each: Annotation, where: str) -> Box | None:
    """The box around an object, however it was drawn; None where it is empty."""
    if each.bbox:
        if len(each.bbox) != 4:
            raise UserError(f"{where}: bbox needs x, y, width and height, and has {len(each.bbox)} numbers")
        x, y, width, height = each.bbox
        if not all(math.isfinite(value) for value in each.bbox):
            raise UserError(f"{where}: bbox {each.bbox} is no box")
        return (x, y, x + width, y + height) if width > 0 and height > 0 else None
    if isinstance(each.segmentation, Rle):
        return _around(each.segmentation, where)
    flat = [number for outline in each.segmentation or [] for number in outline]
    xs, ys = flat[0::2], flat[1::2]
    if not flat:
        seen = [each.keypoints[i : i + 2] for i in range(0, len(each.keypoints) - 2, 3) if each.keypoints[i + 2]]
        xs, ys = [point[0] for point in seen], [point[1] for point in seen]
    if not xs or len(xs) != len(ys):
        raise UserError(f"{where}: has no bbox, and no segmentation or keypoints to take one from")
    return (min(xs), min(ys), max(xs), max(ys)) if max(xs) > min(xs) and max(ys) > min(ys) else None


def _around(mask: Rle, where: str) -> Box | None:
    height, width = mask.size
    counts = _counts(mask.counts) if isinstance(mask.counts, str) else mask.counts
    if min(counts, default=0) < 0 or height < 1 or sum(counts) != height * width:
        raise UserError(f"{where}: its mask is not of {width}×{height} pixels")
    at, xs, ys = 0, [], []
    for number, count in enumerate(counts):
        if number % 2 and count:
            first, last = divmod(at, height), divmod(at + count - 1, height)
            xs += [first[0], last[0]]
            ys += [first[1], last[1]] if first[0] == last[0] else [0, height - 1]
        at += count
    return (min(xs), min(ys), max(xs) + 1.0, max(ys) + 1.0) if xs else None


def _counts(text: str) -> list[int]:
    """Run lengths from COCO's characters: 5 bits each, lowest first, with the sixth bit set where more follow;
    the fifth is the sign. From the fourth count on they are differences to the count two before."""
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            counts.append(value + counts[-2] if len(counts) > 2 else value)
            value = shift = 0
    return counts
