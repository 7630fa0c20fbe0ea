"""Watch: follow a session's record at the compute provider's gateway, believing only what the chain's owner signed."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from nevermined_fl import assets
from nevermined_fl.errors import NotFound, PermissionDenied, RequestError, TransportError, Unauthenticated
from nevermined_fl.launcher.launcher import GATEWAY_PREFIX
from nevermined_fl.tokens import verify_record

if TYPE_CHECKING:
    from collections.abc import Callable

    from nevermined_fl.launcher.launcher import Launcher
    from nevermined_fl.launcher.order import Order
    from nevermined_fl.tokens import SessionRecord

__all__ = ["RecordWatch"]

logger = logging.getLogger(__name__)


class RecordWatch:
    """The record of one session, as seen by a data provider. ``last`` is the newest that was verified and is still good."""

    def __init__(self, launcher: Launcher, order: Order) -> None:
        self._launcher = launcher
        self._order = order
        self._gateway = ""
        self.last: SessionRecord | None = None

    async def until(self, wanted: Callable[[SessionRecord], bool]) -> SessionRecord:
        """The newest record once it is as wanted; waits as long as it takes."""
        while not (self.last and self.last.expires > self._launcher.clock() and wanted(self.last)):
            await self._next()
        return self.last

    async def _next(self) -> None:
        """Ask once; whatever goes wrong is waited out."""
        started = self._launcher.clock()
        try:
            jws = await self._ask()
            if jws:
                await self._take(jws)
                return
        except NotFound:
            logger.debug("session %s has no record yet", self._order.session)
        except (RequestError, TransportError) as error:
            logger.warning("record of %s: %s", self._order.session, error)
        # A gateway that answers at once must not make this spin.
        if self._launcher.clock() - started < self._launcher.pace.backoff:
            await asyncio.sleep(self._launcher.pace.backoff)

    def _least(self) -> int:
        # A number that was seen before this watch began is welcome again: then the record is verified anew.
        seen = self._launcher.store.seen(self._order.session) or 0
        return max(seen, self.last.seq + 1) if self.last else seen

    async def _ask(self) -> str | None:
        wait = self._launcher.pace.record_wait
        if not self._gateway:
            ddo = await self._launcher.call(self._launcher.metadata.resolve, self._order.compute)
            self._gateway = assets.gateway_url(ddo)
        url = f"{self._gateway}{GATEWAY_PREFIX}/fl/sessions/{self._order.session}/record"
        query = {"after": str(max(self._least() - 1, 0)), "wait": str(wait)}
        try:
            _, body = await self._launcher.web.json("GET", url, params=query, seconds=wait + 30)
        except TransportError:
            self._gateway = ""  # it may have moved
            raise
        jws = body.get("record") if isinstance(body, dict) else None
        return jws if isinstance(jws, str) else None

    async def _take(self, jws: str) -> None:
        """Verify, and keep what is newer.

        Raises:
            Unauthenticated: forged, expired or of another session.
            PermissionDenied: not newer than what was seen.
        """
        compute = await self._launcher.call(self._launcher.chain.registration, self._order.compute)
        if compute is None:
            raise Unauthenticated(f"{self._order.compute} is not on chain", check="token_signer")
        expected = {compute.owner, *compute.providers}
        record = verify_record(jws, session=self._order.session, expected=expected, now=self._launcher.clock())
        if record.seq < self._least():
            raise PermissionDenied(f"record {record.seq} came; expected {self._least()} or later", check="record_newer")
        self._launcher.store.keep_seen(record.session, record.seq)
        self.last = record
        logger.info("record %d of %s: %s", record.seq, record.session, record.outcome or record.phase)
