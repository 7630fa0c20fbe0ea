"""The driver: does what the session orders, and tells it what happened.

Rule 1: an event is in the journal before anything is done about it. Rule 2: after a crash the journal is replayed
without doing anything, what it speaks of is looked for, and ``Restarted`` orders again what may not have been done.
Rule 3: peers' mistakes are answered, ours crash: the launcher starts the coordinator again. Rule 4: a full disk is
neither: what found no room has not happened, and is tried again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from nevermined_fl.driver import outputs, story
from nevermined_fl.driver.keeper import Keeper, rounds_made
from nevermined_fl.driver.making import Workshop
from nevermined_fl.driver.metrics import Metrics
from nevermined_fl.driver.repairs import damages
from nevermined_fl.driver.room import Room
from nevermined_fl.driver.service import Service
from nevermined_fl.driver.status import Status
from nevermined_fl.driver.store import Store
from nevermined_fl.driver.uploads import Uploads
from nevermined_fl.driver.watch import Watch
from nevermined_fl.errors import SessionFailed, SettingsError, StorageFull
from nevermined_fl.journal import Journal
from nevermined_fl.session import Phase, Session, effects, events, start, step
from nevermined_fl.session.plan import FROM_PARTICIPANT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from nevermined_fl.ports import Admission
    from nevermined_fl.session import Plan
    from nevermined_fl.session.state import Round

__all__ = ["Driver", "Outcome"]

T = TypeVar("T")

logger = logging.getLogger(__name__)

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
        self._journal = Journal(folder / "journal.sqlite")
        try:
            self.metrics = Metrics()
            self._watch = Watch()
            self._room = Room(folder, {"session": session_did})
            self._store = Store(folder)
            self._initial = initial
            self._uploads = Uploads(folder, plan, self.metrics, self._room)
            self._workshop = Workshop(plan, self._store, self._uploads, self.metrics)
            self._log = story.EventLog(folder / "events.jsonl", session_did, on_event)
            self._outputs = outputs
            self._heard = folder / "heard.json"
            self._ended = 0.0
            self._changed, self._turned = asyncio.Event(), asyncio.Event()
            self._work: effects.Aggregate | effects.Adopt | None = None
            self._ahead = time.time() - time.monotonic()
            self._resumed = False
            self.session = self._restore(plan, session_did)
            if rounds_made(self.session) == 0:
                self._take_in_initial()
        except BaseException:
            self._journal.close()
            raise
        self._keeper = Keeper(self._store, self._journal, self._room, outputs)
        self._status = Status(folder / "status.json", self._watch, self._room, lambda: self.session, self.clock)
        self.service = Service(
            self,
            store=self._store,
            uploads=self._uploads,
            admission=admission,
            fingerprint=fingerprint,
            watch=self._watch,
            metrics=self.metrics,
        )

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
        self.handle(events.Stopped(reason))

    def close(self) -> None:
        """Let go of the files."""
        self._journal.close()
        self._uploads.close()
        self._log.close()

    def handle(self, event: events.Event, *, signed: str = "") -> effects.Accept | effects.Reject | None:
        """Step, journal, act; the verdict when ``event`` is a peer's.

        Args:
            event: what happened.
            signed: the peer's own signed words, kept as proof when they count.

        Raises:
            StorageFull: the journal has no room; nothing happened.
        """
        now = self.clock()
        before = self.session
        after, ordered = step(before, event, now)
        changed = after is not before and after != before
        number = None
        if changed or isinstance(event, events.Restarted):
            number = self._write_down(now, event, signed)
            self.session = after
        self._log.write(story.tell(before, event, after, ordered, changed=changed), now, number)
        self._note_end(before, after, now)
        if self.session.phase is not before.phase:
            self._work = None  # what is to be done now stands in the effects
        for effect in ordered:
            self._perform(effect)
        if changed:
            self._wake(before, after)
        verdicts = (e for e in ordered if isinstance(e, effects.Accept | effects.Reject))
        return next(verdicts, None)

    def refuse(self, code: str) -> None:
        """Note that somebody was not let in."""
        self.metrics.refused(code)
        self._log.write([{"event": "rejected", "code": code}], self.clock())

    def turned(self) -> asyncio.Event:
        """Set when participants are asked something new, or the session ends, after now."""
        return self._turned

    def clock(self) -> float:
        """Unix seconds: the machine's at the start, but none before the journal's last; they pass whatever it is set to."""
        return self._ahead + time.monotonic()

    def is_ready(self) -> bool:
        """Whether tasks may be handed out: after a restart only when the phase's clock began anew."""
        return not self._resumed

    def scrape(self) -> bytes:
        """Metrics in Prometheus' text format."""
        return self.metrics.render(self.session, is_full=self._room.is_full())

    def _write_down(self, now: float, event: events.Event, signed: str) -> int:
        try:
            peer = getattr(event, "participant", "")
            return self._journal.append(now, events.to_json(event), participant=peer, signed=signed)
        except StorageFull as full:
            self._uploads.make_room()
            self._room.note(full)
            raise

    def _perform(self, effect: effects.Effect) -> None:
        match effect:
            case effects.Aggregate() | effects.Adopt():
                self._work = effect
            case effects.Discard(update, participant, number):
                self._uploads.spool(number).discard(participant, number, update)
            case effects.Commit(number):
                self._uploads.clear(number)
                self._keeper.order(self.session)
            case _:
                pass  # participants ask for what they owe; verdicts are returned; the end is run()'s

    def _wake(self, before: Session, after: Session) -> None:
        """Pollers once a turn, and the driver when there is something for it to do: not all of them at each report."""
        self.metrics.session_changed(before, after)
        if after.turn != before.turn or after.is_over():
            self._wake_pollers()
        if after.phase is not before.phase or after.deadline != before.deadline or after.turn != before.turn:
            self._status.turn()
            self._changed.set()
            self._changed = asyncio.Event()

    def _wake_pollers(self) -> None:
        self._turned.set()
        self._turned = asyncio.Event()

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
        left = self._ended + _LATEST - self.clock()
        await self.service.farewell(min(farewell, max(0.0, left)), self._heard)
        return Outcome(session.phase is Phase.FINISHED, session.reason, model, session.history)

    async def _still(self, keeping: asyncio.Future[None]) -> None:
        """Wait for the keeper's thread, but not for room: whoever takes up the session next is alone in its folder."""
        settling = asyncio.ensure_future(self._keeper.settled())
        while not settling.done() and not keeping.done() and not self._room.is_full():
            await asyncio.wait({settling}, timeout=_SHORTEST_NAP)
        settling.cancel()

    async def _go_on(self) -> None:
        changed, work = self._changed, self._work
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
        await _in_thread(outputs.drop_damaged, self.session, self._outputs)
        await self._say(events.Restarted())
        self._resumed = False
        self._wake_pollers()

    async def _with_room(self, work: Callable[..., T], *arguments: object) -> T:
        """Do it in a thread, and again as long as there is no room for it."""
        while True:
            try:
                return await _in_thread(work, *arguments)
            except StorageFull as full:
                self._uploads.make_room()
                await self._room.wait(full, until=self._is_over)

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
            await self._room.wait(full, until=self._is_over)
            return
        except SessionFailed as error:
            number = order.round if isinstance(order, effects.Aggregate) else 0
            made = events.Stopped(f"round {number}: {error.message}")
        self._work = None
        await self._say(made)
        if self.session.phase is Phase.EVALUATION:
            self._keeper.order(self.session)

    async def _say(self, event: events.Event) -> None:
        """Handle an event of our own, as soon as the journal has room for it."""
        while True:
            try:
                self.handle(event)
            except StorageFull as full:
                await self._room.wait(full)
            else:
                return

    def _restore(self, plan: Plan, session_did: str) -> Session:
        """The session as the journal has it, and in it from now on."""
        opening: dict[str, Any] = {"type": "started", "session": session_did, "members": list(plan.members)}
        opening |= {"parameters": plan.to_parameters()}
        rows = self._journal.replay()
        first = next(rows, None)
        self._resumed = first is not None
        if first is None:
            began = self.clock()
            first = (self._journal.append(began, opening), began, opening)
        number, now, body = first
        if body != opening:
            raise SettingsError("the journal is of another session or plan")
        self._log.write([{"event": "selection_opened"}], now, number)
        session, _ = start(plan, session_did, now)
        for number, now, body in rows:
            event = events.from_json(body)
            before, (session, ordered) = session, step(session, event, now)
            self._note_end(before, session, now)
            self._log.write(story.tell(before, event, session, ordered, changed=session != before), now, number)
        self._ahead = max(self._ahead, now - time.monotonic())
        return session

    def _note_end(self, before: Session, after: Session, now: float) -> None:
        if after.is_over() and not before.is_over():
            self._ended = now

    def _is_over(self) -> bool:
        return self.session.is_over()

    def _is_due(self) -> bool:
        return self.session.is_due(self.clock())

    async def _until(self, changed: asyncio.Event, deadline: float | None) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(None if deadline is None else max(0.0, deadline - self.clock())):
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
