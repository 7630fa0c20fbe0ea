"""Records: what this launcher says of the sessions that it runs, signed, numbered and served to whoever waits."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from nevermined_fl.errors import NotFound, Unauthenticated
from nevermined_fl.tokens import SessionRecord, verify_record

if TYPE_CHECKING:
    from collections.abc import Callable

    from nevermined_fl.keys import KeyAccount
    from nevermined_fl.launcher.store import Store

__all__ = ["OVER_SECONDS", "Records"]

OVER_SECONDS = 365 * 24 * 3600.0
"""How long the last word on a session is good: whoever it pays may have been away for long."""


class Records:
    """Issues session records. The number of a session's record only ever grows, over restarts and over re-runs."""

    def __init__(self, store: Store, account: KeyAccount, *, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._account = account
        self._clock = clock
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}

    def issue(self, session: str, *, valid: float, **fields: Any) -> SessionRecord:
        """Sign and keep the next record, and wake whoever waits for it."""
        kept = self._store.record(session)
        now = self._clock()
        seq = kept[0] + 1 if kept else 1
        record = SessionRecord(session=session, seq=seq, issued=now, expires=now + valid, **fields)
        self._store.keep_record(session, record.seq, record.sign(self._account))
        for waiter in self._waiting.pop(session, ()):
            if not waiter.done():
                waiter.set_result(None)
        return record

    def last(self, session: str) -> SessionRecord | None:
        """The last record that we issued, unless it has expired."""
        kept = self._store.record(session)
        if kept is None:
            return None
        try:
            return verify_record(kept[1], session=session, expected={self._account.address}, now=self._clock())
        except Unauthenticated:
            return None

    async def newer(self, session: str, *, after: int, wait: float) -> tuple[int, str] | None:
        """The record with a number above ``after``; None when none came within ``wait`` seconds.

        Raises:
            NotFound: this session has no record here, not even by then.
        """
        deadline = asyncio.get_running_loop().time() + wait
        while True:
            last = self._store.record(session)
            if last and last[0] > after:
                return last
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                break
            await self._news(session, left)
        if last is None:
            raise NotFound(f"no record of {session} here", check="record_exists")
        return None

    async def _news(self, session: str, seconds: float) -> None:
        """Return when a record is issued, or time is up."""
        waiter = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(session, set())
        waiting.add(waiter)
        try:
            await asyncio.wait({waiter}, timeout=seconds)
        finally:
            waiting.discard(waiter)
            # Anybody may ask about any DID: nothing is kept of those that are none of ours.
            if not waiting and self._waiting.get(session) is waiting:
                del self._waiting[session]
