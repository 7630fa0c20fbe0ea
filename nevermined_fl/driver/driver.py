"""The driver: does what the session orders, and tells it what happened.

Rule 1: an event is in the journal before anything is done about it. Rule 2: after a crash the journal is replayed
without doing anything, and ``Restarted`` orders again what may not have been done. Rule 3: peers' mistakes are answered,
ours crash: the launcher starts the coordinator again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nevermined_fl import aggregation
from nevermined_fl.driver import outputs, story
from nevermined_fl.driver.folding import fold
from nevermined_fl.driver.service import Service
from nevermined_fl.driver.store import Store
from nevermined_fl.errors import SessionFailed, SettingsError
from nevermined_fl.journal import Journal
from nevermined_fl.session import Phase, Session, effects, events, start, step
from nevermined_fl.spool import Spool

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from nevermined_fl.ports import Admission
    from nevermined_fl.session import Plan
    from nevermined_fl.session.state import Round

__all__ = ["Driver", "Outcome"]

logger = logging.getLogger(__name__)

_SHORTEST_NAP = 0.02


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a session ended; ``model`` is the digest of the finished model."""

    finished: bool
    reason: str
    model: str
    history: tuple[Round, ...]


class Driver:
    """One session, from its start or from where a killed process left it.

    Args:
        plan: what to do.
        session_did: the session's DID.
        folder: the driver's own: journal, spool, models, events.
        initial: the plan's initial model.
        outputs: where the results go.
        admission: who may join.
        fingerprint: of the certificate that participants see.
        on_event: hears every structured event.
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
        self._store = Store(folder)
        self._store.adopt(initial, plan)
        self._spool = Spool(folder / "spool", plan.schema)
        self._aggregator = aggregation.create(plan.strategy, dict(plan.strategy_options))
        self._log = story.EventLog(folder / "events.jsonl", session_did, on_event)
        self._outputs = outputs
        self._journal = Journal(folder / "journal.sqlite")
        self._changed = asyncio.Event()
        self._fold: effects.Aggregate | None = None
        self._now = 0.0
        self._resumed = False
        try:
            self.session = self._restore(plan, session_did)
        except Exception:
            self._journal.close()
            raise
        self.service = Service(self, self._store, self._spool, admission, fingerprint)

    async def run(self, *, farewell: float = 10.0) -> Outcome:
        """Conduct the session to its end; then wait up to ``farewell`` seconds until everybody has heard of it."""
        if self._resumed:
            self.handle(events.Restarted())
        while not self.session.is_over():
            changed = self._changed
            if self._fold is not None:
                await self._aggregate(self._fold)
            elif self._is_due():
                self.handle(events.Ticked())
                await asyncio.sleep(_SHORTEST_NAP)
            else:
                await self._until(changed, self.session.deadline)
        session = self.session
        finished = session.phase is Phase.FINISHED
        model = self._store.find(session.model) if finished else None
        await asyncio.to_thread(outputs.write, session, model, self._outputs)
        await self.service.farewell(farewell)
        return Outcome(finished, session.reason, session.model if finished else "", session.history)

    def stop(self, reason: str) -> None:
        """Give up; the buyer may read why."""
        self.handle(events.Stopped(reason))

    def close(self) -> None:
        """Let go of the journal."""
        self._journal.close()
        self._spool.close()

    def handle(self, event: events.Event, *, signed: str = "") -> effects.Accept | effects.Reject | None:
        """Step, journal, act; the verdict when ``event`` is a peer's.

        Args:
            event: what happened.
            signed: the peer's own signed words, kept as proof when they count.
        """
        now = self._clock()
        before = self.session
        after, ordered = step(before, event, now)
        number = None
        if after != before or isinstance(event, events.Restarted):
            peer = getattr(event, "participant", "")
            number = self._journal.append(now, events.to_json(event), participant=peer, signed=signed)
            self.session = after
        self._log.write(story.tell(before, event, after, ordered), now, number)
        for effect in ordered:
            self._perform(effect)
        if after != before:
            self._wake()
        verdicts = (e for e in ordered if isinstance(e, effects.Accept | effects.Reject))
        return next(verdicts, None)

    def refuse(self, code: str) -> None:
        """Note that somebody was not let in."""
        self._log.write([{"event": "rejected", "code": code}], self._clock())

    def change(self) -> asyncio.Event:
        """Set when the session changes after now."""
        return self._changed

    def _perform(self, effect: effects.Effect) -> None:
        match effect:
            case effects.Aggregate():
                self._fold = effect
            case effects.Discard(update, participant, number):
                self._spool.discard(participant, number, update)
            case effects.Commit(number, model):
                self._spool.clear(number)
                self._store.clean(number, {model, self.session.model})
            case _:
                pass  # participants ask for what they owe; verdicts are returned; the end is run()'s

    async def _aggregate(self, order: effects.Aggregate) -> None:
        self._fold = None
        try:
            model = await asyncio.to_thread(self._make_model, order)
        except SessionFailed as error:
            self.handle(events.Stopped(f"round {order.round}: {error.message}"))
        else:
            self._store.keep(order.round, model)
            self.handle(events.Aggregated(order.round, model))

    def _make_model(self, order: effects.Aggregate) -> str:
        paths = [(self._spool.path(who, order.round, digest), weight) for who, digest, weight in order.updates]
        return fold(
            self._aggregator,
            self.session.plan.schema,
            previous=self._store.path(order.model_before),
            updates=paths,
            into=self._store.new_model(order.round),
            state_before=self._store.state(order.round - 1),
            state_after=self._store.state(order.round),
        )

    def _restore(self, plan: Plan, session_did: str) -> Session:
        """The session as the journal has it, and in it from now on."""
        opening: dict[str, Any] = {"type": "started", "session": session_did, "members": list(plan.members)}
        opening |= {"parameters": plan.to_parameters()}
        rows = list(self._journal.replay())
        self._resumed = bool(rows)
        if not rows:
            now = self._clock()
            rows = [(self._journal.append(now, opening), now, opening)]
        number, began, first = rows[0]
        if first != opening:
            raise SettingsError("the journal is of another session or plan")
        self._log.write([{"event": "selection_opened"}], began, number)
        session, _ = start(plan, session_did, began)
        for number, now, body in rows[1:]:
            event = events.from_json(body)
            before, (session, ordered) = session, step(session, event, now)
            self._log.write(story.tell(before, event, session, ordered), now, number)
            self._now = now
        return session

    def _is_due(self) -> bool:
        return self.session.deadline is not None and self._clock() >= self.session.deadline

    async def _until(self, changed: asyncio.Event, deadline: float | None) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(None if deadline is None else max(0.0, deadline - self._clock())):
                await changed.wait()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _clock(self) -> float:
        """Unix seconds that never go back, whatever the machine's clock does."""
        self._now = max(self._now, time.time())
        return self._now
