"""The story of a session in structured events, for the buyer: ids, numbers and declared metrics, never free text of peers.

A line of ``events.jsonl`` that came of a journalled event carries its number ``n``; after a crash the lines that are
missing are written from the journal, so that each stands there once.
"""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from typing import TYPE_CHECKING, Any

from nevermined_fl.driver.card import stopped_early
from nevermined_fl.errors import StorageFull
from nevermined_fl.files import storage
from nevermined_fl.session import Phase, effects, events

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from nevermined_fl.session import Session

__all__ = ["EventLog", "tell"]

logger = logging.getLogger(__name__)

_encode = json.JSONEncoder(sort_keys=True).encode
_MAX_STRANGERS = 1000
"""Refusals of all strangers together that are logged; a peer that knocks forever fills no disk."""
_MAX_OF_ONE = 100
"""Refusals of one participant that are logged, however many strangers knock."""

_QUIET = frozenset({"joined", "left", "update_accepted"})
_WARNINGS = frozenset({"rejected", "update_rejected", "failed", "round_repeated", "update_lost", "rolled_back"})

Line = dict[str, Any]


def tell(
    before: Session, event: events.Event, after: Session, ordered: Iterable[effects.Effect], *, changed: bool
) -> list[Line]:
    """What one step means, in the order in which it happened; ``changed`` says whether the session is another one."""
    lines = _repairs(event) if changed else []
    for effect in ordered:
        match effect:
            case effects.Accept() if changed:
                lines.append(_accepted(event))
            case effects.Reject(participant, code, _):
                lines.append(_rejected(event, after) | {"participant": participant, "code": code})
            case effects.Configure(number, _, cohort) if _begins(before, after):
                lines.append(_begun(number, len(cohort), after.attempt))
            case effects.Commit(number, model, metrics) if len(before.history) < len(after.history):
                lines += _committed(after, number, model, metrics)
            case effects.Finish(model) if not before.is_over():
                lines += _stopped_early(after)
                lines.append({"event": "finished", "model": model})
            case effects.Fail(reason) if not before.is_over():
                lines.append({"event": "failed", "reason": reason})
    return [line for line in lines if line]


def _repairs(event: events.Event) -> list[Line]:
    match event:
        case events.Adopted(model):
            return [{"event": "initialized", "model": model}]
        case events.Lost(participant, number):
            return [{"event": "update_lost", "participant": participant, "round": number}]
        case events.RolledBack(number):
            return [{"event": "rolled_back", "round": number}]
        case _:
            return []


def _begun(number: int, participants: int, attempt: int) -> Line:
    line = {"event": "round_started", "round": number, "participants": participants}
    return line | ({"event": "round_repeated", "attempt": attempt} if attempt else {})


def _committed(after: Session, number: int, model: str, metrics: Mapping[str, float]) -> list[Line]:
    count = len(after.history[-1].updates)
    lines: list[Line] = [{"event": "round_committed", "round": number, "model": model, "participants": count}]
    if after.plan.evaluates(number):
        lines.append({"event": "evaluated", "round": number, "metrics": dict(metrics)})
    if after.plan.checkpoint_every and number % after.plan.checkpoint_every == 0:
        lines.append({"event": "checkpoint_kept", "round": number, "model": model})
    return lines


def _stopped_early(after: Session) -> list[Line]:
    why = stopped_early(after)
    return [] if why is None else [{"event": "stopped_early", "round": why["round"], "code": why["code"]}]


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


def _rejected(event: events.Event, after: Session) -> Line:
    """An answer is about its own round, which may be over; a word without one is about the session's."""
    match event:
        case events.Reported(_, number):
            return {"event": "update_rejected", "round": number}
        case events.Evaluated(_, number):
            return {"event": "rejected", "round": number}
        case _:
            return {"event": "rejected", "round": after.round}


def _begins(before: Session, after: Session) -> bool:
    """Whether a round begins, or begins again; and nobody is only asked anew."""
    same = (before.round, before.attempt) == (after.round, after.attempt)
    return not same or before.phase not in (Phase.REPORTING, Phase.AGGREGATION)


class EventLog:
    """``events.jsonl`` of one session, and whoever listens. Where the disk is full, lines wait until there is room."""

    def __init__(self, path: Path, session: str, on_event: Callable[[Line], None] | None) -> None:
        self._session = session
        self._on_event = on_event
        self._rejected: Counter[str] = Counter()
        self._waiting = b""
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        self._end, self._last = _sound(path)
        os.ftruncate(self._handle, self._end)

    def write(self, lines: list[Line], now: float, number: int | None = None) -> None:
        """Append the lines of one step in one piece, unless they are there already."""
        if not lines or (number is not None and number <= self._last):
            return
        if number is None and self._is_enough(lines[0].get("participant", "")):
            return
        mark = {} if number is None else {"n": number}
        whole = [{"time": round(now, 3), "session": self._session} | line | mark for line in lines]
        self._append("".join(f"{_encode(line)}\n" for line in whole).encode())
        for line in whole:
            self._tell(line)

    def flush(self) -> bool:
        """Whether all lines are in the file; called again when there may be room."""
        self._append(b"")
        return not self._waiting

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._handle)

    def _is_enough(self, participant: str) -> bool:
        """Whether of this one's refusals, or of all strangers', as many were logged as may be."""
        self._rejected[participant] += 1
        return self._rejected[participant] > (_MAX_OF_ONE if participant else _MAX_STRANGERS)

    def _append(self, raw: bytes) -> None:
        raw = self._waiting + raw
        try:
            with storage("the events"):
                done = os.pwrite(self._handle, raw, self._end) if raw else 0
        except StorageFull:
            done = 0
        if done < len(raw):
            os.ftruncate(self._handle, self._end)  # no half line: what is missing comes again from the journal
            self._waiting = raw
        else:
            self._waiting, self._end = b"", self._end + done

    def _tell(self, line: Line) -> None:
        name = line["event"]
        level = logging.DEBUG if name in _QUIET else logging.WARNING if name in _WARNINGS else logging.INFO
        if logger.isEnabledFor(level):
            context = {key: line.get(key) for key in ("session", "round", "participant")}
            rest = {key: value for key, value in line.items() if key not in {"time", "event", "n", *context}}
            logger.log(level, "%s%s", name, "".join(f" {key}={value}" for key, value in rest.items()), extra=context)
        if self._on_event is not None:
            self._on_event(line)


def _sound(path: Path) -> tuple[int, int]:
    """Bytes to keep and the largest number in them; the journal has the rest.

    Kept is what comes before the first line that is none of ours, without the lines of the last step: some of them may
    be missing.
    """
    end = begun = last = before = 0
    with path.open("rb") as file:
        for line in file:
            number = _number(line)
            if number is None:
                break
            if number and number != last:
                begun, before, last = end, last, number
            elif not number:
                begun, before = end + len(line), last
            end += len(line)
    return begun, before


def _number(line: bytes) -> int | None:
    """The number of a line, 0 if it has none; None if it is torn."""
    try:
        return int(json.loads(line).get("n", 0)) if line.endswith(b"\n") else None
    except (ValueError, AttributeError, TypeError):
        return None
