"""A recording to replay: a dive or a plain video, as one stream of pictures and messages in recorded order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeAlias

from rov.dives.dive import Dive, Record
from rov.dives.playback import choose_camera, decode_pictures, dropped, must_show, rate_of
from rov.errors import UserError
from rov.media.check import ContentCheck, WorthlessError
from rov.media.files import VIDEOS, TimedFrame, must_be_file
from rov.media.films import Video
from rov.messages import ThrusterCommand

Item: TypeAlias = TimedFrame | Record
IMPORTED = "log"
"""Metadata of a dive that `rov import` made of an autopilot's log."""


class Recording(NamedTuple):
    """An opened recording."""

    path: Path
    frames: int
    """Pictures it should hold; 0 where it does not say."""
    fps: float
    has_vehicle: bool
    """Whether a vehicle speaks in it. A bare video has none, so no state of it can be stale."""
    has_ticks: bool
    """Whether it says when the pilot acted; else the pilot acts at its own pace on recorded time."""
    has_inputs: bool
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
    notes: tuple[str, ...] = ()
    """Sentences about what was chosen in it."""
    dive: Dive | None = None
    """None: a video."""


def open_recording(path: Path, camera: str | None = None) -> Recording:
    """A dive (`.mcap`) or a video; `camera` is a topic of a dive. Raises UserError, also where no picture of many can
    be decoded."""
    must_be_file(path)
    if path.suffix.lower() == ".mcap":
        return _dive(path, camera)
    if camera is not None:
        raise UserError(f"{path}: --camera chooses among the topics of a dive (.mcap)")
    if path.suffix.lower() in VIDEOS:
        return _video(path)
    raise UserError(f"{path}: neither a dive (.mcap) nor a video ({' '.join(sorted(VIDEOS))})")


def _video(path: Path) -> Recording:
    video = Video(path)
    skipped: list[str] = []
    faults: list[str] = []

    def items() -> Iterator[Item]:
        try:
            yield from video.shots()
        except WorthlessError as error:
            faults.append(str(error))
        skipped.extend(video.notes)

    return Recording(
        path, video.declared, video.fps, False, False, False, None, items(), skipped,
        video.expected, lambda: video.lost, lambda: "".join(faults),
    )  # fmt: skip


def _dive(path: Path, wanted: str | None) -> Recording:
    dive = Dive(path)
    try:
        return _source(dive, *choose_camera(dive, wanted))
    except BaseException:
        dive.close()
        raise


def _source(dive: Dive, camera: str, choice: str) -> Recording:
    has = dive.readable
    if camera or "vehicle" not in has or dive.foreign:  # a log alone still has loops to run
        must_show(dive, camera)
    imported = IMPORTED in dive.metadata  # what an autopilot put out is no tick of ours, and nothing to compare with
    first = None if imported else next(dive.messages(["thrusters"]), None)
    start = first.data if first and isinstance(first.data, ThrusterCommand) else None
    skipped: list[str] = []
    check = ContentCheck()

    def items() -> Iterator[Item]:
        with dive:
            for item in decode_pictures(dive, camera, skipped):
                if isinstance(item, TimedFrame):
                    check.add(item.image)
                elif imported and isinstance(item.data, ThrusterCommand):
                    continue
                yield item
        skipped.extend(dropped(dive) + dive.problems)

    pictures = has.get(camera, 0)
    return Recording(
        dive.path, pictures, rate_of(dive, pictures), "vehicle" in has, start is not None, "inputs" in has, start,
        items(), skipped, pictures, None, lambda: check.sentence(str(dive.path), pictures), (choice,) if choice else (),
        dive,
    )  # fmt: skip
