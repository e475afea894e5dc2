"""Recordings of other tools: their pictures are read, whichever way they were written, or it is said why not."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from foxglove_schemas_protobuf.CompressedImage_pb2 import CompressedImage
from foxglove_schemas_protobuf.RawImage_pb2 import RawImage
from mcap.writer import CompressionType, IndexType

from rov.dives.dive import Dive, DiveError, topic_schema
from rov.dives.playback import ADVANCE_NS, DivePictures, choose_camera, decode_pictures
from rov.media.files import TimedFrame
from rov.messages import VehicleState
from rov.offline.source import open_recording
from tests.commands import rov
from tests.foreign import (
    STEP,
    T0,
    Topic,
    cdr,
    compressed,
    image,
    json_picture,
    packets,
    ros1,
    ros2,
    ros2_compressed,
    stamp,
    write,
)  # fmt: skip

pytestmark = pytest.mark.patient

N = 20
VIDEO = "foxglove_msgs/msg/CompressedVideo"


def protobuf(kind: Any, k: int, **fields: Any) -> bytes:
    message = kind(frame_id="c", **fields)
    message.timestamp.FromNanoseconds(T0 + k * STEP)
    return bytes(message.SerializeToString())


def raw_cdr(k: int, encoding: str, pixels: np.ndarray[Any, Any], step: int = 0, big: bool = False) -> bytes:
    height, width = pixels.shape[:2]
    step = step or pixels[0].nbytes
    rows = b"".join(row.tobytes().ljust(step, b"\xee") for row in pixels)
    return cdr(*stamp(T0 + k * STEP), "cam", height, width, encoding, (int(big), 1), step, rows)


def videos(coming: list[bytes], form: str = "h264") -> list[bytes]:
    return [cdr(*stamp(T0 + k * STEP), "vehicle", data, form) for k, data in enumerate(coming)]


def films() -> dict[str, Topic]:
    """Every kind that is read, each with the same N pictures."""
    jpeg = [compressed(k) for k in range(N)]
    plain = [image(k) for k in range(N)]
    rgb = [each[..., ::-1] for each in plain]
    sensor = ("sensor_msgs/msg/Image", "ros2msg", "cdr")
    return {
        "blueos": Topic("video/front/stream", "foxglove.CompressedVideo", "ros2msg", "cdr", videos(packets(N))),
        "blueos h265": Topic(
            "video/UDP0/stream", "foxglove/CompressedVideo", "ros2msg", "cdr",
            videos(packets(N, "libx265", **{"x265-params": "log-level=none:bframes=0"}), "h265")),
        "ros2": ros2(ros2_compressed(form="rgb8; jpeg compressed bgr8")),
        "ros2 png": ros2(ros2_compressed(form="bgr8; png compressed ", suffix=".png")),
        "ros2 jpg": ros2(ros2_compressed(form="jpg")),
        "ros2 webp": ros2(ros2_compressed(form="webp", suffix=".webp")),
        "ros2 without a format": ros2(ros2_compressed(form="")),
        "ros2 named wrongly": ros2(ros2_compressed(form="jpeg", suffix=".png")),
        "ros2 big-endian": ros2(ros2_compressed(big=True)),
        "ros2 xcdr2": ros2([each[:1] + b"\x07" + each[2:] for each in ros2_compressed()]),
        "ros2 foxglove": Topic(
            "/cam", "foxglove_msgs/msg/CompressedImage", "ros2msg", "cdr",
            [cdr(*stamp(T0 + k * STEP), "c", jpeg[k], "jpeg") for k in range(N)]),
        "ros2 idl": Topic("/cam", "sensor_msgs::msg::dds_::CompressedImage", "ros2idl", "cdr", ros2_compressed()),
        "ros2 video": Topic("/cam", VIDEO, "ros2msg", "cdr", videos(packets(N))),
        "bgr8": Topic("/c", *sensor, [raw_cdr(k, "bgr8", plain[k]) for k in range(N)]),
        "rgb8 with wide rows": Topic("/c", *sensor, [raw_cdr(k, "rgb8", rgb[k], step=256) for k in range(N)]),
        "bgra8": Topic("/c", *sensor, [raw_cdr(k, "bgra8", cv2.cvtColor(each, cv2.COLOR_BGR2BGRA))
                                       for k, each in enumerate(plain)]),
        "rgb16": Topic("/c", *sensor, [raw_cdr(k, "rgb16", each.astype("<u2") * 257) for k, each in enumerate(rgb)]),
        "rgb16 big-endian": Topic("/c", *sensor, [raw_cdr(k, "rgb16", each.astype(">u2") * 257, big=True)
                                                  for k, each in enumerate(rgb)]),
        "yuyv": Topic("/c", *sensor, [raw_cdr(k, "yuv422_yuy2", cv2.cvtColor(each, cv2.COLOR_BGR2YUV_YUY2))
                                      for k, each in enumerate(plain)]),
        "foxglove raw": Topic(
            "/raw", "foxglove.RawImage", "protobuf", "protobuf",
            [protobuf(RawImage, k, width=64, height=48, encoding="rgb8", step=192, data=each.tobytes())
             for k, each in enumerate(rgb)]),
        "foxglove": Topic(
            "/left", "foxglove.CompressedImage", "protobuf", "protobuf",
            [protobuf(CompressedImage, k, format="JPEG", data=jpeg[k]) for k in range(N)]),
        "json": Topic("camera", "foxglove.CompressedImage", "jsonschema", "json", [json_picture(k) for k in range(N)]),
        "json raw": Topic(
            "camera", "foxglove.RawImage", "jsonschema", "json",
            [json_picture(k, width=64, height=48, encoding="bgr8", step=192,
                          data=base64.b64encode(each.tobytes()).decode()) for k, each in enumerate(plain)]),
        "json of ros": Topic(
            "/c", "sensor_msgs/CompressedImage", "jsonschema", "json",
            [json.dumps({"header": {"stamp": {"sec": (T0 + k * STEP) // 10**9, "nanosec": (T0 + k * STEP) % 10**9}},
                         "format": "jpeg", "data": base64.b64encode(jpeg[k]).decode()}).encode() for k in range(N)]),
        "ros1": Topic(
            "/camera/compressed", "sensor_msgs/CompressedImage", "ros1msg", "ros1",
            [ros1(k, *stamp(T0 + k * STEP), "c", "jpeg", jpeg[k]) for k in range(N)]),
        "ros1 raw": Topic(
            "/camera/raw", "sensor_msgs/Image", "ros1msg", "ros1",
            [ros1(k, *stamp(T0 + k * STEP), "c", 48, 64, "bgr8", (0, 1), 192, each.tobytes())
             for k, each in enumerate(plain)]),
    }  # fmt: skip


FILMS = films()


def pictures(path: Path, camera: str | None = None) -> list[TimedFrame]:
    source = open_recording(path, camera)
    found = [item for item in source.items if isinstance(item, TimedFrame)]
    assert source.frames >= len(found) and not source.skipped, source.skipped
    return found


@pytest.mark.parametrize("name", FILMS)
def test_every_way_of_writing_pictures_is_read(name: str, tmp_path: Path) -> None:
    shots = pictures(write(tmp_path / "a.mcap", [FILMS[name]]))
    assert [shot.t for shot in shots] == [T0 + k * STEP for k in range(N)]
    assert [shot.frame_id for shot in shots] == list(range(N))
    for k, shot in enumerate(shots):
        difference = np.abs(shot.image.astype(int) - image(k))
        difference[20:28] = 0  # compression blurs the border
        assert difference.max() < 12, k
    jpeg = "jpeg" in {(shot.jpeg or b"")[:3] == b"\xff\xd8\xff" and "jpeg" for shot in shots}
    assert all(shot.jpeg is None or shot.jpeg[:2] == b"\xff\xd8" for shot in shots) or jpeg


@pytest.mark.parametrize("order", ["rggb", "bggr", "gbrg", "grbg"])
@pytest.mark.parametrize("bits", [8, 16])
def test_bayer_patterns_are_told_apart(order: str, bits: int, tmp_path: Path) -> None:
    """A plain orange, seen through each pattern of filters, is orange again."""
    colour = dict(zip("bgr", (20, 120, 220), strict=True))
    tile = np.array([colour[each] for each in order], np.uint8).reshape(2, 2)
    mosaic: Any = np.tile(tile, (24, 32))
    if bits == 16:
        mosaic = mosaic.astype("<u2") * 256
    raw = [raw_cdr(k, f"bayer_{order}{bits}", mosaic) for k in range(2)]
    topic = Topic("/c", "sensor_msgs/msg/Image", "ros2msg", "cdr", raw)
    shot = pictures(write(tmp_path / "a.mcap", [topic]))[0]
    assert np.abs(shot.image[4:-4, 4:-4].astype(int) - (20, 120, 220)).max() <= 1


@pytest.mark.parametrize(
    ("encoding", "value"), [("mono8", np.uint8(77)), ("8UC1", np.uint8(77)), ("mono16", np.uint16(77 * 256))]
)
def test_grey_pictures(encoding: str, value: Any, tmp_path: Path) -> None:
    raw = [raw_cdr(0, encoding, np.full((4, 6), value))]
    shot = pictures(write(tmp_path / "a.mcap", [Topic("/c", "sensor_msgs/msg/Image", "ros2msg", "cdr", raw)]))[0]
    assert shot.image.shape == (4, 6, 3) and (shot.image == 77).all()


DEPTH = [cdr(*stamp(T0), "c", "16UC1; compressedDepth png", b"\0" * 12 + compressed(0, ".png"))] * 12
UNREADABLE = {
    "depth": (ros2(DEPTH, "/depth/compressedDepth"), "16uc1; compresseddepth png"),
    "raw depth": (
        Topic("/d", "sensor_msgs/msg/Image", "ros2msg", "cdr", [raw_cdr(0, "32FC1", np.ones((4, 4), "<f4"))]),
        "'32FC1' is no colour or grey",
    ),
    "too few bytes": (
        Topic("/d", "sensor_msgs/msg/Image", "ros2msg", "cdr",
              [cdr(*stamp(T0), "c", 4000, 4000, "bgr8", (0, 1), 12000, b"x" * 100)]),
        "too few for 4000 × 4000 pixels",
    ),
    "a gigapixel": (
        Topic("/d", "sensor_msgs/msg/Image", "ros2msg", "cdr",
              [cdr(*stamp(T0), "c", 60000, 60000, "mono8", (0, 1), 60000, b"x" * 100)]),
        "60000 × 60000 pixels",
    ),
    "a huge PNG": (
        ros2([cdr(*stamp(T0), "c", "png", compressed(0, ".png")[:16] + b"\0\0\xea\x60\0\0\xea\x60"
                  + compressed(0, ".png")[24:])]),
        "60000 × 60000 pixels",
    ),
    "garbage": (ros2([b"\0\1\0\0" + b"\xff" * 50] * 12), "12 dropped, /camera/image_raw/compressed: malformed"),
    "parameter-list CDR": (ros2([b"\0\3\0\0" + b"\0" * 50] * 12), "malformed"),
    "no key frame": (Topic("/c", VIDEO, "ros2msg", "cdr", videos(packets(12, group=50)[1:])), "before a key frame"),
    "flatbuffers": (
        Topic("/c", "foxglove.CompressedImage", "flatbuffer", "flatbuffer", [b"x"]),
        "/c: foxglove.CompressedImage as flatbuffer cannot be read; protobuf, json, cdr and ros1 can",
    ),
    "no pictures at all": (Topic("/odom", "nav_msgs/msg/Odometry", "ros2msg", "cdr", [b"x"]), "it has /odom"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNREADABLE)
def test_where_nothing_can_be_read_one_sentence_says_why(name: str, tmp_path: Path) -> None:
    topic, why = UNREADABLE[name]
    path = write(tmp_path / "a.mcap", [topic])
    for attempt in (open_recording, DivePictures):
        with pytest.raises(DiveError) as error:
            attempt(path)
        assert why in str(error.value) and str(path) in str(error.value) and "\n" not in str(error.value)


def test_where_some_pictures_are_damaged_the_rest_is_read_and_they_are_counted(tmp_path: Path) -> None:
    messages = ros2_compressed()
    for k in range(3, 6):
        messages[k] = messages[k][: len(messages[k]) // 2]  # the message itself is cut off
    for k in (8, 9):
        data = compressed(k)[:-200]
        messages[k] = cdr(*stamp(T0 + k * STEP), "cam", "jpeg", data)
    source = open_recording(write(tmp_path / "a.mcap", [ros2(messages)]))
    shots = [item for item in source.items if isinstance(item, TimedFrame)]
    assert [shot.t for shot in shots] == [T0 + k * STEP for k in range(N) if k not in (3, 4, 5, 8, 9)]
    assert source.skipped == [
        f"2 pictures, the first at {(T0 + 8 * STEP) / 1e9:.3f} s, cannot be decoded: it is damaged",
        "3 messages dropped: /camera/image_raw/compressed: malformed",
    ]


def test_a_film_that_begins_between_key_frames(tmp_path: Path) -> None:
    source = open_recording(write(tmp_path / "a.mcap", [Topic("/c", VIDEO, "ros2msg", "cdr", videos(packets(N)[4:]))]))
    shots = [item for item in source.items if isinstance(item, TimedFrame)]
    assert [shot.t for shot in shots] == [T0 + k * STEP for k in range(6, 16)]
    assert source.skipped == ["6 of 16 video packets gave no picture: lost, or before a key frame"]


# ---- times -----------------------------------------------------------------------------------------------------------


def test_a_picture_has_the_time_of_its_stamp_unless_that_is_of_another_clock(tmp_path: Path) -> None:
    late = write(tmp_path / "late.mcap", [ros2(ros2_compressed(at=lambda k: T0 + k * STEP - 40_000_000))])
    assert [shot.t for shot in pictures(late)] == [T0 + k * STEP - 40_000_000 for k in range(N)]
    for at in (lambda k: 0, lambda k: 5_000_000_000 + k * STEP, lambda k: T0 + k * STEP + 60 * 10**9):
        other = write(tmp_path / "other.mcap", [ros2(ros2_compressed(at=at))])
        assert [shot.t for shot in pictures(other)] == [T0 + k * STEP for k in range(N)]


def test_time_goes_on_where_the_stamps_stand_still(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mcap", [ros2(ros2_compressed(4, at=lambda k: T0 + k // 2 * STEP))])
    source = open_recording(path)
    shots = [item.t - T0 for item in source.items if isinstance(item, TimedFrame)]
    assert shots == [0, ADVANCE_NS, STEP, STEP + ADVANCE_NS]
    assert source.skipped == ["2 pictures are no newer than the one before; each was taken as 1 ms newer"]


# ---- which camera ----------------------------------------------------------------------------------------------------


def two(path: Path, left: str = "/left", right: str = "/right") -> Path:
    states = [VehicleState(t=T0 + k * STEP, attitude_t=T0 + k * STEP) for k in range(N)]
    import msgspec

    return write(path, [
        Topic(left, "foxglove.CompressedImage", "protobuf", "protobuf",
              [protobuf(CompressedImage, k, format="jpeg", data=compressed(k)) for k in range(N)]),
        ros2(ros2_compressed(N - 1, suffix=".png"), right),
        Topic("vehicle", topic_schema("vehicle").name, "jsonschema", "json", [msgspec.json.encode(s) for s in states]),
    ])  # fmt: skip


def test_of_several_cameras_one_is_taken_and_it_is_said_which(tmp_path: Path) -> None:
    path = two(tmp_path / "two.mcap")
    source = open_recording(path)
    shots = [item for item in source.items if isinstance(item, TimedFrame)]
    assert len(shots) == source.frames == N and all(shot.jpeg for shot in shots)
    assert source.notes == (
        "the pictures of /left (20) were taken, not those of /right (19); --camera TOPIC chooses",
    ) and source.has_vehicle  # fmt: skip
    assert len(pictures(path, "/right")) == N - 1
    with pytest.raises(DiveError, match=r"the topic /up; there are those of /left \(20\), /right \(19\)"):
        open_recording(path, "/up")


def test_our_own_camera_is_taken_before_others(tmp_path: Path) -> None:
    with Dive(two(tmp_path / "two.mcap", right="camera")) as dive:
        assert choose_camera(dive)[0] == "camera"


def test_a_topic_in_two_channels_is_one_camera(tmp_path: Path) -> None:
    """As after a restart of the recorder; the second half is even written in another way."""
    half = N // 2
    first = ros2(ros2_compressed()[:half], "/cam")
    video = [cdr(*stamp(T0 + (half + k) * STEP), "c", data, "h264") for k, data in enumerate(packets(half))]
    path = tmp_path / "a.mcap"
    write(path, [first, Topic("/cam", VIDEO, "ros2msg", "cdr", [*[b""] * half, *video], {"qos": "2"})])
    with Dive(path) as dive:
        skipped: list[str] = []
        shots = [item for item in decode_pictures(dive, "/cam", skipped) if isinstance(item, TimedFrame)]
    assert [shot.t for shot in shots] == [T0 + k * STEP for k in range(N)]


def test_topics_that_are_only_called_like_ours_are_not_ours(tmp_path: Path) -> None:
    topics = [
        ros2(ros2_compressed()),
        Topic("vehicle", "px4_msgs/msg/VehicleStatus", "ros2msg", "cdr", [b"x"] * 3),
        Topic("events", "acme.Events", "jsonschema", "json", [b"{}"] * 3),
    ]
    source = open_recording(write(tmp_path / "a.mcap", topics))
    assert len([*source.items]) == N and not source.has_vehicle and not source.skipped


# ---- how the file itself is built ------------------------------------------------------------------------------------

BUILDS: dict[str, dict[str, Any]] = {
    "zstd": {}, "lz4": {"compression": CompressionType.LZ4}, "no compression": {"compression": CompressionType.NONE},
    "no chunks": {"use_chunking": False}, "small chunks": {"chunk_size": 1000},
    "no schemas at the end": {"repeat_schemas": False}, "no channels at the end": {"repeat_channels": False},
    "neither": {"repeat_schemas": False, "repeat_channels": False}, "no statistics": {"use_statistics": False},
    "no index": {"index_types": IndexType.NONE}, "no message index": {"index_types": IndexType.CHUNK},
    "no chunk index": {"index_types": IndexType.MESSAGE}, "no checksums": {"enable_crcs": False},
    "data checksums": {"enable_data_crcs": True}, "no offsets": {"use_summary_offsets": False},
    "no summary": {"repeat_schemas": False, "repeat_channels": False, "use_statistics": False,
                   "use_summary_offsets": False, "index_types": IndexType.NONE},
}  # fmt: skip


@pytest.mark.parametrize("build", BUILDS)
def test_every_build_of_a_file_is_read(build: str, tmp_path: Path) -> None:
    from mcap.reader import NonSeekingReader

    path = two(tmp_path / "two.mcap")
    write(path, [FILMS["ros2"], FILMS["foxglove"], FILMS["json"]], **BUILDS[build])
    with path.open("rb") as stream:
        expected = [(c.topic, m.log_time, m.data) for _, c, m in NonSeekingReader(stream).iter_messages()]
    with Dive(path) as dive:
        found = [(c.topic, m.log_time, m.data) for c, m in dive.file.messages()]
        assert found == expected and len(found) == 3 * N and dive.complete, dive.problems
        assert dive.counts == {"/camera/image_raw/compressed": N, "/left": N, "camera": N} == dive.cameras
    assert len(pictures(path)) == N


def test_replay_and_detect_take_them(tmp_path: Path) -> None:
    path = two(tmp_path / "two.mcap")
    replay = rov("replay", path, "--out", tmp_path / "o", "--no-overlay", cwd=tmp_path)
    assert replay.returncode == 0, replay.stderr
    assert "20 of 20 frames" in replay.stdout and "--camera TOPIC chooses" in replay.stderr
    detect = rov("detect", path, "--camera", "/right", "--out", tmp_path / "d.json", cwd=tmp_path)
    assert detect.returncode == 0 and "in 19 pictures" in detect.stdout, detect.stderr


# ---- what the vehicle said -------------------------------------------------------------------------------------------


def mavlink(name: str, /, *, system: int = 1, component: int = 1, **fields: Any) -> Topic:
    """As BlueOS's recorder writes it, N times."""
    said = [
        {"header": {"system_id": system, "component_id": component}, "message": {"type": name} | fields}
        for _ in range(N)
    ]
    topic = f"mavlink/{system}/{component}/{name}"
    return Topic(topic, topic.replace("/", "."), "jsonschema", "json", [json.dumps(each).encode() for each in said])


