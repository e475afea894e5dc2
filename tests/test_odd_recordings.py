"""Odd recordings through the commands: pictures that show nothing fail, a jump of the clock is not waited for, a full
disk gives one sentence, and an imported dive shows what its video shows."""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from rov.dives.dive import Dive
from rov.errors import UserError
from rov.imports import dive
from rov.media.check import WorthlessError
from rov.media.files import TimedFrame, write_text
from rov.media.overlay import OverlayWriter
from rov.media.pictures import write_image
from rov.messages import Frame, ThrusterCommand, VehicleState
from rov.offline.detect import PictureSource
from rov.offline.source import open_recording
from rov.resources import checkout
from rov.types import Image
from tests.commands import rov
from tests.daemon.harness import light_weights
from tests.films import grey, moving, retimed, turn_header, write_film

pytestmark = pytest.mark.patient

S = 1_000_000_000


def limited(file_limit: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    """`rov` in a process of its own, whose files may have so many bytes."""
    limits = (file_limit, file_limit)
    return subprocess.run(
        [sys.executable, "-m", "rov", *map(str, arguments)], cwd=checkout(), capture_output=True, text=True,
        check=False, timeout=120, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limits),
    )  # fmt: skip


def light(folder: Path) -> tuple[str, str]:
    """Options: the detector with an input as large as the made films, which costs a tenth."""
    return "--set", f"perception.weights={light_weights(folder, 160)}"


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file of this process may grow beyond `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# ---- replay and detect ------------------------------------------------------------------------------------------


def test_a_replay_of_nothing_ends_with_2_and_one_of_a_jump_in_seconds(tmp_path: Path) -> None:
    black = write_film(tmp_path / "black.mp4", [grey(0)] * 12)
    film = write_film(tmp_path / "f.mkv", [moving(k) for k in range(40)], options={"bf": "0"})
    jump = retimed(film, tmp_path / "jump.mkv", lambda k: k if k < 20 else k + 376_000)
    run = rov("replay", black, jump, *light(tmp_path), "--out", tmp_path / "o")
    lines = run.stderr.strip().splitlines()
    assert run.returncode == 2, run.stderr
    assert [line for line in lines if line.startswith("error: ")] == [
        f"error: {black}: all 12 pictures are black; {tmp_path}/o/black holds the results"
    ]
    assert f"note: {jump}: the video's clock jumps 37600 s at 2.0 s" in lines
    reports = {name: json.loads((tmp_path / "o" / name / "report.json").read_text()) for name in ("black", "jump")}
    assert "black" in reports["black"]["fault"] and reports["jump"]["fault"] == ""
    assert (reports["jump"]["frames"], reports["jump"]["dropped"]) == (40, 0)
    assert reports["jump"]["realtime_factor"] < 1000, "what was not recorded does not count"
    with Dive(tmp_path / "o" / "jump" / "dive.mcap") as read:
        acts = [each.data for each in read.messages(["thrusters"]) if isinstance(each.data, ThrusterCommand)]
    before = [act for act in acts if act.t < 100 * S]
    assert 140 < len(before) < 160 and 95 < len(acts) - len(before) < 105, "1.9 s and a second more; 2 s"
    assert before[-1].neutral_because, "it is seen to stop when it sees nothing more"
    capture = cv2.VideoCapture(str(tmp_path / "o" / "jump" / "overlay.mp4"))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 40 and 9 < capture.get(cv2.CAP_PROP_FPS) < 11


def test_a_folder_of_odd_pictures_with_a_name_that_is_no_text(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    jpeg = cv2.imencode(".jpg", moving(3, (160, 120)))[1].tobytes()
    for raw, data in (
        (b"good.jpg", jpeg),
        (b"caf\xe9.jpg", jpeg),
        (b"half.jpg", jpeg[: len(jpeg) // 2]),
        (b"x.HEIC", b"x"),
    ):
        (folder / os.fsdecode(raw)).write_bytes(data)
    film = tmp_path / os.fsdecode(b"plong\xe9e.mp4")
    write_film(tmp_path / "f.mp4", [moving(k) for k in range(5)]).rename(film)
    run = rov("detect", folder, film, "--out", tmp_path / "d.json")
    assert run.returncode == 0, run.stderr
    answer = json.loads((tmp_path / "d.json").read_text())
    names = [Path(image["file_name"]).name for image in answer["images"]]
    assert names == ["caf\ufffd.jpg", "good.jpg", *(f"plong\ufffde.mp4#{k}" for k in range(5))]
    assert len(answer["skipped"]) == 2 and "fault" not in answer
    assert "1 file of another kind was not looked at: .HEIC 1" in answer["skipped"][0]
    assert "half.jpg: cannot be read as an image: it is damaged" in answer["skipped"][1]


@pytest.mark.parametrize(
    ("pictures", "fault"),
    [([grey(0)] * 12, "all in all: all 12 pictures are black"), ([moving(1)] * 4 + [None] * 8, "only 4 of the 12"),
     ([moving(k) for k in range(9)] + [None] * 3, "")],
)  # fmt: skip
def test_stills_that_show_nothing_are_no_success(tmp_path: Path, pictures: list[Image | None], fault: str) -> None:
    for k, image in enumerate(pictures):
        data = b"nothing" if image is None else cv2.imencode(".png", image)[1].tobytes()
        (tmp_path / f"{k:02}.png").write_bytes(data)
    stills = PictureSource([tmp_path])
    if fault:
        with pytest.raises(WorthlessError, match=fault):
            list(stills)
    else:
        assert len(list(stills)) == 9 and len(stills.skipped) == 3


def test_a_source_says_its_fault_when_it_is_exhausted(tmp_path: Path) -> None:
    source = open_recording(write_film(tmp_path / "f.mkv", [grey(90)] * 30, "ffv1", pix_fmt="bgr0"))
    assert source.fault() == "" and len(list(source.items)) == 30
    assert "all 30 pictures are the same" in source.fault() and source.lost is not None and source.lost() == 0


# ---- import ------------------------------------------------------------------------------------------------------


def imported(film: Path, out: Path) -> tuple[dive.ImportedDive, list[TimedFrame], list[Frame], list[str]]:
    """The dive imported from a video and a log that begins at 5 s; read back."""
    states = [VehicleState(t=5 * S + k * S // 10) for k in range(80)]
    log: Any = SimpleNamespace(states=states, topics={"vehicle": states}, about={})
    done = dive.write(out, log, film, 0.0, {"source": "x"}, quality=90)
    with Dive(out) as read:
        frames = [each.data for each in read.messages(["frame"]) if isinstance(each.data, Frame)]
    return done, [item for item in open_recording(out).items if isinstance(item, TimedFrame)], frames, done.notes


def edited(folder: Path) -> Path:
    whole = write_film(folder / "w.mp4", [moving(k) for k in range(60)], options={"bf": "0", "g": "20"})
    return retimed(whole, folder / "f.mp4", lambda k: k - 30, first=20)


def hung(folder: Path) -> Path:
    return turn_header(
        write_film(folder / "f.mp4", [moving(k)[::-1, ::-1] for k in range(30)], options={"bf": "0"}), (-1, 0, 0, -1)
    )


def interlaced(folder: Path) -> Path:
    options = {"bf": "2", "flags": "+ilme+ildct", "x264-params": "tff=1"}
    return write_film(folder / "f.mkv", [moving(k) for k in range(30)], options=options)


@pytest.mark.parametrize(("make", "first"), [(edited, 30), (hung, 0), (interlaced, 0)])
def test_a_dive_shows_what_its_film_shows(tmp_path: Path, make: Callable[[Path], Path], first: int) -> None:
    done, shots, frames, notes = imported(make(tmp_path), tmp_path / "d.mcap")
    assert done.pictures == len(shots) == len(frames) == 30 and done.copied == "" and notes == []
    assert shots[0].t == 5 * S and shots[-1].t == 5 * S + 2_900_000_000
    for k, (shot, frame) in enumerate(zip(shots, frames, strict=True)):
        assert np.abs(shot.image.astype(int) - moving(first + k)).mean() < 8
        assert (frame.height, frame.width) == shot.image.shape[:2]


def test_a_film_that_shows_nothing_leaves_no_dive(tmp_path: Path) -> None:
    black = write_film(tmp_path / "f.mp4", [grey(0)] * 20, options={"bf": "0", "g": "5"})
    with pytest.raises(WorthlessError, match="all 20 pictures are black"):
        imported(black, tmp_path / "d.mcap")
    assert not (tmp_path / "d.mcap").exists()


# ---- a full disk -------------------------------------------------------------------------------------------------


def test_a_replay_onto_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    film = write_film(tmp_path / "f.mp4", [moving(k, (320, 240)) for k in range(40)])
    run = limited(60_000, "replay", film, *light(tmp_path), "--out", tmp_path / "o")
    errors = [line for line in run.stderr.splitlines() if line.strip()]
    assert run.returncode == 2 and len(errors) == 1, run.stderr
    assert errors[0].startswith(f"error: {tmp_path}/o/") and "cannot be written" in errors[0]


def test_every_writer_says_that_the_disk_is_full(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="/dev/full: cannot be written: No space left on device"):
        write_text(Path("/dev/full"), "x")
    with pytest.raises(UserError, match="/dev/full: cannot be written: No space left on device"):
        write_image(Path("/dev/full"), grey(3))
    noise = np.random.default_rng(1).integers(0, 255, (120, 160, 3), np.uint8)
    with pytest.raises(UserError, match=r"film\.mp4: cannot be written: File too large"), full_disk(20_000):
        film = OverlayWriter(tmp_path / "film.mp4", 160, 120, 10)
        try:
            for k in range(60):
                film.write(np.roll(noise, 7 * k, 1), k * S // 10)
        finally:
            film.close()
