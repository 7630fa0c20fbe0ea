"""Opening a session: anew, or as its journal has it. Replaying does nothing but remember."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nevermined_fl.driver import story
from nevermined_fl.errors import SettingsError
from nevermined_fl.session import events, start, step

if TYPE_CHECKING:
    from nevermined_fl.driver.story import EventLog
    from nevermined_fl.journal import Journal
    from nevermined_fl.session import Plan, Session

__all__ = ["Clock", "Opened", "open_session"]


class Clock:
    """Unix seconds: the machine's at the start, but none before the journal's last; they pass whatever it is set to."""

    def __init__(self) -> None:
        self._ahead = time.time() - time.monotonic()

    def __call__(self) -> float:
        """Now."""
        return self._ahead + time.monotonic()

    def not_before(self, now: float) -> None:
        """Time went on since then."""
        self._ahead = max(self._ahead, now - time.monotonic())


@dataclass(frozen=True, slots=True)
class Opened:
    """A session, whether an earlier process had begun it, and when it ended (0: it did not)."""

    session: Session
    resumed: bool
    ended: float


def open_session(plan: Plan, session_did: str, journal: Journal, log: EventLog, clock: Clock) -> Opened:
    """The session as the journal has it, and in it from now on. Lines of the log that a crash swallowed are written again.

    Raises:
        SettingsError: the journal is another session's.
        StorageFull: there is no room to begin.
    """
    opening: dict[str, Any] = {"type": "started", "session": session_did, "members": list(plan.members)}
    opening |= {"parameters": plan.to_parameters()}
    rows = journal.replay()
    first = next(rows, None)
    resumed = first is not None
    if first is None:
        began = clock()
        first = (journal.append(began, opening), began, opening)
    number, now, body = first
    if body != opening:
        raise SettingsError("the journal is of another session or plan")
    log.write([{"event": "selection_opened"}], now, number)
    session, _ = start(plan, session_did, now)
    ended = 0.0
    for number, now, body in rows:
        event = events.from_json(body)
        before, (session, ordered) = session, step(session, event, now)
        ended = now if session.is_over() and not before.is_over() else ended
        log.write(story.tell(before, event, session, ordered, changed=session != before), now, number)
    clock.not_before(now)
    return Opened(session, resumed, ended)
