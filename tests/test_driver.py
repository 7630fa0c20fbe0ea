"""The driver: the same session whether or not it was killed in between."""

from __future__ import annotations

import asyncio
import json
import time

import pytest
from transport_worlds import ALICE, BOB, SESSION, World, digest, make_model

from nevermined_fl.errors import PermissionDenied, SettingsError
from nevermined_fl.messages import Evaluate, Finish, Report, Train, Wait


async def started(tmp_path, **plan):
    return await World(tmp_path, **plan).start()


async def contribute(world, link, value, examples):
    task = await link.next_task(after=0, wait=30)
    assert isinstance(task, Train)
    raw = make_model(value)
    path = world.folder / digest(raw)[7:]
    path.write_bytes(raw)
    await link.send_update(round_number=task.round, digest=digest(raw), path=path)
    return await link.report(Report(SESSION, task.round, task.model, digest(raw), examples, {}))


async def conduct(world, *, restarts):
    """Two rounds of a strategy with server state; the coordinator dies wherever it may."""
    for name in (ALICE, BOB):
        await world.joined(name)
    for number in (1, 2):
        for name, value, examples in [(ALICE, 2.0, 10), (BOB, 6.0, 30)]:
            if restarts:
                await world.restart()
            assert (await contribute(world, await world.joined(name), value * number, examples)).accepted
    return await world.running


@pytest.mark.parametrize("strategy", ["fedavg", "fedadam"])
async def test_a_session_that_was_killed_again_and_again_gives_the_same_model_and_story(tmp_path, strategy):
    outcomes, stories = [], []
    for restarts in (False, True):
        folder = tmp_path / str(restarts)
        folder.mkdir()
        world = await started(folder, metrics=(), strategy=strategy)
        outcomes.append(await conduct(world, restarts=restarts))
        await world.close()
        lines = [json.loads(line) for line in (folder / "coordinator" / "events.jsonl").read_text().splitlines()]
        assert [line["n"] for line in lines] == sorted(line["n"] for line in lines)
        kept = [line["event"] for line in lines if line["event"] not in {"joined", "left"}]
        stories.append(kept)
    assert outcomes[0].model == outcomes[1].model
    assert outcomes[0].finished
    assert stories[0] == stories[1]
    assert stories[0].count("round_committed") == 2


async def test_lines_that_a_crash_swallowed_are_written_from_the_journal(tmp_path):
    world = await started(tmp_path)
    await world.joined(ALICE)
    await world.joined(BOB)
    await world.stop()
    path = tmp_path / "coordinator" / "events.jsonl"
    whole = path.read_text().splitlines()
    path.write_text(whole[0] + "\n")
    await world.start()
    await world.close()
    assert path.read_text().splitlines() == whole


async def test_too_few_participants_by_the_deadline_fail_the_session_with_that_reason(tmp_path):
    world = await started(tmp_path, selection_timeout=0.05)
    link = await world.joined(ALICE)
    outcome = await world.running
    assert (outcome.finished, outcome.reason) == (False, "too few participants: 1 of at least 2 by the deadline")
    finish = await link.next_task(after=0, wait=0)
    assert finish == Finish(1, "failed", outcome.reason)
    result = json.loads((tmp_path / "outputs" / "result.json").read_text())
    assert (result["outcome"], result["reason"], result["contributors"]) == ("failed", outcome.reason, [])
    assert not (tmp_path / "outputs" / "model.safetensors").exists()
    await world.close()


async def test_a_straggler_is_left_behind_and_asked_again(tmp_path):
    world = await started(tmp_path, min_participants=1, round_timeout=0.5, metrics=())
    alice, bob = await world.joined(ALICE), await world.joined(BOB)
    assert (await contribute(world, alice, 2.0, 10)).accepted
    task = await bob.next_task(after=1, wait=30)
    assert (task.round, world.driver.session.history[0].updates[0].participant) == (2, ALICE)
    assert len(world.driver.session.history[0].updates) == 1
    await world.close()


async def test_who_comes_back_after_the_end_hears_of_it(tmp_path):
    world = await started(tmp_path, selection_timeout=0.05)
    await world.joined(ALICE)
    await world.running
    link = await world.joined(ALICE)
    assert isinstance(await link.next_task(after=0, wait=0), Finish)
    with pytest.raises(PermissionDenied):
        await world.joined(BOB)
    await world.close()


