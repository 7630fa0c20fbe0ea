"""The session record: how it is issued, found, and judged."""

import asyncio
import json
import time

import pytest
from launcher_world import CLINIC, CLOUD, STRANGER

from nevermined_fl.launcher.coordinator_job import _phase
from nevermined_fl.launcher.watch import RecordWatch
from nevermined_fl.tokens import SessionRecord, verify_record


def record(world, seq, *, account=CLOUD, session=None, issued=None, valid=60, phase="selection", **more):
    now = time.time() if issued is None else issued
    return SessionRecord(session or world.session, seq, now, now + valid, phase, **more).sign(account)


@pytest.fixture
async def watching(world):
    """A data provider's watch, and a way to put any record before it."""
    world.begin_session()
    job = await world.begin(world.clinic)
    order = world.clinic.launcher.store.get(job).order
    watch = RecordWatch(world.clinic.launcher, order)

    def put(jws, seq):
        world.cloud.launcher.store.keep_record(world.session, seq, jws)
        for waiter in set().union(*world.cloud.launcher.records._waiting.values()):
            waiter.set_result(None)

    return world, watch, put


async def test_the_owner_s_record_is_believed(watching):
    world, watch, put = watching
    put(record(world, 3, endpoints={"native": "https://127.0.0.1:1"}), 3)
    found = await asyncio.wait_for(watch.until(lambda r: "native" in r.endpoints), 5)
    assert found.seq == 3


@pytest.mark.parametrize(
    "forgery",
    [
        {"account": STRANGER},
        {"account": CLINIC},
        {"session": "did:nv:" + "66" * 32},
        {"issued": 1.0},
        {"valid": -1},
        {"issued": time.time() + 10_000},
    ],
)
async def test_a_record_of_somebody_else_or_another_time_is_not(watching, forgery):
    world, watch, put = watching
    put(record(world, 3, **forgery), 3)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(watch.until(lambda _: True), 0.3)
    put(record(world, 4), 4)
    assert (await asyncio.wait_for(watch.until(lambda _: True), 5)).seq == 4


async def test_an_older_record_is_never_believed_again(watching):
    world, watch, put = watching
    put(record(world, 5), 5)
    await asyncio.wait_for(watch.until(lambda _: True), 5)
    put(record(world, 4, outcome="failed"), 6)  # a gateway that lies about the number
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(watch.until(lambda r: r.is_over()), 0.3)
    again = RecordWatch(world.clinic.launcher, watch._order)  # nor after a restart
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(again.until(lambda r: r.is_over()), 0.3)
    put(record(world, 5), 7)
    assert (await asyncio.wait_for(again.until(lambda _: True), 5)).seq == 5


async def test_numbers_grow_over_restarts(world):
    world.begin_session()
    first = world.cloud.launcher.records.issue(world.session, valid=60, phase="selection")
    await world.cloud.stop()
    await world.cloud.start()
    second = world.cloud.launcher.records.issue(world.session, valid=60, phase="selection")
    assert (first.seq, second.seq) == (1, 2)
    assert world.cloud.launcher.records.last(world.session) == second


async def test_whoever_waits_is_woken(world):
    world.begin_session()
    path = f"/fl/sessions/{world.session}/record"
    asking = asyncio.ensure_future(world.cloud.ask("GET", path, params={"after": "0", "wait": "20"}))
    started = time.monotonic()
    await asyncio.wait({asking}, timeout=0.2)
    assert not asking.done()
    world.cloud.launcher.records.issue(world.session, valid=60, phase="selection")
    status, body = await asking
    assert (status, body["seq"]) == (200, 1)
    assert time.monotonic() - started < 10
    assert verify_record(body["record"], session=world.session, expected={CLOUD.address}).phase == "selection"
    assert (await world.cloud.ask("GET", path, params={"after": "1"}))[0] == 204
    assert (await world.cloud.ask("GET", path))[0] == 200


async def test_a_poll_that_gives_up_leaves_the_others_waiting(world):
    world.begin_session()
    path = f"/fl/sessions/{world.session}/record"
    asking = asyncio.ensure_future(world.cloud.ask("GET", path, params={"wait": "20"}))
    await asyncio.wait({asking}, timeout=0.2)
    assert (await world.cloud.ask("GET", path, params={"wait": "0.01"}))[0] == 404
    world.cloud.launcher.records.issue(world.session, valid=60, phase="selection")
    assert (await asyncio.wait_for(asking, 5))[0] == 200


async def test_the_record_says_the_phase_that_the_coordinator_is_in(world):
    """It has no word for that a session is over but its last one."""
    world.begin_session(coordinator="hang")
    job = await world.begin(world.cloud)
    launcher = world.cloud.launcher
    records, status = launcher.records, launcher.work(job) / "status.json"
    await reached(records, world.session, "selection")
    for phase in ("initialization", "reporting", "configuration"):
        status.write_text(json.dumps({"phase": phase}))
        await reached(records, world.session, phase)
    last = records.last(world.session)
    assert (last.seq, last.is_over(), "native" in last.endpoints) == (4, False, True)
    status.write_text(json.dumps({"phase": "finished"}))
    assert _phase(launcher, launcher.store.get(job), "evaluation") == "evaluation"


async def reached(records, session, phase):
    while (last := records.last(session)) is None or last.phase != phase:  # noqa: ASYNC110  no event tells it
        await asyncio.sleep(0.02)


async def test_a_session_of_nobody(world):
    status, body = await world.cloud.ask("GET", "/fl/sessions/did:nv:" + "66" * 32 + "/record", params={"wait": "0.01"})
    assert (status, body["check"]) == (404, "record_exists")
    assert world.cloud.launcher.records._waiting == {}


@pytest.mark.parametrize("query", [{"after": "x"}, {"wait": "-1"}, {"wait": "nan"}, {"after": "1e400"}])
async def test_a_question_that_is_none(world, query):
    status, body = await world.cloud.ask("GET", "/fl/sessions/did:nv:" + "66" * 32 + "/record", params=query)
    assert (status, body["check"]) == (400, "number_format")
    assert (await world.cloud.ask("GET", "/fl/sessions/did:nv:6/record"))[1]["check"] == "id_format"


async def test_an_endpoint_that_is_never_dialled_ends_the_job(world):
    """The record is genuine, but would have the provider ask its cloud for credentials."""
    world.begin_session()
    world.cloud.launcher.records.issue(
        world.session, valid=60, phase="selection", endpoints={"native": "https://169.254.169.254:80"}
    )
    job = await world.begin(world.hospital)
    status = await world.hospital.reach(job, "settling")
    assert "does not dial" in status["reason"]
    assert world.hospital.launcher.backend.submitted == []
