"""Video files, read with PyAV: every picture that a player would show, upright, with its exact time.

Hidden pictures (an edit list's lead-in, a cover) are left out; pictures that cannot be decoded are counted.
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
from rov.media.stamps import NOTES_MAX, Stamps
from rov.types import Image

Container: TypeAlias = av.container.InputContainer
Packet: TypeAlias = "av.Packet[Any]"

LIMITS = {"protocol_whitelist": "file", "max_pixels": str(PIXELS_MAX)}
"""A video may not open other files or addresses, nor ask for more memory than a picture needs."""
ANY_TEXT: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
"""For `av.open`: accept titles that are not valid text. PyAV 19 always does, and has dropped this option."""
READ_FAILURES_MAX = 16
"""Retries after unreadable data in the container; then the rest of the file is given up."""
STRICT = {"mjpeg": {"err_detect": "explode"}}
"""Decoders that would fill missing parts with grey: these options make them refuse. Other codecs predict from earlier
pictures, and fill a gap with those."""
CUT_OFF_SHARE = 0.9
"""A video that ends before this share of the length in its header was cut off."""


class Video:
    """A video file. Opening it decodes its first picture. Its pictures can be read once."""

    def __init__(self, path: Path):
        """Raises UserError when it is not a video, or none of its pictures can be decoded."""
        must_be_file(path)
        self.path = path
        self.remarks: list[str] = []
        self.shown = self.undecodable = self.damaged = self.last_t = 0
        self.packets = self.lead_in = 0
        """Packets read, and those of them before the first key frame."""
        self.fielded = False
        self.container, self.stream = opened(path, self.remarks)
        rate = self.stream.guessed_rate or self.stream.average_rate
        self.fps = float(rate) if rate and 0.1 < rate < 1000 else 25.0
        self.length_s = (self.container.duration or 0) / 1e6 if len(self.container.streams) == 1 else 0.0
        self.declared = counted(self.container, self.stream)
        """Number of pictures that the container says it shows; 0 when it does not say."""
        self.expected = self.declared or self.stream.frames or round(self.length_s * self.fps)
        """`declared`, or a guess from length and rate: for a progress bar."""
        self.frames = self.stream.frames
        """Number of frames in the header."""
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
        """Every picture that can be decoded; times are ns from the video's start, strictly increasing. Raises
        WorthlessError after the last one when they show nothing."""
        check = ContentCheck()
        for shot in self.pictures():
            check.add(shot.image)
            yield shot
        check.finish(str(self.path), self.promised)

    def pictures(self) -> Iterator[TimedFrame]:
        """As `shots`, without that check: for a video used as a camera, which may show anything."""
        before = self.first.shape
        for number, (t, image) in enumerate(self.stamps.steady(chain([self.held], self.coming))):
            if image.shape != before:
                self.remarks.append(f"its pictures are {image.shape[1]}×{image.shape[0]} from {t / 1e9:.1f} s on")
                before = image.shape
            self.shown, self.last_t = number + 1, t
            yield TimedFrame(number, t, image)
        self.container.close()

    @property
    def promised(self) -> int:
        """Number of pictures expected: as the container counts them, else those shown plus those not decodable. Where
        a picture is stored as two fields, the container may have counted fields."""
        if self.declared and not (self.fielded and self.packets >= self.declared):
            return self.declared
        return self.shown + self.undecodable

    @property
    def lost(self) -> int:
        """How many of the promised pictures are missing. Known once all were read."""
        return max(0, self.promised - self.shown)

    @property
    def notes(self) -> list[str]:
        """Sentences about oddities and gaps. Complete once all pictures were read."""
        notes = [*self.remarks[:NOTES_MAX], *self.stamps.notes]
        if len(self.remarks) > NOTES_MAX:
            notes.append(f"its picture size changes {len(self.remarks) - NOTES_MAX} more times")
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
        """A note when a file that does not count its pictures ends before its header says; else ""."""
        if self.frames > self.shown + self.undecodable:  # an AVI without its index
            return f"it is cut off: {self.shown} of the {self.frames} pictures that its header names are in it"
        end = (self.last_t + self.stamps.step) / 1e9
        if self.length_s - end > 2.0 and end < CUT_OFF_SHARE * self.length_s:
            return f"it is cut off: it ends at {end:.1f} s of the {self.length_s:.1f} s that its header names"
        return ""

    def _decoded(self) -> Iterator[tuple[int | None, Image]]:
        """(ns from the video's start, or None; picture), as they come out of the decoder."""
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
        """The stream's packets, without empty ones."""
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


def opened(path: Path, remarks: list[str]) -> tuple[Container, VideoStream]:
    """Open a video file: its container and its main video stream. Oddities are appended to `remarks`. Raises
    UserError."""
    try:
        # "file:", because FFmpeg takes a name with a colon for a protocol
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
        number = films.index(film) + 1
        remarks.append(f"it holds {len(films)} videos; number {number} ({film.width}×{film.height}) is read")
    ratio = film.sample_aspect_ratio
    if ratio and ratio != 1:
        remarks.append(f"its pixels are not square ({ratio.numerator}:{ratio.denominator}); pictures are as stored")
    return container, film


def counted(container: Container, film: VideoStream) -> int:
    """How many pictures a video shows, where its container counts them (MP4, MOV; AVI with an index); else 0. Pictures
    hidden by an edit list do not count."""
    if not film.frames or not {"mov", "avi"} & set(container.format.name.split(",")):
        return 0
    entries = list(film.index_entries)
    if "avi" in container.format.name and len(entries) < film.frames:  # no index: only what FFmpeg has read so far
        return 0
    return sum(1 for entry in entries if entry.size and not entry.is_discard)
