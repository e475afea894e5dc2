"""A dive played: the pictures of one camera, decoded, among its messages, in the order of time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rov.dives.dive import TYPES, Dive, DiveError, Picture, Record
from rov.dives.pixels import decoded
from rov.dives.video import FORMATS, VideoDecoder
from rov.media.files import Image, Shot
from rov.messages import Frame

CAMERA = "camera"
"""The topic of our own pictures."""
ADVANCE_NS = 1_000_000
"""A picture that is no newer than the one before it is taken to be so much newer: time must go on."""
REASONS = 5
"""So many reasons are told why pictures cannot be decoded."""


def choose_camera(dive: Dive, wanted: str | None = None) -> tuple[str, str]:
    """(the topic whose pictures are played, or "" where there are none; a sentence where there was a choice). `wanted`
    names one. Raises DiveError when that is not there."""
    cameras = {topic: count for topic, count in dive.cameras.items() if count}
    if wanted is not None and wanted not in cameras:
        raise DiveError(f"{dive.path}: no pictures on the topic {wanted}; {listed(dive)}")
    if not cameras:
        return "", ""
    most = max(cameras, key=lambda topic: (topic == CAMERA, cameras[topic]))
    chosen = wanted or most
    others = ", ".join(f"{topic} ({count})" for topic, count in cameras.items() if topic != chosen)
    said = f"the pictures of {chosen} ({cameras[chosen]}) were taken, not those of {others}; --camera TOPIC chooses"
    return chosen, said if others and not wanted else ""


def listed(dive: Dive) -> str:
    """What there is instead of the pictures that were looked for, as a part of a sentence."""
    if cameras := ", ".join(f"{topic} ({count})" for topic, count in dive.cameras.items() if count):
        return f"there are those of {cameras}"
    if foreign := dive.foreign:
        return "; ".join(foreign)
    topics = list(dive.counts)
    more = f" and {len(topics) - 8} more" if len(topics) > 8 else ""
    return f"it has {', '.join(topics[:8]) or 'nothing'}{more}"


def played(dive: Dive, camera: str, skipped: list[str]) -> Iterator[Shot | Record]:
    """Our messages as they are, and the pictures of one camera, each under the id that its `frame` message gave it.
    `skipped` gets a sentence for what could not be decoded; it is complete at the end."""
    player = Player(dive, skipped)
    for record in dive.messages({*TYPES, camera}):
        if isinstance(record.data, Picture):
            if record.topic == camera:
                yield from player.shots(record, record.data)
            continue
        if isinstance(record.data, Frame):
            player.frame_ids[record.data.frame_t] = record.data.frame_id
        yield record
    yield from player.end()


def shots(path: Path, camera: str | None = None) -> Iterator[Shot]:
    """The pictures of a dive alone. Raises DiveError when there are none."""
    with Dive(path) as dive:
        topic, _ = choose_camera(dive, camera)
        skipped: list[str] = []
        count = 0
        for item in played(dive, topic, skipped):
            if isinstance(item, Shot):
                count += 1
                yield item
        if not count:
            raise DiveError(nothing(dive, topic, skipped))


def nothing(dive: Dive, camera: str, skipped: list[str]) -> str:
    """Why there is no picture, in one sentence."""
    if not camera:
        return f"{dive.path}: no pictures in it that can be read: {listed(dive)}"
    why = [*skipped[:3], *(f"{count} dropped, {reason}" for reason, count in dive.dropped.most_common(3))]
    return f"{dive.path}: none of the {dive.cameras[camera]} pictures of {camera} can be read: {'; '.join(why)}"


class Player:
    """Decodes pictures as they come."""

    def __init__(self, dive: Dive, skipped: list[str]):
        self.ours, self.skipped = dive.ours, skipped
        self.frame_ids: dict[int, int] = {}
        self.numbers: dict[int, int] = {}
        self.count = self.packets = self.unpacked = self.moved = 0
        self.last_t = -1
        self.failed: dict[str, list[int]] = {}
        """Times of the pictures that could not be decoded, by reason."""
        self.decoders: dict[str, VideoDecoder] = {}

    def shots(self, record: Record, picture: Picture) -> Iterator[Shot]:
        """What this picture, or packet, completes."""
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

    def end(self) -> Iterator[Shot]:
        """What was held back, and the sentences that only the end can say."""
        for decoder in self.decoders.values():
            yield from self._shown(decoder.flush())
        for why, times in sorted(self.failed.items(), key=lambda each: -len(each[1]))[:REASONS]:
            which = f"{len(times)} pictures, the first at" if len(times) > 1 else "the picture at"
            self.skipped.append(f"{which} {times[0] / 1e9:.3f} s, cannot be decoded: {why}")
        if lost := self.packets - self.unpacked:
            self.skipped.append(f"{lost} of {self.packets} video packets gave no picture: lost, or before a key frame")
        if self.moved:
            self.skipped.append(
                f"{self.moved} pictures are no newer than the one before; each was taken as {ADVANCE_NS / 1e6:g} ms newer"
            )

    def _shown(self, found: list[tuple[int, Image]]) -> Iterator[Shot]:
        for t, image in found:
            self.unpacked += 1
            yield self._shot(t, image, self.numbers.pop(t, 0), None)

    def _shot(self, t: int, image: Image, number: int, jpeg: bytes | None) -> Shot:
        shot = Shot(self.frame_ids.pop(t, number or self.count), t, image, jpeg)
        self.count += 1
        return shot

    def _advanced(self, t: int) -> int:
        """The time itself while it advances."""
        if t <= self.last_t:
            self.moved += 1
            t = self.last_t + ADVANCE_NS
        self.last_t = t
        return t
