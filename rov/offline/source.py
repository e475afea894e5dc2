"""Opens a recording to replay: a dive or a plain video, as one stream of pictures and messages in recorded order."""

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
"""Metadata key of a dive that `rov import` made of an autopilot's log."""


class Recording(NamedTuple):
    """An opened recording."""

    path: Path
    frames: int
    """Pictures it declares; 0 where it does not."""
    fps: float
    has_vehicle: bool
    """Whether it holds vehicle states. A plain video has none, so its state is never stale."""
    has_ticks: bool
    """Whether it records the pilot's steps; else the pilot steps at its own rate on recorded time."""
    has_inputs: bool
    """Whether it records when the processes consumed their inputs; else they consume each at once."""
    start: ThrusterCommand | None
    """The pilot's first thruster command, which shows its state when the dive began."""
    items: Iterator[Item]
    skipped: list[str]
    """Sentences about what could not be read; complete once `items` is exhausted."""
    expected: int = 0
    """Expected pictures, guessed where not declared; for a progress bar."""
    lost: Callable[[], int] | None = None
    """How many pictures were lost, once `items` is exhausted; None: those of `frames` that did not come."""
    fault: Callable[[], str] = str
    """Why the pictures show nothing, as a sentence, once `items` is exhausted; "" when they do show something."""
    notes: tuple[str, ...] = ()
    """Sentences about choices made, such as which camera."""
    dive: Dive | None = None
    """The opened dive; None for a video."""

    def close(self) -> None:
        """Close the file; only needed where `items` was not exhausted."""
        if self.dive is not None:
            self.dive.close()


def open_recording(path: Path, camera: str | None = None) -> Recording:
    """Open a dive (`.mcap`) or a video; `camera` is a topic of a dive. Raises UserError, also when none of its pictures
    can be decoded."""
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
    if camera or "vehicle" not in has or dive.foreign:  # a log without video still exercises the pilot
        must_show(dive, camera)
    imported = IMPORTED in dive.metadata  # an autopilot's outputs are no steps of our pilot
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
