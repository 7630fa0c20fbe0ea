"""FedAdagrad: the mean update as a gradient for Adagrad on the server.

Source: Reddi et al. 2021, arXiv:2003.00295, algorithm 2. As there, the second moment starts at ``tau**2`` and the
first is the step itself; the mean is weighted by examples, as in the paper's experiments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from nevermined_fl.aggregation.adaptive import LIMITS, STATE, move
from nevermined_fl.aggregation.rule import Aggregator

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nevermined_fl.aggregation.rule import Block, Known

__all__ = ["FedAdagrad"]


@dataclass(frozen=True, slots=True)
class FedAdagrad(Aggregator):
    """``tau`` is how adaptive it is: small means very."""

    learning_rate: float = 0.1
    beta1: float = 0.0
    tau: float = 1e-3

    LIMITS: ClassVar[Mapping[str, tuple[float, float]]] = {
        option: limits for option, limits in LIMITS.items() if option != "beta2"
    }
    STATE: ClassVar[tuple[str, ...]] = STATE
    SUMS_CHANGES: ClassVar[bool] = True

    def fold(self, blocks: Sequence[Block], known: Known, previous: Block, state: dict[str, Block]) -> Block:
        """``second <- second + step**2``; see ``adaptive``."""
        return move(self, blocks, known, previous, state)

    def second(self, squared: Block, second: Block) -> Block:
        """The second moment after a step, of its square and the second moment before."""
        return second + squared
