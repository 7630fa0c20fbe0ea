"""A whole session as JSON and back, for whoever wants to look at one; what is durable is the journal's events."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from nevermined_fl.errors import DecodeError, InvalidRequest
from nevermined_fl.session.plan import Plan
from nevermined_fl.session.state import Evaluation, Member, Metrics, Phase, Round, Session, Update

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["from_json", "to_json"]


def to_json(session: Session) -> dict[str, Any]:
    """The session and its plan."""
    plan = {"members": list(session.plan.members), "parameters": session.plan.to_parameters()}
    return asdict(session) | {"plan": plan}


def from_json(body: Mapping[str, Any]) -> Session:
    """The session that ``to_json`` wrote. Raises DecodeError for anything else."""
    try:
        rest = {
            "plan": Plan.from_parameters(body["plan"]["parameters"], tuple(body["plan"]["members"])),
            "phase": Phase(body["phase"]),
            "members": tuple(Member(**member) for member in body["members"]),
            "cohort": tuple(body["cohort"]),
            "asked": tuple(body["asked"]),
            "updates": _answers(Update, body["updates"]),
            "evaluations": _answers(Evaluation, body["evaluations"]),
            "history": tuple(_round(number) for number in body["history"]),
            "initial": None if body["initial"] is None else _answers(Update, [body["initial"]])[0],
        }
        return Session(**dict(body) | rest)
    except (KeyError, TypeError, ValueError, InvalidRequest) as error:
        raise DecodeError("this is no session of ours") from error


def _answers(kind: Any, found: list[dict[str, Any]]) -> Any:
    return tuple(kind(**row | {"metrics": _metrics(row["metrics"])}) for row in found)


def _metrics(pairs: list[tuple[str, float]]) -> Metrics:
    return tuple((name, value) for name, value in pairs)


def _round(row: dict[str, Any]) -> Round:
    answers = {"updates": _answers(Update, row["updates"]), "evaluations": _answers(Evaluation, row["evaluations"])}
    return Round(**row | answers | {"metrics": _metrics(row["metrics"])})
