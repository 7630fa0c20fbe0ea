"""Reporting: collect updates until enough of the cohort reported or time is up."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from nevermined_fl.session import answers, moves, rounds, rows
from nevermined_fl.session.effects import Accept
from nevermined_fl.session.state import Phase

if TYPE_CHECKING:
    from nevermined_fl.session.events import Left, Reported, Ticked
    from nevermined_fl.session.moves import Step
    from nevermined_fl.session.state import Session

__all__ = ["on_left", "on_reported", "on_ticked"]


def on_reported(session: Session, event: Reported, now: float) -> Step:
    """Count one update of each member of the cohort, and of who was asked before if the plan uses late ones."""
    answers.judge_sender(session, event)
    accept = Accept(event.participant, event.round)
    if answers.repeats(session, event):
        return session, (accept,)
    answers.judge_update(session, event)
    counted = replace(session, updates=rows.put(session.updates, answers.as_update(session, event)))
    if session.phase is Phase.CONFIGURATION:
        return counted, (accept,)
    moved, effects = rounds.close_if_complete(replace(counted, cohort=rows.put_name(session.cohort, event.participant)))
    return moved, (accept, *effects)


def on_left(session: Session, event: Left, now: float) -> Step:
    """Do not wait for it any more."""
    moved, effects = rounds.close_if_complete(moves.forget(session, event))
    return moved, (Accept(event.participant, session.round), *effects)


def on_ticked(session: Session, event: Ticked, now: float) -> Step:
    """At the deadline go on with what came, if it is enough."""
    if not session.is_due(now):
        return session, ()
    came, needed = len(session.updates), session.plan.min_participants
    if came < needed:
        return rounds.begin_again(session, f"too few updates: {came} of at least {needed} by the deadline", now)
    return rounds.close(session)
