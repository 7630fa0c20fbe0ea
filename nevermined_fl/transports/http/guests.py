"""Guests: whose connection is which, so that strangers cannot take all that this process may open.

Rule 1: a connection on which nobody has said who he is does not stay. Rule 2: who has said it holds a few connections, not many.
"""

from __future__ import annotations

import time
from collections import defaultdict
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable

__all__ = ["Guests"]

_MOST = 8
"""Connections of one participant: one is enough, and some may be dead without anybody knowing it yet."""


class Guests:
    """The connections of one server.

    Args:
        greeting: seconds in which a connection has to show a bearer, or to join.
        strangers: connections that may be open without; beyond that the oldest go.
    """

    def __init__(self, *, greeting: float, strangers: int) -> None:
        self._greeting, self._most_strangers = greeting, strangers
        self.known: WeakKeyDictionary[asyncio.Transport, str] = WeakKeyDictionary()
        self._of: defaultdict[str, list[asyncio.Transport]] = defaultdict(list)
        self._strangers: dict[asyncio.Transport, float] = {}

    def greet(self, transport: asyncio.Transport, participant: str) -> None:
        """This connection is that participant's."""
        if self.known.get(transport) == participant:
            return
        self.known[transport] = participant
        mine = [each for each in self._of[participant] if not each.is_closing() and each is not transport]
        for each in mine[: max(0, len(mine) + 1 - _MOST)]:
            each.abort()
        self._of[participant] = [*mine[-(_MOST - 1) :], transport]

    def name(self, transport: asyncio.Transport | None) -> str:
        """Whose connection it is; empty for a stranger's."""
        return self.known.get(transport, "") if transport is not None else ""

    def sweep(self, connections: Iterable[asyncio.Transport]) -> None:
        """End connections of strangers that are too old or too many; aiohttp itself waits for a first request for ever."""
        now = time.monotonic()
        strangers = (transport for transport in connections if transport not in self.known)
        self._strangers = {transport: self._strangers.get(transport, now) for transport in strangers}
        oldest = sorted(self._strangers.items(), key=lambda item: item[1])
        for place, (transport, since) in enumerate(oldest):
            if now - since > self._greeting or place < len(oldest) - self._most_strangers:
                transport.abort()
