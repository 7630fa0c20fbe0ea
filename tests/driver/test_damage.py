"""Files of a coordinator that was stopped are damaged; it is started again and makes the model that it would have made."""

from __future__ import annotations

import os

import pytest
from driver_world import Attentive, acting, copy_of, reached, run_whole, told
from transport_worlds import ALICE, BOB, World

from nevermined_fl.session import Phase

PLAN = {"rounds": 3, "metrics": (), "strategy": "fedadam"}


def half(path):
    os.truncate(path, path.stat().st_size // 2)


def flip(path):
    raw = bytearray(path.read_bytes())
    raw[len(raw) * 2 // 3] ^= 4
    path.write_bytes(raw)


def empty(path):
    path.write_bytes(b"")


def remove(path):
    path.unlink()


async def stopped_in_round_two(folder):
    """Round 1 is committed and durable; Alice's update of round 2 counts, Bob's is awaited."""
    folder.mkdir()
    world = Attentive(folder, **PLAN)
    async with acting(world) as actors:
        actors.hold(BOB, 2)
        actors.begin()
        await reached(world, lambda session: session.round == 2 and session.phase is Phase.REPORTING)
        await told(world, "update_accepted", 3)
        await world.driver._keeper.settled()
    return world


async def finish(world):
    async with acting(world) as actors:
        actors.begin()
        outcome = await world.running
    assert outcome.finished, outcome.reason
    return outcome, [line["event"] for line in world.told], actors.trained


def files_of(world):
    folder = world.folder / "coordinator"
    found = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    return sorted(path for path in found if path.suffix != ".lock")


@pytest.mark.parametrize("damage", [half, flip, empty, remove])
async def test_damage_to_any_one_file_costs_at_most_the_current_round(tmp_path, damage):
    undisturbed = await run_whole(tmp_path / "whole", **PLAN)
    stopped = await stopped_in_round_two(tmp_path / "stopped")
    kinds = set()
    for number, name in enumerate(files_of(stopped)):
        world = copy_of(stopped, tmp_path / f"{number}", **PLAN)
        damage(world.folder / "coordinator" / name)
        outcome, _, trained = await finish(world)
        assert outcome.model == undisturbed.model, name
        assert {number for _, number in trained} == {2, 3}, name
        assert trained.count((ALICE, 2)) <= 1, name
        kinds.add(name.parts[0])
    assert {"models", "states", "spool", "journal.sqlite", "journal.lines", "events.jsonl"} <= kinds


async def test_an_update_that_is_gone_is_asked_for_again(tmp_path):
    stopped = await stopped_in_round_two(tmp_path / "stopped")
    [update] = (stopped.folder / "coordinator" / "spool").iterdir()
    flip(update)
    _, story, trained = await finish(copy_of(stopped, tmp_path / "again", **PLAN))
    assert story.count("update_lost") == 1
    assert trained.count((ALICE, 2)) == 1


@pytest.mark.parametrize("kind", ["models", "states"])
async def test_without_both_copies_the_rounds_that_made_them_are_done_again(tmp_path, kind):
    undisturbed = await run_whole(tmp_path / "whole", **PLAN)
    stopped = await stopped_in_round_two(tmp_path / "stopped")
    world = copy_of(stopped, tmp_path / "again", **PLAN)
    for path in (world.folder / "coordinator" / kind).iterdir():
        half(path)
    outcome, story, trained = await finish(world)
    assert outcome.model == undisturbed.model
    assert story.count("rolled_back") == 1
    assert trained.count((ALICE, 1)) == 1


async def test_a_finished_session_whose_outputs_are_whole_needs_nothing_else(tmp_path):
    outcome = await run_whole(tmp_path / "whole", **PLAN)
    world = World(tmp_path / "whole", **PLAN)
    for path in (world.folder / "coordinator" / "models").iterdir():
        half(path)
    world = World(tmp_path / "whole", **PLAN)
    await world.start()
    assert world.driver.session.phase is Phase.FINISHED
    await world.close()
    assert outcome.finished


async def test_lines_after_a_torn_one_are_written_again(tmp_path):
    stopped = await stopped_in_round_two(tmp_path / "stopped")
    path = stopped.folder / "coordinator" / "events.jsonl"
    whole = path.read_bytes()
    for cut in (1, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        world = copy_of(stopped, tmp_path / f"{cut}", **PLAN)
        await world.start()
        await world.stop()
        assert (world.folder / "coordinator" / "events.jsonl").read_bytes().startswith(whole), cut
