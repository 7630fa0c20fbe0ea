"""``python -m benchmarks.wan.delay_proxy HOST PORT TARGET DELAY``: passes on what comes, each byte DELAY seconds later.

The delay is one way and holds for both directions, so a round trip takes twice as long. Where the kernel has no network
emulation this stands for distance; TCP itself runs between neighbours.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress

_PIECE = 64 * 1024
_UNDERWAY = 256
"""Pieces that may be under way at once, in each direction of each connection: 16 MiB."""


async def serve(host: str, port: int, target: int, delay: float) -> None:
    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward_reader, onward_writer = await asyncio.open_connection("127.0.0.1", target)
        async with asyncio.TaskGroup() as group:
            group.create_task(_pass_on(reader, onward_writer, delay))
            group.create_task(_pass_on(onward_reader, writer, delay))

    server = await asyncio.start_server(connect, host, port, backlog=1000)
    print("ready", flush=True)
    async with server:
        await server.serve_forever()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float) -> None:
    pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_UNDERWAY)
    sender = asyncio.create_task(_send_later(pieces, writer))
    now = asyncio.get_running_loop().time
    piece = b"-"
    while piece:
        piece = b""
        with suppress(OSError):
            piece = await reader.read(_PIECE)
        await pieces.put((now() + delay, piece))
    await sender


async def _send_later(pieces: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
    loop = asyncio.get_running_loop()
    with suppress(OSError):
        while True:
            due, piece = await pieces.get()
            await asyncio.sleep(due - loop.time())
            if not piece:
                break
            writer.write(piece)
            await writer.drain()
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])))
