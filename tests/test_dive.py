"""Dives: what is written is what is read, in time order, in the form Foxglove takes, and soon on the disk."""

from __future__ import annotations

import json
import math
import os
import random
import resource
import tracemalloc
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest
from foxglove_schemas_protobuf.CompressedImage_pb2 import CompressedImage
from foxglove_schemas_protobuf.ImageAnnotations_pb2 import ImageAnnotations
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from mcap.reader import make_reader
from mcap.writer import Writer

from rov import messages as m
from rov.dives.dive import TYPES, Dive, DiveError, DiveWriter, EncodedPicture
from rov.dives.foxglove import json_schema

MS = 1_000_000
JPEG = cv2.imencode(".jpg", np.random.default_rng(0).integers(0, 255, (120, 160, 3), np.uint8))[1].tobytes()
TRACK = m.Track(7, "buoy_red", 0.9, (10.0, 20.0, 30.0, 50.0))
HIDDEN = m.Track(8, "pipe", 0.4, (0.0, 0.0, 5.0, 5.0), hidden_s=0.3)


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def tracks(i: int) -> m.Tracks:
    t = i * 66 * MS
    return m.Tracks(t=t + 5 * MS, frame_id=i, frame_t=t, width=160, height=120, items=(TRACK, HIDDEN))


def write(writer: DiveWriter, frames: int, clock: Clock | None = None, start: int = 0) -> None:
    """15 frames a second, each with its tracks and an event."""
    for i in range(start, start + frames):
        writer.picture(i * 66 * MS, JPEG + i.to_bytes(4, "little"))
        writer.write("tracks", tracks(i))
        writer.annotations(tracks(i))
        writer.write("events", m.Event(t=i * 66 * MS + 7 * MS, level="info", source="test", code="tick", text=f"{i}"))
        if clock:
            clock.now += 0.066


def dive_at(path: Path, frames: int = 20) -> Path:
    with DiveWriter(path, {"source": "test"}) as writer:
        write(writer, frames)
    return path


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    with DiveWriter(path, {"source": "test", "config_sha256": "abc"}) as writer:
        write(writer, 20)
    with Dive(path) as dive:
        records = list(dive.messages())
        assert dive.complete and not dive.problems and not dive.dropped
        assert dive.skipped == {"annotations": 20}
        assert dive.metadata["source"] == "test" and dive.metadata["config_sha256"] == "abc"
        assert dive.metadata["schema_version"] == str(m.SCHEMA_VERSION) and dive.metadata["rov_version"]
        assert dive.counts == {"annotations": 20, "camera": 20, "events": 20, "tracks": 20}
        assert dive.first_t == 0 and dive.duration_s == pytest.approx(19 * 0.066 + 0.007)
        assert dive.digests() == writer.topics
    assert [r.t for r in records] == sorted(r.t for r in records)
    assert [r.data for r in records if r.topic == "tracks"] == [tracks(i) for i in range(20)]
    pictures = [r.data for r in records if isinstance(r.data, EncodedPicture)]
    assert pictures[3] == EncodedPicture(3 * 66 * MS, JPEG + (3).to_bytes(4, "little"), "jpeg")
    with Dive(path) as dive:
        assert {r.topic for r in dive.messages(["events"])} == {"events"}


