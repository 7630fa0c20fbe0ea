"""What is an aggregation rule: one function over one block of numbers per participant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

from nevermined_fl.errors import SessionFailed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Aggregator", "Block", "as_dtype", "weighted_mean"]

Block = np.ndarray[Any, Any]


class Aggregator(Protocol):
    """A frozen dataclass whose fields are the strategy's options.

    Attributes:
        LIMITS: the half-open range ``low <= value < high`` of each option.
        STATE: names of the arrays that the server keeps from round to round; the driver stores them beside the model.
    """

    LIMITS: ClassVar[Mapping[str, tuple[float, float]]]
    STATE: ClassVar[tuple[str, ...]]

    def fold(
        self, blocks: Sequence[Block], weights: Sequence[float], previous: Block, state: dict[str, Block]
    ) -> Block:
        """The next model's block.

        Shapes: all blocks and state arrays are flat and of ``previous``'s length; dtype as ``previous``, state float64.
        Units: ``weights`` are numbers of examples, > 0. Order: blocks come in the cohort's order; sums follow it, so
        equal inputs give equal bits.
        State: ``{}`` in the first round; afterwards what the last call for this block left in it. Entries are
        replaced, arrays never written into.
        Law: folding a model in pieces gives the bits of folding it whole.

        Raises:
            SessionFailed: finite updates gave a number that is not finite.
        """
        ...


def weighted_mean(blocks: Sequence[Block], weights: Sequence[float]) -> Block:
    """``sum(w * x) / sum(w)`` in float64, summed in the order given.

    The weights stay whole numbers until the end, so that for F32 and F16 each product is exact below 2^29 examples.
    """
    total = np.zeros(blocks[0].shape, np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        for block, weight in zip(blocks, weights, strict=True):
            total += block.astype(np.float64) * float(weight)
        total /= float(sum(weights))
    return total


def as_dtype(block: Block, dtype: np.dtype[Any]) -> Block:
    """Round once, at the end. Raises SessionFailed for what the dtype cannot hold."""
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = block.astype(dtype, copy=False)
    if not np.isfinite(rounded).all():
        raise SessionFailed(f"the aggregated model holds numbers that {dtype.name} cannot")
    return rounded
