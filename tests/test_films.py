"""Video files: every picture that a player would show, upright and at its time; anything else is reported."""

import os
import random
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from rov.errors import UserError
from rov.media.check import WorthlessError
from rov.media.convert import Converter, Turn, parse_turn, turned
from rov.media.files import TimedFrame
from rov.media.films import Video
from rov.media.h264_decoder import copyable, packets
from rov.types import Image
from tests.films import SIZE, grey, moving, retimed, turn_header, write_film

MUTATIONS = int(os.environ.get("ROV_FUZZ_FILMS", 20))
"""In full: ROV_FUZZ_FILMS=300 python -m pytest tests/test_films.py -k mutated"""
HANG_S = 10.0
ROUNDING = 4
"""Levels that FFmpeg's (and so OpenCV's) fast conversions to YUV and back may lose."""


def read(path: Path) -> tuple[list[TimedFrame], Video]:
    video = Video(path)
    return list(video.shots()), video


def levels(shots: list[TimedFrame]) -> list[float]:
    return [round(float(shot.image.mean()), 1) for shot in shots]


# ---- which pictures, and when ------------------------------------------------------------------------------------


def test_what_an_edit_list_hides_is_not_shown_and_not_missed(tmp_path: Path) -> None:
    """A video as `ffmpeg -ss -c copy` and phones trim it: it holds pictures from the key frame before the cut on."""
    whole = write_film(tmp_path / "w.mp4", [grey(2 * k) for k in range(60)], options={"bf": "0", "g": "20"})
    cut = retimed(whole, tmp_path / "cut.mp4", lambda k: k - 30, first=20)
    shots, video = read(cut)
    assert len(shots) == video.declared == video.promised == 30 and video.notes == []
    assert abs(levels(shots)[0] - 60) <= ROUNDING, "picture 30, of grey 60"
    assert [shot.t for shot in shots] == [k * 100_000_000 for k in range(30)]
    assert copyable(cut) == "", "a dive of its packets would show the hidden ones"


@pytest.mark.parametrize(("suffix", "codec"), [(".mkv", "libx264"), (".webm", "libvpx"), (".mp4", "libx264")])
def test_pictures_that_were_never_taken_are_not_missed(tmp_path: Path, suffix: str, codec: str) -> None:
    """A recording over a lossy link: one second of every four has no pictures; all others are read."""
    times = [k for k in range(80) if k // 10 % 4 != 2]
    film = write_film(tmp_path / f"f{suffix}", [moving(k) for k in times], codec, times=times)
    shots, video = read(film)
    assert [round(shot.t / 1e8) for shot in shots] == times
    assert (video.promised, video.lost, video.notes) == (60, 0, [])


def test_times_are_exact(tmp_path: Path) -> None:
    film = write_film(tmp_path / "f.mp4", [moving(k) for k in range(90)], rate=15, options={"bf": "2"})
    shots, _ = read(film)
    assert [shot.t for shot in shots] == [k * 1_000_000_000 // 15 for k in range(90)]
    assert [shot.frame_id for shot in shots] == list(range(90))


def test_a_jump_of_the_clock_stays_and_is_said(tmp_path: Path) -> None:
    film = write_film(tmp_path / "f.mkv", [moving(k) for k in range(40)], options={"bf": "0"})
    jump = retimed(film, tmp_path / "jump.mkv", lambda k: k if k < 20 else k + 376_000)
    shots, video = read(jump)
    assert len(shots) == 40 and video.lost == 0
    assert shots[19].t == 1_900_000_000 and shots[20].t == 37_602_000_000_000
    assert video.notes == ["the video's clock jumps 37600 s at 2.0 s"]


def test_one_stray_time_is_put_between_its_neighbours(tmp_path: Path) -> None:
    film = write_film(tmp_path / "f.mkv", [moving(k) for k in range(40)], options={"bf": "0"})
    blip = retimed(film, tmp_path / "blip.mkv", lambda k: 376_020 if k == 20 else k)
    shots, video = read(blip)
    assert 1_900_000_000 < shots[20].t < shots[21].t == 2_100_000_000
    assert len(video.notes) == 1 and "stray" in video.notes[0]


def test_a_size_that_changes_is_the_pictures_own_and_is_said(tmp_path: Path) -> None:
    path = tmp_path / "webrtc.mkv"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for part, size in enumerate(((128, 96), (64, 48), (128, 96))):
            encoder: Any = av.CodecContext.create("libx264", "w")
            encoder.width, encoder.height, encoder.pix_fmt = *size, "yuv420p"
            encoder.time_base, encoder.framerate = Fraction(1, 10), 10
            encoder.options = {"bf": "0", "tune": "zerolatency"}
            for k in range(10):
                frame = av.VideoFrame.from_ndarray(moving(k, size), "bgr24")
                frame.pts, frame.time_base = k, Fraction(1, 10)
                for packet in encoder.encode(frame):
                    packet.pts = packet.dts = 10 * part + k
                    packet.time_base, packet.stream = Fraction(1, 10), stream
                    container.mux(packet)
    shots, video = read(path)
    assert [shot.image.shape[1] for shot in shots] == [128] * 10 + [64] * 10 + [128] * 10
    assert video.notes == ["its pictures are 64×48 from 1.0 s on", "its pictures are 128×96 from 2.0 s on"]
    assert copyable(path) == ""


# ---- as they are meant to be seen --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [("dvr.mp4", "libx264", {"bf": "0", "flags": "+ilme+ildct", "x264-params": "tff=1"}),
     ("recorder.mkv", "libx264", {"bf": "2", "flags": "+ilme+ildct", "x264-params": "tff=1"}),
     ("tape.mpg", "mpeg2video", {"flags": "+ilme+ildct", "b": "4000000"})],
)  # fmt: skip
def test_interlaced_pictures_are_not_black(tmp_path: Path, name: str, codec: str, options: dict[str, str]) -> None:
    images = [moving(k, (192, 160)) for k in range(20)]
    shots, video = read(write_film(tmp_path / name, images, codec, rate=25, options=options))
    assert len(shots) == 20 and video.fielded and video.lost == 0
    for shot, image in zip(shots, images, strict=True):
        assert abs(float(shot.image.mean()) - float(image.mean())) <= ROUNDING
    assert all(np.array_equal(a.image, b.image) for a, b in zip(shots, read(tmp_path / name)[0], strict=True))


