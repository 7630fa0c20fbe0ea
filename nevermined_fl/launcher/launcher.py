"""Launcher: what every part of one provider's launcher works with, and how it waits for a world that does not answer."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nevermined_fl.errors import ChainError, TransportError
from nevermined_fl.settings import load_provider

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from nevermined_fl.keys import KeyAccount
    from nevermined_fl.launcher.approvals import Approvals
    from nevermined_fl.launcher.content import Content
    from nevermined_fl.launcher.records import Records
    from nevermined_fl.launcher.store import Store
    from nevermined_fl.launcher.web import Web
    from nevermined_fl.ports import Backend, Chain, Metadata
    from nevermined_fl.settings import ProviderSettings

__all__ = ["GATEWAY_PREFIX", "Launcher", "Pace"]

logger = logging.getLogger(__name__)
GATEWAY_PREFIX = "/api/v1/gateway/services"


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds between looks, and how long things are waited for.

    ``poll``: a process; ``chain``: the newest block; ``backoff`` .. ``longest``: after a failure; ``record_wait``: one
    long poll; ``record_valid``: how long a session record is good, renewed at half of it; ``grace``: how long a
    participant may go on after its session's end; ``farewell``: how long a job may take to end that its buyer stops;
    ``listening``: how long a coordinator may take to listen.
    """

    poll: float = 0.2
    chain: float = 5.0
    backoff: float = 1.0
    longest: float = 30.0
    record_wait: float = 25.0
    record_valid: float = 600.0
    grace: float = 5.0
    farewell: float = 5.0
    listening: float = 60.0


@dataclass(frozen=True, slots=True)
class Launcher:
    """One provider's launcher. ``clock`` answers Unix seconds."""

    settings: ProviderSettings
    account: KeyAccount
    chain: Chain
    metadata: Metadata
    metadata_url: str
    backend: Backend
    store: Store
    approvals: Approvals
    content: Content
    records: Records
    web: Web
    pace: Pace = field(default_factory=Pace)
    clock: Callable[[], float] = time.time

    def jobs(self) -> Path:
        """Where the jobs' folders are."""
        return self.settings.path("jobs")

    def folder(self, job_id: str) -> Path:
        """What the launcher keeps of a job; the job does not see it."""
        return self.jobs() / job_id

    def work(self, job_id: str) -> Path:
        """The job's own folder."""
        return self.folder(job_id) / "work"

    def dataset(self, did: str) -> Path | None:
        """Where a dataset's data is; the settings are read anew, for datasets are published while a launcher runs."""
        fresh = (self.settings.home / "provider.toml").exists()
        datasets = load_provider(self.settings.home).datasets if fresh else self.settings.datasets
        return self.settings.path(datasets[did]) if did in datasets else None

    async def call(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Call a port, all of which block, in a thread."""
        return await asyncio.to_thread(function, *arguments, **named)

    async def patiently(self, function: Callable[..., Any], *arguments: Any, until: float, **named: Any) -> Any:
        """Call a port again and again while the world does not answer, at most ``until`` this time."""
        return await self.retrying(lambda: self.call(function, *arguments, **named), until=until)

    async def retrying(self, attempt: Callable[[], Awaitable[Any]], *, until: float) -> Any:
        """Await again and again while the world does not answer, at most ``until`` this time.

        Raises:
            TransportError: time is up, or the contract itself refused.
        """
        pause = self.pace.backoff
        while True:
            try:
                return await attempt()
            except TransportError as error:
                if (isinstance(error, ChainError) and error.reverted) or self.clock() + pause > until:
                    raise
                logger.warning("%s; again in %.1f s", error, pause)
            await asyncio.sleep(pause)
            pause = min(2 * pause, self.pace.longest)
