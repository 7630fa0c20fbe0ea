"""FedAvg: the mean of the updates, weighted by examples.

Source: McMahan et al. 2017, arXiv:1602.05629, algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nevermined_fl.aggregation.rule import Aggregator, as_dtype
from nevermined_fl.aggregation.sums import weighted_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nevermined_fl.aggregation.rule import Block, Known

__all__ = ["FedAvg"]


@dataclass(frozen=True, slots=True)
class FedAvg(Aggregator):
    """No options, no state."""

    def fold(self, blocks: Sequence[Block], known: Known, previous: Block, state: dict[str, Block]) -> Block:
        """The weighted mean."""
        return as_dtype(weighted_mean(blocks, known.weights, known.peaks), previous.dtype)
