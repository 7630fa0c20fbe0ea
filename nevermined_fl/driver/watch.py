"""Who is late, and why? What the service sees of each participant, for the status; it decides nothing and is not kept."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nevermined_fl.session import Phase

if TYPE_CHECKING:
    from nevermined_fl.ports import UpdateSink
    from nevermined_fl.session import Session

__all__ = ["Watch"]

_SILENT = 30.0
"""Seconds without a word of somebody who has not fetched his task: a long poll comes back sooner."""


@dataclass(slots=True)
class _Seen:
    """One participant, as of the turn in which it took its task."""

    heard: float = field(default_factory=time.monotonic)
    turn: int = 0
    fetching: bool = False
    sink: UpdateSink | None = None
    size: int = 0
    refused: tuple[int, str] = (0, "")


class Watch:
    """Told by the service, asked for the status. Only numbers, ids and codes of ours: never a peer's words."""

    def __init__(self) -> None:
        self._seen: dict[str, _Seen] = {}

    def heard(self, participant: str) -> _Seen:
        """It asked for something, whatever it was."""
        seen = self._seen.get(participant)
        if seen is None:
            seen = self._seen[participant] = _Seen()
        seen.heard = time.monotonic()
        return seen

    def asked(self, participant: str, turn: int) -> None:
        """It took its task."""
        seen = self.heard(participant)
        if seen.turn != turn:
            seen.turn, seen.fetching, seen.sink = turn, False, None

    def fetches(self, participant: str, *, begun: bool) -> None:
        """A model goes out to it, or went."""
        self.heard(participant).fetching = begun

    def uploads(self, participant: str, sink: UpdateSink, size: int) -> None:
        """It sends an update of ``size`` bytes into ``sink``."""
        seen = self.heard(participant)
        seen.fetching, seen.sink, seen.size = False, sink, size
        seen.refused = (0, "")  # it tries again

    def refused(self, participant: str, turn: int, code: str) -> None:
        """Its answer did not count."""
        self.heard(participant).refused = (turn, code)

    def members(self, session: Session) -> list[dict[str, Any]]:
        """A row for each member that the phase is about, sorted: its state, and numbers that say more."""
        now = time.monotonic()
        whom = session.cohort or session.plan.members
        return [{"participant": name} | self._row(session, name, now) for name in sorted(whom)]

    def _row(self, session: Session, name: str, now: float) -> dict[str, Any]:
        member, seen = session.member(name), self._seen.get(name)
        if member is None:
            return {"state": "absent"}
        if not member.present:
            row: dict[str, Any] = {"state": "left"}
        elif not session.owes(name):
            row = {"state": "reported" if session.cohort else "waiting"}
        elif seen is None:
            row = {"state": "silent"}  # not a word since the coordinator came back
        elif seen.refused[0] == session.turn:
            row = {"state": "refused", "code": seen.refused[1]}
        elif seen.turn == session.turn:
            row = self._at_work(session, seen)
        else:
            row = {"state": "silent" if now - seen.heard > _SILENT else "waiting"}
        return row if seen is None else row | {"seconds": round(now - seen.heard, 1)}

    def _at_work(self, session: Session, seen: _Seen) -> dict[str, Any]:
        if seen.sink is not None:
            return {"state": "uploading", "bytes": seen.sink.offset, "total": seen.size}
        if seen.fetching:
            return {"state": "fetching"}
        return {"state": "evaluating" if session.phase is Phase.EVALUATION else "training"}
