"""Metrics of one coordinator in Prometheus' text format: how far, how many, how long. No participant is named."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from nevermined_fl.session import Phase

if TYPE_CHECKING:
    from collections.abc import Callable

    from nevermined_fl.session import Session

__all__ = ["Metrics"]

_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000)


class Metrics:
    """Counts what the driver and the service tell; ``render`` is what a scrape gets."""

    def __init__(self) -> None:
        self.connections: Callable[[], int] | None = None
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        name = "nevermined_fl_{}".format
        self._round = Gauge(name("round"), "The current round.", registry=registry)
        self._phase = Gauge(name("phase"), "1 for the current phase.", ["phase"], registry=registry)
        self._present = Gauge(name("participants_present"), "Members that joined and did not leave.", registry=registry)
        self._answers = Counter(
            name("answers"),
            "Uploads that were refused, reports and evaluations, by verdict.",
            ["kind", "code"],
            registry=registry,
        )
        self._refused = Counter(name("refused_requests"), "Others that were refused.", ["code"], registry=registry)
        self._bytes_in = Counter(name("received_bytes"), "Bytes of updates that came.", registry=registry)
        self._bytes_out = Counter(name("sent_bytes"), "Bytes of models that went out whole.", registry=registry)
        self._round_seconds = Histogram(
            name("round_seconds"), "From a round's beginning to its commit.", buckets=_SECONDS, registry=registry
        )
        self._fold_seconds = Histogram(
            name("fold_seconds"), "Folding a round's updates.", buckets=_SECONDS, registry=registry
        )
        self._full = Gauge(name("disk_full"), "1 while the coordinator waits for room on its disk.", registry=registry)
        self._open = Gauge(name("open_connections"), "Connections of participants and strangers.", registry=registry)
        self._begun: float | None = None

    def session_changed(self, before: Session, after: Session) -> None:
        """Note when a round begins and how long it took."""
        now = time.monotonic()
        if len(after.history) > len(before.history) and self._begun is not None:
            self._round_seconds.observe(now - self._begun)
        if after.round != before.round:
            self._begun = now

    def answered(self, kind: str, code: str) -> None:
        """An upload was refused with that code; a report or an evaluation was accepted, or refused."""
        self._answers.labels(kind, code).inc()

    def refused(self, code: str) -> None:
        """Another request was refused."""
        self._refused.labels(code).inc()

    def came(self, count: int) -> None:
        """Bytes of an update; from any thread."""
        self._bytes_in.inc(count)

    def went(self, count: int) -> None:
        """Bytes of a model."""
        self._bytes_out.inc(count)

    def folded(self, seconds: float) -> None:
        """A round was folded."""
        self._fold_seconds.observe(seconds)

    def render(self, session: Session, *, is_full: bool) -> bytes:
        """All of them, as of now."""
        self._round.set(session.round)
        self._present.set(len(session.present()))
        for phase in Phase:
            self._phase.labels(str(phase)).set(phase is session.phase)
        self._full.set(is_full)
        if self.connections is not None:
            self._open.set(self.connections())
        return generate_latest(self._registry)