TURNS = {
    (1, 0, 0, 1): lambda shown: shown, (-1, 0, 0, -1): lambda shown: shown[::-1, ::-1],
    (0, 1, -1, 0): lambda shown: np.rot90(shown, 1), (0, -1, 1, 0): lambda shown: np.rot90(shown, -1),
    (-1, 0, 0, 1): lambda shown: shown[:, ::-1], (1, 0, 0, -1): lambda shown: shown[::-1],
    (0, 1, 1, 0): lambda shown: shown.transpose(1, 0, 2),
    (0, -1, -1, 0): lambda shown: shown[::-1, ::-1].transpose(1, 0, 2),
}  # fmt: skip
"""Display matrices, and how the picture is stored that each of them sets upright."""


@pytest.mark.parametrize("matrix", list(TURNS), ids=str)
def test_a_camera_hung_another_way_shows_upright(tmp_path: Path, matrix: tuple[int, int, int, int]) -> None:
    upright = grey(90, (96, 64))
    upright[:20], upright[-20:, :30] = (0, 0, 255), (255, 0, 0)  # red above, blue below to the left
    path = write_film(tmp_path / "f.mp4", [TURNS[matrix](upright)] * 3, options={"bf": "0"})
    shots, video = read(turn_header(path, matrix))
    assert shots[0].image.shape == upright.shape == (video.height, video.width, 3)
    assert np.abs(shots[2].image.astype(int) - upright).mean() < 6
    assert (copyable(path) == "h264") == (matrix == (1, 0, 0, 1)), "a dive's packets carry no matrix"


def test_a_matrix_that_is_no_quarter_turn_is_left() -> None:
    assert parse_turn(b"") == parse_turn(bytes(36)) == Turn()
    slanted = np.array([46341, 46341, 0, -46341, 46341, 0, 0, 0, 1 << 30], np.int32).tobytes()
    assert parse_turn(slanted) == Turn() and turned(grey(1), Turn()).shape == (48, 64, 3)


