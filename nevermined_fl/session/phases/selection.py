"""Selection: wait until all members joined, or until enough of them did and time is up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nevermined_fl.session import moves
from nevermined_fl.session.effects import Accept

if TYPE_CHECKING:
    from nevermined_fl.session.events import Joined, Ticked
    from nevermined_fl.session.moves import Step
    from nevermined_fl.session.state import Session

__all__ = ["on_joined", "on_ticked"]


def on_joined(session: Session, event: Joined, now: float) -> Step:
    """Take it in; the last of them opens the first round."""
    joined = moves.enrol(session, event)
    accept = Accept(event.participant, 0)
    if len(joined.present()) < len(session.plan.members):
        return joined, (accept,)
    training, effects = moves.start_round(joined, 1, now)
    return training, (accept, *effects)


def on_ticked(session: Session, event: Ticked, now: float) -> Step:
    """At the deadline begin with those who are there, if they are enough."""
    if session.deadline is None or now < session.deadline:
        return session, ()
    came, needed = len(session.present()), session.plan.min_participants
    if came < needed:
        return moves.fail(session, f"too few participants: {came} of at least {needed} by the deadline")
    return moves.start_round(session, 1, now)
