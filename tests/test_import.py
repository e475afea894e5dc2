"""Dives that others recorded: real logs, and a drawn dive whose true offset is known."""

import math
import random
import re
from functools import cache
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from pymavlink import mavutil
from pymavlink.dialects.v20 import ardupilotmega as mav
from typer.testing import CliRunner

from rov.cli.app import app
from rov.dives.dive import Dive, DiveWriter
from rov.errors import UserError
from rov.imports import align, dive, logs
from rov.media.files import TimedFrame
from rov.media.films import Video
from rov.messages import Arm, Disarm, Frame, Mode, SetMode, Sticks, ThrusterCommand, VehicleState
from rov.offline.source import open_recording
from tests.commands import rov
from tests.logs import TlogFile, attitude

pytestmark = pytest.mark.patient

FPS, FOCAL = 15.0, 260.0
"""Of the drawn video, 320 pixels wide."""
BOOT_S = 100.0
"""The autopilot had run for this long when its log began."""


WAVES = [(0.25 / w, w, 2.399 * k) for k, w in enumerate((0.31, 0.53, 0.83, 1.17, 1.49, 2.03, 2.71, 3.37))]
"""Amplitude in rad, rad/s and phase of what the heading is made of: no stretch of it looks like another."""


def yaw(t: float) -> float:
    """Heading in rad, t s after the log began."""
    return sum(a * math.sin(w * t + p) for a, w, p in WAVES) / 2


def yaw_rate(t: float) -> float:
    return sum(a * w * math.cos(w * t + p) for a, w, p in WAVES) / 2


def depth(t: float) -> float:
    return 3 + 0.3 * math.sin(0.5 * t)


WORLD = cv2.GaussianBlur(np.random.default_rng(1).integers(0, 255, (420, 1800, 3), np.uint8), (0, 0), 2.5)


def picture(t: float) -> np.ndarray:
    """What the camera sees: the world goes left when the vehicle turns right, and up when it sinks."""
    x, y = 740 + FOCAL * yaw(t), 90 + 40 * (depth(t) - 3)
    shift = np.array([[1, 0, -x], [0, 1, -y]])
    return cv2.warpAffine(WORLD, shift, (320, 240))


def film(path: Path, offset: float, seconds: float, codec: str = "libx264") -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=int(FPS))
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.options = {"bf": "0", "preset": "ultrafast"} if codec == "libx264" else {}
        for i in range(round(seconds * FPS)):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(offset + i / FPS), format="bgr24")))
        container.mux(stream.encode(None))
    return path


def log_file(path: Path, seconds: float, jump: float | None = None, noise: float = 0.02) -> Path:
    rng = random.Random(5)
    log = TlogFile()
    for i in range(round(seconds * 20)):
        t = i / 20
        if jump is not None and abs(t - jump) < 1e-9:
            log.utc += 86_400  # somebody set it
        boot = int((BOOT_S + t) * 1000)
        rate = yaw_rate(t) + rng.gauss(0, noise)
        log.add(t, mav.MAVLink_attitude_message(boot, 0.0, 0.0, yaw(t), rng.gauss(0, 0.01), rng.gauss(0, 0.01), rate))
        if i % 2 == 0:
            log.add(t, mav.MAVLink_vfr_hud_message(0, 0, 0, 0, -depth(t), 0))
        if i % 4 == 0:
            log.add(t, mav.MAVLink_manual_control_message(1, 250, 0, 250, -1000, 0), 255, 190)
        if i % 20 == 0:
            flags = 128 if t >= 2 else 0
            log.add(t, mav.MAVLink_heartbeat_message(12, 3, 81 | flags, 19 if t < 4 else 2, 4, 3))
            log.add(t, mav.MAVLink_sys_status_message(0, 0, 0, 0, 15_800, 0, 0, 0, 0, 0, 0, 0, 0))
            log.add(t, mav.MAVLink_scaled_pressure_message(boot, 1006.5, 0, 2930))
    path.write_bytes(log.data)
    return path


@pytest.mark.parametrize("offset", [7.3, -2.42])
def test_the_offset_is_found_from_the_picture(offset: float, tmp_path: Path) -> None:
    video = film(tmp_path / "v.mp4", offset, 14)
    log = logs.read(log_file(tmp_path / "l.tlog", 40))
    seen = align.motion(Video(video).shots())
    found = align.align(seen, log.states)
    assert abs(found.offset_s - offset) < 0.1 and found.confidence > 0.3 and found.correlation > 0.8
    align.plot(seen, log.states, found, tmp_path / "p.png")
    assert cv2.imread(str(tmp_path / "p.png")) is not None


