"""Sending a file: small ones at once, large ones by the kernel, or over TLS block by block from one buffer."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from aiohttp import web

from nevermined_fl.errors import NotFound

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["send_file"]

_AT_ONCE = 512 * 1024
_BLOCK = 128 * 1024
"""Of this size are also the buffers that TLS keeps for each connection."""
_TURN = 4
"""Blocks after which somebody else has a turn."""
_IDLE = 60.0


async def send_file(request: web.Request, path: Path) -> web.StreamResponse:
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
            await (_encrypt if request.secure else _hand_over)(request, response, handle, start, size)
            await response.write_eof()
        except BaseException:
            if request.transport is not None:
                request.transport.abort()  # half a body is not followed by an answer
            raise
    return response


def _start(request: web.Request) -> int:
    try:
        return request.http_range.start or 0
    except ValueError as error:
        raise web.HTTPRequestRangeNotSatisfiable from error


async def _hand_over(request: web.Request, response: web.StreamResponse, handle: int, position: int, size: int) -> None:
    """The kernel sends it, after a first block that brings the header along, which aiohttp holds back until then."""
    await response.write(os.pread(handle, _BLOCK, position))
    assert request.transport is not None
    rest = position + _BLOCK
    with os.fdopen(handle, "rb", buffering=0, closefd=False) as file:
        await asyncio.get_running_loop().sendfile(request.transport, file, rest, size - rest, fallback=False)


async def _encrypt(request: web.Request, response: web.StreamResponse, handle: int, position: int, size: int) -> None:
    """A view is cut without copying, and TLS cuts what it is given into records of 16 KiB."""
    block = memoryview(bytearray(_BLOCK))
    while position < size:
        count = os.preadv(handle, [block], position)
        async with asyncio.timeout(_IDLE):
            await response.write(block[:count])
        position += count
        if position // _BLOCK % _TURN == 0:
            await asyncio.sleep(0)  # a peer that is fast does not keep the others waiting