def test_every_type_survives(tmp_path: Path) -> None:
    ids: dict[str, Any] = {"frame_id": 3, "frame_t": 2}
    axes: dict[str, Any] = {"surge": 0.1, "sway": -0.2, "heave": 1.0, "yaw": -1.0}
    who: dict[str, Any] = {"session": "s", "seq": 4}
    sent: list[tuple[str, m.Message]] = [
        ("frame", m.Frame(t=1, width=4, height=3, **ids)),
        ("detections", m.Detections(t=2, width=4, height=3, items=(m.Detection("a", 0.5, (0, 1, 2, 3)),), **ids)),
        ("tracks", tracks(0)),
        ("observation", m.Observation(t=3, visible=True, bearing=-0.1, **ids)),
        ("policy_input", m.PolicyInput(t=4, task="transit", version=1, features=(0.1, -1.0), maps=bytes(range(256)),
                                       goal=(1.0, 2.0, math.inf, -math.inf), attitude=(0.0, 0.1, 0.2), depth=3.0,
                                       rates=(0.0, 0.0, 0.0), start=(0.1, 3.0), cell_v=3.9,
                                       previous=(0.1, 0.0, 0.0, 0.0), **ids)),
        ("setpoint", m.Setpoint(t=4, source="steer", **ids, **axes)),
        ("vehicle", m.VehicleState(t=5, attitude_t=4, leak=True, battery_v=None)),
        ("wrench", m.Wrench(t=6, mode=m.Mode.FOLLOW, **ids, **axes)),
        ("thrusters", m.ThrusterCommand(t=7, armed=True, mode=m.Mode.HOLD, values=(0.0, -1.0), **ids)),
        ("pilot", m.PilotStatus(t=8, armed=False, mode=m.Mode.MANUAL, refused="no link")),
        ("health", m.Health(t=9, process="pilotd", rate_hz=50.0)),
        ("host", m.HostStatus(t=9, hottest="cpu", celsius=50.0, margin_c=None)),
        ("clock", m.Clock(t=9, utc_ns=1_700_000_000_000_000_000)),
        ("events", m.Event(t=10, level="alarm", source="guard", code="leak", text="Wasser ≥ 0")),
        ("config_edit", m.ConfigEdit(t=10, settings=(m.Setting("guard.gain", "0.5"),))),
        ("settings", m.ActiveSettings(t=10, settings=(m.Setting("steering.target", '"fish"'),))),
        ("commands", m.Heartbeat(t=11, **who)), ("commands", m.Arm(t=12, **who)), ("commands", m.Disarm(t=13, **who)),
        ("commands", m.Stop(t=14, **who)), ("commands", m.SetMode(t=15, mode=m.Mode.POLICY, **who)),
        ("commands", m.SetTarget(t=16, label="pipe", **who)), ("commands", m.Sticks(t=17, **who, **axes)),
        ("commands", m.SetTask(t=17, task="transit", heading=1.5, **who)),
        ("inputs", m.ConsumedInput(t=18, by="pilotd", what="mode", asked_t=17, mode=m.Mode.HOLD)),
        ("inputs", m.ConsumedInput(t=18, by="pilotd", what="setpoint",
                                   setpoint=m.Setpoint(t=7, source="steer", **ids, **axes))),
        ("commands", m.TakeOver(t=18, **who)),
    ]  # fmt: skip
    assert {topic for topic, _ in sent} == set(m.TOPICS)
    with DiveWriter(tmp_path / "a.mcap", {}) as writer:
        for topic, message in sent:
            writer.write(topic, message)
            fields = json_schema(TYPES[topic])["properties"]
            assert set(msgspec.to_builtins(message)) <= set(fields)
    with Dive(tmp_path / "a.mcap") as dive:
        by_time = sorted(sent, key=lambda each: each[1].t)
        assert [(r.topic, r.data) for r in dive.messages()] == by_time and not dive.dropped


def test_the_wrong_type_for_a_topic_is_a_bug(tmp_path: Path) -> None:
    with DiveWriter(tmp_path / "a.mcap", {}) as writer, pytest.raises(TypeError, match="carries Frame, not Tracks"):
        writer.write("frame", tracks(0))


