"""TOML that nobody should have written: one sentence, at once, whoever reads it."""

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from models import data
from models.data import sets
from rov import toml
from rov.config.schema import load
from rov.dives.recovery import mark_file, marked
from rov.errors import UserError
from rov.motion import thrusters
from rov.optics import colour
from rov.resources import find_resource
from rov.validate import classes_of
from rov.vision.detector import load_card
from sim import parameters, world

SIZE = toml.BYTES_MAX - 100
NASTY = {
    "a number of 5000 digits": "a = " + "9" * 5000,
    "brackets": "a = " + "[" * 3000,
    "tables": "a = " + "{a = " * 3000,
    "a dotted key": ".".join(["a"] * (SIZE // 2)) + " = 1",
    "a dotted table": f"[{'.'.join(['a'] * (SIZE // 2))}]\n",
    "a dotted key with spaces": " . ".join(["'a'"] * (SIZE // 8)) + " = 1",
    "a dotted key in a table": "a = {" + ".".join(["a"] * (SIZE // 2 - 8)) + " = 1}",
    "too large": "# " + "x" * toml.BYTES_MAX,
    "one quote": '"' * SIZE,
    "no text": "a = \ud800",
    "NUL": "\0" * SIZE,
    "words": "a" * SIZE,
    "spaces": "a" + " " * SIZE,
    "quoted spaces": "'a' " * (SIZE // 4),
}


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode(errors="surrogatepass"))
    return path


@pytest.mark.usefixtures("swept")
@pytest.mark.parametrize("name", NASTY)
def test_it_is_one_short_sentence_in_no_time(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "x.toml", NASTY[name])
    began = time.thread_time()
    with pytest.raises(toml.TomlError) as caught:
        toml.parse(toml.read_text(path))
    assert time.thread_time() - began < 0.1
    assert 5 < len(str(caught.value)) < 400


@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "socket"])
def test_what_is_no_file_is_not_waited_for(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.toml"
    with socket.socket(socket.AF_UNIX) as listener:
        match kind:
            case "pipe":
                os.mkfifo(path)
            case "folder":
                path.mkdir()
            case "device":
                path.symlink_to("/dev/zero")
            case "socket":
                listener.bind(str(path))
        with pytest.raises(toml.TomlError, match=r"x\.toml: is no regular file"):
            toml.read_text(path)


READERS: dict[str, Callable[[Path], object]] = {
    "config": load,
    "world": lambda path: world.load(str(path)),
    "vehicle": parameters.load,
    "curve": lambda path: thrusters.load(path, 4),
    "colour": colour.load,
    "card": lambda path: load_card(path.with_suffix(".safetensors")),
}


@pytest.mark.parametrize("reader", READERS)
def test_everybody_reads_it_so(tmp_path: Path, reader: str) -> None:
    path = tmp_path / "x.toml"
    (tmp_path / "x.safetensors").touch()
    for text in NASTY.values():
        write(path, text)
        with pytest.raises(UserError, match=r"x\.toml"):
            READERS[reader](path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match=r"x\.toml: is no regular file"):
        READERS[reader](path)
    assert classes_of(path) == ()


def test_a_mark_counts_whatever_it_is(tmp_path: Path) -> None:
    dive = tmp_path / "a.mcap"
    dive.touch()
    os.mkfifo(mark_file(dive))
    assert marked(dive) is not None


def test_a_set_without_its_card_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sets, "cards", lambda: {"x": write(tmp_path / "x.toml", NASTY["brackets"])})
    with pytest.raises(UserError, match=r"x\.toml"):
        data.load_card("x")


def test_ours_are_far_from_the_limits() -> None:
    for name in ("rover.toml", "calibration/t200.toml", "models/detector.toml"):
        text = toml.read_text(find_resource(name))
        assert len(text) < toml.BYTES_MAX / 2 and text.count("[") < toml.BRACKETS_MAX / 5
        assert toml.parse(text)
