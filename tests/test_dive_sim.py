"""Simulated dives in lockstep: the same twice, replayed exactly, and the daemon's own stages keep what they should."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from rov.cli.common import curve, detector
from rov.config.schema import Config, load, override
from rov.dives.dive import Dive
from rov.messages import Mode, Observation, PilotStatus, PolicyInput, Setpoint, ThrusterCommand, VehicleState
from rov.offline.replay import ReplayResult, replay
from rov.offline.source import open_recording
from rov.resources import checkout, find_resource
from rov.steering.policy_model import PolicyModel
from rov.vision.detector import Detector
from sim.dive import dive
from sim.world import RealisedWorld, WorldError, parse, realise
from tests.policies import with_policy, write_policy
from tests.seas import FLOWING

pytestmark = pytest.mark.patient

DIVER = """
about = "A diver who swims in a circle before the camera."
[water]
type = "IB"
[start]
depth = 3.0
[ground]
depth = 6.0
[[things]]
kind = "diver"
north = 4.0
east = 0.0
above = 3.0
[[course]]
mode = "hold"
seconds = 3.5
[[course]]
mode = "follow"
target = "diver"
size = 0.35
seconds = 30.0
"""


TRANSIT = """
about = "Sand and rocks, over which the policy steers to the east."
[water]
type = "IB"
[start]
depth = 3.0
[ground]
depth = 4.5
[[things]]
kind = "boulders"
count = 4
north = {uniform = [2.0, 6.0]}
east = {uniform = [-2.0, 2.0]}
[[course]]
mode = "hold"
seconds = 1.0
[[course]]
mode = "policy"
task = "transit"
heading_deg = 90.0
depth = 3.0
seconds = 7.0
[[course]]
mode = "hold"
seconds = 1.0
"""


@pytest.fixture(scope="module")
def config() -> Config:
    return override(load(find_resource("rover.toml")), ["perception.rate_hz=5"])


@pytest.fixture(scope="module")
def eyes(config: Config) -> Detector:
    found: Detector = detector(config, 1)
    return found


def sailed(
    world: str, config: Config, eyes: Detector, out: Path, seconds: float, exact: bool, size: int, seed: int = 1
) -> ReplayResult:
    place = realise(parse(world.encode(), Path("made.toml")), seed)
    picture = (size * 4 // 3, size)
    return dive(place, config, eyes, curve(config), out, seconds=seconds, size=picture, exact=exact, overlay=False)


def said(out: Path, topic: str) -> list[object]:
    with Dive(out / "dive.mcap") as recorded:
        return [record.data for record in recorded.messages([topic])]


def test_the_same_twice_and_replayed_exactly(config: Config, eyes: Detector, tmp_path: Path) -> None:
    config = override(config, ["recording.jpeg_quality=98"])  # what JPEG changes is not what is looked for here
    first, second = (
        sailed(DIVER, config, eyes, tmp_path / name, seconds=4.0, exact=False, size=240) for name in ("a", "b")
    )
    assert first.topics == second.topics and first.topics["camera"].count == 20
    again = replay(
        open_recording(tmp_path / "a/dive.mcap"), config, eyes, curve(config), tmp_path / "r", overlay=False, diff=True
    )
    assert again.differences is not None
    rows = {row.topic: row for row in again.differences}
    assert {row.verdict for row in rows.values()} == {"same"}, rows
    assert rows["thrusters"].compared == 200 and rows["setpoint"].compared == rows["tracks"].compared == 20


def test_the_policy_steers_a_course_and_is_repeated_from_its_messages(
    config: Config, eyes: Detector, tmp_path: Path
) -> None:
    """Without training it steers nowhere, but as in the daemon: in shadow first, from a fresh memory once engaged."""
    files = write_policy(tmp_path)
    model, config = PolicyModel(*files), override(with_policy(config, files), ["recording.jpeg_quality=97"])
    place = realise(parse(TRANSIT.encode(), Path("made.toml")), 1)
    dive(place, config, eyes, curve(config), tmp_path, seconds=12.0, size=(120, 90), overlay=False, policy=model)
    modes = [each for each in said(tmp_path, "pilot") if isinstance(each, PilotStatus)]
    given = [each for each in said(tmp_path, "policy_input") if isinstance(each, PolicyInput)]
    setpoints = [each for each in said(tmp_path, "setpoint") if isinstance(each, Setpoint)]
    moved = [each for each in said(tmp_path, "thrusters") if isinstance(each, ThrusterCommand)]
    engaged = [each.t for each in modes if each.mode is Mode.POLICY]
    assert engaged and modes[-1].mode is Mode.HOLD and modes[-1].task == "none"
    shadow = [each for each in given if each.t < engaged[0]]
    assert (engaged[0] - shadow[0].t) / 1e9 > 2.2  # 80 % of 3 s of setpoints
    assert [each.reset for each in given].count(True) == 2 and shadow[0].reset
    by_frame = {(each.source, each.frame_id) for each in setpoints}
    assert len(by_frame) == len(setpoints) == len({each.frame_id for each in setpoints})  # one per frame
    used = {each.frame_id for each in moved if each.mode is Mode.POLICY and each.frame_id >= 0}
    assert len(used) > 10 and {("policy", each) for each in used} <= by_frame
    recording = open_recording(tmp_path / "dive.mcap")
    again = replay(
        recording, config, eyes, curve(config), tmp_path / "r", overlay=False, diff=True, policy=PolicyModel(*files)
    )
    assert again.differences is not None
    rows = {row.topic: row for row in again.differences}
    assert {row.verdict for row in rows.values()} == {"same"}, rows
    assert rows["policy_input"].compared > 20 and rows["setpoint"].compared == len(setpoints)
    assert rows["setpoint"].worst < 1e-5


def test_it_holds_depth_and_heading_in_a_current(config: Config, eyes: Detector, tmp_path: Path) -> None:
    sailed(FLOWING, config, eyes, tmp_path, seconds=18.0, exact=True, size=48)
    states = [each for each in said(tmp_path, "vehicle") if isinstance(each, VehicleState)]
    commands = [each for each in said(tmp_path, "thrusters") if isinstance(each, ThrusterCommand)]
    assert commands[-1].armed and commands[-1].mode is Mode.HOLD
    late = [each for each in states if each.t > states[-1].t - 8_000_000_000]
    start = states[5]
    depths = np.array([each.depth for each in late])
    turned = np.degrees([math.remainder(each.yaw - start.yaw, 2 * math.pi) for each in late])
    assert abs(depths - 3.0).max() < 0.05, "m, 10 s after it was let loose"
    assert abs(turned).max() < 5.0, "degrees, by its own compass"


def test_follow_keeps_a_swimming_diver_in_the_middle(config: Config, eyes: Detector, tmp_path: Path) -> None:
    sailed(DIVER, config, eyes, tmp_path, seconds=14.0, exact=False, size=240, seed=3)  # there he swims in a circle
    seen = [each for each in said(tmp_path, "observation") if isinstance(each, Observation)]
    late = [each for each in seen if each.t > seen[-1].t - 7_000_000_000]
    assert sum(each.visible for each in late) > 0.9 * len(late)
    bearings = np.degrees([each.bearing for each in late if each.visible])
    assert np.abs(bearings).mean() < 10.0, bearings
    commands = [each for each in said(tmp_path, "thrusters") if isinstance(each, ThrusterCommand)]
    assert commands[-1].mode is Mode.FOLLOW
    yaws = np.unwrap([each.yaw for each in said(tmp_path, "vehicle") if isinstance(each, VehicleState)])
    assert np.ptp(np.degrees(yaws)) > 20.0, "the diver swims, so the vehicle must turn after it"


def test_a_course_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(WorldError, match="follow needs a target"):
        parse(DIVER.replace('target = "diver"', "").encode(), Path("made.toml"))


def test_the_worlds_of_the_repository_come_to_a_place(config: Config) -> None:
    paths = [*(checkout() / "sim/worlds").glob("*.toml"), *(checkout() / "models/worlds").glob("*.toml")]
    places: list[RealisedWorld] = [realise(parse(path.read_bytes(), path), 3) for path in sorted(paths)]
    assert len(places) == 5 + 10 and json.dumps([place.start for place in places])
