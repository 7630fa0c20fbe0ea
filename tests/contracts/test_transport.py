"""What every transport does, over memory and HTTPS: the same answers, the same errors, the same order."""

from __future__ import annotations

import asyncio
import json
import time

import numpy as np
import pytest
from transport_worlds import ALICE, BOB, SESSION, WORLDS, digest, make_model

from nevermined_fl.codecs import safetensors
from nevermined_fl.errors import DecodeError, NotFound, PermissionDenied, RemoteProtocolError, Unauthenticated
from nevermined_fl.messages import Evaluate, Evaluated, Finish, JoinRequest, Report, Train, Wait
from nevermined_fl.tokens import REPORT, JobKey


@pytest.fixture(params=sorted(WORLDS))
async def world(request, tmp_path):
    world = await WORLDS[request.param](tmp_path).start()
    yield world
    await world.close()


def write(folder, raw):
    path = folder / digest(raw)[7:]
    path.write_bytes(raw)
    return path


async def contribute(world, link, task, raw, examples):
    await link.send_update(round_number=task.round, digest=digest(raw), path=write(world.folder, raw))
    report = Report(SESSION, task.round, task.model, digest(raw), examples, {"accuracy": 0.5})
    assert (await link.report(report)).accepted


async def both(world):
    links = [await world.joined(ALICE), await world.joined(BOB)]
    return [(link, await link.next_task(after=0, wait=30)) for link in links]


async def test_a_session_from_joining_to_its_end_with_every_task_in_order(world):
    alice = await world.joined(ALICE)
    assert await alice.next_task(after=0, wait=0) == Wait(0)
    links = [alice, await world.joined(BOB)]
    seqs = [0, 0]
    for number in (1, 2):
        for index, (value, examples) in enumerate([(2.0, 10), (6.0, 30)]):
            task = await links[index].next_task(after=seqs[index], wait=30)
            assert isinstance(task, Train)
            assert task.round == number
            seqs[index] = task.seq
            await links[index].fetch_model(task.model, world.folder / "fetched")
            raw = make_model(value * number)
            await contribute(world, links[index], task, raw, examples)
        for index, link in enumerate(links):
            task = await link.next_task(after=seqs[index], wait=30)
            assert isinstance(task, Evaluate)
            assert task.seq > seqs[index]
            seqs[index] = task.seq
            answer = Evaluated(SESSION, number, task.model, 10, {"accuracy": 0.25 + index / 2})
            assert (await link.evaluated(answer)).accepted
    for index, link in enumerate(links):
        assert isinstance(await link.next_task(after=seqs[index], wait=30), Finish)
    outcome = await world.running
    assert outcome.finished
    model = safetensors.load((world.folder / "outputs" / "model.safetensors").read_bytes())
    np.testing.assert_array_equal(model["w"], np.full((300, 700), 10.0, np.float32))
    assert dict(outcome.history[0].metrics) == {"accuracy": 0.5}


async def test_a_forged_token_is_refused(world):
    link = world.link("forged")
    proof = world.proof("forged", JobKey.create())
    with pytest.raises(PermissionDenied) as caught:
        await link.join(JoinRequest("forged", proof))
    assert caught.value.check == "token_signature"
    assert {"rejected"} == {line["event"] for line in world.told[1:]}


async def test_a_stolen_token_with_another_key_is_refused(world):
    link = world.link(ALICE)
    with pytest.raises(Unauthenticated) as caught:
        await link.join(JoinRequest(ALICE, world.proof(ALICE, world.keys[BOB])))
    assert caught.value.check == "token_signer"


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"now": time.time() - 300}, "token_expired"),
        ({"fingerprint": "sha256:" + "0" * 64}, "token_audience"),
        ({"session": "did:nv:" + "0" * 64}, "token_audience"),
        ({"token": BOB}, "token_audience"),
    ],
)
async def test_a_proof_for_something_else_is_refused(world, changes, check):
    link = world.link(ALICE)
    with pytest.raises(Unauthenticated) as caught:
        await link.join(JoinRequest(ALICE, world.proof(ALICE, world.keys[ALICE], **changes)))
    assert caught.value.check == check


