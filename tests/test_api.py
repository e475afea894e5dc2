"""What programs use of `rov` besides the client: dives, the detector, the configuration."""

import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from rov import Config, Detections, Detector, Dive, Event, Observation, TimedFrame, UserError, VehicleState
from rov.resources import checkout
from tests.conftest import disc

SAMPLE = checkout() / "sim" / "sample.mcap"


def test_a_dive_is_read_by_kind_of_message() -> None:
    with Dive(str(SAMPLE)) as dive:
        depths = [state.depth for state in dive.read(VehicleState) if state.depth_t]
        assert len(depths) == 350 and 0.5 < max(depths) < 4.0
        assert len(list(dive.read(Observation))) == 56 == len(list(dive.read(Detections)))
        pictures = list(dive.pictures())
    assert len(pictures) == 56 and all(isinstance(each, TimedFrame) for each in pictures)
    assert pictures[0].image.shape == (360, 480, 3) and pictures[0].t < pictures[1].t


def test_a_dive_is_written_and_read_again(tmp_path: Path) -> None:
    events = [Event(t=n * 10**9, level="info", source="ctd", code="salinity", text=f"{30 + n}") for n in range(5)]
    with Dive.create(tmp_path / "ctd.mcap", source="CTD 12") as dive:
        for event in events:
            dive.write("events", event)
    with Dive(tmp_path / "ctd.mcap") as dive:
        assert list(dive.read(Event)) == events and dive.metadata["source"] == "CTD 12" and dive.complete
        with pytest.raises(UserError, match="no pictures in it"):
            dive.pictures()
    with pytest.raises(UserError, match="exists already"):
        Dive.create(tmp_path / "ctd.mcap")


def test_the_detector_takes_pictures_and_their_files(tmp_path: Path) -> None:
    image = disc((320, 240), 0.5)
    path = tmp_path / "disc.png"
    assert cv2.imwrite(str(path), image)
    detector = Detector(device="cpu", precision="float32", batch=2)
    from_array, from_name, from_path = detector.detect([image, str(path), path], score_min=0.05)
    assert from_array == from_name == from_path and len(detector.card.classes) > 5
    (empty,) = detector.detect([np.zeros((10, 10, 3), np.uint8)])
    assert empty == ()
    with pytest.raises(UserError, match="no such file"):
        detector.detect([tmp_path / "none.png"])


def test_the_program_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    page = (checkout() / "docs" / "client.md").read_text()
    (program,) = [block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "Detector" in block]
    shutil.copy(SAMPLE, tmp_path / "dive.mcap")
    (tmp_path / "rover.toml").write_text("[vehicle]\nmax_depth = 30\n")
    monkeypatch.chdir(tmp_path)
    exec(program, {})
    assert re.match(r"\d\.\d m, 56 pictures, \['", capsys.readouterr().out)
    with Dive("notes.mcap") as dive:
        assert [event.code for event in dive.read(Event)] == ["tide"]


def test_a_configuration_is_loaded_and_changed(tmp_path: Path) -> None:
    assert Config.load().vehicle.max_depth == 100
    path = tmp_path / "rover.toml"
    path.write_text("[vehicle]\nmax_depth = 30\n")
    config = Config.load(str(path), ["steering.target=fish"])
    assert (config.vehicle.max_depth, config.steering.target) == (30, "fish")
    path.write_text("[vehicle]\nmax_depht = 30\n")
    with pytest.raises(UserError, match="did you mean max_depth"):
        Config.load(path)
