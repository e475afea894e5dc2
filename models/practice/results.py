"""What a run leaves for people: curves, the confusion matrix, the worst mistakes, and the card."""

from __future__ import annotations

import math
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import tomli_w
import torch
from matplotlib import pyplot as plt
from safetensors.torch import save_file
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from torch import Tensor, nn

from models.practice.reference import Reference
from models.practice.sets import PracticeSet, data_card
from models.practice.train import EpochResult, Recipe
from rov.resources import checkout
from rov.vision.model_card import sha256

matplotlib.use("Agg")
SHOWN = 40
"""Mistakes on the sheet."""


def draw_curves(history: list[EpochResult], recipe: Recipe, path: Path) -> None:
    """Loss, and shares of right answers in training and validation, over the epochs."""
    epochs = range(1, len(history) + 1)
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    left.plot(epochs, [line.loss for line in history], color="tab:blue")
    left.set(xlabel="epoch", ylabel="loss in training", yscale="log")
    right.plot(epochs, [100 * line.train for line in history], label="training", color="tab:blue")
    right.plot(epochs, [100 * line.val for line in history], label="validation", color="tab:orange")
    right.set(xlabel="epoch", ylabel="right answers, %")
    right.legend()
    figure.suptitle(f"{recipe.data}, {recipe.model}, {recipe.optimizer}")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_confusion(matrix: Any, classes: tuple[str, ...], path: Path) -> None:
    """Test pictures per true class (row) and answer (column)."""
    names = [name.rpartition(" - ")[2] for name in classes]
    figure, axes = plt.subplots(figsize=(6.4, 6.0), layout="constrained")
    axes.imshow(np.log1p(matrix), cmap="Blues")
    for (row, column), count in np.ndenumerate(matrix):
        if count:
            dark = row == column
            axes.text(column, row, str(count), ha="center", va="center", color="white" if dark else "black", size=8)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="answer", ylabel="true class")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_mistakes(pictures: PracticeSet, outputs: Tensor, path: Path) -> None:
    """The test pictures that the network got wrong and was surest of."""
    sure, answer = outputs.softmax(1).max(1)
    wrong = (answer != pictures.test.labels).nonzero().flatten()
    worst = wrong[sure[wrong].argsort(descending=True)][:SHOWN]
    figure, cells = plt.subplots(4, SHOWN // 4, figsize=(11, 5.4), layout="constrained")
    for cell in cells.flat:
        cell.axis("off")
    for cell, i in zip(cells.flat, worst.tolist(), strict=False):
        true, said = (pictures.classes[int(k)].rpartition(" - ")[2] for k in (pictures.test.labels[i], answer[i]))
        cell.imshow(pictures.test.pictures[i, 0].numpy(), cmap="gray_r")
        cell.set_title(f"{true}\nnot {said}", size=7)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def interval(share: float, count: int) -> tuple[float, float]:
    """95 % interval of a share of `count` pictures (Wilson 1927)."""
    z = 1.96
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return middle - half, middle + half


def save_results(
    net: nn.Module,
    recipe: Recipe,
    pictures: PracticeSet,
    history: list[EpochResult],
    outputs: Tensor,
    reference: Reference | None,
    out: Path,
) -> dict[str, Any]:
    """Write model.safetensors with its card, curves.png, confusion.png and mistakes.png; returns the card. `outputs`:
    the network's, for the test split."""
    weights = out / "model.safetensors"
    save_file({key: value.contiguous().cpu() for key, value in net.state_dict().items()}, weights)
    labels, answer = pictures.test.labels.numpy(), outputs.argmax(1).numpy()
    matrix = confusion_matrix(labels, answer, labels=range(len(pictures.classes)))
    draw_curves(history, recipe, out / "curves.png")
    draw_confusion(matrix, pictures.classes, out / "confusion.png")
    draw_mistakes(pictures, outputs, out / "mistakes.png")
    card = _card(recipe, pictures, history, reference, sha256(weights), sum(p.numel() for p in net.parameters()))
    precision, recall, _, _ = precision_recall_fscore_support(labels, answer, zero_division=0.0)
    share = float((answer == labels).mean())
    card["metrics"] = {
        "test": round(share, 4),
        "test_interval": [round(each, 4) for each in interval(share, len(labels))],
        "validation": round(history[-1].val, 4),
        "train_seconds": round(sum(line.seconds for line in history), 1),
        "threads": torch.get_num_threads(),
        "confusion": matrix.tolist(),
        "classes": {
            name: {"precision": round(float(p), 3), "recall": round(float(r), 3)}
            for name, p, r in zip(pictures.classes, precision, recall, strict=True)
        },
    }
    with weights.with_suffix(".toml").open("wb") as file:
        tomli_w.dump(card, file)
    return card


def _card(
    recipe: Recipe,
    pictures: PracticeSet,
    history: list[EpochResult],
    reference: Reference | None,
    weights_sha256: str,
    parameters: int,
) -> dict[str, Any]:
    """What the model is, what it learned from, and what it is not for."""
    git = subprocess.run(["git", "-C", checkout(), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "name": f"{recipe.data}-{recipe.model}",
        "classes": list(pictures.classes),
        "weights_sha256": weights_sha256,
        "parameters": parameters,
        "commit": git.stdout.strip() or "unknown",
        "torch": torch.__version__,
        "intent": "Practice: to see a model learn. It reads 28×28 grey pictures like those of its set, nothing else.",
        "limits": "Sure of an answer for any picture, also for one of no class. Not for documents, money or people.",
        "recipe": asdict(recipe),
        "reference": {"scikit_learn": reference.name, "test": round(reference.test, 4),
                      "seconds": round(reference.seconds, 1)} if reference else {},
        "data": data_card(recipe.data) | {"sha256": pictures.sha256, "train_pictures": len(pictures.train.labels)},
    }  # fmt: skip
