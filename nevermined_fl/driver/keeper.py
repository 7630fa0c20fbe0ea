"""What a round made is made to survive the loss of power while the next one trains; then what is older may go.

The next fold waits for it, so that power loss costs the round that it interrupts and not one that participants forgot.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from nevermined_fl.driver.checkpoints import keep_checkpoints
from nevermined_fl.errors import StorageFull
from nevermined_fl.session import Phase

if TYPE_CHECKING:
    from pathlib import Path

    from nevermined_fl.driver.room import Room
    from nevermined_fl.driver.store import Store
    from nevermined_fl.journal import Journal
    from nevermined_fl.session import Session

__all__ = ["Keeper", "rounds_made"]


def rounds_made(session: Session) -> int:
    """How many rounds have a model: those that are committed, and the one that is being evaluated."""
    return session.round if session.phase is Phase.EVALUATION else len(session.history)


class Keeper:
    """Does one thing at a time, and of what is ordered meanwhile only the newest."""

    def __init__(self, store: Store, journal: Journal, room: Room, folder: Path) -> None:
        self._store = store
        self._journal = journal
        self._room = room
        self._outputs = folder
        self._ordered: Session | None = None
        self._wanted = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def order(self, session: Session) -> None:
        """Make durable what ``session`` has, as soon as possible."""
        self._ordered = session
        self._idle.clear()
        self._wanted.set()

    async def settled(self) -> None:
        """Wait until everything that was ordered is done."""
        await self._idle.wait()

    async def run(self) -> None:
        """Do what is ordered, for ever."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            if (session := self._ordered) is None:
                continue
            try:
                await asyncio.to_thread(self._make_durable, session)
            except StorageFull as full:
                self._wanted.set()
                await self._room.wait(full)
            else:
                if self._ordered is session:
                    self._ordered = None
                    self._idle.set()

    def _make_durable(self, session: Session) -> None:
        if session.model:
            self._store.secure(session.model, rounds_made(session))
        self._journal.sync()
        if session.history:
            keep_checkpoints(session, self._store, self._outputs)
        self._store.clean({rounds_made(session)}, {session.model})
