"""Who contributed what? As the model's card, its provenance and the payments need it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nevermined_fl.session.state import Session

__all__ = ["Contribution", "contributions"]


@dataclass(frozen=True, slots=True)
class Contribution:
    """The rounds in which a participant's update was folded; ``examples`` is its weight in the last of them."""

    participant: str
    agreement: str
    rounds: tuple[int, ...]
    examples: int


def contributions(session: Session) -> tuple[Contribution, ...]:
    """Everyone of whom at least one committed round holds an update, sorted by participant."""
    counted: dict[str, list[tuple[int, int]]] = {}
    for done in session.history:
        for update in done.updates:
            counted.setdefault(update.participant, []).append((done.number, update.weight))
    return tuple(
        Contribution(member.participant, member.agreement, tuple(n for n, _ in rows), rows[-1][1])
        for member in session.members
        if (rows := counted.get(member.participant))
    )
