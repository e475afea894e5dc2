"""H.264 in dives: pictures come back complete, in order, at their times; lost ones are counted."""

from pathlib import Path

import av
import numpy as np
import pytest

from rov.dives.dive import Dive, DiveWriter, EncodedPicture
from rov.media.files import TimedFrame
from rov.media.h264_decoder import VideoDecoder, copyable, packets
from rov.media.h264_encoder import KEY_FRAMES, H264Encoder
from rov.offline.source import open_recording
from rov.types import Image
from tests.conftest import disc, make_clip

T0 = 7_000_000_000_000
STEP = 100_000_000


def sharp(i: int) -> Image:
    return disc((320, 240), i / 30)


def film(path: Path, b_frames: int, frames: int = 25) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"bf": str(b_frames), "g": "10"})
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for i in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(sharp(i), format="bgr24")))
        container.mux(stream.encode(None))
    return path


def close(image: Image, expected: Image) -> bool:
    return bool(np.abs(image.astype(int) - expected).mean() < 6)


def test_each_picture_is_one_packet_at_once() -> None:
    encoder, decoder = H264Encoder(10), VideoDecoder("h264")
    for i in range(25):
        packet = encoder.encode(sharp(i))
        assert packet.startswith(b"\x00\x00\x00\x01")
        [(t, image)] = decoder.decode(T0 + i * STEP, packet)
        assert t == T0 + i * STEP and close(image, sharp(i))
    assert decoder.flush() == [] and decoder.broken == 0


def test_a_reader_may_start_at_any_key_frame() -> None:
    encoder = H264Encoder(10)
    stream = [encoder.encode(sharp(i)) for i in range(KEY_FRAMES + 5)]
    decoder = VideoDecoder("h264")
    seen = [t for i in range(3, KEY_FRAMES + 5) for t, _ in decoder.decode(T0 + i * STEP, stream[i])]
    assert seen == [T0 + i * STEP for i in range(KEY_FRAMES, KEY_FRAMES + 5)]


def test_packets_are_copied_from_a_file_without_b_frames(tmp_path: Path) -> None:
    path = film(tmp_path / "plain.mp4", 0)
    assert copyable(path) == "h264"
    copied = list(packets(path))
    assert [packet.t for packet in copied] == [i * STEP for i in range(25)]
    assert [i for i, packet in enumerate(copied) if packet.key] == [0, 10, 20]
    decoder = VideoDecoder("h264")
    shown = [picture for packet in copied for picture in decoder.decode(packet.t, packet.data)]
    assert len(shown) == 25 and all(close(image, sharp(i)) for i, (_, image) in enumerate(shown))


def test_b_frames_and_other_codecs_are_not_copied(tmp_path: Path) -> None:
    assert copyable(film(tmp_path / "b.mp4", 2)) == ""
    assert copyable(make_clip(tmp_path / "m.avi", 5)) == ""
    (tmp_path / "none.mp4").write_bytes(b"nothing")
    assert copyable(tmp_path / "none.mp4") == ""


@pytest.mark.parametrize("first", [0, 4])
def test_a_dive_of_packets_is_replayed_as_pictures(tmp_path: Path, first: int) -> None:
    encoder = H264Encoder(10)
    stream = [encoder.encode(sharp(i)) for i in range(KEY_FRAMES + 10)]
    with DiveWriter(tmp_path / "dive.mcap", {}) as dive:
        for i in range(first, KEY_FRAMES + 10):
            dive.picture(T0 + i * STEP, stream[i], i, "h264")
    with Dive(tmp_path / "dive.mcap") as read:
        kept = [record.data for record in read.messages(["camera"])]
    assert [each.data for each in kept if isinstance(each, EncodedPicture)] == stream[first:]
    source = open_recording(tmp_path / "dive.mcap")
    shots = [item for item in source.items if isinstance(item, TimedFrame)]
    begin = 0 if first == 0 else KEY_FRAMES
    assert [shot.t for shot in shots] == [T0 + i * STEP for i in range(begin, KEY_FRAMES + 10)]
    assert close(shots[-1].image, sharp(KEY_FRAMES + 9))
    assert bool(source.skipped) == (first > 0)
