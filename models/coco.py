"""Reads COCO files from any source: the boxes of each picture, drawn as boxes, outlines, masks or key points."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import msgspec

from rov.errors import UserError

Box = tuple[float, float, float, float]
"""x1 y1 x2 y2 in pixels."""


class Rle(msgspec.Struct):
    """A mask as run lengths, column by column, the first run outside: numbers, or COCO's own characters."""

    size: tuple[int, int]
    """Height and width."""
    counts: list[int] | str


class Category(msgspec.Struct):
    id: int
    name: str


class Picture(msgspec.Struct):
    id: int
    file_name: str
    world: str = ""
    """For a rendered set: the world shown."""


class Annotation(msgspec.Struct):
    image_id: int
    category_id: int
    bbox: list[float] | None = None
    """x y width height."""
    segmentation: Rle | list[list[float]] | None = None
    keypoints: list[float] = []
    """x y v per point; v is 0 for a point that is not in the picture."""
    iscrowd: int | bool | None = 0


class File(msgspec.Struct):
    images: list[Picture]
    categories: list[Category]
    annotations: list[Annotation] = []


class Labelled(NamedTuple):
    """A picture with its objects; of `crowded` classes it shows more objects than are labelled singly."""

    picture: Picture
    objects: list[tuple[Box, str]]
    crowded: set[str]


def read(path: Path) -> list[Labelled]:
    """The pictures in the order of the file. Raises UserError for an invalid file."""
    try:
        file = msgspec.json.decode(path.read_bytes(), type=File, strict=False)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise UserError(f"{path}: {error}") from None
    names = {each.id: each.name for each in file.categories}
    found = {each.id: Labelled(each, [], set()) for each in file.images}
    for number, each in enumerate(file.annotations, 1):
        where = f"{path}: annotation {number}"
        if each.category_id not in names:
            raise UserError(f"{where}: is of category {each.category_id}, and `categories` has no such id")
        if each.image_id not in found:
            raise UserError(f"{where}: is in image {each.image_id}, and `images` has no such id")
        name, labelled = names[each.category_id], found[each.image_id]
        if each.iscrowd:
            labelled.crowded.add(name)
        elif box := _box(each, where):
            labelled.objects.append((box, name))
    return list(found.values())


def _box(each: Annotation, where: str) -> Box | None:
    """The box around an object, however it was drawn; None where it is empty."""
    if each.bbox:
        if len(each.bbox) != 4:
            raise UserError(f"{where}: bbox needs x, y, width and height, and has {len(each.bbox)} numbers")
        x, y, width, height = each.bbox
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
