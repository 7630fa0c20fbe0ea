"""Receiving a body: from the socket into a block, and from the block, in a thread, into the sink.

A large body does not pass through aiohttp, which copies it three times: its connection is handed to an ``Intake`` that lets
the socket fill one block while the sink takes the other. The connection ends with the answer, for aiohttp's parser would
still wait for the body.

Rule 1: memory for bodies is bounded, however many come at once: when little is left, blocks are small. Rule 2: what came
before a disconnect is kept, and what lies in a block is handed on after a moment, so that a slow and shaky line gets on.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from weakref import WeakSet

from nevermined_fl.errors import TransportError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from concurrent.futures import Executor

    from aiohttp import web

    from nevermined_fl.ports import UpdateSink

__all__ = ["Receiver"]

_IDLE = 60.0
_MOMENT = 0.25
_AT_ONCE = 512 * 1024
"""An update of at most so many bytes is taken in without a thread: that would cost more than the digest.

The end of a larger one is not: what came before may be read again with it, and the whole is judged.
"""
_BLOCK = 1 << 20
_SMALLEST = 16 * 1024
_BUDGET = 24 << 20


class Receiver:
    """Takes bodies in; ``executor`` runs what the sinks do with them."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._left = _BUDGET
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
        else:
            async with self._blocks() as blocks:
                await self._receive_large(request, sink, length, blocks)
        if sink.offset == total:
            await run(sink.commit)

    async def _receive_large(
        self, request: web.Request, sink: UpdateSink, length: int, blocks: tuple[memoryview, memoryview]
    ) -> None:
        transport, protocol = request.transport, request.protocol
        if transport is None:
            raise ConnectionResetError
        end = sink.offset + length
        # What aiohttp took off the wire meanwhile; nothing is awaited from here until the intake stands in for it.
        pieces = list(iter(request.content.read_nowait, b""))
        intake = Intake(transport, protocol, blocks)
        transport.set_protocol(intake)
        self._taken.add(transport)
        try:
            for piece in pieces:
                await self._run(sink.write, memoryview(piece))
            intake.expect(end - sink.offset, first=sink.offset)
            async for block in intake.filled():
                await self._run(sink.write, block)
        finally:
            transport.set_protocol(protocol)
            transport.resume_reading()  # who still sends a body that was refused gets to read why
        request.content.feed_eof()

    async def _run(self, work: Callable[..., None], *arguments: object) -> None:
        await asyncio.get_running_loop().run_in_executor(self._executor, work, *arguments)

    @asynccontextmanager
    async def _blocks(self) -> AsyncIterator[tuple[memoryview, memoryview]]:
        size = max(_SMALLEST, min(_BLOCK, self._left // 16 // _SMALLEST * _SMALLEST))
        self._left -= 2 * size
        try:
            yield memoryview(bytearray(size)), memoryview(bytearray(size))
        finally:
            self._left += 2 * size


class Intake(asyncio.BufferedProtocol):
    """Stands in for aiohttp's protocol while a body comes; what is not about reading is still for that one."""

    def __init__(
        self, transport: asyncio.Transport, protocol: asyncio.Protocol, blocks: tuple[memoryview, memoryview]
    ) -> None:
        self._transport = transport
        self._protocol = protocol
        self._filling, self._other = blocks
        self._full = len(self._filling)
        self._count = 0
        self._left = 0
        self._is_lost = False
        self._ready = asyncio.Event()
        transport.pause_reading()

    def expect(self, length: int, *, first: int) -> None:
        """So many bytes come, the first of them at ``first``; blocks then end where a number does."""
        self._left = length
        self._full = len(self._filling) - first % 8
        if length:
            self._transport.resume_reading()

    async def filled(self) -> AsyncIterator[memoryview]:
        """Blocks as they come, each good until the next; ends with the body.

        Raises:
            ConnectionResetError: the body ended early.
            TransportError: nothing came for a minute.
        """
        silence = 0.0
        while self._left or self._count:
            try:
                async with asyncio.timeout(_MOMENT):
                    await self._ready.wait()
            except TimeoutError:
                silence += _MOMENT
            if self._count:
                silence = 0.0
                yield self._swap()
            elif self._is_lost:
                raise ConnectionResetError
            elif silence > _IDLE:
                raise TransportError("nothing came for a minute")

    def get_buffer(self, sizehint: int) -> memoryview:
        """Room for what comes, and for no byte that is not the body's."""
        return self._filling[self._count : min(self._full, self._count + self._left)]

    def buffer_updated(self, nbytes: int) -> None:
        """Note what came."""
        self._count += nbytes
        self._left -= nbytes
        if self._count == self._full or not self._left:
            self._transport.pause_reading()
            self._ready.set()

    def eof_received(self) -> None:
        """The body ends early."""
        self._lose()

    def connection_lost(self, exc: Exception | None) -> None:
        """The body ends early, and the connection with it."""
        self._lose()
        self._protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        """For aiohttp."""
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """For aiohttp."""
        self._protocol.resume_writing()

    def _lose(self) -> None:
        self._is_lost = True
        self._ready.set()

    def _swap(self) -> memoryview:
        block = self._filling[: self._count]
        self._filling, self._other = self._other, self._filling
        self._count, self._full = 0, len(self._filling)
        if not self._is_lost:
            self._ready.clear()
            if self._left:
                self._transport.resume_reading()
        return block


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
        async with asyncio.timeout(_IDLE):
            return await request.content.readany()
    except TimeoutError as error:
        raise TransportError("nothing came for a minute") from error
