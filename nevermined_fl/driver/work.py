"""Going through the files of a round, piece by piece, in a few threads, and getting what each gives in the file's order."""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from queue import SimpleQueue
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from nevermined_fl.codecs import delta
from nevermined_fl.codecs.blocks import count_of, pieces
from nevermined_fl.driver.desk import Desk, Source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from nevermined_fl.codecs.blocks import Piece
    from nevermined_fl.session import TensorSchema

T = TypeVar("T")

__all__ = ["Work", "opened"]

_BLOCK = 64 * 1024
"""Numbers per block: an update's and the sums of a block stay in a processor's cache."""
_AT_ONCE_BYTES = 32 << 20
"""Of blocks of all updates, per thread, for strategies that need them at the same time."""
_THREADS = min(4, os.cpu_count() or 1)
_WORTH_THREADS = 1 << 20
"""Numbers of all updates from which on starting threads takes less time than it saves."""


@contextmanager
def opened(
    schema: Sequence[TensorSchema], precision: str, previous: Path, updates: Sequence[Path], *, at_once: bool
) -> Iterator[Work]:
    """A round's files, open: the model before, and updates in the precision of the plan."""
    layout = None if precision == "f32" else delta.Layout(schema, precision)
    with ExitStack() as stack:
        before = stack.enter_context(closing(Source(previous)))
        sources = [stack.enter_context(closing(Source(path, precision, layout))) for path in updates]
        yield Work(schema, before, sources, at_once=at_once)


class Work:
    """The pieces of a model, and the desks at which threads work through them."""

    def __init__(
        self, schema: Sequence[TensorSchema], previous: Source, updates: list[Source], *, at_once: bool
    ) -> None:
        fitting = _AT_ONCE_BYTES // (4 * len(updates)) // delta.GROUP * delta.GROUP
        count = min(_BLOCK, max(delta.GROUP, fitting)) if at_once else _BLOCK
        self.schema, self.updates = schema, updates
        _keep_freed_memory()
        self._pieces = pieces(schema, count)
        is_small = len(updates) * count_of(schema) < _WORTH_THREADS
        self._threads = 1 if is_small else min(_THREADS, len(self._pieces))
        self._desks: SimpleQueue[Desk] = SimpleQueue()
        for _ in range(self._threads):
            self._desks.put(Desk(previous, updates, count, at_once=at_once))

    def each(self, do: Callable[[Desk, Piece], T]) -> Iterator[T]:
        """What ``do`` makes of every piece, in the order of the file; a few pieces ahead of the reader."""
        if self._threads == 1:
            yield from (self._at_a_desk(do, piece) for piece in self._pieces)
            return
        ahead: deque[Future[T]] = deque()
        with ThreadPoolExecutor(self._threads) as threads:
            for piece in self._pieces:
                ahead.append(threads.submit(self._at_a_desk, do, piece))
                if len(ahead) > 2 * self._threads:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()

    def _at_a_desk(self, do: Callable[[Desk, Piece], T], piece: Piece) -> T:
        desk = self._desks.get()
        try:
            return do(desk, piece)
        finally:
            self._desks.put(desk)


def _keep_freed_memory() -> None:
    """Let the C library keep some megabytes of freed blocks for the next piece.

    It gives the top of its heap back as soon as that is twice the largest block it has ever seen freed, and then gets
    every page of it zeroed again, piece by piece. Nothing touches this block, so it costs nothing.
    """
    np.empty(8 << 20, np.uint8)
