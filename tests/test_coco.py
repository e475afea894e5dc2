"""COCO files of others: boxes, outlines, masks and points are the same objects; what does not fit is one sentence."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from models import coco, data
from models.data import sets
from models.data.card import ENTRIES, Card, Hashes, write_card
from rov.errors import UserError
from rov.messages import Detection
from rov.offline.detect import PictureSource, detect_all

BASE: dict[str, Any] = {
    "images": [{"id": 70, "file_name": "a.jpg", "width": 8, "height": 6}, {"id": 9, "file_name": "b.jpg"}],
    "categories": [{"id": 90, "name": "fish"}, {"id": 3, "name": "crate", "supercategory": "thing"}],
}
MASK = [7, 2, 4, 3, 32]
"""8 × 6, column by column: rows 1 and 2 of column 1, and rows 1 to 3 of column 2."""


def read(folder: Path, *annotations: dict[str, Any]) -> list[coco.Labelled]:
    path = folder / "annotations.json"
    given = [{"id": 5, "image_id": 70, "category_id": 90} | each for each in annotations]
    path.write_text(json.dumps(BASE | {"annotations": given}))
    return coco.read(path)


@pytest.mark.parametrize(
    "drawn",
    [
        {"bbox": [1, 1, 2, 3]},
        {"bbox": [1, 1, 2, 3], "segmentation": [], "iscrowd": 0, "area": 6, "attributes": {"occluded": False}},
        {"segmentation": [[1, 1, 3, 1, 3, 2], [1.5, 2, 3, 4, 2, 4]]},
        {"bbox": None, "segmentation": [[1, 1, 3, 1, 3, 4]], "iscrowd": None},
        {"bbox": [], "segmentation": {"size": [6, 8], "counts": MASK}},
        {"segmentation": {"size": [6, 8], "counts": "7241l0"}},
        {"keypoints": [1, 1, 2, 3, 4, 1, 0, 0, 0], "num_keypoints": 2},
    ],
)
def test_an_object_has_one_box_however_it_is_drawn(drawn: dict[str, Any], tmp_path: Path) -> None:
    first, second = read(tmp_path, drawn)
    assert first.objects == [((1, 1, 3, 4), "fish")] and first.picture.file_name == "a.jpg"
    assert second.objects == [] and not second.unknown


def test_runs_in_characters_are_those_in_numbers() -> None:
    assert coco._counts("7241l0") == MASK, "from the fourth on differences to the one before the last: 3 - 2, 32 - 4"
    assert coco._counts("053M") == [0, 5, 3, 2], "2 - 5 = -3"


def test_a_crowd_is_no_object_and_what_is_empty_is_none(tmp_path: Path) -> None:
    crowd = {"iscrowd": 1, "segmentation": {"size": [6, 8], "counts": MASK}, "bbox": [1, 1, 2, 3]}
    empty = {"category_id": 3, "segmentation": {"size": [6, 8], "counts": [48]}}
    first, _ = read(tmp_path, crowd, empty, {"category_id": 3, "bbox": [1, 1, 0, 3]})
    assert first.objects == [] and first.unknown == {"fish"}


@pytest.mark.parametrize(
    ("annotation", "said"),
    [
        ({}, "annotation 1: has no bbox"),
        ({"bbox": [1, 2, 3]}, "annotation 1: bbox needs x, y, width and height, and has 3"),
        ({"category_id": 91, "bbox": [1, 1, 1, 1]}, "of category 91"),
        ({"image_id": 1, "bbox": [1, 1, 1, 1]}, "in image 1"),
        ({"segmentation": {"size": [6, 8], "counts": [7, 2]}}, "its mask is not of 8×6"),
        ({"segmentation": {"size": [6, 8], "counts": "@@@"}}, "its mask is not of 8×6"),
        ({"segmentation": [[1, 2, 3]]}, "has no bbox"),
        ({"bbox": "wide"}, "Expected"),
    ],
)
def test_what_does_not_fit_is_one_sentence(annotation: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said) as caught:
        read(tmp_path, annotation)
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"images": [{}], "categories": []}', "[" * 20_000])
def test_what_is_no_coco_is_one_sentence(text: str, tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(UserError, match=r"c\.json"):
        coco.read(tmp_path / "c.json")


def test_a_set_of_others_trains_and_says_nothing_of_crowds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "runs/sets/theirs"
    folder.mkdir(parents=True)
    texts = {key: "told" for key in ENTRIES if key not in ("transformations", "classes", "split", "hashes")}
    card = Card(
        **texts | {"name": "theirs"}, transformations=[], classes={"fish": "fish", "diver": "diver"},
        split={"train": ["theirs"]}, hashes=Hashes("0", "0"),
    )  # fmt: skip
    write_card(folder / "dataset.toml", card)
    read(folder, {"segmentation": [[1, 1, 3, 1, 3, 4]]}, {"image_id": 9, "iscrowd": 1, "bbox": [0, 0, 5, 5]})
    monkeypatch.setattr(sets, "checkout", lambda: tmp_path)
    first, second = data.load("theirs", "train")
    fish, diver = data.CLASSES.index("fish"), data.CLASSES.index("diver")
    assert first.boxes.tolist() == [[1, 1, 3, 4]] and first.kinds.tolist() == [fish]
    assert first.known[fish] and not second.known[fish] and second.known[diver]
    (folder / "annotations.json").write_text("{")
    with pytest.raises(data.DataError, match=r"annotations\.json"):
        data.load("theirs", "train")
    assert np.array_equal(first.known, [name in ("fish", "diver") for name in data.CLASSES])


def test_detections_are_coco_that_every_tool_takes(tmp_path: Path) -> None:
    """Tools such as CVAT refuse an annotation without `segmentation`, also where there are boxes alone."""
    cv2.imwrite(str(tmp_path / "a.png"), np.full((40, 60, 3), 90, np.uint8))
    detector: Any = SimpleNamespace(
        batch=1,
        card=SimpleNamespace(classes=("fish", "rock"), weights_sha256="0" * 64),
        detect=lambda images, _: [(Detection("rock", 0.75, (10.0, 5.0, 30.5, 25.0)),) for _ in images],
    )
    answer = detect_all(PictureSource([tmp_path / "a.png"]), detector, 0.5, None, lambda: None)
    assert answer["annotations"] == [
        {"id": 1, "image_id": 1, "category_id": 2, "bbox": [10.0, 5.0, 20.5, 20.0], "segmentation": [],
         "area": 410.0, "iscrowd": 0, "score": 0.75}
    ]  # fmt: skip
