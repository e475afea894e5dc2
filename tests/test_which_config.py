"""Which configuration a command runs with, what `--set` means, and what `config check` warns of."""

from pathlib import Path

import pytest

from rov.bus import Endpoints
from rov.cli import common
from rov.config.schema import Config, ConfigError, load, override
from rov.errors import UserError
from rov.operator import listening
from rov.operator.commands import endpoints_of
from rov.resources import find_resource
from rov.validate import doubts


def written(path: Path, depth: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\xef\xbb\xbf" + f"[vehicle]\r\nmax_depth = {depth}\r\n".encode())
    return path


def test_here_then_the_environment_then_the_service_then_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def depth() -> tuple[float, str]:
        return common.configuration(None).vehicle.max_depth, capsys.readouterr().err.strip()

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ROV_CONFIG", raising=False)
    monkeypatch.setattr(common, "ETC", tmp_path / "etc/rover.toml")
    assert depth() == (load(find_resource("rover.toml")).vehicle.max_depth, "")
    written(tmp_path / "etc/rover.toml", 3)
    assert depth() == (3, f"configuration: {tmp_path}/etc/rover.toml")
    monkeypatch.setenv("ROV_CONFIG", str(written(tmp_path / "own.toml", 2)))
    assert depth() == (2, f"configuration: {tmp_path}/own.toml")
    written(tmp_path / "rover.toml", 1)
    assert depth() == (1, "")
    assert common.configuration(tmp_path / "own.toml").vehicle.max_depth == 2 and not capsys.readouterr().err
    (tmp_path / "rover.toml").unlink()
    monkeypatch.setenv("ROV_CONFIG", "none.toml")
    with pytest.raises(ConfigError, match=r"none\.toml: no such file"):
        common.configuration(None)


def test_a_target_that_the_detector_does_not_know_is_refused_where_it_is_followed() -> None:
    with pytest.raises(
        ConfigError, match="steering.target = 'unicorn' is no class of the detector; there are buoy_red"
    ):
        common.configuration(find_resource("rover.toml"), ["steering.target=unicorn"], steers=True)
    assert (
        common.configuration(find_resource("rover.toml"), ["steering.target=fish"], steers=True).steering.target
        == "fish"
    )
    assert common.configuration(find_resource("rover.toml"), ["steering.target=unicorn"]), (
        "a stop goes out all the same"
    )


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("camera.source=0", "0"), ("camera.source=/dev/video0", "/dev/video0"), ('camera.source="0"', "0"),
        ("recording.folder=2026", "2026"), ("recording.folder=2026-06-01", "2026-06-01"), ("camera.fourcc=1e4", "1e4"),
        ("recording.folder=true", "true"), ("camera.calibration=", ""), ("recording.folder=nan", "nan"),
        ("steering.size=0.5", 0.5), ("camera.width=640", 640), ("recording.folder= 12 ", "12"),
    ],
)  # fmt: skip
def test_where_a_key_wants_text_a_number_is_text(config: Config, setting: str, value: object) -> None:
    section, key = setting.partition("=")[0].split(".")
    assert getattr(getattr(override(config, [setting]), section), key) == value


def test_a_depth_that_nobody_set_is_doubted(config: Config) -> None:
    (sentence,) = doubts(config)
    assert "vehicle.max_depth = 100 is that of the default file" in sentence
    assert doubts(override(config, ["vehicle.max_depth=40"])) == []


# ---- where it is -------------------------------------------------------------------------------------------------


def test_an_address_is_a_host_alone(config: Config) -> None:
    assert endpoints_of(config.bus, "192.168.2.2", None).public == "tcp://192.168.2.2:5555"
    assert endpoints_of(config.bus, "::1", None).commands == "tcp://[::1]:5556"
    assert endpoints_of(config.bus, "rover.local", None).public == "tcp://rover.local:5555"
    for text in ("127.0.0.1:5555", "tcp://127.0.0.1", "a b", "rover/x", "rover\n"):
        with pytest.raises(UserError, match="must be a host's name or address alone"):
            endpoints_of(config.bus, text, None)


def test_silence_is_said_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = [0]
    monkeypatch.setattr(listening.time, "monotonic_ns", lambda: now[0])
    listener = listening.TopicListener(Endpoints("tcp://127.0.0.1:1", "tcp://127.0.0.1:2", None), ["events"])
    try:
        for second in range(8):
            now[0] = second * 1_000_000_000
            assert listener.receive(0) == (now[0], [])
            assert bool(capsys.readouterr().err) == (second == 4), "once, after more than 3 s"
    finally:
        listener.reader.close()
    assert "is `rov run` running there, and does it know these keys" in listening.silence("tcp://127.0.0.1:1")
