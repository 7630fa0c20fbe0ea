"""Processes that stand in the way: a wire that delays, counts and is cut; a proxy that allows CONNECT to one port."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress

from nevermined_fl.files import append_line

_BLOCK = 16 * 1024


class Wire:
    """Listens and dials on; ``delay`` seconds each way, and at ``cut_after`` bytes sent onward it is cut for ``cut``."""

    def __init__(self, listen, onward, log, *, delay=0.0, cut_after=None, cut=0.0):
        self._listen, self._onward, self._log = listen, onward, log
        self._delay, self._cut_after, self._cut = delay, cut_after, cut
        self._sent = 0
        self._writers = set()
        self._is_cut = False

    def run(self):
        """For ever."""
        asyncio.run(self._serve())

    async def _serve(self):
        server = await asyncio.start_server(self._take, *self._listen)
        self._tell("open")
        async with server:
            await server.serve_forever()

    def _tell(self, event):
        append_line(self._log, json.dumps({"event": event, "sent": self._sent}))

    async def _take(self, reader, writer):
        if self._is_cut:
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._onward)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, far_writer}
        await asyncio.gather(self._pump(reader, far_writer, onward=True), self._pump(far_reader, writer, onward=False))
        self._writers -= {writer, far_writer}

    async def _pump(self, reader, writer, *, onward):
        queue = asyncio.Queue(512 if self._delay else 2)
        sender = asyncio.ensure_future(self._send(queue, writer))
        loop = asyncio.get_running_loop()
        with suppress(ConnectionError):
            while block := await reader.read(_BLOCK):
                await queue.put((loop.time() + self._delay, block))
                if onward:
                    self._sent += len(block)
                    self._tell("sent")
                    if self._cut_after is not None and self._sent >= self._cut_after:
                        self._cut_after = None
                        task = asyncio.ensure_future(self._be_cut())
                        await asyncio.sleep(0)
                        assert not task.done()
        await queue.put((loop.time() + self._delay, b""))
        await sender

    async def _send(self, queue, writer):
        loop = asyncio.get_running_loop()
        with suppress(ConnectionError):
            while True:
                when, block = await queue.get()
                await asyncio.sleep(when - loop.time())
                if not block:
                    break
                writer.write(block)
                await writer.drain()
        while not queue.empty():
            queue.get_nowait()
        writer.transport.abort()

    async def _be_cut(self):
        self._is_cut = True
        self._tell("cut")
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(self._cut)
        self._is_cut = False
        self._tell("mended")


class ConnectProxy:
    """CONNECT to port 443 and nothing else; says in its log what it was asked."""

    def __init__(self, listen, log):
        self._listen, self._log = listen, log

    def run(self):
        """For ever."""
        asyncio.run(self._serve())

    async def _serve(self):
        server = await asyncio.start_server(self._take, *self._listen)
        append_line(self._log, json.dumps({"event": "open"}))
        async with server:
            await server.serve_forever()

    async def _take(self, reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode("ascii")
        method, target, _ = head.split("\r\n")[0].split(" ")
        host, _, port = target.rpartition(":")
        allowed = method == "CONNECT" and port == "443"
        append_line(self._log, json.dumps({"event": "asked", "method": method, "target": target, "allowed": allowed}))
        if not allowed:
            writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
            writer.close()
            return
        far_reader, far_writer = await asyncio.open_connection(host, 443)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))


async def _copy(reader, writer):
    with suppress(ConnectionError):
        while block := await reader.read(_BLOCK):
            writer.write(block)
            await writer.drain()
    writer.transport.abort()


def told(log):
    """What a wire or proxy has told so far."""
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
