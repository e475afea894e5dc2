"""The models, from a matrix to a convolutional network, and what each one minimises.

Linear regression, softmax regression and the linear SVM are the same network: one matrix. Only the loss differs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Model = Literal["linear", "softmax", "svm", "mlp", "cnn"]
Loss = Callable[[Tensor, Tensor], Tensor]
"""Of outputs (B, classes) and labels (B,): one number to make small."""


def build(model: Model, classes: int = 10) -> nn.Sequential:
    """A fresh network: (B, 1, 28, 28) -> (B, classes)."""
    if model == "mlp":
        return nn.Sequential(
            nn.Flatten(),
            nn.Linear(784, 256), nn.ReLU(), nn.Dropout(0.2),
            nn.Linear(256, 128), nn.ReLU(), nn.Dropout(0.2),
            nn.Linear(128, classes),
        )  # fmt: skip
    if model == "cnn":
        return nn.Sequential(
            *convolution(1, 24, halve=True),  # (B, 24, 14, 14)
            *convolution(24, 64, halve=True),  # (B, 64, 7, 7)
            *convolution(64, 96),
            *convolution(96, 96, halve=True),  # (B, 96, 3, 3)
            nn.Flatten(),
            nn.Linear(96 * 3 * 3, 128), nn.ReLU(), nn.Dropout(0.3),
            nn.Linear(128, classes),
        )  # fmt: skip
    return nn.Sequential(nn.Flatten(), nn.Linear(784, classes))


def convolution(inputs: int, outputs: int, *, halve: bool = False) -> list[nn.Module]:
    """3×3 convolution, max-pooling where the picture is to be halved, batch norm, activation. Pooling comes before the
    other two, which commute with it, because then they have a quarter of the work."""
    pool: list[nn.Module] = [nn.MaxPool2d(2)] if halve else []
    conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    return [conv, *pool, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


def loss_of(model: Model) -> Loss:
    """What the model minimises."""
    if model == "linear":
        return squares
    if model == "svm":
        return hinge
    return nn.CrossEntropyLoss(label_smoothing=0.1 if model == "cnn" else 0.0)


def squares(outputs: Tensor, labels: Tensor) -> Tensor:
    """Linear regression: the squared distance to 1 for the right class and 0 for the others."""
    return F.mse_loss(outputs, F.one_hot(labels, outputs.shape[1]).to(outputs.dtype))


def hinge(outputs: Tensor, labels: Tensor) -> Tensor:
    """One linear SVM per class against all others: max(0, 1 - y f), y = ±1 (Cortes & Vapnik 1995; its margin is what
    weight decay widens)."""
    sides = 2.0 * F.one_hot(labels, outputs.shape[1]) - 1.0
    return torch.clamp(1.0 - sides * outputs, min=0.0).sum(1).mean()
