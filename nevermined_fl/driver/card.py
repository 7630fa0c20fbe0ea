"""What is said of a finished model: ``result.json`` for the launcher, ``card.json`` for whoever gets the model."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np

from nevermined_fl.messages import VERSION
from nevermined_fl.session import Phase, ledger

if TYPE_CHECKING:
    from nevermined_fl.session import Session
    from nevermined_fl.session.state import Round

__all__ = ["card", "result", "stopped_early"]


def result(session: Session, model: str = "", checkpoints: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """``result.json``; ``model`` is the digest of the published one."""
    finished = session.phase is Phase.FINISHED
    return {
        "session": session.id,
        "outcome": "finished" if finished else "failed",
        "reason": session.reason,
        "model": model if finished else "",
        "rounds": len(session.history),
        "stopped_early": stopped_early(session),
        "checkpoints": checkpoints or [],
        "checkpoints_lost": _lost(session, checkpoints or []),
        "contributors": _contributors(session) if finished else [],
        "history": [
            {"round": done.number, "metrics": dict(done.metrics), "participants": len(done.updates)}
            for done in session.history
        ],
    }


def card(session: Session, model: str, checkpoints: list[dict[str, Any]]) -> dict[str, Any]:
    """``card.json``: where the model comes from, in a form that a replay can be held against."""
    return {
        "session": session.id,
        "model": model,
        "initialModel": session.model_before(1),
        "plan": {"members": list(session.plan.members), "parameters": session.plan.to_parameters()},
        "metrics": dict(session.history[-1].metrics) if session.history else {},
        "rounds": [_round(done) for done in session.history],
        "stoppedEarly": stopped_early(session),
        "checkpoints": checkpoints,
        "contributors": _contributors(session),
        "versions": {
            "nevermined-fl": _version("nevermined-fl"),
            "protocol": VERSION,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }


def stopped_early(session: Session) -> dict[str, Any] | None:
    """Why a session finished before its last round: the metric, its value, and ``target`` or ``tolerance``."""
    stop = session.plan.early_stop
    if session.phase is not Phase.FINISHED or stop is None or len(session.history) >= session.plan.rounds:
        return None
    value = dict(session.history[-1].metrics)[stop.metric]
    better = 1 if stop.goal == "max" else -1
    reached = stop.target is not None and better * value >= better * stop.target
    why = "target" if reached else "tolerance"
    return {"round": len(session.history), "metric": stop.metric, "value": value, "code": why}


def _lost(session: Session, checkpoints: list[dict[str, Any]]) -> list[int]:
    """Rounds whose checkpoints were damaged when their models were gone."""
    every, there = session.plan.checkpoint_every, {row["round"] for row in checkpoints}
    return [done.number for done in session.history if every and done.number % every == 0 and done.number not in there]


def _contributors(session: Session) -> list[dict[str, Any]]:
    return [
        {"participant": c.participant, "agreement": c.agreement, "rounds": list(c.rounds), "examples": c.examples}
        for c in ledger.contributions(session)
    ]


def _round(done: Round) -> dict[str, Any]:
    updates = [{"participant": u.participant, "update": u.update, "weight": u.weight} for u in done.updates]
    row = {"round": done.number, "model": done.model, "metrics": dict(done.metrics), "updates": updates}
    # The seeds of a round that was begun again are its last attempt's: a replay needs to know which that was.
    return row | ({"attempt": done.attempt} if done.attempt else {})


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"
