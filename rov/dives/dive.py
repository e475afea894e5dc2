"""Writes and reads a dive: the pictures and messages of one run in an MCAP file that Foxglove opens.

Each topic of `messages.TOPICS` is JSON with its schema, logged at its `t`. Pictures are `foxglove.CompressedImage` or
`foxglove.CompressedVideo` (one packet a message), logged at their capture time. `annotations` repeats the tracks for
drawing and `calibration` holds the lens; neither is read back. Times are ns. In recordings of other tools only the
pictures and MAVLink are read (`rov.dives.pictures`, `rov.dives.telemetry`).
"""

from __future__ import annotations

import hashlib
import os
import struct
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

import msgspec
from foxglove_schemas_protobuf.CameraCalibration_pb2 import CameraCalibration
from foxglove_schemas_protobuf.CompressedImage_pb2 import CompressedImage
from foxglove_schemas_protobuf.CompressedVideo_pb2 import CompressedVideo
from foxglove_schemas_protobuf.ImageAnnotations_pb2 import ImageAnnotations
from mcap.records import Attachment, Channel, Schema

from rov import json_messages
from rov.dives.durable_writer import DiveError as DiveError
from rov.dives.durable_writer import DurableWriter
from rov.dives.foxglove import camera_info, descriptors, drawing, json_schema
from rov.dives.pictures import UNREADABLE, EncodedPicture, kind_of, reader
from rov.dives.salvage import SalvageReader
from rov.dives.telemetry import RecordedVehicle, paces, system_of
from rov.messages import FORMER_TOPICS, SCHEMA_VERSION, TOPICS, AnyCommand, Message, Tracks
from rov.optics.lens import Calibration
from rov.version import __version__

if TYPE_CHECKING:
    from rov.media.files import TimedFrame

M = TypeVar("M", bound=Message)

CAMERA, ANNOTATIONS, CALIBRATION, VIDEO = "camera", "annotations", "calibration", "video"
METADATA = "rov"
"""Name of the metadata record that describes what made the dive."""

TYPES: dict[str, Any] = {topic: line.type for topic, line in TOPICS.items()} | {"commands": AnyCommand}
"""The type to decode for each topic; a command must be one of the union, since the base `Command` has no verb."""


class TopicDigest(msgspec.Struct, frozen=True):
    """Size and hash of a topic. Equal hashes mean the same times and bytes in the same order."""

    count: int
    sha256: str
    first_t: int
    last_t: int


class TopicTally:
    """A running TopicDigest."""

    def __init__(self) -> None:
        self.count, self.first_t, self.last_t = 0, 1 << 64, 0
        self._hash = hashlib.sha256()

    def add(self, t: int, data: bytes) -> None:
        self.count += 1
        self.first_t, self.last_t = min(t, self.first_t), max(t, self.last_t)
        self._hash.update(struct.pack("<QQ", t, len(data)))
        self._hash.update(data)

    def digest(self) -> TopicDigest:
        return TopicDigest(self.count, self._hash.hexdigest(), self.first_t, self.last_t)


class Record(NamedTuple):
    """One message or picture of a dive."""

    topic: str
    t: int
    data: Message | EncodedPicture
    number: int = 0
    """The sequence number in the file; for a picture, its frame id."""


