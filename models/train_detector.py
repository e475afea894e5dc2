"""Train the detector: `python -m models.train_detector --out runs/detector`. One file, read top to bottom.

A recipe (TOML, `models/recipes/`) names the sets, the network, the optimisation and the augmentation. It learns from
the train splits; the val splits calibrate its scores and may stop it early; the test splits choose nothing and are only
measured at the end. A run is a folder: `recipe.toml`, `data.toml` (hashes), `log.jsonl`, `curves.png`, `checkpoint.pt`
(after an interruption the same command goes on), and at the end the weights with their card, `results.json` and
`worst/`.
"""

from __future__ import annotations

import copy
import json
import math
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import tomli_w
import torch
import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from safetensors.torch import load_file
from torch import Tensor

from models import data, metrics, results
from models import recipe as recipes
from models.objective import Targets, losses, remembering
from models.recipe import Recipe
from models.training_pictures import Pictures
from rov.errors import UserError
from rov.media.pictures import read_image
from rov.messages import Detection
from rov.printing import print_line
from rov.resources import checkout, find_resource
from rov.vision.detector import cpu_has_bfloat16, letterbox
from rov.vision.model_card import load_card
from rov.vision.network import DetectorNet, decode, fuse

CLIP = 10.0
"""Largest norm of the gradient."""


def load_start(net: DetectorNet, start: Path, classes: tuple[str, ...]) -> tuple[str, ...]:
    """Load the weights of `start` into `net`, whose heat maps are `classes`, matched by name; classes that `start` does
    not have keep their random weights. Returns the classes that it has."""
    card = load_card(start)
    state, last = load_file(start), net.head[-1]
    rows = {name: i for i, name in enumerate(card.classes)}
    for key, fresh in (("head.1.weight", last.weight), ("head.1.bias", last.bias)):
        assert isinstance(fresh, Tensor)
        heads = [state[key][rows[name]] if name in rows else fresh[i].detach().cpu() for i, name in enumerate(classes)]
        state[key] = torch.cat([torch.stack(heads), state[key][len(card.classes) :]])
    try:
        net.load_state_dict(state)
    except RuntimeError:
        sizes = f"widths {list(card.network.widths)}, pyramid {card.network.pyramid}"
        raise UserError(f"{start}: has {sizes}; give the recipe's network the same") from None
    return tuple(name for name in classes if name in rows)


def class_list(recipe: Recipe, start: Path | None) -> tuple[str, ...]:
    """The recipe's classes, or those of the start and then those that the sets label."""
    if recipe.classes:
        return recipe.classes
    labelled = [name for each in recipe.sets for name in data.labelled(each)]
    known = [name for name in data.CLASSES if name in labelled]
    return tuple(dict.fromkeys([*(load_card(start).classes if start else ()), *known, *labelled]))


class Validation:
    """The pictures of the val splits, as the network sees them."""

    def __init__(self, recipe: Recipe, classes: tuple[str, ...], device: torch.device):
        self.classes, self.size, self.top = classes, recipe.network.size, recipe.network.top
        self.samples = [sample for name in recipe.sets for sample in data.load(name, "val", classes)]
        shown = np.zeros((len(self.samples), self.size, self.size, 3), np.uint8)
        with ThreadPoolExecutor() as pool:
            rows = range(len(self.samples))
            self.scales = list(pool.map(lambda i: letterbox(read_image(self.samples[i].path), shown[i]), rows))
        self.shown = torch.from_numpy(shown).to(device)

    @torch.inference_mode()
    def map50(self, net: DetectorNet, fast: bool, batch: int = 32) -> float:
        """mAP50 of the network; nan without labels."""
        found = []
        for start in range(0, len(self.samples), batch):
            x = normalised(self.shown[start : start + batch].permute(0, 3, 1, 2).float())
            with torch.autocast(x.device.type, torch.bfloat16, enabled=fast):
                heat, distances = net.eval()(x)
            scores, kinds, boxes = (each.cpu() for each in decode(heat, distances.float(), self.top))
            for i, scale in enumerate(self.scales[start : start + batch]):
                rows = zip(kinds[i].tolist(), scores[i].tolist(), (boxes[i] / scale).tolist(), strict=True)
                found.append([Detection(self.classes[k], s, b) for k, s, b in rows if s > 0.01])
        return metrics.evaluate(self.samples, found, self.classes).mean()[0] if self.samples else math.nan


