"""The story of a session in structured events, for the buyer: ids, numbers and declared metrics, never free text of peers.

A line of ``events.jsonl`` that came of a journalled event carries its number ``n``; after a crash the lines that are
missing are written from the journal, so that each stands there once.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from nevermined_fl.files import append_line
from nevermined_fl.session import Phase, effects, events

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from nevermined_fl.session import Session

__all__ = ["EventLog", "tell"]

_MAX_REJECTED = 1000
"""Refusals that are logged; a peer that knocks forever fills no disk."""

Line = dict[str, Any]


def tell(before: Session, event: events.Event, after: Session, ordered: Iterable[effects.Effect]) -> list[Line]:
    """What one step means, in the order in which it happened."""
    lines = []
    for effect in ordered:
        match effect:
            case effects.Accept() if before != after:
                lines.append(_accepted(event))
            case effects.Reject(participant, code, _):
                name = "update_rejected" if isinstance(event, events.Reported) else "rejected"
                lines.append({"event": name, "participant": participant, "code": code})
            case effects.Configure(number, _, cohort) if _begins(before, after):
                lines.append({"event": "round_started", "round": number, "participants": len(cohort)})
            case effects.Commit(number, model, metrics) if len(before.history) < len(after.history):
                count = len(after.history[-1].updates)
                lines.append({"event": "round_committed", "round": number, "model": model, "participants": count})
                lines.append({"event": "evaluated", "round": number, "metrics": dict(metrics)})
            case effects.Finish(model) if not before.is_over():
                lines.append({"event": "finished", "model": model})
            case effects.Fail(reason) if not before.is_over():
                lines.append({"event": "failed", "reason": reason})
    return [line for line in lines if line]


def _accepted(event: events.Event) -> Line:
    match event:
        case events.Joined(participant):
            return {"event": "joined", "participant": participant}
        case events.Left(participant):
            return {"event": "left", "participant": participant}
        case events.Reported(participant, number):
            return {"event": "update_accepted", "participant": participant, "round": number}
        case _:
            return {}


def _begins(before: Session, after: Session) -> bool:
    return (before.phase, before.round) != (Phase.REPORTING, after.round)


class EventLog:
    """``events.jsonl`` of one session, and whoever listens."""

    def __init__(self, path: Path, session: str, on_event: Callable[[Line], None] | None) -> None:
        self._path = path
        self._session = session
        self._on_event = on_event
        self._rejected = 0
        self._last = _last_number(path)

    def write(self, lines: list[Line], now: float, number: int | None = None) -> None:
        """Append the lines of one step in one piece, unless they are there already."""
        if not lines or (number is not None and number <= self._last):
            return
        if number is None:
            self._rejected += 1
            if self._rejected > _MAX_REJECTED:
                return
        mark = {} if number is None else {"n": number}
        whole = [{"time": round(now, 3), "session": self._session} | line | mark for line in lines]
        append_line(self._path, "\n".join(json.dumps(line, sort_keys=True) for line in whole))
        for line in whole:
            if self._on_event is not None:
                self._on_event(line)


def _last_number(path: Path) -> int:
    if not path.exists():
        return 0
    with path.open(encoding="utf-8") as file:
        return max((_number(line) for line in file), default=0)


def _number(line: str) -> int:
    try:
        number = json.loads(line).get("n", 0)
    except ValueError:
        return 0
    return int(number)