class DiveWriter:
    """Records a dive, from one thread. Data written half a second ago survive `kill -9` and a power cut."""

    def __init__(
        self,
        path: Path,
        metadata: dict[str, str],
        *,
        attachments: Iterable[Attachment] = (),
        overwrite: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ):
        """`metadata` describes what made this dive: source, config_sha256, weights_sha256, … `attachments` are files to
        include (`rov.dives.origin`). `clock` (s) paces the flushes. Raises DiveError when the file exists or cannot be
        created."""
        self._file = DurableWriter(path, overwrite=overwrite, clock=clock)
        self._channels: dict[str, int] = {}
        self._tallies: defaultdict[str, TopicTally] = defaultdict(TopicTally)
        versions = {"schema_version": str(SCHEMA_VERSION), "rov_version": __version__}
        try:
            self._file.add_metadata(METADATA, versions | metadata)
            for attachment in attachments:
                self._file.add_attachment(attachment)
            self._file.flush()
        except DiveError:
            self._file.close()
            raise

    def __enter__(self) -> DiveWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def topics(self) -> dict[str, TopicDigest]:
        """Digests of what was written so far; `Dive.digests` of the finished file returns the same."""
        return {topic: tally.digest() for topic, tally in sorted(self._tallies.items())}

    def write(self, topic: str, message: Message) -> None:
        """Record one message, at its `t`. Raises DiveError when it cannot be written, TypeError for a wrong message."""
        if not isinstance(message, TOPICS[topic].type):
            raise TypeError(f"{topic} carries {TOPICS[topic].type.__name__}, not {type(message).__name__}")
        self._add(topic, message.t, json_messages.encode(message))

    def picture(
        self, frame_t: int, data: bytes, frame_id: int | None = None, form: Literal["jpeg", "h264", "h265"] = "jpeg"
    ) -> None:
        """Record one picture at its capture time; `h264`, `h265`: one picture in Annex B, from a stream without
        B-frames. A dive holds either JPEGs or packets of one format. Without `frame_id` pictures are numbered."""
        kind = CompressedImage if form == "jpeg" else CompressedVideo
        image = kind(frame_id=CAMERA, data=data, format=form)
        image.timestamp.FromNanoseconds(frame_t)
        schema = CAMERA if form == "jpeg" else VIDEO
        self._add(CAMERA, frame_t, image.SerializeToString(deterministic=True), schema=schema, number=frame_id)

    def annotations(self, tracks: Tracks) -> None:
        """Record the boxes of these tracks, which Foxglove draws on the picture taken at their `frame_t`."""
        self._add(ANNOTATIONS, tracks.t, drawing(tracks).SerializeToString(deterministic=True))

    def calibration(self, t: int, lens: Calibration) -> None:
        """Record the lens of the pictures from `t` on, so that one can measure in them."""
        self._add(CALIBRATION, t, camera_info(t, CAMERA, lens).SerializeToString(deterministic=True))

    @property
    def lost(self) -> str:
        """How the file was removed or cut while being written; "" when it was not."""
        return self._file.lost

    def tick(self) -> None:
        """Flush what is half a second old; call this at least every half second while nothing is written."""
        self._file.tick()

    def close(self) -> None:
        """Finish the file. Raises DiveError when it cannot be written; what is there can then be recovered."""
        self._file.close()

    def _add(self, topic: str, t: int, data: bytes, *, schema: str = "", number: int | None = None) -> None:
        """`number`: the sequence number, by default a count. `schema`: a schema other than the topic's own."""
        if topic not in self._channels:
            record = topic_schema(schema or topic)
            encoding = "protobuf" if record.encoding == "protobuf" else "json"
            self._channels[topic] = self._file.channel(topic, encoding, record)
        tally = self._tallies[topic]
        self._file.add(self._channels[topic], t, data, t, tally.count if number is None else number)
        tally.add(t, data)


