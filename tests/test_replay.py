"""Whole-system: recordings through every stage, as a user runs it, with real files and real processes."""

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from mcap.reader import make_reader

from rov.dives.dive import Dive, EncodedPicture
from rov.dives.recovery import info, recover
from rov.messages import Frame, ThrusterCommand
from rov.resources import checkout
from tests.commands import rov
from tests.conftest import make_clip
from tests.daemon.harness import light_weights

ROV = [sys.executable, "-m", "rov"]


def replayed(*args: object, out: Path) -> dict[str, object]:
    run = rov("replay", *args, "--out", out)
    assert run.returncode == 0, run.stderr
    report = json.loads((out / "report.json").read_text())
    assert isinstance(report, dict)
    return report


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Options: the detector with an input as large as the made clips, which costs a tenth."""
    return "--set", f"perception.weights={light_weights(tmp_path_factory.mktemp('light'), 160)}"


@pytest.fixture(scope="module")
def replay_of_clip(tmp_path_factory: pytest.TempPathFactory, light: tuple[str, str]) -> Path:
    """A replay of a made clip, once for several tests."""
    folder = tmp_path_factory.mktemp("replay")
    clip = make_clip(folder / "clip.avi", frames=30)
    replayed(clip, *light, out=folder / "out")
    return folder


def test_what_it_leaves(replay_of_clip: Path) -> None:
    out = replay_of_clip / "out"
    report = json.loads((out / "report.json").read_text())
    assert report["frames"] == report["processed"] == 30 and report["dropped"] == 0
    assert set(report["stages_ms"]) == {"decode", "detect", "perceive", "control", "record"}
    assert all(set(ms) == {"p50", "p95", "p99"} for ms in report["stages_ms"].values())
    for key in (
        "source",
        "wall_s",
        "fps",
        "realtime_factor",
        "detections",
        "config_sha256",
        "weights_sha256",
        "version",
    ):
        assert key in report
    film = cv2.VideoCapture(str(out / "overlay.mp4"))
    assert film.get(cv2.CAP_PROP_FRAME_COUNT) == 30 and film.get(cv2.CAP_PROP_FRAME_WIDTH) == 160
    page = (out / "report.html").read_text()
    assert "<svg" in page and "overlay.mp4" in page and "open" in page


def test_the_dive_opens_with_the_public_reader_under_foxgloves_schemas(replay_of_clip: Path) -> None:
    with (replay_of_clip / "out" / "dive.mcap").open("rb") as file:
        summary = make_reader(file).get_summary()
    assert summary is not None and summary.statistics is not None
    schemas = {channel.topic: summary.schemas[channel.schema_id] for channel in summary.channels.values()}
    assert schemas["camera"].name == "foxglove.CompressedImage" and schemas["camera"].encoding == "protobuf"
    assert schemas["annotations"].name == "foxglove.ImageAnnotations"
    assert schemas["thrusters"].encoding == "jsonschema"
    assert json.loads(schemas["thrusters"].data)["type"] == "object"


def test_the_pilot_acts_at_its_pace_on_recorded_time(replay_of_clip: Path) -> None:
    with Dive(replay_of_clip / "out" / "dive.mcap") as dive:
        acts = [r.data for r in dive.messages(["thrusters"]) if isinstance(r.data, ThrusterCommand)]
        frames = [r.data for r in dive.messages(["frame"]) if isinstance(r.data, Frame)]
        pictures = [r for r in dive.messages(["camera"]) if isinstance(r.data, EncodedPicture)]
    assert {b.t - a.t for a, b in zip(acts, acts[1:], strict=False)} == {20_000_000}
    assert len(acts) == 150, "3 s at 50 Hz"
    assert [frame.frame_t for frame in frames] == [picture.t for picture in pictures]
    for act in acts:  # the frame that moves the rover is the newest before the act
        assert 0 <= act.t - act.frame_t <= 100_000_000 or act.frame_id == -1


def test_twice_the_same(replay_of_clip: Path, tmp_path: Path, light: tuple[str, str]) -> None:
    first = json.loads((replay_of_clip / "out" / "report.json").read_text())
    again = replayed(replay_of_clip / "clip.avi", "--no-overlay", *light, out=tmp_path / "again")
    assert again["topics"] == first["topics"]
    assert not (tmp_path / "again" / "overlay.mp4").exists()


def test_a_dive_replays_and_differs_in_nothing_from_itself(replay_of_clip: Path, tmp_path: Path) -> None:
    dive = replay_of_clip / "out" / "dive.mcap"
    run = rov("replay", dive, "--out", tmp_path / "again", "--no-overlay", "--diff")
    assert run.returncode == 0, run.stdout + run.stderr
    rows = {row["topic"]: row for row in json.loads((tmp_path / "again" / "report.json").read_text())["diff"]}
    assert rows["thrusters"]["compared"] == 150 and rows["detections"]["compared"] == 30
    assert all(row["verdict"] == "same" for row in rows.values())


def test_diff_names_the_stage_that_changed(replay_of_clip: Path, tmp_path: Path) -> None:
    dive = replay_of_clip / "out" / "dive.mcap"
    run = rov("replay", dive, "--out", tmp_path / "x", "--no-overlay", "--diff", "--set", "vehicle.frame=vectored")
    assert run.returncode == 1
    rows = {row["topic"]: row["verdict"] for row in json.loads((tmp_path / "x" / "report.json").read_text())["diff"]}
    assert rows.pop("thrusters") == "differs"
    assert all(verdict == "same" for topic, verdict in rows.items() if topic != "wrench")
    assert "thrusters" in run.stdout and "differs" in run.stdout


def test_several_sources_get_a_folder_each(tmp_path: Path, light: tuple[str, str]) -> None:
    for name in ("a", "b"):
        make_clip(tmp_path / f"{name}.avi", frames=4)
    assert rov("replay", tmp_path / "a.avi", tmp_path / "b.avi", *light, "--out", tmp_path / "o").returncode == 0
    assert (tmp_path / "o" / "a" / "report.json").exists() and (tmp_path / "o" / "b" / "dive.mcap").exists()


def test_ctrl_c_leaves_a_whole_dive_and_a_report(tmp_path: Path, light: tuple[str, str]) -> None:
    clip = make_clip(tmp_path / "long.avi", frames=500)
    command = [*ROV, "replay", clip, *light, "--out", tmp_path / "o"]
    with subprocess.Popen(command, cwd=checkout(), stderr=subprocess.PIPE) as process:
        wait_for(tmp_path / "o" / "dive.mcap", 50_000)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130 and b"Traceback" not in errors, errors
    report = json.loads((tmp_path / "o" / "report.json").read_text())
    assert report["interrupted"] and 0 < report["processed"] < 500
    assert info(tmp_path / "o" / "dive.mcap").complete


def test_kill_9_loses_less_than_a_second(tmp_path: Path) -> None:
    """Real time is what counts here: a replay runs faster than the dive, so progress is read off the process itself."""
    clip = make_clip(tmp_path / "long.avi", frames=500)
    command = [sys.executable, "-c", STAMPED, str(clip), str(tmp_path / "o")]
    with subprocess.Popen(command, cwd=checkout(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()  # the first frame is through
        time.sleep(random.Random(0).uniform(0.3, 2.5))
        process.send_signal(signal.SIGKILL)
        killed = time.monotonic()
        stamps = [line.split() for line in process.stdout]
    written = [int(frame) for when, frame in (line for line in stamps if len(line) == 2) if float(when) < killed - 1.0]
    recover(tmp_path / "o" / "dive.mcap", tmp_path / "whole.mcap")
    with (tmp_path / "whole.mcap").open("rb") as file:
        summary = make_reader(file).get_summary()
    assert summary is not None and summary.statistics is not None
    with Dive(tmp_path / "whole.mcap") as dive:
        kept = {r.data.frame_id for r in dive.messages(["detections"]) if hasattr(r.data, "frame_id")}
    assert set(written) <= kept


STAMPED = """
import sys, time
from pathlib import Path
from rov.offline import replay
from rov.resources import find_resource
from rov.cli.common import curve, detector
from rov.config.schema import load
from rov.offline.source import open_recording
done = replay.ReplayOutput._picture
def stamped(self, shot, *rest):
    done(self, shot, *rest)
    print(time.monotonic(), shot.frame_id, flush=True)
