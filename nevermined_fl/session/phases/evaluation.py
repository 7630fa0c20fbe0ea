"""Evaluation: ask the cohort how good the new model is, then commit the round."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from nevermined_fl.session import answers, moves
from nevermined_fl.session.effects import Accept, Commit
from nevermined_fl.session.state import Phase, Round

if TYPE_CHECKING:
    from nevermined_fl.session.events import Evaluated, Left, Ticked
    from nevermined_fl.session.moves import Step
    from nevermined_fl.session.state import Evaluation, Metrics, Session

__all__ = ["begin", "on_evaluated", "on_left", "on_ticked"]


def begin(session: Session, now: float) -> Step:
    """Ask, unless the plan wants no metrics or nobody is there."""
    asking = replace(session, phase=Phase.EVALUATION, deadline=now + session.plan.round_timeout)
    if not session.plan.metrics or not asking.waits_for():
        return _commit(asking, now)
    return asking, moves.orders(asking)


def on_evaluated(session: Session, event: Evaluated, now: float) -> Step:
    """Count one evaluation of each member of the cohort."""
    answers.judge_sender(session, event)
    accept = Accept(event.participant, event.round)
    if answers.repeats(session, event):
        return session, (accept,)
    answers.judge(session, event)
    evaluations = [*session.evaluations, answers.as_evaluation(session, event)]
    evaluations.sort(key=lambda evaluation: evaluation.participant)
    moved, effects = _commit_if_complete(replace(session, evaluations=tuple(evaluations)), now)
    return moved, (accept, *effects)


def on_left(session: Session, event: Left, now: float) -> Step:
    """Do not wait for it any more."""
    moved, effects = _commit_if_complete(moves.forget(session, event), now)
    return moved, (Accept(event.participant, session.round), *effects)


def on_ticked(session: Session, event: Ticked, now: float) -> Step:
    """At the deadline go on with what came, be it nothing: the model does not depend on it."""
    if session.deadline is None or now < session.deadline:
        return session, ()
    return _commit(session, now)


def _commit_if_complete(session: Session, now: float) -> Step:
    return (session, ()) if session.waits_for() else _commit(session, now)


def _commit(session: Session, now: float) -> Step:
    metrics = _mean(session.evaluations)
    done = Round(session.round, session.model, session.updates, session.evaluations, metrics)
    committed = replace(session, history=(*session.history, done))
    if session.round < session.plan.rounds:
        moved, effects = moves.start_round(committed, session.round + 1, now)
    else:
        moved = replace(committed, phase=Phase.FINISHED, deadline=None)
        effects = moves.orders(moved)
    return moved, (Commit(session.round, session.model, dict(metrics)), *effects)


def _mean(evaluations: tuple[Evaluation, ...]) -> Metrics:
    """Each metric's mean over those who gave it, weighted by examples, summed in the order of participants."""
    sums: dict[str, tuple[float, int]] = {}
    for evaluation in evaluations:
        for name, value in evaluation.metrics:
            total, weight = sums.get(name, (0.0, 0))
            sums[name] = (total + evaluation.weight * value, weight + evaluation.weight)
    return tuple((name, total / weight) for name, (total, weight) in sorted(sums.items()))
