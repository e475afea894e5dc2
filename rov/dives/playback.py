"""Plays a dive: the decoded pictures of one camera and the messages, in order of time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rov.dives.dive import TYPES, Dive, DiveError, Record
from rov.dives.pictures import EncodedPicture
from rov.dives.pixels import decoded
from rov.media.files import TimedFrame
from rov.media.h264_decoder import FORMATS, VideoDecoder
from rov.messages import Frame
from rov.types import Image

CAMERA = "camera"
"""The topic of the pictures that rov records."""
ADVANCE_NS = 1_000_000
"""A picture no newer than the one before is played this much later, because time must advance."""
REASONS = 5
"""How many reasons for undecodable pictures are reported."""
DROPPED_MAX = 10
"""How many kinds of dropped messages are reported."""


def choose_camera(dive: Dive, wanted: str | None = None) -> tuple[str, str]:
    """(the topic whose pictures are played, or "" where there are none; a sentence where there were several). `wanted`
    names a topic. Raises DiveError when it has no pictures."""
    cameras = {topic: count for topic, count in dive.cameras.items() if count}
    if wanted is not None and wanted not in cameras:
        raise DiveError(f"{dive.path}: no pictures on the topic {wanted}; {listed(dive)}")
    if not cameras:
        return "", ""
    most = max(cameras, key=lambda topic: (topic == CAMERA, cameras[topic]))
    chosen = wanted or most
    others = ", ".join(f"{topic} ({count})" for topic, count in cameras.items() if topic != chosen)
    note = f"the pictures of {chosen} ({cameras[chosen]}) were taken, not those of {others}; --camera TOPIC chooses"
    return chosen, note if others and not wanted else ""


def listed(dive: Dive) -> str:
    """What the dive holds instead of the pictures wanted, as part of a sentence."""
    if cameras := ", ".join(f"{topic} ({count})" for topic, count in dive.cameras.items() if count):
        return f"there are those of {cameras}"
    if foreign := dive.foreign:
        return "; ".join(foreign)
    topics = list(dive.counts)
    more = f" and {len(topics) - 8} more" if len(topics) > 8 else ""
    return f"it has {', '.join(topics[:8]) or 'nothing'}{more}"


def decode_pictures(
    dive: Dive, camera: str, skipped: list[str], *, alone: bool = False
) -> Iterator[TimedFrame | Record]:
    """The dive's messages (none if `alone`) and the pictures of one camera, each with the frame id of its `frame`
    message. Sentences on what could not be decoded are added to `skipped`, the last of them at the end."""
    player = DivePlayer(dive, skipped)
    for record in dive.messages({camera} if alone else {*TYPES, camera}):
        if isinstance(record.data, EncodedPicture):
            if record.topic == camera:
                yield from player.shots(record, record.data)
            continue
        if isinstance(record.data, Frame):
            player.frame_ids[record.data.frame_t] = record.data.frame_id
        yield record
    yield from player.end()


class DivePictures:
    """Only the pictures of a dive, with the interface of `media.films.Video`. Opening it decodes the first picture."""

    def __init__(self, path: Path, camera: str | None = None):
        """`camera`: a topic, where the dive has several. Raises DiveError when no picture can be decoded."""
        self.path = path
        self.notes: list[str] = []
        """Sentences about what is odd or missing; complete once all pictures were read."""
        with Dive(path) as dive:
            self.camera, self.choice = choose_camera(dive, camera)
            must_show(dive, self.camera)
            self.promised = self.expected = dive.cameras[self.camera]
            self.fps = rate_of(dive, self.promised)

    def shots(self) -> Iterator[TimedFrame]:
        """Every picture that can be decoded; times are ns since the first one, and only grow."""
        self.notes = [self.choice] if self.choice else []
        start: int | None = None
        with Dive(self.path) as dive:
            for item in decode_pictures(dive, self.camera, self.notes, alone=True):
                if isinstance(item, TimedFrame):
                    start = item.t if start is None else start
                    yield item._replace(t=item.t - start)
            self.notes += dropped(dive) + dive.problems

    pictures = shots


def rate_of(dive: Dive, pictures: int) -> float:
    """Pictures a second; 25 where there are none."""
    return min(max(pictures / max(dive.duration_s, 1e-3), 0.1), 1000.0) if pictures else 25.0


def dropped(dive: Dive) -> list[str]:
    """What could not be decoded the last time the dive was played, one sentence each."""
    kinds = dive.dropped.most_common()
    more = sum(number for _, number in kinds[DROPPED_MAX:])
    found = [f"{number} messages dropped: {why}" for why, number in kinds[:DROPPED_MAX]]
    return [*found, f"{more} messages dropped for other reasons"] if more else found


def must_show(dive: Dive, camera: str) -> None:
    """Raises DiveError unless a first picture can be decoded."""
    skipped: list[str] = []
    if not camera or not any(
        isinstance(item, TimedFrame) for item in decode_pictures(dive, camera, skipped, alone=True)
    ):
        raise DiveError(nothing(dive, camera, skipped))


def nothing(dive: Dive, camera: str, skipped: list[str]) -> str:
    """Why there is no picture, in one sentence."""
    if not camera:
        return f"{dive.path}: no pictures in it that can be read: {listed(dive)}"
    why = [*skipped[:3], *(f"{count} dropped, {reason}" for reason, count in dive.dropped.most_common(3))]
    return f"{dive.path}: none of the {dive.cameras[camera]} pictures of {camera} can be read: {'; '.join(why)}"


class DivePlayer:
    """Decodes a dive's pictures in the order they are read."""

    def __init__(self, dive: Dive, skipped: list[str]):
        self.ours, self.skipped = dive.ours, skipped
        self.frame_ids: dict[int, int] = {}
        self.numbers: dict[int, int] = {}
        self.count = self.packets = self.unpacked = self.moved = 0
        self.last_t = -1
        self.failed: dict[str, list[int]] = {}
        """Times of the pictures that could not be decoded, by reason."""
        self.decoders: dict[str, VideoDecoder] = {}

    def shots(self, record: Record, picture: EncodedPicture) -> Iterator[TimedFrame]:
        """The frames that this picture or packet completes."""
        number = record.number if self.ours else 0
        t = self._advanced(picture.t)
        if picture.format in FORMATS:
            if picture.format not in self.decoders:
                self.decoders[picture.format] = VideoDecoder(picture.format)
            self.packets += 1
            self.numbers[t] = number
            yield from self._shown(self.decoders[picture.format].decode(t, picture.data))
            return
        image = decoded(picture)
        if isinstance(image, str):
            self.failed.setdefault(image, []).append(record.t)
            return
        yield self._shot(t, image, number, picture.data if picture.format == "jpeg" else None)

    def end(self) -> Iterator[TimedFrame]:
        """The frames the decoders still hold. Adds the totals to `skipped`."""
        for decoder in self.decoders.values():
            yield from self._shown(decoder.flush())
        for why, times in sorted(self.failed.items(), key=lambda each: -len(each[1]))[:REASONS]:
            which = f"{len(times)} pictures, the first at" if len(times) > 1 else "the picture at"
            self.skipped.append(f"{which} {times[0] / 1e9:.3f} s, cannot be decoded: {why}")
        if lost := self.packets - self.unpacked:
            self.skipped.append(f"{lost} of {self.packets} video packets gave no picture: lost, or before a key frame")
        if self.moved:
            each = f"each was taken as {ADVANCE_NS / 1e6:g} ms newer"
            self.skipped.append(f"{self.moved} pictures are no newer than the one before; {each}")

    def _shown(self, found: list[tuple[int, Image]]) -> Iterator[TimedFrame]:
        for t, image in found:
            self.unpacked += 1
            yield self._shot(t, image, self.numbers.pop(t, 0), None)

    def _shot(self, t: int, image: Image, number: int, jpeg: bytes | None) -> TimedFrame:
        shot = TimedFrame(self.frame_ids.pop(t, number or self.count), t, image, jpeg)
        self.count += 1
        return shot

    def _advanced(self, t: int) -> int:
        """`t`, or ADVANCE_NS after the last time where `t` is not later."""
        if t <= self.last_t:
            self.moved += 1
            t = self.last_t + ADVANCE_NS
        self.last_t = t
        return t
