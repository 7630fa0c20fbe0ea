"""Evaluation: ask the cohort how good the new model is, then commit the round."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from nevermined_fl.session import answers, moves, rounds, rows
from nevermined_fl.session.effects import Accept
from nevermined_fl.session.orders import orders
from nevermined_fl.session.state import Phase

if TYPE_CHECKING:
    from nevermined_fl.session.events import Evaluated, Left, Ticked
    from nevermined_fl.session.moves import Step
    from nevermined_fl.session.state import Session

__all__ = ["begin", "on_evaluated", "on_left", "on_ticked"]


def begin(session: Session, now: float) -> Step:
    """Ask, unless the plan wants no metrics of this round or nobody is there."""
    plan = session.plan
    asking = replace(session, phase=Phase.EVALUATION, deadline=now + plan.evaluation_seconds())
    if not plan.evaluates(session.round) or not asking.is_waiting():
        return rounds.commit(asking, now)
    asking = replace(asking, turn=session.turn + 1)
    return asking, orders(asking)


def on_evaluated(session: Session, event: Evaluated, now: float) -> Step:
    """Count one evaluation of each member of the cohort."""
    answers.judge_sender(session, event)
    accept = Accept(event.participant, event.round)
    if answers.repeats(session, event):
        return session, (accept,)
    answers.judge_evaluation(session, event)
    counted = replace(session, evaluations=rows.put(session.evaluations, answers.as_evaluation(session, event)))
    moved, effects = _commit_if_complete(counted, now)
    return moved, (accept, *effects)


def on_left(session: Session, event: Left, now: float) -> Step:
    """Do not wait for it any more."""
    moved, effects = _commit_if_complete(moves.forget(session, event), now)
    return moved, (Accept(event.participant, session.round), *effects)


def on_ticked(session: Session, event: Ticked, now: float) -> Step:
    """At the deadline go on with what came, be it nothing: the model does not depend on it."""
    return rounds.commit(session, now) if session.is_due(now) else (session, ())


def _commit_if_complete(session: Session, now: float) -> Step:
    """Over-selection serves here too: nobody waits for more than the round's target."""
    if len(session.evaluations) < session.target and session.is_waiting():
        return session, ()
    return rounds.commit(session, now)
