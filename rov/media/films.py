"""Films from files, by PyAV: every picture that is meant to be shown, as it is meant to be seen, with its exact time.

What the file hides (an edit list's lead-in, a cover) is not shown; what cannot be decoded is counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

import av
from av.error import FFmpegError
from av.stream import Disposition
from av.video.stream import VideoStream

from rov.errors import UserError
from rov.media.check import ContentCheck
from rov.media.convert import Converter
from rov.media.files import PIXELS_MAX, TimedFrame, must_be_file
from rov.media.stamps import SAID_MAX, Stamps
from rov.types import Image

Container: TypeAlias = av.container.InputContainer
Packet: TypeAlias = "av.Packet[Any]"

LIMITS = {"protocol_whitelist": "file", "max_pixels": str(PIXELS_MAX)}
"""A film may not fetch anything from elsewhere, nor ask for more memory than a picture needs."""
ANY_TEXT: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
"""For `av.open`: titles and the like need not be text. From 19 on PyAV takes anything, and this option no longer."""
READ_FAILURES_MAX = 16
"""So often reading is tried again after the container made no sense; then the rest is given up."""
STRICT = {"mjpeg": {"err_detect": "explode"}}
"""Decoders that fill what is missing with grey unless they are told to refuse it. Pictures of the others build on each
other: what is lost there is replaced by what was seen before."""
SHORT = 0.9
"""A film that ends before this share of the length that its header names was cut off."""


class Video:
    """A video file. Opened means: its first picture was decoded. Its pictures can be read once."""

    def __init__(self, path: Path):
        """Raises UserError when it is no video, or none that can be decoded."""
        must_be_file(path)
        self.path = path
        self.said: list[str] = []
        self.shown = self.undecodable = self.damaged = self.last_t = 0
        self.packets = self.lead_in = 0
        """Packets that were read, and those before the first key frame."""
        self.fielded = False
        self.container, self.stream = opened(path, self.said)
        rate = self.stream.guessed_rate or self.stream.average_rate
        self.fps = float(rate) if rate and 0.1 < rate < 1000 else 25.0
        self.length_s = (self.container.duration or 0) / 1e6 if len(self.container.streams) == 1 else 0.0
        self.declared = counted(self.container, self.stream)
        """Pictures to be shown, where the container counts them; else 0."""
        self.expected = self.declared or self.stream.frames or round(self.length_s * self.fps)
        """The same, or a guess from length and rate: for a progress bar."""
        self.frames = self.stream.frames
        """As the header says."""
        self.stamps = Stamps(round(1e9 / self.fps))
        self.convert = Converter()
        self.coming = self._decoded()
        held = next(self.coming, None)
        if held is None:
            raise UserError(f"{path}: cannot be read as a video: none of its pictures can be decoded")
        self.held = held
        self.first: Image = held[1]
        self.height, self.width = self.first.shape[:2]

    def shots(self) -> Iterator[TimedFrame]:
        """Every picture that can be decoded; times are ns from the film's start, and advance. Raises WorthlessError
        after the last one when they say nothing."""
        check = ContentCheck()
        for shot in self.pictures():
            check.add(shot.image)
            yield shot
        check.finish(str(self.path), self.promised)

    def pictures(self) -> Iterator[TimedFrame]:
        """The same without that check: for a camera made of a film, which may show anything."""
        before = self.first.shape
        for number, (t, image) in enumerate(self.stamps.steady(chain([self.held], self.coming))):
            if image.shape != before:
                self.said.append(f"its pictures are {image.shape[1]}×{image.shape[0]} from {t / 1e9:.1f} s on")
                before = image.shape
            self.shown, self.last_t = number + 1, t
            yield TimedFrame(number, t, image)
        self.container.close()

    @property
    def promised(self) -> int:
        """Pictures that were to come: as the container counts them, else those that came or could not be decoded.
        Where a picture is stored as two fields, the container may have counted fields."""
        if self.declared and not (self.fielded and self.packets >= self.declared):
            return self.declared
        return self.shown + self.undecodable

    @property
    def lost(self) -> int:
        """How many of them did not come. Known once all were read."""
        return max(0, self.promised - self.shown)

    @property
    def notes(self) -> list[str]:
        """Sentences about what is odd or missing. Complete once all pictures were read."""
        notes = [*self.said[:SAID_MAX], *self.stamps.notes]
        if len(self.said) > SAID_MAX:
            notes.append(f"its picture size changes {len(self.said) - SAID_MAX} more times")
        if self.lost:
            notes.append(f"{self.lost} of the {self.promised} frames that the file promises are not in it")
        elif self.lead_in and self.shown + self.lead_in <= self.packets:
            notes.append(f"its {self.lead_in} pictures before the first key frame cannot be shown")
        if self.damaged:
            notes.append(f"{self.damaged} of its pictures are damaged; they are shown as far as they go")
        if not self.declared and not self.stamps.notes and (cut := self._cut_off()):
            notes.append(cut)
        return notes

    def _cut_off(self) -> str:
        """What to say when a file that does not count its pictures ends before its header says."""
        if self.frames > self.shown + self.undecodable:  # an AVI without its index
            return f"it is cut off: {self.shown} of the {self.frames} pictures that its header names are in it"
        end = (self.last_t + self.stamps.step) / 1e9
        if self.length_s - end > 2.0 and end < SHORT * self.length_s:
            return f"it is cut off: it ends at {end:.1f} s of the {self.length_s:.1f} s that its header names"
        return ""

    def _decoded(self) -> Iterator[tuple[int | None, Image]]:
        """(ns from the film's start, or None; picture), as they come out of the decoder."""
        start, base = self.stream.start_time, self.stream.time_base
        for number, frame in enumerate(self._frames()):
            try:
                image = self.convert(frame)
            except FFmpegError:
                self.undecodable += 1
                continue
            self.fielded |= frame.interlaced_frame
            self.damaged += frame.is_corrupt
            pts = frame.pts if frame.pts is not None else frame.dts
            if pts is None or base is None:
                yield None, image
                continue
            start = pts if start is None or (number == 0 and pts < start) else start
            yield (pts - start) * base.numerator * 1_000_000_000 // base.denominator, image

    def _frames(self) -> Iterator[av.VideoFrame]:
        codec = self.stream.codec_context
        codec.options = {"max_pixels": LIMITS["max_pixels"], **STRICT.get(codec.name, {})}
        codec.thread_type = "AUTO"
        for packet in chain(self._readable(), [None]):
            try:
                yield from codec.decode(packet)
            except FFmpegError:
                self.undecodable += packet is not None

    def _readable(self) -> Iterator[Packet]:
        """The stream's packets, without those that hold nothing."""
        failures, key = 0, False
        demuxed = self.container.demux(self.stream)
        while failures < READ_FAILURES_MAX:
            try:
                packet = next(demuxed, None)
            except FFmpegError:
                failures += 1
                demuxed = self.container.demux(self.stream)
                continue
            if packet is None:
                return
            if packet.size:
                key |= packet.is_keyframe
                self.lead_in += not key
                self.packets += not packet.is_discard
                yield packet


def opened(path: Path, said: list[str]) -> tuple[Container, VideoStream]:
    """A film's container, and the stream in it that is the film; what is odd about them is `said`. Raises UserError."""
    try:
        # "file:": else a colon in the name would be a protocol
        container = av.open(f"file:{path}", options=LIMITS, **ANY_TEXT)
    except FFmpegError:
        raise UserError(
            f"{path}: cannot be read as a video: not one, cut off before its index, or of unknown codec"
        ) from None
    covers = Disposition.attached_pic | Disposition.timed_thumbnails
    films = [each for each in container.streams.video if not each.disposition & covers and each.codec_context]
    if not films:
        what = "only a cover" if container.streams.video else "no pictures" if container.streams else "nothing"
        raise UserError(f"{path}: cannot be read as a video: there is {what} in it")
    best = container.streams.best("video")
    film = best if best in films else films[0]
    assert isinstance(film, VideoStream)
    if len(films) > 1:
        said.append(f"it holds {len(films)} films; number {films.index(film) + 1} ({film.width}×{film.height}) is read")
    ratio = film.sample_aspect_ratio
    if ratio and ratio != 1:
        said.append(f"its pixels are not square ({ratio.numerator}:{ratio.denominator}); pictures are as stored")
    return container, film


def counted(container: Container, film: VideoStream) -> int:
    """How many pictures a film shows, where its container counts them (MP4, MOV; AVI with an index); else 0. Those that
    an edit list hides are not shown."""
    if not film.frames or not {"mov", "avi"} & set(container.format.name.split(",")):
        return 0
    entries = list(film.index_entries)
    if "avi" in container.format.name and len(entries) < film.frames:  # no index: these were met on the way
        return 0
    return sum(1 for entry in entries if entry.size and not entry.is_discard)
