"""How far has a federation got when, and how many bytes has that taken? Read from its events and the link's counters."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from benchmarks.wan.link import crossed_bytes
from benchmarks.wan.training import OTHER_TARGETS, TARGET
from benchmarks.watch import BenchmarkFailed

if TYPE_CHECKING:
    from pathlib import Path


class Progress:
    """Time and bytes at the beginning of round 1 and at the end of every round."""

    def __init__(self, events: Path) -> None:
        self._events = events
        self._seen: list[tuple[float, int]] = []

    def rounds(self) -> int:
        """How many are over."""
        return max(0, len(self._seen) - 1)

    def look(self) -> None:
        """See what has happened; often, so that the counters are read in time."""
        if not self._events.exists():
            return
        lines = [json.loads(line) for line in self._events.read_text().splitlines(keepends=True) if line.endswith("\n")]
        begun = [line["time"] for line in lines if line["event"] == "round_started" and line["round"] == 1]
        over = [line["time"] for line in lines if line["event"] == "round_committed"]
        for when in (begun[:1] + over)[len(self._seen) :]:
            self._seen.append((when, crossed_bytes()))

    def until_target(self, accuracies: list[float]) -> dict[str, Any]:
        """What it took until a round's model had the target accuracy, and the other ones."""
        took = {target: self._until(accuracies, target) for target in (*OTHER_TARGETS, TARGET)}
        return {
            "target_s": took[TARGET][0],
            "target_mb": took[TARGET][1],
            "target_rounds": took[TARGET][2],
            "targets": {str(target): found[:2] for target, found in took.items()},
            "round_s": round((self._seen[-1][0] - self._seen[0][0]) / self.rounds(), 3),
            "accuracies": [round(accuracy, 4) for accuracy in accuracies],
        }

    def _until(self, accuracies: list[float], target: float) -> tuple[float, float, int]:
        """Seconds, megabytes and rounds."""
        enough = [number for number, accuracy in enumerate(accuracies, 1) if accuracy >= target]
        if not enough:
            raise BenchmarkFailed(f"accuracy {target} was not reached: {accuracies}")
        (began, before), (ended, after) = self._seen[0], self._seen[enough[0]]
        return round(ended - began, 3), round((after - before) / 1e6, 3), enough[0]