ANGLES = {"pitch": 0.0, "yaw": 0.3, "rollspeed": 0.0, "pitchspeed": 0.0, "yawspeed": 0.1}


def test_the_vehicle_of_a_blueos_recording_is_heard(tmp_path: Path) -> None:
    topics = [
        FILMS["blueos"],
        mavlink("ATTITUDE", roll=0.25, **ANGLES),
        mavlink("ATTITUDE", system=255, roll=9.0, **ANGLES),
        mavlink("ATTITUDE", component=100, roll=7.0, **ANGLES),
        mavlink("HEARTBEAT", base_mode={"bits": 209}, autopilot={"type": "MAV_AUTOPILOT_ARDUPILOTMEGA"}),
        mavlink("SCALED_PRESSURE2", press_abs=1513.25, press_diff=0.0, temperature=1500),
        mavlink("STATUSTEXT", severity={"type": "MAV_SEVERITY_CRITICAL"}, text=[*"Leak Detected\0\0"]),
        mavlink("BATTERY_STATUS", id=0, voltages=[16000] + [65535] * 9),
        mavlink("NAMED_VALUE_FLOAT", name=[*map(ord, "CamTilt\0\0\0")], value=0.5),
        mavlink("PARAM_VALUE", param_id="X"),
    ]
    source = open_recording(write(tmp_path / "a.mcap", topics))
    items = [*source.items]
    states = [item.data for item in items if not isinstance(item, TimedFrame) and isinstance(item.data, VehicleState)]
    assert source.has_vehicle and not source.skipped and len(states) == N and len(items) == 2 * N
    assert states[-1].t == T0 + (N - 1) * STEP and states[-1].roll == 0.25 and states[-1].armed and states[-1].leak
    assert abs(states[-1].depth - 4.97) < 0.01 and states[-1].battery_v == 16.0
    alone = open_recording(write(tmp_path / "b.mcap", topics[1:]))
    assert alone.has_vehicle and len([*alone.items]) == N, "a log alone"


def test_telemetry_that_makes_no_sense_is_dropped_and_counted(tmp_path: Path) -> None:
    topics = [FILMS["blueos"], mavlink("ATTITUDE", roll="x", **ANGLES), mavlink("HEARTBEAT"), mavlink("BATTERY_STATUS")]
    source = open_recording(write(tmp_path / "a.mcap", topics))
    assert len([*source.items]) == N
    assert len(source.skipped) == 3 and all(each.startswith(f"{N} messages dropped: ") for each in source.skipped)
