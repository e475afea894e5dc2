"""What a training run leaves: curves while it runs; at the end weights with their card, `results.json`, and the
pictures with the worst answers."""

from __future__ import annotations

import json
import math
import subprocess
import time
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import msgspec
import tomli_w
from safetensors.torch import save_file

from models import data, metrics
from models.metrics import Evaluation
from models.recipe import Recipe
from rov import toml
from rov.media.pictures import read_image
from rov.messages import Detection
from rov.resources import checkout
from rov.vision.detector import Detector, sha256
from rov.vision.network import DetectorNet

MEAN, STD = 127.5, 64.0
"""Of the pixels that the network takes."""
WORST = 24
"""Pictures in `worst/`."""
LEAST = 0.01
"""Lowest score of the answers that are judged."""
DRAWN_EVERY = 20.0
"""Seconds from one drawing of the curves to the next: each takes half a second, and a short epoch no longer."""
FULL = 0.05
"""A list of objects counts as full where its last one has a higher score than this: there may have been more."""


class Curves:
    """The run's log as lines of JSON and a picture, and for TensorBoard where that is installed."""

    def __init__(self, out: Path):
        self.out, self.board, self.drawn = out, None, -math.inf
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        self.board = SummaryWriter(str(out / "tensorboard"))

    def add(self, line: dict[str, Any]) -> None:
        """Append an epoch; the picture follows every now and then, and is to be drawn once more at the end."""
        with (self.out / "log.jsonl").open("a") as log:
            log.write(json.dumps(line) + "\n")
        if self.board:
            for key in line.keys() - {"epoch", "step"}:
                self.board.add_scalar(key, line[key], line["step"])
        if time.monotonic() - self.drawn > DRAWN_EVERY:
            draw(self.out)
            self.drawn = time.monotonic()


def cut_log(out: Path, epoch: int) -> None:
    """Drop what was logged after the checkpoint of this epoch."""
    lines = (out / "log.jsonl").read_text().splitlines()
    kept = [line for line in lines if json.loads(line)["epoch"] <= epoch]
    (out / "log.jsonl").write_text("".join(f"{line}\n" for line in kept))


