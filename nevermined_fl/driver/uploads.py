"""Updates on their way in, and those that are here: counted, held to the plan's bounds, and looked after.

The initial model that a participant makes is an upload of round 0, in the plan's own schema whatever the precision.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from nevermined_fl import aggregation
from nevermined_fl.codecs import delta
from nevermined_fl.digests import digest_file
from nevermined_fl.driver.distance import distance
from nevermined_fl.errors import DecodeError, RemoteProtocolError, StorageFull
from nevermined_fl.session.plan import FROM_PARTICIPANT
from nevermined_fl.spool import Spool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from nevermined_fl.driver.metrics import Metrics
    from nevermined_fl.driver.room import Room
    from nevermined_fl.ports import UpdateSink
    from nevermined_fl.session import Plan

__all__ = ["Uploads"]

logger = logging.getLogger(__name__)


class Uploads:
    """The spools of one session."""

    def __init__(self, folder: Path, plan: Plan, metrics: Metrics, room: Room) -> None:
        self._plan = plan
        self._metrics = metrics
        self._room = room
        self._extras = aggregation.create(plan.strategy, dict(plan.strategy_options)).EXTRAS
        for name in ("spool", "spool-initial"):
            _drop_damaged(folder / name)
        self._spool = Spool(folder / "spool", delta.wire_schema(plan.carried(), plan.precision))
        asks = plan.initial_model == FROM_PARTICIPANT
        self._first = Spool(folder / "spool-initial", plan.schema) if asks else self._spool

    def spool(self, round_number: int) -> Spool:
        """Where updates of that round are."""
        return self._spool if round_number else self._first

    def open(
        self,
        participant: str,
        round_number: int,
        digest: str,
        size: int,
        *,
        model: Path,
        refused: Callable[[str], object],
    ) -> UpdateSink:
        """Start an upload or go on with it.

        Args:
            participant: who sends it.
            round_number: of which it is an update.
            digest: that names it.
            size: its bytes.
            model: what it is a change of.
            refused: hears the code when what comes is refused, in any thread.
        """
        is_bound = any(self._plan.bound(kind) is not None for kind in ("", *self._extras))
        judge = partial(self._judge, model) if round_number and is_bound else None
        return _Upload(self, self.spool(round_number).open(participant, round_number, digest, size, judge), refused)

    def has(self, participant: str, round_number: int, digest: str) -> bool:
        """Whether that update is here, verified."""
        return self.spool(round_number).has(participant, round_number, digest)

    def clear(self, round_number: int) -> None:
        """Drop the updates of this round and of earlier ones."""
        self._spool.clear(round_number)
        if self._first is not self._spool:
            self._first.clear(0)

    def make_room(self) -> None:
        """Give back what nobody needs."""
        self._spool.make_room()

    def close(self) -> None:
        """Close every file; what came stays."""
        self._spool.close()
        self._first.close()

    def came(self, count: int) -> None:
        """Bytes of an update."""
        self._metrics.came(count)

    def note(self, full: StorageFull) -> None:
        """An update found no room."""
        self._spool.make_room()
        self._room.note(full)

    def _judge(self, model: Path, update: Path) -> None:
        """Refuse an update that moves its model, or what travels beside it, further than the plan allows."""
        plan = self._plan
        try:
            norms = distance(model, update, plan.carried(), plan.precision, self._extras)
        except (OSError, DecodeError) as error:
            # Another request of the same participant dropped it, or the round is over.
            raise RemoteProtocolError("the update is not wanted any more", code="superseded") from error
        for kind, norm in norms.items():
            bound = plan.bound(kind)
            if bound is not None and not norm <= bound:
                text = f"the {kind or 'model'} change of the update has the norm {norm:g}; the plan allows {bound:g}"
                raise RemoteProtocolError(text, code="norm")


def _drop_damaged(folder: Path) -> None:
    """What a killed process left, whether it was reported or not: its sender has it still."""
    for path in folder.glob("*-*-*"):
        digest = path.name.rpartition("-")[2]
        if not path.suffix and digest_file(path, digest) != digest:
            logger.warning("update %s is damaged; it is asked for again", path.name)
            path.unlink()


class _Upload:
    """Implements ports.UpdateSink over the spool's."""

    def __init__(self, uploads: Uploads, sink: UpdateSink, refused: Callable[[str], object]) -> None:
        self._uploads = uploads
        self._sink = sink
        self._refused = refused

    @property
    def offset(self) -> int:
        return self._sink.offset

    def write(self, block: bytes | memoryview) -> None:
        with self._noted():
            self._sink.write(block)
        self._uploads.came(len(block))

    def commit(self) -> None:
        with self._noted():
            self._sink.commit()

    @contextmanager
    def _noted(self) -> Iterator[None]:
        try:
            yield
        except StorageFull as full:
            self._uploads.note(full)
            raise
        except RemoteProtocolError as error:
            if error.code != "superseded":  # it sends the same anew
                self._refused(error.code)
            raise
