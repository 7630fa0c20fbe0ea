"""Sending a file: small ones at once, large ones in a thread: by the kernel, or over TLS block by block."""

from __future__ import annotations

import asyncio
import os
import ssl
from typing import TYPE_CHECKING

from aiohttp import web

from nevermined_fl.errors import NotFound
from nevermined_fl.transports.http.stream import AGAIN, Stream, own_block
from nevermined_fl.transports.http.tls import TlsSocket

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from concurrent.futures import Executor
    from pathlib import Path

    from nevermined_fl.transports.http.stream import Line

__all__ = ["send_file"]

_AT_ONCE = 512 * 1024
_FIRST = 64 * 1024
_BLOCK = 256 * 1024
_TURN = 8 << 20
"""Bytes after which somebody else has a turn."""
_IDLE = 60.0


async def send_file(request: web.Request, path: Path, executor: Executor) -> web.StreamResponse:
    """A file from where ``Range: bytes=N-`` says; what is asked beyond its end is refused.

    Raises:
        NotFound: it went since it was named.
    """
    start = _start(request)
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError as error:
        raise NotFound("no such file here any more", check="model") from error
    with os.fdopen(handle, "rb", buffering=0):
        size = os.fstat(handle).st_size
        if not 0 <= start < size:
            raise web.HTTPRequestRangeNotSatisfiable
        status = 206 if start else 200
        if size - start <= _AT_ONCE:
            return web.Response(status=status, body=os.pread(handle, size - start, start))
        response = web.StreamResponse(status=status)
        response.content_length = size - start
        await response.prepare(request)
        try:
            await _send(request, response, executor, handle, start)
            await response.write_eof()
        except BaseException as error:
            if request.transport is not None:
                request.transport.abort()  # half a body is not followed by an answer
            if isinstance(error, ssl.SSLError | TimeoutError):
                raise ConnectionResetError("the download broke off") from error
            raise
    return response


def _start(request: web.Request) -> int:
    try:
        return request.http_range.start or 0
    except ValueError as error:
        raise web.HTTPRequestRangeNotSatisfiable from error


async def _send(
    request: web.Request, response: web.StreamResponse, executor: Executor, handle: int, position: int
) -> None:
    """A first piece brings the header along, which aiohttp holds back until then."""
    stream = request.transport
    if not isinstance(stream, Stream):
        raise ConnectionResetError
    size, first = os.fstat(handle).st_size, os.pread(handle, _FIRST, position)
    await response.write(first)
    position += len(first)
    was_reading = stream.is_reading()  # aiohttp pauses it, too, when a peer asks for more than it takes
    stream.pause_reading()
    try:
        await _patiently(stream.flushed())
        while (position := await stream.work(executor, _pour, handle, position, size)) < size:
            await _patiently(stream.writable())
    finally:
        if was_reading:
            stream.resume_reading()


async def _patiently(waiting: Awaitable[None]) -> None:
    async with asyncio.timeout(_IDLE):
        await waiting


def _pour(line: Line, handle: int, position: int, size: int) -> int:
    """In a thread: bytes of the file to the socket as long as it takes any; where it got to."""
    pour = _encrypt if isinstance(line, TlsSocket) else _hand_over
    return pour(line, handle, position, min(size, position + _TURN))


def _hand_over(line: Line, handle: int, position: int, until: int) -> int:
    """By the kernel."""
    while position < until:
        try:
            sent = os.sendfile(line.fileno(), handle, position, until - position)
        except AGAIN:
            break
        if not sent:
            raise ConnectionResetError("the file became shorter")
        position += sent
    return position


def _encrypt(line: Line, handle: int, position: int, until: int) -> int:
    """Block by block; OpenSSL takes a record of 16 KiB at a time."""
    block = own_block()[:_BLOCK]
    while position < until:
        count, sent = os.preadv(handle, [block[: until - position]], position), 0
        if not count:
            raise ConnectionResetError("the file became shorter")
        while sent < count:
            try:
                sent += line.send(block[sent:count])
            except AGAIN:
                return position + sent
        position += count
    return position
