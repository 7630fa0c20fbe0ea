"""Reporting: collect updates until all of the cohort reported or time is up."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from nevermined_fl.session import answers, moves
from nevermined_fl.session.effects import Accept
from nevermined_fl.session.state import Phase

if TYPE_CHECKING:
    from nevermined_fl.session.events import Left, Reported, Ticked
    from nevermined_fl.session.moves import Step
    from nevermined_fl.session.state import Session

__all__ = ["on_left", "on_reported", "on_ticked"]


def on_reported(session: Session, event: Reported, now: float) -> Step:
    """Count one update of each member of the cohort."""
    answers.judge_sender(session, event)
    accept = Accept(event.participant, event.round)
    if answers.repeats(session, event):
        return session, (accept,)
    answers.judge(session, event)
    updates = [*session.updates, answers.as_update(session, event)]
    updates.sort(key=lambda update: update.participant)
    moved, effects = _close_if_complete(replace(session, updates=tuple(updates)))
    return moved, (accept, *effects)


def on_left(session: Session, event: Left, now: float) -> Step:
    """Do not wait for it any more."""
    moved, effects = _close_if_complete(moves.forget(session, event))
    return moved, (Accept(event.participant, session.round), *effects)


def on_ticked(session: Session, event: Ticked, now: float) -> Step:
    """At the deadline go on with what came, if it is enough."""
    if session.deadline is None or now < session.deadline:
        return session, ()
    came, needed = len(session.updates), session.plan.min_participants
    if came < needed:
        return moves.fail(
            session, f"round {session.round}: too few updates: {came} of at least {needed} by the deadline"
        )
    return _close(session)


def _close_if_complete(session: Session) -> Step:
    if session.waits_for() or len(session.updates) < session.plan.min_participants:
        return session, ()
    return _close(session)


def _close(session: Session) -> Step:
    folding = replace(session, phase=Phase.AGGREGATION, deadline=None)
    return folding, moves.orders(folding)
