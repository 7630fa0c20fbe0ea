"""What a session leaves in its outputs folder: the model, its card, and the result that says it is over.

Rule 1: ``result.json`` is written last; whoever sees it finds the rest complete. Rule 2: writing again gives the same.
"""

from __future__ import annotations

import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np

from nevermined_fl.files import write_json
from nevermined_fl.messages import VERSION
from nevermined_fl.session import Phase, ledger

if TYPE_CHECKING:
    from pathlib import Path

    from nevermined_fl.session import Session
    from nevermined_fl.session.state import Round

__all__ = ["card", "result", "write"]


def write(session: Session, model: Path | None, folder: Path) -> None:
    """Write the outputs of a session that is over; ``model`` is the finished one's."""
    folder.mkdir(parents=True, exist_ok=True)
    if model is not None:
        part = folder / ".model.part"
        shutil.copyfile(model, part)
        part.replace(folder / "model.safetensors")
        write_json(folder / "card.json", card(session))
    write_json(folder / "result.json", result(session))


def result(session: Session) -> dict[str, Any]:
    """``result.json``."""
    finished = session.phase is Phase.FINISHED
    return {
        "session": session.id,
        "outcome": "finished" if finished else "failed",
        "reason": session.reason,
        "model": session.model if finished else "",
        "rounds": len(session.history),
        "contributors": _contributors(session) if finished else [],
        "history": [
            {"round": done.number, "metrics": dict(done.metrics), "participants": len(done.updates)}
            for done in session.history
        ],
    }


def card(session: Session) -> dict[str, Any]:
    """``card.json``: where the model comes from, in a form that a replay can be held against."""
    return {
        "session": session.id,
        "model": session.model,
        "initialModel": session.plan.initial_model,
        "plan": {"members": list(session.plan.members), "parameters": session.plan.to_parameters()},
        "metrics": dict(session.history[-1].metrics) if session.history else {},
        "rounds": [_round(done) for done in session.history],
        "contributors": _contributors(session),
        "versions": {
            "nevermined-fl": _version("nevermined-fl"),
            "protocol": VERSION,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }


def _contributors(session: Session) -> list[dict[str, Any]]:
    return [
        {"participant": c.participant, "agreement": c.agreement, "rounds": list(c.rounds), "examples": c.examples}
        for c in ledger.contributions(session)
    ]


def _round(done: Round) -> dict[str, Any]:
    updates = [{"participant": u.participant, "update": u.update, "weight": u.weight} for u in done.updates]
    return {"round": done.number, "model": done.model, "metrics": dict(done.metrics), "updates": updates}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"
