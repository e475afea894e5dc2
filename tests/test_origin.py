"""What a dive was recorded with: configuration, the files it names, the time of day; in the dive and in its parts."""

from __future__ import annotations

import json
import threading
from datetime import datetime, timezone
from pathlib import Path

import pytest
import typer
from mcap.reader import make_reader
from mcap.writer import Writer

from rov.cli.common import curve
from rov.cli.dives import dive_info
from rov.config import live
from rov.config.schema import Config, VehicleConfig, override
from rov.config.timeline import ConfigTimeline
from rov.dives.dive import Dive, DiveWriter, Record
from rov.dives.latched import latched_before
from rov.dives.origin import DiveOrigin, attachments, differences, weights_note
from rov.dives.recovery import cut, info, recover
from rov.dives.retention import RepairThread
from rov.messages import (
    FORMER_TOPICS,
    ActiveSettings,
    Clock,
    ConfigEdit,
    ConsumedInput,
    Event,
    Health,
    HostStatus,
    Mode,
    Observation,
    PilotStatus,
    Setting,
)
from rov.offline.diff import Diff
from rov.offline.source import open_recording
from rov.recorderd import DiveRecording
from rov.resources import checkout
from tests.foreign import STEP, T0, Topic, ros2, ros2_compressed, write

S = 1_000_000_000
HERE = Config(vehicle=VehicleConfig(max_depth=20.0))
SECRET = "hunter2secret"
LENS = """image_width: 64
image_height: 48
camera_name: front
camera_matrix: {rows: 3, cols: 3, data: [60, 0, 32, 0, 60, 24, 0, 0, 1]}
distortion_model: plumb_bob
distortion_coefficients: {rows: 1, cols: 5, data: [0, 0, 0, 0, 0]}
"""


def then(**changes: str) -> Config:
    """A configuration that is not the one here."""
    settings = {"steering.target": "fish", "guard.gain": "0.4", "control.rate_hz": "40.0"} | changes
    return override(HERE, [f"{key}={value}" for key, value in settings.items()])


def recorded(path: Path, config: Config, tuned: Config | None = None, **metadata: str) -> Path:
    """A dive of 10 s; its settings are those of `tuned` from the start, with another target from 5 s on."""
    with DiveWriter(path, metadata, attachments=attachments(config)) as dive:
        dive.write("clock", Clock(t=100 * S, utc_ns=T0))
        for k in range(10):
            t = (100 + k) * S
            held = tuned or config
            if k >= 5:
                held = live.with_values(held, {"steering.target": "pipe"})
            dive.write("settings", ActiveSettings(t=t, settings=live.settings(held)))
            dive.write("pilot", PilotStatus(t=t, armed=k > 1, mode=Mode.HOLD if k < 6 else Mode.FOLLOW))
            if k in (3, 4):
                dive.write("events", Event(t=t, level="alarm", source="pilotd", code="leak", text="water comes in"))
    return path


def origin_of(path: Path, folder: Path, here: Config = HERE) -> DiveOrigin:
    with Dive(path) as dive:
        return DiveOrigin(dive, here, folder)


def test_a_dive_holds_its_configuration_and_is_replayed_with_it(tmp_path: Path) -> None:
    lens = tmp_path / "front.yaml"
    lens.write_text(LENS)
    config = then(**{"camera.calibration": str(lens), "recording.folder": "there", "perception.device": "cuda"})
    path = recorded(tmp_path / "a.mcap", config)
    found = origin_of(path, tmp_path)
    assert found.config == then(**{"camera.calibration": str(lens)}), "the computer's own keys are taken from here"
    lens.unlink()
    found = origin_of(path, tmp_path)
    assert found.config and Path(found.config.camera.calibration).read_text() == LENS
    assert differences(found.config, found) == "" and not found.notes
    with path.open("rb") as stream:
        names = {each.name for each in make_reader(stream).iter_attachments()}
    assert names == {"rover.toml", "camera.calibration.yaml", "vehicle.thrusters.toml"}