async def test_a_proof_that_was_seen_is_refused(world):
    request = JoinRequest(ALICE, world.proof(ALICE))
    await world.link(ALICE).join(request)
    with pytest.raises(Unauthenticated) as caught:
        await world.link(ALICE).join(request)
    assert caught.value.check == "proof_replayed"


async def test_nothing_is_answered_before_joining(world):
    with pytest.raises(Unauthenticated):
        await world.link(ALICE).next_task(after=0, wait=0)


async def test_who_waits_for_a_task_is_woken_when_there_is_one(world):
    alice = await world.joined(ALICE)
    waiting = asyncio.create_task(alice.next_task(after=0, wait=20))
    started = time.monotonic()
    await world.joined(BOB)
    assert isinstance(await waiting, Train)
    assert time.monotonic() - started < 5


async def test_a_truncated_upload_goes_on_where_it_stopped(world):
    (alice, task), _ = await both(world)
    raw = make_model(3.0)
    await world.upload_part(alice, 1, ALICE, raw, 500_000)
    sink = world.driver.service.open_update(ALICE, round_number=1, digest=digest(raw), size=len(raw))
    assert sink.offset == 500_000
    await contribute(world, alice, task, raw, 4)


async def test_a_coordinator_that_is_restarted_amid_an_upload_loses_nothing(world):
    (alice, task), (bob, _) = await both(world)
    other = make_model(5.0)
    await contribute(world, bob, task, other, 3)
    raw = make_model(3.0)
    await world.upload_part(alice, 1, ALICE, raw, 300_001)
    await world.restart()
    alice = await world.joined(ALICE)
    again = await alice.next_task(after=0, wait=30)
    assert (again.seq, again.round, again.model, again.seed) == (task.seq, task.round, task.model, task.seed)
    sink = world.driver.service.open_update(ALICE, round_number=1, digest=digest(raw), size=len(raw))
    assert sink.offset == 300_001
    await contribute(world, alice, task, raw, 1)
    assert isinstance(await alice.next_task(after=task.seq, wait=30), Evaluate)


def wrong_shape():
    return safetensors.dump({"w": np.zeros((700, 300), np.float32), "b": np.zeros(5, np.float64)})


def not_a_number():
    w = np.zeros((300, 700), np.float32)
    w[299, 698] = np.nan
    return safetensors.dump({"w": w, "b": np.zeros(5, np.float64)})


def extra_tensor():
    tensors = safetensors.load(make_model(1.0)) | {"canary": np.full(2, 73194682.5)}
    return safetensors.dump(tensors)


def with_metadata():
    raw = make_model(1.0)
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length]) | {"__metadata__": {"x": "y"}}
    text = json.dumps(header, separators=(",", ":")).encode()
    return len(text).to_bytes(8, "little") + text + raw[8 + length :]


@pytest.mark.parametrize(
    ("bad", "codes"),
    [
        (wrong_shape, {"schema"}),
        (not_a_number, {"not_finite"}),
        (extra_tensor, {"size"}),
        (with_metadata, {"size"}),
        (lambda: make_model(1.0)[:-1], {"size"}),
        (lambda: b"x" * len(make_model(1.0)), {"undecodable", "too_large"}),
    ],
)
async def test_a_body_that_is_no_update_is_refused_and_the_session_goes_on(world, bad, codes):
    (alice, task), _ = await both(world)
    raw = bad()
    with pytest.raises(DecodeError) as caught:
        await alice.send_update(round_number=1, digest=digest(raw), path=write(world.folder, raw))
    assert caught.value.code in codes
    await contribute(world, alice, task, make_model(2.0), 4)


