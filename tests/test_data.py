"""Cards are enforced, and readers read what the sets say."""

import json
from pathlib import Path

import pytest

from models import data
from models.data import sets
from models.data.hashing import hashes
from sim.dataset import dataset


def test_no_card_no_data() -> None:
    with pytest.raises(data.DataError, match="has no card"):
        data.load("reef", "train")


def test_a_card_with_a_typo_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = data.cards()["tub"].read_text().replace("licence =", "license =")
    (tmp_path / "tub.toml").write_text(text)
    monkeypatch.setattr(sets, "cards", lambda: {"tub": tmp_path / "tub.toml"})
    with pytest.raises(data.DataError, match="licen"):
        data.load_card("tub")


@pytest.mark.parametrize("name", data.cards())
def test_cards_are_consistent(name: str) -> None:
    card = data.load_card(name)
    assert not card.missing(), "training refuses it"
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
    assert "buoy_yellow" not in known and "buoy_red" in known
    assert "metal" not in known, "nobody looked for metal"
    assert "diver" in known - data.load_card("transdec").known("C"), "absent but for the scenes that show some"
    first = data.load("transdec", "train")[0]
    assert first.known[data.CLASSES.index("fish")] and not first.known[data.CLASSES.index("metal")]


def test_tub_boxes_match_the_ground_truth_of_the_clip(rov_data: Path) -> None:
    samples = data.load("tub", "test")
    assert len(samples) == 247 and {sample.group for sample in samples} == {"B02"}
    for sample in samples:
        assert ((sample.boxes >= -1) & (sample.boxes <= 641)).all()


def test_a_rendered_set_is_read_as_it_was_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset(["harbour"], 9, 3, tmp_path / "runs/sets/drawn", (160, 120), 0, lambda: None)
    monkeypatch.setattr(sets, "checkout", lambda: tmp_path)
    assert not data.load_card("drawn").missing() and data.rendered("drawn")
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
    assert data.card_entry("drawn")["rendered"]["seed"] == 3
    found = sets.open_set("drawn")
    assert hashes(found) == found.card.hashes, "the simulator computes them as everybody does"
