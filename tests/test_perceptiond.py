"""The network's process says every second that it is well, whatever its pictures are like."""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from rov.bus import Publisher, Reader, inbox
from rov.config.schema import parse
from rov.media.ring import RingWriter
from rov.messages import Event, Frame, Health, Message, Setpoint, VehicleState
from rov.optics.lens import Calibration, save
from rov.perceptiond import FrameProcessor, open_policy
from rov.resources import find_resource
from rov.vision.detector import Detector
from tests.daemon.harness import environment
from tests.policies import with_policy, write_policy

MS = 1_000_000
FITS, OTHER = (120, 160), (96, 128)
"""Height and width of pictures: as the calibration wants them, and not."""


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A configuration with a small network and a calibration for pictures that fit."""
    folder = tmp_path_factory.mktemp("perceptiond")
    weights = folder / "detector.safetensors"
    shutil.copy(find_resource("models/detector.safetensors"), weights)
    card = find_resource("models/detector.toml").read_text()
    weights.with_suffix(".toml").write_text(re.sub(r"(?m)^size = \d+", "size = 96", card))
    height, width = FITS
    matrix = np.array([[150.0, 0, width / 2], [0, 150.0, height / 2], [0, 0, 1]])
    save(Calibration("x", width, height, matrix, "plumb_bob", np.zeros(5)), folder / "camera.yaml", [])
    return (
        f'[vehicle]\nmax_depth = 30\n[camera]\ncalibration = "{folder / "camera.yaml"}"\n'
        f'[perception]\nweights = "{weights}"\ndevice = "cpu"\nrate_hz = 5\n'
    )


def seen(frame_id: int, shape: tuple[int, int], watch: FrameProcessor) -> list[str]:
    """What is said of a picture: codes of events, and names of messages."""
    frame_t = time.monotonic_ns()
    frame = Frame(t=frame_t, frame_id=frame_id, frame_t=frame_t, width=shape[1], height=shape[0])
    said = watch.step(frame, np.full((*shape, 3), 90, np.uint8))
    return [each.code if isinstance(each, Event) else type(each).__name__ for each in said]


ALL = ["Detections", "Tracks", "Observation", "Setpoint"]


def test_a_policy_is_announced_and_steers_once_it_has_a_task(settings: str, tmp_path: Path) -> None:
    files = write_policy(tmp_path, tasks=("transit", "station"))
    config = with_policy(parse(settings), files, name="transit")
    model, said = open_policy(config)
    assert model is not None and (said.level, said.code) == ("warning", "untrained_rate")  # 5 Hz here
    fast = config.model_copy(update={"perception": config.perception.model_copy(update={"rate_hz": 10.0})})
    assert open_policy(fast)[1].text == "policy steers station, transit, once told to"
    watch = FrameProcessor(config, Detector(find_resource(config.perception.weights), "cpu", "float32"), model)
    assert seen(0, FITS, watch) == ALL[:-1]  # nothing is known of the vehicle
    now = time.monotonic_ns()
    watch.receive_state(VehicleState(t=now, attitude_t=now, depth_t=now, depth=2.0))
    assert seen(1, FITS, watch) == [*ALL[:-1], "PolicyInput", "Setpoint"]
    files[0].write_bytes(b"")
    model, said = open_policy(config)
    assert model is None and said.code == "no_policy" and "is not the file its card describes" in said.text
    watch = FrameProcessor(parse(settings), watch.detector, model)
    assert seen(2, FITS, watch) == ALL


def test_a_picture_that_is_refused_moves_nothing_and_is_said_once(settings: str) -> None:
    config = parse(settings)
    detector = Detector(find_resource(config.perception.weights), "cpu", "float32")
    watch, ids = FrameProcessor(config, detector), itertools.count()
    assert seen(next(ids), FITS, watch) == ALL
    assert [seen(next(ids), OTHER, watch) for _ in range(3)] == [["calibration_refused"], [], []]
    assert seen(next(ids), FITS, watch) == ["calibration_refused_over", *ALL]
    good = detector.net.state_dict()
    bad = {name: value * float("nan") if value.is_floating_point() else value for name, value in good.items()}
    good = {name: value.clone() for name, value in good.items()}
    detector.net.load_state_dict(bad)
    assert [seen(next(ids), FITS, watch) for _ in range(3)] == [["bad_network"], [], []]
    detector.net.load_state_dict(good)
    assert seen(next(ids), FITS, watch) == ["bad_network_over", *ALL]


class Camera:
    """Announces pictures, 30 a second, in a thread: faster than they are looked at."""

    def __init__(self, root: Path):
        self.root = root
        self.shape: tuple[int, int] | None = None
        """None: no pictures at all."""
        self.gone = False
        """Announced, and no longer in the ring when they are looked for."""
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self) -> None:
        pub = Publisher("camerad", self.root)
        ring = RingWriter(self.root / "frames.ring", FITS[1], FITS[0])
        for frame_id in itertools.count():
            if self.ending.wait(1 / 30):
                break
            if self.shape is None:
                continue
            now = time.monotonic_ns()
            slot = ring.write(np.full((*self.shape, 3), frame_id % 200, np.uint8), frame_id, now)
            height, width = self.shape
            told = frame_id + 1000 if self.gone else frame_id
            pub.publish(Frame(t=now, frame_id=told, frame_t=now, width=width, height=height, slot=slot))
        pub.close()


class Ear:
    """Hears what the process says."""

    def __init__(self, mail: Reader):
        self.mail = mail
        self.heard: list[Message] = []

    def of(self, kind: type[Message], since: int = 0) -> list[Message]:
        self.heard += [entry.message for entry in self.mail.receive()]
        return [each for each in self.heard if isinstance(each, kind) and each.t >= since]

    def until(self, found: Callable[[], object], seconds: float = 60.0) -> None:
        end = time.monotonic() + seconds
        while not found():
            assert time.monotonic() < end, self.heard[-10:]
            time.sleep(0.02)

    def codes(self) -> list[str]:
        return [each.code for each in self.of(Event) if isinstance(each, Event)]


@pytest.fixture
def running(settings: str, tmp_path: Path) -> Iterator[tuple[Camera, Ear]]:
    """The process, its camera, and what it says."""
    root = tmp_path / "run"
    root.mkdir(0o700)
    (tmp_path / "rover.toml").write_text(settings)
    mail = inbox("recorder", root)
    camera = Camera(root)
    command = [sys.executable, "-m", "rov.perceptiond", str(tmp_path / "rover.toml"), str(root)]
    with subprocess.Popen(command, env=environment()) as process:
        try:
            ear = Ear(mail)
            ear.until(lambda: "warm" in ear.codes())
            yield camera, ear
            process.terminate()
            assert process.wait(10) == 0
        finally:
            process.kill()
            camera.ending.set()
            camera.thread.join()
            mail.close()


@pytest.mark.clock
def test_it_says_that_it_is_well_whatever_comes(running: tuple[Camera, Ear]) -> None:
    camera, ear = running
    for shape, gone, sees in ((None, False, False), (OTHER, False, False), (FITS, True, False), (FITS, False, True)):
        camera.shape, camera.gone = shape, gone
        time.sleep(0.2)
        began = time.monotonic_ns()
        time.sleep(2.2)
        said = ear.of(Health, began)
        assert len(said) >= 2, (shape, gone, said)
        assert bool(ear.of(Setpoint, began)) == sees
        assert {each.rate_hz > 0 for each in said[1:] if isinstance(each, Health)} == {sees}
    assert ear.codes().count("calibration_refused") == 1
