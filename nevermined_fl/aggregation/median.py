"""Median: of each coordinate, whatever the weights; stands up to a minority of wrong updates.

Source: Yin et al. 2018, arXiv:1803.01498, definition 1. Weights are left out on purpose: a liar would claim a large one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from nevermined_fl.aggregation.rule import as_dtype

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nevermined_fl.aggregation.rule import Block

__all__ = ["Median"]


@dataclass(frozen=True, slots=True)
class Median:
    """No options, no state."""

    LIMITS: ClassVar[Mapping[str, tuple[float, float]]] = {}
    STATE: ClassVar[tuple[str, ...]] = ()

    def fold(
        self, blocks: Sequence[Block], weights: Sequence[float], previous: Block, state: dict[str, Block]
    ) -> Block:
        """Numpy's median, bit for bit."""
        with np.errstate(over="ignore"):
            middle = np.median(np.stack(blocks), axis=0)
        return as_dtype(middle, previous.dtype)
