"""Limits: what ends a wait from outside: the buyer, the clock, or the agreement's timeout on the chain."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from nevermined_fl.errors import SessionFailed, TransportError

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from nevermined_fl.launcher.launcher import Launcher
    from nevermined_fl.launcher.store import Job

__all__ = ["Limits"]

logger = logging.getLogger(__name__)


class Limits:
    """The limits of one job. Every wait of a job runs under :meth:`within`."""

    def __init__(self, launcher: Launcher, job: Job) -> None:
        self._launcher = launcher
        self._job = job
        self._stop = asyncio.Event()
        self.overtime = job.created + launcher.settings.limits.job_seconds
        if job.stopping:
            self._stop.set()

    def stop(self) -> None:
        """The buyer wants it to end."""
        self._stop.set()

    def stopped(self) -> bool:
        """Whether the buyer wanted it to end."""
        return self._stop.is_set()

    async def within(self, work: Coroutine[Any, Any, Any], *, stoppable: bool = True) -> Any:
        """The work's result, or SessionFailed with the limit that was hit first."""
        waits = [asyncio.ensure_future(work), asyncio.ensure_future(self._reached(stoppable=stoppable))]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if waits[0].done():
                return waits[0].result()
            raise SessionFailed(waits[1].result())
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    async def _reached(self, *, stoppable: bool) -> str:
        """Return, when there is one, the reason to end."""
        while True:
            if stoppable and self._stop.is_set():
                return "stopped by the buyer"
            if reason := await self._expired():
                return reason
            try:
                async with asyncio.timeout(self._launcher.pace.chain):
                    await (self._stop.wait() if stoppable else asyncio.Event().wait())
            except TimeoutError:
                continue

    async def _expired(self) -> str:
        """An agreement with a timeout ends with it: after that a fulfilment would turn into a refund."""
        try:
            agreement = await self._launcher.call(self._launcher.chain.agreement, self._job.order.agreement)
            last = agreement.compute.expires() if agreement else None
            if last is not None and await self._launcher.call(self._launcher.chain.block_number) > last:
                return "the agreement timed out"
        except TransportError as error:
            logger.debug("the chain does not answer: %s", error)
        if self._launcher.clock() > self.overtime:
            return f"it took longer than the provider's {self._launcher.settings.limits.job_seconds} s"
        return ""
