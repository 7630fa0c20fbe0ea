"""What looks like chance: cohorts and seeds, derived from the plan so that anyone can replay them."""

from __future__ import annotations

import hashlib
import math
from fractions import Fraction
from typing import TYPE_CHECKING

from nevermined_fl.session.decimals import exact

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from nevermined_fl.session.plan import Plan

__all__ = ["cohort", "initializer", "target", "training_seed"]


def training_seed(plan: Plan, round_number: int, participant: str, attempt: int = 0) -> int:
    """The seed of one participant's training in one round, 0 to 2^63 - 1.

    A round that is begun again has others, unless late updates are used: then an update is the same work in any attempt.
    """
    again = attempt if plan.late_updates == "drop" else 0
    return int.from_bytes(_lot(plan, round_number, again, participant)[:8], "big") >> 1


def target(plan: Plan, count: int) -> int:
    """How many updates a round needs when ``count`` could give one: the plan's ratio of them, at least its minimum."""
    return math.ceil(_share(plan, count))


def cohort(
    plan: Plan, round_number: int, present: Sequence[str], *, attempt: int = 0, given: Sequence[str] = ()
) -> tuple[str, ...]:
    """Who takes part in a round, sorted: ``over_selection`` times its target, as far as there are so many.

    Args:
        plan: the plan.
        round_number: the round.
        present: who could train.
        attempt: how often the round was begun again.
        given: whose updates count already; they are of the cohort, present or not.
    """
    wanted = math.ceil(exact(plan.over_selection) * _share(plan, len({*present, *given})))
    has_given = set(given)
    others = _in_lot_order(plan, round_number, attempt, (name for name in present if name not in has_given))
    return tuple(sorted([*given, *others[: max(0, wanted - len(given))]]))


def initializer(plan: Plan, present: Sequence[str], asked: Sequence[str]) -> str | None:
    """Who is asked for the initial model next; None when everyone present was."""
    were_asked = set(asked)
    order = _in_lot_order(plan, 0, 0, (name for name in present if name not in were_asked))
    return order[0] if order else None


def _share(plan: Plan, count: int) -> Fraction:
    return max(exact(plan.participants_ratio) * count, Fraction(plan.min_participants))


def _in_lot_order(plan: Plan, round_number: int, attempt: int, names: Iterable[str]) -> list[str]:
    return sorted(names, key=lambda name: _lot(plan, round_number, attempt, name))


def _lot(plan: Plan, round_number: int, attempt: int, participant: str) -> bytes:
    number = f"{round_number}.{attempt}" if attempt else str(round_number)
    return hashlib.sha256(f"{plan.seed}:{number}:{participant}".encode()).digest()
