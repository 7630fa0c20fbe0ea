"""Trimmed mean: of each coordinate, without the largest and the smallest values.

Source: Yin et al. 2018, arXiv:1803.01498, definition 2. Weights are left out on purpose: a liar would claim a large one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from nevermined_fl.aggregation.rule import as_dtype

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nevermined_fl.aggregation.rule import Block

__all__ = ["TrimmedMean"]


@dataclass(frozen=True, slots=True)
class TrimmedMean:
    """``trim`` is the part that is cut off on each side: ``floor(trim * participants)`` values."""

    trim: float = 0.1

    LIMITS: ClassVar[Mapping[str, tuple[float, float]]] = {"trim": (0.0, 0.5)}
    STATE: ClassVar[tuple[str, ...]] = ()

    def fold(
        self, blocks: Sequence[Block], weights: Sequence[float], previous: Block, state: dict[str, Block]
    ) -> Block:
        """Mean in float64 of what is left after sorting."""
        # The decimal that the plan states, not its nearest float: 0.29 * 100 is 28.999...
        cut = math.floor(Fraction(repr(self.trim)) * len(blocks))
        kept = np.sort(np.stack(blocks), axis=0)[cut : len(blocks) - cut]
        with np.errstate(over="ignore"):
            mean = kept.mean(axis=0, dtype=np.float64)
        return as_dtype(mean, previous.dtype)