def test_what_the_pilot_sent_is_of_the_dive_and_the_port_of_here(tmp_path: Path) -> None:
    config = then(**{"link.kind": "ardusub", "link.url": "udp:127.0.0.1:14560"})
    found = origin_of(recorded(tmp_path / "a.mcap", config), tmp_path)
    assert found.config and (found.config.link.kind, found.config.link.url) == ("ardusub", HERE.link.url)
    assert "link.kind is 'thrusters', was 'ardusub'" in differences(HERE, found)


def test_another_configuration_is_named_with_what_differs(tmp_path: Path) -> None:
    found = origin_of(recorded(tmp_path / "a.mcap", then()), tmp_path)
    assert differences(HERE, found) == (
        "the configuration is not the one recorded: steering.target is 'buoy_red', was 'fish'; "
        "control.rate_hz is 50.0, was 40.0; guard.gain is 0.5, was 0.4"
    )


def test_what_was_tuned_before_counts_not_what_was_saved(tmp_path: Path) -> None:
    """Also for dives of before, which hold no configuration: the live keys are said in them."""
    tuned = live.with_values(then(), {"steering.target": "rock"})
    found = origin_of(recorded(tmp_path / "a.mcap", then(), tuned), tmp_path)
    assert found.config and found.config.steering.target == "rock" and found.config.control.rate_hz == 40.0
    with DiveWriter(tmp_path / "old.mcap", {}) as dive:
        dive.write("settings", ActiveSettings(t=1, settings=live.settings(tuned)))
    old = origin_of(tmp_path / "old.mcap", tmp_path)
    assert old.config and old.config.steering.target == "rock" and old.config.control.rate_hz == 50.0
    assert differences(HERE, old).endswith("steering.target is 'buoy_red', was 'rock'; guard.gain is 0.5, was 0.4")


def test_a_dive_of_others_says_nothing_of_it(tmp_path: Path) -> None:
    found = origin_of(write(tmp_path / "a.mcap", [ros2(ros2_compressed())]), tmp_path)
    assert found.config is None and differences(HERE, found) == ""


