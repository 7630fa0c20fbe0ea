"""A coordinator that is told to stop leaves nobody who writes."""

from __future__ import annotations

import asyncio
import threading

from transport_worlds import ALICE, BOB, World, digest, make_model

from nevermined_fl.messages import Report


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
