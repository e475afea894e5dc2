"""A recording to replay: a dive or a plain video, as one stream of pictures and messages in recorded order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeAlias

import cv2
import numpy as np

from rov.dives.dive import Dive, Picture, Record
from rov.dives.video import FORMATS, VideoDecoder
from rov.errors import UserError
from rov.media.check import Check, WorthlessError
from rov.media.files import VIDEOS, Image, Shot, must_be_file
from rov.media.films import Video
from rov.messages import Frame, ThrusterCommand

Item: TypeAlias = Shot | Record


class Source(NamedTuple):
    """An opened recording."""

    path: Path
    frames: int
    """Pictures it should hold; 0 where it does not say."""
    fps: float
    has_vehicle: bool
    """Whether a vehicle speaks in it. A bare video has none, so no state of it can be stale."""
    ticks: bool
    """Whether it says when the pilot acted; else the pilot acts at its own pace on recorded time."""
    heard: bool
    """Whether it says what the processes took in and when; else they take in whatever there is as soon as it is."""
    start: ThrusterCommand | None
    """What the pilot was doing when a dive began."""
    items: Iterator[Item]
    skipped: list[str]
    """Sentences about what could not be read; complete once `items` is exhausted."""
    expected: int = 0
    """Pictures to come, guessed where it does not say: for a progress bar."""
    lost: Callable[[], int] | None = None
    """How many of its pictures did not come, once `items` is exhausted; None: what of `frames` did not."""
    fault: Callable[[], str] = str
    """Why the pictures that came are of no worth, as a sentence, once `items` is exhausted; "" when they are."""


def open_source(path: Path) -> Source:
    """A dive (`.mcap`) or a video. Raises UserError."""
    must_be_file(path)
    if path.suffix.lower() == ".mcap":
        return _dive(path)
    if path.suffix.lower() in VIDEOS:
        return _video(path)
    raise UserError(f"{path}: neither a dive (.mcap) nor a video ({' '.join(sorted(VIDEOS))})")


def _video(path: Path) -> Source:
    video = Video(path)
    skipped: list[str] = []
    faults: list[str] = []

    def items() -> Iterator[Item]:
        try:
            yield from video.shots()
        except WorthlessError as error:
            faults.append(str(error))
        skipped.extend(video.notes)

    return Source(
        path, video.declared, video.fps, False, False, False, None, items(), skipped,
        video.expected, lambda: video.lost, lambda: "".join(faults),
    )  # fmt: skip


def _dive(path: Path) -> Source:
    dive = Dive(path)
    if "vehicle" not in dive.counts:  # a log alone still has loops to run
        dive.require("camera")
    first = next(dive.messages(["thrusters"]), None)
    start = first.data if first and isinstance(first.data, ThrusterCommand) else None
    skipped: list[str] = []
    check = Check()

    def items() -> Iterator[Item]:
        with dive:
            for item in _played(dive, skipped):
                if isinstance(item, Shot):
                    check.see(item.image)
                yield item
        skipped.extend(f"{number} messages dropped: {why}" for why, number in dive.dropped.items())
        skipped.extend(dive.problems)

    pictures = dive.counts.get("camera", 0)
    fps = min(max(pictures / max(dive.duration_s, 1e-3), 0.1), 1000.0) if pictures else 25.0
    has = dive.counts
    return Source(
        path, pictures, fps, "vehicle" in has, start is not None, "heard" in has, start, items(), skipped,
        pictures, None, lambda: check.sentence(str(path), pictures),
    )  # fmt: skip


def _played(dive: Dive, skipped: list[str]) -> Iterator[Item]:
    """The dive's pictures decoded, each under the id that its `frame` message gave it; all else as it is."""
    frame_ids: dict[int, int] = {}
    numbers: dict[int, int] = {}
    count = packets = 0
    decoder: VideoDecoder | None = None
    for record in dive.messages():
        if not isinstance(record.data, Picture):
            if isinstance(record.data, Frame):
                frame_ids[record.data.frame_t] = record.data.frame_id
            yield record
            continue
        picture = record.data
        if picture.format in FORMATS:
            decoder = decoder or VideoDecoder(picture.format)
            packets += 1
            numbers[picture.t] = record.number
            for t, image in decoder.decode(picture.t, picture.data):
                yield Shot(frame_ids.pop(t, numbers.pop(t, 0) or count), t, image)
                count += 1
            continue
        whole = decoded(picture.data)
        if whole is None:
            skipped.append(f"the picture at {record.t / 1e9:.3f} s cannot be decoded")
            continue
        jpeg = picture.data if picture.format == "jpeg" else None
        yield Shot(frame_ids.pop(record.t, record.number or count), record.t, whole, jpeg)
        count += 1
    if decoder:
        for t, image in decoder.flush():
            yield Shot(frame_ids.pop(t, numbers.pop(t, 0) or count), t, image)
            count += 1
        if count < packets:
            skipped.append(f"{packets - count} of {packets} video packets gave no picture: lost, or before a key frame")


def decoded(data: bytes) -> Image | None:
    """A picture that stands alone."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return None if image is None else np.asarray(image, np.uint8)
