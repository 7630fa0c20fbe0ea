"""The door: TCP connections are let in a few at a time, until each has said its TLS hello.

Rule 1: a handshake costs memory and processor time before anything is known of a peer, so only so many are open at once; who
comes later waits in the kernel, where it costs next to nothing. Rule 2: who stands in the door for long makes room when
others wait: the longest there of the address that has most of them.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
import time
from collections import Counter
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from nevermined_fl.transports.http.stream import Stream

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

__all__ = ["Door", "allow_many_files", "listen"]

logger = logging.getLogger(__name__)

_HANDSHAKE = 15.0
"""Seconds that a handshake may take while nobody waits."""
_PATIENCE = 1.5
"""Seconds that it may take in any case: as much as a bad line needs, and so little that a whole backlog of strangers who
say nothing is through before a participant who waits behind them gives up dialling."""
_MOST = 256
_NAP = 1.0
_BACKLOG = 1024
# A connection whose other end vanished is noticed within minutes; accepted sockets inherit these.
_SOCKET_OPTIONS = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 120_000),
)


class Door:
    """Lets connections of one listening socket in.

    Args:
        sock: it listens, and does not block; closed with the door.
        factory: makes the protocol of a connection.
        context: for TLS; none: everybody is in at once.
        most: handshakes that may be open.
        patience: seconds that each may take, even if others wait.
    """

    def __init__(
        self,
        sock: socket.socket,
        factory: Callable[[], asyncio.Protocol],
        context: ssl.SSLContext | None,
        *,
        most: int = _MOST,
        patience: float = _PATIENCE,
    ) -> None:
        self._sock, self._factory, self._context = sock, factory, context
        self._most, self._patience = most, patience
        self._inside: dict[asyncio.Task[None], tuple[str, float]] = {}  # whose address, since when; oldest first
        self._letting_in = asyncio.ensure_future(self._let_in())

    def unfinished(self) -> int:
        """Handshakes that are open."""
        return len(self._inside)

    async def close(self) -> None:
        """Let nobody in any more; who is in stays."""
        tasks = [self._letting_in, *self._inside]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._sock.close()

    async def _let_in(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, address = await loop.sock_accept(self._sock)
            except OSError as error:
                logger.warning("cannot accept a connection: %s", error)
                await asyncio.sleep(0 if isinstance(error, ConnectionError) else _NAP)  # perhaps no file is free
                continue
            task = asyncio.ensure_future(self._shake(sock))
            self._inside[task] = (str(address[0]), time.monotonic())
            task.add_done_callback(partial(self._passed, sock))
            await asyncio.sleep(0)  # accepting has no end where somebody knocks fast
            while len(self._inside) >= self._most:
                await self._make_room()

    async def _make_room(self) -> None:
        """Wait until somebody is through, or has been there for too long."""
        many = Counter(address for address, _ in self._inside.values())
        [(busiest, _)] = many.most_common(1)
        oldest, since = next((task, since) for task, (address, since) in self._inside.items() if address == busiest)
        rest = self._patience - (time.monotonic() - since)
        if rest <= 0:
            oldest.cancel()
        await asyncio.wait(self._inside, timeout=max(0.0, rest) or None, return_when=asyncio.FIRST_COMPLETED)

    async def _shake(self, sock: socket.socket) -> None:
        with suppress(OSError):  # it hung up, or speaks no TLS: no news
            stream = Stream(sock, self._context)
            await stream.handshake(_HANDSHAKE)
            try:
                stream.start(self._factory())
            except OSError:
                stream.abort()

    def _passed(self, sock: socket.socket, task: asyncio.Task[None]) -> None:
        del self._inside[task]
        if task.cancelled():
            sock.close()  # perhaps before anything was begun with it


def listen(host: str, port: int) -> socket.socket:
    """A socket for a door. Raises OSError: the port is taken, or no such host."""
    family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    sock = socket.socket(family, kind)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for level, option, value in _SOCKET_OPTIONS:
            sock.setsockopt(level, option, value)
        sock.bind(address)
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def allow_many_files() -> None:
    """A thousand participants are a thousand connections and as many open files."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
