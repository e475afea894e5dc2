"""scikit-learn's own model of the same kind, on the same split: what our figures are held against."""

from __future__ import annotations

import time
import warnings
from typing import Any, NamedTuple

from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, RidgeClassifier, SGDClassifier
from sklearn.neural_network import MLPClassifier
from torch import Tensor

from models.practice.networks import Model
from models.practice.sets import PracticeSet


class Reference(NamedTuple):
    """scikit-learn's model, its share of right answers in the test split, and the seconds it learned."""

    name: str
    test: float
    seconds: float


def estimator(model: Model) -> tuple[str, Any]:
    """scikit-learn's model of this kind and its name. It has no convolution: the CNN is held against its MLP."""
    if model == "linear":
        return "RidgeClassifier", RidgeClassifier()  # least squares on ±1, solved exactly
    if model == "softmax":
        return "LogisticRegression", LogisticRegression(max_iter=50)
    if model == "svm":
        return "SGDClassifier (hinge)", SGDClassifier(loss="hinge", max_iter=20, random_state=0)
    return "MLPClassifier (256)", MLPClassifier((256,), batch_size=128, max_iter=10, random_state=0)


def reference(model: Model, pictures: PracticeSet) -> Reference:
    """Let scikit-learn learn from the training split and answer for the test split."""
    name, estimate = estimator(model)
    began = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the number of passes is limited on purpose
        estimate.fit(rows(pictures.train.pictures), pictures.train.labels.numpy())
    seconds = time.monotonic() - began
    right = estimate.predict(rows(pictures.test.pictures)) == pictures.test.labels.numpy()
    return Reference(name, float(right.mean()), seconds)


def rows(pictures: Tensor) -> Any:
    """(N, 1, 28, 28) uint8 -> (N, 784) float32 in 0..1, as numpy."""
    return pictures.flatten(1).float().div(255).numpy()
