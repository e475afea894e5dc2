"""Everything that is wrong with a configuration is reported at once, with file, line and key."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from rov.bus import public_endpoints
from rov.config.schema import Config, ConfigError, key_lines, load, override, parse, schema
from rov.resources import checkout, find_resource
from rov.validate import load_checked

pytestmark = pytest.mark.patient

GOOD = "[vehicle]\nmax_depth = 10\n"


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text, Path("r.toml"))
    return caught.value.problems


def test_the_default_file_spells_out_every_default() -> None:
    shipped = load(find_resource("rover.toml"))
    assert shipped == parse(f"[vehicle]\nmax_depth = {shipped.vehicle.max_depth}")
    keys = key_lines(find_resource("rover.toml").read_text())
    for section, table in shipped.model_dump().items():
        for key in table:
            assert (section, key) in keys, f"{section}.{key} is not in the annotated default"


def test_all_problems_at_once_each_with_its_line() -> None:
    text = '[camera]\nhfov = 3\n\n[guard]\ngain = 2\nslew = "fast"\n\n[steerin]\nx = 1\n\n[vehicle]\nframe = "boat"\n'
    found = sorted(problems(text))
    assert [line.split(": ")[0] for line in found] == [
        "r.toml:11",
        "r.toml:12",
        "r.toml:2",
        "r.toml:5",
        "r.toml:6",
        "r.toml:8",
    ]
    joined = "\n".join(found)
    assert "camera.hfov is not a known key; did you mean hfov_deg?" in joined
    assert "steerin is not a known key; did you mean steering?" in joined
    assert "guard.gain = 2: input should be less than or equal to 1" in joined
    assert "guard.slew = 'fast': input should be a valid number" in joined
    assert "vehicle.max_depth is missing" in joined and "vehicle.frame = 'boat'" in joined and "'vectored'" in joined


@pytest.mark.parametrize("text", ["not toml at all", "[a\n", "a = ", "\x00", "[vehicle]\nmax_depth = 1\nmax_depth = 2"])
def test_what_is_not_toml_is_one_problem(text: str) -> None:
    assert len(problems(text)) == 1 and "not TOML" in problems(text)[0]


def test_numbers_are_not_taken_from_strings_or_booleans() -> None:
    assert len(problems('[vehicle]\nmax_depth = "10"')) == 1
    assert len(problems("[vehicle]\nmax_depth = true")) == 1
    assert problems("[vehicle]\nmax_depth = nan") and problems("[vehicle]\nmax_depth = inf")


def test_lines_of_dotted_quoted_and_inline_keys() -> None:
    text = 'a.b = 1\n[c]\n"d" = """\n[not]\nx = 1\n"""\ne = {f = 2}\n[[g]]\nh = 1'
    lines = key_lines(text)
    assert lines[("a", "b")] == 1 and lines[("c",)] == 2 and lines[("c", "d")] == 3
    assert ("not",) not in lines and lines[("c", "e")] == 7 and lines[("g", "h")] == 9


def test_settings_of_one_run() -> None:
    config = override(parse(GOOD), ["steering.target=bottle", "guard.gain=0.25", "camera.hfov_deg=70"])
    assert config.steering.target == "bottle" and config.guard.gain == 0.25 and config.camera.hfov_deg == 70
    for wrong in ("guard.gain", "gain=1", "guard.gain=7", "guard.gian=0.1", "guard=1", "guard.gain.x=1"):
        with pytest.raises(ConfigError) as caught:
            override(parse(GOOD), [wrong])
        assert "--set" in str(caught.value)


def test_the_hash_follows_what_is_configured_not_how_it_is_written() -> None:
    assert parse(GOOD).sha256() == parse("# a comment\n[vehicle]\nmax_depth = 10.0").sha256()
    assert parse(GOOD).sha256() != parse("[vehicle]\nmax_depth = 11").sha256()


def test_every_key_says_how_a_change_takes_effect() -> None:
    definitions = schema()["$defs"]
    for section in definitions.values():
        for name, key in section["properties"].items():
            assert key.get("apply") in ("live", "restart"), name
    assert {name for name, key in definitions["GuardConfig"]["properties"].items() if key.get("safer")} == set(
        definitions["GuardConfig"]["properties"]
    ), "every key of the guard is a safety key"


@pytest.mark.parametrize(
    "endpoint",
    [
        "tcp://127.0.0.1:*",
        "tcp://127.0.0.1:99999",
        "tcp://127.0.0.1",
        "tcp://127.0.0.1:0",
        "tcp://:5555",
        "udp://1.2.3.4:5",
        "tcp://127.0.0.1:5555/x",
        "tcp://a b:5555",
        "ipc://",
        "ipc://*",
        f"ipc:///{'x' * 107}",
        "127.0.0.1:5555",
        "",
    ],
)
def test_an_endpoint_that_cannot_be_is_refused_with_its_line(endpoint: str) -> None:
    for key in ("public", "commands"):
        (problem,) = problems(f'{GOOD}[bus]\n{key} = "{endpoint}"\n')
        assert problem.startswith(f"r.toml:4: bus.{key} = ") and "value error" not in problem


@pytest.mark.parametrize(
    "endpoint", ["tcp://*:1", "tcp://[::1]:65535", "tcp://eth0:5555", "tcp://rover.local:80", f"ipc:///{'x' * 106}"]
)
def test_an_endpoint_that_can_be_is_taken(endpoint: str) -> None:
    assert parse(f'{GOOD}[bus]\npublic = "{endpoint}"\n').bus.public == endpoint


def checked(tmp_path: Path, source: str, more: str = "") -> list[str]:
    """The problems of a configuration with this camera source."""
    file = tmp_path / "rover.toml"
    file.write_text(tomli_w.dumps({"vehicle": {"max_depth": 10.0}, "camera": {"source": source}}) + more)
    try:
        load_checked(file, files=True)
    except ConfigError as error:
        return error.problems
    return []


def test_a_camera_that_cannot_be_one_is_refused_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "dir.mp4").mkdir()
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("no video")
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "tool").write_text("#!/bin/sh\n")
    for source, why in {
        "process:typo-of-a-program --fast": "no program 'typo-of-a-program'",
        "process:": "names no command",
        "process:   ": "names no command",
        "process:''": "names no command",
        "process:a 'b": "cannot be split into words",
        "process:/tmp": "no program '/tmp'",
        f"process:{tmp_path}/tool": "may be run",
        "pipe:10x10:typo-of-a-program": "no program 'typo-of-a-program'",
        "pipe:10x10:''": "names no command",
        "pipe:10x10:a 'b": "cannot be split into words",
        "pipe:10x10:": "is no camera",
        "x.mcap": "is no camera",
        "loop:x.mcap": "no such file",
        "loop:nowhere.mp4": "no such file",
        "nowhere.mp4": "no such file",
        f"loop:{tmp_path}/dir.mp4": "is a directory",
        str(tmp_path): "is no camera",
        f"{tmp_path}/empty.mp4": "is empty",
        f"{tmp_path}/text.mp4": "cannot be read as a video",
        f"{tmp_path}/pipe.mp4": "is no regular file",
        "x" * 300 + ".mp4": "too long",
        "rtp://:99999": "port",
    }.items():
        (problem,) = checked(tmp_path, source)
        assert "camera.source: " in problem and why in problem, (source, problem)
    for source in ("0", "/dev/video7", "rtp://:5600", f"process:{sys.executable} -c pass", "pipe:10x10:cat"):
        assert checked(tmp_path, source) == []


def test_files_that_cannot_be_used_are_named_all_at_once(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("[")
    file = tmp_path / "rover.toml"
    wrong = {"camera": {"calibration": f"{tmp_path}/bad.yaml", "colour": "nowhere.toml"}, "vehicle": {"max_depth": 9.0}}
    wrong["vehicle"]["thrusters"] = str(file)
    wrong["recording"] = {"folder": str(file)}
    file.write_text(tomli_w.dumps(wrong))
    with pytest.raises(ConfigError) as caught:
        load_checked(file, files=True)
    assert [problem.split(": ")[1] for problem in caught.value.problems] == [
        "camera.calibration",
        "camera.colour",
        "recording.folder",
        "vehicle.thrusters",
    ]


def test_rov_run_takes_settings_and_refuses_what_cannot_be(tmp_path: Path) -> None:
    file = tmp_path / "rover.toml"
    file.write_text(GOOD)
    words = ["run", file, "--set", "camera.source=x.mcap", "--set", f"link.port={tmp_path}/board"]
    run = subprocess.run(
        [sys.executable, "-m", "rov", *words], capture_output=True, text=True, cwd=checkout(), check=False
    )
    assert run.returncode == 2 and run.stderr.startswith(f"error: {file}: camera.source: x.mcap: is no camera")
    assert len(run.stderr.splitlines()) == 1


def test_ten_thousand_things_wrong_are_fifty_and_a_count() -> None:
    found = problems(GOOD + "[guard]\n" + "".join(f"k{i} = 1\n" for i in range(900)))
    assert len(found) == 51 and "850 more" in found[-1]
    (one,) = problems("".join(f"k{i} = 1\n" for i in range(5000)))
    assert "keys" in one
    (huge,) = problems(f"{GOOD}[guard]\ngain = 0x{'f' * 50_000}\n")
    assert huge.startswith("r.toml:4: guard.gain = ") and len(huge) < 300


VALUES = st.one_of(
    st.floats(),
    st.integers(-(2**60), 2**60),
    st.text(max_size=5),
    st.booleans(),
    st.lists(st.integers(0, 9), max_size=2),
)
TABLES = st.dictionaries(st.sampled_from(["gain", "max_depth", "score_min", "target", "y"]), VALUES)


@given(st.dictionaries(st.sampled_from([*Config.model_fields, "x"]), TABLES))
def test_any_toml_is_a_configuration_or_a_list_of_problems(data: dict[str, dict[str, object]]) -> None:
    try:
        parse(tomli_w.dumps(data))
    except ConfigError as error:
        assert error.problems and all(": " in problem for problem in error.problems)


def test_the_command_prints_them_and_exits_2(tmp_path: Path) -> None:
    file = tmp_path / "rover.toml"
    file.write_text("[guard]\ngian = 1\n")
    run = subprocess.run(
        [sys.executable, "-m", "rov", "config", "check", file],
        capture_output=True,
        text=True,
        cwd=checkout(),
        check=False,
    )
    assert run.returncode == 2 and run.stdout == ""
    assert f"error: {file}:2: guard.gian is not a known key; did you mean gain?" in run.stderr
    assert "vehicle is missing" in run.stderr and "Traceback" not in run.stderr


@pytest.mark.parametrize("bus", ["", '[bus]\npublic = "tcp://127.0.0.1:7000"\nkeys = "keys"\n'])
def test_the_public_endpoints_are_those_of_the_schema(tmp_path: Path, bus: str) -> None:
    path = tmp_path / "rover.toml"
    path.write_text(GOOD + bus)
    assert msgspec.structs.asdict(public_endpoints.load(path)) == load(path).bus.model_dump()
