"""Drawing leaves its input unchanged and fits any size; the video opens and keeps its times."""

from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest

from rov.media.overlay import OverlayWriter, draw
from rov.messages import Box, Mode, Setpoint, ThrusterCommand, Track, Tracks
from rov.types import Image

SETPOINT = Setpoint(t=0, frame_id=0, frame_t=0, source="steer", surge=0.5, yaw=-1.0)
COMMAND = ThrusterCommand(t=0, frame_id=0, frame_t=0, armed=True, mode=Mode.FOLLOW, values=(0.5,) * 8)


@pytest.mark.parametrize("size", [(64, 48), (63, 47), (640, 480), (3840, 2160), (1, 1)])
def test_any_size(size: tuple[int, int]) -> None:
    width, height = size
    image = np.full((height, width, 3), 90, np.uint8)
    kept = image.copy()
    items = (
        Track(1, "rock", 0.8, (width * 0.2, height * 0.2, width * 0.6, height * 0.7)),
        Track(2, "fish", 0.5, (-width, -height, width * 2.0, height * 2.0), hidden_s=0.3),
    )
    seen = Tracks(t=0, frame_id=0, frame_t=0, width=width, height=height, items=items)
    out = draw(image, seen, SETPOINT, COMMAND, "follow", 1.5)
    assert out.shape == image.shape and (image == kept).all() and (out != image).any()


def test_what_is_positive_points_right() -> None:
    image = np.zeros((640, 640, 3), np.uint8)
    empty = Tracks(t=0, frame_id=0, frame_t=0, width=640, height=640)
    ahead, astern = (
        draw(image, empty, Setpoint(t=0, frame_id=0, frame_t=0, source="steer", surge=v)) for v in (1.0, -1.0)
    )
    moved = np.argwhere((ahead.astype(int) - astern.astype(int)).sum(2) > 60)[:, 1]
    back = np.argwhere((astern.astype(int) - ahead.astype(int)).sum(2) > 60)[:, 1]
    assert moved.min() > back.max()


def test_the_hidden_are_dashed_and_boxes_far_outside_are_harmless() -> None:
    image = np.zeros((640, 640, 3), np.uint8)

    def drawn(hidden_s: float, box: Box) -> Image:
        items = (Track(3, "rock", 0.8, box, hidden_s=hidden_s),)
        return draw(image, Tracks(t=0, frame_id=0, frame_t=0, width=640, height=640, items=items))

    whole, dashed = (np.count_nonzero(drawn(hidden_s, (100, 100, 300, 500))[500]) for hidden_s in (0.0, 0.5))
    assert 0.3 * whole < dashed < 0.75 * whole
    assert not drawn(0.0, (1e12, -1e12, 2e12, 1e12)).any() and not drawn(0.5, (-200, 10, -5, 90)).any()
    assert drawn(0.5, (-1e12, 100, 1e12, 500)).any()


def test_neutral_thrusters_say_why() -> None:
    image, empty = np.zeros((480, 640, 3), np.uint8), Tracks(t=0, frame_id=0, frame_t=0, width=640, height=480)
    quiet = msgspec.structs.replace(COMMAND, neutral_because="setpoint_stale")
    assert (draw(image, empty, None, quiet) != draw(image, empty, None, COMMAND)).any()


def test_the_film_opens_and_keeps_time(tmp_path: Path) -> None:
    path = tmp_path / "o.mp4"
    times = [0, 100, 200, 700, 800]  # ms, with a gap
    with OverlayWriter(path, 161, 121, 10.0) as film:
        for i, t in enumerate(times):
            film.write(np.full((121, 161, 3), 40 * i, np.uint8), t * 1_000_000)
        film.write(np.zeros((240, 320, 3), np.uint8), 900_000_000)  # another size in the middle
        film.write(np.zeros((121, 161, 3), np.uint8), 800_000_000)  # time that runs backwards
    video, stamps = cv2.VideoCapture(str(path)), []
    while True:
        more, image = video.read()
        if not more:
            break
        assert image.shape == (120, 160, 3)
        if len(stamps) < len(times):
            assert image.mean() == pytest.approx(40 * len(stamps), abs=4)
        stamps.append(round(video.get(cv2.CAP_PROP_POS_MSEC)))
    assert stamps == [*times, 900, 901]
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat"), "starts to play before all of it is there"
