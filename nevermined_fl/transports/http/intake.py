"""An intake: lets the socket fill a block, and reads on when somebody has taken it; meanwhile the kernel receives.

Rule 1: memory for bodies is bounded, however many come at once: whoever has sent something waits for a block of the pool,
and whoever is silent holds none. Rule 2: what came is handed on after a moment, so that a slow and shaky line gets on; a
fast one is only looked at when much has come.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

from nevermined_fl.errors import TransportError

if TYPE_CHECKING:
    from nevermined_fl.transports.http.pool import Pool

__all__ = ["IDLE", "Intake"]

IDLE = 60.0
"""Seconds without a byte after which a body counts as given up."""
_MOMENT = 0.25
_SCRAP = 4096
"""What is read from whoever finds no block free, before he waits for one."""
_MUCH = 512 * 1024
"""What should have come before a body is looked at again."""
_AHEAD = 1 << 20
"""More than what TLS may have read already: near its end a body is not waited for."""
_NUMBER = 8
"""Bytes of the largest number: blocks end where one does, for what is whole need not be put together."""


class Intake(asyncio.BufferedProtocol):
    """Stands in for aiohttp's protocol while a body comes; what is not about reading is still for that one."""

    def __init__(self, transport: asyncio.Transport, protocol: asyncio.Protocol, pool: Pool) -> None:
        self._transport = transport
        self._protocol = protocol
        self._pool = pool
        self._offered = self._none = memoryview(b"")
        self._block = self._none  # one's own, with ``count`` bytes in it
        self._lent = self._none
        self._rest = b""  # the beginning of a number, for the next block
        self._count = self._left = self._position = 0
        self._is_lost = False
        self._level = 1
        self._came = asyncio.Event()
        transport.pause_reading()

    def expect(self, length: int, *, first: int) -> None:
        """So many bytes come, the first of them at ``first``."""
        self._left, self._position = length, first

    async def filled(self) -> memoryview:
        """The next block, good until it is handed back; empty at the body's end.

        Raises:
            ConnectionResetError: the body ended early.
            TransportError: nothing came for a minute.
        """
        silence = 0.0
        while self._left or self._block:
            silence = 0.0 if await self._something(silence) else silence + _MOMENT
            if silence > IDLE:
                raise TransportError("nothing came for a minute")
            if len(self._block) == _SCRAP and self._left:
                await self._exchange()
            elif self._block and (whole := self._cut()):
                return whole
            elif self._is_lost:
                raise ConnectionResetError
        return self._none

    def hand_back(self) -> None:
        """The block that ``filled`` gave."""
        self._pool.give(self._lent)
        self._lent = self._none

    def let_go(self) -> None:
        """Read no more; a block that was not handed back may still be looked at."""
        self._pool.give(self._block)
        self._pool.replace(self._lent)
        self._block = self._lent = self._none
        self._look_at(1)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Room for what comes, and for no byte that is not the body's.

        A block of the pool is only looked at: it is taken when something has come.
        """
        self._offered = self._block
        if not self._block:
            self._offered = self._pool.look() or memoryview(bytearray(_SCRAP))
            self._count = len(self._rest)
            self._offered[: self._count] = self._rest
        return self._offered[self._count : self._count + self._left]

    def buffer_updated(self, nbytes: int) -> None:
        """Note what came, and read no more until it is taken."""
        if not self._block:
            self._block = self._pool.take(self._offered)
        self._count += nbytes
        self._left -= nbytes
        self._transport.pause_reading()
        self._came.set()

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
        self._came.set()

    async def _something(self, silence: float) -> bool:
        """Whether anything came within a moment: much of it, but for a line that was silent."""
        if not self._is_lost:
            self._came.clear()
            self._look_at(1 if silence or self._left < _MUCH + _AHEAD else _MUCH)
            self._transport.resume_reading()
        try:
            async with asyncio.timeout(_MOMENT):
                return await self._came.wait()
        except TimeoutError:
            return False

    def _look_at(self, level: int) -> None:
        """Be told when so many bytes are there."""
        if level != self._level and (sock := self._transport.get_extra_info("socket")) is not None:
            with suppress(OSError):  # it may be closed
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, level)
        self._level = level

    async def _exchange(self) -> None:
        """A scrap for a block of the pool, in one's turn; there is more where it came from."""
        self._transport.pause_reading()
        block = await self._pool.wait()
        block[: self._count] = self._block[: self._count]
        self._block = block

    def _cut(self) -> memoryview:
        """What is whole of the block, now lent; the rest is kept for the next one."""
        self._transport.pause_reading()
        end = self._position + self._count
        whole = max(0, end - self._position - (end % _NUMBER if self._left else 0))
        self._rest = bytes(self._block[whole : self._count])
        self._position += whole
        self._lent, self._block = self._block, self._none
        if not whole:
            self.hand_back()
            return self._none
        return self._lent[:whole]