@pytest.mark.parametrize("matrix", [1, 5])
@pytest.mark.parametrize("reach", [1, 2])
@pytest.mark.parametrize("depth", ["yuv420p", "yuv420p10le"])
def test_colours_are_as_the_film_says(tmp_path: Path, matrix: int, reach: int, depth: str) -> None:
    """BT.709 and BT.601, limited and full range, 8 and 10 bits: a colour is read back unchanged."""
    image = grey(0)
    image[:] = (40, 90, 200)
    codec = "libx264" if depth == "yuv420p" else "libx265"
    options = {"x265-params": "log-level=none"} if codec == "libx265" else {"qp": "4"}
    path = write_film(tmp_path / "f.mp4", [image] * 3, codec, pix_fmt=depth, colours=(matrix, reach), options=options)
    shots, _ = read(path)
    assert np.abs(shots[1].image[24, 32].astype(int) - (40, 90, 200)).max() <= 5


@pytest.mark.parametrize(("codec", "pix_fmt", "suffix"),
                         [("ffv1", "gray", ".mkv"), ("qtrle", "argb", ".mov"), ("ffv1", "yuv444p", ".mkv"),
                          ("rawvideo", "bgr24", ".avi"), ("mjpeg", "yuvj420p", ".avi")])  # fmt: skip
def test_other_pixels(tmp_path: Path, codec: str, pix_fmt: str, suffix: str) -> None:
    images = [moving(k) for k in range(12)]
    shots, video = read(write_film(tmp_path / f"f{suffix}", images, codec, pix_fmt=pix_fmt))
    assert len(shots) == 12 and video.lost == 0
    assert all(np.abs(s.image.astype(int) - image).mean() < 5 for s, image in zip(shots, images, strict=True))


def test_pixels_are_those_of_opencv(rov_data: Path) -> None:
    for name in ("tub_B02_15fps", "mbari_rov_1080p60_hevc"):
        path = rov_data / "video" / f"{name}.mp4"
        capture = cv2.VideoCapture(str(path))
        for shot in Video(path).pictures():
            ok, image = capture.read()
            assert ok and np.array_equal(shot.image, image)
            assert abs(shot.t - capture.get(cv2.CAP_PROP_POS_MSEC) * 1e6) < 1000
            if shot.frame_id == 20:
                break


def test_one_converter_takes_sizes_and_formats_in_turn() -> None:
    convert = Converter()
    for size, form in ((SIZE, "yuv420p"), ((32, 32), "gray"), (SIZE, "yuv420p10le")):
        frame = av.VideoFrame.from_ndarray(grey(120, size), "bgr24").reformat(format=form)
        assert np.abs(convert(frame).astype(int) - 120).max() <= ROUNDING


# ---- names, and what else is in a file -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["100%d.mp4", "-y.mp4", "a b'c.mp4", "http:x.mp4", "concat:a|b.mp4", "dive:12.mp4"])
def test_odd_names(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_film(tmp_path / "f.mp4", [moving(k) for k in range(3)]).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert len(read(Path(name))[0]) == len(read(tmp_path / name)[0]) == 3


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"plong\xe9e.mp4")
    write_film(tmp_path / "f.mp4", [moving(k) for k in range(3)]).rename(path)
    assert len(read(path)[0]) == 3 and copyable(path) == "" or copyable(path) == "h264"


def test_a_cover_is_no_film_and_of_two_films_one_is_said(tmp_path: Path) -> None:
    cover = cv2.imencode(".jpg", grey(200, (320, 240)))[1].tobytes()
    for name, with_film in (("music.mp4", False), ("covered.mp4", True)):
        with av.open(str(tmp_path / name), "w") as container:
            if with_film:
                stream: Any = container.add_stream("libx264", rate=10)
                stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
            sound = container.add_stream("aac", rate=8000)
            picture: Any = container.add_stream("mjpeg", rate=1)
            picture.width, picture.height, picture.pix_fmt = 320, 240, "yuvj420p"
            picture.disposition = av.stream.Disposition.attached_pic
            silent = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), "fltp", "mono")
            silent.rate = 8000
            packet = av.Packet(cover)
            packet.stream, packet.pts, packet.dts, packet.time_base = picture, 0, 0, Fraction(1, 1)
            packet.is_keyframe = True
            container.mux(packet)
            container.mux(sound.encode(silent) + sound.encode(None))
            for k in range(12 * with_film):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(moving(k), "bgr24")))
            if with_film:
                container.mux(stream.encode(None))
    with pytest.raises(UserError, match="only a cover"):
        Video(tmp_path / "music.mp4")
    shots, _ = read(tmp_path / "covered.mp4")
    assert len(shots) == 12 and shots[0].image.shape == (48, 64, 3)


