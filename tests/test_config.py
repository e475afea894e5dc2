"""Everything wrong with a configuration is said at once, with file, line and key."""

import subprocess
import sys
from pathlib import Path

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from rov.assets import checkout, find
from rov.config import Config, ConfigError, key_lines, load, override, parse, schema

GOOD = "[vehicle]\nmax_depth = 10\n"


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text, Path("r.toml"))
    return caught.value.problems


def test_the_default_file_spells_out_every_default() -> None:
    shipped = load(find("rover.toml"))
    assert shipped == parse(f"[vehicle]\nmax_depth = {shipped.vehicle.max_depth}")
    keys = key_lines(find("rover.toml").read_text())
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
    assert {name for name, key in definitions["Guard"]["properties"].items() if key.get("safer")} == set(
        definitions["Guard"]["properties"]
    ), "every key of the guard is a safety key"


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
