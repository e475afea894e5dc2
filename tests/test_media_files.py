"""Video and picture files: times, sizes, and unreadable files."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from rov.errors import UserError
from rov.media.files import images_in
from rov.media.films import Video
from rov.media.pictures import read_image
from tests.conftest import make_clip


def test_every_frame_with_its_time(clip: Path) -> None:
    shots = list(Video(clip).shots())
    assert [shot.frame_id for shot in shots] == list(range(20))
    assert [round(shot.t / 1e6) for shot in shots] == [100 * i for i in range(20)]
    assert all(shot.image.shape == (120, 160, 3) for shot in shots)
    assert Video(clip).declared == 20


def test_real_clips(rov_data: Path) -> None:
    for name, size, count in (("tub_B02_15fps", (640, 640), 493), ("mbari_rov_1080p60_hevc", (1920, 1080), 32)):
        video = Video(rov_data / "video" / f"{name}.mp4")
        times = [shot.t for shot in video.shots()]
        assert (video.width, video.height) == size and len(times) == count
        assert all(b > a for a, b in zip(times, times[1:], strict=False))


def test_a_video_cut_in_the_middle_ends_early_but_well(tmp_path: Path) -> None:
    whole = make_clip(tmp_path / "whole.avi", frames=40)
    data = whole.read_bytes()
    cut = tmp_path / "cut.avi"
    cut.write_bytes(data[: len(data) // 2])
    shots = list(Video(cut).shots())
    assert 5 < len(shots) < 35
    assert all(b.t > a.t for a, b in zip(shots, shots[1:], strict=False))


@pytest.mark.parametrize(
    "content", [b"", b"\x00" * 5000, b"RIFF$\x00\x00\x00AVI LIST", b"\x00\x00\x00\x18ftypmp42" + b"x" * 100]
)
def test_what_is_no_video_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.mp4"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        Video(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_truncated_mp4_is_one_sentence(tmp_path: Path) -> None:
    data = make_clip(tmp_path / "whole.mp4", frames=40).read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(data[: len(data) * 2 // 3])  # the index of an MP4 stands at its end
    with pytest.raises(UserError, match="cut off before its index"):
        Video(path)


def test_missing_and_directory(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        Video(tmp_path / "none.mp4")
    with pytest.raises(UserError, match="is a directory"):
        Video(tmp_path)


def test_images(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name in ("z.png", "b/a.jpg", "c.JPG"):
        cv2.imwrite(str(tmp_path / name), np.zeros((5, 7, 3), np.uint8))
    (tmp_path / "note.txt").write_text("x")
    assert [path.name for path in images_in(tmp_path)] == ["a.jpg", "c.JPG", "z.png"]
    assert read_image(tmp_path / "z.png").shape == (5, 7, 3)
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 nothing")
    with pytest.raises(UserError, match="cannot be read as an image"):
        read_image(tmp_path / "broken.jpg")
