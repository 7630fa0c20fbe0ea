"""Does an answer count? Reports and evaluations, judged against the plan; the same one again changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nevermined_fl.errors import RemoteProtocolError
from nevermined_fl.session.effects import Accept
from nevermined_fl.session.events import Reported
from nevermined_fl.session.state import Evaluation, Update

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nevermined_fl.session.events import Evaluated, Left
    from nevermined_fl.session.moves import Step
    from nevermined_fl.session.state import Metrics, Session

__all__ = ["as_evaluation", "as_update", "judge", "judge_sender", "on_late", "repeats"]


def judge_sender(session: Session, event: Left | Reported | Evaluated) -> None:
    """Only who joined and did not leave has a say."""
    if event.participant not in session.present():
        raise RemoteProtocolError(f"{event.participant} has not joined", code="not_joined")


def judge(session: Session, event: Reported | Evaluated) -> None:
    """Refuse an answer that must not count in this round."""
    if event.round != session.round:
        raise RemoteProtocolError(f"round {event.round} is not the current round {session.round}", code="stale_round")
    if event.participant not in session.cohort:
        raise RemoteProtocolError(
            f"{event.participant} is not in the cohort of round {event.round}", code="not_in_cohort"
        )
    if event.model != session.model:
        raise RemoteProtocolError(
            f"round {event.round} is about model {session.model}, not {event.model}", code="other_model"
        )


def repeats(session: Session, event: Reported | Evaluated) -> bool:
    """Whether exactly this answer was counted before, in this round or an earlier one.

    Raises:
        RemoteProtocolError: another answer of this participant was counted.
    """
    counted = [answer for answer in _counted(session, event) if answer.participant == event.participant]
    if not counted:
        return False
    again = as_update(session, event) if isinstance(event, Reported) else as_evaluation(session, event)
    if counted != [again] or event.model != _model(session, event):
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
    if 1 <= event.round <= len(session.history):
        committed = session.history[event.round - 1]
        return committed.updates if isinstance(event, Reported) else committed.evaluations
    if event.round != session.round:
        return ()
    return session.updates if isinstance(event, Reported) else session.evaluations


def _model(session: Session, event: Reported | Evaluated) -> str:
    """The model that an answer of that round is about: a report's is the one before, an evaluation's the one after."""
    if isinstance(event, Reported):
        return session.model_before(event.round)
    return session.history[event.round - 1].model if event.round <= len(session.history) else session.model
