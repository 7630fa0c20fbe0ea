"""Lines that are bad: cut in the middle of a body, through a proxy or a relay, answered early, on full disks, given up."""

from __future__ import annotations

import asyncio
import logging
import resource
import socket

import numpy as np
import pytest
from bad_lines import ConnectProxy, Cutter, listening
from transport_worlds import ALICE, BOB, SESSION, HttpWorld, PlainWorld, digest

from nevermined_fl.codecs import safetensors
from nevermined_fl.errors import DecodeError, RemoteProtocolError, SettingsError, TransportError
from nevermined_fl.launcher.relay import Relay
from nevermined_fl.launcher.targets import Target
from nevermined_fl.messages import Report, Train, Wait
from nevermined_fl.transports.http.proxy import parse_proxy

ROWS = 1500


def make_big(value, rows=ROWS):
    """Some 4 MB: larger than what passes in one piece."""
    w = np.linspace(-1, 1, rows * 700, dtype=np.float32).reshape(rows, 700)
    w[-1, -1] = value
    return safetensors.dump({"w": w, "b": np.full(5, 0.3, np.float64)})


class BigWorld(HttpWorld):
    """A session of models that do not pass in one piece."""

    model = staticmethod(make_big)


class BigPlainWorld(PlainWorld):
    """The same without TLS."""

    model = staticmethod(make_big)


@pytest.fixture(params=[BigWorld, BigPlainWorld], ids=["tls", "plain"])
async def world(request, tmp_path):
    world = await request.param(tmp_path).start()
    yield world
    await world.close()


async def task_of(world, link):
    await world.join(link, ALICE)
    await world.joined(BOB)
    task = await link.next_task(after=0, wait=5)
    assert isinstance(task, Train)
    return task


async def hand_in(world, link, task, raw):
    path = world.folder / "update"
    path.write_bytes(raw)
    await link.send_update(round_number=task.round, digest=digest(raw), path=path)
    assert (await link.report(Report(SESSION, task.round, task.model, digest(raw), 3, {"accuracy": 0.5}))).accepted
    kept = world.driver._uploads.spool(1).path(ALICE, 1, digest(raw))
    assert kept.read_bytes() == raw
    assert world.driver._uploads.spool(1).peak(ALICE, 1, digest(raw)) == 3.0


async def test_a_line_that_is_cut_again_and_again_costs_what_was_not_there_yet(world):
    budgets = [5_000, 9_000, 700_000, 1_000_000, 300_001, 65_536, 1_300_000, 2_000_000, 777_777, 1_500_000]
    cutter = Cutter(world.port, budgets)
    async with listening(cutter) as port:
        link = world.link(ALICE, port=port)
        task = await task_of(world, link)
        await link.fetch_model(task.model, world.folder / "got")
        assert digest((world.folder / "got").read_bytes()) == task.model
        await hand_in(world, link, task, make_big(3.0))
        assert cutter.connections > len(budgets)
        await link.close()


async def test_outbound_through_a_proxy_that_takes_nothing_but_connect(world):
    proxy = ConnectProxy(world.port)
    async with listening(proxy) as port:
        link = world.link(ALICE, proxy=f"http://127.0.0.1:{port}")
        task = await task_of(world, link)
        await link.fetch_model(task.model, world.folder / "got")
        await hand_in(world, link, task, make_big(3.0))
        assert set(proxy.asked) == {("CONNECT", f"127.0.0.1:{world.port}")}
        await link.close()


async def test_a_proxy_that_refuses_is_named(world):
    async with listening(ConnectProxy(1)) as port:
        link = world.link(ALICE, proxy=f"http://127.0.0.1:{port}", patience=0.2)
        with pytest.raises(TransportError, match="the proxy refused the connection with HTTP 403"):
            await link.next_task(after=0, wait=0)
        await link.close()


