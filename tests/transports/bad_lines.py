"""Lines between a participant and a coordinator that cut, lead through a proxy, or answer too early."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress


async def pump(reader, writer, budget):
    """Copy until the budget, shared by both directions, is spent; then cut both."""
    with suppress(OSError):
        while block := await reader.read(65536):
            writer.write(block[: max(0, budget[0])])
            budget[0] -= len(block)
            await writer.drain()
            if budget[0] <= 0:
                break
    writer.close()


async def join_up(near, far, budget):
    await asyncio.wait(
        [asyncio.ensure_future(pump(near[0], far[1], budget)), asyncio.ensure_future(pump(far[0], near[1], budget))],
        return_when=asyncio.FIRST_COMPLETED,
    )
    for _, writer in (near, far):
        writer.transport.abort()


class Cutter:
    """Passes bytes on to ``port``; connection number n is cut after ``budgets[n]`` bytes, the last ones are not."""

    def __init__(self, port, budgets):
        self._port, self._budgets = port, list(budgets)
        self.connections = 0

    async def serve(self, reader, writer):
        self.connections += 1
        budget = [self._budgets.pop(0) if self._budgets else 1 << 40]
        far = await asyncio.open_connection("127.0.0.1", self._port)
        await join_up((reader, writer), far, budget)


class ConnectProxy:
    """Takes CONNECT, to one port, and nothing else."""

    def __init__(self, port):
        self._port = port
        self.asked = []

    async def serve(self, reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        method, place, _ = head.decode().split("\r\n")[0].split()
        self.asked.append((method, place))
        if (method, place) != ("CONNECT", f"127.0.0.1:{self._port}"):
            writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
            writer.close()
            return
        far = await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n")
        await join_up((reader, writer), far, [1 << 40])


@asynccontextmanager
async def listening(line):
    """The port at which ``line.serve`` takes connections."""
    server = await asyncio.start_server(line.serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
