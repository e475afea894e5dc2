"""The code of docs/extending.md, taken from the page and run: a link, cameras, a class, a thing and a steering law."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rov.config.schema import parse
from rov.messages import Arm, Disarm, Frame, Mode, SetMode, Sticks, TakeOver, Wrench
from rov.motion.commander import Commander
from rov.motion.pilot import Pilot
from rov.perception import Perception
from rov.resources import checkout
from tests.world import CURVE, MS, TICK, World

CONFIG = parse("[vehicle]\nmax_depth = 30.0\n")
BUOY = ("buoy_red", 0.9, (300.0, 200.0, 340.0, 280.0))


def shown(word: str) -> str:
    """The block of Python on the page that holds this word."""
    page = (checkout() / "docs" / "extending.md").read_text()
    (block,) = [each for each in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if word in each]
    return str(block)


def defined(word: str) -> dict[str, Any]:
    """What that block defines."""
    names: dict[str, Any] = {"__name__": "extending"}
    exec(compile(shown(word), "docs/extending.md", "exec"), names)
    return names


class Boat:
    """The vehicle at the other end of JsonLink: answers each command with its state."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.settimeout(0.1)
        self.values: list[list[float]] = []
        self.done = False
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self) -> None:
        while not self.done:
            try:
                data, sender = self.socket.recvfrom(4096)
            except TimeoutError:
                continue
            self.values.append(json.loads(data)["values"])
            self.socket.sendto(b"not json", sender)
            self.socket.sendto(json.dumps({"depth": 2.0, "yaw": 0.5}).encode(), sender)

    def close(self) -> None:
        self.done = True
        self.thread.join()
        self.socket.close()


def test_a_link_arms_moves_and_stops_the_vehicle() -> None:
    boat = Boat()
    link = defined("class JsonLink")["JsonLink"](*boat.socket.getsockname())
    commander = Commander(CONFIG, Pilot(CONFIG, CURVE), link, ("buoy_red",))
    t, seq = 1000 * TICK, 0

    def tell(kind: Any, **more: float) -> str:
        nonlocal seq
        seq += 1
        return str(commander.handle_command(kind(t=t, session="ann", seq=seq, **more), t, t))

    def ticks(count: int, **sticks: float) -> None:
        nonlocal t
        for _ in range(count):
            t += TICK
            time.sleep(0.002)
            link.receive()
            tell(Sticks, **sticks)
            commander.step("ann", t)

    try:
        assert "nothing is heard" in tell(Arm)
        ticks(20)
        assert tell(Arm) == ""
        ticks(20, surge=1.0)
        assert commander.pilot.armed and max(map(abs, boat.values[-1])) == pytest.approx(0.5), "the guard's gain"
        assert link.state is not None and link.state.depth == 2.0
        assert tell(SetMode, mode=Mode.HOLD) == "", "it has depth and attitude"
        tell(Disarm)
        ticks(5, surge=1.0)
        assert not any(boat.values[-1]) and not link.live
    finally:
        link.close(t)
        boat.close()
    assert boat.values[-1] in ([], [0.0] * 8)


def test_a_program_that_writes_frames_is_a_camera(tmp_path: Path) -> None:
    (tmp_path / "pattern.py").write_text(shown("sys.stdout.buffer"))
    from rov.media.camera import Camera
    from rov.media.sources import CaptureSettings, parse_camera_source

    source = parse_camera_source(f"pipe:64x48:{sys.executable} {tmp_path}/pattern.py")
    camera = Camera(source, CaptureSettings(), latency_ms=0.0)
    try:
        end, seen = time.monotonic() + 10.0, -1
        while seen < 3:
            assert time.monotonic() < end
            new = camera.latest(seen, timeout_s=0.5)
            if new is not None:
                seen = new.frame_id
                assert new.image.shape == (48, 64, 3) and np.ptp(new.image[0, :, 0]) > 100
    finally:
        camera.close()


