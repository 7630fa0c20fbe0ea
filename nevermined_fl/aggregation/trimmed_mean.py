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
    """``trim`` is the part that is cut off on each side: ``floor(trim * participants)`` values."""

    trim: float = 0.1

    LIMITS: ClassVar[Mapping[str, tuple[float, float]]] = {"trim": (0.0, 0.5)}
    AT_ONCE: ClassVar[bool] = True

    def fold(self, blocks: Sequence[Block], known: Known, previous: Block, state: dict[str, Block]) -> Block:
        """Mean in float64 of what is left after sorting, summed upwards: numpy's ``sort`` and ``mean``, bit for bit.

        A zero is always positive, where numpy's sign depends on the order.
        """
        # The decimal that the plan states, not its nearest float: 0.29 * 100 is 28.999...
        cut = math.floor(Fraction(repr(self.trim)) * len(blocks))
        total = np.zeros(previous.size, np.float64)
        with np.errstate(over="ignore"):
            for strip, rows in between(blocks, cut, len(blocks) - cut):
                for row in rows:
                    total[strip] += row
            total /= len(blocks) - 2 * cut
        return as_dtype(total, previous.dtype)
