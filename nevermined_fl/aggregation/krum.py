"""Krum: the one update that lies nearest to its neighbours; stands up to ``byzantine`` participants of at least 2f + 3.

Source: Blanchard et al. 2017, arXiv:1703.02757, section 4. Weights are left out on purpose: a liar would claim a large one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from nevermined_fl.aggregation.distances import nearest, products
from nevermined_fl.aggregation.rule import Aggregator, as_dtype

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nevermined_fl.aggregation.rule import Block, Known

__all__ = ["Krum"]


@dataclass(frozen=True, slots=True)
class Krum(Aggregator):
    """``byzantine`` is how many may lie; of equally near updates the first in the cohort's order is taken."""

    byzantine: int = 1

    LIMITS: ClassVar[Mapping[str, tuple[float, float]]] = {"byzantine": (0, 5000)}
    SURVEYS: ClassVar[bool] = True
    SURVEYS_AT_ONCE: ClassVar[bool] = True

    def fewest(self) -> int:
        """``2f + 3``."""
        return 2 * self.byzantine + 3

    def survey(self, blocks: Sequence[Block], previous: Block) -> Block:
        """Products of all changes with each other."""
        return products(blocks, previous)

    def conclude(self, total: Block, weights: Sequence[int]) -> Block:
        """1 for the update with the least sum of squared distances to its ``n - f - 2`` nearest, 0 for others."""
        return nearest(total, self.byzantine, 1)

    def fold(self, blocks: Sequence[Block], known: Known, previous: Block, state: dict[str, Block]) -> Block:
        """The update as it came."""
        assert known.shares is not None, "Krum folds after a survey"
        return as_dtype(blocks[int(np.argmax(known.shares))].copy(), previous.dtype)
