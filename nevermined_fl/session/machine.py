"""The session state machine: one table and one pure function.

Rule 1: which event may happen in which phase is said in TRANSITIONS and nowhere else.
Rule 2: nothing below ``nevermined_fl.session`` does I/O, reads a clock or draws a random number.
Rule 3: a peer's mistake changes nothing and is answered with Reject; our own mistake raises LocalProtocolError.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from nevermined_fl.errors import LocalProtocolError, RemoteProtocolError
from nevermined_fl.session.answers import on_late
from nevermined_fl.session.effects import Discard, Effect, Reject
from nevermined_fl.session.events import (
    Adopted,
    Aggregated,
    Evaluated,
    Event,
    Joined,
    Left,
    Lost,
    PeerEvent,
    Reported,
    Restarted,
    RolledBack,
    Stopped,
    Ticked,
)
from nevermined_fl.session.moves import Step, on_ignored, on_joined, on_left, on_stopped
from nevermined_fl.session.phases import aggregation, configuration, evaluation, initialization, reporting, selection
from nevermined_fl.session.plan import FROM_PARTICIPANT
from nevermined_fl.session.repairs import on_lost, on_restarted, on_rolled_back
from nevermined_fl.session.state import Phase, Session

if TYPE_CHECKING:
    from nevermined_fl.session.plan import Plan

__all__ = ["TRANSITIONS", "replay", "start", "step"]

Handler = Callable[[Session, Any, float], Step]

TRANSITIONS: Mapping[Phase, Mapping[type[Event], Handler]] = {
    Phase.SELECTION: {
        Joined: selection.on_joined,
        Left: on_left,
        Ticked: selection.on_ticked,
        Stopped: on_stopped,
        Restarted: on_restarted,
    },
    Phase.INITIALIZATION: {
        Joined: on_joined,
        Left: initialization.on_left,
        Reported: initialization.on_reported,
        Adopted: initialization.on_adopted,
        Ticked: initialization.on_ticked,
        Stopped: on_stopped,
        Restarted: on_restarted,
        Lost: on_lost,
    },
    Phase.CONFIGURATION: {
        Joined: configuration.on_joined,
        Left: on_left,
        Reported: reporting.on_reported,
        Evaluated: on_late,
        Ticked: configuration.on_ticked,
        Stopped: on_stopped,
        Restarted: on_restarted,
        Lost: on_lost,
        RolledBack: on_rolled_back,
    },
    Phase.REPORTING: {
        Joined: on_joined,
        Left: reporting.on_left,
        Reported: reporting.on_reported,
        Evaluated: on_late,
        Ticked: reporting.on_ticked,
        Stopped: on_stopped,
        Restarted: on_restarted,
        Lost: on_lost,
        RolledBack: on_rolled_back,
    },
    Phase.AGGREGATION: {
        Joined: on_joined,
        Left: on_left,
        Reported: on_late,
        Evaluated: on_late,
        Aggregated: aggregation.on_aggregated,
        Ticked: on_ignored,
        Stopped: on_stopped,
        Restarted: on_restarted,
        Lost: on_lost,
        RolledBack: on_rolled_back,
    },
    Phase.EVALUATION: {
        Joined: on_joined,
        Left: evaluation.on_left,
        Reported: on_late,
        Evaluated: evaluation.on_evaluated,
        Ticked: evaluation.on_ticked,
        Stopped: on_stopped,
        Restarted: on_restarted,
        Lost: on_ignored,
        RolledBack: on_rolled_back,
    },
    Phase.FINISHED: {Restarted: on_restarted, RolledBack: on_rolled_back},
    Phase.FAILED: {Restarted: on_restarted},
}


def start(plan: Plan, session_did: str, now: float) -> Step:
    """A new session: its selection is open."""
    model = "" if plan.initial_model == FROM_PARTICIPANT else plan.initial_model
    return Session(session_did, plan, Phase.SELECTION, model, now + plan.selection_timeout), ()


def step(session: Session, event: Event, now: float) -> Step:
    """Return the session after ``event`` and what the driver must do about it.

    A peer's event is answered by exactly one Accept or Reject; a rejected one leaves the session as it was.

    Raises:
        LocalProtocolError: our driver said what cannot have happened.
    """
    handler = TRANSITIONS[session.phase].get(type(event), _out_of_turn)
    try:
        return handler(session, event, now)
    except RemoteProtocolError as error:
        return session, _refusal(session, event, error)


def replay(plan: Plan, session_did: str, started: float, log: Iterable[tuple[float, Event]]) -> Session:
    """The session after all of ``log``, pairs of (now, event): what a journal is for."""
    session, _ = start(plan, session_did, started)
    for now, event in log:
        session, _ = step(session, event, now)
    return session


def _out_of_turn(session: Session, event: Event, now: float) -> Step:
    if isinstance(event, PeerEvent):
        code = "over" if session.is_over() else "wrong_phase"
        raise RemoteProtocolError(f"{type(event).__name__} has no place in {session.phase}", code=code)
    if session.is_over():
        return session, ()  # the end overtook the driver's work or clock
    raise LocalProtocolError(f"{type(event).__name__} has no place in {session.phase}, round {session.round}")


def _refusal(session: Session, event: Any, error: RemoteProtocolError) -> tuple[Effect, ...]:
    reject = Reject(event.participant, error.code, error.message)
    if not isinstance(event, Reported) or event.update in [update.update for update in session.updates]:
        return (reject,)
    return reject, Discard(event.update, event.participant, event.round)
