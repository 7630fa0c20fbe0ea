"""What a phase orders when it begins, and what may be deleted. Written here alone, so that it can be ordered again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nevermined_fl.session import draw
from nevermined_fl.session.effects import (
    Adopt,
    Aggregate,
    AskEvaluation,
    AskInitialModel,
    Configure,
    Discard,
    Effect,
    Fail,
    Finish,
)
from nevermined_fl.session.state import Phase, Session

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["discards", "orders"]


def orders(session: Session, asked: tuple[str, ...] | None = None) -> tuple[Effect, ...]:
    """What the phase needs done, of ``asked`` or of everybody who owes an answer."""
    order = _ORDERS.get(session.phase)
    if order is None:
        return ()
    return order(session, session.waits_for() if asked is None else asked)


def discards(session: Session) -> tuple[Effect, ...]:
    """No spooled update of the round is needed any more."""
    return tuple(Discard(update.update, update.participant, session.round) for update in session.updates)


def _initialize(session: Session, asked: tuple[str, ...]) -> tuple[Effect, ...]:
    if session.updates:
        return tuple(Adopt(made.update, made.participant) for made in session.updates)
    return tuple(AskInitialModel(participant, session.plan.seed, session.deadline or 0.0) for participant in asked)


def _configure(session: Session, asked: tuple[str, ...]) -> tuple[Effect, ...]:
    number, attempt = session.round, session.attempt
    seeds = tuple(draw.training_seed(session.plan, number, participant, attempt) for participant in asked)
    return (Configure(number, session.model, asked, seeds, session.deadline or 0.0, attempt),)


def _aggregate(session: Session, asked: tuple[str, ...]) -> tuple[Effect, ...]:
    updates = tuple((update.participant, update.update, update.weight) for update in session.updates)
    return (Aggregate(session.round, session.model, updates),)


def _evaluate(session: Session, asked: tuple[str, ...]) -> tuple[Effect, ...]:
    return (AskEvaluation(session.round, session.model, asked, session.deadline or 0.0),)


def _finish(session: Session, asked: tuple[str, ...]) -> tuple[Effect, ...]:
    return (Finish(session.model),)


def _fail(session: Session, asked: tuple[str, ...]) -> tuple[Effect, ...]:
    return (Fail(session.reason),)


_ORDERS: dict[Phase, Callable[[Session, tuple[str, ...]], tuple[Effect, ...]]] = {
    Phase.INITIALIZATION: _initialize,
    Phase.REPORTING: _configure,
    Phase.AGGREGATION: _aggregate,
    Phase.EVALUATION: _evaluate,
    Phase.FINISHED: _finish,
    Phase.FAILED: _fail,
}
"""In the other phases nothing is to be done but wait."""
