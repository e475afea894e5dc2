"""A model's files are judged without the network: a card that no network can have, weights that are none."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import torch
from safetensors.torch import save, save_file

from rov import validate
from rov.config.schema import Config, override
from rov.vision.detector import Detector
from rov.vision.model_card import HEAD, ModelError, check, load_card, sha256
from rov.vision.network import DetectorNet

INPUT = {"size": 128, "mean": 127.5, "std": 64.0}


def model(folder: Path, data: bytes | None = None, **more: Any) -> Path:
    """Weights (a head alone, or these bytes) with a card."""
    path = folder / "net.safetensors"
    path.write_bytes(save({HEAD: torch.zeros(6)}) if data is None else data)
    card = {"name": "a", "classes": ["disc", "square"], "weights_sha256": sha256(path), "input": INPUT}
    path.with_suffix(".toml").write_text(tomli_w.dumps(card | more))
    return path


@pytest.mark.parametrize("size", [10**9, 20000, 2080, -32, 0, 100, 352.5, True])
def test_a_size_that_no_network_has_is_refused(size: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"input\.size"):
        load_card(model(tmp_path, input=INPUT | {"size": size}))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"input": INPUT | {"std": float("nan")}}, "input.std = nan"),
        ({"input": INPUT | {"std": 0.0}}, "input.std = 0"),
        ({"input": INPUT | {"std": -64.0}}, "input.std = -64"),
        ({"input": INPUT | {"mean": float("inf")}}, "input.mean = inf"),
        ({"classes": ["fish\x1b[31m"]}, r"'fish\\x1b\[31m' is not a name"),
        ({"classes": ["../../etc"]}, "'../../etc' is not a name"),
        ({"classes": ["fish\n"]}, "is not a name"),
        ({"classes": []}, "different names"),
        ({"classes": ["a", "a"]}, "different names"),
        ({"thresholds": {"disc": 1.0}}, "thresholds.disc"),
        ({"thresholds": {"disc": float("nan")}}, "thresholds.disc"),
        ({"classes": ["one"]}, "does not fit this network"),
        ({"network": {"widths": [0, 64, 128, 192]}}, "network: widths"),
        ({"network": {"widths": [32, 64, 128]}}, "widths"),
        ({"network": {"top": 0}}, r"network\.top = 0"),
        ({"calibration": {"disc": [0.0, 1.0]}}, r"calibration\.disc"),
        ({"calibration": {"disc": [1.0, float("nan")]}}, r"calibration\.disc"),
    ],
)
def test_a_card_that_no_network_can_have_is_one_sentence(more: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=said) as caught:
        check(model(tmp_path, **more))
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


GOOD = save({HEAD: torch.zeros(6)})
HEADER = GOOD[8 : 8 + struct.unpack("<Q", GOOD[:8])[0]]


def headed(header: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header + GOOD[8 + len(HEADER) :]


@pytest.mark.parametrize(
    "data",
    [
        b"", GOOD[:4], GOOD[:20], GOOD[:-1], GOOD + b"x", struct.pack("<Q", 2**60) + GOOD[8:], bytes(8) + GOOD[8:],
        headed(b"{nope"), headed(b"[1]"), headed(b"\xff\xfe"), headed(b"[" * 50_000), b"PK\x03\x04" + bytes(999),
        headed(HEADER.replace(b"F32", b"X32")), headed(HEADER.replace(b"[6]", b"[-6]")),
        headed(HEADER.replace(b"[6]", b"[4611686018427387904,8]")), headed(HEADER.replace(b"24]", b"2400000000]")),
    ],
)  # fmt: skip
def test_weights_that_are_none_are_one_sentence(data: bytes, tmp_path: Path) -> None:
    path = model(tmp_path, data)
    for load in (check, lambda path: Detector(path, "cpu")):
        with pytest.raises(ModelError, match="cannot be read as safetensors") as caught:
            load(path)
        assert "\n" not in str(caught.value)


def test_the_check_of_a_configuration_tells_of_its_files(config: Config, tmp_path: Path) -> None:
    assert validate.file_problems(config) == []
    broken = model(tmp_path, GOOD[:20])
    (tmp_path / "c.yaml").write_text("image_width: 3")
    (tmp_path / "c.toml").write_text("source = 1")
    for key, path in (
        ("perception.weights", broken), ("camera.calibration", tmp_path / "c.yaml"),
        ("camera.colour", tmp_path / "c.toml"), ("vehicle.thrusters", tmp_path / "c.toml"),
    ):  # fmt: skip
        (said,) = validate.file_problems(override(config, [f"{key}={path}", "steering.target=disc"]))[-1:]
        assert said.startswith(f"{key}: {path}") and "\n" not in said
    save_file(DetectorNet(2).state_dict(), tmp_path / "whole.safetensors")
    assert check(model(tmp_path, (tmp_path / "whole.safetensors").read_bytes())).classes == ("disc", "square")


def test_json_of_a_header_is_what_the_tests_change() -> None:
    assert json.loads(HEADER)[HEAD]["shape"] == [6], "or the cases above change nothing"