def test_a_program_takes_camerads_place(tmp_path: Path) -> None:
    from rov.bus import Subscriber
    from rov.media.ring import RingReader

    (tmp_path / "mycamera.py").write_text(shown("RingWriter"))
    (tmp_path / "rover.toml").write_text("[vehicle]\nmax_depth = 30\n")
    command = [sys.executable, str(tmp_path / "mycamera.py"), str(tmp_path / "rover.toml"), str(tmp_path)]
    with subprocess.Popen(command, cwd=checkout()) as process:
        frames, ring = Subscriber(Frame, tmp_path), RingReader(tmp_path / "frames.ring")
        end, numbers = time.monotonic() + 20.0, []
        while len(numbers) < 3:
            assert time.monotonic() < end and process.poll() is None
            if frames.wait(200) and frames.receive(time.monotonic_ns()) and frames.message is not None:
                image = ring.read(frames.message)
                if image is not None:
                    assert (image == frames.message.frame_id % 256).all()
                    numbers.append(frames.message.frame_id)
        assert numbers == sorted(set(numbers))
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
        frames.close()


def test_the_classes_are_the_cards(tmp_path: Path) -> None:
    import torch

    from rov.vision.detector import Detector

    torch.set_num_threads(1)
    weights = defined("def make_model")["make_model"](tmp_path, ("scallop", "crab"))
    detector = Detector(weights, "cpu", "float32", batch=1)
    assert detector.card.classes == ("scallop", "crab")
    found = detector.detect([np.zeros((48, 64, 3), np.uint8)], 0.001)[0]
    assert {each.label for each in found} <= {"scallop", "crab"}
    from rov.validate import classes_of

    assert classes_of(weights) == ("scallop", "crab")


def test_a_thing_of_ones_own_is_in_the_picture_with_its_label(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import torch

    from sim.scene.labels import labels
    from sim.scene.render import Renderer
    from sim.scene.things import CATALOGUE
    from sim.world import load, realise

    torch.set_num_threads(1)
    monkeypatch.setitem(CATALOGUE, "anchor", defined("def anchor")["anchor"])
    page = (checkout() / "docs" / "extending.md").read_text()
    (block,) = re.findall(r"```toml\n(\[\[things\]\].*?)```", page, re.DOTALL)
    bare = (checkout() / "sim" / "worlds" / "pool.toml").read_text().partition("[[things]]")[0]
    world = tmp_path / "wreck.toml"
    world.write_text(bare + block)
    place = realise(load(str(world)), seed=1)
    camera = Renderer([place.scene], place.lens(160, 120))
    anchor = next(thing for thing in place.scene.things if thing.label == "metal")
    eye = torch.tensor([[anchor.at[0] - 1.5, anchor.at[1], anchor.at[2] - 0.8]])
    down = 0.5  # rad; a quaternion w x y z of the pitch
    attitude = torch.tensor([[np.cos(down / 2), 0.0, -np.sin(down / 2), 0.0]], dtype=torch.float32)
    shots = camera.render(eye, attitude, 0.0, alone=True)
    assert [label.name for label in labels(camera, shots)[0]] == ["metal"]


def test_a_steering_law_of_ones_own_moves_the_vehicle() -> None:
    def moved(law: Any) -> Any:
        world = World(CONFIG)
        world.perception = law(CONFIG)
        world.run(0.1)
        assert world.tell(TakeOver) == ""
        for _ in range(50):
            world.see(BUOY)
            world.run(0.06, (0.0, 0.0, 0.0, 0.0))
        assert world.tell(SetMode, mode=Mode.FOLLOW) == "" and world.tell(Arm) == ""
        for _ in range(20):
            setpoint = world.see(BUOY, age=60 * MS)
            world.run(0.06, (0.0, 0.0, 0.0, 0.0))
        assert setpoint.frame_id == world.frame
        return world.last[Wrench]

    assert moved(Perception).sway == 0.0
    assert moved(defined("class Circling")["Circling"]).sway == 0.3
