"""A stream: what is written arrives, and a thread that has the socket has it alone, to its end."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from transport_worlds import contexts

from nevermined_fl.launcher.certificates import ensure_certificate
from nevermined_fl.transports.http.server import server_context
from nevermined_fl.transports.http.stream import AGAIN, Stream

MUCH = 6_000_001


class Heard(asyncio.Protocol):
    """Notes what it is told."""

    def __init__(self):
        self.data = bytearray()
        self.told = []
        self.lost = asyncio.get_running_loop().create_future()

    def data_received(self, data):
        self.data += data

    def pause_writing(self):
        self.told.append("pause")

    def resume_writing(self):
        self.told.append("resume")

    def eof_received(self):
        self.told.append("eof")

    def connection_lost(self, exc):
        self.told.append("lost")
        self.lost.set_result(exc)

    async def has(self, count):
        async with asyncio.timeout(20):
            while len(self.data) < count:  # noqa: ASYNC110  polling is plain
                await asyncio.sleep(0.005)


@pytest.fixture(params=["tcp", "tls"])
async def pair(request, tmp_path):
    """A stream, its protocol, and the other end: a blocking socket."""
    server, client = contexts(request.param, tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        dialling = asyncio.ensure_future(asyncio.to_thread(dial, listening.getsockname(), client))
        stream = Stream((await asyncio.to_thread(listening.accept))[0], server)
    await stream.handshake(10)
    protocol = Heard()
    stream.start(protocol)
    other = await dialling
    other.settimeout(20)
    yield stream, protocol, other
    stream.abort()
    other.close()
    async with asyncio.timeout(5):
        await protocol.lost


@pytest.fixture
def executor():
    with ThreadPoolExecutor(1) as executor:
        yield executor


def dial(address, context):
    sock = socket.create_connection(address, 10)
    return sock if context is None else context.wrap_socket(sock, server_hostname="127.0.0.1")


def read_all(sock, count):
    found = bytearray()
    while len(found) < count and (more := sock.recv(65536)):
        found += more
    return bytes(found)


async def test_what_is_written_arrives_in_order_and_its_writer_is_told_to_pause(pair):
    stream, protocol, other = pair
    body = bytes(range(256)) * (MUCH // 256)
    stream.write(b"before ")
    stream.writelines([body[:1000], body[1000:]])
    assert protocol.told == ["pause"]
    assert await asyncio.to_thread(read_all, other, len(body) + 7) == b"before " + body
    await stream.flushed()
    assert protocol.told == ["pause", "resume"]
    assert stream.get_write_buffer_size() == 0


async def test_close_sends_what_was_written_and_abort_does_not(pair):
    stream, protocol, other = pair
    stream.write(b"x" * MUCH)
    stream.close()
    stream.write(b"too late")
    assert stream.is_closing()
    assert await asyncio.to_thread(read_all, other, MUCH + 8) == b"x" * MUCH
    assert await asyncio.wait_for(protocol.lost, 5) is None


async def test_a_protocol_that_pauses_gets_nothing_until_it_goes_on(pair):
    stream, protocol, other = pair
    stream.pause_reading()
    assert not stream.is_reading()
    other.sendall(b"hello")
    await asyncio.sleep(0.1)
    assert protocol.data == b""
    stream.resume_reading()
    await protocol.has(5)
    other.close()
    await asyncio.wait_for(protocol.lost, 5)
    assert protocol.told == ["eof", "lost"]


async def test_a_thread_has_the_socket_alone(pair, executor):
    """What comes is its affair, and what is written meanwhile is sent when it is done."""
    stream, protocol, other = pair
    other.sendall(b"body" * 1000)
    free = threading.Event()

    def take(sock):
        found = bytearray()
        while len(found) < 4000:
            try:
                found += sock.recv(4000 - len(found))
            except AGAIN:
                time.sleep(0.001)
        free.wait(10)
        return bytes(found)

    taking = asyncio.ensure_future(stream.work(executor, take))
    await asyncio.sleep(0.05)
    stream.write(b"answer")
    other.sendall(b"next")
    await asyncio.sleep(0.1)
    assert (protocol.data, stream.get_write_buffer_size()) == (b"", 6)
    with pytest.raises(ConnectionResetError):
        await stream.work(executor, take)
    free.set()
    assert await taking == b"body" * 1000
    await protocol.has(4)
    assert await asyncio.to_thread(read_all, other, 6) == b"answer"


@pytest.mark.parametrize("how", ["abort", "cancel"])
async def test_a_socket_that_is_lent_is_not_closed_before_it_comes_back(pair, executor, how):
    """Its number could be somebody else's by then, and the thread would read his bytes."""
    stream, protocol, other = pair
    begun, seen = threading.Event(), []

    def wait(sock):
        begun.set()
        while True:
            try:
                seen.append((sock.fileno(), sock.recv(10)))
            except AGAIN:
                time.sleep(0.001)
            except OSError:
                seen.append((sock.fileno(), b""))
            if seen and not seen[-1][1]:
                time.sleep(0.1)
                seen.append((sock.fileno(), b"end"))
                return

    working = asyncio.ensure_future(stream.work(executor, wait))
    await asyncio.to_thread(begun.wait)
    number = stream.get_extra_info("socket").fileno()
    if how == "abort":
        stream.abort()
        await working
    else:
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
    assert seen[-1] == (number, b"end")
    await asyncio.sleep(0)
    assert stream.get_extra_info("socket").fileno() == -1
    with pytest.raises(ConnectionResetError):
        await stream.readable()
    assert await asyncio.to_thread(read_all, other, 1) == b""
    assert "lost" in protocol.told


async def test_who_waits_for_bytes_is_told_when_the_connection_is_closed(pair, executor):
    stream, protocol, other = pair
    stream.pause_reading()
    waiting = asyncio.ensure_future(stream.readable())
    await asyncio.sleep(0.01)
    other.sendall(b"now")
    await asyncio.wait_for(waiting, 5)
    waiting = asyncio.ensure_future(stream.writable())
    await asyncio.wait_for(waiting, 5)
    assert protocol.data == b""
    assert await stream.work(executor, lambda line: line.recv(10)) == b"now"
    with pytest.raises(AGAIN):
        await stream.work(executor, lambda line: line.recv(10))
    waiting = asyncio.ensure_future(stream.readable())
    await asyncio.sleep(0.01)
    stream.abort()
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(waiting, 5)


async def test_what_a_thread_left_of_a_record_is_there_to_be_read(pair, executor):
    stream, _, other = pair
    stream.pause_reading()
    other.sendall(b"0123456789" * 100)
    await asyncio.wait_for(stream.readable(), 5)
    assert await stream.work(executor, lambda sock: sock.recv(10)) == b"0123456789"
    await asyncio.wait_for(stream.readable(), 5)
    assert await stream.work(executor, lambda sock: len(sock.recv(10_000))) == 990


async def test_who_says_no_hello_is_sent_away(tmp_path):
    ensure_certificate(tmp_path, "127.0.0.1")
    ours, theirs = socket.socketpair()
    stream = Stream(ours, server_context(tmp_path / "tls.crt", tmp_path / "tls.key"))
    with pytest.raises(TimeoutError):
        await stream.handshake(0.1)
    assert theirs.recv(1) == b""
    theirs.close()
    ours, theirs = socket.socketpair()
    stream = Stream(ours, server_context(tmp_path / "tls.crt", tmp_path / "tls.key"))
    theirs.sendall(b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises(ssl.SSLError):
        await stream.handshake(5)
    theirs.close()
