"""Chosen frames of a dive (.mcap) or a film, as a set whose labels are still to be drawn."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from models import coco
from models.coco import Labelled, Picture
from models.data.card import FILE, Card, Step, read_card, write_card
from models.data.errors import DataError
from models.data.hashing import hashes
from models.data.importing import must_be_new
from models.data.likeness import LIKE, fingerprint_of
from models.data.sets import ANNOTATIONS, PictureSet
from rov.dives.playback import DivePictures
from rov.media.files import TimedFrame
from rov.media.films import Video
from rov.media.pictures import write_image


class Choice(NamedTuple):
    """Which frames to take: at these times (s), else one every so many seconds, else `number` spread over the film."""

    at: tuple[float, ...] = ()
    every: float = 0.0
    number: int = 100
    distinct: bool = True
    """Leave out a frame that looks like the one taken before it."""


def import_film(
    path: Path, out: Path, card: Card, command: str, choice: Choice, camera: str | None, step: Callable[[int], None]
) -> tuple[PictureSet, list[str]]:
    """Write the chosen frames as a set to the new folder `out`; returns it and sentences on what was skipped. Raises
    UserError."""
    must_be_new(out)
    film = DivePictures(path, camera) if path.suffix.lower() == ".mcap" else Video(path)
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    (part / "images").mkdir(parents=True)
    try:
        pictures, alike = [], 0
        last: np.ndarray | None = None
        for frame, t in _chosen(film, choice, step):
            looks = fingerprint_of(frame.image)
            if choice.distinct and not choice.at and last is not None and float(looks @ last) > LIKE:
                alike += 1
                continue
            last = looks
            pictures.append(_write(frame, t, path, part))
        if not pictures:
            raise DataError(f"{path}: no frame was chosen: it is {film.expected / film.fps:.1f} s long")
        coco.write(part / ANNOTATIONS, pictures, [])
        told = Step(f"{len(pictures)} frames of {path.name} were chosen: {_words(choice)}; not labelled yet.", command)
        steps = [*(card.transformations or []), told]
        card = msgspec.structs.replace(card, transformations=steps, source=card.source or path.name)
        write_card(part / FILE, msgspec.structs.replace(card, hashes=hashes(PictureSet(card, part / FILE, part))))
        part.rename(out)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    notes = [f"{alike} frames that look like the one before them were left out (--alike takes them)"] if alike else []
    return PictureSet(read_card(out / FILE), out / FILE, out), notes + film.notes


def _chosen(
    film: Video | DivePictures, choice: Choice, step: Callable[[int], None]
) -> Iterator[tuple[TimedFrame, float]]:
    """The chosen frames and their times in s since the first."""
    wanted, next_t, start = sorted(choice.at), 0.0, None
    stride = max(film.expected / max(choice.number, 1), 1.0)
    for place, frame in enumerate(film.shots()):
        step(film.expected)
        start = frame.t if start is None else start
        t = (frame.t - start) / 1e9
        if choice.at:
            take = bool(wanted) and t >= wanted[0] - 1e-6
            while wanted and t >= wanted[0] - 1e-6:
                wanted.pop(0)
            if take:
                yield frame, t
            if not wanted:
                return
        elif choice.every > 0:
            if t >= next_t - 1e-6:
                next_t = t + choice.every
                yield frame, t
        elif int(place / stride) > int((place - 1) / stride) or place == 0:
            yield frame, t


def _write(frame: TimedFrame, t: float, path: Path, part: Path) -> Labelled:
    name = f"images/{path.stem}_{round(t * 1000):08d}.jpg"
    if frame.jpeg:
        (part / name).write_bytes(frame.jpeg)
    else:
        write_image(part / name, frame.image)
    height, width = frame.image.shape[:2]
    return Labelled(Picture(0, name, width, height, scene=path.stem, t=round(t, 3)), [], set())


def _words(choice: Choice) -> str:
    if choice.at:
        return "at " + ", ".join(f"{t:g}" for t in choice.at) + " s"
    rule = f"one every {choice.every:g} s" if choice.every > 0 else f"{choice.number} spread evenly over it"
    return rule + (", without those that look like the one before" if choice.distinct else "")
