"""What FedAdam, FedYogi and FedAdagrad share: an adaptive step from two moments of the mean update.

Source: Reddi et al. 2021, arXiv:2003.00295, algorithm 2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from nevermined_fl.aggregation.rule import as_dtype
from nevermined_fl.aggregation.sums import weighted_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nevermined_fl.aggregation.rule import Block, Known

__all__ = ["LIMITS", "STATE", "move"]

LIMITS = {"learning_rate": (1e-9, 1e3), "beta1": (0.0, 1.0), "beta2": (0.0, 1.0), "tau": (1e-12, 1e3)}
STATE = ("first", "second")


class _Adaptive(Protocol):
    @property
    def learning_rate(self) -> float: ...
    @property
    def beta1(self) -> float: ...
    @property
    def tau(self) -> float: ...
    def second(self, squared: Block, second: Block) -> Block: ...


def move(rule: _Adaptive, blocks: Sequence[Block], known: Known, previous: Block, state: dict[str, Block]) -> Block:
    """``first <- beta1 * first + (1 - beta1) * step``; ``x <- x + learning_rate * first / (sqrt(second) + tau)``.

    The step is the mean of changes, so exactly 0 where nobody moved, however small ``tau`` is; the first moment starts at 0 and the second at ``tau**2``.
    """
    before = previous.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        step = weighted_mean(blocks, known.weights, known.peaks, before)
        first = (1 - rule.beta1) * step
        if "first" in state:
            first += rule.beta1 * state["first"]
        second = rule.second(step**2, state["second"] if "second" in state else np.full(step.size, rule.tau**2))
        after = as_dtype(before + rule.learning_rate * first / (np.sqrt(second) + rule.tau), previous.dtype)
    state.update(first=first, second=second)
    return after
