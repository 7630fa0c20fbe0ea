"""Median: of each coordinate, whatever the weights; stands up to a minority of wrong updates.

Source: Yin et al. 2018, arXiv:1803.01498, definition 1. Weights are left out on purpose: a liar would claim a large one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from nevermined_fl.aggregation.order import middle
from nevermined_fl.aggregation.rule import Aggregator, as_dtype

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nevermined_fl.aggregation.rule import Block, Known

__all__ = ["Median"]


@dataclass(frozen=True, slots=True)
class Median(Aggregator):
    """No options, no state."""

    AT_ONCE: ClassVar[bool] = True

    def fewest(self) -> int:
        """Of two the median is the mean, which one liar moves."""
        return 3

    def fold(self, blocks: Sequence[Block], known: Known, previous: Block, state: dict[str, Block]) -> Block:
        """Numpy's median, bit for bit; a zero is always positive, where numpy's sign depends on the order."""
        after = np.empty(previous.size, np.float32 if previous.dtype == np.float16 else previous.dtype)
        with np.errstate(over="ignore"):
            for strip, rows in middle(blocks):
                into = after[strip]
                np.add(rows[0], rows[1] if len(rows) == 2 else 0.0, out=into)
                if len(rows) == 2:
                    into *= 0.5
                    into += 0.0  # two negative zeros
        return as_dtype(after, previous.dtype)
