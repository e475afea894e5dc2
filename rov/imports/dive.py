"""A video and an autopilot's log become one dive: its pictures, the vehicle's state, what the pilot commanded.

H.264 and HEVC without B-frames are copied packet by packet; anything else becomes JPEG. The dive's time is the log's:
ns since the autopilot booted.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2

from rov.dives.dive import DiveWriter
from rov.dives.video import copyable, packets
from rov.errors import UserError
from rov.imports.logs import Log
from rov.media.check import WorthlessError
from rov.media.films import Video
from rov.messages import AnyCommand, Frame, VehicleState


class Imported(NamedTuple):
    """What went into the dive."""

    pictures: int
    copied: str
    """h264 or h265 where packets were copied, "" where pictures became JPEG."""
    states: int
    commands: int


class _Line(NamedTuple):
    """Something to write at a time."""

    t: int
    write: Callable[[], None]


def write(
    out: Path,
    log: Log,
    video: Path | None,
    offset_s: float,
    metadata: dict[str, str],
    *,
    quality: int,
    overwrite: bool = False,
    progress: Callable[[], None] = lambda: None,
    note: Callable[[str], None] = lambda sentence: None,
) -> Imported:
    """Write the dive; the video begins `offset_s` after the log's first state. `note` hears what is odd in the video or
    missing. Raises UserError; no dive is left when the video shows nothing."""
    format_ = copyable(video) if video else ""
    film = Video(video) if video else None
    counts = [0, 0, 0]
    dive = DiveWriter(out, metadata, overwrite=overwrite)

    def picture(frame: Frame, data: bytes) -> None:
        dive.write("frame", frame)
        dive.picture(frame.t, data, frame.frame_id, format_ or "jpeg")
        counts[0] += 1
        progress()

    def message(topic: str, each: VehicleState | AnyCommand) -> None:
        dive.write(topic, each)
        counts[1 if topic == "vehicle" else 2] += 1

    start = log.states[0].t + round(offset_s * 1e9)
    if video and start < 0:
        raise UserError(f"--offset {offset_s:g}: the video would begin before the autopilot booted")
    films = _film(film, start, format_, quality) if film else iter(())
    lines = heapq.merge(
        (_Line(frame.t, partial(picture, frame, data)) for frame, data in films),
        (_Line(each.t, partial(message, "vehicle", each)) for each in log.states),
        (_Line(each.t, partial(message, "commands", each)) for each in log.commands),
        key=lambda line: line.t,
    )
    try:
        for line in lines:
            line.write()
    except WorthlessError:
        dive.close()
        out.unlink()
        raise
    finally:
        dive.close()
    for sentence in (_missing(film, counts[0]) if format_ else film.notes) if film else ():
        note(sentence)
    return Imported(counts[0], format_, counts[1], counts[2])


def _missing(film: Video, copied: int) -> list[str]:
    """The same where its packets were copied."""
    if copied >= film.declared:
        return film.said
    return [*film.said, f"{film.declared - copied} of the {film.declared} pictures that the file promises are missing"]


def _film(video: Video, start: int, format_: str, quality: int) -> Iterator[tuple[Frame, bytes]]:
    """Each picture of a video, compressed, under its time in the dive."""
    if format_:
        width, height = video.width, video.height
        for number, packet in enumerate(packets(video.path)):
            t = start + packet.t
            yield Frame(t=t, frame_id=number, frame_t=t, width=width, height=height), packet.data
        return
    for shot in video.shots():
        t = start + shot.t
        height, width = shot.image.shape[:2]
        jpeg = cv2.imencode(".jpg", shot.image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
        yield Frame(t=t, frame_id=shot.frame_id, frame_t=t, width=width, height=height), jpeg
