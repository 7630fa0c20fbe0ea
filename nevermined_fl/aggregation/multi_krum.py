"""Multi-Krum: the mean of those updates that lie nearest to their neighbours.

Source: Blanchard et al. 2017, arXiv:1703.02757, section 5. Weights are left out on purpose: a liar would claim a large one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from nevermined_fl.aggregation.distances import nearest, products
from nevermined_fl.aggregation.rule import Aggregator, as_dtype
from nevermined_fl.aggregation.sums import weighted_mean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nevermined_fl.aggregation.rule import Block, Known

__all__ = ["MultiKrum"]


@dataclass(frozen=True, slots=True)
class MultiKrum(Aggregator):
    """``byzantine`` is how many may lie, ``keep`` how many updates are averaged; 0 keeps ``n - byzantine - 2``, the most."""

    byzantine: int = 1
    keep: int = 0

    LIMITS: ClassVar[Mapping[str, tuple[float, float]]] = {"byzantine": (0, 5000), "keep": (0, 10_001)}
    SURVEYS: ClassVar[bool] = True
    SURVEYS_AT_ONCE: ClassVar[bool] = True

    def fewest(self) -> int:
        """``2f + 3``, and enough that ``keep`` are at most ``n - f - 2``: of all of them, liars would be kept."""
        return max(2 * self.byzantine + 3, self.keep + self.byzantine + 2)

    def survey(self, blocks: Sequence[Block], previous: Block) -> Block:
        """Products of all changes with each other."""
        return products(blocks, previous)

    def conclude(self, total: Block, weights: Sequence[int]) -> Block:
        """1 for the updates with the least sums of squared distances to their ``n - f - 2`` nearest, 0 for others."""
        return nearest(total, self.byzantine, self.keep or len(weights) - self.byzantine - 2)

    def fold(self, blocks: Sequence[Block], known: Known, previous: Block, state: dict[str, Block]) -> Block:
        """The plain mean of those that are kept."""
        assert known.shares is not None, "Multi-Krum folds after a survey"
        return as_dtype(weighted_mean(blocks, known.shares.tolist(), known.peaks), previous.dtype)
