"""Train the detector: `python -m models.train_detector --out runs/detector`. One file, read top to bottom.

Learns from the train splits of sets with cards. The test split chooses nothing; it is only measured at the end. A run
is a folder: `checkpoint.pt` (the same command resumes), `log.jsonl`, and at the end the weights and their card, which
`--install` copies to `models/`.
"""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import tomli_w
import torch
import typer
from numpy.typing import NDArray
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from safetensors.torch import load_file, save_file
from torch import Tensor

from models import augment, data, metrics
from rov import toml
from rov.errors import UserError
from rov.media.pictures import read_image
from rov.printing import print_line
from rov.resources import checkout
from rov.types import Image
from rov.vision.detector import Detector, InputSpec, cpu_has_bfloat16, sha256
from rov.vision.model_card import SIZES
from rov.vision.network import STRIDE, DetectorNet

SPREAD = 0.54
"""Width of a label's Gaussian as a share of its box (Liu et al. 2020, table 2)."""

FEW_LABELS = 20
"""Number of labels at which a class' own best threshold and the median one have equal weight."""


@dataclass(frozen=True)
class Recipe:
    """Every setting of a run; the card repeats them."""

    sets: tuple[str, ...] = ("transdec", "tub", "aquarium")
    draws: tuple[int, ...] = (800, 450, 350)
    """Pictures per epoch from each set, drawn again every epoch."""
    size: int = 352
    """Side of the network's input, pixels. 384 takes a fifth more time and gained nothing in validation."""
    epochs: int = 50
    batch: int = 16
    rate: float = 2e-3
    """Peak learning rate of AdamW; warm-up, then a cosine to 1 %."""
    decay: float = 0.02
    """Weight decay."""
    average: float = 0.998
    """Exponential moving average of the weights; the average is saved."""
    paste: float = 0.35
    """Share of pictures with buoys pasted from other pictures."""
    seed: int = 1
    start: str = ""
    """sha256 of the weights it started from; empty: random."""

    def steps(self) -> int:
        return self.epochs * (sum(self.draws) // self.batch)


Batch = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


class Pictures:
    """The training pictures, decoded once, and their augmentation; deterministic in (seed, epoch, index)."""

    def __init__(self, recipe: Recipe):
        self.recipe = recipe
        self.sets = [data.load(name, "train") for name in recipe.sets]
        self.samples = [sample for each in self.sets for sample in each]
        self.images: dict[Path, Image] = {}
        self.scale: dict[Path, float] = {}
        for sample in self.samples:
            image = read_image(sample.path)
            self.scale[sample.path] = scale = min(1.0, 1.34 * recipe.size / max(image.shape[:2]))
            small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else image
            self.images[sample.path] = np.asarray(small, np.uint8)
        self.cutouts = list(self._cutouts())

    def _cutouts(self) -> Any:
        for sample in self.samples:
            for box, kind in zip(sample.boxes * self.scale[sample.path], sample.kinds, strict=True):
                x1, y1, x2, y2 = (round(float(v)) for v in box)
                if data.CLASSES[kind].startswith("buoy_") and min(x2 - x1, y2 - y1) >= 16:
                    yield self.images[sample.path][y1:y2, x1:x2], int(kind)

    def draw(self, epoch: int) -> list[data.Sample]:
        """The epoch's pictures: as many from each set as the recipe says, shuffled."""
        rng = np.random.default_rng((self.recipe.seed, epoch))
        drawn = [
            samples[i]
            for samples, count in zip(self.sets, self.recipe.draws, strict=True)
            for i in rng.permutation(np.resize(rng.permutation(len(samples)), count))
        ]
        return [drawn[i] for i in rng.permutation(len(drawn))]

    def batches(self, epoch: int) -> Any:
        drawn, n = self.draw(epoch), self.recipe.batch
        for start in range(0, len(drawn) - n + 1, n):
            made = [self._make(sample, epoch, start + i) for i, sample in enumerate(drawn[start : start + n])]
            yield tuple(torch.stack(part) for part in zip(*made, strict=True))

    def _make(self, sample: data.Sample, epoch: int, index: int) -> tuple[Tensor, ...]:
        rng = np.random.default_rng((self.recipe.seed, epoch, index))
        image, boxes, kinds = self.images[sample.path], sample.boxes * self.scale[sample.path], sample.kinds
        if rng.random() < self.recipe.paste and sample.known[:3].all():
            image, boxes, kinds = augment.paste(image, boxes, kinds, self.cutouts, rng)
        image, boxes, kept = augment.place(image, boxes, self.recipe.size, rng)
        image = augment.water(image, rng)
        return torch.from_numpy(image), *targets(boxes, kinds, kept, sample.known, self.recipe.size // STRIDE)


def targets(
    boxes: NDArray[np.float32], kinds: NDArray[np.int64], kept: NDArray[np.bool_], known: NDArray[np.bool_], cells: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The targets of the network, on a grid of `cells`×`cells`.

    heat (C, g, g): Gaussians of height 1. mask (C, g, g): 0 where the class is unknown: in sets that do not label it,
    and at objects cut off by the picture's edge. box (4, g, g): the box that owns each cell. weight (g, g).
    """
    heat = np.zeros((len(known), cells, cells), np.float32)
    mask = np.repeat(known.astype(np.float32), cells * cells).reshape(heat.shape)
    box, weight = np.zeros((4, cells, cells), np.float32), np.zeros((cells, cells), np.float32)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    for i in np.argsort(-area):  # small ones last: they own cells shared with large ones
        x1, y1, x2, y2 = boxes[i] / STRIDE
        if not kept[i]:
            mask[kinds[i], int(max(y1, 0)) : math.ceil(y2) + 1, int(max(x1, 0)) : math.ceil(x2) + 1] = 0.0
            continue
        cx, cy = min(int((x1 + x2) / 2), cells - 1), min(int((y1 + y2) / 2), cells - 1)
        sx, sy = max(SPREAD * (x2 - x1) / 6, 0.3), max(SPREAD * (y2 - y1) / 6, 0.3)
        gx = np.exp(-((np.arange(cells) - cx) ** 2) / (2 * sx**2))
        gy = np.exp(-((np.arange(cells) - cy) ** 2) / (2 * sy**2))
        bump = (gy[:, None] * gx[None]).astype(np.float32)
        heat[kinds[i]] = np.maximum(heat[kinds[i]], bump)
        own = bump > 0.1
        box[:, own] = boxes[i][:, None]
        weight[own] = bump[own] / bump[own].sum() * math.log(max(float(area[i]), 2.0))
    return torch.from_numpy(heat), torch.from_numpy(mask), torch.from_numpy(box), torch.from_numpy(weight)


def losses(
    heat: Tensor, distances: Tensor, want: Tensor, mask: Tensor, box: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor]:
    """(classification, box). Penalty-reduced focal loss (Law & Deng 2018, eq. 1); GIoU loss (Rezatofighi 2019)."""
    p = heat.sigmoid().clamp(1e-4, 1 - 1e-4)
    peak = (want == 1).float() * mask
    hard = (1 - p).log() * p**2 * (1 - want) ** 4 * mask * (1 - peak)
    easy = p.log() * (1 - p) ** 2 * peak
    focal = -(easy.sum() + hard.sum()) / peak.sum().clamp(min=1)

    cells = weight.shape[-1]
    grid = (torch.arange(cells, device=heat.device) + 0.5) * STRIDE
    x, y = grid[None, None, :], grid[None, :, None]
    l, t, r, b = distances.unbind(1)  # noqa: E741  (B, g, g) each
    x1, y1, x2, y2 = x - l, y - t, x + r, y + b
    u1, v1, u2, v2 = box.unbind(1)
    shared = (torch.minimum(x2, u2) - torch.maximum(x1, u1)).clamp(min=0) * (
        torch.minimum(y2, v2) - torch.maximum(y1, v1)
    ).clamp(min=0)
    union = (x2 - x1) * (y2 - y1) + (u2 - u1) * (v2 - v1) - shared
    hull = (torch.maximum(x2, u2) - torch.minimum(x1, u1)) * (torch.maximum(y2, v2) - torch.minimum(y1, v1))
    giou = shared / union.clamp(min=1e-6) - (hull - union) / hull.clamp(min=1e-6)
    return focal, ((1 - giou) * weight).sum() / weight.sum().clamp(min=1e-6)


def learning_rate(recipe: Recipe, step: int) -> float:
    warm = min(1.0, (step + 1) / 200)
    return recipe.rate * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / recipe.steps())))


def load_start(net: DetectorNet, start: Path, classes: tuple[str, ...]) -> None:
    """Load the weights of `start` into `net`, whose heat maps are `classes`, matched by name; classes that `start` does
    not have keep their random weights."""
    old_classes = toml.parse(toml.read_text(start.with_suffix(".toml")))["classes"]
    state, last = load_file(start), net.head[-1]
    rows = {name: i for i, name in enumerate(old_classes)}
    for key, fresh in (("head.1.weight", last.weight), ("head.1.bias", last.bias)):
        assert isinstance(fresh, Tensor)
        heads = [state[key][rows[name]] if name in rows else fresh[i].detach() for i, name in enumerate(classes)]
        state[key] = torch.cat([torch.stack(heads), state[key][len(old_classes) :]])
    net.load_state_dict(state)


def train(recipe: Recipe, out: Path, device: torch.device, start: Path | None) -> DetectorNet:
    """Run or resume the whole recipe; returns the averaged network."""
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.seed)
    pictures = Pictures(recipe)
    net = DetectorNet(len(data.CLASSES)).to(device)
    if start:
        load_start(net, start, data.CLASSES)
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stubs
    average = torch.optim.swa_utils.AveragedModel(
        net,
        multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(recipe.average),  # type: ignore[no-untyped-call]
        use_buffers=True,
    )
    fast = device.type == "cuda" or cpu_has_bfloat16()  # elsewhere bfloat16 is emulated
    optimiser = torch.optim.AdamW(net.parameters(), lr=recipe.rate, weight_decay=recipe.decay)
    epoch, step, spec = 0, 0, InputSpec(recipe.size, 127.5, 64.0)
    checkpoint = out / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        if state["recipe"] != json.dumps(asdict(recipe)):
            raise typer.BadParameter(f"{checkpoint} belongs to another recipe; choose another --out or delete it")
        net.load_state_dict(state["net"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        epoch, step = state["epoch"], state["step"]

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as progress:
        bar = progress.add_task("training", total=recipe.steps(), completed=step)
        while epoch < recipe.epochs:
            net.train()
            sums, began = [0.0, 0.0], time.monotonic()
            for image, *want in pictures.batches(epoch):
                for group in optimiser.param_groups:
                    group["lr"] = learning_rate(recipe, step)
                x = ((image.to(device).float() - spec.mean) / spec.std).permute(0, 3, 1, 2)  # (B, 3, S, S)
                with torch.autocast(device.type, torch.bfloat16, enabled=fast):
                    heat, distances = net(x)
                focal, box = losses(heat.float(), distances.float(), *(w.to(device) for w in want))
                optimiser.zero_grad(set_to_none=True)
                (focal + 2.0 * box).backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_(net.parameters(), 10.0)
                optimiser.step()
                average.update_parameters(net)
                step += 1
                sums = [sums[0] + focal.item(), sums[1] + box.item()]
                progress.update(bar, completed=step, description=f"epoch {epoch + 1}/{recipe.epochs}")
            epoch += 1
            steps = sum(recipe.draws) // recipe.batch
            line = {"epoch": epoch, "focal": sums[0] / steps, "box": sums[1] / steps, "s": time.monotonic() - began}
            with (out / "log.jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")
            state = {"recipe": json.dumps(asdict(recipe)), "net": net.state_dict(), "average": average.state_dict()}
            state |= {"optimiser": optimiser.state_dict(), "epoch": epoch, "step": step}
            torch.save(state, checkpoint.with_suffix(".new"))
            checkpoint.with_suffix(".new").replace(checkpoint)  # an interrupted run leaves the last whole epoch
            progress.console.print(
                f"epoch {epoch}: focal {line['focal']:.3f} box {line['box']:.3f} ({line['s']:.0f} s)"
            )
    averaged = average.module
    assert isinstance(averaged, DetectorNet)
    return averaged


def evaluated(weights: Path, names: tuple[str, ...], split: data.Split) -> dict[str, metrics.ClassResult]:
    """Results of the weights over all pictures of one split."""
    samples = [sample for name in names for sample in data.load(name, split)]
    found = Detector(weights, batch=8).detect([read_image(sample.path) for sample in samples], 0.02)
    return metrics.evaluate(samples, found)


def thresholds(results: dict[str, metrics.ClassResult]) -> dict[str, float]:
    """Raw score of the best F0.5 per class. The fewer labels, the nearer to the median of the classes: the best
    threshold on a handful of objects is chance."""
    best = {
        name: math.log(min(max(r.balance(), 0.05), 0.95)) for name, r in results.items() if r.labels and r.hits.any()
    }
    usual = float(np.median(list(best.values()))) if best else math.log(0.5)
    chosen = {}
    for name, result in results.items():
        trust = result.labels / (result.labels + FEW_LABELS)
        chosen[name] = round(math.exp(trust * best.get(name, usual) + (1 - trust) * usual), 3)
    return chosen


def table(results: dict[str, metrics.ClassResult]) -> dict[str, dict[str, float]]:
    """Average precision, and precision and recall at a score of 0.5, per class with labels."""
    rows = {}
    for name, result in results.items():
        if result.labels:
            precision, recall = result.at(0.5)
            row = {"ap50": result.average_precision(), "precision": precision, "recall": recall}
            rows[name] = {key: round(value, 3) for key, value in row.items()} | {"labels": result.labels}
    return rows


def save(net: DetectorNet, recipe: Recipe, weights: Path, start: Path | None) -> None:
    """Write the weights and their card."""
    state = {key: value.contiguous().cpu() for key, value in net.state_dict().items()}
    # Kernels in half precision halve the file and change no figure of the card.
    save_file({key: value.half() if value.dim() == 4 else value for key, value in state.items()}, weights)
    git = subprocess.run(["git", "-C", checkout(), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    card: dict[str, Any] = {
        "name": "detector",
        "classes": list(data.CLASSES),
        "weights_sha256": sha256(weights),
        "commit": git.stdout.strip() or "unknown",
        "parameters": sum(p.numel() for p in net.parameters()),
        "limits": (
            "Learned from two robotics pools, one tank of litter, two public aquariums and what was rendered: no real"
            " wild divers or fish from a rover, no real turbid harbour, no night. Scores are not probabilities. Objects"
            " under about 8 pixels of the network's input are not found. Each class was seen at one or two sites only:"
            " expect false alarms elsewhere. Divers are known from rendered pictures alone."
        ),
        "input": {"size": recipe.size, "channels": "BGR", "mean": 127.5, "std": 64.0, "fit": "top left, grey 127"},
        "recipe": {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(recipe).items()},
    }
    if start:  # the card of the start, which holds its own start
        before = toml.parse(toml.read_text(start.with_suffix(".toml")))
        kept = ("weights_sha256", "commit", "recipe", "started_from")
        card["started_from"] = {key: before[key] for key in kept if key in before}
    write_card(weights, card)
    card["data"] = {
        name: data.card_entry(name)
        | {"pictures": len(samples := data.load(name, "train")), "sha256": data.fingerprint(samples)}
        for name in recipe.sets
    }
    rendered = tuple(name for name in recipe.sets if data.rendered(name))
    card["thresholds"] = thresholds(evaluated(weights, recipe.sets, "val"))  # raw scores: the card has none yet
    write_card(weights, card)
    splits: tuple[data.Split, ...] = ("val", "test")
    card["metrics"] = {split: table(evaluated(weights, Recipe.sets, split)) for split in splits}
    if rendered:
        card["metrics"]["rendered"] = table(evaluated(weights, rendered, "val"))
    write_card(weights, card)


def write_card(weights: Path, card: dict[str, Any]) -> None:
    with weights.with_suffix(".toml").open("wb") as file:
        tomli_w.dump(card, file)


def check(recipe: Recipe) -> None:
    """Raises UserError for a recipe that cannot be trained."""
    if (drawn := sum(recipe.draws)) < recipe.batch:
        raise UserError(f"{drawn} pictures per epoch are no batch: draw at least {recipe.batch} (--draws, --sets)")
    if recipe.epochs < 1 or not 0 < recipe.rate < 1:
        raise UserError("--epochs must be at least 1, and --rate between 0 and 1")
    low, high = SIZES
    if not low <= recipe.size <= high or recipe.size % low:
        raise UserError(f"--size {recipe.size}: must be a multiple of {low} up to {high}")


def main(
    out: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("runs/detector"),
    epochs: Annotated[int, typer.Option(help="Epochs; --sets and --draws set their length.")] = Recipe.epochs,
    sets: Annotated[
        list[str] | None,
        typer.Option(help="NAME=PICTURES drawn per epoch, repeated: sets with a card, or rendered ones in runs/sets."),
    ] = None,
    draws: Annotated[int | None, typer.Option(help="Pictures per epoch and set, for a quick try.")] = None,
    rate: Annotated[float, typer.Option(help="Peak learning rate.")] = Recipe.rate,
    size: Annotated[int, typer.Option(help="Side of the network's input, pixels; a multiple of 32.")] = Recipe.size,
    start: Annotated[Path | None, typer.Option(help="Weights to start from, instead of random ones.")] = None,
    threads: Annotated[int, typer.Option(help="CPU threads; 0: all.")] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda; auto: cuda where there is one.")] = "auto",
    install: Annotated[bool, typer.Option(help="Copy weights and card to models/ at the end.")] = False,
) -> None:
    """Train the detector and write weights with their card. After an interruption the same command resumes."""
    if threads:
        torch.set_num_threads(threads)
    chosen = "cuda" if device == "auto" and torch.cuda.is_available() else "cpu" if device == "auto" else device
    recipe = Recipe(epochs=epochs, rate=rate, size=size)
    if sets:
        pairs = [each.partition("=") for each in sets]
        if not all(name and number.isdecimal() for name, _, number in pairs):
            raise typer.BadParameter("--sets wants NAME=PICTURES, as transdec=800")
        recipe = replace(
            recipe, sets=tuple(name for name, _, _ in pairs), draws=tuple(int(number) for _, _, number in pairs)
        )
    if draws is not None:
        recipe = replace(recipe, draws=(draws,) * len(recipe.sets))
    try:
        check(recipe)
        recipe = replace(recipe, start=sha256(start) if start else "")
        net = train(recipe, out, torch.device(chosen), start)
        save(net, recipe, weights := out / "detector.safetensors", start)
    except UserError as error:
        print_line(f"error: {error}", error=True)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        typer.echo(f"stopped; the same command resumes from the last whole epoch in {out}", err=True)
        raise typer.Exit(130) from None
    if install:
        for path in (weights, weights.with_suffix(".toml")):
            shutil.copy(path, checkout() / "models" / path.name)
    typer.echo(weights.with_suffix(".toml").read_text())


if __name__ == "__main__":
    typer.run(main)