async def test_a_body_that_is_not_what_its_digest_names_is_refused(world):
    (alice, task), _ = await both(world)
    raw, other = make_model(2.0), make_model(3.0)
    with pytest.raises(DecodeError) as caught:
        await alice.send_update(round_number=1, digest=digest(raw), path=write(world.folder, other))
    assert caught.value.code == "digest"
    await contribute(world, alice, task, raw, 4)


async def test_an_update_that_was_not_uploaded_cannot_be_reported(world):
    (alice, task), _ = await both(world)
    verdict = await alice.report(Report(SESSION, 1, task.model, digest(b"nothing"), 4, {}))
    assert (verdict.accepted, verdict.code) == (False, "no_update")


async def test_a_report_of_another_round_or_model_or_with_unknown_metrics_changes_nothing(world):
    (alice, task), _ = await both(world)
    raw = make_model(2.0)
    await alice.send_update(round_number=1, digest=digest(raw), path=write(world.folder, raw))
    for report, code in [
        (Report(SESSION, 2, task.model, digest(raw), 4, {}), "stale_round"),
        (Report(SESSION, 1, task.model, digest(raw), 4, {"canary": 7.5}), "bad_metric"),
        (Report(SESSION, 1, digest(b"other"), digest(raw), 4, {}), "other_model"),
    ]:
        await alice.send_update(round_number=1, digest=digest(raw), path=write(world.folder, raw))
        assert (await alice.report(report)).code == code
    await contribute(world, alice, task, raw, 4)


async def test_an_update_for_a_round_that_is_not_open_is_refused_before_it_is_read(world):
    (alice, _), _ = await both(world)
    raw = make_model(2.0)
    with pytest.raises(RemoteProtocolError) as caught:
        await alice.send_update(round_number=2, digest=digest(raw), path=write(world.folder, raw))
    assert caught.value.code == "late"


async def test_a_report_signed_with_another_key_is_refused(world):
    (alice, task), _ = await both(world)
    report = {"v": 1, "type": "report", "session": SESSION, "round": 1, "model": task.model, "update": task.model}
    signed = world.keys[BOB].sign(report | {"examples": 1, "metrics": {}}, typ=REPORT)
    with pytest.raises(Unauthenticated):
        await world.report_raw(alice, ALICE, signed)


async def test_another_protocol_version_is_refused_by_its_name(world):
    (alice, task), _ = await both(world)
    report = {"v": 2, "type": "report", "session": SESSION, "round": 1, "model": task.model, "update": task.model}
    signed = world.keys[ALICE].sign(report | {"examples": 1, "metrics": {}}, typ=REPORT)
    with pytest.raises(DecodeError) as caught:
        await world.report_raw(alice, ALICE, signed)
    assert caught.value.code == "version"


async def test_a_model_that_is_not_there_is_not_found(world):
    alice = await world.joined(ALICE)
    for name in (digest(b"no model"), "sha256:..%2F..%2Finitial", "sha256:" + "A" * 64):
        with pytest.raises(NotFound):
            await alice.fetch_model(name, world.folder / "fetched")
    assert not (world.folder / "fetched").exists()


async def test_who_leaves_is_not_waited_for(world):
    (alice, _), (bob, _) = await both(world)
    await alice.leave()
    assert [line["participant"] for line in world.told if line["event"] == "left"] == [ALICE]
    assert isinstance(await bob.next_task(after=0, wait=0), Train)


async def test_who_comes_and_goes_for_ever_fills_no_journal(world):
    alice = await world.joined(ALICE)
    for _ in range(100):
        await alice.leave()
    with pytest.raises(RemoteProtocolError) as caught:
        await alice.leave()
    assert caught.value.code == "too_often"


async def test_joining_again_makes_the_first_link_a_strangers(world):
    first = await world.joined(ALICE)
    second = await world.joined(ALICE)
    assert isinstance(await second.next_task(after=0, wait=0), Wait)
    if type(world).__name__ != "World":
        with pytest.raises(Unauthenticated):
            await first.next_task(after=0, wait=0)
