"""Norm clipping: the weighted mean of changes, none longer than a bound, so that nobody pulls harder than that.

Source: Sun et al. 2019, arXiv:1911.07963, section 3, "norm thresholding of updates".
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from nevermined_fl.aggregation.rule import Aggregator, as_dtype
from nevermined_fl.aggregation.sums import mean
from nevermined_fl.errors import LocalProtocolError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nevermined_fl.aggregation.rule import Block, Known

__all__ = ["NormClipping"]


@dataclass(frozen=True, slots=True)
class NormClipping(Aggregator):
    """``norm`` is the L2 norm above which a change is shrunk to it; where nothing is shrunk it is FedAvg, bit for bit."""

    norm: float = 1.0

    LIMITS: ClassVar[Mapping[str, tuple[float, float]]] = {"norm": (1e-9, 1e30)}
    SURVEYS: ClassVar[bool] = True

    def survey(self, blocks: Sequence[Block], previous: Block) -> Block:
        """Squared norms of the changes."""
        before = previous.astype(np.float64)
        found = np.empty(len(blocks))
        with np.errstate(over="ignore"):
            for index in range(len(blocks)):
                change = blocks[index] - before
                # Numpy's own sum: its bits do not depend on how many threads a BLAS has.
                found[index] = np.sum(np.multiply(change, change, out=change))
        return found

    def conclude(self, total: Block, weights: Sequence[int]) -> Block:
        """How much each change is shrunk: ``min(1, norm / its norm)``."""
        norms = np.sqrt(total)
        return np.divide(self.norm, norms, out=np.ones_like(norms), where=norms > self.norm)

    def fold(self, blocks: Sequence[Block], known: Known, previous: Block, state: dict[str, Block]) -> Block:
        """``x + sum(w * factor * (y - x)) / sum(w)``, so that only updates are summed."""
        if known.shares is None:
            raise LocalProtocolError("norm clipping folds after a survey")
        factors = [weight * float(share) for weight, share in zip(known.weights, known.shares, strict=True)]
        weight = math.fsum(known.weights)
        moved = mean(blocks, factors, weight, known.peaks)
        kept = (weight - math.fsum(factors)) / weight
        if kept != 0:
            with np.errstate(over="ignore"):
                moved += kept * previous.astype(np.float64)
        return as_dtype(moved, previous.dtype)
