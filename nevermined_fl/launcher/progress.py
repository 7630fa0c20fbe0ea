"""Progress: how far a session is and who is late, as its coordinator says, filtered as events are.

Where a job is not isolated, the buyer's code could write to ``status.json`` itself, and the coordinator repeats what
participants claim. So a participant is one of the session's members, a word is a known one, and all else is a number.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from nevermined_fl.launcher.events import is_number, is_word

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

__all__ = ["read_progress"]

_PHASES = frozenset(
    {"selection", "initialization", "configuration", "reporting", "aggregation", "evaluation", "finished", "failed"}
)
_STATES = frozenset(
    {"waiting", "fetching", "training", "evaluating", "uploading", "reported", "refused", "left", "silent", "absent"}
)
_PROBLEMS = frozenset({"disk_full"})
_COUNTS = ("round", "rounds", "turn", "attempt", "deadline", "remaining", "updates", "target", "needed", "time")
_MEMBER_COUNTS = ("bytes", "total", "seconds", "round")
_FILE_BYTES = 8 * 1024**2


def read_progress(path: Path, members: Collection[str], *, now: float = -math.inf) -> dict[str, Any] | None:
    """What ``status.json`` says of these members; None when there is none, or none that makes sense.

    The seconds ``remaining`` are those at ``now``, Unix seconds of the machine that the coordinator is on.
    """
    try:
        if path.is_symlink() or path.stat().st_size > _FILE_BYTES:
            return None
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or not _is_one_of(found.get("phase"), _PHASES):
        return None
    listed, known = found.get("members"), frozenset(members)
    rows = [row for row in listed if isinstance(row, dict)] if isinstance(listed, list) else []
    first = {row["participant"]: _member(row) for row in reversed(rows) if _is_one_of(row.get("participant"), known)}
    kept: dict[str, Any] = {"phase": found["phase"]} | _aged(_numbers(found, _COUNTS), now)
    problem = found.get("problem")
    kept["problem"] = problem if _is_one_of(problem, _PROBLEMS) else "other" if problem else ""
    return kept | {"members": [first[did] for did in sorted(first)]}


def _member(row: dict[str, Any]) -> dict[str, Any]:
    state = row.get("state")
    kept = {"participant": row["participant"], "state": state if _is_one_of(state, _STATES) else "unknown"}
    code = {"code": row["code"]} if is_word(row.get("code")) else {}
    return kept | _numbers(row, _MEMBER_COUNTS) | code


def _aged(numbers: dict[str, Any], now: float) -> dict[str, Any]:
    """A coordinator that is busy, or gone, wrote them a while ago."""
    if not {"time", "remaining"} <= numbers.keys():
        return numbers
    age = max(now - numbers["time"], 0.0)
    return numbers | {"remaining": round(max(numbers["remaining"] - age, 0.0), 1)}


def _numbers(row: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {name: row[name] for name in names if is_number(row.get(name))}


def _is_one_of(value: Any, words: Collection[str]) -> bool:
    return isinstance(value, str) and value in words
