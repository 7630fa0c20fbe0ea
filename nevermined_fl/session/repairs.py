"""After a restart: what was ordered may not have been done, and what was durable may be gone."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from nevermined_fl.errors import LocalProtocolError
from nevermined_fl.session import rounds, rows
from nevermined_fl.session.effects import Commit, Discard, Effect
from nevermined_fl.session.orders import discards, orders
from nevermined_fl.session.phases import initialization
from nevermined_fl.session.plan import FROM_PARTICIPANT
from nevermined_fl.session.state import Phase

if TYPE_CHECKING:
    from nevermined_fl.session.events import Lost, Restarted, RolledBack
    from nevermined_fl.session.moves import Step
    from nevermined_fl.session.state import Session

__all__ = ["on_lost", "on_restarted", "on_rolled_back"]


def on_restarted(session: Session, event: Restarted, now: float) -> Step:
    """Order again what may not have been done, and let the phase's clock start anew: nobody pays for our absence."""
    done: list[Effect] = []
    if session.initial is not None:
        done += [Discard(session.initial.update, session.initial.participant, 0)]
    if session.history:
        last = session.history[-1]
        done += [Discard(update.update, update.participant, last.number) for update in last.updates]
        done += [Commit(last.number, last.model, dict(last.metrics))]
    if session.phase in (Phase.EVALUATION, Phase.FAILED):
        done += discards(session)
    if session.deadline is not None:
        session = replace(session, deadline=now + _seconds(session))
    return session, (*done, *orders(session))


def on_lost(session: Session, event: Lost, now: float) -> Step:
    """An update that counts is not there: ask for it again, in a turn of its own. One that counts no more is no loss."""
    counted = rows.find(session.updates, event.participant)
    if event.round != session.round or counted is None or counted.update != event.update:
        return session, ()
    gone = Discard(event.update, event.participant, event.round)
    left = replace(session, updates=rows.take(session.updates, event.participant))
    if session.phase is Phase.CONFIGURATION:
        return left, (gone,)
    waiting = replace(left, deadline=now + session.plan.round_timeout)
    if session.phase is Phase.INITIALIZATION:
        moved, effects = initialization.go_on(waiting, now)
    else:
        moved, effects = rounds.close_if_complete(replace(waiting, phase=Phase.REPORTING))
    if not effects and moved.is_waiting():
        moved = replace(moved, turn=moved.turn + 1)
        effects = orders(moved)
    return moved, (gone, *effects)


def on_rolled_back(session: Session, event: RolledBack, now: float) -> Step:
    """A model is not there: go back to the round that makes it."""
    made = session.round if session.phase is Phase.EVALUATION else len(session.history)
    first = 0 if session.plan.initial_model == FROM_PARTICIPANT else 1
    if not first <= event.round <= made:
        raise LocalProtocolError(f"round {event.round} made no model that could be lost in round {session.round}")
    back = replace(session, history=session.history[: max(0, event.round - 1)], updates=())
    if event.round == 0:
        moved, effects = initialization.begin(back, now)
    else:
        moved, effects = rounds.begin(replace(back, model=back.model_before(event.round)), event.round, now)
    return moved, (*discards(session), *effects)


def _seconds(session: Session) -> float:
    plan = session.plan
    if session.phase is Phase.SELECTION:
        return plan.selection_timeout
    return plan.evaluation_seconds() if session.phase is Phase.EVALUATION else plan.round_timeout