def test_what_does_not_belong_together_is_said(tmp_path: Path) -> None:
    log = logs.read(log_file(tmp_path / "l.tlog", 40))
    rng = np.random.default_rng(2)
    shots = [
        TimedFrame(i, int(i / FPS * 1e9), np.roll(WORLD[:240, :320], int(x), axis=1))
        for i, x in enumerate(np.cumsum(rng.integers(-6, 7, 200)))
    ]
    with pytest.raises(UserError, match="--offset"):
        align.align(align.motion(shots), log.states)
    still = [TimedFrame(i, int(i / FPS * 1e9), WORLD[:240, :320]) for i in range(90)]
    with pytest.raises(UserError, match="--offset"):
        align.align(align.motion(still), log.states)


@cache
def real(path: Path) -> logs.Log:
    return logs.read(path)


def test_a_real_clip_and_a_real_log_of_another_dive_are_not_aligned(rov_data: Path) -> None:
    seen = align.motion(Video(rov_data / "video" / "tub_B02_15fps.mp4").shots())
    for name in ("2023-04-18_11-03-34.tlog", "small.tlog"):
        with pytest.raises(UserError, match="--offset"):
            align.align(seen, real(rov_data / "logs" / name).states)


def test_correlation_is_pearson_at_every_lag() -> None:
    rng = np.random.default_rng(0)
    seen, felt = rng.normal(size=30), rng.normal(size=50)
    seen[4], felt[9] = np.nan, np.nan
    rho, shared = align.correlation(seen, felt)
    assert len(rho) == 79
    for lag in (-20, -3, 0, 11, 20, 35):  # seen[i] stands beside felt[i + lag]
        pairs = [(seen[i], felt[i + lag]) for i in range(30) if 0 <= i + lag < 50]
        pairs = [(a, b) for a, b in pairs if np.isfinite(a) and np.isfinite(b)]
        a, b = map(np.array, zip(*pairs, strict=True))
        assert shared[lag + 29] == len(pairs)
        assert rho[lag + 29] == pytest.approx(np.corrcoef(a, b)[0, 1], abs=1e-6)


def test_what_the_log_said_is_in_the_dive(tmp_path: Path) -> None:
    log = logs.read(log_file(tmp_path / "l.tlog", 10))
    state = log.states[-1]
    assert len(log.states) == 200 and log.first_t == int(BOOT_S * 1e9)
    assert state.yaw == pytest.approx(yaw(9.95), abs=1e-5) and state.rates[2] == pytest.approx(yaw_rate(9.95), abs=0.1)
    assert state.depth == pytest.approx(depth(9.9), abs=1e-3) and state.battery_v == 15.8 and state.armed
    assert state.hull_pressure_kpa == pytest.approx(100.65) and state.hull_temperature_c == 29.3
    sticks = [each for each in log.commands if isinstance(each, Sticks)]
    assert len(sticks) == 50
    stick = sticks[0]  # z 250 is half down; down is positive in ours
    assert (stick.surge, stick.sway, stick.heave, stick.yaw) == (0.25, 0.0, 0.5, -1.0)
    said = [(type(each), round(each.t / 1e9 - BOOT_S)) for each in log.commands if not isinstance(each, Sticks)]
    assert said == [(Disarm, 0), (SetMode, 0), (Arm, 2), (SetMode, 4)]
    assert [each.mode for each in log.commands if isinstance(each, SetMode)] == [Mode.MANUAL, Mode.HOLD]
    assert [each.seq for each in log.commands] == list(range(len(log.commands)))


def test_a_clock_that_jumps_moves_nothing(tmp_path: Path) -> None:
    plain, jumped = (logs.read(log_file(tmp_path / f"{j}.tlog", 10, jump=j)) for j in (None, 5.0))
    assert [s.t for s in plain.states] == [s.t for s in jumped.states]
    assert max(abs(a.t - b.t) for a, b in zip(plain.commands, jumped.commands, strict=True)) < 60_000_000
    assert any("clock jumped 1 times" in note for note in jumped.notes)