def test_of_several_films_one_is_read_and_that_is_said(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "two.mp4"), "w") as container:
        streams: list[Any] = [container.add_stream("libx264", rate=10) for _ in range(2)]
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        for k in range(5):
            for stream in streams:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(moving(k), "bgr24")))
        for stream in streams:
            container.mux(stream.encode(None))
    shots, video = read(tmp_path / "two.mp4")
    assert len(shots) == 5 and video.notes == ["it holds 2 videos; number 1 (64×48) is read"]


def test_sound_alone_is_one_sentence(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "s.mp4"), "w") as container:
        sound = container.add_stream("aac", rate=8000)
        silent = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), "fltp", "mono")
        silent.rate = 8000
        container.mux(sound.encode(silent) + sound.encode(None))
    with pytest.raises(UserError, match="no pictures"):
        Video(tmp_path / "s.mp4")


def test_pixels_that_are_not_square_are_said(tmp_path: Path) -> None:
    path = tmp_path / "pal.mkv"
    write_film(path, [moving(k) for k in range(3)], options={"x264-params": "sar=16/15"})
    assert any("not square (16:15)" in note for note in read(path)[1].notes)


def test_a_film_may_fetch_nothing(tmp_path: Path) -> None:
    path = tmp_path / "list.mp4"
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/x.ts\n#EXT-X-ENDLIST\n")
    with pytest.raises(UserError, match="cannot be read as a video"):
        Video(path)


# ---- what is missing or damaged ------------------------------------------------------------------------------------


def test_damaged_pictures_of_an_mjpeg_film_are_left_out_and_counted(tmp_path: Path) -> None:
    path = write_film(tmp_path / "f.avi", [moving(k, (160, 120)) for k in range(20)], "mjpeg", pix_fmt="yuvj420p")
    data = bytearray(path.read_bytes())
    starts = [at for at in range(len(data) - 3) if data[at : at + 3] == b"\xff\xd8\xff"]
    assert len(starts) == 20
    for at, end in ((starts[4], starts[5]), (starts[9], starts[10])):
        data[(at + end) // 2 : end - 16] = bytes(end - 16 - (at + end) // 2)
    path.write_bytes(data)
    shots, video = read(path)
    assert len(shots) == 18 and (video.promised, video.lost) == (20, 2)
    assert video.notes == ["2 of the 20 frames that the file promises are not in it"]


def test_a_film_that_begins_in_the_middle_waits_for_its_key_frame(tmp_path: Path) -> None:
    whole = write_film(tmp_path / "w.mkv", [moving(k) for k in range(40)], options={"bf": "0", "g": "20"})
    shots, video = read(retimed(whole, tmp_path / "late.mkv", lambda k: k - 5, first=5))
    assert len(shots) == 20 and abs(shots[0].t / 1e9 - 1.5) < 0.01
    assert video.notes == ["its 15 pictures before the first key frame cannot be shown"]


def cut_mp4(path: Path, share: float) -> Path:
    """The first share of a file of 200 pictures whose index is in front."""
    film = write_film(path, [moving(k) for k in range(200)], form={"movflags": "+faststart"}, options={"g": "10"})
    whole = film.read_bytes()
    index = whole.index(b"mdat")
    film.write_bytes(whole[: index + int(share * (len(whole) - index))])
    return film


def test_a_film_cut_off_is_said(tmp_path: Path) -> None:
    whole = write_film(tmp_path / "w.mkv", [moving(k) for k in range(200)]).read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) * 6 // 10])
    shots, video = read(tmp_path / "cut.mkv")
    assert 100 < len(shots) < 180 and len(video.notes) == 1 and "cut off" in video.notes[0]
    shots, video = read(cut_mp4(tmp_path / "cut.mp4", 0.8))
    assert 100 < len(shots) < 200 and video.lost == 200 - len(shots) and f"{video.lost} of the 200" in video.notes[0]


