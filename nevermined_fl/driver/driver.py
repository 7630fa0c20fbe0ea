"""The driver: does what the session orders, and tells its conductor what came of it.

Rule 1: after a crash the journal is replayed without doing anything, what it speaks of is looked for, and ``Restarted``
orders again what may not have been done. Rule 2: what found no room on the disk is tried again.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from nevermined_fl.driver import checkpoints, outputs
from nevermined_fl.driver.conductor import Conductor
from nevermined_fl.driver.farewell import Farewell
from nevermined_fl.driver.keeper import Keeper, rounds_made
from nevermined_fl.driver.making import Workshop
from nevermined_fl.driver.metrics import Metrics
from nevermined_fl.driver.opening import Clock, open_session
from nevermined_fl.driver.repairs import damages
from nevermined_fl.driver.room import Room
from nevermined_fl.driver.service import Service
from nevermined_fl.driver.status import Status
from nevermined_fl.driver.store import Store
from nevermined_fl.driver.story import EventLog
from nevermined_fl.driver.uploads import Uploads
from nevermined_fl.driver.watch import Watch
from nevermined_fl.errors import SessionFailed, StorageFull
from nevermined_fl.journal import Journal
from nevermined_fl.session import Phase, effects, events
from nevermined_fl.session.plan import FROM_PARTICIPANT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from nevermined_fl.ports import Admission
    from nevermined_fl.session import Plan, Session
    from nevermined_fl.session.state import Round

__all__ = ["Driver", "Outcome"]

T = TypeVar("T")

_SHORTEST_NAP = 0.02

_LATEST = 120.0
"""Seconds after a session's end: who has not come by then gave up (links after 60 s) and learns it from the session's record."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a session ended; ``model`` is the digest of the published model."""

    finished: bool
    reason: str
    model: str
    history: tuple[Round, ...]


