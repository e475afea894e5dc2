"""Training: an unknown class is not background, boxes move with their pictures, an interrupted run goes on as if it had
never stopped, and a detector learns new classes without losing the old ones."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest
import tomli_w
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from typer.testing import CliRunner

from models import augment, data, metrics, recipe, results, studies, train_detector
from models.augment import Augmentation, Plan, Source
from models.data.card import ENTRIES, Card, Step, write_card
from models.data.hashing import hashes
from models.data.sets import PictureSet
from models.measure import measure
from models.objective import losses, remembering, targets
from models.train_detector import learning_rate, load_start
from rov import toml
from rov.errors import UserError
from rov.media.pictures import read_image
from rov.resources import checkout, find_resource
from rov.vision.detector import Detector, sha256
from rov.vision.model_card import load_card
from rov.vision.network import DetectorNet

pytestmark = pytest.mark.patient

SMALL = ["network.size=96", "network.widths=[8,8,16,16]", "network.pyramid=8", "optimisation.batch=4"]
SHORT = [*SMALL, "optimisation.pictures=16", "optimisation.epochs=6", "optimisation.warm_up=2"]


def placed(boxes: list[list[float]], kinds: list[int], kept: list[bool], size: int = 192) -> Plan:
    """One training picture of one piece."""
    n = len(boxes)
    return Plan(
        np.zeros(1, np.int64), np.zeros(1, np.int64), np.eye(2, 3)[None], np.array([[0, 0, size, size]], np.float32),
        np.zeros(1, np.float32), np.array(boxes, np.float32).reshape(-1, 4), np.zeros(n, np.int64),
        np.array(kinds, np.int64), np.array(kept, bool),
    )  # fmt: skip


def test_weights_are_taken_over_by_the_names_of_their_classes(tmp_path: Path) -> None:
    old, new = DetectorNet(2), DetectorNet(3)
    start = tmp_path / "old.safetensors"
    save_file(old.state_dict(), start)
    start.with_suffix(".toml").write_text(
        f'name = "old"\nclasses = ["disc", "square"]\nweights_sha256 = "{sha256(start)}"\n'
        "[input]\nsize = 96\nmean = 127.5\nstd = 64.0\n"
    )
    before, after = old.head[-1], new.head[-1]
    assert isinstance(before, nn.Conv2d) and isinstance(after, nn.Conv2d)
    fresh = after.weight[1].clone()
    assert load_start(new, start, ("square", "ring", "disc")) == ("square", "disc")
    assert torch.equal(after.weight, torch.stack([before.weight[1], fresh, *before.weight[[0, 2, 3, 4, 5]]]))
    assert before.bias is not None and after.bias is not None
    assert torch.equal(after.bias, torch.stack([before.bias[1], torch.tensor(-4.6), *before.bias[[0, 2, 3, 4, 5]]]))
    assert torch.equal(new.state_dict()["stem.0.0.weight"], old.state_dict()["stem.0.0.weight"])


def test_targets_say_nothing_where_nothing_is_known() -> None:
    known = torch.zeros(1, 4)
    known[0, :2] = 1
    made = placed([[16, 16, 48, 64], [100, 100, 130, 130]], [0, 1], [True, False])
    heat, mask, box, weight = (each[0] for each in targets(made, known, 1, 192))
    assert heat[0].max() == 1 and heat[0, 5, 4] == 1  # centre (32, 40) px is in cell (4, 5)
    assert box[:, 5, 4].tolist() == [16, 16, 48, 64] and weight[5, 4] > 0
    assert mask[2:].sum() == 0 and mask[0].min() == 1
    assert mask[1, 14, 14] == 0 and mask[1, 0, 0] == 1, "an object cut off by the edge is neither there nor absent"


def test_the_smaller_of_two_boxes_owns_the_cells_they_share() -> None:
    made = placed([[0, 0, 160, 160], [72, 72, 96, 96]], [0, 0], [True, True])
    box = targets(made, torch.ones(1, 1), 1, 192).box[0]
    assert box[:, 10, 10].tolist() == [72, 72, 96, 96] and box[:, 10, 8].tolist() == [0, 0, 160, 160]


def test_each_part_of_a_mosaic_knows_its_own_classes() -> None:
    halves = np.array([[0, 0, 96, 192], [96, 0, 192, 192]], np.float32)
    made = placed([], [], [])._replace(
        row=np.zeros(2, np.int64), source=np.array([0, 1]), matrix=np.tile(np.eye(2, 3), (2, 1, 1)), window=halves,
        opacity=np.zeros(2, np.float32),
    )  # fmt: skip
    mask = targets(made, torch.tensor([[1.0, 0.0], [0.0, 1.0]]), 1, 192).mask[0]
    assert mask[0, :, :12].min() == 1 and mask[0, :, 12:].max() == 0
    assert mask[1, :, :12].max() == 0 and mask[1, :, 12:].min() == 1


def test_the_right_answer_costs_nothing_and_an_unknown_class_never_does() -> None:
    known = torch.zeros(1, 6)
    known[0, 0] = 1
    wanted = targets(placed([[16, 16, 48, 64]], [0], [True]), known, 1, 192)
    heat = torch.where(wanted.heat == 1, 9.0, -9.0)
    heat[:, 5] = 9.0  # shouting about a class that nobody labelled
    x = (torch.arange(24) + 0.5) * 8
    d = torch.stack(torch.broadcast_tensors(x[None] - 16, x[:, None] - 16, 48 - x[None], 64 - x[:, None]))[None]
    focal, box = losses(heat, d.float(), wanted)
    assert focal < 0.02 and box < 1e-4
    heat[:, 0] = -heat[:, 0]
    assert losses(heat, d.float(), wanted)[0] > 5


def test_what_the_start_knew_counts_only_where_nothing_is_labelled() -> None:
    heat, mask, boxes = torch.full((1, 2, 3, 3), -6.0), torch.ones(1, 2, 3, 3), torch.full((1, 4, 3, 3), 20.0)
    heat[0, 1, 1, 1] = 4.0
    mask[0, 1] = 0.0
    assert remembering(heat, boxes, (heat, boxes), mask) == 0
    forgot, larger = torch.full_like(heat, -6.0), 2.0 * boxes
    assert remembering(forgot, boxes, (heat, boxes), mask) > 1
    assert remembering(heat, larger, (heat, boxes), mask) == pytest.approx(
        float(heat[0, 1, 1, 1].sigmoid() * np.log(2))
    )
    assert remembering(forgot, larger, (heat, boxes), torch.ones_like(mask)) == 0


def disc(size: tuple[int, int], centre: tuple[int, int], radius: int) -> np.ndarray:
    image = np.zeros((size[1], size[0], 3), np.uint8)
    cv2.circle(image, centre, radius, (255, 255, 255), -1)
    return image


def test_boxes_move_with_their_pictures_in_mosaics_and_pastes() -> None:
    picture = torch.from_numpy(disc((300, 200), (160, 100), 30)).permute(2, 0, 1)
    source = Source(200, 300, np.array([[130, 70, 191, 131]], np.float32), np.zeros(1, np.int64))
    how, seen = Augmentation(mosaic=0.5, paste=0.5), 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        made = augment.plan([source], np.array([[0, 0]]), np.zeros(2, np.int64), np.zeros(1, np.int64), 256, how, rng)
        x = augment.compose([picture], made, 2, 256, np.random.default_rng(0))
        for box, row in zip(made.boxes[made.kept], made.box_row[made.kept], strict=True):
            x1, y1, x2, y2 = box
            if min(x2 - x1, y2 - y1) < 16 or max(x2 - x1, y2 - y1) > 1.15 * min(x2 - x1, y2 - y1):
                continue  # too small to measure, or cut by the edge of its window
            middle = x[row, :, int((y1 + y2) / 2), int((x1 + x2) / 2)]
            assert middle.min() > 180, (seed, box, middle)
            seen += 1
    assert seen > 20


def test_water_changes_every_picture_its_own_way_and_repeats() -> None:
    x = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 255
    one, two = (augment.water(x, Augmentation(), np.random.default_rng(5)) for _ in range(2))
    assert torch.equal(one, two) and one.min() >= 0 and one.max() <= 255
    assert ((one - x).abs().mean((1, 2, 3)) > 1).all()
    still = Augmentation(colour=0, veil=0, blur=0, noise=0)
    assert torch.allclose(augment.water(x, still, np.random.default_rng(5)), x, atol=1e-3)


def test_iou_by_hand() -> None:
    a = np.array([[0, 0, 10, 10]], np.float32)
    b = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30]], np.float32)
    assert augment.iou(a, b)[0] == pytest.approx([1.0, 1 / 3, 0.0])


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("optimisation.pictures=12", "at least one batch"),
        ("optimisation.epochs=0", "epochs and validate"),
        ("optimisation.rate=nan", "rate and average"),
        ("network.size=100", "multiple of 32"),
        ("network.size=20000", "multiple of 32"),
        ("network.widths=[1,2,3,4]", "from 8 to 1024"),
        ("optimisation.optimiser=adam", "optimiser"),
        ("network.share=0.5", "only with a start"),
        ("optimisation.speed=3", "speed"),
        ("optimisation", "section.key=value"),
    ],
)
def test_a_recipe_that_cannot_be_trained_is_refused(setting: str, said: str) -> None:
    path = recipe.default(None)
    with pytest.raises(UserError, match=said):
        recipe.load(path, {}, ["optimisation.batch=16", setting])


def test_the_recipes_of_the_repository_are_whole(tmp_path: Path) -> None:
    for path in (checkout() / "models/recipes").glob("*.toml"):
        made = recipe.load(path, {"sets": {"a": 1.0}}, [])
        recipe.save(made, tmp_path / "again.toml")
        assert recipe.load(tmp_path / "again.toml", {}, []) == made


def test_the_rate_warms_up_and_falls_to_a_hundredth() -> None:
    made = recipe.load(recipe.default(None), {}, ["optimisation.rate=0.1", "optimisation.warm_up=10"])
    rates = [learning_rate(made, step, step / 100) for step in range(101)]
    assert rates[0] == pytest.approx(0.01, rel=0.01) and max(rates) < 0.1 and rates[-1] == pytest.approx(0.001)
    assert all(a > b for a, b in zip(rates[10:], rates[11:], strict=False))


@pytest.fixture(scope="module")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set with its card: white discs and green squares on dark water, 24 pictures."""
    folder = tmp_path_factory.mktemp("sets") / "discs"
    (folder / "images").mkdir(parents=True)
    rng, images, annotations = np.random.default_rng(0), [], []
    for i in range(24):
        image = np.full((96, 128, 3), (60, 40, 10), np.uint8)
        for kind in (1, 2):
            x, y, r = int(rng.integers(14, 114)), int(rng.integers(14, 82)), int(rng.integers(7, 13))
            if kind == 1:
                cv2.circle(image, (x, y), r, (250, 250, 250), -1)
            else:
                cv2.rectangle(image, (x - r, y - r), (x + r, y + r), (90, 160, 90), -1)
            box = [x - r, y - r, 2 * r + 1, 2 * r + 1]
            annotations.append(
                {"id": len(annotations) + 1, "image_id": i + 1, "category_id": kind, "bbox": box, "iscrowd": 0,
                 "area": box[2] * box[3]}
            )  # fmt: skip
        cv2.imwrite(str(folder / f"images/{i:02d}.png"), image)
        scene = ("test", "train", "train", "val")[i % 4]
        images.append({"id": i + 1, "file_name": f"images/{i:02d}.png", "width": 128, "height": 96, "scene": scene})
    categories = [{"id": 1, "name": "disc"}, {"id": 2, "name": "square"}]
    (folder / "annotations.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    labels(folder, "disc", "square")
    return folder


def labels(discs: Path, *classes: str) -> None:
    """Write the card that says which classes the set labels."""
    texts = {key: "made" for key in ENTRIES if key not in ("name", "transformations", "classes", "split", "hashes")}
    card = Card(
        name="discs", **texts, transformations=[Step("none")], classes={name: name for name in classes},  # type: ignore[arg-type]
        split={each: [each] for each in ("train", "val", "test")},
    )  # fmt: skip
    path = discs / "dataset.toml"
    write_card(path, msgspec.structs.replace(card, hashes=hashes(PictureSet(card, path, discs))))


def trained(discs: Path, out: Path, settings: list[str], start: Path | None = None) -> Path:
    more = [f'network.start="{start}"'] if start else []
    made = recipe.load(recipe.default(start), {"sets": {str(discs): 1.0}}, [*settings, *more])
    return train_detector.run(made, out, torch.device("cpu"))


def test_a_killed_run_goes_on_to_the_same_weights(discs: Path, tmp_path: Path) -> None:
    cut, log = tmp_path / "cut", tmp_path / "cut/log.jsonl"
    options = [each for setting in SHORT for each in ("--set", setting)]
    command = [sys.executable, "-m", "models.train_detector", "--data", str(discs), "--out", str(cut), "--threads", "1"]
    with subprocess.Popen([*command, *options], cwd=checkout(), stdout=subprocess.DEVNULL) as process:
        end = time.monotonic() + 120
        while not log.exists() or log.read_text().count("\n") < 2:
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL and not (cut / "detector.safetensors").exists()
    whole, again = trained(discs, tmp_path / "whole", SHORT), trained(discs, cut, SHORT)
    assert sha256(again) == sha256(whole)
    lines = [[json.loads(line) for line in (p.parent / "log.jsonl").read_text().splitlines()] for p in (whole, again)]
    assert [{**each, "s": 0} for each in lines[0]] == [{**each, "s": 0} for each in lines[1]]
    with pytest.raises(UserError, match="another recipe"):
        trained(discs, cut, [*SHORT, "optimisation.rate=0.01"])
    for name in ("recipe.toml", "data.toml", "curves.png", "results.json", "detector.toml"):
        assert (again.parent / name).stat().st_size > 0
    assert list((again.parent / "worst").glob("*.jpg"))
    card = toml.parse(toml.read_text(again.with_suffix(".toml")))
    assert "discs/val" in measure(again, [str(discs)], "cpu")[1]
    after = toml.parse(toml.read_text(again.with_suffix(".toml")))
    assert after["metrics"] == card["metrics"] and after["means"]["val and test"]["pictures"] == 12


def test_it_learns_and_then_learns_a_new_class_without_losing_the_old(discs: Path, tmp_path: Path) -> None:
    longer = [*SMALL, "optimisation.pictures=48", "optimisation.rate=0.01", "optimisation.warm_up=10"]
    longer += ["optimisation.average=0.9", "optimisation.validate=100", "augmentation.tilt=0", "augmentation.paste=0"]
    labels(discs, "disc")
    first = trained(discs, tmp_path / "first", [*longer, "optimisation.epochs=14"])
    labels(discs, "square")
    settings = [*longer, "optimisation.epochs=20", "optimisation.minutes=0", "optimisation.rate=0.007"]
    second = trained(discs, tmp_path / "second", settings, first)
    labels(discs, "disc", "square")
    before, after = (judged(weights, discs) for weights in (first, second))
    assert before["disc"] > 0.7 and "square" not in before
    assert after["square"] > 0.6
    assert after["disc"] > 0.8 * before["disc"], "kept without a label for it"
    assert load_file(second)["head.1.bias"].shape == (6,)


def test_what_is_kept_is_a_mean_of_the_start_and_of_what_was_learned() -> None:
    start = find_resource("models/detector.safetensors")
    settings = [f'network.start="{start}"', "network.share=0.25"]
    made = recipe.load(recipe.default(start), {"sets": {"discs": 1.0}}, settings)
    trainer = train_detector.Trainer(made, load_card(start).classes, start, torch.device("cpu"))
    with torch.no_grad():
        for each in trainer.average.parameters():
            each += 1.0
    for name, each in trainer.kept().state_dict().items():
        more = 0.25 if name in dict(trainer.average.named_parameters()) else 0.0
        assert torch.allclose(each.float(), trainer.beginning[name] + more, atol=1e-5), name


def test_a_card_grows_by_a_line_a_set_with_every_training() -> None:
    sets = {"pool": {"pictures": 3, "sha256": "ab", "source": "x" * 500}}
    card: dict[str, Any] = {"name": "a", "weights_sha256": "1", "commit": "c", "recipe": {"sets": {}}, "data": sets}
    told = results.ancestry(card)
    assert told == {
        "weights_sha256": "1", "commit": "c", "recipe": {"sets": {}}, "data": {"pool": "3 pictures, sha256 ab"},
    }  # fmt: skip
    assert results.ancestry(card | {"started_from": told}) == told | {"started_from": told}


def judged(weights: Path, discs: Path) -> dict[str, float]:
    """AP50 of each class of the detector on the val and test splits."""
    eyes = Detector(weights, "cpu")
    samples = [each for split in ("val", "test") for each in data.load(discs, split, eyes.card.classes)]
    found = eyes.detect([read_image(each.path) for each in samples], 0.01)
    return {name: each.ap50 for name, each in metrics.evaluate(samples, found, eyes.card.classes).classes.items()}


def test_it_stops_early_and_keeps_the_best(discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = iter([0.5, 0.4, 0.3, 0.2])
    monkeypatch.setattr(train_detector.Validation, "map50", lambda *_: next(values))
    settings = [*SHORT, "optimisation.epochs=9", "optimisation.validate=1", "optimisation.patience=2"]
    weights = trained(discs, tmp_path, settings)
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert len(lines) == 3 and json.loads(lines[0])["map50"] == 0.5
    best = torch.load(tmp_path / "best.pt", weights_only=True)
    assert torch.equal(load_file(weights)["head.1.bias"], best["head.1.bias"])


def test_curves_are_not_drawn_after_each_short_epoch(tmp_path: Path) -> None:
    curves, picture = results.Curves(tmp_path), tmp_path / "curves.png"
    curves.add({"epoch": 1, "step": 1, "focal": 2.0, "box": 1.0, "rate": 0.1})
    first = picture.read_bytes()
    curves.add({"epoch": 2, "step": 2, "focal": 1.0, "box": 0.5, "rate": 0.1})
    assert picture.read_bytes() == first and (tmp_path / "log.jsonl").read_text().count("\n") == 2
    curves.drawn -= results.DRAWN_EVERY
    curves.add({"epoch": 3, "step": 3, "focal": 0.5, "box": 0.2, "rate": 0.1})
    assert picture.read_bytes() != first


def test_sgd_learns_too_and_minutes_end_a_run(discs: Path, tmp_path: Path) -> None:
    settings = [*SHORT, "optimisation.optimiser=sgd", "optimisation.rate=0.02", "optimisation.epochs=6"]
    trained(discs, tmp_path / "sgd", settings)
    lines = [json.loads(line) for line in (tmp_path / "sgd/log.jsonl").read_text().splitlines()]
    assert lines[-1]["focal"] < lines[0]["focal"]
    began = time.monotonic()
    trained(discs, tmp_path / "timed", [*SHORT, "optimisation.epochs=1", "optimisation.minutes=0.02"])
    assert time.monotonic() - began < 60
    assert (tmp_path / "timed/log.jsonl").read_text()


def test_the_command_says_what_is_wrong(tmp_path: Path) -> None:
    for arguments, said in (
        (["--start", "none.safetensors"], "no such weights file"),
        (["--data", "no_such_set"], "no_such_set"),
        (["--set", "network.size=100"], "multiple of 32"),
    ):
        done = CliRunner().invoke(train_detector.app, ["--out", str(tmp_path / "run"), *arguments])
        assert done.exit_code == 2 and said in done.output, done.output


def studies_of(discs: Path, path: Path) -> Path:
    """A file of two studies: the recipe, and the same at another rate."""
    tables: dict[str, Any] = {"sets": {str(discs): 1.0}}
    for setting in [*SHORT, "optimisation.epochs=1"]:
        recipe.apply(tables, setting)
    first, then = {"what": "as it is"}, {"what": "slower", "settings": ["optimisation.rate=0.001"]}
    path.write_text(tomli_w.dumps({"recipe": tables, "study": {"recipe": first, "more": then}}))
    return path


def test_studies_are_trained_once_and_their_table_goes_onto_a_card(
    discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(studies, "SETS", [str(discs)])
    monkeypatch.chdir(checkout())
    file, out = studies_of(discs, tmp_path / "studies.toml"), tmp_path / "out"
    command = [str(file), "--out", str(out), "--device", "cpu"]
    first = CliRunner().invoke(studies.app, [*command, "--only", "recipe"])
    assert first.exit_code == 0, first.output
    began, card = (out / "recipe/log.jsonl").stat().st_mtime_ns, out / "recipe/detector.toml"
    second = CliRunner().invoke(studies.app, [*command, "--card", str(card)])
    assert second.exit_code == 0, second.output
    assert (out / "recipe/log.jsonl").stat().st_mtime_ns == began, "what is finished is not trained again"
    told = toml.parse(toml.read_text(card))
    assert [each["what"] for each in told["studies"]] == ["as it is", "slower"]
    assert (
        "Each 16 pictures at 96 px in batches of 4" in told["studies_of"]
        and "6 real val pictures" in told["studies_of"]
    )
    more = toml.parse(toml.read_text(out / "more/recipe.toml"))
    assert more["optimisation"]["rate"] == 0.001


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"only": {"what": "alone"}}, "study.recipe"),
        ({"recipe": {"what": "r"}, "less": {"what": "l", "without": ["no_such"]}}, "study.less.without"),
        ({"recipe": {"what": "r", "setings": []}}, "setings"),
        ({"recipe": {"what": "r", "settings": ["network.size=100"]}}, "multiple of 32"),
    ],
)
def test_studies_that_cannot_be_made_are_refused(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    file = tmp_path / "studies.toml"
    file.write_text(tomli_w.dumps({"recipe": {"sets": {"tub": 1.0}, "network": {}}, "study": change}))
    done = CliRunner().invoke(studies.app, [str(file), "--out", str(tmp_path / "out")])
    assert isinstance(done.exception, UserError) and said in str(done.exception)


def test_studies_of_a_recipe_without_sets_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "studies.toml"
    file.write_text('[recipe.network]\n[study.recipe]\nwhat = "r"\n')
    done = CliRunner().invoke(studies.app, [str(file), "--out", str(tmp_path / "out")])
    assert isinstance(done.exception, UserError) and "sets: names at least one set" in str(done.exception)


def test_the_studies_of_the_repository_can_be_made(tmp_path: Path) -> None:
    found = studies.load(studies.STUDIES)
    recipes = {name: recipe.load(studies.written(found, name, tmp_path), {}, []) for name in found.study}
    base = recipes[studies.BASE]
    changed = [name for name, each in recipes.items() if msgspec.json.encode(each) == msgspec.json.encode(base)]
    assert changed == [studies.BASE], "each changes something"
