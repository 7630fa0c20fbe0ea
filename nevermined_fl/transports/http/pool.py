"""Blocks of memory for all bodies that come at once: bounded, lent in turn."""

from __future__ import annotations

import asyncio
from collections import deque

__all__ = ["Pool"]

_BLOCK = 1024 * 1024
_BLOCKS = 16


class Pool:
    """The blocks of all bodies; those used last are lent first, for they lie in the processor's cache.

    What is not one of its blocks is taken and given as well, and is nobody's affair.
    """

    def __init__(self, count: int = _BLOCKS, size: int = _BLOCK) -> None:
        self._size = size
        self._unmade = count
        self._free: list[memoryview] = []
        self._waiting: deque[asyncio.Future[memoryview]] = deque()

    def look(self) -> memoryview | None:
        """The block that comes next, if one is free; who does not take it leaves it to others."""
        if not self._free and self._unmade:
            self._unmade -= 1
            self._free.append(memoryview(bytearray(self._size)))
        return self._free[-1] if self._free else None

    def take(self, block: memoryview) -> memoryview:
        """Take the block that was looked at."""
        return self._free.pop() if len(block) == self._size else block

    async def wait(self) -> memoryview:
        """A block, when it is one's turn."""
        if (block := self.look()) is not None:
            return self.take(block)
        turn: asyncio.Future[memoryview] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give(turn.result())
            raise

    def give(self, block: memoryview) -> None:
        """Take a block back that nobody looks at any more."""
        if len(block) < self._size:
            return
        while self._waiting:
            if not (turn := self._waiting.popleft()).done():
                turn.set_result(block)
                return
        self._free.append(block)

    def replace(self, block: memoryview) -> None:
        """Take back another one for a block that a thread may still look at."""
        self.give(memoryview(bytearray(len(block))))
