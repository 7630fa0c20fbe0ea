"""After a restart: is everything here that the journal speaks of, and undamaged? Where a second copy helps, it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nevermined_fl import aggregation
from nevermined_fl.driver.keeper import rounds_made
from nevermined_fl.driver.outputs import published
from nevermined_fl.session import Phase, events
from nevermined_fl.session.plan import FROM_PARTICIPANT

if TYPE_CHECKING:
    from pathlib import Path

    from nevermined_fl.driver.store import Store
    from nevermined_fl.driver.uploads import Uploads
    from nevermined_fl.session import Plan, Session

__all__ = ["damages"]


def damages(session: Session, store: Store, uploads: Uploads, outputs: Path) -> list[events.Event]:
    """What is lost for good: the model or the server's state, or else updates that count. Ask again afterwards."""
    if session.phase is Phase.FAILED or (session.phase is Phase.FINISHED and published(session, outputs)):
        return []
    made = rounds_made(session)
    if session.model and not _is_made(session, made, store):
        return [events.RolledBack(made)]
    if session.phase is Phase.EVALUATION or session.is_over():
        return []  # what was folded needs no updates
    return [
        events.Lost(update.participant, session.round, update.update)
        for update in session.updates
        if not uploads.has(update.participant, session.round, update.update)  # those that are damaged were dropped
    ]


def _is_made(session: Session, made: int, store: Store) -> bool:
    if not store.heal(session.model):
        return (
            made == 0 and session.plan.initial_model != FROM_PARTICIPANT
        )  # that one was looked at when it was taken in
    return made == 0 or not _keeps_state(session.plan) or store.heal_state(made)


def _keeps_state(plan: Plan) -> bool:
    return plan.precision != "f32" or bool(aggregation.create(plan.strategy, dict(plan.strategy_options)).STATE)
