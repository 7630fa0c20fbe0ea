"""SCAFFOLD: control variates take out of each participant's steps what its data pulls aside.

Source: Karimireddy et al. 2020, arXiv:1910.06378, algorithm 1 with option II for the participants' control variates.
Means are plain, as there: the control variates cancel only if all participants count alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from nevermined_fl.aggregation.rule import Aggregator, as_dtype
from nevermined_fl.aggregation.sums import mean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nevermined_fl.aggregation.rule import Block, Known

__all__ = ["Scaffold"]


@dataclass(frozen=True, slots=True)
class Scaffold(Aggregator):
    """The model travels with the server's control variate, an update with the change of the participant's."""

    learning_rate: float = 1.0

    LIMITS: ClassVar[Mapping[str, tuple[float, float]]] = {"learning_rate": (1e-9, 1e3)}
    EXTRAS: ClassVar[tuple[str, ...]] = ("control",)

    def fold(self, blocks: Sequence[Block], known: Known, previous: Block, state: dict[str, Block]) -> Block:
        """``x <- x + learning_rate * mean(y - x)``; ``c <- c + sum(c_i' - c_i) / members``."""
        before = previous.astype(np.float64)
        alike = [1.0] * len(blocks)
        with np.errstate(over="ignore", invalid="ignore"):
            if known.extra == "control":
                members = max(known.members, len(blocks))
                return as_dtype(before + mean(blocks, alike, members, known.peaks), previous.dtype)
            step = mean(blocks, alike, len(blocks), known.peaks) - before
            return as_dtype(before + self.learning_rate * step, previous.dtype)
