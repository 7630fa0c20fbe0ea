"""The training that both federations do, so that only the federations differ: digits and a perceptron of 994570 weights.

Needs numpy and scikit-learn (for its digits) alone: it runs in Flower's environment, too.
"""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits

SHAPES = {"a": (64, 960), "b": (960,), "c": (960, 960), "d": (960,), "e": (960, 10), "f": (10,)}
TARGET = 0.91
OTHER_TARGETS = (0.8, 0.85, 0.88, 0.9)
_RATE, _BATCH, _TEST = 0.015, 16, 797


def initial_weights() -> list[np.ndarray]:
    """He's initialisation, the same for everybody."""
    rng = np.random.default_rng(7)
    scales = {name: np.sqrt(2 / shape[0]) if len(shape) == 2 else 0.0 for name, shape in SHAPES.items()}
    return [(rng.standard_normal(shape) * scales[name]).astype(np.float32) for name, shape in SHAPES.items()]


def rows(client: int | None, clients: int) -> tuple[np.ndarray, np.ndarray]:
    """A client's share of the digits; those that nobody trains on for None."""
    digits = load_digits()
    order = np.random.default_rng(3).permutation(len(digits.target))
    chosen = order[:_TEST] if client is None else order[_TEST:][client::clients]
    return (digits.data[chosen] / 16).astype(np.float32), digits.target[chosen]


def train(weights: list[np.ndarray], x: np.ndarray, y: np.ndarray, seed: int) -> list[np.ndarray]:
    """One pass of stochastic gradient descent over the rows."""
    weights = [array.copy() for array in weights]
    order = np.random.default_rng(seed).permutation(len(y))
    for start in range(0, len(y), _BATCH):
        batch = order[start : start + _BATCH]
        _step(weights, x[batch], y[batch])
    return weights


def accuracy(weights: list[np.ndarray], x: np.ndarray, y: np.ndarray) -> float:
    """Share of rows that are told right."""
    return float((_forward(weights, x)[-1].argmax(1) == y).mean())


def _forward(weights: list[np.ndarray], x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    a, b, c, d, e, f = weights
    first = np.maximum(x @ a + b, 0)
    second = np.maximum(first @ c + d, 0)
    return first, second, second @ e + f


def _step(weights: list[np.ndarray], x: np.ndarray, y: np.ndarray) -> None:
    first, second, scores = _forward(weights, x)
    scores = np.exp(scores - scores.max(1, keepdims=True))
    wrong = scores / scores.sum(1, keepdims=True)
    wrong[np.arange(len(y)), y] -= 1
    wrong /= len(y)
    behind = (wrong @ weights[4].T) * (second > 0)
    deepest = (behind @ weights[2].T) * (first > 0)
    gradients = [x.T @ deepest, deepest.sum(0), first.T @ behind, behind.sum(0), second.T @ wrong, wrong.sum(0)]
    for place, gradient in enumerate(gradients):
        weights[place] -= np.float32(_RATE) * gradient


def seed(round_number: int, client: int) -> int:
    """The order of rows is the same on both sides."""
    return 1000 * round_number + client