def draw(out: Path) -> None:
    """Plot `log.jsonl` into `curves.png`."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    figure, axes = pyplot.subplots(1, 3, figsize=(13, 3.6), layout="constrained")
    for axis, keys in zip(axes, (("focal", "box", "remember"), ("map50",), ("rate",)), strict=True):
        for key in keys:
            points = [(line["epoch"], line[key]) for line in lines if key in line]
            if points:
                axis.plot(*zip(*points, strict=True), marker="." if len(points) < 40 else "", label=key)
        axis.set_xlabel("epoch")
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend()
    axes[0].set_ylim(bottom=0)
    figure.savefig(out / "curves.png", dpi=90)
    pyplot.close(figure)


def save(
    net: DetectorNet, recipe: Recipe, classes: tuple[str, ...], sets: dict[str, Any], weights: Path, start: Path | None
) -> None:
    """Write the weights and a card without metrics."""
    state = {key: value.detach().contiguous().cpu() for key, value in net.state_dict().items()}
    # Kernels in half precision halve the file and change no figure of the card.
    save_file({key: value.half() if value.dim() == 4 else value for key, value in state.items()}, weights)
    git = subprocess.run(["git", "-C", checkout(), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    told: dict[str, Any] = msgspec.to_builtins(recipe)
    told["network"]["start"] = sha256(start) if start else ""
    card: dict[str, Any] = {
        "name": "detector",
        "classes": list(classes),
        "weights_sha256": sha256(weights),
        "commit": git.stdout.strip() or "unknown",
        "parameters": sum(p.numel() for p in net.parameters()),
        "limits": limits(recipe, classes),
        "input": {
            "size": recipe.network.size,
            "channels": "BGR",
            "mean": MEAN,
            "std": STD,
            "fit": "top left, grey 127",
        },
        "network": {key: told["network"][key] for key in ("widths", "pyramid", "top")},
        "recipe": told,
        "data": {name: data.card_entry(name) | sets[name] for name in recipe.sets},
    }
    if start:  # the card of the start, which holds its own start
        before = toml.parse(toml.read_text(start.with_suffix(".toml")))
        card["started_from"] = ancestry(before)
    write_card(weights, card)


def ancestry(card: dict[str, Any]) -> dict[str, Any]:
    """What a card tells of the weights that a training began with, and of those before them: of each of their sets one
    line. Whole, a card would double with every training."""
    told: dict[str, Any] = {key: card[key] for key in ("weights_sha256", "commit", "recipe") if key in card}
    told["data"] = {
        name: each if isinstance(each, str) else f"{each['pictures']} pictures, sha256 {each['sha256']}"
        for name, each in card.get("data", {}).items()
    }
    return told | ({"started_from": ancestry(card["started_from"])} if "started_from" in card else {})


def limits(recipe: Recipe, classes: tuple[str, ...]) -> str:
    """What a reader of the card must know."""
    labelled = {name: data.labelled(name) for name in recipe.sets}
    real = {name for each, names in labelled.items() if not data.rendered(each) for name in names}
    rendered = [name for name in classes if name not in real and any(name in names for names in labelled.values())]
    unseen = [name for name in classes if not any(name in names for names in labelled.values())]
    told = [f"Learned from {', '.join(recipe.sets)} alone: expect false alarms and misses elsewhere."]
    if rendered:
        told.append(f"Known from rendered pictures alone: {', '.join(rendered)}.")
    if unseen:
        told.append(f"Not in these sets, kept from the weights it started from: {', '.join(unseen)}.")
    told.append(
        f"Objects under about 8 pixels of the {recipe.network.size} pixel input are not found. A score of 0.5 is"
        " right every second time on the validation splits; other scores, and other places, are no probabilities."
    )
    return " ".join(told)


Answers = dict[str, tuple[list[data.Sample], list[tuple[Detection, ...]]]]
"""The pictures of `val`, `test` and `rendered` that there are, and what a detector says of them."""


def judge(weights: Path, device: str, recipe: Recipe, out: Path) -> None:
    """Calibrate on the val splits, then measure val and test splits: into the card, `results.json` and `worst/`. What
    is rendered is measured by itself, as `rendered`."""
    card = toml.parse(toml.read_text(weights.with_suffix(".toml"))) | {"calibration": {}}
    write_card(weights, card)
    detector = Detector(weights, device, batch=8)
    names = detector.card.classes
    raw = answers(detector, list(recipe.sets))
    seen = [raw[key] for key in ("val", "rendered") if key in raw]
    samples, found = [s for each, _ in seen for s in each], [f for _, each in seen for f in each]
    fits = metrics.calibrate(metrics.evaluate(samples, found, names).classes) if samples else {}
    card["calibration"] = {name: list(fit) for name, fit in fits.items()}
    told = {}
    for key, (own, uncalibrated) in raw.items():
        given = [tuple(_calibrated(each, fits) for each in f) for f in uncalibrated]
        judged = metrics.evaluate(own, given, names)
        told[key] = report(judged, full_lists(given, detector.card.network.top))
        if key == "val":
            _worst(judged, given, out / "worst")
    put_on_card(card, told)
    write_card(weights, card)
    (out / "results.json").write_text(json.dumps(told, indent=1, allow_nan=False))


def answers(detector: Detector, sets: list[str]) -> Answers:
    """What the detector says of the pictures of these sets that it did not learn from."""
    rendered = [name for name in sets if data.rendered(name)]
    real = [name for name in sets if name not in rendered]
    groups: tuple[tuple[str, list[str], data.Split], ...]
    groups = (("val", real, "val"), ("rendered", rendered, "val"), ("test", real, "test"))
    found: Answers = {}
    for key, names, split in groups:
        if own := [sample for name in names for sample in data.load(name, split, detector.card.classes)]:
            found[key] = own, detector.detect([read_image(sample.path) for sample in own], LEAST)
    return found


def put_on_card(card: dict[str, Any], told: dict[str, dict[str, Any]]) -> None:
    """Figures of these splits, in place of older ones."""
    for part, key in (("metrics", "per_class"), ("means", "metrics"), ("scenes", "per_scene")):
        card[part] = card.get(part, {}) | {split: each[key] for split, each in told.items()}


def full_lists(found: list[tuple[Detection, ...]], top: int) -> int:
    """How many pictures have a full list of objects: there may have been more."""
    return sum(len(each) >= top and min(d.score for d in each) > FULL for each in found)


def _calibrated(each: Detection, fits: dict[str, tuple[float, float]]) -> Detection:
    """The answer with the score that the calibrated detector gives it."""
    slope, offset = fits.get(each.label, (1.0, 0.0))
    raw = min(max(each.score, 1e-6), 1 - 1e-6)
    return Detection(each.label, 1 / (1 + math.exp(-slope * math.log(raw / (1 - raw)) - offset)), each.box)


def per_class(judged: Evaluation) -> dict[str, dict[str, Any]]:
    """Figures per class with labels; precision and recall at a score of 0.5."""
    rows = {}
    for name, result in judged.classes.items():
        if result.labels:
            precision, recall = result.at(0.5)
            row = {"ap50": result.ap50, "ap50_95": result.ap50_95, "precision": precision, "recall": recall}
            rows[name] = {key: round(value, 3) for key, value in row.items()} | {"labels": result.labels}
    return rows


def report(judged: Evaluation, full: int) -> dict[str, Any]:
    """Everything measured on one split, as `results.json` has it."""
    map50, map50_95 = judged.mean()
    scenes = judged.scenes()
    rows = {}
    for scene, pictures in scenes.items():
        own, strict = judged.mean(pictures)
        rows[scene] = {"map50": _plain(own), "map50_95": _plain(strict), "pictures": len(pictures)}
    for name in sorted({s.set_name for s in judged.samples}):
        pictures = [i for i, s in enumerate(judged.samples) if s.set_name == name]
        interval = judged.interval(pictures, [judged.samples[i].group for i in pictures])
        for scene in scenes:
            if scene.startswith(f"{name}/"):
                rows[scene] |= {"low": interval[0] if interval else None, "high": interval[1] if interval else None}
    return {
        "metrics": {
            "map50": _plain(map50), "map50_95": _plain(map50_95), "pictures": len(judged.samples), "full": full,
            "calibration_error": _plain(metrics.calibration_error(judged.classes)),
        },
        "per_class": per_class(judged),
        "per_scene": rows,
        "pictures": [_picture(judged, i) for i in range(len(judged.samples))],
    }  # fmt: skip


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 4)


def _picture(judged: Evaluation, i: int) -> dict[str, Any]:
    sample, (labels, hits, false) = judged.samples[i], judged.picture(i)
    f1 = 2 * hits / (labels + hits + false) if labels + hits + false else 1.0
    where = {"path": str(sample.path), "set": sample.set_name, "scene": sample.group}
    return where | {"f1": round(f1, 3), "misses": labels - hits, "false_alarms": false}


def _worst(judged: Evaluation, found: list[tuple[Detection, ...]], folder: Path) -> None:
    """Draw the pictures with the most misses and false alarms: labels green, answers with a score of 0.5 red."""
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.jpg"):
        old.unlink()
    rows = [_picture(judged, i) for i in range(len(judged.samples))]
    order = sorted(range(len(rows)), key=lambda i: (rows[i]["f1"], -rows[i]["misses"] - rows[i]["false_alarms"]))
    for number, i in enumerate(order[:WORST], 1):
        sample = judged.samples[i]
        image = read_image(sample.path).copy()
        for box, kind in zip(sample.boxes, sample.kinds, strict=True):
            _box(image, box.tolist(), judged.names[kind], (80, 200, 0))
        for each in found[i]:
            if each.score >= 0.5 and sample.known[judged.names.index(each.label)]:
                _box(image, each.box, f"{each.label} {each.score:.2f}", (40, 40, 230))
        cv2.imwrite(str(folder / f"{number:03d}_{sample.set_name}_{sample.path.stem}.jpg"), image)


def _box(image: Any, box: Any, text: str, colour: tuple[int, int, int]) -> None:
    x1, y1, x2, y2 = (round(v) for v in box)
    cv2.rectangle(image, (x1, y1), (x2, y2), colour, 2)
    cv2.putText(image, text, (x1, max(10, y1 - 3)), cv2.FONT_HERSHEY_SIMPLEX, 0.4, colour, 1, cv2.LINE_AA)


def write_card(weights: Path, card: dict[str, Any]) -> None:
    with weights.with_suffix(".toml").open("wb") as file:
        tomli_w.dump(_toml(card), file)


def _toml(value: Any) -> Any:
    """TOML has no null: such entries are left out."""
    if isinstance(value, dict):
        return {key: _toml(each) for key, each in value.items() if each is not None}
    return value
