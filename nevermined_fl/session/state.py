"""What a session is at one moment: ids, digests, weights and deadlines, never tensors.

Tuples, never sets: equal inputs must give equal effects. Updates and evaluations are sorted by participant, so that the
order of arrival leaves no trace.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from nevermined_fl.errors import DecodeError, InvalidRequest
from nevermined_fl.session.plan import Plan

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["OVER", "Evaluation", "Member", "Metrics", "Phase", "Round", "Session", "Update"]

Metrics = tuple[tuple[str, float], ...]
"""Pairs of name and value, sorted by name."""


class Phase(StrEnum):
    """Named as in Bonawitz et al. 2019, arXiv:1902.01046."""

    SELECTION = "selection"
    CONFIGURATION = "configuration"
    REPORTING = "reporting"
    AGGREGATION = "aggregation"
    EVALUATION = "evaluation"
    FINISHED = "finished"
    FAILED = "failed"


OVER = (Phase.FINISHED, Phase.FAILED)


@dataclass(frozen=True, slots=True)
class Member:
    """Who joined, under which agreement; ``present`` until it leaves."""

    participant: str
    agreement: str
    present: bool = True


@dataclass(frozen=True, slots=True)
class Update:
    """One counted update; ``weight`` is its number of examples, capped by the plan."""

    participant: str
    update: str
    weight: int
    metrics: Metrics = ()


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One counted evaluation, weighted like an update."""

    participant: str
    weight: int
    metrics: Metrics = ()


@dataclass(frozen=True, slots=True)
class Round:
    """A committed round: the model it made, of what, and how good it is."""

    number: int
    model: str
    updates: tuple[Update, ...]
    evaluations: tuple[Evaluation, ...]
    metrics: Metrics


@dataclass(frozen=True, slots=True)
class Session:
    """One federated session.

    ``round`` counts from 1; 0 during selection. ``model`` is the newest durable one. ``cohort``, ``updates`` and
    ``evaluations`` belong to the current round, ``history`` has the committed ones. ``deadline`` (Unix seconds) is when
    the driver should say Ticked; None means never.
    """

    id: str
    plan: Plan
    phase: Phase
    model: str
    deadline: float | None
    round: int = 0
    members: tuple[Member, ...] = ()
    cohort: tuple[str, ...] = ()
    updates: tuple[Update, ...] = ()
    evaluations: tuple[Evaluation, ...] = ()
    history: tuple[Round, ...] = ()
    reason: str = ""

    def is_over(self) -> bool:
        """Whether it will not change any more."""
        return self.phase in OVER

    def member(self, participant: str) -> Member | None:
        """Whoever joined under that id, present or not."""
        return next((member for member in self.members if member.participant == participant), None)

    def present(self) -> tuple[str, ...]:
        """Members that joined and did not leave, sorted."""
        return tuple(member.participant for member in self.members if member.present)

    def waits_for(self) -> tuple[str, ...]:
        """Members of the cohort that are present and owe an answer in this phase."""
        if self.phase not in (Phase.REPORTING, Phase.EVALUATION):
            return ()
        answers = self.evaluations if self.phase is Phase.EVALUATION else self.updates
        answered = [answer.participant for answer in answers]
        return tuple(p for p in self.present() if p in self.cohort and p not in answered)

    def model_before(self, number: int) -> str:
        """The model that round ``number`` trains."""
        return self.history[number - 2].model if number > 1 else self.plan.initial_model

    def to_json(self) -> dict[str, Any]:
        """The whole session as JSON."""
        body = asdict(self)
        return body | {"plan": {"members": list(self.plan.members), "parameters": self.plan.to_parameters()}}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Session:
        """The session that ``to_json`` wrote. Raises DecodeError for anything else."""
        try:
            plan = Plan.from_parameters(body["plan"]["parameters"], tuple(body["plan"]["members"]))
            rest = {
                "phase": Phase(body["phase"]),
                "members": tuple(Member(**member) for member in body["members"]),
                "cohort": tuple(body["cohort"]),
                "updates": _answers(Update, body["updates"]),
                "evaluations": _answers(Evaluation, body["evaluations"]),
                "history": tuple(_round(number) for number in body["history"]),
            }
            return cls(**dict(body) | {"plan": plan} | rest)
        except (KeyError, TypeError, ValueError, InvalidRequest) as error:
            raise DecodeError("this is no session of ours") from error


def _answers(kind: Any, rows: list[dict[str, Any]]) -> Any:
    return tuple(kind(**row | {"metrics": _metrics(row["metrics"])}) for row in rows)


def _metrics(pairs: list[tuple[str, float]]) -> Metrics:
    return tuple((name, value) for name, value in pairs)


def _round(row: dict[str, Any]) -> Round:
    answers = {"updates": _answers(Update, row["updates"]), "evaluations": _answers(Evaluation, row["evaluations"])}
    return Round(**row | answers | {"metrics": _metrics(row["metrics"])})
