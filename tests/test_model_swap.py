"""A model is replaced while its process runs: what is taken, what is refused, and what comes back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import tomli_w
import torch
from safetensors.torch import save_file

from rov.config.schema import Config, override
from rov.dives.dive import DiveWriter
from rov.errors import UserError
from rov.messages import Event
from rov.motion.thrusters import load as load_curve
from rov.offline.replay import replay
from rov.offline.source import open_recording
from rov.resources import find_resource
from rov.vision.detector import Detector, sha256
from rov.vision.model_swap import JUDGED_FRAMES, TRIAL_FRAMES, ModelSwap, kept_model, load_warm
from rov.vision.network import DetectorNet

pytestmark = pytest.mark.patient

RATE_HZ = 10.0  # 100 ms for a frame


def make(
    folder: Path, name: str, classes: tuple[str, ...] = ("disc", "square"), size: int = 64, bad: bool = False
) -> str:
    """An untrained model with its card; `bad`: its output is not finite. Returns its path."""
    torch.manual_seed(1)
    weights = folder / f"{name}.safetensors"
    state = DetectorNet(len(classes)).state_dict()
    save_file({k: v * float("nan") if bad and v.is_floating_point() else v for k, v in state.items()}, weights)
    describe(weights, classes, size)
    return str(weights)


def describe(weights: Path, classes: tuple[str, ...], size: int) -> None:
    """Write the card of a weights file."""
    card = {"name": weights.stem, "classes": list(classes), "weights_sha256": sha256(weights)}
    card["input"] = {"size": size, "mean": 127.5, "std": 64.0}
    weights.with_suffix(".toml").write_text(tomli_w.dumps(card))


@pytest.fixture
def loader(config: Config) -> Callable[[str], Detector]:
    wanted = override(config, ["perception.device=cpu", f"perception.rate_hz={RATE_HZ}"]).perception
    return lambda name: load_warm(name, wanted, pace=True)


def swap_of(folder: Path, loader: Callable[[str], Detector]) -> ModelSwap:
    first = make(folder, "first")
    return ModelSwap(Detector(Path(first), "cpu", "float32"), first, loader, RATE_HZ, folder)


def tried(swap: ModelSwap, name: str) -> list[Event]:
    """What is said when this model is wanted and has been loaded."""
    swap.want(name)
    assert swap.loading is not None and swap.loading.done.wait(60)
    return list(swap.step(1))


def frames(swap: ModelSwap, count: int, ms: float, *, broken: bool = False) -> list[Event]:
    said: list[Event] = []
    for i in range(count):
        swap.add_frame(ms)
        said += swap.step(i, broken=broken)
    return said


def test_a_model_that_fits_runs_after_the_next_frame_and_is_kept(
    tmp_path: Path, loader: Callable[[str], Detector]
) -> None:
    swap = swap_of(tmp_path, loader)
    former, second = swap.detector, make(tmp_path, "second", ("square", "disc", "star"))
    frames(swap, 20, 10.0)
    swap.want(second)
    assert swap.detector is former, "the old one runs while the new one is loaded"
    (said,) = tried(swap, make(tmp_path, "third"))
    assert said.code == "model_switched" and "third" in said.text and "sha256" in said.text, "the last wish counts"
    assert swap.detector is not former and kept_model(tmp_path) == former_name(tmp_path)
    assert frames(swap, TRIAL_FRAMES, 12.0) == [] and swap.former is None
    assert kept_model(tmp_path).endswith("third.safetensors")
    (said,) = tried(swap, second)
    assert said.code == "model_switched" and swap.detector.card.classes == ("square", "disc", "star")


def former_name(folder: Path) -> str:
    return str(folder / "first.safetensors")


def test_what_does_not_fit_is_refused_and_the_old_one_goes_on(
    tmp_path: Path, loader: Callable[[str], Detector]
) -> None:
    swap = swap_of(tmp_path, loader)
    detector = swap.detector
    torn = Path(make(tmp_path, "torn"))
    torn.write_bytes(torn.read_bytes()[:1000])
    other = Path(make(tmp_path, "other"))
    describe(other, ("a", "b", "disc", "square"), 64)
    for name, why in (
        (str(torn), "not the file its card describes"),
        (str(other), "does not fit this network"),
        (str(tmp_path / "none.safetensors"), "not found"),
        (make(tmp_path, "poorer", ("disc",)), "does not know square"),
        (make(tmp_path, "large", size=2048), "takes .* ms for a frame"),
        (make(tmp_path, "nan", bad=True), "not finite"),
    ):
        (said,) = tried(swap, name)
        assert said.code == "model_refused" and swap.detector is detector
        with pytest.raises(UserError, match=why):
            raise UserError(said.text)
    assert frames(swap, 100, 10.0) == [] and kept_model(tmp_path) == former_name(tmp_path)


@pytest.mark.parametrize(("ms", "broken", "why"), [(130.0, False, "takes 130 ms"), (10.0, True, "not finite")])
def test_a_model_that_fails_in_use_is_rolled_back(
    ms: float, broken: bool, why: str, tmp_path: Path, loader: Callable[[str], Detector]
) -> None:
    swap = swap_of(tmp_path, loader)
    detector = swap.detector
    frames(swap, 20, 40.0)
    bad = make(tmp_path, "second")
    tried(swap, bad)
    (said,) = frames(swap, JUDGED_FRAMES, ms, broken=broken)[:1]
    assert said.code == "model_rolled_back" and said.level == "alarm" and why in said.text
    assert swap.detector is detector and kept_model(tmp_path) == former_name(tmp_path)
    swap.want(bad)
    assert swap.loading is None, "it is not tried again for ever"
    swap.want(former_name(tmp_path))
    assert [each.code for each in tried(swap, bad)] == ["model_switched"], "but when it is asked for again"


def test_a_machine_that_was_slow_before_is_not_the_new_models_fault(
    tmp_path: Path, loader: Callable[[str], Detector]
) -> None:
    swap = swap_of(tmp_path, loader)
    frames(swap, 20, 140.0)
    tried(swap, make(tmp_path, "second"))
    assert frames(swap, TRIAL_FRAMES, 150.0) == [] and swap.weights.endswith("second.safetensors")


def test_a_replay_says_that_the_model_changed_during_the_dive(tmp_path: Path, config: Config) -> None:
    rng = np.random.default_rng(0)
    text = "other.safetensors runs, sha256 0123456789ab, instead of first.safetensors"
    with DiveWriter(tmp_path / "dive.mcap", {}) as dive:
        for i in range(1, 7):
            jpeg = cv2.imencode(".jpg", rng.integers(0, 255, (48, 64, 3), np.uint8))[1].tobytes()
            dive.picture(i * 10**8, jpeg, i)
            if i == 3:
                event = Event(t=i * 10**8 + 1, level="info", source="perceptiond", code="model_switched", text=text)
                dive.write("events", event)
    detector = Detector(Path(make(tmp_path, "first")), "cpu", "float32")
    curve = load_curve(find_resource(config.vehicle.thrusters), config.vehicle.battery_cells)
    result = replay(open_recording(tmp_path / "dive.mcap"), config, detector, curve, tmp_path / "out", overlay=False)
    (said,) = result.skipped
    assert result.processed == 6 and text in said
