"""The relay over real sockets: one way out, to one place."""

import asyncio
import contextlib
import ssl

import httpx
import pytest
from tiny_proxy import tiny_proxy

from nevermined_fl.launcher.certificates import ensure_certificate
from nevermined_fl.launcher.relay import Relay
from nevermined_fl.launcher.targets import Target


async def echo(reader, writer):
    with contextlib.suppress(OSError), contextlib.closing(writer):
        while block := await reader.read(65536):
            writer.write(block)
            await writer.drain()
        writer.write_eof()


@contextlib.asynccontextmanager
async def relayed(tmp_path, handler=echo, *, server_options=None, **options):
    server = await asyncio.start_server(handler, "127.0.0.1", 0, **(server_options or {}))
    port = server.sockets[0].getsockname()[1]
    relay = Relay(tmp_path / "relay.sock", Target("somewhere", port, ("127.0.0.1",)), **options)
    await relay.start()
    try:
        yield tmp_path / "relay.sock", port
    finally:
        await relay.close()
        server.close()


async def test_bytes_go_both_ways_and_an_end_is_passed_on(tmp_path):
    async with relayed(tmp_path) as (path, _):
        reader, writer = await asyncio.open_unix_connection(path)
        sent = bytes(range(256)) * 4096
        writer.write(sent)
        writer.write_eof()
        assert await reader.read() == sent
        writer.close()
        assert path.stat().st_mode & 0o777 == 0o600
    assert not path.exists()


async def test_a_folder_with_a_long_path_will_do(tmp_path):
    deep = tmp_path / ("x" * 60) / ("y" * 60)
    deep.mkdir(parents=True)
    async with relayed(deep) as (path, _):
        assert len(str(path)) > 107
        (tmp_path / "s").symlink_to(deep)
        reader, writer = await asyncio.open_unix_connection(tmp_path / "s" / "relay.sock")
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        writer.close()


async def test_tls_runs_through_it(tmp_path):
    """As the participant uses it: httpx, TLS over the unix socket, trusting exactly one certificate."""
    certificate = ensure_certificate(tmp_path, "127.0.0.1")
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")

    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nround")
        await writer.drain()
        writer.close()

    trusting = ssl.create_default_context(cadata=certificate.pem)
    trusting.check_hostname = False
    async with relayed(tmp_path, answer, server_options={"ssl": server_side}) as (path, _):
        transport = httpx.AsyncHTTPTransport(uds=str(path), verify=trusting)
        async with httpx.AsyncClient(transport=transport) as client:
            assert (await client.get("https://coordinator:1/v1/health")).text == "round"


@pytest.mark.parametrize("addresses", [("10.11.12.13",), ()])
async def test_through_a_proxy_that_alone_knows_the_way(tmp_path, addresses):
    """A judged address is asked for; without one the name is, which the proxy looks up."""
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    place = server.sockets[0].getsockname()
    async with tiny_proxy({"10.11.12.13": place, "coordinator.example": place}) as proxy:
        relay = Relay(tmp_path / "relay.sock", Target("coordinator.example", 443, addresses), proxy=proxy.url)
        await relay.start()
        reader, writer = await asyncio.open_unix_connection(tmp_path / "relay.sock")
        sent = bytes(range(256)) * 5000
        writer.write(sent)
        assert await reader.readexactly(len(sent)) == sent
        writer.close()
        await relay.close()
        assert proxy.asked == [("CONNECT", f"{(*addresses, 'coordinator.example')[0]}:443")]
    server.close()


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 403 Forbidden\r\n\r\n", b"HTTP/1.1 200 OK\r\n", b"SSH-2.0\r\n\r\n", b"x" * 400_000]
)
async def test_a_proxy_that_gives_no_tunnel_closes_the_connection(tmp_path, answer):
    async def refuse(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    proxy = await asyncio.start_server(refuse, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
    relay = Relay(tmp_path / "relay.sock", Target("somewhere", 443, ("127.0.0.1",)), proxy=url)
    await relay.start()
    reader, writer = await asyncio.open_unix_connection(tmp_path / "relay.sock")
    with contextlib.suppress(ConnectionResetError):
        assert await reader.read() == b""
    writer.close()
    await relay.close()
    proxy.close()


async def test_nobody_home_closes_the_connection(tmp_path):
    async with relayed(tmp_path) as (_, port):
        pass
    relay = Relay(tmp_path / "relay.sock", Target("somewhere", port, ("127.0.0.1",)))
    await relay.start()
    reader, writer = await asyncio.open_unix_connection(tmp_path / "relay.sock")
    with contextlib.suppress(ConnectionResetError):
        assert await reader.read() == b""
    writer.close()
    await relay.close()


async def test_silence_closes_the_connection(tmp_path):
    async with relayed(tmp_path, idle=0.05) as (path, _):
        reader, writer = await asyncio.open_unix_connection(path)
        with contextlib.suppress(ConnectionResetError):
            assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()


async def test_what_leaves_is_bounded(tmp_path):
    got = bytearray()

    async def swallow(reader, writer):
        while block := await reader.read(65536):
            got.extend(block)
        writer.close()

    async with relayed(tmp_path, swallow, budget=100_000) as (path, _):
        reader, writer = await asyncio.open_unix_connection(path)
        with contextlib.suppress(ConnectionError):
            for _ in range(64):
                writer.write(b"x" * 65536)
                await writer.drain()
            await reader.read()
        writer.close()
    assert len(got) <= 100_000


async def test_connections_are_counted(tmp_path):
    async with relayed(tmp_path) as (path, _):
        opened = [await asyncio.open_unix_connection(path) for _ in range(17)]
        refused = 0
        for reader, writer in opened:
            with contextlib.suppress(ConnectionError):
                writer.write(b"x")
                await writer.drain()
            with contextlib.suppress(ConnectionError):
                refused += await asyncio.wait_for(reader.read(1), 5) == b""
                continue
            refused += 1
        assert refused == 1
        for _, writer in opened:
            writer.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "fd12::1", "fl.example.org"])
def test_a_certificate_is_made_once(tmp_path, host):
    first = ensure_certificate(tmp_path, host)
    assert ensure_certificate(tmp_path, host) == first
    assert first.fingerprint.startswith("sha256:")
    assert (tmp_path / "tls.key").stat().st_mode & 0o777 == 0o600
