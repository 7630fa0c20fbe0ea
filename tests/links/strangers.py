"""Two hundred connections of people who want nothing good: silent, endless headers, garbage, endless bodies."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import ssl

from nevermined_fl.files import append_line

COUNT = 200
_TRICKLE = 0.05


class Strangers:
    """Keeps ``COUNT`` connections to one address; whoever is thrown out comes again."""

    def __init__(self, address, log):
        self._address, self._log = address, log
        self._met, self._thrown_out = set(), 0

    def run(self):
        """For ever."""
        asyncio.run(self._all())

    async def _all(self):
        manners = itertools.cycle([self._silent, self._headers, self._garbage, self._body])
        await asyncio.gather(*(self._one(number, next(manners)) for number in range(COUNT)))

    async def _one(self, number, manner):
        while True:
            try:
                await manner(number)
            except (OSError, EOFError, asyncio.IncompleteReadError):
                self._thrown_out += 1
                await asyncio.sleep(_TRICKLE)

    def _is_in(self, number):
        if number not in self._met:
            self._met.add(number)
            if len(self._met) == COUNT:
                append_line(self._log, json.dumps({"event": "all in", "sent": COUNT}))

    async def _silent(self, number):
        """A connection on which not even TLS begins."""
        reader, _writer = await asyncio.open_connection(*self._address)
        self._is_in(number)
        if not await reader.read(1):
            raise EOFError

    async def _headers(self, number):
        """Slow-loris: one header after the other, never the last."""
        writer = await self._tls(number)
        writer.write(b"GET /v1/tasks?after=0&wait=25 HTTP/1.1\r\nHost: coordinator\r\n")
        for count in itertools.count():
            writer.write(f"X-{count}: {count}\r\n".encode())
            await writer.drain()
            await asyncio.sleep(_TRICKLE)

    async def _garbage(self, number):
        """Bytes that are no TLS."""
        reader, writer = await asyncio.open_connection(*self._address)
        self._is_in(number)
        writer.write(random.Random(number).randbytes(2000))
        await writer.drain()
        if not await reader.read(1):
            raise EOFError

    async def _body(self, number):
        """A join whose body comes byte by byte."""
        writer = await self._tls(number)
        writer.write(b"POST /v1/join HTTP/1.1\r\nHost: coordinator\r\nContent-Length: 500000\r\n\r\n")
        while True:
            writer.write(b"{")
            await writer.drain()
            await asyncio.sleep(_TRICKLE)

    async def _tls(self, number):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        _, writer = await asyncio.open_connection(*self._address, ssl=context)
        self._is_in(number)
        return writer
