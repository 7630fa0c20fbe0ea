"""Receiving a body: from the socket into a block, and from the block into the sink.

A large body does not pass through aiohttp, which copies it three times: a thread takes it off the connection as long as
there is something to take (``stream``). The connection ends with the answer, for aiohttp's parser would still wait for the
body.

Rule 1: memory for bodies is one block per thread, however many come at once. Rule 2: what came is handed on at once, so
that a slow and shaky line gets on; but a slow line is left alone for a moment, and holds no thread.
"""

from __future__ import annotations

import asyncio
import select
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakSet

from nevermined_fl.errors import TransportError
from nevermined_fl.transports.http.stream import AGAIN, Stream, own_block

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from concurrent.futures import Executor

    from aiohttp import web

    from nevermined_fl.ports import UpdateSink
    from nevermined_fl.transports.http.stream import Line

__all__ = ["Receiver"]

_IDLE = 60.0
_AT_ONCE = 512 * 1024
"""An update of at most so many bytes is taken in without a thread: that would cost more than the digest.

The end of a larger one is not: what came before may be read again with it, and the whole is judged.
"""
_NUMBER = 8
"""Bytes of the largest number. A block begins where it lies in the file, modulo this: numbers are then aligned."""
_TURN = 0.02
"""Seconds after which somebody else has a turn."""
_MUCH = 64 * 1024
"""Bytes that a fast line brings at once; more of them come within a moment."""
_MOMENT_MS = 2
_NAP = 0.1
"""Seconds for which a slow line is left alone."""


class Receiver:
    """Takes bodies in; ``executor`` runs what moves them."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._taken: WeakSet[asyncio.Transport] = WeakSet()

    def has_taken(self, request: web.Request) -> bool:
        """Whether the body did not pass through aiohttp, so that nothing can follow on the connection."""
        return request.transport in self._taken

    async def receive(self, request: web.Request, sink: UpdateSink, total: int) -> None:
        """Put the body into the sink and commit it when all is there.

        Raises:
            ConnectionResetError: the body ended early.
            TransportError: nothing came for a minute.
        """
        length = request.content_length or 0
        if length > _AT_ONCE:
            await self._receive_large(request, sink, length, total)
            return
        run = _at_once if total <= _AT_ONCE else self._run
        await _receive_small(request, sink, length, run)
        if sink.offset == total:
            await run(sink.commit)

    async def _receive_large(self, request: web.Request, sink: UpdateSink, length: int, total: int) -> None:
        stream = request.transport
        if not isinstance(stream, Stream):
            raise ConnectionResetError
        end = sink.offset + length
        # What aiohttp took off the wire meanwhile; it reads on when some of that is taken.
        body = _Body(sink, end, total, list(iter(request.content.read_nowait, b"")))
        stream.pause_reading()
        self._taken.add(stream)
        try:
            is_first, heard = True, time.monotonic()
            while (came := await stream.work(self._executor, body.take_in)) is not None:
                heard = time.monotonic() if came or is_first else heard
                if came < _MUCH < end - sink.offset and not is_first:
                    await asyncio.sleep(_NAP)
                is_first = False
                async with _patience(heard):
                    await stream.readable()
        except ConnectionResetError:
            stream.close()  # whoever has hung up wants no answer
            raise
        except BaseException:
            stream.resume_reading()  # who still sends a body that was refused gets to read why
            raise
        request.content.feed_eof()

    async def _run(self, work: Callable[..., None], *arguments: object) -> None:
        await asyncio.get_running_loop().run_in_executor(self._executor, work, *arguments)


@dataclass(slots=True)
class _Body:
    """What of a body came already is in ``pieces``; the rest is on the line."""

    sink: UpdateSink
    end: int
    total: int
    pieces: list[bytes]

    def take_in(self, line: Line) -> int | None:
        """In a thread: bytes from the line to the sink as long as there are any. How many; None: it is all here."""
        came, until = 0, time.monotonic() + _TURN
        while self.pieces:
            self.sink.write(memoryview(self.pieces.pop(0)))
        while self.sink.offset < self.end and time.monotonic() < until:
            block = own_block()[self.sink.offset % _NUMBER :][: self.end - self.sink.offset]
            count, is_over = _fill(line, block, until)
            if count:
                self.sink.write(block[:count])
            if is_over:
                raise ConnectionResetError
            came += count
            if count < len(block):
                break
        if self.sink.offset == self.total:
            self.sink.commit()
        return came if self.sink.offset < self.end else None


def _fill(line: Line, block: memoryview, until: float) -> tuple[int, bool]:
    """How many bytes are there, or will be in a moment, and whether no more will come."""
    poll, count, waited = select.poll(), 0, 0
    poll.register(line, select.POLLIN)
    while count < len(block) and not (count and time.monotonic() > until):
        try:
            came = line.recv_into(block[count:])
        except AGAIN:
            if count - waited >= _MUCH and poll.poll(_MOMENT_MS):
                waited = count
                continue
            break
        except OSError:
            came = 0
        if not came:
            return count, True
        count += came
    return count, False


async def _at_once(work: Callable[..., None], *arguments: object) -> None:
    work(*arguments)


async def _receive_small(
    request: web.Request, sink: UpdateSink, length: int, run: Callable[..., Awaitable[None]]
) -> None:
    block, count = memoryview(bytearray(length)), 0
    try:
        while chunk := await _chunk(request):
            block[count : count + len(chunk)] = chunk
            count += len(chunk)
    finally:
        if count:
            await run(sink.write, block[:count])


async def _chunk(request: web.Request) -> bytes:
    async with _patience(time.monotonic()):
        return await request.content.readany()


@asynccontextmanager
async def _patience(heard: float) -> AsyncIterator[None]:
    """For a minute after something was heard."""
    try:
        async with asyncio.timeout(heard + _IDLE - time.monotonic()):
            yield
    except TimeoutError as error:
        raise TransportError("nothing came for a minute") from error
