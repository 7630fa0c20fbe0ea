"""Trimmed mean: of each coordinate, without the largest and the smallest values.

Source: Yin et al. 2018, arXiv:1803.01498, definition 2. Weights are left out on purpose: a liar would claim a large one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from nevermined_fl.aggregation.order import between
from nevermined_fl.aggregation.rule import Aggregator, as_dtype

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nevermined_fl.aggregation.rule import Block, Known

__all__ = ["TrimmedMean"]


@dataclass(frozen=True, slots=True)
class TrimmedMean(Aggregator):
    """``trim`` is the part that is cut off on each side: ``floor(trim * participants)`` values, at least one."""

    trim: float = 0.2

    LIMITS: ClassVar[Mapping[str, tuple[float, float]]] = {"trim": (1e-4, 0.5)}  # less cuts nothing of 10 000 updates
    AT_ONCE: ClassVar[bool] = True

    def fewest(self) -> int:
        """As many as it takes to cut one off on each side; of fewer it would be the plain mean, which one liar moves."""
        return math.ceil(1 / self._exact())

    def fold(self, blocks: Sequence[Block], known: Known, previous: Block, state: dict[str, Block]) -> Block:
        """Mean in float64 of what is left after sorting, summed upwards: numpy's ``sort`` and ``mean``, bit for bit.

        A zero is always positive, where numpy's sign depends on the order.
        """
        cut = math.floor(self._exact() * len(blocks))
        total = np.zeros(previous.size, np.float64)
        with np.errstate(over="ignore"):
            for strip, rows in between(blocks, cut, len(blocks) - cut):
                for row in rows:
                    total[strip] += row
            total /= len(blocks) - 2 * cut
        return as_dtype(total, previous.dtype)

    def _exact(self) -> Fraction:
        """The decimal that the plan states, not its nearest float: 0.29 * 100 is 28.999..."""
        return Fraction(repr(self.trim))
