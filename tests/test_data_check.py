"""What a check finds, how a set is split and merged, and that a page shows it."""

from collections import Counter
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest

from models import coco, data
from models.coco import Labelled, Picture
from models.data.card import ENTRIES, Absent, Card, Hashes, Step, read_card, write_card
from models.data.checking import examine
from models.data.errors import DataError
from models.data.hashing import hashes
from models.data.likeness import alike, fingerprint_of
from models.data.looks import looks_of
from models.data.merging import merge
from models.data.page import write_page
from models.data.report import Report
from models.data.sets import PictureSet, open_set
from models.data.splitting import split_set
from rov.types import Image

TEXTS = {key: "told" for key in ENTRIES if key not in ("name", "transformations", "classes", "split", "hashes")}


def scene(seed: int, shift: int = 0) -> Image:
    """A rough picture of 160×120; frames of one seed are alike."""
    rough = np.random.default_rng(seed).integers(0, 255, (9, 12, 3), dtype=np.uint8)
    return np.asarray(np.roll(cv2.resize(rough, (160, 120)), shift, 1), np.uint8)


def made(folder: Path, scenes: dict[str, int], classes: dict[str, str] | None = None, **card: object) -> PictureSet:
    """A set with so many pictures of each scene, each with a fish."""
    (folder / "images").mkdir(parents=True)
    pictures = []
    for number, (name, count) in enumerate(scenes.items()):
        for i in range(count):
            file = f"images/{name}_{i}.png"
            cv2.imwrite(str(folder / file), scene(number * 100 + i))
            box = (10.0 + i, 20.0, 50.0 + i, 60.0)
            pictures.append(Labelled(Picture(0, file, 160, 120, scene=name, t=float(i)), [(box, "poisson")], set()))
    coco.write(folder / "annotations.json", pictures, ["poisson"])
    ours = classes or {"fish": "poisson"}
    told = Card(name=folder.name, **TEXTS | {"licence": "MIT"}, transformations=[Step("none")], classes=ours, **card)  # type: ignore[arg-type]
    told = msgspec.structs.replace(told, hashes=hashes(PictureSet(told, folder / "dataset.toml", folder)))
    write_card(folder / "dataset.toml", told)
    return open_set(folder)


def said(report: Report) -> str:
    return "\n".join(f"{each.kind}: {each.text}" for each in report.problems)


