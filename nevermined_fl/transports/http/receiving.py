"""Receiving a body: from the socket into a block, and from the block, in a thread, into the sink.

A large body does not pass through aiohttp, which copies it three times: its connection is handed to an ``Intake``. It ends
with the answer, for aiohttp's parser would still wait for the body.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from weakref import WeakSet

from nevermined_fl.errors import TransportError
from nevermined_fl.transports.http.intake import IDLE, Intake
from nevermined_fl.transports.http.pool import Pool

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from concurrent.futures import Executor

    from aiohttp import web

    from nevermined_fl.ports import UpdateSink

__all__ = ["Receiver"]

_AT_ONCE = 512 * 1024
"""An update of at most so many bytes is taken in without a thread: that would cost more than the digest.

The end of a larger one is not: what came before may be read again with it, and the whole is judged.
"""


class Receiver:
    """Takes bodies in; ``executor`` runs what the sinks do with them."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._pool = Pool()
        self._taken: WeakSet[asyncio.Transport] = WeakSet()

    def has_taken(self, request: web.Request) -> bool:
        """Whether the body did not pass through aiohttp, so that nothing can follow on the connection."""
        return request.transport in self._taken

    async def receive(self, request: web.Request, sink: UpdateSink, total: int) -> None:
        """Put the body into the sink and commit it when all is there."""
        length = request.content_length or 0
        run = _at_once if total <= _AT_ONCE else self._run
        if length <= _AT_ONCE:
            await _receive_small(request, sink, length, run)
            if sink.offset == total:
                await run(sink.commit)
        else:
            await self._receive_large(request, sink, length, total)

    async def _receive_large(self, request: web.Request, sink: UpdateSink, length: int, total: int) -> None:
        transport, protocol = request.transport, request.protocol
        if transport is None:
            raise ConnectionResetError
        end = sink.offset + length
        # What aiohttp took off the wire meanwhile; nothing is awaited from here until the intake stands in for it.
        pieces = list(iter(request.content.read_nowait, b""))
        intake = Intake(transport, protocol, self._pool)
        transport.set_protocol(intake)
        self._taken.add(transport)
        try:
            for piece in pieces:
                await self._run(_take_in, sink, memoryview(piece), total)
            intake.expect(end - sink.offset, first=sink.offset)
            while block := await intake.filled():
                await self._run(_take_in, sink, block, total)
                intake.hand_back()
        finally:
            intake.let_go()
            transport.set_protocol(protocol)
            transport.resume_reading()  # who still sends a body that was refused gets to read why
        request.content.feed_eof()

    async def _run(self, work: Callable[..., None], *arguments: object) -> None:
        await asyncio.get_running_loop().run_in_executor(self._executor, work, *arguments)


def _take_in(sink: UpdateSink, block: memoryview, total: int) -> None:
    sink.write(block)
    if sink.offset == total:
        sink.commit()


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
    try:
        async with asyncio.timeout(IDLE):
            return await request.content.readany()
    except TimeoutError as error:
        raise TransportError("nothing came for a minute") from error
