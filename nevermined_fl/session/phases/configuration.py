"""Configuration: between rounds, wait until enough members are back. Most sessions pass through it in no time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nevermined_fl.session import moves, rounds
from nevermined_fl.session.effects import Accept

if TYPE_CHECKING:
    from nevermined_fl.session.events import Joined, Ticked
    from nevermined_fl.session.moves import Step
    from nevermined_fl.session.state import Session

__all__ = ["on_joined", "on_ticked"]


def on_joined(session: Session, event: Joined, now: float) -> Step:
    """Take it in and begin the round if that makes enough."""
    training, effects = rounds.configure(moves.enrol(session, event))
    return training, (Accept(event.participant, session.round), *effects)


def on_ticked(session: Session, event: Ticked, now: float) -> Step:
    """At the deadline begin the round again, or fail."""
    if not session.is_due(now):
        return session, ()
    came, needed = len(session.present()), session.plan.min_participants
    return rounds.begin_again(session, f"too few participants: {came} of at least {needed} by the deadline", now)
