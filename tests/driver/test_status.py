"""Who is late, and why? The status says it in words of ours and in numbers."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace

import pytest
from driver_world import Attentive, acting, reached, told
from transport_worlds import ALICE, BOB, SESSION, digest, make_model

from nevermined_fl.driver import watch
from nevermined_fl.driver.status import _without_clocks
from nevermined_fl.errors import RemoteProtocolError
from nevermined_fl.messages import Report, Train
from nevermined_fl.session import Phase

PLAN = {"rounds": 2, "metrics": ()}


def states(world):
    """Of Alice and of Bob, without the seconds."""
    rows = world.driver._status.body()["members"]
    assert [row["participant"] for row in rows] == [ALICE, BOB]
    return [{name: value for name, value in row.items() if name not in {"participant", "seconds"}} for row in rows]


async def test_a_participant_from_absent_to_reported(tmp_path):
    world = Attentive(tmp_path, **PLAN)
    async with acting(world):
        alice = await world.joined(ALICE)
        assert states(world) == [{"state": "waiting"}, {"state": "absent"}]
        bob = await world.joined(BOB)
        assert states(world) == [{"state": "waiting"}, {"state": "waiting"}]
        task = await alice.next_task(after=0, wait=30)
        assert isinstance(task, Train)
        assert states(world)[0] == {"state": "training"}
        world.driver.service.model_path(task.model, participant=ALICE)
        assert states(world)[0] == {"state": "fetching"}
        world.driver.service.fetched(ALICE)
        assert states(world)[0] == {"state": "training"}
        raw = make_model(3.0)
        await world.upload_part(alice, 1, ALICE, raw, 100_000)
        assert states(world)[0] == {"state": "uploading", "bytes": 100_000, "total": len(raw)}
        (tmp_path / "update").write_bytes(raw)
        await alice.send_update(round_number=1, digest=digest(raw), path=tmp_path / "update")
        wrong = await alice.report(Report(SESSION, 1, digest(raw), digest(raw), 10, {}))
        assert (wrong.accepted, states(world)[0]) == (False, {"state": "refused", "code": "other_model"})
        await alice.send_update(round_number=1, digest=digest(raw), path=tmp_path / "update")
        assert (await alice.report(Report(SESSION, 1, task.model, digest(raw), 10, {}))).accepted
        assert states(world) == [{"state": "reported"}, {"state": "waiting"}]
        await bob.leave()
        assert states(world)[1] == {"state": "left"}


@pytest.mark.parametrize(
    ("value", "code", "plan"), [(9e9, "norm", {"norm_bound": 10.0}), (float("nan"), "not_finite", {})]
)
async def test_an_upload_that_is_refused_is_said_and_counted_until_it_is_tried_again(tmp_path, value, code, plan):
    world = Attentive(tmp_path, **PLAN, **plan)
    async with acting(world):
        alice, _ = await world.joined(ALICE), await world.joined(BOB)
        await alice.next_task(after=0, wait=30)
        (tmp_path / "update").write_bytes(raw := make_model(value))
        with pytest.raises(RemoteProtocolError) as refused:
            await alice.send_update(round_number=1, digest=digest(raw), path=tmp_path / "update")
        await told(world, "update_rejected")
        assert (refused.value.code, states(world)[0]) == (code, {"state": "refused", "code": code})
        [line] = [line for line in world.told if line["event"] == "update_rejected"]
        assert (line["participant"], line["round"], line["code"]) == (ALICE, 1, code)
        assert f'answers_total{{code="{code}",kind="upload"}} 1.0' in world.driver.scrape().decode()
        with pytest.raises(RemoteProtocolError, match="no update of round 2"):
            await alice.send_update(round_number=2, digest=digest(raw), path=tmp_path / "update")
        assert states(world)[0] == {"state": "refused", "code": code}, "what is not due now says nothing of now"
        await world.upload_part(alice, 1, ALICE, make_model(1.5), 1000)
        assert states(world)[0]["state"] == "uploading"


async def test_who_never_asks_for_his_task_is_silent_and_for_how_long(tmp_path):
    world = Attentive(tmp_path, **PLAN)
    async with acting(world):
        await world.joined(ALICE)
        await world.joined(BOB)
        world.driver._watch._seen[BOB].heard -= 61.0
        world.driver._watch._seen[ALICE].heard -= watch._SILENT - 5
        alice, bob = world.driver._status.body()["members"]
        assert (alice["state"], bob["state"]) == ("waiting", "silent")
        assert 61.0 <= bob["seconds"] < 90.0


async def test_after_a_restart_nobody_was_heard_of_yet(tmp_path):
    world = Attentive(tmp_path, **PLAN)
    async with acting(world):
        await world.joined(ALICE)
        await world.joined(BOB)
        await world.restart()
        assert states(world) == [{"state": "silent"}, {"state": "silent"}]


async def test_the_file_follows_the_phases_and_has_no_words_of_peers(tmp_path):
    world = Attentive(tmp_path, **PLAN)
    path = tmp_path / "coordinator" / "status.json"
    async with acting(world) as actors:
        actors.hold(BOB, 2)
        actors.begin()
        await reached(world, lambda session: session.round == 2 and session.phase is Phase.REPORTING)
        await told(world, "update_accepted", 3)
        while (body := json.loads(path.read_text()))["updates"] < 1 or body["round"] < 2:  # noqa: ASYNC110  a file has no event
            await asyncio.sleep(0.01)
        assert (body["session"], body["phase"], body["rounds"], body["target"]) == (SESSION, "reporting", 2, 2)
        assert (body["turn"], body["attempt"], body["problem"]) == (2, 0, "")
        assert body["deadline"] - body["time"] == pytest.approx(body["remaining"], abs=0.1)
        assert {row["participant"]: row["state"] for row in body["members"]} == {ALICE: "reported", BOB: "training"}
    actors_gone = json.loads(path.read_text())
    assert actors_gone["phase"] == "reporting"


async def test_a_finished_session_says_so(tmp_path):
    world = Attentive(tmp_path, **PLAN)
    async with acting(world) as actors:
        actors.begin()
        await world.running
        body = json.loads((tmp_path / "coordinator" / "status.json").read_text())
    assert (body["phase"], body["members"]) == ("finished", [])
    assert (body["deadline"], body["remaining"]) == (None, None)


@pytest.mark.parametrize("jump", [-3600.0, 3600.0])
async def test_the_deadline_is_on_the_clock_of_whoever_reads_it(tmp_path, monkeypatch, jump):
    """The driver's own clock goes on from where the machine's was at its start."""
    world = Attentive(tmp_path, **PLAN, selection_timeout=47.0)
    async with acting(world):
        monkeypatch.setattr(time, "time", lambda real=time.time: real() + jump)
        body = world.driver._status.body()
        assert 37.0 < body["remaining"] <= 47.0
        assert 37.0 < body["deadline"] - time.time() <= 47.0
        assert _without_clocks(body) == _without_clocks(world.driver._status.body())


async def test_asking_again_after_an_earlier_round_refuses_nothing_of_this_one(tmp_path):
    """Whoever builds on an update asks whether it counted; meanwhile it trains."""
    world = Attentive(tmp_path, rounds=2, metrics=())
    async with acting(world) as actors:
        actors.hold(ALICE, 2)
        actors.hold(BOB, 2)
        actors.begin()
        await reached(world, lambda session: session.round == 2 and session.phase is Phase.REPORTING)
        session = world.driver.session
        (alice,) = [update for update in session.history[0].updates if update.participant == ALICE]
        link = await world.joined(ALICE)
        await link.next_task(after=0, wait=30)
        again = Report(SESSION, 1, session.model_before(1), alice.update, 10, {})
        assert (await link.report(again)).accepted
        assert (await link.report(replace(again, update=digest(b"another")))).code == "other_answer"
        assert states(world)[0] == {"state": "training"}
