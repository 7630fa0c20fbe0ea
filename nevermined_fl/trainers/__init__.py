"""The buyer's side of training: what an algorithm file looks like, and the process that runs it at a data provider.

An algorithm is one Python file with exactly one :class:`Trainer` subclass. It runs in a child process of the
participant (``host``), without keys and network; ``process`` is the participant's end of it, ``child`` what is asked of it,
``gate`` decides what may leave, and ``correction`` is what strategies add to training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nevermined_fl.trainers.correction import Correction, Plain

if TYPE_CHECKING:
    from nevermined_fl.session.plan import TensorSchema

__all__ = ["Evaluation", "Tensors", "Trainer", "Update", "initial_model", "load_table"]

Tensors = Mapping[str, np.ndarray[Any, Any]]


@dataclass(frozen=True, slots=True)
class Update:
    """What training gave: the model's full new weights, the examples behind them, and declared metrics.

    ``examples`` is the number of rows that were trained on: at least 1, and at most as many as the dataset has. Whoever
    holds some of them out says fewer. The plan's ``maxWeight`` may count them as fewer, and is no concern of the algorithm.
    ``step`` is what the gradients were multiplied by, added up: with plain gradient descent the number of steps times the
    learning rate. The strategy ``scaffold`` needs it; others do not look at it.
    """

    tensors: Tensors
    examples: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    step: float = 0.0


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How good a model is on the local data, by so many rows of it: ``examples`` has the limits of an Update's."""

    examples: int
    metrics: Mapping[str, float] = field(default_factory=dict)


class Trainer:
    """Subclass this in the algorithm file.

    Args:
        inputs: folder with the dataset's files, the same as ``NEVERMINED_INPUTS_PATH``.
        hyperparameters: the plan's, as they are.
    """

    correction: Correction = Plain()
    """Set anew before each ``fit``; see :meth:`corrected`."""

    def __init__(self, *, inputs: Path, hyperparameters: Mapping[str, Any]) -> None:
        self.inputs = inputs
        self.hyperparameters = hyperparameters

    def initialize(self, seed: int) -> Tensors:
        """The first model. Run by the data scientist before buying, without data.

        Its names, dtypes and shapes become the plan's schema.
        """
        raise NotImplementedError

    def fit(self, model: Tensors, seed: int) -> Update:
        """Train ``model`` on the local data. The same model and seed must give the same bits."""
        raise NotImplementedError

    def evaluate(self, model: Tensors) -> Evaluation:
        """Measure ``model`` on the local data."""
        raise NotImplementedError

    def corrected(self, gradients: Tensors, weights: Tensors) -> Tensors:
        """The gradients at ``weights``, with what the plan's strategy adds to them.

        Call it in ``fit`` before each step, so that ``fedprox`` and ``scaffold`` can do their part; with other strategies
        it gives the gradients back as they are. Both go by the model's names; ``gradients`` may have some of them only.
        """
        return self.correction.gradients(gradients, weights)


def load_table(inputs: Path | str) -> tuple[tuple[str, ...], np.ndarray[Any, np.dtype[np.float64]]]:
    """The one CSV file with a header below ``inputs``, as column names and a float64 table (rows, columns).

    Raises:
        FileNotFoundError: no CSV file, or more than one.
        ValueError: a cell that is no number, or rows of different lengths.
    """
    files = sorted(Path(inputs).rglob("*.csv"))
    if len(files) != 1:
        raise FileNotFoundError(f"expected one CSV file in the inputs, found {len(files)}")
    with files[0].open(encoding="utf-8") as file:
        columns = tuple(name.strip() for name in file.readline().strip().split(","))
        table = np.loadtxt(file, delimiter=",", dtype=np.float64, ndmin=2)
    if table.shape[1:] != (len(columns),):
        raise ValueError(f"the header names {len(columns)} columns, the table has shape {table.shape}")
    return columns, table


def initial_model(
    file: Path | str, hyperparameters: Mapping[str, Any], seed: int, inputs: Path | str | None = None
) -> tuple[bytes, tuple[TensorSchema, ...]]:
    """Run ``initialize(seed)`` of an algorithm file in a child process; the first model in safetensors layout, and its schema.

    Raises:
        TrainerError: the algorithm raised, or its model cannot be one.
    """
    from nevermined_fl.trainers.initial import run  # noqa: PLC0415  the buyer's child needs no asyncio

    return run(Path(file), hyperparameters, seed, None if inputs is None else Path(inputs))
