"""A full disk: said once, waited for, and nothing is lost. A limit to the size of files stands for it."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import resource
from contextlib import contextmanager
from pathlib import Path

import pytest
from driver_world import Acting, Attentive, acting, reached, run_whole
from transport_worlds import ALICE, BOB, SESSION, digest, make_model

from nevermined_fl.driver.room import Room
from nevermined_fl.errors import StorageFull
from nevermined_fl.messages import JoinRequest, Report
from nevermined_fl.session import Phase

PLAN = {"rounds": 1, "metrics": ()}


@contextmanager
def limited(size):
    """No file of this process may become longer than ``size``."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def uploaded(world, name, value):
    """An update that is here and not reported yet; how to report it."""
    link = await world.joined(name)
    await reached(world, lambda session: session.phase is not Phase.SELECTION or name == ALICE)
    raw = make_model(value)

    async def send():
        task = await link.next_task(after=0, wait=30)
        path = world.folder / digest(raw)[7:]
        path.write_bytes(raw)
        await link.send_update(round_number=1, digest=digest(raw), path=path)
        return lambda: link.report(Report(SESSION, 1, task.model, digest(raw), 10, {}))

    return send


async def both_uploaded(world):
    sends = [await uploaded(world, name, value) for name, value in ((ALICE, 2.0), (BOB, 6.0))]
    return [await send() for send in sends]


def full_lines(caplog):
    return [record for record in caplog.records if record.getMessage().startswith("disk full: ")]


async def said(caplog):
    while not full_lines(caplog):  # noqa: ASYNC110  a log has no event
        await asyncio.sleep(0)


async def test_a_fold_without_room_waits_says_so_and_goes_on(tmp_path, caplog):
    world = Attentive(tmp_path, **PLAN)
    status = tmp_path / "coordinator" / "status.json"
    async with acting(world):
        first, second = await both_uploaded(world)
        await first()
        with limited(300_000):
            assert (await second()).accepted
            await said(caplog)
            world.driver._status.write()
            told = json.loads(status.read_text())
            assert (told["phase"], told["problem"], told["needed"]) == ("aggregation", "disk_full", 840_168)
            assert b"nevermined_fl_disk_full 1.0" in world.driver.scrape()
            assert not list((tmp_path / "outputs").glob("*"))
        outcome = await world.running
    assert outcome.finished
    [line] = full_lines(caplog)
    assert line.getMessage().startswith("disk full: 840168 bytes are needed, ")
    assert line.session == SESSION


async def test_a_fold_that_waits_for_room_ends_with_the_session(tmp_path, monkeypatch, caplog):
    world = Attentive(tmp_path, **PLAN)
    async with acting(world):
        first, second = await both_uploaded(world)
        await first()
        monkeypatch.setattr(world.driver._room, "_fits", lambda: False)
        with limited(300_000):
            await second()
            await said(caplog)
        world.driver.stop("enough")
        assert (await asyncio.wait_for(world.running, 10)).reason == "enough"


async def test_a_report_that_cannot_be_written_down_has_not_happened_and_is_welcome_later(tmp_path):
    world = Attentive(tmp_path, **PLAN)
    async with acting(world):
        first, second = await both_uploaded(world)
        await first()
        before = world.driver.session
        with limited(4096), pytest.raises(StorageFull):
            await second()
        assert world.driver.session is before
        assert (await second()).accepted
        outcome = await world.running
    assert outcome.finished


async def test_a_join_that_cannot_be_written_down_may_come_again_with_the_same_proof(tmp_path):
    world = Attentive(tmp_path, **PLAN)
    async with acting(world):
        link, proof = world.link(ALICE), world.proof(ALICE)
        with limited(512), pytest.raises(StorageFull):
            await link.join(JoinRequest(ALICE, proof))
        assert (await link.join(JoinRequest(ALICE, proof))).participant == ALICE


async def test_events_that_found_no_room_are_written_when_there_is(tmp_path):
    whole = [line async for line in story_of(tmp_path / "whole")]
    world = Attentive(make(tmp_path / "full"), **PLAN)
    async with acting(world):
        first, second = await both_uploaded(world)
        log = world.driver._log
        size = (tmp_path / "full" / "coordinator" / "events.jsonl").stat().st_size
        with limited(size + 40):  # the journal is in files of its own, which are longer; only the log is written to
            log.write([{"event": "rejected", "code": "late"}], 1.0)
            assert not log.flush()
        assert log.flush()
        await first()
        await second()
        await world.running
    lines = [json.loads(line)["event"] for line in events_of(tmp_path / "full")]
    assert [event for event in lines if event != "rejected"] == whole
    assert lines.count("rejected") == 1


async def story_of(folder):
    await run_whole(folder, **PLAN)
    for line in events_of(folder):
        yield json.loads(line)["event"]


def events_of(folder):
    return (folder / "coordinator" / "events.jsonl").read_text().splitlines()


def make(folder):
    folder.mkdir()
    return folder


async def test_a_damaged_model_is_healed_when_there_is_room_for_it(tmp_path, caplog):
    world = Attentive(tmp_path, rounds=2, metrics=())
    async with acting(world) as actors:
        actors.hold(BOB, 2)
        actors.begin()
        await reached(world, lambda session: session.round == 2)
        await world.driver._keeper.settled()
        await actors.end()
        model = world.driver._store.path(world.driver.session.model)
        await world.stop()
        os.truncate(model, 100)
        with limited(300_000):
            await world.start()
            await asyncio.wait_for(said(caplog), 10)
            assert not world.running.done()
        again = Acting(world)
        again.begin()
        outcome = await world.running
        await again.end()
    assert outcome.finished


async def test_folders_without_room_are_made_when_there_is(tmp_path, monkeypatch, caplog):
    refused = {"checkpoints", "outputs"}

    def mkdir(path, *arguments, made=Path.mkdir, **options):
        if path.name in refused:
            refused.discard(path.name)
            raise OSError(errno.ENOSPC, "No space left on device")
        made(path, *arguments, **options)

    world = Attentive(tmp_path, checkpoint_every=1, **PLAN)
    async with acting(world) as actors:
        monkeypatch.setattr(Path, "mkdir", mkdir)
        actors.begin()
        outcome = await world.running
    assert outcome.finished
    assert not refused
    assert full_lines(caplog)
    assert (tmp_path / "outputs" / "checkpoints" / "round-1.safetensors").exists()


async def test_outputs_without_room_are_not_published_until_there_is(tmp_path, caplog):
    world = Attentive(tmp_path, **PLAN)
    async with acting(world):
        world.driver.stop("the buyer changed his mind")
        with limited(10):
            await said(caplog)
            assert not (tmp_path / "outputs" / "result.json").exists()
        outcome = await world.running
    assert outcome.reason == "the buyer changed his mind"
    assert json.loads((tmp_path / "outputs" / "result.json").read_text())["outcome"] == "failed"


async def test_it_is_said_once_and_forgotten_when_the_disk_has_room(tmp_path, caplog):
    room = Room(tmp_path, {"session": SESSION})
    room.note(StorageFull("the model of round 1", needed=2**60))
    room.note(StorageFull("the journal", needed=7))
    assert (room.needed, room.is_full(), len(full_lines(caplog))) == (2**60, True, 1)
    room.needed, room._noted = 1, -100.0
    assert not room.is_full()
    assert room.needed == 0
