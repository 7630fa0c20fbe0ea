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
        chance = np.random.default_rng(seed)
        rate, epochs, batch = (self.hyperparameters[name] for name in ("learning_rate", "epochs", "batch"))
        path: list[tuple[Array, Array]] = []
        for _ in range(epochs):
            order = chance.permutation(len(labels))
            path.clear()
            for start in range(0, len(labels), batch):
                chosen = order[start : start + batch]
                error = (_softmax(rows[chosen] @ weights + bias) - targets[chosen]) / len(chosen)
                raw = {"weights": rows[chosen].T @ error, "bias": error.sum(axis=0)}
                slope = self.corrected(raw, {"weights": weights, "bias": bias})
                weights, bias = weights - rate * slope["weights"], bias - rate * slope["bias"]
                path.append((weights, bias))
        means = [np.mean(steps, axis=0).astype(np.float32) for steps in zip(*path, strict=True)]
        # Of the last epoch's gradients the first is in all of the averaged weights, the last in one of them alone.
        steps = (epochs - 1) * len(path) + (len(path) + 1) / 2
        return Update({"weights": means[0], "bias": means[1]}, examples=len(labels), step=rate * steps)

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
