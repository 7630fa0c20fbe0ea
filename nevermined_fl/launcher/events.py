"""Events: what a buyer may see of a job, as its images report it, filtered a second time.

Where a job is not isolated, the buyer's code could write to ``events.jsonl`` itself. So only known names and fields pass,
and a field is a small number or a plain word: no text of anybody's.
"""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

__all__ = ["EVENTS", "is_number", "is_word", "read_events"]

EVENTS = frozenset(
    {
        *(
            "selection_opened",
            "joined",
            "left",
            "round_started",
            "update_accepted",
            "update_rejected",
            "round_committed",
        ),
        *("evaluated", "finished", "failed", "rejected", "round_trained", "update_sent", "algorithm_failed", "over"),
        *("refused", "round_missed"),
        *("stopped_early", "round_repeated", "initialized", "update_lost", "rolled_back", "checkpoint_kept"),
    }
)
_COUNTS = frozenset({"round", "rounds", "line", "examples", "participants", "bytes", "attempt", "deadline", "seconds"})
_WORDS = frozenset({"session", "participant", "agreement", "kind", "code", "outcome", "model", "update", "phase"})
_WORD = re.compile(r"[A-Za-z0-9_:.\-]{1,80}")
_LINE_BYTES = 8192
_LINES = 20_000


def read_events(path: Path, *, metrics: Collection[str]) -> list[dict[str, Any]]:
    """The events of a job, oldest first; ``metrics`` are the names that its plan declares."""
    return list(_events(path, frozenset(metrics))) if path.is_file() and not path.is_symlink() else []


def _events(path: Path, metrics: frozenset[str]) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        for _ in range(_LINES):
            line = file.readline(_LINE_BYTES)
            if not line.endswith(b"\n"):
                return  # the end, half a line, or one that no image of ours writes
            event = _event(line, metrics)
            if event:
                yield event


def _event(line: bytes, metrics: frozenset[str]) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or not is_word(found.get("event")) or not is_number(found.get("time")):
        return None
    if found["event"] not in EVENTS:
        return None
    kept = {"time": found["time"], "event": found["event"]}
    kept |= {name: value for name, value in found.items() if name in _COUNTS and is_number(value)}
    kept |= {name: value for name, value in found.items() if name in _WORDS and is_word(value)}
    values = found.get("metrics")
    if isinstance(values, dict):
        kept["metrics"] = {name: values[name] for name in sorted(metrics) if is_number(values.get(name))}
    return kept


def is_number(value: Any) -> bool:
    """Whether it is a number that JSON readers keep."""
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**53 and math.isfinite(value)
    )


def is_word(value: Any) -> bool:
    """Whether it is a name, a code, a DID or a digest: nothing that could be a sentence."""
    return isinstance(value, str) and _WORD.fullmatch(value) is not None