def test_rubbish_and_cuts_are_counted_not_fatal(tmp_path: Path) -> None:
    whole = log_file(tmp_path / "l.tlog", 10).read_bytes()
    rng = random.Random(3)
    for name, data in (
        ("cut", whole[: len(whole) // 2 + 7]),
        ("hole", whole[:3000] + rng.randbytes(700) + whole[3000:]),
        ("bits", bytes(b ^ (rng.random() < 0.001) for b in whole)),
    ):
        (tmp_path / f"{name}.tlog").write_bytes(data)
        log = logs.read(tmp_path / f"{name}.tlog")
        assert len(log.states) > 60, name
        assert all(b.t > a.t for a, b in zip(log.states, log.states[1:], strict=False))
        assert all(abs(s.yaw) < 7 and s.t < 200e9 for s in log.states), "no broken message got through"
        assert name == "cut" or sum(log.dropped.values()) > 0


@pytest.mark.parametrize("name", ["x.tlog", "x.BIN"])
@pytest.mark.parametrize("data", [b"", b"nothing of the kind" * 50, bytes(3000), random.Random(1).randbytes(6000)])
def test_what_is_no_log_is_one_sentence(name: str, data: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError) as caught:
        logs.read(tmp_path / name)
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_a_restarted_autopilot_goes_on(tmp_path: Path) -> None:
    log = TlogFile()
    for i in range(40):
        boot = 900_000 + i * 50 if i < 20 else 1000 + i * 50
        log.add(i / 20, mav.MAVLink_attitude_message(boot, 0, 0, 0, 0, 0, 0))
    (tmp_path / "l.tlog").write_bytes(log.data)
    read = logs.read(tmp_path / "l.tlog")
    assert len(read.states) == 40 and any("restarted" in note for note in read.notes)
    assert all(0 < b.t - a.t <= 1.1e9 for a, b in zip(read.states, read.states[1:], strict=False))


@pytest.mark.parametrize(
    ("name", "states", "seconds", "sticks"),
    [("small.tlog", 5245, 263.6, 1450), ("2023-04-18_11-03-34.tlog", 6209, 313.1, 7463), ("small.BIN", 237, 23.6, 237)],
)
def test_real_logs(rov_data: Path, name: str, states: int, seconds: float, sticks: int) -> None:
    log = real(rov_data / "logs" / name)
    assert len(log.states) == states and (log.states[-1].t - log.states[0].t) / 1e9 == pytest.approx(seconds, abs=0.1)
    assert sum(isinstance(each, Sticks) for each in log.commands) == pytest.approx(sticks, abs=2)
    assert all(abs(s.depth) < 0.05 for s in log.states), "at the surface and on the bench"
    if name == "small.tlog":
        assert log.about["origin"] == "48.3861418 -124.6305732 0.05"
    if name.startswith("2023"):
        assert log.dropped["messages with a wrong checksum, of 52103"] == 1949


@pytest.mark.parametrize("name", ["small.tlog", "2023-04-18_11-03-34.tlog"])
def test_real_logs_against_pymavlinks_own_reading(rov_data: Path, name: str) -> None:
    log = real(rov_data / "logs" / name)
    read = mavutil.mavlogfile(str(rov_data / "logs" / name), robust_parsing=True)
    wanted = ["SCALED_PRESSURE2", "BATTERY_STATUS", "SERVO_OUTPUT_RAW", "STATUSTEXT", "DISTANCE_SENSOR"]
    heard: dict[str, list[mavutil.mavlink.MAVLink_message]] = {each: [] for each in wanted}
    while (message := read.recv_match(type=wanted)) is not None:
        heard[message.get_type()].append(message)
    read.close()
    surface, density = float(log.about["surface_pa"]), float(log.about["density"])
    felt = {m.time_boot_ms: m.press_abs * 100 for m in heard["SCALED_PRESSURE2"]}
    measured = [state for state in log.states if state.depth_t in {ms * 1_000_000 for ms in felt}]
    assert len(measured) > 0.9 * len(log.states)
    for state in measured:
        pascal = felt[state.depth_t // 1_000_000]  # type: ignore[operator]
        assert state.depth == pytest.approx((pascal - surface) / (density * 9.80665), abs=2e-3)
    volts = {m.voltages[0] / 1000 for m in heard["BATTERY_STATUS"] if m.id == 0}
    assert {state.battery_v for state in log.states if state.battery_v} <= volts
    assert len(log.thrusters) == len(heard["SERVO_OUTPUT_RAW"])
    texts = [event.text for event in log.events if event.code == "autopilot_text"]
    assert texts == [m.text for m in heard["STATUSTEXT"]]
    ranges = {m.current_distance / 100 for m in heard["DISTANCE_SENSOR"]}
    assert {state.altitude for state in log.states if state.altitude_t} <= ranges


@pytest.mark.parametrize(("codec", "suffix", "copied"), [("libx264", "mp4", "h264"), ("mjpeg", "avi", "")])
def test_video_and_log_are_one_dive(codec: str, suffix: str, copied: str, tmp_path: Path) -> None:
    video = film(tmp_path / f"v.{suffix}", 1.0, 4, codec)
    log = logs.read(log_file(tmp_path / "l.tlog", 10))
    done = dive.write(tmp_path / "d.mcap", log, video, 1.0, {"source": "v"}, quality=90)
    assert done[:2] == (60, copied) and done.messages == {"vehicle": 200, "commands": len(log.commands), "clock": 10}
    with Dive(tmp_path / "d.mcap") as read:
        assert read.complete and read.counts == {
            "camera": 60,
            "clock": 10,
            "commands": len(log.commands),
            "frame": 60,
            "vehicle": 200,
        }
        times = [record.t for record in read.messages()]
        frames = [r.data for r in read.messages(["frame"]) if isinstance(r.data, Frame)]
    assert times == sorted(times)
    assert frames[0].t == int((BOOT_S + 1.0) * 1e9) and frames[30].t - frames[0].t == pytest.approx(2e9, abs=2e6)
    shots = [item for item in open_recording(tmp_path / "d.mcap").items if isinstance(item, TimedFrame)]
    assert len(shots) == 60 and [shot.frame_id for shot in shots] == list(range(60))
    assert np.abs(shots[20].image.astype(int) - picture(1.0 + 20 / FPS)).mean() < 12


def test_a_log_alone_is_a_dive_whose_loops_can_run(tmp_path: Path) -> None:
    log = logs.read(log_file(tmp_path / "l.tlog", 3))
    dive.write(tmp_path / "d.mcap", log, None, 0.0, {}, quality=90)
    source = open_recording(tmp_path / "d.mcap")
    assert source.frames == 0 and source.has_vehicle
    assert sum(isinstance(getattr(item, "data", None), VehicleState) for item in source.items) == 60


def test_the_commands_as_a_user_runs_them(tmp_path: Path) -> None:
    """Import with the offset found, and the log alone; then the pilot on recorded time, without a picture."""
    video, log = film(tmp_path / "v.mp4", 3.5, 14), log_file(tmp_path / "l.tlog", 25)
    run = rov("import", video, "--tlog", log, "--out", tmp_path / "d.mcap")
    assert run.returncode == 0, run.stderr
    found = re.search(r"offset ([\d.]+) s \(confidence", run.stdout)
    assert found and abs(float(found[1]) - 3.5) < 0.1 and "copied as h264" in run.stdout
    assert (tmp_path / "d.png").stat().st_size > 10_000
    again = rov("import", video, "--tlog", log, "--out", tmp_path / "d.mcap")
    assert again.returncode == 2 and "--force" in again.stderr
    assert rov("import", "--tlog", log, "--out", tmp_path / "alone.mcap").returncode == 0
    run = rov("replay", tmp_path / "alone.mcap", "--out", tmp_path / "out")
    assert run.returncode == 0, run.stderr
    with Dive(tmp_path / "out" / "dive.mcap") as replayed:
        assert replayed.counts["thrusters"] > 24 * 50 and replayed.counts["vehicle"] == 500


def test_a_good_dive_is_only_replaced_by_a_good_one(tmp_path: Path) -> None:
    video, log = film(tmp_path / "v.mp4", 1.0, 2), log_file(tmp_path / "l.tlog", 10)
    out = tmp_path / "d.mcap"
    command = ["import", str(video), "--tlog", str(log), "--out", str(out)]
    assert CliRunner().invoke(app, [*command, "--offset", "1"]).exit_code == 0
    before = out.read_bytes()
    for offset, words in (
        ("-101", r"begin 1\.0 s before the autopilot booted.*cut"),
        ("-20", "share nothing"),
        ("10000000000000", "share nothing"),
        ("-10000000000000", "before the autopilot booted"),
        ("nan", "--offset nan: must be"),
        ("inf", "--offset inf: must be"),
    ):
        for where in (out, tmp_path / "new.mcap"):
            run = CliRunner().invoke(app, [*command[:-1], str(where), f"--offset={offset}", "--force"])
            assert isinstance(run.exception, UserError) and re.search(words, str(run.exception)), offset
    assert out.read_bytes() == before and sorted(each.suffix for each in tmp_path.iterdir()) == [
        ".mcap",
        ".mp4",
        ".tlog",
    ]
    assert CliRunner().invoke(app, [*command, "--offset", "2", "--force"]).exit_code == 0
    assert out.read_bytes() != before


class Halted(KeyboardInterrupt):
    pass


def test_an_import_that_is_stopped_leaves_what_was_there(tmp_path: Path) -> None:
    log = logs.read(log_file(tmp_path / "l.tlog", 4))
    out = tmp_path / "d.mcap"
    dive.write(out, log, None, 0.0, {}, quality=90)
    before = out.read_bytes()

    def halt() -> None:
        assert (tmp_path / "d.mcap.part").exists() and out.read_bytes() == before
        raise Halted

    with pytest.raises(Halted):
        video = film(tmp_path / "v.mp4", 1.0, 1)
        dive.write(out, log, video, 1.0, {}, quality=90, overwrite=True, progress=halt)
    assert out.read_bytes() == before and not (tmp_path / "d.mcap.part").exists()


def test_killed_while_it_writes(tmp_path: Path) -> None:
    """What is left beside is no hindrance to the next one."""
    log = log_file(tmp_path / "l.tlog", 4)
    (tmp_path / "d.mcap").write_bytes(b"an older dive")
    (tmp_path / "d.mcap.part").write_bytes(b"half a dive")
    run = CliRunner().invoke(app, ["import", "--tlog", str(log), "--out", str(tmp_path / "d.mcap"), "--force"])
    assert run.exit_code == 0 and not (tmp_path / "d.mcap.part").exists()
    with Dive(tmp_path / "d.mcap") as read:
        assert read.complete and read.counts["vehicle"] == 80


def test_what_is_read_is_not_written_over(tmp_path: Path) -> None:
    log = log_file(tmp_path / "l.tlog", 4)
    (tmp_path / "same.mcap").symlink_to(log)
    (tmp_path / "v.png").symlink_to(log)
    wrong = {
        "same.mcap": "is an input of the import",
        "v.mcap": "is an input of the import",
        "a/b.mcap": "no folder",
        "l.txt": "ends in .mcap",
    }
    for out, words in wrong.items():
        run = CliRunner().invoke(app, ["import", "--tlog", str(log), "--out", str(tmp_path / out), "--force"])
        assert isinstance(run.exception, UserError) and words in str(run.exception), out
    with DiveWriter(tmp_path / "live.mcap", {}):
        run = CliRunner().invoke(app, ["import", "--tlog", str(log), "--out", str(tmp_path / "live.mcap"), "--force"])
        assert isinstance(run.exception, UserError) and "being recorded" in str(run.exception)


def test_what_an_autopilot_drove_is_kept_and_is_no_tick_of_a_replay(tmp_path: Path) -> None:
    log = TlogFile()
    for i in range(60):
        log.add(i / 20, attitude(BOOT_S + i / 20))
        if i % 10 == 0:
            log.add(i / 20, mav.MAVLink_servo_output_raw_message(0, 0, *[1600] * 8, *[0] * 8))
    dive.write(tmp_path / "d.mcap", logs.read(log.write(tmp_path / "l.tlog")), None, 0.0, {"log": "l"}, quality=90)
    with Dive(tmp_path / "d.mcap") as read:
        assert read.counts["thrusters"] == 6 and read.counts["clock"] == 3
    source = open_recording(tmp_path / "d.mcap")
    assert not source.has_ticks and source.start is None
    assert not any(isinstance(getattr(item, "data", None), ThrusterCommand) for item in source.items)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "name the log"),
        (["--bin", "a.BIN", "--system", "2"], "a .BIN has one"),
        (["--tlog", "a.tlog", "--bin", "b.BIN"], "name the log"),
        (["--bin", "a.tlog"], "--bin wants"),
        (["--tlog", "a.BIN"], "name it with --bin"),
        (["--tlog", "a.tlog", "--offset", "soon"], "--offset soon"),
        (["--tlog", "nowhere.tlog"], "no such file"),
    ],
)
def test_a_wrong_import_is_one_sentence(arguments: list[str], words: str, tmp_path: Path) -> None:
    run = CliRunner().invoke(app, ["import", *arguments, "--out", str(tmp_path / "d.mcap")])
    assert isinstance(run.exception, UserError) and words in str(run.exception)
