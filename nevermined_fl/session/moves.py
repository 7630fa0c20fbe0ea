"""Moves that several phases share: who comes and goes, how a round begins, what a phase orders.

Rule: what a phase orders when it begins is written in ``orders`` alone, so that it can be ordered again.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from nevermined_fl.errors import RemoteProtocolError
from nevermined_fl.session import draw
from nevermined_fl.session.answers import judge_sender
from nevermined_fl.session.effects import (
    Accept,
    Aggregate,
    AskEvaluation,
    Commit,
    Configure,
    Discard,
    Effect,
    Fail,
    Finish,
)
from nevermined_fl.session.state import Member, Phase, Session

if TYPE_CHECKING:
    from nevermined_fl.session.events import Joined, Left, Restarted, Stopped, Ticked

__all__ = [
    "Step",
    "configure",
    "discards",
    "enrol",
    "fail",
    "forget",
    "on_joined",
    "on_left",
    "on_restarted",
    "on_stopped",
    "on_tick_ignored",
    "orders",
    "start_round",
]

Step = tuple[Session, tuple[Effect, ...]]


def orders(session: Session, asked: tuple[str, ...] | None = None) -> tuple[Effect, ...]:
    """What the phase needs done, of ``asked`` or of everybody who owes an answer."""
    asked = session.waits_for() if asked is None else asked
    deadline = session.deadline or 0.0
    match session.phase:
        case Phase.REPORTING:
            seeds = tuple(draw.training_seed(session.plan, session.round, participant) for participant in asked)
            return (Configure(session.round, session.model, asked, seeds, deadline),)
        case Phase.AGGREGATION:
            updates = tuple((update.participant, update.update, update.weight) for update in session.updates)
            return (Aggregate(session.round, session.model, updates),)
        case Phase.EVALUATION:
            return (AskEvaluation(session.round, session.model, asked, deadline),)
        case Phase.FINISHED:
            return (Finish(session.model),)
        case Phase.FAILED:
            return (Fail(session.reason),)
        case _:
            return ()


def start_round(session: Session, number: int, now: float) -> Step:
    """Begin a round as soon as enough members are there. Waiting for them and training share one deadline."""
    deadline = now + session.plan.round_timeout
    waiting = replace(session, phase=Phase.CONFIGURATION, round=number, deadline=deadline)
    return configure(replace(waiting, cohort=(), updates=(), evaluations=()))


def configure(session: Session) -> Step:
    """Draw a cohort and let it train, if enough members are present."""
    present = session.present()
    if len(present) < session.plan.min_participants:
        return session, ()
    cohort = draw.cohort(session.plan, session.round, present)
    training = replace(session, phase=Phase.REPORTING, cohort=cohort)
    return training, orders(training)


def fail(session: Session, reason: str) -> Step:
    """End without a model."""
    failed = replace(session, phase=Phase.FAILED, reason=reason, deadline=None)
    return failed, (*discards(session), *orders(failed))


def discards(session: Session) -> tuple[Effect, ...]:
    """No spooled update of the round is needed any more."""
    return tuple(Discard(update.update, update.participant, session.round) for update in session.updates)


def enrol(session: Session, event: Joined) -> Session:
    """Add the participant, or note that it is back. One participant per agreement, one agreement per participant."""
    if event.participant not in session.plan.members:
        raise RemoteProtocolError(f"{event.participant} is not in the session's plan", code="not_a_member")
    for member in session.members:
        if (member.participant == event.participant) != (member.agreement == event.agreement):
            bound = f"agreement {member.agreement} is {member.participant}'s"
            raise RemoteProtocolError(
                f"{bound}; {event.participant} came with {event.agreement}", code="other_agreement"
            )
    others = [member for member in session.members if member.participant != event.participant]
    members = [*others, Member(event.participant, event.agreement)]
    return replace(session, members=tuple(sorted(members, key=lambda member: member.participant)))


def forget(session: Session, event: Left) -> Session:
    """Do not wait for the participant any more; what it reported still counts."""
    judge_sender(session, event)
    return replace(
        session,
        members=tuple(
            replace(member, present=member.present and member.participant != event.participant)
            for member in session.members
        ),
    )


def on_joined(session: Session, event: Joined, now: float) -> Step:
    """Take it in; if it owes an answer in this phase, ask it again."""
    joined = enrol(session, event)
    owes = event.participant in joined.waits_for()
    again = orders(joined, (event.participant,)) if owes else ()
    return joined, (Accept(event.participant, session.round), *again)


def on_left(session: Session, event: Left, now: float) -> Step:
    """Note that it is gone; nothing follows from it in this phase."""
    return forget(session, event), (Accept(event.participant, session.round),)


def on_stopped(session: Session, event: Stopped, now: float) -> Step:
    """Fail for that reason."""
    return fail(session, event.reason)


def on_restarted(session: Session, event: Restarted, now: float) -> Step:
    """Order again what may not have been done, and let the phase's clock start anew: nobody pays for our absence."""
    done: list[Effect] = []
    if session.history:
        last = session.history[-1]
        done += [Discard(update.update, update.participant, last.number) for update in last.updates]
        done += [Commit(last.number, last.model, dict(last.metrics))]
    if session.phase in (Phase.EVALUATION, Phase.FAILED):
        done += discards(session)
    if session.deadline is not None:
        timeout = session.plan.selection_timeout if session.phase is Phase.SELECTION else session.plan.round_timeout
        session = replace(session, deadline=now + timeout)
    return session, (*done, *orders(session))


def on_tick_ignored(session: Session, event: Ticked, now: float) -> Step:
    """Nothing is due: the driver's clock and its work crossed."""
    return session, ()