@pytest.mark.parametrize("text", [b"\xff", b"a = [", b"", b"guard = 3\n", b"[guard]\ngain = 7.0\nnew_key = 1\n"])
def test_a_configuration_that_cannot_be_taken_is_said_and_left(text: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    with path.open("wb") as stream:
        writer = Writer(stream)
        writer.start()
        writer.add_attachment(0, 0, "rover.toml", "application/toml", text)
        writer.add_attachment(0, 0, "vehicle.thrusters./../../evil", "text/plain", b"x")
        writer.finish()  # type: ignore[no-untyped-call]
    found = origin_of(path, tmp_path)
    assert found.config in (None, HERE) and bool(found.notes) == (text not in (b"", b"guard = 3\n"))
    assert {each.name for each in tmp_path.iterdir()} == {"a.mcap"}


def test_no_password_gets_into_a_dive(tmp_path: Path) -> None:
    source = f'"rtsp://admin:{SECRET}@10.0.0.2/stream1?q=1"'
    recording = DiveRecording(tmp_path, override(HERE, [f"camera.source={source}"]))
    recording.open()
    assert recording.path
    path = recording.path
    recording.close()
    assert SECRET.encode() not in path.read_bytes()
    with Dive(path) as dive:
        assert dive.metadata["source"] == "rtsp://admin:***@10.0.0.2/stream1?q=1"
        [text] = [each.data.decode() for each in dive.file.attachments() if each.name == "rover.toml"]
        assert SECRET not in text and 'source = "rtsp://admin:***@10.0.0.2/stream1?q=1"' in text
        assert dive.metadata["weights_sha256"] and not weights_note(dive, dive.metadata["weights_sha256"])
        assert "were" in weights_note(dive, "0" * 64)
        [clock] = [record.data for record in dive.messages(["clock"]) if isinstance(record.data, Clock)]
    assert abs(clock.utc_ns / 1e9 - datetime.now(timezone.utc).timestamp()) < 60


# ---- parts -----------------------------------------------------------------------------------------------------------


def test_a_part_keeps_what_still_held_at_its_start(tmp_path: Path) -> None:
    path = recorded(tmp_path / "a.mcap", then())
    cut(path, tmp_path / "part.mcap", 6.5, 9.0)
    cut(tmp_path / "part.mcap", tmp_path / "part2.mcap", 1.0, 2.0)
    for name, start in (("part.mcap", 106.5), ("part2.mcap", 107.5)):
        with Dive(tmp_path / name) as dive:
            assert dive.first_t == start * S
            first = [record.data for record in dive.messages(["settings", "clock"])][:2]
            assert isinstance(first[0], Clock) or isinstance(first[1], Clock)
            found = DiveOrigin(dive, HERE, tmp_path)
            assert found.config == live.with_values(then(), {"steering.target": "pipe"})
            assert [each.name for each in dive.file.metadata].count("cut") == (1 if name == "part.mcap" else 2)
    assert "cut: source a.mcap, start_s 6.5, end_s 9.0" in info(tmp_path / "part2.mcap").notes


def test_a_change_that_had_not_taken_effect_yet_is_in_a_part_with_what_held_before(tmp_path: Path) -> None:
    path = recorded(tmp_path / "a.mcap", then())
    cut(path, tmp_path / "part.mcap", 5.05, 9.0)
    with Dive(tmp_path / "part.mcap") as dive:
        schedule = ConfigTimeline(HERE, recorded=True)
        for record in dive.messages(["settings"]):
            if isinstance(record.data, ActiveSettings):
                schedule.add(record.data.settings, record.data.t)
        assert schedule.at(105 * S + 80_000_000).steering.target == "buoy_red"
        assert schedule.at(105 * S + 120_000_000).steering.target == "pipe"


def test_calibrations_and_durable_topics_of_others_are_kept(tmp_path: Path) -> None:
    lens = Topic("/camera/camera_info", "sensor_msgs/msg/CameraInfo", "ros2msg", "cdr", [b"lens"])
    durable = Topic("/map", "a/msg/B", "ros2msg", "cdr", [b"map"], {"offered_qos_profiles": "- durability: 1\n"})
    odd = Topic("/odd", "a/msg/B", "ros2msg", "cdr", [b"odd"], {"offered_qos_profiles": "- durability: 2\n"})
    for n, options in enumerate(({}, {"use_chunking": False}, {"chunk_size": 3000})):
        path = write(tmp_path / f"{n}.mcap", [ros2(ros2_compressed()), lens, durable, odd], **options)
        cut(path, tmp_path / f"part{n}.mcap", 1.0, 1.45)
        with (tmp_path / f"part{n}.mcap").open("rb") as stream:
            found = {(c.topic, m.log_time - T0, m.data[:4]) for _, c, m in make_reader(stream).iter_messages()}
        assert {each for each in found if not each[0].startswith("/camera/image")} == {
            ("/camera/camera_info", 10 * STEP, b"lens"), ("/map", 10 * STEP, b"map")
        }  # fmt: skip


# ---- message version 1 -----------------------------------------------------------------------------------------------

FORMER_SCHEMAS = {"inputs": "rov.Heard", "config_edit": "rov.Edit", "settings": "rov.Tuning", "host": "rov.Machine"}


def as_version_1(source: Path, out: Path) -> Path:
    """The same dive with the topics, schemas and version number of message version 1."""
    former = {new: old for old, new in FORMER_TOPICS.items()}
    with source.open("rb") as stream, out.open("wb") as target:
        reader, writer = make_reader(stream), Writer(target)
        writer.start()
        for metadata in reader.iter_metadata():
            writer.add_metadata(metadata.name, metadata.metadata | {"schema_version": "1"})
        channels: dict[str, int] = {}
        for schema, channel, message in reader.iter_messages():
            topic = channel.topic
            if schema and topic not in channels:
                name = FORMER_SCHEMAS.get(topic, schema.name)
                number = writer.register_schema(name, schema.encoding, schema.data)
                channels[topic] = writer.register_channel(former.get(topic, topic), channel.message_encoding, number)
            writer.add_message(channels[topic], message.log_time, message.data, message.publish_time)
        writer.finish()  # type: ignore[no-untyped-call]
    return out


@pytest.fixture
def version_1(tmp_path: Path) -> Path:
    """One message of each renamed topic at 100, 102 and 104 s."""
    with DiveWriter(tmp_path / "new.mcap", {}) as dive:
        for k in (0, 2, 4):
            t, settings = (100 + k) * S, (Setting("guard.gain", f"0.{k + 1}"),)
            dive.write("inputs", ConsumedInput(t=t, by="pilotd", what="arm"))
            dive.write("config_edit", ConfigEdit(t=t, settings=settings))
            dive.write("settings", ActiveSettings(t=t, settings=settings))
            dive.write("host", HostStatus(t=t, celsius=50.0))
    return as_version_1(tmp_path / "new.mcap", tmp_path / "old.mcap")


def test_a_dive_of_message_version_1_is_read_under_the_new_topic_names(version_1: Path, tmp_path: Path) -> None:
    with Dive(tmp_path / "new.mcap") as new, Dive(version_1) as old:
        assert set(old.file.counts) == set(FORMER_TOPICS) and old.metadata["schema_version"] == "1"
        assert old.counts == old.readable == new.counts == dict.fromkeys(FORMER_TOPICS.values(), 3)
        assert [each[:3] for each in old.messages()] == [each[:3] for each in new.messages()]
        assert not old.dropped and not old.skipped
        assert [each.topic for each in old.messages(["settings"])] == ["settings"] * 3
        assert DiveOrigin(old, HERE, tmp_path).values == {"guard.gain": 0.1}


def test_a_dive_of_message_version_1_is_cut_with_its_latched_topics(version_1: Path, tmp_path: Path) -> None:
    with Dive(version_1) as dive:
        held = [(raw.channel.topic, raw.message.log_time) for raw in latched_before(dive.file, 103 * S)]
    assert sorted(held) == [("edit", 102 * S), ("tuning", 102 * S)]
    cut(version_1, tmp_path / "part.mcap", 3.0, 4.9)
    with Dive(tmp_path / "part.mcap") as part:
        assert part.metadata["schema_version"] == "1" and part.first_t == 103 * S
        gains = [each.data.settings[0].value for each in part.messages() if isinstance(each.data, ActiveSettings)]
        assert gains == ["0.3", "0.5"]
        assert part.counts == {"config_edit": 2, "host": 1, "inputs": 1, "settings": 2}


def test_the_pilot_and_perception_replay_a_dive_of_message_version_1_exactly(config: Config, tmp_path: Path) -> None:
    """The stages behind the detector, with the configuration of the dive, as `rov replay --diff` takes it."""
    source = open_recording(checkout() / "tests/version_1.mcap")
    assert source.dive and source.dive.file.counts["heard"] and source.dive.metadata["schema_version"] == "1"
    assert source.has_inputs and source.has_ticks
    config = DiveOrigin(source.dive, override(config, ["perception.rate_hz=8"]), tmp_path).config
    assert config is not None
    diff = Diff(config, curve(config), source)
    for item in source.items:
        if isinstance(item, Record):
            diff.recorded(item.data)
    rows = {row.topic: row for row in diff.summary() if row.topic != "detections"}
    assert all(row.compared and not row.differing for row in rows.values()), rows


@pytest.mark.parametrize("lost", [-1, 40])
def test_a_recording_may_end_in_the_midst_of_a_frame(config: Config, tmp_path: Path, lost: int) -> None:
    """As on a full disk: the last observation that is missing is no difference, one before it is."""
    source = open_recording(checkout() / "tests/version_1.mcap")
    assert source.dive is not None
    config = DiveOrigin(source.dive, override(config, ["perception.rate_hz=8"]), tmp_path).config or config
    diff = Diff(config, curve(config), source)
    records = [item.data for item in source.items if isinstance(item, Record)]
    observations = [i for i, each in enumerate(records) if isinstance(each, Observation)]
    missing = observations[lost]
    for i, each in enumerate(records):
        if i == missing or (lost < 0 and i > missing):
            continue
        diff.recorded(each)
    row = {row.topic: row for row in diff.summary()}["observation"]
    assert (row.verdict, row.differing) == (("same", 0) if lost < 0 else ("differs", 1))


# ---- in words --------------------------------------------------------------------------------------------------------


def test_info_says_when_what_and_whether_it_is_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = recorded(tmp_path / "a.mcap", then())
    dive_info(path)
    said = capsys.readouterr().out
    assert "began: 2023-11-14T22:13:20+00:00" in said and "length: 9.0 s" in said and "whole: yes" in said
    assert "modes: hold 4 s, follow 3 s" in said and "alarms: 2 × leak (water comes in)" in said
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(typer.Exit) as left:
        dive_info(path)
    assert left.value.exit_code == 1 and "whole: no" in capsys.readouterr().out
    with pytest.raises(typer.Exit):
        dive_info(path, as_json=True)
    assert json.loads(capsys.readouterr().out)["complete"] is False


def test_a_clock_that_is_set_meanwhile_does_not_bend_the_dive(tmp_path: Path) -> None:
    """A computer without a clock of its own begins in 1970, and is told the time later."""
    with DiveWriter(tmp_path / "a.mcap", {}) as dive:
        for k in range(5):
            dive.write("clock", Clock(t=(50 + k) * S, utc_ns=(k if k < 3 else 1_700_000_000 + k) * S))
            dive.write("health", Health(t=(50 + k) * S, process="x", rate_hz=1.0))
    found = info(tmp_path / "a.mcap")
    assert found.summary.start_utc == "2023-11-14T22:13:20+00:00" and found.duration_s == 4.0
    assert found.summary.clock_set_s == 1_700_000_000.0
    assert info(write(tmp_path / "ros.mcap", [ros2(ros2_compressed())])).summary.start_utc.startswith("2023-11-14T22")


def test_names_of_others_move_no_cursor_and_are_no_markup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.mcap"
    with path.open("wb") as stream:
        writer = Writer(stream)
        writer.start()
        writer.add_metadata("rov", {"\x1b[2Jkey": "\x1b]0;title\x07[/red]"})
        writer.add_metadata("\x1b[31mnote", {"a": "b\nc"})
        writer.add_attachment(0, 0, "\x1b[5mname", "", b"")
        writer.add_message(writer.register_channel("[/red]x\x1b[2J", "json", 0), 0, b"{}", 0)
        writer.finish()  # type: ignore[no-untyped-call]
    dive_info(path)
    said = capsys.readouterr().out
    assert "\x1b[2J" not in said and "\x1b[5m" not in said and "\x1b[31m" not in said and "\x07" not in said
    assert "[/red]x" in said and "b\\nc" in said
    dive_info(path, as_json=True)
    assert "\x1b" not in capsys.readouterr().out


# ---- at once ---------------------------------------------------------------------------------------------------------


def test_recoveries_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    whole = recorded(tmp_path / "whole.mcap", then()).read_bytes()
    for trial in range(10):
        path = tmp_path / f"{trial}.mcap"
        path.write_bytes(whole[:-300])
        failures: list[BaseException] = []
        start = threading.Barrier(4)

        def attempt(path: Path = path, start: threading.Barrier = start, into: list[BaseException] = failures) -> None:
            start.wait()
            try:
                recover(path)
            except BaseException as error:  # noqa: BLE001  counted below
                into.append(error)

        threads = [threading.Thread(target=attempt) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures and info(path).complete
    assert not list(tmp_path.glob("*.part"))


def test_a_repair_leaves_alone_what_another_one_writes(tmp_path: Path) -> None:
    busy, left = tmp_path / "x.mcap.1234.part", tmp_path / "y.mcap.part"
    left.touch()
    with DiveWriter(busy, {}):
        repairs = RepairThread(tmp_path, 0.0)
        repairs.start()
        repairs.join()
        assert busy.exists() and not left.exists()
