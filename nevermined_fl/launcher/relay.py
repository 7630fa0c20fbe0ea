"""Relay: a job's only way out, a unix socket behind which the launcher dials exactly one host and port.

It copies bytes and understands none: TLS runs between the job and the coordinator, so the launcher cannot read updates
either. What leaves is bounded, for the buyer's code chooses it. With a proxy, that is dialled, and asked for a tunnel.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from nevermined_fl.errors import TransportError
from nevermined_fl.launcher.sockets import bound_unix
from nevermined_fl.transports.http import proxy as tunnel

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from nevermined_fl.launcher.targets import Target

__all__ = ["Relay"]

logger = logging.getLogger(__name__)
_BLOCK = 256 * 1024
_CONNECTIONS = 16
_DIAL_SECONDS = 10.0


class Relay:
    """Serves ``path`` and dials ``target``.

    Args:
        path: the unix socket, made by :meth:`start`.
        target: where every connection goes; without addresses its name is for the proxy to look up.
        idle: seconds without a byte in either direction after which a connection is closed.
        budget: bytes that may leave in all.
        proxy: ``http://host:port`` of a proxy that takes CONNECT, or nothing.
    """

    def __init__(
        self, path: Path, target: Target, *, idle: float = 600.0, budget: int = 1 << 40, proxy: str = ""
    ) -> None:
        self._path = path
        self._target = target
        self._idle = idle
        self._left = budget
        self._proxy = tunnel.parse_proxy(proxy)
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen."""
        with bound_unix(self._path) as sock:
            self._server = await asyncio.start_unix_server(self._serve, sock=sock, limit=_BLOCK)

    async def close(self) -> None:
        """Stop listening and drop every connection."""
        if self._server:
            self._server.close()
        for task in tuple(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            if len(self._connections) <= _CONNECTIONS:
                await self._relay(reader, writer)
        except asyncio.CancelledError:
            # close() awaits this very task; streams would log the cancellation as an error.
            logger.debug("relay closed")
        finally:
            self._connections.discard(task)
            writer.transport.abort()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        outer = await self._dial()
        if outer is None:
            return
        far_reader, far_writer = outer
        alive = _Alive()
        pumps = [
            asyncio.ensure_future(self._pump(reader, far_writer, alive, outbound=True)),
            asyncio.ensure_future(self._pump(far_reader, writer, alive, outbound=False)),
        ]
        try:
            await self._watch(pumps, alive)
        finally:
            # Before anything is awaited, for another cancellation may come in there.
            far_writer.transport.abort()
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        for address in self._target.addresses or (self._target.host,):
            with suppress(OSError, TimeoutError, TransportError):
                async with asyncio.timeout(_DIAL_SECONDS):
                    return await self._reach(address)
        logger.debug("%s:%d does not answer", self._target.host, self._target.port)
        return None

    async def _reach(self, address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._proxy is None:
            return await asyncio.open_connection(address, self._target.port, limit=_BLOCK)
        reader, writer = await asyncio.open_connection(self._proxy.host, self._proxy.port, limit=_BLOCK)
        try:
            writer.write(tunnel.request(address, self._target.port))
            try:
                tunnel.judge(await reader.readuntil(tunnel.END))
            except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
                raise TransportError("the proxy's answer has no end") from error
        except BaseException as error:
            writer.transport.abort()
            logger.debug("no tunnel to %s: %s", address, error)
            raise
        return reader, writer

    async def _watch(self, pumps: Iterable[asyncio.Future[None]], alive: _Alive) -> None:
        """Return when both directions ended or nothing moved for a while."""
        pending = set(pumps)
        while pending:
            before = alive.blocks
            done, pending = await asyncio.wait(pending, timeout=self._idle, return_when=asyncio.FIRST_COMPLETED)
            if not done and alive.blocks == before:
                return
            if any(pump.exception() for pump in done):
                return

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, alive: _Alive, *, outbound: bool
    ) -> None:
        while block := await reader.read(_BLOCK):
            alive.blocks += 1
            if outbound:
                self._left -= len(block)
                if self._left < 0:
                    logger.warning("a job sent more than its budget; its connection is closed")
                    raise ConnectionAbortedError
            writer.write(block)
            await writer.drain()
        writer.write_eof()


class _Alive:
    """Counts blocks, so that the watch sees whether anything moved."""

    __slots__ = ("blocks",)

    def __init__(self) -> None:
        self.blocks = 0
