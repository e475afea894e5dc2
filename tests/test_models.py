"""`rov models`: what is there, what its card says, whether it can be used, and using it."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from rov import toml
from rov.cli.app import app
from rov.config.edit import with_text
from rov.config.schema import load, parse
from rov.errors import UserError
from rov.resources import checkout, find_resource
from rov.vision import store
from tests.test_model_swap import make

pytestmark = pytest.mark.patient


def run(*arguments: object) -> tuple[int, str]:
    """(exit code, output); an error for the user is exit code 2 and its text, as the command line has it."""
    result = CliRunner().invoke(app, ["models", *map(str, arguments)])
    if isinstance(result.exception, UserError):
        return 2, str(result.exception)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two models, one of them damaged, one network of another kind, and a configuration."""
    models = tmp_path / "mine"
    models.mkdir()
    make(models, "reef", ("buoy_red", "coral"))
    torn = Path(make(models, "torn", ("buoy_red", "coral")))
    torn.write_bytes(torn.read_bytes()[:-4])
    (models / "policy.safetensors").write_bytes(b"")
    (models / "policy.toml").write_text('name = "a policy"\n')
    (tmp_path / "rover.toml").write_text("# mine\n[vehicle]\nmax_depth = 30 # m\n\n[perception]\nrate_hz = 10\n")
    return tmp_path


def test_the_list_has_what_runs_and_why_the_rest_does_not(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    code, said = run("list", "--folder", folder / "mine", "--folder", checkout() / "models")
    assert (
        code == 0 and "buoy_red, coral" in said and "torn" in said and "cannot be used" in said and "policy" not in said
    )
    (used,) = [line for line in said.splitlines() if "*" in line]
    assert " detector " in used
    assert run("list", "--folder", folder / "none")[0] == 2


def test_a_card_is_shown_to_people_and_programs() -> None:
    code, said = run("show", "detector")
    assert code == 0 and "limits:" in said and "buoy_red" in said and "learned from transdec" in said
    code, said = run("show", "detector", "--json")
    assert code == 0
    assert json.loads(said) == toml.parse(find_resource("models/detector.toml").read_text())
    code, said = run("show", "nobody")
    assert code == 2 and "there are" in said and "detector" in said


def test_verify_runs_the_network(folder: Path) -> None:
    code, said = run("verify", "reef", "--folder", folder / "mine")
    assert code == 0 and "good; 2 classes, input 64" in said
    code, said = run("verify", "--folder", folder / "mine")
    assert code == 1 and "1 of 2" in said and "torn" in said


def test_use_writes_the_configuration_and_keeps_the_rest_of_it(folder: Path) -> None:
    path = folder / "rover.toml"
    code, said = run("use", "reef", "--folder", folder / "mine", "-c", path)
    assert code == 0 and "model_switched" in said, said
    assert load(path).perception.weights == str(folder / "mine" / "reef.safetensors")
    text = path.read_text()
    assert "# mine" in text and "max_depth = 30 # m" in text and "rate_hz = 10" in text
    code, _ = run("use", "detector", "-c", path)
    assert code == 0 and load(path).perception.weights == "models/detector.safetensors"
    assert not list(folder.glob("*.new"))


def test_use_refuses_what_a_daemon_would_refuse(folder: Path) -> None:
    path = folder / "rover.toml"
    before = path.read_text()
    code, said = run("use", "torn", "--folder", folder / "mine", "-c", path)
    assert code == 2 and "not the file its card describes" in said
    make(folder / "mine", "fishy", ("fish", "coral"))
    code, said = run("use", "fishy", "--folder", folder / "mine", "-c", path)
    assert code == 2 and "steering.target" in said and "fish, coral" in said
    assert path.read_text() == before


def test_detect_gives_the_best_ones_above_a_score(folder: Path) -> None:
    picture, out = folder / "a.png", folder / "d.json"
    cv2.imwrite(str(picture), np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8))
    found = {}
    for key, flags in (("all", ["--score-min", "0"]), ("top", ["--score-min", "0", "--top", "3"]), ("usual", [])):
        arguments = ["detect", str(picture), "--out", str(out), *flags, "-c", str(folder / "rover.toml")]
        weights = ["--set", f"perception.weights={folder / 'mine/reef.safetensors'}"]
        result = CliRunner().invoke(app, [*arguments, *weights])
        assert result.exit_code == 0, result.output
        found[key] = [(each["score"], each["bbox"]) for each in json.loads(out.read_text())["annotations"]]
    assert len(found["all"]) > 3 and found["top"] == found["all"][:3] and found["usual"] == []


def test_a_name_that_is_twice_there_is_asked_for_by_path(folder: Path) -> None:
    (folder / "more").mkdir()
    make(folder / "more", "reef")
    with pytest.raises(UserError, match="name one by its path"):
        store.find_model("reef", [folder])
    assert store.find_model(str(folder / "more/reef"), []) == folder / "more/reef.safetensors"


@pytest.mark.parametrize(
    "text",
    [
        "[vehicle]\nmax_depth = 3.0\n",
        "[perception]\n[vehicle]\nmax_depth = 3.0",
        "[vehicle]\nmax_depth = 3.0\n[perception] # eyes\nrate_hz = 4.0\n  weights='a' # old\n[control]\n",
        '[vehicle]\nmax_depth = 3.0\n[recording]\nfolder = "weights = 1"\n[perception]\nweights = "x"\n',
    ],
)
@given(value=st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=30))
def test_an_edit_changes_one_key_and_keeps_the_rest(text: str, value: str) -> None:
    new = parse(with_text(text, "perception", "weights", value))
    old = parse(text)
    assert new.perception.weights == value
    assert new == old.model_copy(update={"perception": old.perception.model_copy(update={"weights": value})})
