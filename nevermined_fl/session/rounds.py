"""A round's beginning, its repetition when too few updates came, and its end."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

from nevermined_fl.session import draw, stopping
from nevermined_fl.session.decimals import exact
from nevermined_fl.session.effects import Commit
from nevermined_fl.session.moves import fail
from nevermined_fl.session.orders import discards, orders
from nevermined_fl.session.state import Phase, Round, Session

if TYPE_CHECKING:
    from nevermined_fl.session.moves import Step
    from nevermined_fl.session.state import Evaluation, Metrics

__all__ = ["begin", "begin_again", "close", "close_if_complete", "commit", "configure"]


def begin(session: Session, number: int, now: float) -> Step:
    """Begin a round as soon as enough members are there. Waiting for them and training share one deadline."""
    deadline = now + session.plan.round_timeout
    waiting = replace(session, phase=Phase.CONFIGURATION, round=number, attempt=0, target=0, deadline=deadline)
    return configure(replace(waiting, cohort=(), asked=(), updates=(), evaluations=()))


def begin_again(session: Session, reason: str, now: float) -> Step:
    """Repeat the round, with a cohort of who is there now; fail for ``reason`` when that was done often enough."""
    plan = session.plan
    if session.attempt >= plan.repeats:
        return fail(session, f"round {session.round}: {reason}")
    gone = discards(session) if plan.late_updates == "drop" else ()
    kept = () if plan.late_updates == "drop" else session.updates
    waiting = replace(session, phase=Phase.CONFIGURATION, attempt=session.attempt + 1, cohort=(), updates=kept)
    moved, effects = configure(replace(waiting, target=0, deadline=now + plan.round_timeout))
    return moved, (*gone, *effects)


def configure(session: Session) -> Step:
    """Draw a cohort and let it train, if enough members are present or have given their update already."""
    plan, present = session.plan, session.present()
    given = tuple(update.participant for update in session.updates)
    pool = len({*present, *given})
    if pool < plan.min_participants:
        return session, ()
    cohort = draw.cohort(plan, session.round, present, attempt=session.attempt, given=given)
    asked = tuple(sorted({*session.asked, *cohort}))
    training = replace(session, phase=Phase.REPORTING, cohort=cohort, asked=asked, target=draw.target(plan, pool))
    training = replace(training, turn=session.turn + 1)
    return training, orders(training)


def close_if_complete(session: Session) -> Step:
    """Aggregate when the round has what it needs, or all that it will get before its deadline."""
    came = len(session.updates)
    if came < session.plan.min_participants or (came < session.target and session.is_waiting()):
        return session, ()
    return close(session)


def close(session: Session) -> Step:
    """Aggregate what came."""
    folding = replace(session, phase=Phase.AGGREGATION, deadline=None)
    return folding, orders(folding)


def commit(session: Session, now: float) -> Step:
    """The round counts: go on with the next one, or finish."""
    metrics = _mean(session.evaluations)
    done = Round(session.round, session.model, session.updates, session.evaluations, metrics, session.attempt)
    committed = replace(session, history=(*session.history, done))
    if stopping.is_done(session.plan, committed.history):
        moved = replace(committed, phase=Phase.FINISHED, deadline=None)
        effects = orders(moved)
    else:
        moved, effects = begin(committed, session.round + 1, now)
    return moved, (Commit(session.round, session.model, dict(metrics)), *effects)


def _mean(evaluations: tuple[Evaluation, ...]) -> Metrics:
    """Each metric's mean over those who gave it, weighted by examples.

    Law: it is rounded once, so it lies between what was given, overflows never, and no order changes it.
    """
    sums: dict[str, tuple[Fraction, int]] = {}
    for evaluation in evaluations:
        for name, value in evaluation.metrics:
            total, weight = sums.get(name, (Fraction(), 0))
            sums[name] = (total + evaluation.weight * exact(value), weight + evaluation.weight)
    return tuple((name, float(total / weight)) for name, (total, weight) in sorted(sums.items()))
