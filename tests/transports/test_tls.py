"""TLS of our own framing: no call goes through more than a bounded piece, and who sends little but packaging is cut off."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
import threading
import time
from contextlib import suppress
from types import SimpleNamespace

import pytest
from transport_worlds import ALICE, BOB, HttpWorld, make_model

from nevermined_fl.launcher.certificates import ensure_certificate
from nevermined_fl.transports.http import receiving, sending
from nevermined_fl.transports.http.client import pinned_context
from nevermined_fl.transports.http.server import server_context
from nevermined_fl.transports.http.tls import TlsSocket


@pytest.fixture
def pair(tmp_path):
    """Our end, after the handshake, and a client's blocking socket."""
    certificate = ensure_certificate(tmp_path, "127.0.0.1")
    context = pinned_context(certificate.pem, certificate.fingerprint)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    line = TlsSocket(ours, server_context(tmp_path / "tls.crt", tmp_path / "tls.key"))
    made = []
    dialling = threading.Thread(target=lambda: made.append(context.wrap_socket(theirs, server_hostname="127.0.0.1")))
    dialling.start()
    patiently(line.do_handshake)
    dialling.join()
    made[0].settimeout(10)
    yield line, made[0]
    ours.close()
    made[0].close()


def patiently(do, seconds=10.0):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            return do()
        except (BlockingIOError, ssl.SSLWantReadError):
            time.sleep(0.001)
    raise TimeoutError


def waiting(line):
    """Bytes that are here and not yet read."""
    with socket.socket(fileno=os.dup(line.fileno())) as same:
        return len(same.recv(1 << 20, socket.MSG_PEEK))


def test_records_that_came_together_are_read_together_and_then_the_end(pair):
    line, other = pair
    body = bytes(range(251)) * 200
    other.sendall(body)
    block = bytearray(1 << 20)
    before = waiting(line)
    ending = threading.Thread(target=other.unwrap)  # says it, and waits for our goodbye
    ending.start()
    while waiting(line) == before:
        time.sleep(0.001)
    assert patiently(lambda: line.recv_into(memoryview(block))) == len(body)
    assert block[: len(body)] == body
    assert line.pending(), "no selector says that it is over"
    assert line.recv_into(memoryview(block)) == 0
    line.goodbye()
    ending.join()


def test_what_is_sent_arrives_both_ways_in_pieces_of_any_size(pair):
    line, other = pair
    body = bytes(range(251)) * 5000
    other.sendall(b"hello")
    assert patiently(lambda: line.recv(3)) == b"hel"
    assert line.pending()
    assert line.recv(100) == b"lo"
    sender = threading.Thread(target=other.sendall, args=(body,))
    sender.start()
    found = bytearray()
    while len(found) < len(body):
        found += patiently(lambda: line.recv(10_007))
    sender.join()
    assert found == body
    answered, rest = bytearray(), memoryview(body)
    while rest:
        rest = rest[patiently(lambda view=rest: line.send(view)) :]
        while len(answered) < len(body) - len(rest) - 70_000:
            answered += other.recv(65536)
    while line.unsent():
        answered += other.recv(65536)
        patiently(line.flush)
    while len(answered) < len(body):
        answered += other.recv(65536)
    assert answered == body


def test_the_end_is_an_end_with_a_goodbye_and_without(pair):
    line, other = pair
    other.sendall(b"last words")
    other.settimeout(0.1)
    with pytest.raises(TimeoutError):
        other.unwrap()
    assert patiently(lambda: line.recv(100)) == b"last words"
    assert patiently(lambda: line.recv(100)) == b""
    assert line.recv(100) == b""


def test_a_line_that_breaks_off_ends(pair):
    line, other = pair
    other.sendall(b"last words")
    socket.socket(fileno=other.detach()).close()
    assert patiently(lambda: line.recv(100)) == b"last words"
    assert patiently(lambda: line.recv(100)) == b""


def test_who_sends_little_but_packaging_is_cut_off(pair):
    """As with a million messages of TLS itself, which carry nothing at all and which Python's own client cannot send."""
    line, other = pair
    count = 20_000

    def send():
        try:
            for _ in range(count):
                other.send(b"x")
        except OSError:
            pass

    sender = threading.Thread(target=send)
    sender.start()
    found, more = 0, 1
    while more:
        try:
            more = len(patiently(lambda: line.recv(65536)))
        except ConnectionAbortedError:
            more = 0
        found += more
    assert 0 < found < count / 2
    line._sock.close()
    sender.join()


def test_who_does_not_read_is_sent_no_more_than_the_kernel_takes_and_a_piece(pair):
    line, _ = pair
    sent = count = 1
    while count and sent < 100_000_000:
        try:
            count = line.send(b"x" * 1_000_000)
        except BlockingIOError:
            count = 0
        sent += count
    assert 1 < sent < 5_000_000
    assert line._out.pending + len(line._rest) < 100_000


class Kept:
    """A sink that keeps what it gets."""

    def __init__(self):
        self.data = bytearray()

    @property
    def offset(self):
        return len(self.data)

    def write(self, block):
        self.data += block


def test_a_turn_ends_though_there_is_always_one_byte_more():
    """A record may carry one."""
    with socket.socket() as sock:
        line = SimpleNamespace(recv_into=lambda _: 1, fileno=sock.fileno)
        assert 0 < receiving._Body(Kept(), 10**9, 10**9, []).take_in(line) < 500_000


@pytest.mark.parametrize(("pause", "most"), [(0.0002, 100_000), (0.0, 900_000)])
def test_who_trickles_after_a_burst_holds_no_thread(pause, most):
    """Else two participants keep all threads from everybody else."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    begun, over = threading.Event(), threading.Event()

    def trickle():
        theirs.sendall(b"x" * 70_000)
        begun.set()
        while not over.is_set():
            theirs.send(b"x")
            time.sleep(pause)

    threading.Thread(target=trickle).start()
    begun.wait(20)
    body = receiving._Body(Kept(), 10**9, 10**9, [])
    try:
        assert 70_000 <= body.take_in(ours) < most
    finally:
        over.set()
    ours.close()
    theirs.close()


@pytest.fixture
async def world(tmp_path):
    world = await HttpWorld(tmp_path).start()
    yield world
    await world.close()


async def test_who_hangs_up_amid_a_download_is_no_fault_of_ours(world, caplog, monkeypatch):
    def break_off(*_):
        raise ssl.SSLEOFError("EOF occurred in violation of protocol")

    monkeypatch.setattr(sending, "_encrypt", break_off)
    link, _ = await world.joined(ALICE), await world.joined(BOB)
    task = await link.next_task(after=0, wait=5)
    assert len(make_model(1.0)) > 512 * 1024
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port, ssl=world.context())
    lines = [f"GET /v1/models/{task.model} HTTP/1.1", "Host: x", f"Authorization: {link._headers['Authorization']}"]
    with caplog.at_level(logging.WARNING):
        writer.write("\r\n".join([*lines, "", ""]).encode())
        with suppress(ConnectionError):
            assert len(await reader.read()) < 512 * 1024
    writer.close()
    assert "failed" not in caplog.text


async def test_a_model_is_not_sent_to_who_asks_for_its_head(world):
    link, _ = await world.joined(ALICE), await world.joined(BOB)
    task = await link.next_task(after=0, wait=5)
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port, ssl=world.context())
    lines = [f"HEAD /v1/models/{task.model} HTTP/1.1", "Host: x", "Connection: close"]
    writer.write("\r\n".join([*lines, f"Authorization: {link._headers['Authorization']}", "", ""]).encode())
    answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 405")
    assert len(answer) < 1000
    writer.close()