def test_a_good_set_has_no_errors_and_a_page(tmp_path: Path) -> None:
    found = made(tmp_path / "good", {"a": 15, "b": 6}, split={"train": ["a"], "val": ["b"]})
    report = examine(found)
    assert not report.errors and "warning" not in said(report)
    write_page(report, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert page.count("data:image/jpeg") == 3 and "<svg" in page and "21, 160×120 (21)" in page
    assert not found.card.missing() and data.load(found.root, "val")[0].kinds.tolist() == [data.CLASSES.index("fish")]


def test_a_check_finds_what_is_wrong(tmp_path: Path) -> None:
    found = made(tmp_path / "bad", {"a": 3, "b": 3}, split={"train": ["a"], "val": ["b"]}, absent=Absent(["diver"], ""))
    root = found.root
    (root / "images/b_0.png").write_bytes((root / "images/a_0.png").read_bytes())
    cv2.imwrite(str(root / "images/b_1.png"), np.roll(scene(1), 2, 1))
    (root / "images/a_2.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    pictures = found.pictures()
    pictures[0].objects.extend([((10.0, 20.0, 50.0, 60.0), "poisson"), ((1.0, 1.0, 1.5, 9.0), "poisson")])
    pictures[1].objects.extend([((150.0, 100.0, 190.0, 130.0), "crab"), ((5.0, 5.0, 9.0, 9.0), "diver")])
    coco.write(root / "annotations.json", pictures, ["poisson", "crab", "diver"])
    write_card(root / "dataset.toml", msgspec.structs.replace(found.card, licence="CC-BY-NC-4.0", people=" ?"))
    text = said(examine(open_set(root)))
    for each in (
        "error: card: people is missing",
        "error: files that are there several times, in different splits: 1",
        "a_2.png: cannot be read",
        "error: diver: absent, says the card, and it has boxes: 1",
        "no commercial use",
        "a box without area",
        "reached out of its picture",
        "have an object twice (first: images/a_0.png)",
        "labels and pictures are no longer those",
        "not used: crab 1",
        "warning: 2 of 3 pictures of val look nearly like",
        "fish: 6 boxes; below 20",
    ):
        assert each in text, f"{each} not in\n{text}"


def test_likeness_tells_frames_of_a_clip_from_other_pictures() -> None:
    dim = np.asarray(scene(1) * 0.7 + 30, np.uint8)
    noisy = np.asarray(np.clip(dim + np.random.default_rng(0).normal(0, 8, dim.shape), 0, 255), np.uint8)
    prints = np.stack([fingerprint_of(each) for each in (scene(1), noisy, scene(1, 1), scene(2), scene(1, 40))])
    assert {(i, j) for i, j, _ in alike(prints)} == {(0, 1), (0, 2), (1, 2)}
    assert len(list(alike(prints, -1.0))) == 10, "every pair once"


def test_looks_are_those_of_the_water() -> None:
    clear = np.zeros((120, 160, 3), np.uint8)
    clear[:, ::8] = (200, 200, 200)
    veiled = np.asarray(clear * 0.3 + np.array((140, 120, 20)) * 0.7, np.uint8)
    a, b = looks_of(clear), looks_of(veiled)
    assert abs(a.red_green) < 1 and abs(a.blue_yellow) < 1 and b.red_green < -5 and b.blue_yellow < -5
    assert b.veil > a.veil + 0.2 and a.contrast > 2 * b.contrast and a.sharpness > 2 * b.sharpness


def test_a_split_keeps_scenes_whole_and_shares_near(tmp_path: Path) -> None:
    found = made(tmp_path / "s", {"a": 8, "b": 2, "c": 6, "d": 2, "e": 2})
    with pytest.raises(DataError, match="split is missing"):
        data.load(found.root, "train")
    done = split_set(found, {"train": 0.7, "val": 0.2, "test": 0.1}, 1, 0)
    count = Counter(done.split_of(each) for each in done.pictures())
    assert count == {"train": 14, "val": 4, "test": 2}
    assert (
        read_card(found.card_path).split
        == done.card.split
        == split_set(found, {"train": 0.7, "val": 0.2, "test": 0.1}, 1, 0).card.split
    )


def test_one_dive_is_cut_into_clips_that_follow_in_time(tmp_path: Path) -> None:
    found = made(tmp_path / "s", {"dive": 10}, unknown={"dive": ["fish"]})
    with pytest.raises(
        DataError, match="has 1 scene, and train and val need one each: record another dive, or .* --clips 10"
    ):
        split_set(found, {"train": 0.8, "val": 0.2}, 1, 0)
    done = split_set(found, {"train": 0.8, "val": 0.2}, 5, 0)
    held = [each.picture.t for each in done.pictures() if done.split_of(each) == "val"]
    assert len(held) == 2 and held[1] == (held[0] or 0) + 1, "a stretch, and not frames here and there"
    assert set(done.card.unknown) == {f"dive/{i}" for i in range(1, 6)} and not done.card.missing()
    assert not data.load(found.root, "val")[0].known.any(), "what was unknown stays so"


def test_merged_sets_keep_what_each_does_not_label(tmp_path: Path) -> None:
    split = {"train": ["a"], "val": ["b"]}
    reef = made(tmp_path / "reef", {"a": 2, "b": 1}, split=split, absent=Absent(["diver", "bottle"], "looked"))
    tank = made(
        tmp_path / "tank", {"a": 1, "b": 1}, {"bottle": "poisson"}, split=split, absent=Absent(["diver"], "looked")
    )
    found = merge([reef, tank], tmp_path / "both", "the command", lambda total: None)
    assert not found.card.missing() and found.card.split == {"train": ["reef/a", "tank/a"], "val": ["reef/b", "tank/b"]}
    names = ("fish", "bottle", "diver", "rock")
    train = {each.path.parent.name: each for each in data.load(found.root, "train", names)}
    assert train["reef"].known.tolist() == [True, True, True, False] and train["reef"].kinds.tolist() == [0]
    assert train["tank"].known.tolist() == [False, True, True, False] and train["tank"].kinds.tolist() == [1]
    assert len(data.load(found.root, "train")) == 3 and not examine(found).errors
    with pytest.raises(DataError, match="same name"):
        merge([reef, reef], tmp_path / "twice", "", lambda total: None)
    write_card(tank.card_path, msgspec.structs.replace(tank.card, licence=""))
    with pytest.raises(DataError, match="licence is missing"):
        merge([reef, open_set(tank.root)], tmp_path / "no", "", lambda total: None)


def test_a_card_survives_being_written(tmp_path: Path) -> None:
    card = Card(
        name="x", **TEXTS | {"about": 'two\nlines "quoted"'}, transformations=[Step("a", "b"), Step("c")],
        classes={"fish": "Fisch", "a b": "c"}, unknown={"s/1": ["fish"]}, split={"train": ["s/1"], "val": []},
        hashes=Hashes("0", "1"), columns={"t": "time"}, rendered={"seed": 3, "worlds": {"pool": "0"}},
    )  # fmt: skip
    write_card(tmp_path / "dataset.toml", card)
    assert read_card(tmp_path / "dataset.toml") == card
    bare = Card(name="y")
    write_card(tmp_path / "dataset.toml", bare)
    assert read_card(tmp_path / "dataset.toml") == bare
    assert bare.missing() == [each for each in ENTRIES if each != "name"]


@pytest.mark.parametrize("entry", [each for each in ENTRIES if each != "name"])
def test_training_refuses_a_card_that_lacks_an_entry(entry: str, tmp_path: Path) -> None:
    found = made(tmp_path / "s", {"a": 1}, split={"train": ["a"]})
    empty: object = {"transformations": None, "classes": {}, "split": {}, "hashes": Hashes()}.get(entry, "todo")
    write_card(found.card_path, msgspec.structs.replace(found.card, **{entry: empty}))
    with pytest.raises(DataError, match=rf"dataset\.toml: {entry} is missing: ") as caught:
        data.load(found.root, "train")
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('name = "a"\nowner = "b"', "owner"),
        ('name = "a"\nsplit = {train = ["x"], val = ["x"]}', "x is in two splits"),
        ('name = "a"\nclasses = {fish = "f"}\nabsent = {classes = ["fish"]}', "fish is labelled"),
        ('name = "a"\nsplit = {training = ["x"]}', "training"),
        ('name = 3', "name"),
        ('name = ', "not TOML"),
    ],
)  # fmt: skip
def test_a_wrong_card_is_named(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "dataset.toml").write_text(text)
    with pytest.raises(DataError, match=said) as caught:
        read_card(tmp_path / "dataset.toml")
    assert str(tmp_path) in str(caught.value)
