"""Writes a dive from a video and an autopilot's log: pictures, vehicle states, the pilot's commands.

H.264 and HEVC without B-frames are copied packet by packet; anything else becomes JPEG. Times are the log's: ns since
the autopilot booted.
"""

from __future__ import annotations

import heapq
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2

from rov.dives.dive import Dive, DiveError, DiveWriter
from rov.dives.durable_writer import sync_folder
from rov.errors import UserError
from rov.imports.logs import Log
from rov.media.films import Video
from rov.media.h264_decoder import copyable, packets
from rov.messages import Frame, Message


class ImportedDive(NamedTuple):
    """What was written into the dive."""

    pictures: int
    copied: str
    """h264 or h265 where packets were copied, "" where pictures became JPEG."""
    messages: dict[str, int]
    """By topic."""
    notes: list[str]
    """Sentences about what is odd or missing in the video."""


class _Entry(NamedTuple):
    """A write to be done in order of `t`."""

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
) -> ImportedDive:
    """Write the dive; the video begins `offset_s` after the log's first state. The file gets its name only once it is
    complete; until then, and after any failure, a file of that name stays unchanged. Raises UserError."""
    film = Video(video) if video else None
    start = start_of(log, offset_s, length_s(film)) if film else 0
    must_be_free(out, overwrite)
    format_ = copyable(video) if video else ""
    counts: Counter[str] = Counter()
    part = out.with_name(out.name + ".part")

    def picture(frame: Frame, data: bytes) -> None:
        dive.write("frame", frame)
        dive.picture(frame.t, data, frame.frame_id, format_ or "jpeg")
        counts["frame"] += 1
        progress()

    def message(topic: str, each: Message) -> None:
        dive.write(topic, each)
        counts[topic] += 1

    films = _film(film, start, format_, quality) if film else iter(())
    lines = heapq.merge(
        (_Entry(frame.t, partial(picture, frame, data)) for frame, data in films),
        *(
            [_Entry(each.t, partial(message, topic, each)) for each in messages]
            for topic, messages in log.topics.items()
        ),
        key=lambda line: line.t,
    )
    dive = DiveWriter(part, metadata | log.about, overwrite=True)
    try:
        try:
            for line in lines:
                line.write()
        finally:
            dive.close()
        if film and not counts["frame"]:
            raise UserError(f"{video}: none of its pictures can be read")
        os.replace(part, out)
        sync_folder(out.parent)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    notes = _missing(film, counts["frame"]) if film and format_ else film.notes if film else []
    return ImportedDive(counts.pop("frame", 0), format_, dict(counts), notes)


def start_of(log: Log, offset_s: float, film_s: float) -> int:
    """When the video begins in the dive, ns. Raises UserError when it would not overlap the log."""
    first, last = log.states[0].t, log.states[-1].t
    begins = (first + offset_s * 1e9) / 1e9
    if not math.isfinite(offset_s) or begins < 0:
        raise UserError(
            f"--offset {offset_s:g}: the film would begin {-begins:.1f} s before the autopilot booted, where the dive's"
            " time begins; cut that much off the film's beginning, or say a later --offset"
        )
    if not -film_s - 1 <= offset_s <= (last - first) / 1e9 + 1:
        raise UserError(
            f"--offset {offset_s:g}: the film lasts {film_s:.1f} s and the log {(last - first) / 1e9:.1f} s, so they"
            " would share nothing; say how many seconds after the log's first attitude the film begins"
        )
    return first + round(offset_s * 1e9)


def length_s(film: Video) -> float:
    """Length of a video in s, by what it declares."""
    return max(film.length_s, film.expected / film.fps)


def must_be_free(out: Path, overwrite: bool) -> None:
    """Raises UserError unless a dive may be written under this name."""
    if out.suffix.lower() != ".mcap":
        raise UserError(f"{out}: a dive is a file that ends in .mcap")
    if not out.parent.is_dir():
        raise UserError(f"{out}: there is no folder {out.parent}")
    if out.is_dir():
        raise UserError(f"{out}: is a directory")
    if not out.exists():
        return
    if not overwrite:
        raise UserError(f"{out}: is there already; --force replaces it")
    try:
        with Dive(out) as dive:
            recording = dive.file.locked
    except DiveError:
        return  # not a dive, or no longer one: nothing is lost
    if recording:
        raise UserError(f"{out}: is being recorded now; choose another name")


def _missing(film: Video, copied: int) -> list[str]:
    """The notes on a video whose packets were copied."""
    if copied >= film.declared:
        return film.remarks
    return [
        *film.remarks,
        f"{film.declared - copied} of the {film.declared} pictures that the file promises are missing",
    ]


def _film(video: Video, start: int, format_: str, quality: int) -> Iterator[tuple[Frame, bytes]]:
    """Each picture of a video, compressed, with its `frame` message at its time in the dive."""
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