replay.ReplayOutput._picture = stamped
config, (clip, out) = load(find_resource("rover.toml")), map(Path, sys.argv[1:])
replay.replay(open_recording(clip), config, detector(config), curve(config), out, overlay=False)
"""


def wait_for(path: Path, size: int, timeout: float = 60.0) -> None:
    end = time.monotonic() + timeout
    while not path.exists() or path.stat().st_size < size:
        assert time.monotonic() < end, f"{path} did not grow"
        time.sleep(0.02)


# ---- bad input to every command: one clear sentence and exit code 2, or a result that says what was skipped --------


def middle_of_messages(dive: Path) -> int:
    """Where to tear so that messages are lost: indexes, which much of a short dive is, are read around."""
    with dive.open("rb") as file:
        summary = make_reader(file).get_summary()
    assert summary is not None
    longest = max(summary.chunk_indexes, key=lambda chunk: chunk.chunk_length)
    return longest.chunk_start_offset + longest.chunk_length // 2


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory, replay_of_clip: Path) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    whole = make_clip(folder / "whole.mp4", frames=40).read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    film = make_clip(folder / "whole.avi", frames=40).read_bytes()
    (folder / "cut.avi").write_bytes(film[: len(film) // 2])
    dive = (replay_of_clip / "out" / "dive.mcap").read_bytes()
    (folder / "empty.mcap").write_bytes(b"")
    (folder / "noise.mcap").write_bytes(random.Random(1).randbytes(20_000))
    middle = middle_of_messages(replay_of_clip / "out" / "dive.mcap")
    (folder / "torn.mcap").write_bytes(dive[:middle] + random.Random(2).randbytes(3000) + dive[middle + 3000 :])
    (folder / "cut.mcap").write_bytes(dive[: len(dive) * 2 // 3])
    (folder / "folder").mkdir()
    (folder / "text.toml").write_text("this is no TOML [")
    (folder / "text.mp4").write_text("hello")
    (folder / "text.jpg").write_text("hello")
    (folder / "text.xyz").write_text("hello")
    (folder / "locked.mp4").symlink_to(folder / "nowhere.mp4")
    return folder


REFUSED = [
    ("replay", "none.mp4"), ("replay", "cut.mp4"), ("replay", "text.mp4"), ("replay", "folder"), ("replay", "text.xyz"),
    ("replay", "empty.mcap"), ("replay", "noise.mcap"), ("replay", "none.mcap"), ("replay", "locked.mp4"),
    ("detect", "none.jpg"), ("detect", "folder"), ("detect", "text.jpg"), ("detect", "cut.mp4"), ("detect", "text.xyz"),
    ("bench", "none.mp4"), ("bench", "text.mp4"), ("bench", "folder"), ("bench", "cut.mp4"),
    ("dive info", "empty.mcap"), ("dive info", "noise.mcap"), ("dive info", "folder"), ("dive info", "none.mcap"),
    ("dive recover", "empty.mcap"), ("dive recover", "noise.mcap"), ("dive recover", "folder"),
    ("dive cut", "noise.mcap"), ("dive cut", "none.mcap"), ("dive mark", "none.mcap"),
    ("dive mark", "folder"),
    ("config check", "text.toml"), ("config check", "none.toml"), ("config check", "folder"),
    ("config show", "text.toml"),
]  # fmt: skip
EXTRA = {
    "replay": ["--out", "o"],
    "detect": ["--out", "o.json"],
    "dive cut": ["--start", "0", "--end", "1", "--out", "o.mcap"],
}


@pytest.mark.parametrize(("command", "name"), REFUSED, ids=[f"{c} {n}" for c, n in REFUSED])
def test_refused_with_one_sentence(bad: Path, tmp_path: Path, command: str, name: str) -> None:
    run = rov(*command.split(), bad / name, *EXTRA.get(command, []), cwd=tmp_path)
    lines = [line for line in run.stderr.strip().splitlines() if not line.startswith("configuration: ")]
    assert run.returncode == 2, run.stderr
    assert len(lines) == 1 and lines[0].startswith("error: ") and str(bad / name) in lines[0], run.stderr
    assert not list(tmp_path.iterdir()), "nothing is left behind"


@pytest.mark.parametrize("name", ["cut.avi", "torn.mcap", "cut.mcap"])
def test_what_can_be_read_is_replayed_and_the_rest_is_named(
    bad: Path, tmp_path: Path, light: tuple[str, str], name: str
) -> None:
    report = replayed(bad / name, "--no-overlay", *light, out=tmp_path / "o")
    assert isinstance(report["processed"], int) and report["processed"] > 0
    assert report["skipped"]


def test_detect_skips_what_it_cannot_read_and_says_so(bad: Path, tmp_path: Path, clip: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    shutil.copy(bad / "text.jpg", photos / "broken.jpg")
    for name, shape in (("dot.png", (1, 1, 3)), ("huge.jpg", (6000, 8000, 3))):
        cv2.imwrite(str(photos / name), np.full(shape, 90, np.uint8))
    run = rov("detect", photos, clip, "--out", tmp_path / "d.json", "--preview", tmp_path / "p", "--batch", 3)
    assert run.returncode == 0, run.stderr
    answer = json.loads((tmp_path / "d.json").read_text())
    assert len(answer["images"]) == 22 and len(list((tmp_path / "p").iterdir())) == 22
    assert [image["file_name"] for image in answer["images"]][2].endswith("clip.avi#0")
    assert {(i["width"], i["height"]) for i in answer["images"]} == {(1, 1), (8000, 6000), (160, 120)}
    assert len(answer["skipped"]) == 1 and "broken.jpg" in answer["skipped"][0] and "broken.jpg" in run.stderr
    assert [c["name"] for c in answer["categories"]][0] == "buoy_red"


def test_it_does_not_replace_the_dive_it_replays(replay_of_clip: Path) -> None:
    out = replay_of_clip / "out"
    before = (out / "dive.mcap").read_bytes()
    run = rov("replay", out / "dive.mcap", "--out", out)
    assert run.returncode == 2 and "replace the dive" in run.stderr and (out / "dive.mcap").read_bytes() == before


def test_help_has_examples() -> None:
    for command in ([], ["replay"], ["detect"], ["bench"], ["doctor"], ["config", "check"], ["dive", "cut"]):
        run = rov(*command, "--help")
        assert run.returncode == 0 and (not command or "Example" in run.stdout), command


def test_doctor_says_what_to_do() -> None:
    run = rov("doctor")
    assert run.returncode == 0 and "torch" in run.stdout and "weights" in run.stdout


def test_bench_reports_ratios(clip: Path, tmp_path: Path) -> None:
    run = rov("bench", clip, "--frames", 16, "--rounds", 1, "--json", tmp_path / "b.json")
    assert run.returncode == 0, run.stderr
    figures = json.loads((tmp_path / "b.json").read_text())
    assert figures["frames"] == 16 and figures["pipeline_over"]["slower_of_network_and_decoder"] > 0
    assert figures["fps"]["pipeline"] > 0 and "pipeline" in run.stdout


# ---- on real data ------------------------------------------------------------------------------------------------


def test_real_clip_end_to_end(rov_data: Path, tmp_path: Path) -> None:
    report = replayed(rov_data / "video" / "mbari_rov_1080p60_hevc.mp4", "--no-overlay", out=tmp_path / "o")
    assert report["processed"] == 32 and report["dropped"] == 0