class Dive:
    """A dive to read, even unfinished or damaged: everything intact is read, and `problems` names what is lost.

    with Dive("dive.mcap") as dive:
        deepest = max(state.depth for state in dive.read(VehicleState) if state.depth_t)
    """

    def __init__(self, path: str | os.PathLike[str]):
        """Raises DiveError when it is no MCAP file. An unfinished file is scanned once to list its contents."""
        self.path = Path(path)
        self.file = SalvageReader(self.path)
        self.metadata: dict[str, str] = {}
        for each in self.file.metadata:
            if each.name == METADATA:
                self.metadata |= each.metadata
        self.dropped: Counter[str] = Counter()
        """Messages that the last `messages` call could not decode, by topic and reason."""
        self.skipped: Counter[str] = Counter()
        """Messages of unknown topics that the last `messages` call passed over."""

    @staticmethod
    def create(path: str | os.PathLike[str], *, overwrite: bool = False, **metadata: str) -> DiveWriter:
        """A new dive to write: `with Dive.create("ctd.mcap", source="CTD 12") as dive: dive.write("events", event)`.
        Raises DiveError when the file exists or cannot be created."""
        return DiveWriter(Path(path), metadata, overwrite=overwrite)

    def __enter__(self) -> Dive:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.file.close()

    @property
    def counts(self) -> dict[str, int]:
        """Messages per topic, by the file's own count."""
        return self._per_topic(lambda channel: True)

    @property
    def readable(self) -> dict[str, int]:
        """Messages per topic that can be decoded (other tools' pictures and MAVLink, too), by the file's own count."""
        found = self._per_topic(lambda channel: self._decoder(channel) is not None)
        system = self.system
        mavlink = self._per_topic(
            lambda channel: (
                system is not None
                and paces(channel.topic)
                and system_of(channel.topic, channel.message_encoding) == system
            )
        )
        return found | ({"vehicle": sum(mavlink.values())} if mavlink else {})

    @property
    def system(self) -> int | None:
        """The MAVLink system that the vehicle's state is read from: the lowest with an attitude. None where there is a
        `vehicle` topic, or no MAVLink."""
        if self._per_topic(lambda channel: channel.topic == "vehicle" and self._decoder(channel) is not None):
            return None
        channels = [channel for channel in self.file.channels.values() if paces(channel.topic)]
        systems = [system_of(channel.topic, channel.message_encoding) for channel in channels]
        return min((each for each in systems if each is not None), default=None)

    @property
    def cameras(self) -> dict[str, int]:
        """Pictures per topic, for the topics whose encoding can be read."""
        return self._per_topic(lambda channel: reader(channel, self._schema(channel)) is not None)

    @property
    def foreign(self) -> list[str]:
        """Picture topics whose encoding cannot be read, one sentence each."""
        found = []
        for channel in self.file.channels.values():
            schema = self._schema(channel)
            if schema and kind_of(schema) and not reader(channel, schema):
                what = f"{schema.name} as {channel.message_encoding or 'nothing known'}"
                found.append(f"{channel.topic}: {what} cannot be read; protobuf, json, cdr and ros1 can")
        return sorted(found)

    @property
    def ours(self) -> bool:
        """Whether rov wrote it."""
        return "schema_version" in self.metadata

    @property
    def first_t(self) -> int:
        return self.file.start_t

    @property
    def duration_s(self) -> float:
        return (self.file.end_t - self.file.start_t) / 1e9

    @property
    def complete(self) -> bool:
        """Whether its writer closed it and no damage was found so far; each pass over the file may find more."""
        return self.file.finished and not self.file.damage

    @property
    def problems(self) -> list[str]:
        """What is damaged or missing, one sentence each."""
        found = [f"{d.length} bytes at {at} cannot be read: {d.why}" for at, d in sorted(self.file.damage.items())]
        return found if self.file.finished else [*found, "it was never closed: the recording was cut off"]

    def require(self, topic: str) -> None:
        """Raises DiveError when the dive holds no message of this topic."""
        if not self.counts.get(topic):
            have = ", ".join(self.counts) or "nothing"
            raise DiveError(f"{self.path}: nothing on the topic {topic}; it has {have}")

    def messages(self, topics: Collection[str] | None = None) -> Iterator[Record]:
        """All messages of these topics (None: every known topic), ordered by time. Those that cannot be decoded are
        dropped and counted. Raises DiveError when a rov with a newer message version recorded this."""
        version = self.metadata.get("schema_version", "0")
        if version.isdecimal() and int(version) > SCHEMA_VERSION:
            raise DiveError(f"{self.path}: recorded with messages of version {version}; update rov to read it")
        self.dropped.clear()
        self.skipped.clear()
        decoders = {number: self._decoder(channel) for number, channel in self.file.channels.items()}
        names = {number: self._topic(channel) for number, channel in self.file.channels.items()}
        vehicle, system = RecordedVehicle(), self.system
        for number, channel in self.file.channels.items():
            if system is not None and system_of(channel.topic, channel.message_encoding) == system:
                decoders[number], names[number] = vehicle.receive, "vehicle"
        for channel, message in self.file.messages():
            if topics is not None and names[channel.id] not in topics:
                continue
            decode = decoders[channel.id]
            if decode is None:
                self.skipped[channel.topic] += 1
                continue
            try:
                data = decode(message.log_time, message.data)
                if data is not None:
                    yield Record(names[channel.id], message.log_time, data, message.sequence)
            except UNREADABLE as error:
                reason = str(error) if isinstance(error, msgspec.ValidationError) else "malformed"
                self.dropped[f"{channel.topic}: {reason}"] += 1

    def read(self, kind: type[M]) -> Iterator[M]:
        """The messages of one kind, ordered by time: `dive.read(Detections)`. See `messages` for what is dropped."""
        topics = [name for name, topic in TOPICS.items() if issubclass(kind, topic.type)]
        for record in self.messages(topics):
            if isinstance(record.data, kind):
                yield record.data

    def pictures(self, camera: str | None = None) -> Iterator[TimedFrame]:
        """The decoded pictures of a camera (a topic; None: the one with most pictures), ordered by time. Raises
        DiveError when there are none. Those that cannot be decoded are left out."""
        from rov.dives.playback import choose_camera, decode_pictures, listed

        topic, _ = choose_camera(self, camera)
        if not topic:
            raise DiveError(f"{self.path}: no pictures in it that can be read: {listed(self)}")
        return (item for item in decode_pictures(self, topic, [], alone=True) if not isinstance(item, Record))

    def digests(self) -> dict[str, TopicDigest]:
        """Count and hash of every topic, by its name in the file. Reads the whole file: `complete` is final then."""
        tallies: defaultdict[str, TopicTally] = defaultdict(TopicTally)
        for channel, message in self.file.messages(ordered=False):
            tallies[channel.topic].add(message.log_time, message.data)
        return {topic: tally.digest() for topic, tally in sorted(tallies.items())}

    def _schema(self, channel: Channel) -> Schema | None:
        return self.file.schemas.get(channel.schema_id)

    def _topic(self, channel: Channel) -> str:
        """The present name of a channel's topic (those of message version 1 were renamed)."""
        schema = self._schema(channel)
        ours = schema is not None and schema.name.startswith("rov.")
        return FORMER_TOPICS.get(channel.topic, channel.topic) if ours else channel.topic

    def _per_topic(self, wanted: Callable[[Channel], bool]) -> dict[str, int]:
        found: Counter[str] = Counter()
        for number, count in self.file.channel_counts.items():
            channel = self.file.channels[number]
            if wanted(channel):
                found[self._topic(channel)] += count
        return dict(sorted(found.items()))

    def _decoder(self, channel: Channel) -> Callable[[int, bytes], Message | EncodedPicture | None] | None:
        schema = self._schema(channel)
        if read := reader(channel, schema):
            return read
        topic = self._topic(channel)
        named = schema is None or schema.name.startswith("rov.")  # other tools also have topics named `events`
        if channel.message_encoding == "json" and topic in TYPES and named:
            decode = json_messages.decoder(TYPES[topic])
            return lambda _, data: decode(data)
        return None


@cache
def topic_schema(topic: str) -> Schema:
    """The schema record of one of our topics; the file assigns its id."""
    protobuf: dict[str, Any] = {CAMERA: CompressedImage, VIDEO: CompressedVideo, ANNOTATIONS: ImageAnnotations}
    protobuf[CALIBRATION] = CameraCalibration
    if topic in protobuf:
        kind = protobuf[topic].DESCRIPTOR
        return Schema(0, descriptors(kind.file), "protobuf", kind.full_name)
    data = msgspec.json.encode(json_schema(TYPES[topic]))
    return Schema(0, data, "jsonschema", f"rov.{TOPICS[topic].type.__name__}")
