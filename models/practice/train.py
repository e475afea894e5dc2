"""The training loop, and everything that one run leaves."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from rich.progress import Progress
from torch import Tensor, nn

from models.practice.networks import Model, build, loss_of
from models.practice.sets import Name, PracticeSet, Split, augmented, prepared
from rov.errors import UserError

Optimizer = Literal["sgd", "adam"]

RATES: dict[Optimizer, dict[Model, float]] = {
    "sgd": {"linear": 0.01, "softmax": 0.02, "svm": 0.002, "mlp": 0.1, "cnn": 0.1},
    "adam": {"linear": 1e-3, "softmax": 1e-3, "svm": 1e-3, "mlp": 2e-3, "cnn": 4e-3},
}
"""Peak learning rates, chosen on the validation split of MNIST."""
EPOCHS: dict[Name, dict[Model, int]] = {
    "mnist": {"linear": 10, "softmax": 10, "svm": 10, "mlp": 12, "cnn": 6},
    "fashion-mnist": {"linear": 10, "softmax": 10, "svm": 10, "mlp": 12, "cnn": 10},
}
"""Passes over the training pictures. More of them help the CNN on Fashion-MNIST alone."""


@dataclass(frozen=True)
class Recipe:
    """Every setting of a run; the card repeats them."""

    data: Name
    model: Model
    optimizer: Optimizer
    epochs: int
    rate: float
    batch: int = 128
    decay: float = 5e-4
    """Weight decay."""
    augment: bool = False
    seed: int = 1
    limit: int = 0
    """Pictures to learn from; 0: all."""


class EpochResult(NamedTuple):
    """What one pass over the training pictures gave: mean loss, shares of right answers, seconds."""

    loss: float
    train: float
    val: float
    seconds: float


def train(recipe: Recipe, pictures: PracticeSet, out: Path, device: torch.device, progress: Progress) -> Any:
    """Run or resume a recipe; returns the network and an `EpochResult` per epoch. Raises UserError for a folder that
    holds another run."""
    torch.manual_seed(recipe.seed)
    net = build(recipe.model, len(pictures.classes)).to(device, memory_format=torch.channels_last)
    steps = len(pictures.train.labels) // recipe.batch
    optimiser = optimiser_of(recipe, net)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, recipe.rate, total_steps=recipe.epochs * steps, pct_start=0.2
    )
    parts = {"net": net, "optimiser": optimiser, "schedule": schedule}
    history = resume(out / "checkpoint.pt", recipe, parts, device)
    loss_function = loss_of(recipe.model)
    bar = progress.add_task("training", total=recipe.epochs * steps, completed=len(history) * steps)
    for epoch in range(len(history), recipe.epochs):
        torch.manual_seed(recipe.seed * 1000 + epoch)  # order, augmentation and dropout: a resumed run draws the same
        began, total, right = time.monotonic(), 0.0, 0
        net.train()
        for at in torch.randperm(len(pictures.train.labels))[: steps * recipe.batch].split(recipe.batch):
            x, labels = pictures.train.pictures[at], pictures.train.labels[at].to(device)
            x = augmented(recipe.data, x) if recipe.augment else x
            outputs = net(prepared(recipe.data, x).to(device))  # forward: torch notes each operation in a graph
            loss = loss_function(outputs, labels)
            optimiser.zero_grad()
            loss.backward()  # backward: the graph gives each weight the slope of the loss
            optimiser.step()  # each weight takes a step downhill
            schedule.step()
            total += loss.item()
            right += int((outputs.argmax(1) == labels).sum())
            progress.advance(bar)
        share = right / (steps * recipe.batch)
        line = EpochResult(total / steps, share, accuracy(net, recipe.data, pictures.val), time.monotonic() - began)
        history.append(line)
        save_checkpoint(out / "checkpoint.pt", recipe, parts, history)
        progress.console.print(
            f"epoch {epoch + 1}/{recipe.epochs}: loss {line.loss:.3f}, right in training {line.train:.2%},"
            f" in validation {line.val:.2%} ({line.seconds:.0f} s)"
        )
    return net, history


def optimiser_of(recipe: Recipe, net: nn.Module) -> torch.optim.Optimizer:
    """SGD with Nesterov's momentum, or Adam with decoupled weight decay (Loshchilov & Hutter 2019)."""
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(net.parameters(), recipe.rate, 0.9, weight_decay=recipe.decay, nesterov=True)
    return torch.optim.AdamW(net.parameters(), recipe.rate, weight_decay=10 * recipe.decay)


@torch.inference_mode()
def answers(net: nn.Module, name: Name, pictures: Tensor) -> Tensor:
    """The network's outputs for pictures (N, 1, 28, 28): (N, classes), on the CPU."""
    device = next(net.parameters()).device
    net.eval()
    return torch.cat([net(prepared(name, part).to(device)).cpu() for part in pictures.split(500)])


def accuracy(net: nn.Module, name: Name, split: Split) -> float:
    """Share of right answers."""
    return float((answers(net, name, split.pictures).argmax(1) == split.labels).float().mean())


def save_checkpoint(path: Path, recipe: Recipe, parts: dict[str, Any], history: list[EpochResult]) -> None:
    """Replace the checkpoint: whatever ends the process leaves the last whole epoch."""
    state = {name: part.state_dict() for name, part in parts.items()}
    state |= {"recipe": json.dumps(asdict(recipe)), "history": [tuple(line) for line in history]}
    torch.save(state, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)


def resume(path: Path, recipe: Recipe, parts: dict[str, Any], device: torch.device) -> list[EpochResult]:
    """Load the checkpoint into the parts, if there is one; returns the epochs it has behind it."""
    if not path.exists():
        return []
    state = torch.load(path, map_location=device, weights_only=True)
    if state["recipe"] != json.dumps(asdict(recipe)):
        raise UserError(f"{path}: belongs to another recipe; choose another --out or delete it")
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return [EpochResult(*line) for line in state["history"]]