def normalised(x: Tensor) -> Tensor:
    """Pixels 0..255 as the network takes them."""
    return ((x - results.MEAN) / results.STD).contiguous(memory_format=torch.channels_last)


def optimiser_of(net: DetectorNet, recipe: Recipe) -> torch.optim.Optimizer:
    how = recipe.optimisation
    learned = [p for p in net.parameters() if p.requires_grad]
    kernels = [p for p in learned if p.dim() == 4]
    rest = [p for p in learned if p.dim() != 4]
    groups = [{"params": kernels, "weight_decay": how.decay}, {"params": rest, "weight_decay": 0.0}]
    if how.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=how.rate, momentum=how.momentum, nesterov=how.momentum > 0)
    return torch.optim.AdamW(groups, lr=how.rate, betas=(how.momentum, 0.999))


def learning_rate(recipe: Recipe, step: int, share: float) -> float:
    """The rate of a step, when this share of the training is done."""
    how = recipe.optimisation
    warm = min(1.0, (step + 1) / max(1, how.warm_up))
    return how.rate * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, share))))


class Trainer:
    """Network, average, optimiser and where the run is; all of it is in the checkpoint."""

    def __init__(self, recipe: Recipe, classes: tuple[str, ...], start: Path | None, device: torch.device):
        torch.manual_seed(recipe.optimisation.seed)
        self.recipe, self.device, self.epoch, self.step = recipe, device, 0, 0
        self.spent, self.resumed = 0.0, time.monotonic()
        """Seconds of training until it was last resumed, and when that was."""
        self.best, self.since = -1.0, 0
        """Best mAP50 of a validation, and validations since then."""
        self.fast = device.type == "cuda" or cpu_has_bfloat16()  # elsewhere bfloat16 is emulated
        net = DetectorNet(len(classes), recipe.network.widths, recipe.network.pyramid)
        old = load_start(net, start, classes) if start else ()
        self.net = net.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in its stubs
        self.average = copy.deepcopy(self.net).requires_grad_(False)
        self.beginning = copy.deepcopy(self.average.state_dict())
        self.teacher = fuse(copy.deepcopy(self.average).eval()) if old and recipe.network.remember else None
        self.frozen = bool(start) and recipe.network.frozen
        self.net.stem.requires_grad_(not self.frozen)
        self.old = torch.tensor([float(name in old) for name in classes], device=device)[:, None, None]
        self.optimiser = optimiser_of(self.net, recipe)
        pairs = zip(self.average.state_dict().values(), self.net.state_dict().values(), strict=True)
        self.pairs = [(mean, now) for mean, now in pairs if now.is_floating_point()]

    def share(self) -> float:
        """How much of the training is done, 0 to 1: of its minutes, or else of its epochs."""
        how = self.recipe.optimisation
        if how.minutes:
            return self.seconds() / (60 * how.minutes)
        return self.step / (self.recipe.batches() * how.epochs)

    def seconds(self) -> float:
        return self.spent + time.monotonic() - self.resumed

    def learn(self, x: Tensor, want: Targets) -> Tensor:
        """One step; returns (focal, box, remember) losses."""
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.recipe, self.step, self.share())
        x = normalised(x)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.fast):
            four = self._stem(x)
            heat, distances = self.net.after_stem(four)
            taught = self._taught(x, four)
        focal, box = losses(heat.float(), distances.float(), want)
        memory = focal.new_zeros(())
        if taught is not None:
            unlabelled = (1 - want.mask) * self.old
            taught = taught[0].float(), taught[1].float()
            memory = remembering(heat.float(), distances.float(), taught, 1 - unlabelled)
        loss = focal + self.recipe.optimisation.box * box + self.recipe.network.remember * memory
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), CLIP)
        self.optimiser.step()
        self.step += 1
        keep = min(self.recipe.optimisation.average, self.step / (self.step + 10))  # young averages forget faster
        with torch.no_grad():
            torch._foreach_lerp_([mean for mean, _ in self.pairs], [now for _, now in self.pairs], 1 - keep)
        return torch.stack((focal.detach(), box.detach(), memory.detach()))

    def _stem(self, x: Tensor) -> Tensor:
        stem = self.net.train().stem
        four: Tensor = (stem.eval() if self.frozen else stem)(x)
        return four

    @torch.no_grad()
    def _taught(self, x: Tensor, four: Tensor) -> tuple[Tensor, Tensor] | None:
        """What the start says; it has the same stem where that is frozen."""
        if self.teacher is None:
            return None
        return self.teacher.after_stem(four if self.frozen else self.teacher.stem(x))

    def kept(self) -> DetectorNet:
        """The average, or the recipe's mean of it and the start."""
        net: DetectorNet = copy.deepcopy(self.average)
        if (share := self.recipe.network.share) < 1:
            for key, each in net.state_dict().items():
                if each.is_floating_point():
                    each.copy_(self.beginning[key].lerp(each, share))
        return net

    def save(self, path: Path) -> None:
        state = {"recipe": _text(self.recipe), "net": self.net.state_dict(), "average": self.average.state_dict()}
        state |= {"optimiser": self.optimiser.state_dict(), "epoch": self.epoch, "step": self.step}
        state["spent"] = self.seconds()
        torch.save(state | {"best": self.best, "since": self.since}, path.with_suffix(".new"))
        path.with_suffix(".new").replace(path)  # an interrupted run leaves the last whole epoch

    def resume(self, path: Path) -> None:
        state = torch.load(path, map_location=self.device, weights_only=True)
        if state["recipe"] != _text(self.recipe):
            raise UserError(f"{path}: belongs to another recipe; choose another --out, or delete it to begin anew")
        self.net.load_state_dict(state["net"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.epoch, self.step, self.best, self.since = (state[key] for key in ("epoch", "step", "best", "since"))
        self.spent, self.resumed = state["spent"], time.monotonic()


def _text(recipe: Recipe) -> str:
    return json.dumps(msgspec.to_builtins(recipe), sort_keys=True)


def train(trainer: Trainer, pictures: Pictures, validation: Validation, out: Path) -> DetectorNet:
    """Run the recipe from where the trainer is to its end; returns the averaged network, or the best one, as mixed with
    the start as the recipe wants it."""
    how = trainer.recipe.optimisation
    columns = (
        TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    )  # fmt: skip
    curves = results.Curves(out)
    trainer.resumed = time.monotonic()
    with Progress(*columns) as progress:
        bar = progress.add_task("training", total=1000, completed=0)
        while trainer.share() < 1 and not (how.patience and trainer.since >= how.patience):
            sums, steps, began = torch.zeros(3, device=trainer.device), 0, time.monotonic()
            for x, want in pictures.batches(trainer.epoch):
                sums, steps = sums + trainer.learn(x, want), steps + 1
                progress.update(bar, completed=1000 * trainer.share(), description=f"epoch {trainer.epoch + 1}")
                if how.minutes and trainer.share() >= 1:
                    break
            trainer.epoch += 1
            focal, box, memory = (sums / steps).tolist()
            line: dict[str, Any] = {"epoch": trainer.epoch, "step": trainer.step, "focal": focal, "box": box}
            line |= {"remember": memory} if trainer.teacher is not None else {}
            line |= {"rate": trainer.optimiser.param_groups[0]["lr"], "s": round(time.monotonic() - began, 2)}
            if validation.samples and (trainer.epoch % how.validate == 0 or trainer.share() >= 1):
                line["map50"] = judged(trainer, validation, out)
            curves.add(line)
            trainer.save(out / "checkpoint.pt")
            told = " ".join(f"{key} {value:.4g}" for key, value in line.items() if key not in ("epoch", "step"))
            progress.console.print(f"epoch {trainer.epoch}: {told}")
    results.draw(out)
    if how.patience and (out / "best.pt").exists():
        trainer.average.load_state_dict(torch.load(out / "best.pt", map_location=trainer.device, weights_only=True))
    return trainer.kept()


def judged(trainer: Trainer, validation: Validation, out: Path) -> float:
    """mAP50 of the average; keeps the best weights where the run may stop early."""
    map50 = validation.map50(trainer.average, trainer.fast)
    trainer.since = 0 if map50 > trainer.best else trainer.since + 1
    if map50 > trainer.best:
        trainer.best = map50
        if trainer.recipe.optimisation.patience:
            torch.save(trainer.average.state_dict(), out / "best.pt")
    return map50


def run(recipe: Recipe, out: Path, device: torch.device) -> Path:
    """Train from the beginning or from where it was interrupted; returns the weights."""
    out.mkdir(parents=True, exist_ok=True)
    start = Path(recipe.network.start) if recipe.network.start else None
    start = find_resource(str(start)) if start and not start.is_file() else start
    classes = class_list(recipe, start)
    torch.backends.cudnn.benchmark = True  # static shapes
    print_line("reading pictures")
    pictures, validation = Pictures(recipe, classes, device), Validation(recipe, classes, device)
    hashes = {name: {"pictures": len(s), "sha256": data.fingerprint(s)} for name, s in pictures.sets.items()}
    trainer = Trainer(recipe, classes, start, device)
    checkpoint = out / "checkpoint.pt"
    if checkpoint.exists():
        trainer.resume(checkpoint)
        results.cut_log(out, trainer.epoch)
    else:
        (out / "log.jsonl").unlink(missing_ok=True)
        recipes.save(recipe, out / "recipe.toml")
        (out / "data.toml").write_text(tomli_w.dumps(hashes))
    net = train(trainer, pictures, validation, out)
    weights = out / "detector.safetensors"
    results.save(net, recipe, classes, hashes, weights, start)
    results.judge(weights, device.type, recipe, out)
    return weights


EXAMPLES = (
    "Examples: `python -m models.train_detector --out runs/detector` trains the shipped recipe;"
    " `python -m models.train_detector --data my_set --start models/detector.safetensors --out runs/mine` teaches"
    " the shipped detector your own classes; `--set optimisation.epochs=20 --set network.size=352` change a recipe."
)
app = typer.Typer(rich_markup_mode="markdown", add_completion=False)


@app.command(epilog=EXAMPLES)
def main(
    out: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("runs/detector"),
    recipe: Annotated[
        Path | None, typer.Option(help="TOML; without one models/recipes/detector.toml, or own.toml with --start.")
    ] = None,
    data_sets: Annotated[
        list[str] | None,
        typer.Option("--data", help="NAME_OR_FOLDER or NAME_OR_FOLDER=SHARE, repeated; instead of the recipe's sets."),
    ] = None,
    start: Annotated[Path | None, typer.Option(help="Weights to start from, instead of random ones.")] = None,
    classes: Annotated[
        str, typer.Option(help="a,b,c: the network's classes. Else those of the start and those that the sets label.")
    ] = "",
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="section.key=value of the recipe, repeated.")
    ] = None,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0: all.")] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda; auto: cuda where there is one.")] = "auto",
    install: Annotated[bool, typer.Option(help="Copy weights and card to models/ at the end.")] = False,
) -> None:
    """Train the detector and write weights with their card. After an interruption the same command goes on."""
    if threads:
        torch.set_num_threads(threads)
    chosen = "cuda" if device == "auto" and torch.cuda.is_available() else "cpu" if device == "auto" else device
    try:
        weights = run(_recipe(recipe, data_sets or [], start, classes, settings or []), out, torch.device(chosen))
    except UserError as error:
        print_line(f"error: {error}", error=True)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        typer.echo(f"stopped; the same command goes on from the last whole epoch in {out}", err=True)
        raise typer.Exit(130) from None
    if install:
        for path in (weights, weights.with_suffix(".toml")):
            shutil.copy(path, checkout() / "models" / path.name)
    print_line(f"{weights}, its card, results.json, curves.png and worst/ are in {out}")


def _recipe(path: Path | None, sets: list[str], start: Path | None, classes: str, settings: list[str]) -> Recipe:
    changes: dict[str, Any] = {}
    if sets:
        pairs = [each.rpartition("=") if "=" in each else (each, "=", "1") for each in sets]
        try:
            changes["sets"] = {name: float(share) for name, _, share in pairs}
        except ValueError:
            raise UserError("--data wants NAME_OR_FOLDER or NAME_OR_FOLDER=SHARE, as transdec=0.5") from None
    if classes:
        changes["classes"] = [name.strip() for name in classes.split(",")]
    if start:
        if not start.is_file():
            raise UserError(f"--start {start}: no such weights file")
        settings = [f'network.start="{start}"', *_same_network(start), *settings]
    return recipes.load(path or recipes.default(start), changes, settings)


def _same_network(start: Path) -> list[str]:
    """Settings that give the network the sizes of the start."""
    card = load_card(start)
    shape = card.network
    return [
        f"network.widths={list(shape.widths)}",
        f"network.pyramid={shape.pyramid}",
        f"network.top={max(128, shape.top)}",
    ]


if __name__ == "__main__":
    app()
