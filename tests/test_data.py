"""Cards are enforced, readers read what the sets say, and an unknown class is not background."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from models import augment, data
from models.train_detector import load_start, losses, targets
from rov.vision.network import DetectorNet
from sim.dataset import dataset


def test_no_card_no_data() -> None:
    with pytest.raises(data.DataError, match="has no card"):
        data.load("reef", "train")


def test_a_card_with_a_typo_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = data.cards()["tub"].read_text().replace("licence =", "license =")
    (tmp_path / "tub.toml").write_text(text)
    monkeypatch.setattr(data, "cards", lambda: {"tub": tmp_path / "tub.toml"})
    with pytest.raises(data.DataError, match="licen"):
        data.load_card("tub")


@pytest.mark.parametrize("name", data.cards())
def test_cards_are_consistent(name: str) -> None:
    card = data.load_card(name)
    assert set(card.classes) | set(card.absent.classes) <= set(data.CLASSES)
    assert not set(card.classes) & set(card.absent.classes)
    groups = [group for split in card.split.values() for group in split]
    assert len(groups) == len(set(groups)), "a group in two splits leaks"


def test_the_shown_scenes_are_in_no_training_split() -> None:
    assert "B" not in data.load_card("transdec").split["train"] + data.load_card("transdec").split["val"]
    assert "B02" not in data.load_card("tub").split["train"] + data.load_card("tub").split["val"]


def test_transdec_is_read_as_it_is_written(rov_data: Path) -> None:
    samples = {sample.path.name: sample for sample in data.load("transdec", "test")}
    assert len(samples) == 203
    assert sum((sample.kinds == data.CLASSES.index("buoy_red")).sum() for sample in samples.values()) == 200
    known = data.load_card("transdec").known("I")
    assert not known[data.CLASSES.index("buoy_yellow")] and known[data.CLASSES.index("buoy_red")]
    assert not known[data.CLASSES.index("metal")], "nobody looked for metal"
    diver = data.CLASSES.index("diver")
    assert known[diver] and not data.load_card("transdec").known("C")[diver], "absent but for the scenes that show some"


def test_tub_boxes_match_the_ground_truth_of_the_clip(rov_data: Path) -> None:
    samples = data.load("tub", "test")
    assert len(samples) == 247 and {sample.group for sample in samples} == {"B02"}
    for sample in samples:
        assert ((sample.boxes >= -1) & (sample.boxes <= 641)).all()


def test_weights_are_taken_over_by_the_names_of_their_classes(tmp_path: Path) -> None:
    old, new = DetectorNet(2), DetectorNet(3)
    save_file(old.state_dict(), tmp_path / "old.safetensors")
    (tmp_path / "old.toml").write_text('classes = ["disc", "square"]')
    before, after = old.head[-1], new.head[-1]
    assert isinstance(before, nn.Conv2d) and isinstance(after, nn.Conv2d)
    fresh = after.weight[1].clone()
    load_start(new, tmp_path / "old.safetensors", ("square", "ring", "disc"))
    assert torch.equal(after.weight, torch.stack([before.weight[1], fresh, *before.weight[[0, 2, 3, 4, 5]]]))
    assert before.bias is not None and after.bias is not None
    assert torch.equal(after.bias, torch.stack([before.bias[1], torch.tensor(-4.6), *before.bias[[0, 2, 3, 4, 5]]]))
    assert torch.equal(new.state_dict()["stem.0.0.weight"], old.state_dict()["stem.0.0.weight"])


def test_targets_say_nothing_where_nothing_is_known() -> None:
    known = np.zeros(len(data.CLASSES), bool)
    known[[0, 1]] = True
    boxes = np.array([[16, 16, 48, 64], [100, 100, 130, 130]], np.float32)
    heat, mask, box, weight = targets(boxes, np.array([0, 1]), np.array([True, False]), known, 24)
    assert heat[0].max() == 1 and heat[0, 5, 4] == 1  # centre (32, 40) px is in cell (4, 5)
    assert box[:, 5, 4].tolist() == [16, 16, 48, 64] and weight[5, 4] > 0
    assert mask[2:].sum() == 0 and mask[0].min() == 1
    assert mask[1, 14, 14] == 0 and mask[1, 0, 0] == 1, "an object cut off by the edge is neither there nor absent"


def test_the_right_answer_costs_nothing_and_an_unknown_class_never_does() -> None:
    import torch

    known = np.zeros(len(data.CLASSES), bool)
    known[0] = True
    wanted = targets(np.array([[16, 16, 48, 64]], np.float32), np.array([0]), np.array([True]), known, 24)
    heat = torch.where(wanted[0] == 1, 9.0, -9.0)[None]
    heat[:, 5] = 9.0  # shouting about a class that nobody labelled
    x = (torch.arange(24) + 0.5) * 8
    d = torch.stack(torch.broadcast_tensors(x[None] - 16, x[:, None] - 16, 48 - x[None], 64 - x[:, None]))[None]
    focal, box = losses(heat, d.float(), *(part[None] for part in wanted))
    assert focal < 0.02 and box < 1e-4
    heat[:, 0] = -heat[:, 0]
    assert losses(heat, d.float(), *(part[None] for part in wanted))[0] > 5


def test_augmentation_moves_boxes_with_the_picture() -> None:
    image = np.zeros((200, 300, 3), np.uint8)
    image[80:120, 140:180] = 255
    box = np.array([[140, 80, 180, 120]], np.float32)
    for seed in range(30):
        out, moved, kept = augment.place(image, box, 256, np.random.default_rng(seed))
        x1, y1, x2, y2 = moved[0]
        white = np.argwhere((out == 255).all(2))
        if not kept[0] or len(white) == 0:
            continue
        assert abs(white[:, 1].mean() - (x1 + x2 - 1) / 2) < 4 and abs(white[:, 0].mean() - (y1 + y2 - 1) / 2) < 4


def test_iou_by_hand() -> None:
    a = np.array([[0, 0, 10, 10]], np.float32)
    b = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30]], np.float32)
    assert augment.iou(a, b)[0] == pytest.approx([1.0, 1 / 3, 0.0])


def test_a_rendered_set_is_read_as_it_was_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset(["harbour"], 9, 3, tmp_path / "runs/sets/drawn", (160, 120), 1, lambda: None)
    monkeypatch.setattr(data, "checkout", lambda: tmp_path)
    train, val = data.load("drawn", "train"), data.load("drawn", "val")
    assert (len(train), len(val), len(data.load("drawn", "test"))) == (8, 1, 0)
    coco = json.loads((tmp_path / "runs/sets/drawn/annotations.json").read_text())
    names = {each["id"]: each["name"] for each in coco["categories"]}
    ours = [each for each in coco["annotations"] if names[each["category_id"]] in data.CLASSES]
    assert sum(len(sample.boxes) for sample in train + val) == len(ours) > 0
    first = next(sample for sample in train if len(sample.boxes))
    assert all(sample.known.all() for sample in train) and first.path.is_file()
    x, y, w, h = next(a["bbox"] for a in ours if f"_{a['image_id'] - 1:05}" in first.path.name)
    assert first.boxes[0].tolist() == [x, y, x + w, y + h]
    assert data.card_entry("drawn")["seed"] == 3
