"""A download: whoever held its connection's reading back goes on holding it, and nobody else does."""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest
from aiohttp import web
from transport_worlds import contexts

from nevermined_fl.transports.http.door import Door
from nevermined_fl.transports.http.sending import send_file

BODY = bytes(range(256)) * 2400
"""Longer than what is sent at once."""
MANY = 40
"""More requests than aiohttp takes in before it stops reading."""


class Downloads:
    """Sends the body to whoever asks, and notes before and after it whether the connection was read from."""

    def __init__(self, folder):
        (folder / "body").write_bytes(BODY)
        self._path, self._seen = folder / "body", asyncio.Queue()

    async def answer(self, request):
        before = request.transport.is_reading()
        response = await send_file(request, self._path, self._executor)
        self._seen.put_nowait((before, request.transport.is_reading()))
        return response

    async def ask(self, count):
        """So many requests in one piece; what was noted of each, when all are answered."""
        self._writer.write(b"GET / HTTP/1.1\r\nHost: c\r\n\r\n" * count)
        for _ in range(count):
            await self._reader.readuntil(b"\r\n\r\n")
            assert await self._reader.readexactly(len(BODY)) == BODY
        return [await self._seen.get() for _ in range(count)]

    async def open(self, contexts):
        application = web.Application()
        application.router.add_get("/", self.answer)
        self._executor = ThreadPoolExecutor(1)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        sock = socket.create_server(("127.0.0.1", 0))
        sock.setblocking(False)
        self._door = Door(sock, self._runner.server, contexts[0])
        address = sock.getsockname()
        self._reader, self._writer = await asyncio.open_connection(*address, ssl=contexts[1])

    async def close(self):
        self._writer.close()
        await self._door.close()
        await self._runner.cleanup()
        self._executor.shutdown()


@pytest.fixture(params=["tcp", "tls"])
async def downloads(request, tmp_path):
    downloads = Downloads(tmp_path)
    await downloads.open(contexts(request.param, tmp_path))
    yield downloads
    await downloads.close()


async def test_a_connection_is_read_from_again_after_a_download(downloads):
    async with asyncio.timeout(20):
        assert await downloads.ask(1) == [(True, True)]
        assert await downloads.ask(1) == [(True, True)]


async def test_who_asks_for_more_than_is_taken_in_is_not_read_from_after_a_download(downloads):
    """aiohttp stops reading then, until it has answered half of what it took in."""
    async with asyncio.timeout(60):
        seen = await downloads.ask(MANY)
    assert (seen[0], seen[-1]) == ((False, False), (True, True))
    assert all(before == after for before, after in seen)
