"""FedProx: FedAvg of participants that stay near the model they were given.

Source: Li et al. 2020, arXiv:1812.06127, algorithm 2. The proximal term ``mu / 2 * |w - w_t|^2`` is the trainers' affair
(``Trainer.corrected``); the server sums as FedAvg does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from nevermined_fl.aggregation.rule import Aggregator, as_dtype
from nevermined_fl.aggregation.sums import weighted_mean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nevermined_fl.aggregation.rule import Block, Known

__all__ = ["FedProx"]


@dataclass(frozen=True, slots=True)
class FedProx(Aggregator):
    """``mu`` is how strongly a trainer is pulled back; with 0 it is FedAvg."""

    mu: float = 0.01

    LIMITS: ClassVar[Mapping[str, tuple[float, float]]] = {"mu": (0.0, 1e6)}

    def fold(self, blocks: Sequence[Block], known: Known, previous: Block, state: dict[str, Block]) -> Block:
        """The weighted mean."""
        return as_dtype(weighted_mean(blocks, known.weights, known.peaks), previous.dtype)