def test_an_avi_without_its_index_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    film = write_film(tmp_path / "f.avi", [moving(k, (160, 120)) for k in range(40)], "mjpeg", pix_fmt="yuvj420p")
    film.write_bytes(film.read_bytes()[: film.stat().st_size * 4 // 10])
    shots, video = read(film)
    assert 10 < len(shots) < 20 and video.declared == 0
    assert f"it is cut off: {len(shots)} of the 40 pictures that its header names are in it" in video.notes


def test_most_of_a_film_missing_is_no_success(tmp_path: Path) -> None:
    path = cut_mp4(tmp_path / "cut.mp4", 0.3)
    with pytest.raises(WorthlessError, match=r"cut\.mp4: only \d+ of the 200 pictures can be read"):
        read(path)
    assert list(Video(path).pictures()), "what is there can be had"


def noisy(level: float, noise: float, number: int) -> list[Image]:
    rng = np.random.default_rng(3)
    return [np.clip(rng.normal(level, noise, (120, 160, 3)), 0, 255).astype(np.uint8) for _ in range(number)]


@pytest.mark.parametrize(
    ("images", "fault"),
    [([grey(0)] * 12, "all 12 pictures are black"), ([grey(90)] * 40, "all 40 pictures are the same"),
     ([grey(0)] * 4, ""), ([grey(90)] * 12, ""), ([grey(0)] * 30 + [moving(1)], ""),
     (noisy(2, 3, 15), ""), (noisy(90, 1, 40), "")],
    ids=["black", "frozen", "few black", "a short still", "a lens cap taken off", "the darkest night", "a tripod"],
)  # fmt: skip
def test_black_and_frozen_films_are_no_success(tmp_path: Path, images: list[Image], fault: str) -> None:
    """A lossless video, so that identical pictures stay identical."""
    path = write_film(tmp_path / "f.mkv", images, "ffv1", pix_fmt="bgr0")
    if fault:
        with pytest.raises(WorthlessError, match=fault):
            read(path)
    else:
        assert len(read(path)[0]) == len(images)


# ---- packets that are copied ---------------------------------------------------------------------------------------


def test_packets_of_a_film_are_copied_only_where_a_dive_shows_the_same(tmp_path: Path) -> None:
    plain = write_film(tmp_path / "p.mp4", [moving(k) for k in range(20)], options={"bf": "0", "g": "5"})
    assert copyable(plain) == "h264"
    assert [packet.t for packet in packets(plain)] == [shot.t for shot in read(plain)[0]]
    black = write_film(tmp_path / "b.mp4", [grey(0)] * 20, options={"bf": "0", "g": "5"})
    assert copyable(black) == "", "then every picture is looked at"


# ---- anything at all ---------------------------------------------------------------------------------------------


def mutated(data: bytes, noise: random.Random) -> bytes:
    """Damage: bytes flipped, truncated, holes of zeros, a part repeated."""
    out = bytearray(data)
    match noise.randrange(4):
        case 0:
            for _ in range(noise.choice((1, 8, 64))):
                out[noise.randrange(len(out))] = noise.randrange(256)
        case 1:
            del out[noise.randrange(len(out)) :]
        case 2:
            at = noise.randrange(len(out))
            out[at : at + 2000] = bytes(len(out[at : at + 2000]))
        case _:
            at, length = noise.randrange(len(out)), noise.randrange(1, 3000)
            out[at:at] = out[at : at + length]
    return bytes(out)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_mutated_film_is_read_or_refused_with_a_sentence(tmp_path: Path, suffix: str) -> None:
    """No other exception, no hang, no crash; times always increase and fit into a dive."""
    whole = write_film(tmp_path / f"w{suffix}", [moving(k) for k in range(60)], options={"g": "10"}).read_bytes()
    shown = 0
    for seed in range(MUTATIONS):
        path = tmp_path / f"m{suffix}"
        path.write_bytes(mutated(whole, random.Random(seed)))
        begin, last = time.monotonic(), -1
        try:
            video = Video(path)
            for shot in video.shots():
                assert last < shot.t < 2**63 and shot.image.dtype == np.uint8
                last, shown = shot.t, shown + 1
            assert all("\n" not in note for note in video.notes)
        except UserError as error:
            assert str(path) in str(error) and "\n" not in str(error)
        copyable(path)
        assert time.monotonic() - begin < HANG_S, f"seed {seed}"
    assert shown > 10 * MUTATIONS, "most are read in part"
