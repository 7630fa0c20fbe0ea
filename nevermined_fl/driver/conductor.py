"""The conductor: has the session as it is, and is the only one who changes it.

Rule 1: an event is in the journal before anything is done about it. Rule 2: peers' mistakes are answered, ours crash: the
launcher starts the coordinator again. Rule 3: a full disk is neither: what found no room has not happened.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from nevermined_fl.driver import story
from nevermined_fl.errors import StorageFull
from nevermined_fl.session import effects, events, step

if TYPE_CHECKING:
    from collections.abc import Callable

    from nevermined_fl.driver.keeper import Keeper
    from nevermined_fl.driver.metrics import Metrics
    from nevermined_fl.driver.opening import Clock, Opened
    from nevermined_fl.driver.room import Room
    from nevermined_fl.driver.story import EventLog
    from nevermined_fl.driver.uploads import Uploads
    from nevermined_fl.journal import Journal
    from nevermined_fl.session import Session

__all__ = ["Conductor"]


class Conductor:
    """Told by the service what peers say, and by the driver what came of the work.

    Args:
        opened: the session.
        clock: by which events happen.
        journal, log: where they are written down, for us and for the buyer.
        uploads, keeper, metrics, room: what effects are about.
        on_turn: called when there is another phase, or another turn of the same one.

    Attributes:
        session: as it is now.
        work: the model that is to be made now, if any.
        ended: when the session ended; 0 as long as it did not.
    """

    def __init__(
        self,
        opened: Opened,
        clock: Clock,
        *,
        journal: Journal,
        log: EventLog,
        uploads: Uploads,
        keeper: Keeper,
        metrics: Metrics,
        room: Room,
        on_turn: Callable[[], None],
    ) -> None:
        self.session: Session = opened.session
        self.ended = opened.ended
        self.work: effects.Aggregate | effects.Adopt | None = None
        self.clock = clock
        self._journal, self._log = journal, log
        self._uploads, self._keeper = uploads, keeper
        self._metrics, self._room = metrics, room
        self._on_turn = on_turn
        self._changed, self._turned = asyncio.Event(), asyncio.Event()
        self._is_ready = not opened.resumed

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
        if after.is_over() and not before.is_over():
            self.ended = now
        if self.session.phase is not before.phase:
            self.work = None  # what is to be done now stands in the effects
        for effect in ordered:
            self._perform(effect)
        if changed:
            self._wake(before, after)
        verdicts = (e for e in ordered if isinstance(e, effects.Accept | effects.Reject))
        return next(verdicts, None)

    def refuse(self, code: str) -> None:
        """Note that somebody was not let in."""
        self._metrics.refused(code)
        self._log.write([{"event": "rejected", "code": code}], self.clock())

    def refuse_upload(self, participant: str, number: int, code: str) -> None:
        """Note that a participant's upload for that round was refused."""
        self._metrics.answered("upload", code)
        line = {"event": "update_rejected", "participant": participant, "code": code, "round": number}
        self._log.write([line], self.clock())

    def changed(self) -> asyncio.Event:
        """Set when there is something else for us to do, after now."""
        return self._changed

    def turned(self) -> asyncio.Event:
        """Set when participants are asked something new, or the session ends, after now."""
        return self._turned

    def is_ready(self) -> bool:
        """Whether tasks may be handed out: after a restart only when the phase's clock began anew."""
        return self._is_ready

    def begin(self) -> None:
        """What an earlier process left was put right: tasks may be handed out."""
        self._is_ready = True
        self._wake_pollers()

    def is_over(self) -> bool:
        """Whether the session is."""
        return self.session.is_over()

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
                self.work = effect
            case effects.Discard(update, participant, number):
                self._uploads.spool(number).discard(participant, number, update)
            case effects.Commit(number):
                self._uploads.clear(number)
                self._keeper.order(self.session)
            case _:
                pass  # participants ask for what they owe; verdicts are returned; the end is the driver's

    def _wake(self, before: Session, after: Session) -> None:
        """Pollers once a turn, and the driver when there is something for it to do: not all of them at each report."""
        self._metrics.session_changed(before, after)
        if after.turn != before.turn or after.is_over():
            self._wake_pollers()
        if after.phase is not before.phase or after.deadline != before.deadline or after.turn != before.turn:
            self._on_turn()
            self._changed.set()
            self._changed = asyncio.Event()

    def _wake_pollers(self) -> None:
        self._turned.set()
        self._turned = asyncio.Event()