def test_order_is_by_time_and_stable_though_chunks_overlap(tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    shuffled = random.Random(1)
    times = [i * MS // 2 for i in range(4000)]
    for i in range(0, 4000, 50):  # late by up to 50 places, as from several processes
        part = times[i : i + 50]
        shuffled.shuffle(part)
        times[i : i + 50] = part
    times[10], times[3990] = times[3990], times[10]  # and one far off
    clock = Clock()
    with DiveWriter(path, {}, clock=clock) as writer:
        for n, t in enumerate(times):
            clock.now += 0.01
            writer.write("health", m.Health(t=t // 3 * 3, process=str(n), rate_hz=0.0))
    expected = sorted(((t // 3 * 3, n) for n, t in enumerate(times)))
    for cut in (0, 100):  # with the index of the file, and without
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size - cut)
        with Dive(path) as dive:
            assert dive.complete is (cut == 0) and len(dive.file.blocks) > 50
            found = [(r.t, int(r.data.process)) for r in dive.messages() if isinstance(r.data, m.Health)]
            assert found == expected


def test_hashes_depend_on_content_not_on_flushes(tmp_path: Path) -> None:
    clocks = [Clock(), None]
    digests = []
    for n, clock in enumerate(clocks):
        with DiveWriter(tmp_path / f"{n}.mcap", {"run": str(n)}, clock=clock or Clock()) as writer:
            write(writer, 40, clock)
        digests.append(writer.topics)
    assert (tmp_path / "0.mcap").read_bytes() != (tmp_path / "1.mcap").read_bytes()
    assert digests[0] == digests[1]
    with DiveWriter(tmp_path / "2.mcap", {}) as writer:
        write(writer, 40, start=1)
    assert all(writer.topics[topic].sha256 != digests[0][topic].sha256 for topic in digests[0])


def test_half_a_second_later_it_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda number: synced.append(number))
    clock, path = Clock(), tmp_path / "a.mcap"
    with DiveWriter(path, {"source": "test"}, clock=clock) as writer:
        with Dive(path) as dive:
            assert dive.metadata["source"] == "test", "there before the first message"
        before = len(synced)
        writer.write("tracks", tracks(1))
        clock.now += 0.49
        writer.tick()
        assert len(synced) == before
        clock.now += 0.02
        writer.tick()
        assert len(synced) == before + 1
        with Dive(path) as dive:  # another reader finds it, though the file is open
            assert [r.data for r in dive.messages()] == [tracks(1)] and not dive.complete
            assert dive.problems == ["it was never closed: the recording was cut off"]
        clock.now += 5
        writer.tick()
        assert len(synced) == before + 1, "nothing new, nothing to sync"


def test_a_full_disk_is_said_once_and_leaves_what_was_there(tmp_path: Path) -> None:
    path, clock = tmp_path / "a.mcap", Clock()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
    try:
        with pytest.raises(DiveError, match="a.mcap: cannot be written"), DiveWriter(path, {}, clock=clock) as writer:
            write(writer, 200, clock)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    with pytest.raises(DiveError, match="any more"):
        writer.picture(0, JPEG)
    with Dive(path) as dive:
        assert dive.counts["camera"] >= 10 and not dive.complete


def test_a_writer_takes_no_file_that_is_there_or_in_use(tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    with DiveWriter(path, {}):
        with pytest.raises(DiveError, match="exists already"):
            DiveWriter(path, {})
        with pytest.raises(DiveError, match="being written by another"):
            DiveWriter(path, {}, overwrite=True)
    with DiveWriter(path, {}, overwrite=True) as writer:
        write(writer, 1)
    assert sum(each.count for each in writer.topics.values()) == 4
    for bad, what in ((tmp_path / "none" / "a.mcap", "No such file"), (tmp_path, "exists already")):
        with pytest.raises(DiveError, match=what):
            DiveWriter(bad, {})


# ---- Foxglove --------------------------------------------------------------------------------------------------------


def foxglove_takes(schema: dict[str, Any]) -> None:
    """The rules of the parser in foxglove/studio, packages/mcap-support/src/parseJsonSchema.ts."""
    assert schema["type"] == "object"
    for field in schema["properties"].values():
        assert "oneOf" not in field
        assert field["type"] in ("boolean", "string", "number", "integer", "object", "array"), field
        if field["type"] == "object":
            foxglove_takes(field)
        if field["type"] == "array":
            assert field["items"]["type"] in ("boolean", "string", "number", "integer", "object"), field
            if field["items"]["type"] == "object":
                foxglove_takes(field["items"])


@pytest.mark.parametrize("topic", m.TOPICS)
def test_json_schemas_are_what_foxglove_takes(topic: str) -> None:
    schema = json_schema(TYPES[topic])
    foxglove_takes(schema)
    assert schema["properties"]["t"]["type"] == "integer" and "t" in schema["required"]
    assert "$ref" not in json.dumps(schema)


def test_the_command_schema_has_every_verb() -> None:
    schema = json_schema(m.AnyCommand)
    verbs = ["arm", "disarm", "heartbeat", "mode", "sticks", "stop", "take_over", "target", "task"]
    assert schema["properties"]["verb"] == {"enum": verbs, "type": "string"}
    assert schema["required"] == ["seq", "session", "t", "verb"]


def test_pictures_decode_from_the_schema_in_the_file_alone(tmp_path: Path) -> None:
    with dive_at(tmp_path / "a.mcap", 2).open("rb") as stream:
        found = {each[1].topic: each for each in make_reader(stream).iter_messages()}
    names = {topic: (s.name, s.encoding, c.message_encoding) for topic, (s, c, _) in found.items() if s}
    assert names == {
        "camera": ("foxglove.CompressedImage", "protobuf", "protobuf"),
        "annotations": ("foxglove.ImageAnnotations", "protobuf", "protobuf"),
        "tracks": ("rov.Tracks", "jsonschema", "json"),
        "events": ("rov.Event", "jsonschema", "json"),
    }
    for topic in ("camera", "annotations"):
        schema, _, message = found[topic]
        assert schema
        pool = descriptor_pool.DescriptorPool()
        for file in descriptor_pb2.FileDescriptorSet.FromString(schema.data).file:
            pool.Add(file)  # raises unless imports come first
        kind = message_factory.GetMessageClass(pool.FindMessageTypeByName(schema.name))
        assert kind.FromString(message.data).ByteSize() == len(message.data)
    schema, _, message = found["tracks"]
    assert schema
    foxglove_takes(json.loads(schema.data))
    assert message.log_time == message.publish_time == json.loads(message.data)["t"]


def test_boxes_are_drawn_on_their_picture(tmp_path: Path) -> None:
    with dive_at(tmp_path / "a.mcap", 2).open("rb") as stream:
        *_, (_, _, message) = make_reader(stream).iter_messages(["annotations"])
    drawn = ImageAnnotations.FromString(message.data)
    assert [(p.x, p.y) for p in drawn.points[0].points] == [(10, 20), (30, 20), (30, 50), (10, 50)]
    assert [text.text for text in drawn.texts] == ["buoy_red 7 0.90", "pipe 8 0.40"]
    assert drawn.points[0].outline_color != drawn.points[1].outline_color  # seen, and only remembered
    assert {each.timestamp.ToNanoseconds() for each in (*drawn.points, *drawn.texts)} == {66 * MS}


# ---- what others wrote, and nonsense ---------------------------------------------------------------------------------


def foreign(path: Path, lines: list[tuple[str, str, bytes]], schema: str = "", **options: Any) -> Path:
    """A file by the bare library: (topic, encoding, data) with times 0, 1, …"""
    with path.open("wb") as stream:
        writer = Writer(stream, **options)
        writer.start()
        number = writer.register_schema(schema, "protobuf", b"") if schema else 0
        for t, (topic, encoding, data) in enumerate(lines):
            writer.add_message(writer.register_channel(topic, encoding, number), t, data, t)
        writer.finish()  # type: ignore[no-untyped-call]
    return path


def test_nonsense_is_dropped_with_its_reason_and_the_rest_is_read(tmp_path: Path) -> None:
    good = msgspec.json.encode(tracks(1))
    lines = [
        ("tracks", "json", good),
        ("tracks", "json", b'{"t": 1'),
        ("tracks", "json", b"\xff\xfe"),
        ("tracks", "json", good.replace(b'"width":160', b'"width":"wide"')),
        ("tracks", "json", b'{"t": 1}'),
        ("commands", "json", b'{"t":1,"session":"s","seq":1,"verb":"fly"}'),
        ("tracks", "json", good.replace(b'"t":', b'"new_field":[1],"t":')),
        ("tracks", "cbor", good),
        ("other", "json", b"{}"),
    ]
    with Dive(foreign(tmp_path / "a.mcap", lines)) as dive:
        assert [r.data for r in dive.messages()] == [tracks(1), tracks(1)]
        assert dive.skipped == {"tracks": 1, "other": 1} and dive.dropped.total() == 5
        assert dive.dropped["tracks: malformed"] == 2
        assert dive.dropped["tracks: Expected `int`, got `str` - at `$.width`"] == 1
        assert dive.dropped["commands: Invalid value 'fly' - at `$.verb`"] == 1
        assert list(dive.messages()) and dive.dropped.total() == 5, "counted anew each time"


def test_pictures_of_other_recorders(tmp_path: Path) -> None:
    def image(kind: str, data: bytes = JPEG) -> tuple[str, str, bytes]:
        return "camera", "protobuf", CompressedImage(data=data, format=kind).SerializeToString()

    lines = [image("jpg"), image("PNG"), image("h264"), image("jpeg", b""), ("camera", "protobuf", b"\xff\xff\xff")]
    for chunks in (True, False):
        path = foreign(tmp_path / f"{chunks}.mcap", lines, "foxglove.CompressedImage", use_chunking=chunks)
        with Dive(path) as dive:
            assert [r.data for r in dive.messages()] == [
                EncodedPicture(0, JPEG, "jpeg"),
                EncodedPicture(1, JPEG, "jpeg"),
            ]
            assert dive.complete and dive.dropped == {
                "camera: a picture of format 'h264'": 1,
                "camera: a picture without data": 1,
                "camera: malformed": 1,
            }


def test_not_a_number_is_kept_as_what_it_was(tmp_path: Path) -> None:
    with DiveWriter(tmp_path / "a.mcap", {}) as writer:
        writer.write("health", m.Health(t=1, process="x", rate_hz=math.nan))
    with Dive(tmp_path / "a.mcap") as dive:
        (record,) = dive.messages()
        assert isinstance(record.data, m.Health) and math.isnan(record.data.rate_hz) and not dive.dropped


def test_what_is_no_dive_is_said_in_one_sentence(tmp_path: Path) -> None:
    empty, text, pipe = tmp_path / "empty.mcap", tmp_path / "text.mcap", tmp_path / "pipe.mcap"
    empty.touch()
    text.write_text("a diary of the sea")
    os.mkfifo(pipe)
    cases = {empty: "the file is empty", text: "not an MCAP file", tmp_path: "is a directory", pipe: "not a regular"}
    for path, what in (cases | {tmp_path / "none.mcap": "no such file"}).items():
        with pytest.raises(DiveError, match=what) as error:
            Dive(path)
        assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


def test_a_dive_of_a_newer_rov_is_refused(tmp_path: Path) -> None:
    with DiveWriter(tmp_path / "a.mcap", {"schema_version": str(m.SCHEMA_VERSION + 1)}) as writer:
        write(writer, 1)
    with Dive(tmp_path / "a.mcap") as dive, pytest.raises(DiveError, match="update rov"):
        next(dive.messages())


def test_a_needed_topic_that_is_absent(tmp_path: Path) -> None:
    with Dive(dive_at(tmp_path / "a.mcap", 1)) as dive:
        dive.require("camera")
        with pytest.raises(DiveError, match="nothing on the topic vehicle; it has annotations, camera, events, tracks"):
            dive.require("vehicle")


def test_reading_does_not_load_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    with DiveWriter(path, {}) as writer:
        for i in range(300):
            writer.picture(i * MS, random.Random(i).randbytes(100_000))
    for cut in (0, 1000):
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size - cut)
        tracemalloc.start()
        with Dive(path) as dive:
            assert sum(1 for _ in dive.messages()) >= 299
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 3_000_000
