"""An HTTP proxy in 50 lines: CONNECT tunnels and requests with a whole URL; it notes where everything goes."""

import asyncio
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit


class Proxy:
    def __init__(self, url, names):
        self.url, self.names, self.asked = url, names, []

    async def serve(self, reader, writer):
        with suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            line, _, rest = head.partition(b"\r\n")
            method, target, version = line.decode().split()
            self.asked.append((method, target))
            parts = urlsplit(target if method != "CONNECT" else f"//{target}")
            address = self.names.get(parts.hostname, (parts.hostname, parts.port))
            far_reader, far_writer = await asyncio.open_connection(*address)
            if method == "CONNECT":
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                path = parts.path + f"?{parts.query}" * bool(parts.query)
                far_writer.write(f"{method} {path} {version}\r\nConnection: close\r\n".encode() + rest)
            await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))


async def pump(reader, writer):
    with suppress(OSError):
        while block := await reader.read(65536):
            writer.write(block)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def tiny_proxy(names=None):
    """A proxy on a port of its own; ``names`` are hosts that it alone knows, and their addresses."""
    proxy = Proxy("", names or {})
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
