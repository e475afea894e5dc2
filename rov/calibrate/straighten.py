"""Writes rectified pictures to look at, as the network sees them, under their own names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from rov.errors import UserError
from rov.media.files import IMAGES, VIDEOS, images_in, others_in, shown
from rov.media.films import Video
from rov.media.pictures import read_image, write_image
from rov.optics.lens import Lens
from rov.types import Image


class StraightenResult(NamedTuple):
    """How many pictures were written, and what was skipped."""

    written: int
    skipped: list[str]
    """A sentence for each file that was not, or not wholly, written."""


def straighten(
    lens: Lens, paths: list[Path], out: Path, progress: Callable[[], None] = lambda: None
) -> StraightenResult:
    """Write the rectified pictures of files, folders and videos below `out`, keeping folders. Raises UserError for a
    missing path, or when `out` cannot be written."""
    written = 0
    skipped: list[str] = []
    taken: set[Path] = set()
    for path, name in _files(paths, skipped):
        try:
            for part, image in _pictures(path, lens, skipped):
                place = _free(out / name.with_name(part), taken)
                place.parent.mkdir(parents=True, exist_ok=True)
                write_image(place, lens.rectify(image))
                written += 1
                progress()
        except UserError as error:
            skipped.append(_of(path, error))
        except OSError as error:
            raise UserError(f"{out}: cannot be written: {error.strerror}") from None
    return StraightenResult(written, skipped)


def _files(paths: list[Path], skipped: list[str]) -> Iterator[tuple[Path, Path]]:
    """Every file, with its path relative to the given folder; of a given file the name alone."""
    for path in paths:
        if not path.exists():
            raise UserError(f"{path}: no such file")
        if not path.is_dir():
            yield path, Path(path.name)
            continue
        inside = images_in(path)
        if not inside:
            raise UserError(f"{path}: holds no images ({' '.join(sorted(IMAGES))})")
        if others := others_in(path):
            skipped.append(others)
        yield from ((each, each.relative_to(path)) for each in inside)


def _pictures(path: Path, lens: Lens, skipped: list[str]) -> Iterator[tuple[str, Image]]:
    """The pictures of a file without EXIF rotation, with their new names: those of a video are numbered. A picture that
    fits the lens only when rotated was rotated by a program."""
    stem = shown(path.stem)
    if path.suffix.lower() in VIDEOS:
        video = Video(path)
        for shot in video.shots():
            yield f"{stem}_{shot.frame_id:06}.jpg", shot.image
        skipped += [f"{path}: {note}" for note in video.notes]
        return
    image = read_image(path, stored=True)
    if not lens.fits(image.shape[1], image.shape[0]):
        image = read_image(path)
    yield f"{stem}.jpg", image


def _free(path: Path, taken: set[Path]) -> Path:
    """The path, numbered if this run has written it before: cameras restart their numbers on every card."""
    number, free = 1, path
    while free in taken:
        number += 1
        free = path.with_name(f"{path.stem}_{number}{path.suffix}")
    taken.add(free)
    return free


def _of(path: Path, error: UserError) -> str:
    """The error's text, beginning with the file's path."""
    text = str(error)
    return text if text.startswith(str(path)) else f"{path}: {text}"
