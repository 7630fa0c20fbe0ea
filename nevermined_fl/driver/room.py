"""Room on the disk: when there is none, say so once, wait, and go on by itself."""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from nevermined_fl.errors import StorageFull

__all__ = ["Room", "wait_for_room"]

logger = logging.getLogger(__name__)

_LEAST = 256 * 1024
_REMIND = 60.0
_FRESH = 2.0
_LOOK = 0.5
"""Seconds between looks at a full disk: another program may make room, and nobody tells us."""


class Room:
    """What is known of the disk that ``folder`` is on. Notes may come from any thread."""

    def __init__(self, folder: Path, context: dict[str, Any]) -> None:
        self._folder = folder
        self._context = context
        self._noted = self._said = -_REMIND
        self.needed = 0

    def is_full(self) -> bool:
        """Whether something was refused just now, or would be refused again, as far as the disk says."""
        if self.needed and time.monotonic() - self._noted > _FRESH and self._fits():
            self.needed = 0
            logger.info("there is room on the disk again", extra=self._context)
        return self.needed > 0

    def note(self, full: StorageFull) -> None:
        """Something found no room."""
        self.needed = max(self.needed, full.needed, _LEAST)
        self._noted = now = time.monotonic()
        if now - self._said < _REMIND:
            return
        self._said = now
        free = shutil.disk_usage(self._folder).free
        text = "disk full: %d bytes are needed, %d are free (%s); waiting, nothing is lost"
        logger.error(text, self.needed, free, full.message, extra=self._context)

    async def wait(self, full: StorageFull, *, until: Callable[[], bool] = lambda: False) -> None:
        """Return when another try makes sense: there is room, or a quota of which the disk says nothing; or ``until``."""
        self.note(full)
        await asyncio.sleep(_LOOK)
        while not self._fits() and not until():  # noqa: ASYNC110  no event tells that another program made room
            await asyncio.sleep(_LOOK)

    def _fits(self) -> bool:
        return shutil.disk_usage(self._folder).free >= self.needed


async def wait_for_room(folder: Path, full: StorageFull) -> None:
    """As Room.wait, before there is a session."""
    with suppress(FileNotFoundError):
        await Room(folder, {}).wait(full)
