"""Farewell: everybody present is told that the session is over, also by a coordinator that was killed in between."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import TYPE_CHECKING

from nevermined_fl.files import write_json

if TYPE_CHECKING:
    from pathlib import Path

    from nevermined_fl.session import Session

__all__ = ["Farewell"]


class Farewell:
    """``heard`` is the file that remembers who was told, so that whoever comes back waits for the others alone."""

    def __init__(self, heard: Path) -> None:
        self._file = heard
        self._told: set[str] = set()
        self._heard = asyncio.Event()

    def tell(self, participant: str) -> None:
        """It is being told."""
        self._told.add(participant)
        self._heard.set()

    async def wait(self, session: Session, seconds: float) -> None:
        """Wait until everybody present has been told, but not for longer."""
        self._told |= self._recall(session.turn)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not set(session.present()) <= self._told:
                    self._heard.clear()
                    await self._heard.wait()
                    # Only now: in the turn of the loop in which the task was handed over, its answer went out.
                    self._remember(session.turn)
        self._remember(session.turn)

    def _recall(self, turn: int) -> set[str]:
        """Who was told of the end that came in that turn: a session that went back for a lost model has another."""
        try:
            body = json.loads(self._file.read_bytes())
            return set(body["heard"]) if body["turn"] == turn else set()
        except (OSError, ValueError, TypeError, KeyError):
            return set()

    def _remember(self, turn: int) -> None:
        with suppress(OSError):  # it saves a wait; a full disk costs one
            write_json(self._file, {"turn": turn, "heard": sorted(self._told)})
