"""``status.json``: phase, round, deadline, and of each member of the cohort what it is doing. For people and the launcher.

Rule 1: whole or not there, except where the disk is full: then it is overwritten in place. Rule 2: no words of peers.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from nevermined_fl.errors import StorageFull
from nevermined_fl.files import storage, write_atomic

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from nevermined_fl.driver.room import Room
    from nevermined_fl.driver.watch import Watch
    from nevermined_fl.session import Session

__all__ = ["Status"]

_OFTEN = 0.5
_AT_ONCE = 0.05
"""Seconds between two writes, and between two changes of phase that are both written."""
_SELDOM = 5.0
"""Seconds after which it is written although nothing happened: silences grow."""


class Status:
    """Writes the status of one session while it runs."""

    def __init__(
        self, path: Path, watch: Watch, room: Room, session: Callable[[], Session], clock: Callable[[], float]
    ) -> None:
        self._path = path
        self._clock = clock
        self._watch = watch
        self._room = room
        self._session = session
        self._turned = asyncio.Event()
        self._written = 0.0
        self._lock = threading.Lock()
        self._newest = 0.0

    def turn(self) -> None:
        """Another phase, or another turn of the same one: worth writing at once."""
        self._turned.set()

    async def run(self) -> None:
        """Write it at once when the phase changes, twice a second while something moves, and for ever."""
        last: dict[str, Any] = {}
        while True:
            body = self.body()
            moved = _without_clocks(body)
            now = time.monotonic()
            if self._turned.is_set() or moved != last or now - self._written > _SELDOM:
                self._turned.clear()
                await asyncio.to_thread(self._write, body, now)
                last, self._written = moved, now
            await asyncio.sleep(_AT_ONCE)
            with suppress(TimeoutError):
                async with asyncio.timeout(_OFTEN - _AT_ONCE):
                    await self._turned.wait()

    def write(self) -> None:
        """Write it now."""
        self._write(self.body(), time.monotonic())

    def body(self) -> dict[str, Any]:
        """What it says. The session's deadline is on the driver's own clock, so it is told as the reader's clock has it."""
        session, now = self._session(), time.time()
        left = None if session.deadline is None else session.deadline - self._clock()
        return {
            "time": round(now, 3),
            "session": session.id,
            "phase": str(session.phase),
            "round": session.round,
            "rounds": session.plan.rounds,
            "turn": session.turn,
            "attempt": session.attempt,
            "deadline": None if left is None else round(now + left, 3),
            "remaining": None if left is None else round(max(left, 0.0), 1),
            "updates": len(session.answers()),
            "target": session.target,
            "problem": "disk_full" if self._room.is_full() else "",
            "needed": self._room.needed,
            "members": [] if session.is_over() else self._watch.members(session),
        }

    def _write(self, body: dict[str, Any], taken: float) -> None:
        text = json.dumps(body) + "\n"
        with self._lock:
            if taken < self._newest:
                return  # a thread that nobody waits for any more must not undo the last word
            self._newest = taken
            try:
                with storage("the status", len(text)):
                    write_atomic(self._path, text)
            except StorageFull as full:
                self._room.note(full)
                self._overwrite(body, text)

    def _overwrite(self, body: dict[str, Any], text: str) -> None:
        """In the blocks that the file has: a full disk must not keep the news of itself from being read."""
        if not self._path.exists():
            return
        blocks = 512 * self._path.stat().st_blocks
        if len(text) > blocks:
            text = json.dumps(body | {"members": []}) + "\n"
        if len(text) <= blocks:
            with self._path.open("r+b") as file:
                os.pwrite(file.fileno(), text.encode(), 0)
                os.ftruncate(file.fileno(), len(text))


def _without_clocks(body: dict[str, Any]) -> dict[str, Any]:
    members = [{name: value for name, value in row.items() if name != "seconds"} for row in body["members"]]
    return body | {"time": 0, "deadline": 0, "remaining": 0, "members": members}
