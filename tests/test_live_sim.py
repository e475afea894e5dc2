"""The whole daemon against the live simulator: real processes, a pty, a camera in camerad's place."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rov.config.schema import Config
from rov.dives.dive import Dive
from rov.messages import Frame, Mode, PilotStatus, PolicyInput, ThrusterCommand, VehicleState
from rov.resources import checkout
from sim.evaluation import live
from sim.tasks import transit
from sim.tasks.scenes import look
from sim.tasks.sea import Sea
from tests.commands import rov
from tests.daemon.harness import free_port, light_weights
from tests.policies import write_policy
from tests.seas import FLOWING

pytestmark = [pytest.mark.clock, pytest.mark.daemon]


def test_the_daemon_holds_in_a_current(tmp_path: Path) -> None:
    then = 'seconds = 1.0\n[[course]]\nmode = "hold"\nseconds = 9.0'  # the first step waits for perception
    (tmp_path / "flow.toml").write_text(FLOWING.replace("seconds = 30.0", then))
    settings = ["--set", "perception.rate_hz=4", "--set", "vehicle.max_depth=20"]
    settings += ["--set", f"perception.weights={light_weights(tmp_path)}"]
    command = [sys.executable, "-m", "sim", "run", str(tmp_path / "flow.toml"), "--course", "--size", "80x60"]
    command += ["--out", str(tmp_path / "dives"), *settings]
    for end in ("public", "commands"):
        command += ["--set", f"bus.{end}=tcp://127.0.0.1:{free_port()}"]
    environment = os.environ | {"PYTHONPATH": str(checkout())}
    done = subprocess.run(
        command, cwd=checkout(), env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "dives").glob("*.mcap")
    with Dive(path) as dive:
        said = [record.data for record in dive.messages(["vehicle", "thrusters", "pilot", "frame"])]
        assert dive.complete, dive.problems
    states = [each for each in said if isinstance(each, VehicleState)]
    held = [each for each in said if isinstance(each, ThrusterCommand) if each.armed and each.mode is Mode.HOLD]
    assert len([each for each in said if isinstance(each, Frame)]) > 20
    assert any(isinstance(each, PilotStatus) and each.operator == "course" for each in said)
    began, ended = held[0].t, held[-1].t
    assert ended - began > 8e9
    late = [each for each in states if ended - 4e9 < each.t < ended]
    start = next(each for each in states if each.t >= began)
    assert max(abs(each.depth - start.depth) for each in late) < 0.15, "m"
    turned = [math.degrees(math.remainder(each.yaw - start.yaw, 2 * math.pi)) for each in late]
    assert np.abs(turned).max() < 6.0, "degrees, by its own compass"


def test_the_policy_steers_the_whole_daemon_beside_ardusub_and_is_repeated(tmp_path: Path) -> None:
    """An untrained policy: what it does is nothing good, but it is engaged as on the vehicle, and repeated exactly."""
    policy, encoder = write_policy(tmp_path)
    (tmp_path / "flow.toml").write_text(FLOWING)
    command = [sys.executable, "-m", "sim", "run", str(tmp_path / "flow.toml"), "--size", "80x60"]
    command += ["--task", "transit", "--seconds", "5", "--link", "ardusub", "--out", str(tmp_path / "dives")]
    files = ["--set", f"steering.policy={policy}", "--set", f"steering.encoder={encoder}"]
    files += ["--set", f"perception.weights={light_weights(tmp_path)}"]
    command += [*files, "--set", "perception.rate_hz=4", "--set", "vehicle.max_depth=20"]
    for end in ("public", "commands"):
        command += ["--set", f"bus.{end}=tcp://127.0.0.1:{free_port()}"]
    environment = os.environ | {"PYTHONPATH": str(checkout())}
    done = subprocess.run(
        command, cwd=checkout(), env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0 and "the policy steered for" in done.stdout, done.stdout + done.stderr
    (path,) = (tmp_path / "dives").glob("*.mcap")
    with Dive(path) as dive:
        said = [record.data for record in dive.messages(["policy_input", "setpoint", "thrusters"])]
    given = [each for each in said if isinstance(each, PolicyInput)]
    moved = [each for each in said if isinstance(each, ThrusterCommand) if each.armed and each.mode is Mode.POLICY]
    assert [each.reset for each in given[:1]] == [True] and any(each.reset for each in given[8:])
    assert len({each.frame_id for each in moved} & {each.frame_id for each in given}) > 8
    settings = [*files, "--set", "perception.rate_hz=4", "--set", "vehicle.max_depth=20"]
    again = rov("replay", path, "--out", tmp_path / "r", "--diff", "--no-overlay", *settings)
    assert again.returncode == 0, again.stdout + again.stderr
    rows = {row["topic"]: row for row in json.loads((tmp_path / "r/report.json").read_text())["diff"]}
    for topic in ("detections", "tracks", "setpoint", "policy_input", "wrench", "thrusters"):
        assert rows[topic]["differing"] == 0 and rows[topic]["compared"] > 0, again.stdout


def test_an_episode_is_sailed_by_the_whole_daemon_and_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An untrained policy has three seconds for a course that takes forty: out of time, and in that time it steered."""
    policy, _ = write_policy(tmp_path)
    monkeypatch.setattr(transit, "TIME_S", 3.0)
    monkeypatch.setattr(live, "SIZE", (80, 60))
    shipped = live.configured

    def light(policy: Path, ends: Path) -> Config:
        config = shipped(policy, ends)
        few = {"weights": str(light_weights(tmp_path)), "rate_hz": 4.0}
        return config.model_copy(update={"perception": config.perception.model_copy(update=few)})

    monkeypatch.setattr(live, "configured", light)
    water = Sea("transit", "easy", 2, seed=3, split="test", hull="heavy", auto_reset=False)
    water.reset()
    sailed = live.sail(water, 0, look("reef", 1), policy, tmp_path / "dives")
    assert sailed.outcome.timed_out[0] and not sailed.let_go and not sailed.touched
    joules, seconds, _ = sailed.bill.tolist()
    assert seconds == pytest.approx(3.0, abs=0.15) and joules > 46.0, "the computer alone takes 15 W"
    (path,) = (tmp_path / "dives").glob("*.mcap")
    with Dive(path) as dive:
        said = [record.data for record in dive.messages(["thrusters", "setpoint"])]
    moved = [each for each in said if isinstance(each, ThrusterCommand) if each.armed and each.mode is Mode.POLICY]
    assert (moved[-1].t - moved[0].t) / 1e9 > 2.5, "s"
