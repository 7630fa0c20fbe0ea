"""Asking: what is to be done next?

A coordinator that has nothing yet lets us wait for its answer. One that says so at once, or asks for what must be refused,
would be asked ever again, as fast as two machines can: each time the pause before the next question gets longer.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from nevermined_fl.messages import Wait

if TYPE_CHECKING:
    from collections.abc import Callable

    from nevermined_fl.messages import Task
    from nevermined_fl.ports import CoordinatorLink

__all__ = ["Asking"]

_WAIT = 25.0
_FIRST, _LONGEST = 0.05, 5.0
"""Seconds: a pause is twice the one before it."""


class Asking:
    """Asks over ``link``, and not without pause where waiting is cut short."""

    def __init__(self, link: CoordinatorLink, clock: Callable[[], float] = time.monotonic) -> None:
        self._link = link
        self._clock = clock
        self._pause = 0.0

    async def next_task(self, after: int) -> Task:
        """The first task after that one, or Wait when there was none for a while."""
        begun = self._clock()
        task = await self._link.next_task(after=after, wait=_WAIT)
        if isinstance(task, Wait):
            if self._clock() - begun < _WAIT / 2:
                await self.pause()
            else:
                self.go_on()
        return task

    async def pause(self) -> None:
        """For longer than the last time."""
        self._pause = min(max(2 * self._pause, _FIRST), _LONGEST)
        await asyncio.sleep(self._pause)

    def go_on(self) -> None:
        """The coordinator means it: the next pause is short again."""
        self._pause = 0.0
