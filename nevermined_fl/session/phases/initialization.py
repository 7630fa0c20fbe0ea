"""Initialization: one participant makes the initial model, if the plan says so; the driver adopts it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from nevermined_fl.errors import LocalProtocolError
from nevermined_fl.session import answers, draw, moves, rounds, rows
from nevermined_fl.session.effects import Accept
from nevermined_fl.session.orders import discards, orders
from nevermined_fl.session.state import Phase

if TYPE_CHECKING:
    from nevermined_fl.session.events import Adopted, Left, Reported, Ticked
    from nevermined_fl.session.moves import Step
    from nevermined_fl.session.state import Session

__all__ = ["begin", "go_on", "on_adopted", "on_left", "on_reported", "on_ticked"]


def begin(session: Session, now: float) -> Step:
    """Ask the first in the order of the lots."""
    waiting = replace(session, phase=Phase.INITIALIZATION, round=0, attempt=0, target=1, model="", initial=None)
    return _ask_next(replace(waiting, cohort=(), asked=(), updates=(), evaluations=()), now)


def go_on(session: Session, now: float) -> Step:
    """Wait for the one who was asked, or ask another when it is gone."""
    return (session, ()) if session.updates or session.is_waiting() else _ask_next(session, now)


def on_reported(session: Session, event: Reported, now: float) -> Step:
    """The model is there: adopt it."""
    answers.judge_sender(session, event)
    accept = Accept(event.participant, event.round)
    if answers.repeats(session, event):
        return session, (accept,)
    answers.judge_initial(session, event)
    made = replace(session, updates=(answers.as_update(session, event),), deadline=None)
    return made, (accept, *orders(made))


def on_left(session: Session, event: Left, now: float) -> Step:
    """If it was the one that was asked, ask the next."""
    moved, effects = go_on(moves.forget(session, event), now)
    return moved, (Accept(event.participant, session.round), *effects)


def on_ticked(session: Session, event: Ticked, now: float) -> Step:
    """At the deadline ask the next."""
    return _ask_next(session, now) if session.is_due(now) else (session, ())


def on_adopted(session: Session, event: Adopted, now: float) -> Step:
    """The model is durable: the first round may begin."""
    if [made.update for made in session.updates] != [event.model]:
        raise LocalProtocolError(f"{event.model} was adopted and not ordered")
    (made,) = session.updates
    moved, effects = rounds.begin(replace(session, model=event.model, initial=made), 1, now)
    return moved, (*discards(session), *effects)


def _ask_next(session: Session, now: float) -> Step:
    chosen = draw.initializer(session.plan, session.present(), session.asked)
    if chosen is None:
        return moves.fail(session, f"none of {len(session.asked)} participants made the initial model")
    asked = rows.put_name(session.asked, chosen)
    deadline, turn = now + session.plan.round_timeout, session.turn + 1
    asking = replace(session, cohort=(chosen,), asked=asked, deadline=deadline, turn=turn)
    return asking, orders(asking)
