"""What looks like chance: cohorts and seeds, derived from the plan so that anyone can replay them."""

from __future__ import annotations

import hashlib
import math
from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nevermined_fl.session.plan import Plan

__all__ = ["cohort", "training_seed"]


def training_seed(plan: Plan, round_number: int, participant: str) -> int:
    """The seed of one participant's training in one round, 0 to 2^63 - 1."""
    return int.from_bytes(_lot(plan, round_number, participant)[:8], "big") >> 1


def cohort(plan: Plan, round_number: int, present: Sequence[str]) -> tuple[str, ...]:
    """Who takes part in a round, sorted: ``ceil(ratio * present)``, at least the plan's minimum."""
    # The decimal that the plan states, not its nearest float: ceil(0.07 * 100) would be 8.
    wanted = math.ceil(Fraction(repr(plan.participants_ratio)) * len(present))
    drawn = sorted(present, key=lambda participant: _lot(plan, round_number, participant))
    return tuple(sorted(drawn[: max(wanted, plan.min_participants)]))


def _lot(plan: Plan, round_number: int, participant: str) -> bytes:
    return hashlib.sha256(f"{plan.seed}:{round_number}:{participant}".encode()).digest()
