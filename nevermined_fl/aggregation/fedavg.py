"""FedAvg: the mean of the updates, weighted by examples.

Source: McMahan et al. 2017, arXiv:1602.05629, algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from nevermined_fl.aggregation.rule import as_dtype, weighted_mean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nevermined_fl.aggregation.rule import Block

__all__ = ["FedAvg"]


@dataclass(frozen=True, slots=True)
class FedAvg:
    """No options, no state."""

    LIMITS: ClassVar[Mapping[str, tuple[float, float]]] = {}
    STATE: ClassVar[tuple[str, ...]] = ()

    def fold(
        self, blocks: Sequence[Block], weights: Sequence[float], previous: Block, state: dict[str, Block]
    ) -> Block:
        """The weighted mean."""
        return as_dtype(weighted_mean(blocks, weights), previous.dtype)