@pytest.mark.parametrize("url", ["https://p:1", "http://u:p@p:1", "http://p", "http://p:1/x", "p:1", "http://p:x"])
def test_a_proxy_is_a_host_and_a_port(url):
    with pytest.raises(SettingsError):
        parse_proxy(url)
    assert parse_proxy("") is None


async def test_through_a_launchers_relay(world):
    deep = world.folder / ("x" * 100)
    deep.mkdir()
    relay = Relay(deep / "relay.sock", Target("coordinator", world.port, ("127.0.0.1",)))
    await relay.start()
    link = world.link(ALICE, uds=deep / "relay.sock")
    task = await task_of(world, link)
    await link.fetch_model(task.model, world.folder / "got")
    await hand_in(world, link, task, make_big(3.0))
    await link.close()
    await relay.close()


async def test_an_answer_that_comes_before_the_body_was_sent_is_read(world):
    link = world.link(ALICE)
    task = await task_of(world, link)
    path = world.folder / "update"
    for raw, number, expected, code in [
        (make_big(3.0), 2, RemoteProtocolError, "late"),
        (make_big(3.0, 30_000), 1, DecodeError, "size"),
        (make_big(float("inf")), 1, DecodeError, "not_finite"),
    ]:
        path.write_bytes(raw)
        with pytest.raises(expected) as caught:
            await link.send_update(round_number=number, digest=digest(raw), path=path)
        assert caught.value.code == code
    await hand_in(world, link, task, make_big(3.0))


async def test_an_update_that_is_sent_again_is_not_sent_again(world):
    link = world.link(ALICE)
    task = await task_of(world, link)
    raw = make_big(3.0)
    await hand_in(world, link, task, raw)
    again = await world.joined(ALICE)  # another process, which does not know what the first one sent
    with pytest.raises(RemoteProtocolError, match="no update"):
        await again.send_update(round_number=1, digest=digest(raw), path=world.folder / "update")


async def test_who_gives_up_waiting_leaves_no_thread_behind(world):
    link = await world.joined(ALICE)
    [thread] = link._thread._threads
    waiting = asyncio.create_task(link.next_task(after=0, wait=25))
    while not world.server._runner.server.requests_count >= 2:  # noqa: ASYNC110  the server is not ours to wake
        await asyncio.sleep(0.005)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await link.next_task(after=0, wait=0) == Wait(0)
    await link.close()
    await asyncio.to_thread(thread.join, 10)
    assert not thread.is_alive()


async def test_who_gives_up_dialling_leaves_no_thread_behind(world):
    """The kernel takes the connection, nobody says a word on it."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        link = world.link(ALICE, port=silent.getsockname()[1])
        joining = asyncio.create_task(link.next_task(after=0, wait=0))
        while not link._thread._threads:  # noqa: ASYNC110  the thread is not ours to wake
            await asyncio.sleep(0)
        [thread] = link._thread._threads
        joining.cancel()
        with pytest.raises(asyncio.CancelledError):
            await joining
        await link.close()
        await asyncio.to_thread(thread.join, 10)
        assert not thread.is_alive()


async def test_a_full_disk_is_waited_for(world, caplog):
    """A limit on the size of files fails writes as a full disk does, half-way through."""
    caplog.set_level(logging.DEBUG, logger="nevermined_fl.transports.http.client")
    link = world.link(ALICE)
    task = await task_of(world, link)
    raw = make_big(3.0)
    (world.folder / "update").write_bytes(raw)
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, unlimited[1]))
    try:
        sending = asyncio.create_task(hand_in_written(world, link, task, raw))
        while "no room now" not in caplog.text:  # noqa: ASYNC110  the log wakes nobody
            await asyncio.sleep(0.005)
        assert not world.driver._uploads.has(ALICE, 1, digest(raw))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    await sending


async def hand_in_written(world, link, task, raw):
    await link.send_update(round_number=1, digest=digest(raw), path=world.folder / "update")
    assert world.driver._uploads.has(ALICE, 1, digest(raw))
