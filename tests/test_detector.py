"""The detector around its network: cards, batches, boxes in the original picture."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import tomli_w
import torch
from safetensors.torch import save_file

from models import metrics
from models.data import load as load_set
from rov.media.pictures import read_image
from rov.resources import find_resource
from rov.types import Image
from rov.vision.detector import Detector, ModelError, letterbox, sha256
from rov.vision.network import DetectorNet

pytestmark = pytest.mark.patient

CLASSES = ("disc", "square")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small untrained network with its card; its threshold is so low that it finds something."""
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("model") / "net.safetensors"
    save_file(DetectorNet(len(CLASSES)).state_dict(), path)
    write_card(path)
    return path


def write_card(path: Path, **more: object) -> None:
    card = {
        "name": "untrained",
        "classes": list(CLASSES),
        "weights_sha256": sha256(path),
        "input": {"size": 128, "mean": 127.5, "std": 64.0},
    }
    path.with_suffix(".toml").write_text(tomli_w.dumps(card | more))


def pictures(count: int) -> list[Image]:
    rng = np.random.default_rng(0)
    return [np.asarray(cv2.blur(rng.integers(0, 255, (90, 120, 3), np.uint8), (5, 5)), np.uint8) for _ in range(count)]


def test_letterbox_by_hand() -> None:
    out = np.zeros((64, 64, 3), np.uint8)
    assert letterbox(np.full((100, 200, 3), 9, np.uint8), out) == 64 / 200
    assert (out[:32] == 9).all() and (out[32:] == 127).all()
    assert letterbox(np.full((200, 100, 3), 7, np.uint8), out) == 64 / 200
    assert (out[:, :32] == 7).all() and (out[:, 32:] == 127).all()


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 500, 3), (6000, 8000, 3)])
def test_any_size_of_picture(weights: Path, shape: tuple[int, int, int]) -> None:
    detector = Detector(weights, device="cpu", precision="float32")
    found = detector.detect([np.full(shape, 100, np.uint8)], 0.001)[0]
    height, width = shape[:2]
    for each in found:
        x1, y1, x2, y2 = each.box
        assert 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height


def test_who_shares_the_batch_does_not_matter(weights: Path) -> None:
    images = pictures(5)
    detector = Detector(weights, device="cpu", precision="float32", batch=2)
    together = detector.detect(images, 0.001)
    alone = [detector.detect([image], 0.001)[0] for image in images]
    assert together == alone and any(together)
    assert detector.detect([], 0.5) == []


def test_threshold_and_order(weights: Path) -> None:
    detector = Detector(weights, device="cpu", precision="float32")
    everything = detector.detect(pictures(1), 0.0001)[0]
    scores = [each.score for each in everything]
    assert scores == sorted(scores, reverse=True)
    middle = scores[len(scores) // 2]
    assert [each.score for each in detector.detect(pictures(1), middle)[0]] == [s for s in scores if s >= middle]


def test_a_full_list_is_counted(weights: Path) -> None:
    detector = Detector(weights, device="cpu", precision="float32")
    image = np.random.default_rng(4).integers(0, 255, (128, 128, 3), np.uint8)
    many = len(detector.detect([image], 1e-5)[0])
    assert many <= 128 and detector.full == int(many == 128)
    before = detector.full
    detector.detect([image], 0.99)
    assert detector.full == before


def test_the_card_sets_the_network_and_calibrates_its_scores(tmp_path: Path) -> None:
    torch.manual_seed(3)
    path = tmp_path / "narrow.safetensors"
    save_file(DetectorNet(len(CLASSES), (8, 8, 16, 16), 8).state_dict(), path)
    write_card(path, network={"widths": [8, 8, 16, 16], "pyramid": 8, "top": 5})
    raw = Detector(path, "cpu", "float32").detect(pictures(1), 0.0001)[0]
    assert 0 < len(raw) <= 5
    calibration = {name: [2.0, 3.0] for name in CLASSES}
    write_card(path, network={"widths": [8, 8, 16, 16], "pyramid": 8, "top": 5}, calibration=calibration)
    told = Detector(path, "cpu", "float32").detect(pictures(1), 0.0)[0]
    for before, after in zip(raw, told, strict=False):
        assert after.box == before.box
        logit = 2.0 * np.log(before.score / (1 - before.score)) + 3.0
        assert after.score == pytest.approx(1 / (1 + np.exp(-logit)), rel=1e-4)
    write_card(path)
    with pytest.raises(ModelError, match="does not fit this network"):
        Detector(path)


def test_the_threshold_of_an_older_card_is_reported_as_a_half(weights: Path) -> None:
    write_card(weights)
    detector = Detector(weights, "cpu", "float32")
    score = detector.detect(pictures(1), 0.0001)[0][0].score
    write_card(weights, thresholds=dict.fromkeys(CLASSES, score))
    assert Detector(weights, "cpu", "float32").detect(pictures(1), 0.4)[0][0].score == pytest.approx(0.5, abs=1e-3)
    write_card(weights)


def test_refusals_say_what_to_do(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such weights file"):
        Detector(tmp_path / "none.safetensors")
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(weights.read_bytes())
    with pytest.raises(ModelError, match="runs only with its card"):
        Detector(copy)
    write_card(copy, weights_sha256="0" * 64)
    with pytest.raises(ModelError, match="not the file its card describes"):
        Detector(copy)
    write_card(copy, classes=["one", "two", "three"])
    with pytest.raises(ModelError, match="does not fit this network"):
        Detector(copy)
    copy.with_suffix(".toml").write_text("name = 3")
    with pytest.raises(ModelError, match="copy.toml"):
        Detector(copy)


def test_the_shipped_detector_finds_red_buoys_it_never_trained_near(rov_data: Path) -> None:
    """Scene B of transdec was in no training or validation split."""
    samples = load_set("transdec", "test")[::2]
    detector = Detector(find_resource("models/detector.safetensors"), batch=4)
    found = detector.detect([read_image(sample.path) for sample in samples], 0.5)
    precision, recall = metrics.evaluate(samples, found).classes["buoy_red"].at(0.5)
    assert recall >= 0.9 and precision >= 0.95
