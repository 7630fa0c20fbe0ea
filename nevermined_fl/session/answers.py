"""Does an answer count? Reports and evaluations, judged against the plan; the same one again changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nevermined_fl.errors import RemoteProtocolError
from nevermined_fl.session import rows
from nevermined_fl.session.effects import Accept
from nevermined_fl.session.events import Reported
from nevermined_fl.session.plan import FROM_PARTICIPANT
from nevermined_fl.session.state import Evaluation, Member, Update
from nevermined_fl.session.wording import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nevermined_fl.session.events import Evaluated, Left
    from nevermined_fl.session.moves import Step
    from nevermined_fl.session.state import Metrics, Session

__all__ = [
    "as_evaluation",
    "as_update",
    "judge_evaluation",
    "judge_initial",
    "judge_sender",
    "judge_update",
    "on_late",
    "repeats",
]


def judge_sender(session: Session, event: Left | Reported | Evaluated) -> Member:
    """Only who joined and did not leave has a say."""
    member = session.member(event.participant)
    if member is None or not member.present:
        raise RemoteProtocolError(f"{shown(event.participant)} has not joined", code="not_joined")
    return member


def judge_update(session: Session, event: Reported) -> None:
    """Refuse an update that must not count in this round."""
    _judge_round(session, event)
    _judge_attempt(session, event)
    if not rows.has(session.cohort, event.participant) and not session.may_be_late(event.participant):
        _refuse_outsider(session, event)
    _judge_model(event, session.model)


def judge_initial(session: Session, event: Reported) -> None:
    """Refuse an initial model that nobody asked for, or a report that names two."""
    _judge_round(session, event)
    if not session.owes(event.participant):
        _refuse_outsider(session, event)
    _judge_model(event, event.update)


def judge_evaluation(session: Session, event: Evaluated) -> None:
    """Refuse an evaluation that must not count in this round."""
    _judge_round(session, event)
    if not rows.has(session.cohort, event.participant):
        _refuse_outsider(session, event)
    _judge_model(event, session.model)


def repeats(session: Session, event: Reported | Evaluated) -> bool:
    """Whether exactly this answer was counted before, in this round or an earlier one.

    Raises:
        RemoteProtocolError: another answer of this participant was counted.
    """
    counted = rows.find(_counted(session, event), event.participant)
    if counted is None:
        return False
    again = as_update(session, event) if isinstance(event, Reported) else as_evaluation(session, event)
    if counted != again or event.model != _model(session, event):
        raise RemoteProtocolError(f"another answer for round {event.round} counts already", code="other_answer")
    return True


def on_late(session: Session, event: Reported | Evaluated, now: float) -> Step:
    """Out of its phase only the repeat of a counted answer is welcome: its sender never heard the verdict."""
    judge_sender(session, event)
    if not repeats(session, event):
        raise RemoteProtocolError(f"round {session.round} is in {session.phase}; this came too late", code="late")
    return session, (Accept(event.participant, event.round),)


def as_update(session: Session, event: Reported) -> Update:
    """The update as it counts: weight capped, metrics judged."""
    return Update(event.participant, event.update, _weight(session, event), _metrics(session, event.metrics))


def as_evaluation(session: Session, event: Evaluated) -> Evaluation:
    """The evaluation as it counts: weight capped, metrics judged."""
    return Evaluation(event.participant, _weight(session, event), _metrics(session, event.metrics))


def _judge_round(session: Session, event: Reported | Evaluated) -> None:
    first = 0 if session.plan.initial_model == FROM_PARTICIPANT else 1
    if first <= event.round < session.round:
        raise RemoteProtocolError(f"round {event.round} is over; this is round {session.round}", code="late")
    if event.round != session.round:
        raise RemoteProtocolError(f"round {event.round} is not the current round {session.round}", code="stale_round")


def _judge_attempt(session: Session, event: Reported) -> None:
    if event.attempt > session.attempt:
        text = f"attempt {event.attempt} of round {event.round} is not the current attempt {session.attempt}"
        raise RemoteProtocolError(text, code="stale_round")
    if event.attempt < session.attempt and session.plan.late_updates == "drop":
        text = f"round {event.round} was begun again: what was trained for attempt {event.attempt} is dropped"
        raise RemoteProtocolError(text, code="late")


def _refuse_outsider(session: Session, event: Reported | Evaluated) -> None:
    if rows.has(session.asked, event.participant):
        raise RemoteProtocolError(f"others are asked in round {event.round} now; this came too late", code="late")
    text = f"{event.participant} is not in the cohort of round {event.round}"
    raise RemoteProtocolError(text, code="not_in_cohort")


def _judge_model(event: Reported | Evaluated, model: str) -> None:
    if event.model != model:
        text = f"round {event.round} is about model {model}, not {shown(event.model)}"
        raise RemoteProtocolError(text, code="other_model")


def _weight(session: Session, event: Reported | Evaluated) -> int:
    if event.examples < 1:
        raise RemoteProtocolError(f"{event.examples} examples; at least 1 is needed", code="bad_weight")
    return min(event.examples, session.plan.max_weight)


def _metrics(session: Session, came: Mapping[str, float]) -> Metrics:
    declared = {metric.name: metric for metric in session.plan.metrics}
    kept = []
    for name, value in sorted(came.items()):
        if (metric := declared.get(name)) is None:
            raise RemoteProtocolError(f"metric {name[:80]!r} is not in the plan", code="bad_metric")
        if not metric.low <= value <= metric.high:  # refuses NaN too
            raise RemoteProtocolError(f"{name} should be {metric.low:g} to {metric.high:g}", code="bad_metric")
        kept.append((name, round(float(value), metric.digits)))
    return tuple(kept)


def _counted(session: Session, event: Reported | Evaluated) -> tuple[Update, ...] | tuple[Evaluation, ...]:
    if event.round == 0 and session.initial is not None and isinstance(event, Reported):
        return (session.initial,)
    if 1 <= event.round <= len(session.history):
        committed = session.history[event.round - 1]
        return committed.updates if isinstance(event, Reported) else committed.evaluations
    if event.round != session.round:
        return ()
    return session.updates if isinstance(event, Reported) else session.evaluations


def _model(session: Session, event: Reported | Evaluated) -> str:
    """The model that an answer of that round is about: a report's is the one before, an evaluation's the one after."""
    if isinstance(event, Reported):
        return session.model_before(event.round) if event.round else event.update
    return session.history[event.round - 1].model if event.round <= len(session.history) else session.model
