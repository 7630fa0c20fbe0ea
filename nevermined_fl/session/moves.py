"""Moves that several phases share: who comes and goes, and how a session fails."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from nevermined_fl.errors import RemoteProtocolError
from nevermined_fl.session import rows
from nevermined_fl.session.answers import judge_sender
from nevermined_fl.session.effects import Accept, Effect
from nevermined_fl.session.orders import discards, orders
from nevermined_fl.session.state import Member, Phase, Session
from nevermined_fl.session.wording import shown

if TYPE_CHECKING:
    from nevermined_fl.session.events import Event, Joined, Left, Stopped

__all__ = ["Step", "enrol", "fail", "forget", "on_ignored", "on_joined", "on_left", "on_stopped"]

Step = tuple[Session, tuple[Effect, ...]]


def enrol(session: Session, event: Joined) -> Session:
    """Add the participant, or note that it is back. One participant per agreement, one agreement per participant."""
    if event.participant not in session.plan.members:
        raise RemoteProtocolError(f"{shown(event.participant)} is not in the session's plan", code="not_a_member")
    for member in session.members:
        if (member.participant == event.participant) != (member.agreement == event.agreement):
            bound = f"agreement {shown(member.agreement)} is {member.participant}'s"
            text = f"{bound}; {event.participant} came with {shown(event.agreement)}"
            raise RemoteProtocolError(text, code="other_agreement")
    return replace(session, members=rows.put(session.members, Member(event.participant, event.agreement)))


def forget(session: Session, event: Left) -> Session:
    """Do not wait for the participant any more; what it reported still counts."""
    member = replace(judge_sender(session, event), present=False)
    return replace(session, members=rows.put(session.members, member))


def fail(session: Session, reason: str) -> Step:
    """End without a model."""
    failed = replace(session, phase=Phase.FAILED, reason=reason, deadline=None)
    return failed, (*discards(session), *orders(failed))


def on_joined(session: Session, event: Joined, now: float) -> Step:
    """Take it in; if it owes an answer in this phase, ask it again."""
    joined = enrol(session, event)
    again = orders(joined, (event.participant,)) if joined.owes(event.participant) else ()
    return joined, (Accept(event.participant, session.round), *again)


def on_left(session: Session, event: Left, now: float) -> Step:
    """Note that it is gone; nothing follows from it in this phase."""
    return forget(session, event), (Accept(event.participant, session.round),)


def on_stopped(session: Session, event: Stopped, now: float) -> Step:
    """Fail for that reason."""
    return fail(session, event.reason)


def on_ignored(session: Session, event: Event, now: float) -> Step:
    """Nothing follows from it in this phase."""
    return session, ()