class Driver:
    """One session, from its start or from where a killed process left it.

    Args:
        plan: what to do.
        session_did: the session's DID.
        folder: the driver's own: journal, spool, models, events, status.
        initial: the plan's initial model; not looked at when a participant makes it.
        outputs: where the results go.
        admission: who may join.
        fingerprint: of the certificate that participants see.
        on_event: hears every structured event.

    Raises:
        SettingsError: the folder is another session's or in use, or the initial model is not the plan's.
        StorageFull: there is no room to begin.
    """

    def __init__(
        self,
        plan: Plan,
        session_did: str,
        *,
        folder: Path,
        initial: Path,
        outputs: Path,
        admission: Admission,
        fingerprint: str,
        on_event: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for left in (*folder.glob(".*.part"), *outputs.glob("**/.*.part")):
            left.unlink()  # a killed process was writing it
        self._initial, self._outputs = initial, outputs
        self._farewell = Farewell(folder / "heard.json")
        self._journal = Journal(folder / "journal.sqlite")
        try:
            self._open(plan, session_did, folder, on_event)
            if rounds_made(self.session) == 0:
                self._take_in_initial()
        except BaseException:
            self._journal.close()
            raise
        self.service = Service(
            self._conductor,
            store=self._store,
            uploads=self._uploads,
            admission=admission,
            fingerprint=fingerprint,
            watch=self._watch,
            metrics=self.metrics,
            farewell=self._farewell,
        )

    def _open(
        self, plan: Plan, session_did: str, folder: Path, on_event: Callable[[dict[str, Any]], None] | None
    ) -> None:
        self.metrics = Metrics()
        self._watch = Watch()
        self._room = Room(folder, {"session": session_did})
        self._store = Store(folder)
        self._uploads = Uploads(folder, plan, self.metrics, self._room)
        self._workshop = Workshop(plan, self._store, self._uploads, self.metrics)
        self._log = EventLog(folder / "events.jsonl", session_did, on_event)
        self._keeper = Keeper(self._store, self._journal, self._room, self._outputs)
        clock = Clock()
        self._status = Status(folder / "status.json", self._watch, self._room, lambda: self.session, clock)
        opened = open_session(plan, session_did, self._journal, self._log, clock)
        self._resumed = opened.resumed
        self._conductor = Conductor(
            opened,
            clock,
            journal=self._journal,
            log=self._log,
            uploads=self._uploads,
            keeper=self._keeper,
            metrics=self.metrics,
            room=self._room,
            on_turn=self._status.turn,
        )

    @property
    def session(self) -> Session:
        """As it is now."""
        return self._conductor.session

    async def run(self, *, farewell: float = 10.0) -> Outcome:
        """Conduct the session to its end; then wait up to ``farewell`` seconds until everybody has heard of it."""
        beside = [asyncio.ensure_future(self._keeper.run()), asyncio.ensure_future(self._status.run())]
        conducting = asyncio.ensure_future(self._conduct(farewell))
        try:
            done, _ = await asyncio.wait([conducting, *beside], return_when=asyncio.FIRST_COMPLETED)
            for task in done - {conducting}:
                task.result()  # these never end but by a bug of ours, which must not go unseen
            return await conducting
        finally:
            try:
                conducting.cancel()
                await asyncio.gather(conducting, return_exceptions=True)
                await self._still(beside[0])
            finally:
                for task in beside:
                    task.cancel()
                await asyncio.gather(*beside, return_exceptions=True)
                self._status.write()  # behind a thread that may still be writing it

    def stop(self, reason: str) -> None:
        """Give up; the buyer may read why."""
        self._conductor.handle(events.Stopped(reason))

    def close(self) -> None:
        """Let go of the files."""
        self._journal.close()
        self._uploads.close()
        self._log.close()

    def scrape(self) -> bytes:
        """Metrics in Prometheus' text format."""
        return self.metrics.render(self.session, is_full=self._room.is_full())

    async def _conduct(self, farewell: float) -> Outcome:
        if self._resumed:
            await self._recover()
        model = ""
        while True:
            while not self.session.is_over():
                await self._go_on()
            try:
                await self._keeper.settled()
                model = await _in_thread(outputs.write, self.session, self._store, self._outputs)
                break
            except StorageFull as full:
                await self._room.wait(full)
        if self.session.phase is Phase.FINISHED:
            self._store.drop_copies()
        self._log.flush()
        self._status.write()
        session = self.session
        left = self._conductor.ended + _LATEST - self._conductor.clock()
        await self._farewell.wait(session, min(farewell, max(0.0, left)))
        return Outcome(session.phase is Phase.FINISHED, session.reason, model, session.history)

    async def _still(self, keeping: asyncio.Future[None]) -> None:
        """Wait for the keeper's thread, but not for room: whoever takes up the session next is alone in its folder."""
        settling = asyncio.ensure_future(self._keeper.settled())
        while not settling.done() and not keeping.done() and not self._room.is_full():
            await asyncio.wait({settling}, timeout=_SHORTEST_NAP)
        settling.cancel()

    async def _go_on(self) -> None:
        changed, work = self._conductor.changed(), self._conductor.work
        if work is not None:
            await self._make(work)
        elif self._is_due():
            await self._say(events.Ticked())
            await asyncio.sleep(_SHORTEST_NAP)
        else:
            await self._until(changed, self.session.deadline)

    async def _recover(self) -> None:
        """What is damaged is made again, and what may not have been done is done."""
        while found := await self._with_room(damages, self.session, self._store, self._uploads, self._outputs):
            if events.RolledBack(1) in found:
                await self._with_room(self._take_in_initial)
            for event in found:
                await self._say(event)
        await _in_thread(checkpoints.drop_damaged, self.session, self._outputs)
        await self._say(events.Restarted())
        self._conductor.begin()

    async def _with_room(self, work: Callable[..., T], *arguments: object) -> T:
        """Do it in a thread, and again as long as there is no room for it."""
        while True:
            try:
                return await _in_thread(work, *arguments)
            except StorageFull as full:
                self._uploads.make_room()
                await self._room.wait(full, until=self._conductor.is_over)

    def _take_in_initial(self) -> None:
        """The model that the first round trains; it is not kept for longer."""
        plan = self.session.plan
        if plan.initial_model != FROM_PARTICIPANT:
            self._store.adopt(self._initial, plan)
            self._workshop.prepare(plan.initial_model)
        elif self.session.model:
            self._workshop.prepare(self.session.model)

    async def _make(self, order: effects.Aggregate | effects.Adopt) -> None:
        """Make a model, and try again as long as there is no room for it."""
        await self._keeper.settled()
        try:
            if isinstance(order, effects.Adopt):
                await _in_thread(self._workshop.adopt, order)
                made: events.Event = events.Adopted(order.update)
            else:
                made = events.Aggregated(order.round, await _in_thread(self._workshop.fold, order))
        except StorageFull as full:
            self._uploads.make_room()
            await self._room.wait(full, until=self._conductor.is_over)
            return
        except SessionFailed as error:
            number = order.round if isinstance(order, effects.Aggregate) else 0
            made = events.Stopped(f"round {number}: {error.message}")
        self._conductor.work = None
        await self._say(made)
        if self.session.phase is Phase.EVALUATION:
            self._keeper.order(self.session)

    async def _say(self, event: events.Event) -> None:
        """Handle an event of our own, as soon as the journal has room for it."""
        while True:
            try:
                self._conductor.handle(event)
            except StorageFull as full:
                await self._room.wait(full)
            else:
                return

    def _is_due(self) -> bool:
        return self.session.is_due(self._conductor.clock())

    async def _until(self, changed: asyncio.Event, deadline: float | None) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(None if deadline is None else max(0.0, deadline - self._conductor.clock())):
                await changed.wait()


async def _in_thread(work: Callable[..., T], *arguments: object) -> T:
    """Do it in a thread. Whoever is cancelled meanwhile waits for the end of it: nobody writes here who was stopped."""
    working = asyncio.ensure_future(asyncio.to_thread(work, *arguments))
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        await asyncio.wait({working})
        working.exception()  # looked at by nobody else
        raise
