"""What is an aggregation rule: one function over one block of numbers per participant, and what it may know before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

from nevermined_fl.errors import LocalProtocolError, SessionFailed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Aggregator", "Block", "Known", "as_dtype"]

Block = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a round's updates before their blocks are folded.

    Attributes:
        weights: numbers of examples, > 0, in the cohort's order.
        peaks: of each update, no number of it (with SUMS_CHANGES: of its change) is larger in absolute value; sums are
            then exact integers. None: sums are float64 in the cohort's order.
        members: of the session, present or not.
        shares: what ``conclude`` made of the survey.
        extra: which of EXTRAS these blocks hold; empty for the model's own numbers.
    """

    weights: tuple[int, ...]
    peaks: tuple[float, ...] | None = None
    members: int = 0
    shares: Block | None = None
    extra: str = ""


class Aggregator(Protocol):
    """A frozen dataclass whose fields are the strategy's options.

    Attributes:
        LIMITS: the half-open range ``low <= value < high`` of each option.
        STATE: names of the arrays that the server keeps from round to round; the driver stores them beside the model.
        EXTRAS: tensors that travel beside each of the model's, as ``<extra>/<name>``.
        SURVEYS: whether all blocks are surveyed before the first is folded.
        SURVEYS_AT_ONCE: whether a survey holds all updates' changes at the same time; it is then given few numbers of each.
        SUMS_CHANGES: whether it sums changes of the model before, not updates: where a step is multiplied from round to
            round, a number that nobody moved must come out as it was, and not with what rounding left.
        AT_ONCE: whether all updates' blocks must be good at the same time; otherwise one is until the next is asked for.
    """

    __slots__ = ()

    LIMITS: ClassVar[Mapping[str, tuple[float, float]]] = {}
    STATE: ClassVar[tuple[str, ...]] = ()
    EXTRAS: ClassVar[tuple[str, ...]] = ()
    SURVEYS: ClassVar[bool] = False
    SURVEYS_AT_ONCE: ClassVar[bool] = False
    SUMS_CHANGES: ClassVar[bool] = False
    AT_ONCE: ClassVar[bool] = False

    def fewest(self) -> int:
        """Updates that a round must have for the strategy to mean something."""
        return 1

    def survey(self, blocks: Sequence[Block], previous: Block) -> Block:
        """What a block tells about the updates as a whole: float64, added up over the blocks in the file's order."""
        raise LocalProtocolError(f"{type(self).__name__} surveys nothing")

    def conclude(self, total: Block, weights: Sequence[int]) -> Block:
        """What the sum of all surveys says: one factor from 0 to 1 for each update."""
        raise LocalProtocolError(f"{type(self).__name__} surveys nothing")

    def fold(self, blocks: Sequence[Block], known: Known, previous: Block, state: dict[str, Block]) -> Block:
        """The next model's block.

        Shapes: all blocks and state arrays are flat and of ``previous``'s length; dtype as ``previous``, state float64.
        Order: blocks come in the cohort's order, are read when they are asked for, and are never written into.
        State: ``{}`` in the first round; afterwards what the last call for this block left in it. Entries are
        replaced, arrays never written into.
        Law: folding a model in pieces gives the bits of folding it whole.

        Raises:
            SessionFailed: finite updates gave a number that is not finite, or there are too few of them.
        """
        ...


def as_dtype(block: Block, dtype: np.dtype[Any]) -> Block:
    """Round once, at the end. Raises SessionFailed for what the dtype cannot hold."""
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = block.astype(dtype, copy=False)
    if not np.isfinite(rounded).all():
        raise SessionFailed(f"the aggregated model holds numbers that {dtype.name} cannot")
    return rounded
