"""Selection: wait until all members joined, or until enough of them did and time is up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nevermined_fl.session import moves, rounds
from nevermined_fl.session.effects import Accept
from nevermined_fl.session.phases import initialization
from nevermined_fl.session.plan import FROM_PARTICIPANT

if TYPE_CHECKING:
    from nevermined_fl.session.events import Joined, Ticked
    from nevermined_fl.session.moves import Step
    from nevermined_fl.session.state import Session

__all__ = ["on_joined", "on_ticked"]


def on_joined(session: Session, event: Joined, now: float) -> Step:
    """Take it in; the last of them opens the first round."""
    joined = moves.enrol(session, event)
    accept = Accept(event.participant, 0)
    all_known = len(joined.members) == len(session.plan.members)  # counting who is present costs more
    if not all_known or len(joined.present()) < len(session.plan.members):
        return joined, (accept,)
    opened, effects = _open(joined, now)
    return opened, (accept, *effects)


def on_ticked(session: Session, event: Ticked, now: float) -> Step:
    """At the deadline begin with those who are there, if they are enough."""
    if not session.is_due(now):
        return session, ()
    came, needed = len(session.present()), session.plan.min_participants
    if came < needed:
        return moves.fail(session, f"too few participants: {came} of at least {needed} by the deadline")
    return _open(session, now)


def _open(session: Session, now: float) -> Step:
    if session.plan.initial_model == FROM_PARTICIPANT:
        return initialization.begin(session, now)
    return rounds.begin(session, 1, now)
