"""Softmax regression on a table of numbers whose last column is the class: 0, 1, 2 and so on.

Hyperparameters: ``features`` and ``classes`` (how many), ``offset`` and ``scale`` (what is subtracted and divided by: a
number, or one per feature), ``learning_rate``, ``epochs`` and ``batch``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nevermined_fl import Evaluation, Trainer, Update
from nevermined_fl.trainers import Tensors, load_table

Array = np.ndarray[Any, Any]


class Softmax(Trainer):
    """Mini-batch gradient descent; the update is the mean of the last epoch's weights, which varies less than its end."""

    def initialize(self, seed: int) -> Tensors:
        """All zeros: a convex problem needs no luck."""
        shape = (self.hyperparameters["features"], self.hyperparameters["classes"])
        return {"weights": np.zeros(shape, np.float32), "bias": np.zeros(shape[1:], np.float32)}

    def fit(self, model: Tensors, seed: int) -> Update:
        """Some epochs over the local rows, in an order that the seed decides."""
        rows, labels = self._data()
        targets = np.eye(self.hyperparameters["classes"])[labels]
        weights, bias = model["weights"].astype(float), model["bias"].astype(float)
        chance, batch = np.random.default_rng(seed), self.hyperparameters["batch"]
        path: list[tuple[Array, Array]] = []
        for _ in range(self.hyperparameters["epochs"]):
            order = chance.permutation(len(labels))
            path.clear()
            for start in range(0, len(labels), batch):
                chosen = order[start : start + batch]
                gradient = (_softmax(rows[chosen] @ weights + bias) - targets[chosen]) / len(chosen)
                weights = weights - self.hyperparameters["learning_rate"] * rows[chosen].T @ gradient
                bias = bias - self.hyperparameters["learning_rate"] * gradient.sum(axis=0)
                path.append((weights, bias))
        means = [np.mean(steps, axis=0).astype(np.float32) for steps in zip(*path, strict=True)]
        return Update({"weights": means[0], "bias": means[1]}, examples=len(labels))

    def evaluate(self, model: Tensors) -> Evaluation:
        """Accuracy and mean cross-entropy on the local rows."""
        rows, labels = self._data()
        chances = _softmax(rows @ model["weights"].astype(float) + model["bias"])
        accuracy = np.mean(chances.argmax(axis=1) == labels)
        loss = -np.mean(np.log(np.maximum(chances[np.arange(len(labels)), labels], 1e-12)))
        return Evaluation(examples=len(labels), metrics={"accuracy": float(accuracy), "loss": float(loss)})

    def _data(self) -> tuple[Array, Array]:
        _, table = load_table(self.inputs)
        offset, scale = np.asarray(self.hyperparameters["offset"]), np.asarray(self.hyperparameters["scale"])
        return (table[:, :-1] - offset) / scale, table[:, -1].astype(int)


def _softmax(scores: Array) -> Array:
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    chances: Array = powers / powers.sum(axis=1, keepdims=True)
    return chances
