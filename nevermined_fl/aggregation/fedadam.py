"""FedAdam: the mean update as a gradient for Adam on the server.

Source: Reddi et al. 2021, arXiv:2003.00295, algorithm 2. As there, no bias correction, and the second moment starts at
``tau**2``; the mean is weighted by examples, as in the paper's experiments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from nevermined_fl.aggregation.rule import as_dtype, weighted_mean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nevermined_fl.aggregation.rule import Block

__all__ = ["FedAdam"]


@dataclass(frozen=True, slots=True)
class FedAdam:
    """``tau`` is how adaptive it is: small means very."""

    learning_rate: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.99
    tau: float = 1e-3

    LIMITS: ClassVar[Mapping[str, tuple[float, float]]] = {
        "learning_rate": (1e-9, 1e3),
        "beta1": (0.0, 1.0),
        "beta2": (0.0, 1.0),
        "tau": (1e-12, 1e3),
    }
    STATE: ClassVar[tuple[str, ...]] = ("first", "second")

    def fold(
        self, blocks: Sequence[Block], weights: Sequence[float], previous: Block, state: dict[str, Block]
    ) -> Block:
        """Move by ``learning_rate * first / (sqrt(second) + tau)``."""
        before = previous.astype(np.float64)
        delta = weighted_mean(blocks, weights) - before
        first = (1 - self.beta1) * delta
        second = (1 - self.beta2) * delta**2
        first += self.beta1 * state.get("first", 0.0)
        second += self.beta2 * state.get("second", self.tau**2)
        after = as_dtype(before + self.learning_rate * first / (np.sqrt(second) + self.tau), previous.dtype)
        state.update(first=first, second=second)
        return after
