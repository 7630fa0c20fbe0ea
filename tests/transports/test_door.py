"""The door: who stands in it and says no TLS hello costs little, and keeps nobody out."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

import pytest
from transport_worlds import ALICE, HttpWorld

from nevermined_fl.transports.http.client import pinned_context
from nevermined_fl.transports.http.door import Door, listen
from nevermined_fl.transports.http.server import server_context


@pytest.fixture
async def world(tmp_path):
    world = await HttpWorld(tmp_path).start()
    yield world
    await world.close()


def silent(port, count):
    """Connections that never say a word."""
    return [socket.create_connection(("127.0.0.1", port)) for _ in range(count)]


def hang_up(sockets):
    for sock in sockets:
        sock.close()


@pytest.fixture
async def door(tmp_path, world):
    sock = listen("127.0.0.1", 0)
    context = server_context(tmp_path / "tls.crt", tmp_path / "tls.key")
    door = Door(sock, asyncio.Protocol, context, most=4, patience=0.3)
    yield door, sock.getsockname()[1]
    await door.close()


async def test_only_so_many_handshakes_are_open_and_others_get_in_all_the_same(door, world):
    door, port = door
    strangers = silent(port, 20)
    coming = asyncio.open_connection("127.0.0.1", port, ssl=pinned_context(world.certificate, world.fingerprint))
    joining, most = asyncio.ensure_future(coming), 0
    while not joining.done():
        most = max(most, door.unfinished())
        await asyncio.sleep(0.01)
    assert most == 4
    joining.result()[1].close()
    hang_up(strangers)


async def test_who_stands_in_the_door_alone_may_take_his_time(door, world):
    door, port = door
    strangers = silent(port, 3)
    await asyncio.sleep(0.6)
    assert door.unfinished() == 3
    hang_up(strangers)
    while door.unfinished():  # noqa: ASYNC110  the door is not ours to wake
        await asyncio.sleep(0.005)


async def test_a_door_that_closes_sends_away_who_stands_in_it(door):
    door, port = door
    strangers = silent(port, 2)
    while door.unfinished() < 2:  # noqa: ASYNC110  the door is not ours to wake
        await asyncio.sleep(0.005)
    await door.close()
    for sock in strangers:
        with suppress(ConnectionError):
            assert await asyncio.to_thread(sock.recv, 1) == b""
    hang_up(strangers)
    with pytest.raises(ConnectionError):
        silent(port, 1)


async def test_hundreds_that_say_nothing_keep_no_participant_out(world):
    strangers = silent(world.port, 600)
    assert world.server._door.unfinished() <= 256
    assert await asyncio.wait_for(world.joined(ALICE), 30)
    assert world.server._door.unfinished() <= 256
    hang_up(strangers)
