"""Watch a federation round by round, from outside: how long is a round, and what do its processes use meanwhile?

Whoever runs the federation appends JSON lines to a file; those of the event ``round_committed`` count, with ``round``
(how many are over) and ``time``. Round 1 warms up; the processes' clocks and the loopback's counter are read when it is
over and again when the last measured round is.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks import measure, network

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

POLL = 0.01
"""Seconds between two looks."""


class BenchmarkFailed(Exception):
    """A process ended badly or in no time; its last words are the message."""


@dataclass(frozen=True, slots=True)
class _Sample:
    server_cpu: float
    client_cpu: float
    bytes: int
    retransmitted: int


class Watch:
    """``rounds`` rounds after the first.

    Args:
        events: the file.
        rounds: how many are measured.
        servers: pids of the server's processes, as they are now.
        clients: pids of the clients'.
    """

    def __init__(
        self, events: Path, rounds: int, servers: Callable[[], Sequence[int]], clients: Callable[[], Sequence[int]]
    ) -> None:
        self._events, self._rounds = events, rounds
        self._servers, self._clients = servers, clients
        self._read = 0
        self._peaks: dict[int, float] = {}
        self._samples: dict[int, _Sample] = {}
        self._over: dict[int, float] = {}

    def look(self) -> None:
        """See what has happened; often, so that the clocks are read in time."""
        for number in self._new_rounds():
            if number in {1, 1 + self._rounds}:
                self._samples[number] = self._sample()
        for pid in self._servers():
            with suppress(OSError, ValueError):  # it may just have ended
                self._peaks[pid] = max(self._peaks.get(pid, 0.0), measure.peak_rss_mb(pid))

    def is_over(self) -> bool:
        """Whether all that is measured has been seen."""
        return len(self._samples) == 2

    def result(self, theoretical_bytes: int) -> dict[str, Any]:
        """Costs of one round; ``round_s`` is the median.

        Args:
            theoretical_bytes: of one round, to which what crossed the loopback is compared.
        """
        if not self.is_over():
            raise BenchmarkFailed(f"{len(self._over)} rounds were seen, at least {1 + self._rounds} expected")
        first, last = self._samples[1], self._samples[1 + self._rounds]
        took = [self._over[number + 1] - self._over[number] for number in range(1, 1 + self._rounds)]
        sent = (last.bytes - first.bytes) / self._rounds
        return {
            "round_s": round(median(took), 4),
            "server_rss_mb": round(sum(self._peaks.values()), 1),
            "server_cpu_s": round((last.server_cpu - first.server_cpu) / self._rounds, 4),
            "wire_ratio": round(sent / theoretical_bytes, 4),
            "client_cpu_s": round((last.client_cpu - first.client_cpu) / self._rounds, 4),
            "rounds": self._rounds,
            "slowest_round_s": round(max(took), 4),
            "retransmitted": round((last.retransmitted - first.retransmitted) / self._rounds, 1),
            "private_network": network.is_private(),
        }

    def _new_rounds(self) -> list[int]:
        if not self._events.exists() or self._events.stat().st_size == self._read:
            return []
        with self._events.open("rb") as file:
            file.seek(self._read)
            new = file.read()
        new = new[: new.rfind(b"\n") + 1]
        self._read += len(new)
        found = []
        for event in map(json.loads, new.splitlines()):
            if event["event"] == "round_committed" and event["round"] not in self._over:
                self._over[event["round"]] = event["time"]
                found.append(event["round"])
        return found

    def _sample(self) -> _Sample:
        return _Sample(_cpu(self._servers()), _cpu(self._clients()), measure.loopback_bytes(), measure.retransmitted())


def _cpu(pids: Sequence[int]) -> float:
    used = 0.0
    for pid in pids:
        with suppress(OSError):
            used += measure.cpu_seconds(pid)
    return used
