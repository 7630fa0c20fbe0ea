"""A coordinator that is told to stop, or comes back after the end: it leaves nobody who writes, and waits for nobody."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from transport_worlds import ALICE, BOB, World, digest, make_model

from nevermined_fl.messages import Finish, Report


async def contribute(world, name, value):
    link = await world.joined(name)
    task = await link.next_task(after=0, wait=30)
    raw = make_model(value)
    path = world.folder / digest(raw)[7:]
    path.write_bytes(raw)
    await link.send_update(round_number=task.round, digest=digest(raw), path=path)
    report = Report(world.driver.session.id, task.round, task.model, digest(raw), 10, {})
    assert (await link.report(report)).accepted


async def test_whoever_was_stopped_in_the_middle_of_a_fold_writes_no_more(tmp_path):
    """What takes up the session next cleans the folder, and would take the half-written model away from the fold."""
    world = await World(tmp_path, metrics=(), strategy="fedadam").start()
    begun, may_go_on = threading.Event(), threading.Event()
    workshop, fold = world.driver._workshop, world.driver._workshop.fold

    def held(order):
        begun.set()
        assert may_go_on.wait(30)
        return fold(order)

    workshop.fold = held
    for name in (ALICE, BOB):
        await world.joined(name)
    for name, value in ((ALICE, 2.0), (BOB, 6.0)):
        await contribute(world, name, value)
    assert await asyncio.to_thread(begun.wait, 30)
    stopping = asyncio.create_task(world.stop())
    assert not (await asyncio.wait({stopping}, timeout=0.2))[0]
    may_go_on.set()
    await stopping
    await world.start()
    for name, value in ((ALICE, 3.0), (BOB, 7.0)):
        await contribute(world, name, value)
    assert (await world.running).finished
    await world.close()


class Polite(World):
    """A session that fails when Alice alone is there, whose coordinator waits a minute until she has heard of it."""

    farewell = 60.0

    def __init__(self, folder):
        super().__init__(folder, selection_timeout=0.05)

    async def start(self):
        await super().start()
        self.running.cancel()
        self.running = asyncio.create_task(self.driver.run(farewell=self.farewell))
        return self

    async def ends(self, seconds):
        """Whether it is over within so many seconds."""
        return bool((await asyncio.wait({self.running}, timeout=seconds))[0])

    async def tell(self, name):
        link = await self.joined(name)
        assert isinstance(await link.next_task(after=0, wait=30), Finish)


async def test_who_has_heard_the_end_is_not_waited_for_again(tmp_path):
    world = await Polite(tmp_path).start()
    await world.tell(ALICE)
    assert await world.ends(20)
    await world.restart()
    assert await world.ends(20)
    await world.close()


async def untold(folder):
    """A world that is over, and whose next coordinator waits for Alice, who has not heard of it."""
    world = Polite(folder)
    world.farewell = 0.2
    await world.start()
    await world.joined(ALICE)
    assert await world.ends(20)
    world.farewell = 60.0
    return world


@pytest.mark.parametrize("torn", [b"", b'{"turn": 0}', b'{"heard": ["nobody"], "turn": 0}'])
async def test_who_has_not_heard_it_is_waited_for_again(tmp_path, torn):
    world = await untold(tmp_path)
    (tmp_path / "coordinator" / "heard.json").write_bytes(torn)
    await world.restart()
    assert not await world.ends(0.5)
    await world.tell(ALICE)
    assert await world.ends(20)
    await world.close()


async def test_who_did_not_come_for_minutes_is_waited_for_no_more(tmp_path, monkeypatch):
    world = await untold(tmp_path)
    await world.stop()
    monkeypatch.setattr(time, "time", lambda real=time.time: real() + 200)
    await world.start()
    assert await world.ends(20)
    await world.close()
