"""How is a session doing, in a sentence, and who is it waiting for?

Of what a coordinator's ``status`` says under ``progress``: phase, round, deadline, and a state for each member.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["NOTEWORTHY", "headline", "headline_with_time", "members", "sentence", "waiting_for"]

NOTEWORTHY = frozenset({"initialized", "round_repeated", "update_lost", "rolled_back", "stopped_early"})
"""Events that explain why a session went otherwise than its plan's rounds one by one."""
_AT_WORK = ("silent", "waiting", "fetching", "training", "evaluating", "uploading", "refused", "absent", "left")
_SENTENCES = {
    "initialized": "a participant made the first model",
    "round_repeated": "round {round} is repeated: too few updates came in time",
    "update_lost": "an update of round {round} was damaged and is asked for again",
    "rolled_back": "the model of round {round} was damaged: that round is trained again",
    "stopped_early": "stopped early, after round {round}: {code}",
}
_CODES = {"target": "the metric reached its target", "tolerance": "the metric got no better"}


def headline(progress: Mapping[str, Any]) -> str:
    """``round 3 of 10: reporting, 2 of 3 updates``."""
    parts = [str(progress.get("phase", ""))]
    if "target" in progress and progress.get("phase") == "reporting":
        parts.append(f"{progress.get('updates', 0)} of {progress['target']} updates")
    if progress.get("problem") == "disk_full":
        parts.append("waiting for room on the coordinator's disk")
    number, attempt = progress.get("round", 0), progress.get("attempt", 0)
    rounds = f"round {number} of {progress['rounds']}" if "rounds" in progress else f"round {number}"
    again = f", attempt {attempt + 1}" if attempt else ""
    return (f"{rounds}{again}: " if number else "") + ", ".join(parts)


def headline_with_time(progress: Mapping[str, Any]) -> str:
    """``round 3 of 10: reporting, 2 of 3 updates, 41 s left``: as the provider's clock has it, ours may be another."""
    left = progress.get("remaining")
    return headline(progress) + (f", {max(left, 0):.0f} s left" if isinstance(left, int | float) else "")


def members(progress: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Participant, state and details, those first that the session waits for."""
    rows = [row for row in progress.get("members") or () if isinstance(row, dict)]
    rank = {state: place for place, state in enumerate(_AT_WORK)}
    rows.sort(key=lambda row: rank.get(str(row.get("state")), len(rank)))
    return [(str(row.get("participant", "")), str(row.get("state", "")), _details(row)) for row in rows]


def sentence(event: Mapping[str, Any]) -> str:
    """A noteworthy event in words."""
    code = str(event.get("code", "?"))
    return _SENTENCES[str(event["event"])].format(round=event.get("round", "?"), code=_CODES.get(code, code))


def waiting_for(progress: Mapping[str, Any]) -> str:
    """``2 training, 1 silent``: how many do what."""
    counts = Counter(state for _, state, _ in members(progress))
    return ", ".join(f"{count} {state}" for state, count in counts.items())


def _details(row: Mapping[str, Any]) -> str:
    return ", ".join(_detail(row))


def _detail(row: Mapping[str, Any]) -> Iterable[str]:
    if "total" in row:
        yield f"{row.get('bytes', 0)} of {row['total']} bytes"
    if "code" in row:
        yield str(row["code"])
    if row.get("state") != "reported" and "seconds" in row:
        yield f"heard of {row['seconds']:.0f} s ago"