async def test_an_owner_who_stops_the_session_is_heard_and_the_reason_is_told(tmp_path):
    world = await started(tmp_path)
    world.driver.stop("stopped by the buyer")
    outcome = await world.running
    assert outcome.reason == "stopped by the buyer"
    assert world.told[-1]["event"] == "failed"
    await world.close()


async def test_one_model_one_state_and_no_updates_are_left_behind(tmp_path):
    world = await started(tmp_path, metrics=(), strategy="fedavgm")
    await conduct(world, restarts=False)
    folder = tmp_path / "coordinator"
    assert len(list((folder / "models").iterdir())) == 1
    [state] = (folder / "states").iterdir()
    assert state.name == f"2-{digest(state.read_bytes())[7:]}"
    assert not list((folder / "spool").iterdir())
    await world.close()


async def test_another_plan_cannot_go_on_with_the_journal(tmp_path):
    world = await started(tmp_path)
    await world.close()
    world.plan = World(tmp_path, rounds=3).plan
    with pytest.raises(SettingsError, match="another session or plan"):
        await world.start()


async def test_another_initial_model_is_refused(tmp_path):
    world = World(tmp_path)
    (tmp_path / "initial.safetensors").write_bytes(make_model(9.0))
    with pytest.raises(SettingsError, match="initial model"):
        await world.start()


async def test_refusals_fill_no_journal_and_a_patient_stranger_no_log(tmp_path):
    world = await started(tmp_path)
    rows = len(list(world.driver._journal.replay()))
    for _ in range(1200):
        world.driver._conductor.refuse("token_signature")
    assert len(list(world.driver._journal.replay())) == rows
    assert (tmp_path / "coordinator" / "events.jsonl").read_text().count("rejected") == 1000
    await world.close()


async def test_signed_reports_are_kept_as_proof(tmp_path):
    world = await started(tmp_path)
    link = await world.joined(ALICE)
    await world.joined(BOB)
    await contribute(world, link, 2.0, 10)
    [(_, participant, signed)] = list(world.driver._journal.proofs())
    assert (participant, signed.count(".")) == (ALICE, 2)
    await world.close()


async def test_tasks_are_handed_out_when_the_clock_of_the_phase_began_anew(tmp_path, monkeypatch):
    world = await started(tmp_path, round_timeout=30.0)
    await world.joined(ALICE)
    await world.joined(BOB)
    await world.stop()
    monkeypatch.setattr(time, "time", lambda real=time.time: real() + 100)
    await world.start()
    world.running.cancel()  # participants may come before the driver runs
    link = await world.joined(ALICE)
    assert isinstance(await link.next_task(after=0, wait=0), Wait)
    waiting = asyncio.create_task(link.next_task(after=0, wait=30))
    world.running = asyncio.create_task(world.driver.run(farewell=0.0))
    assert (await waiting).remaining > 29.0
    await world.close()


@pytest.mark.parametrize("jump", [-3600.0, 3600.0])
async def test_a_clock_that_is_set_moves_no_deadline(tmp_path, monkeypatch, jump):
    world = await started(tmp_path, round_timeout=30.0)
    link = await world.joined(ALICE)
    await world.joined(BOB)
    await link.next_task(after=0, wait=30)
    monkeypatch.setattr(time, "time", lambda real=time.time: real() + jump)
    assert not world.driver.session.is_due(world.driver._conductor.clock())
    assert 29.0 < (await link.next_task(after=0, wait=0)).remaining <= 30.0
    world.driver.stop("enough")
    assert (await world.running).reason == "enough"
    assert json.loads((tmp_path / "coordinator" / "status.json").read_text())["phase"] == "failed"
    await world.close()


async def test_a_session_that_is_from_the_future_does_not_stand_still(tmp_path, monkeypatch):
    world = await started(tmp_path, selection_timeout=0.2)
    await world.stop()
    monkeypatch.setattr(time, "time", lambda real=time.time: real() - 3600)
    await world.start()
    assert "too few" in (await asyncio.wait_for(world.running, 5)).reason
    await world.close()


async def test_the_tasks_clock_runs_down(tmp_path):
    world = await started(tmp_path, round_timeout=30.0)
    link = await world.joined(ALICE)
    await world.joined(BOB)
    task = await link.next_task(after=0, wait=30)
    assert 29.0 < task.remaining <= 30.0
    assert not isinstance(task, Evaluate)
    await world.close()
