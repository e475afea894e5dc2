"""A simulated dive, filmed and logged apart: imported, its parts find each other again, and no picture was touched."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import av
import cv2
import numpy as np
import pytest
from pymavlink.dialects.v20 import ardupilotmega as mav

from rov.cli.common import curve, detector
from rov.config.schema import load, override
from rov.dives.dive import Dive, EncodedPicture
from rov.imports.align import CONFIDENCE_MIN
from rov.messages import Frame, VehicleState
from rov.resources import find_resource
from sim.dive import dive
from sim.world import parse, realise
from tests.commands import rov
from tests.daemon.harness import light_weights
from tests.logs import TlogFile
from tests.test_import import BOOT_S

pytestmark = pytest.mark.patient

FPS = 10
WORLD = """
about = "A basin with rocks, in which a vehicle turns and rises and sinks."
[water]
type = "pool"
[start]
depth = 1.5
heading_deg = 30.0
[ground]
kind = "sand"
depth = 3.5
relief = 0.1
walls = [-6.0, 6.0, -6.0, 6.0]
wall = [0.3, 0.42, 0.5]
[[things]]
kind = "rock"
count = 12
north = {uniform = [-5.0, 5.0]}
east = {uniform = [-5.0, 5.0]}
"""
CODECS = {"libx265": {"preset": "ultrafast", "x265-params": "bframes=0:keyint=25:log-level=none"}}
CODECS |= {"libx264": {"preset": "ultrafast", "bf": "0", "g": "25"}}
PARAMETERS = {32, 33, 34, 35, 39}
"""HEVC's VPS, SPS, PPS, delimiter and remarks: what Annex B repeats, and an MP4 keeps once."""


class Sailed(NamedTuple):
    pictures: list[tuple[int, np.ndarray]]
    states: list[VehicleState]


@pytest.fixture(scope="module")
def sailed(tmp_path_factory: pytest.TempPathFactory) -> Sailed:
    """20 s of pictures and states; the sticks are such that no stretch looks like another."""
    out, rng = tmp_path_factory.mktemp("sailed"), np.random.default_rng(4)
    course = "".join(
        f'[[course]]\nmode = "hold"\nyaw = {rng.uniform(-0.8, 0.8):.2f}\nheave = {rng.uniform(-0.5, 0.5):.2f}\n'
        f"seconds = {rng.uniform(0.8, 2.2):.2f}\n"
        for _ in range(14)
    )
    config = override(load(find_resource("rover.toml")), [f"perception.rate_hz={FPS}"])
    place = realise(parse((WORLD + course).encode(), Path("basin.toml")), 1)
    eyes = detector(config, 1)
    dive(place, config, eyes, curve(config), out, seconds=20, size=(160, 120), exact=True, overlay=False)
    with Dive(out / "dive.mcap") as recorded:
        found = [each.data for each in recorded.messages(["camera", "vehicle"])]
    pictures = [(p.t, cv2.imdecode(np.frombuffer(p.data, np.uint8), cv2.IMREAD_COLOR)) for p in found
                if isinstance(p, EncodedPicture)]  # fmt: skip
    return Sailed(pictures, [each for each in found if isinstance(each, VehicleState)])


def film(pictures: list[tuple[int, np.ndarray]], path: Path, codec: str) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=FPS)
        stream.width, stream.height, stream.pix_fmt, stream.options = 160, 120, "yuv420p", CODECS[codec]
        for _, image in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        container.mux(stream.encode(None))
    return path


def logged(states: list[VehicleState], path: Path) -> Path:
    """What a ground station would have written of it: attitude at 25 Hz, depth at half of that."""
    log = TlogFile()
    for i, state in enumerate(states[::2]):
        wall = (state.t - states[0].t) / 1e9
        boot = round((BOOT_S + wall) * 1000)
        log.add(wall, mav.MAVLink_attitude_message(boot, state.roll, state.pitch, state.yaw, *state.rates))
        if i % 2 == 0:
            log.add(wall, mav.MAVLink_vfr_hud_message(0, 0, 0, 0, -state.depth, 0))
        if i % 25 == 0:
            log.add(wall, mav.MAVLink_heartbeat_message(12, 3, 81 | 128, 2, 4, 3))
    path.write_bytes(log.data)
    return path


@pytest.mark.parametrize(("codec", "first"), [("libx265", 37), ("libx264", 62)])
def test_a_simulated_dive_is_put_together_again(sailed: Sailed, codec: str, first: int, tmp_path: Path) -> None:
    if codec not in av.codecs_available:
        pytest.skip(f"this build of PyAV has no {codec}")
    part = sailed.pictures[first : first + 120]
    video = film(part, tmp_path / "v.mp4", codec)
    out = tmp_path / "d.mcap"
    run = rov("import", video, "--tlog", logged(sailed.states, tmp_path / "l.tlog"), "--out", out)
    assert run.returncode == 0, run.stderr
    found = re.search(r"offset ([-\d.]+) s \(confidence ([\d.]+)", run.stdout)
    assert found, run.stdout
    truth = (part[0][0] - sailed.states[0].t) / 1e9
    assert abs(float(found[1]) - truth) < 0.1 and float(found[2]) > CONFIDENCE_MIN
    assert f"120 pictures copied as {codec.replace('libx', 'h')}" in run.stdout
    with Dive(out) as imported:
        assert imported.complete and imported.counts["camera"] == imported.counts["frame"] == 120
        frames = [each.data for each in imported.messages(["frame"]) if isinstance(each.data, Frame)]
        pictures = [each.data for each in imported.messages(["camera"]) if isinstance(each.data, EncodedPicture)]
    zero = BOOT_S * 1e9 + truth * 1e9
    assert all(abs(f.frame_t - (zero + i * 1e9 / FPS)) < 1e8 for i, f in enumerate(frames))
    if codec == "libx265":
        assert [units(picture.data) for picture in pictures] == stored(video)
        eyes = f"perception.weights={light_weights(tmp_path)}"
        replay = rov("replay", out, "--no-overlay", "--out", tmp_path / "r", "--set", eyes)
        assert replay.returncode == 0 and "120 of 120 frames" in replay.stdout, replay.stderr


def units(annex_b: bytes) -> list[bytes]:
    """The coded units between start codes, without parameter sets."""
    found = [each for each in re.split(rb"\x00\x00\x00?\x01", annex_b) if each]
    return [each for each in found if each[0] >> 1 & 0x3F not in PARAMETERS]


def stored(video: Path) -> list[list[bytes]]:
    """The same of each packet of an MP4, where a length of four bytes stands before each unit."""
    packets = []
    with av.open(str(video)) as container:
        for packet in container.demux(video=0):
            data, found = bytes(packet), []
            while data:
                size = int.from_bytes(data[:4], "big")
                found.append(data[4 : 4 + size])
                data = data[4 + size :]
            if found:
                packets.append([each for each in found if each[0] >> 1 & 0x3F not in PARAMETERS])
    return packets
