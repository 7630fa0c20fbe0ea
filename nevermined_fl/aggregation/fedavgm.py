"""FedAvgM: server momentum over the mean update, against cohorts that pull in different directions.

Source: Hsu, Qi and Brown 2019, arXiv:1909.06335, section 4.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from nevermined_fl.aggregation.rule import Aggregator, as_dtype
from nevermined_fl.aggregation.sums import weighted_mean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nevermined_fl.aggregation.rule import Block, Known

__all__ = ["FedAvgM"]


@dataclass(frozen=True, slots=True)
class FedAvgM(Aggregator):
    """With ``momentum`` 0 and ``learning_rate`` 1 it is FedAvg up to rounding."""

    learning_rate: float = 1.0
    momentum: float = 0.9

    LIMITS: ClassVar[Mapping[str, tuple[float, float]]] = {"learning_rate": (1e-9, 1e3), "momentum": (0.0, 1.0)}
    STATE: ClassVar[tuple[str, ...]] = ("momentum",)
    SUMS_CHANGES: ClassVar[bool] = True

    def fold(self, blocks: Sequence[Block], known: Known, previous: Block, state: dict[str, Block]) -> Block:
        """``v <- momentum * v + (x - mean)``; ``x <- x - learning_rate * v``."""
        before = previous.astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            step = -weighted_mean(blocks, known.weights, known.peaks, before)
            velocity = self.momentum * state["momentum"] + step if "momentum" in state else step
            after = as_dtype(before - self.learning_rate * velocity, previous.dtype)
        state["momentum"] = velocity
        return after
