"""What participants may ask: woken once a turn, held to the plan's norm bound, given changes of models, asked for a model."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from driver_world import Attentive, acting, reached
from transport_worlds import ALICE, BOB, SESSION, HttpWorld, World, digest, make_model

from nevermined_fl.codecs import safetensors
from nevermined_fl.driver import uploads
from nevermined_fl.errors import NotFound, RemoteProtocolError
from nevermined_fl.messages import Finish, Initialize, Report, Train
from nevermined_fl.precision import apply_change, encode_change
from nevermined_fl.session import Phase
from nevermined_fl.session.plan import FROM_PARTICIPANT


async def send(world, link, raw, task, number=1):
    path = world.folder / digest(raw)[7:]
    path.write_bytes(raw)
    await link.send_update(round_number=number, digest=digest(raw), path=path)
    return await link.report(Report(SESSION, number, task.model, digest(raw), 10, {}))


async def test_pollers_are_woken_once_a_turn_and_not_at_every_event(tmp_path):
    world = Attentive(tmp_path, rounds=2, metrics=())
    async with acting(world):
        alice, bob = await world.joined(ALICE), await world.joined(BOB)
        task = await alice.next_task(after=0, wait=30)
        turned = world.driver._conductor.turned()
        assert (await send(world, alice, make_model(2.0), task)).accepted
        await bob.leave()
        await world.joined(BOB)
        assert not turned.is_set()
        waiting = asyncio.create_task(alice.next_task(after=task.seq, wait=30))
        assert (await send(world, bob, make_model(6.0), task)).accepted
        again = await waiting
        assert (again.seq, again.round) == (task.seq + 1, 2)
        assert turned.is_set()
        world.driver.stop("enough")
        assert await alice.next_task(after=again.seq, wait=30) == Finish(again.seq + 1, "failed", "enough")


@pytest.mark.parametrize(("bound", "accepted"), [(919.0, False), (920.0, True)])
async def test_an_update_beyond_the_norm_bound_is_refused(tmp_path, bound, accepted):
    """210000 numbers move by 2, and 5 by 2/3: the square root of 840000 + 20/9 is 916.516 in F32 and F64 alike."""
    world = Attentive(tmp_path, metrics=(), norm_bound=bound * 916.516 / 919.5)
    async with acting(world):
        alice, _ = await world.joined(ALICE), await world.joined(BOB)
        task = await alice.next_task(after=0, wait=30)
        if accepted:
            assert (await send(world, alice, make_model(3.0), task)).accepted
        else:
            with pytest.raises(RemoteProtocolError) as refused:
                await send(world, alice, make_model(3.0), task)
            assert refused.value.code == "norm"
            assert not list((tmp_path / "coordinator" / "spool").iterdir())
            assert (await send(world, alice, make_model(2.0), task)).accepted


@pytest.mark.parametrize(
    ("bounds", "moved", "control", "refused"),
    [
        ({"norm_bound": 920.0}, 3.0, 2.0, ""),  # 916.5 each
        ({"norm_bound": 920.0}, 3.0, 1e30, "control"),
        ({"norm_bound": 920.0}, 4.0, 0.0, "model"),
        ({"norm_bound": 920.0, "control_bound": 400.0}, 3.0, 1.0, "control"),
        ({"norm_bound": 920.0, "control_bound": 1400.0}, 3.0, 3.0, ""),
        ({"control_bound": 400.0}, 9.0, 1.0, "control"),
        ({"control_bound": 400.0}, 9.0, 0.5, ""),
    ],
)
async def test_a_control_variate_is_bounded_by_itself(tmp_path, bounds, moved, control, refused):
    """Finite or not: a huge one would stay in everybody's steps for the rest of the session."""
    world = Attentive(tmp_path, metrics=(), strategy="scaffold", **bounds)
    tensors = safetensors.load(make_model(moved))
    beside = {"w": safetensors.load(make_model(control))["w"], "b": np.full(5, control / 3)}
    raw = safetensors.dump(tensors | {f"control/{name}": tensor for name, tensor in beside.items()})
    async with acting(world):
        alice, _ = await world.joined(ALICE), await world.joined(BOB)
        task = await alice.next_task(after=0, wait=30)
        if refused:
            with pytest.raises(RemoteProtocolError, match=f"the {refused} change") as caught:
                await send(world, alice, raw, task)
            assert caught.value.code == "norm"
        else:
            assert (await send(world, alice, raw, task)).accepted


async def test_an_update_that_is_judged_is_not_here_yet(tmp_path, monkeypatch):
    world = Attentive(tmp_path, metrics=(), norm_bound=1.0)
    met = []

    def judged(model, update, *rest):
        spool = world.driver._uploads.spool(1)
        met.append(spool.has(ALICE, 1, digest(raw)))
        raise KeyboardInterrupt  # the process ends now

    async with acting(world):
        alice, _ = await world.joined(ALICE), await world.joined(BOB)
        task, raw = await alice.next_task(after=0, wait=30), make_model(3.0)
        sink = world.driver.service.open_update(ALICE, round_number=1, digest=digest(raw), size=len(raw))
        sink.write(raw)
        with monkeypatch.context() as patched:
            patched.setattr(uploads, "distance", judged)
            with pytest.raises(KeyboardInterrupt):
                sink.commit()
        await world.restart()
        alice = await world.joined(ALICE)
        report = Report(SESSION, 1, task.model, digest(raw), 10, {})
        assert (await alice.report(report)).code == "no_update"
        with pytest.raises(RemoteProtocolError, match="the plan allows 1"):
            await send(world, alice, raw, task)
    assert met == [False]


async def test_who_has_the_round_s_model_fetches_only_what_changed(tmp_path):
    world = Attentive(tmp_path, rounds=2, metrics=(), precision="int8")
    schema = world.plan.carried()
    async with acting(world):
        links = {name: await world.joined(name) for name in (ALICE, BOB)}
        for name, value in ((ALICE, 2.0), (BOB, 6.0)):
            task = await links[name].next_task(after=0, wait=30)
            (tmp_path / "trained").write_bytes(make_model(value))
            change = encode_change(
                world.folder / "initial.safetensors",
                tmp_path / "trained",
                residual_in=None,
                residual_out=tmp_path / "residual",
                into=tmp_path / "change",
                schema=schema,
                precision="int8",
            ).change
            await links[name].send_update(round_number=1, digest=change, path=tmp_path / "change")
            assert (await links[name].report(Report(SESSION, 1, task.model, change, 10, {}))).accepted
        after = await links[ALICE].next_task(after=task.seq, wait=30)
        await links[ALICE].fetch_model(after.model, tmp_path / "whole")
        await links[ALICE].fetch_delta(task.model, after.model, tmp_path / "delta")
        made = apply_change(world.folder / "initial.safetensors", tmp_path / "delta", tmp_path / "made", schema, "int8")
        assert made == after.model
        assert (tmp_path / "made").read_bytes() == (tmp_path / "whole").read_bytes()
        assert (tmp_path / "delta").stat().st_size < 0.26 * (tmp_path / "whole").stat().st_size
        values = safetensors.load((tmp_path / "whole").read_bytes())["w"]
        assert np.allclose(values, 4.0, atol=0.03)
        with pytest.raises(NotFound):
            await links[ALICE].fetch_delta(after.model, task.model, tmp_path / "none")


async def test_a_participant_makes_the_initial_model_and_a_restart_knows_it(tmp_path):
    world = Attentive(tmp_path, rounds=1, metrics=(), initial_model=FROM_PARTICIPANT)
    (tmp_path / "initial.safetensors").unlink()
    async with acting(world):
        links = {name: await world.joined(name) for name in (ALICE, BOB)}
        await reached(world, lambda session: session.phase is Phase.INITIALIZATION)
        [chosen] = world.driver.session.cohort
        task = await links[chosen].next_task(after=0, wait=30)
        assert isinstance(task, Initialize)
        raw = make_model(5.0)
        (tmp_path / "made").write_bytes(raw)
        await links[chosen].send_update(round_number=0, digest=digest(raw), path=tmp_path / "made")
        assert (await links[chosen].report(Report(SESSION, 0, digest(raw), digest(raw), 1, {}))).accepted
        await reached(world, lambda session: session.round == 1)
        await world.restart()
        links = {name: await world.joined(name) for name in (ALICE, BOB)}
        for name, value in ((ALICE, 2.0), (BOB, 6.0)):
            train = await links[name].next_task(after=0, wait=30)
            assert (type(train), train.model) == (Train, digest(raw))
            await links[name].fetch_model(train.model, tmp_path / "fetched")
            assert (tmp_path / "fetched").read_bytes() == raw
            assert (await send(world, links[name], make_model(value), train)).accepted
        outcome = await world.running
    published = safetensors.load((tmp_path / "outputs" / "model.safetensors").read_bytes())
    assert outcome.finished
    assert (published["w"] == 4.0).all()
    assert "initialized" in [line["event"] for line in world.told]
    assert not list((tmp_path / "coordinator" / "spool-initial").iterdir())


async def test_an_initial_model_that_was_lost_is_made_again(tmp_path):
    world = Attentive(tmp_path, rounds=1, metrics=(), initial_model=FROM_PARTICIPANT)
    async with acting(world):
        links = {name: await world.joined(name) for name in (ALICE, BOB)}
        await reached(world, lambda session: session.phase is Phase.INITIALIZATION)
        [chosen] = world.driver.session.cohort
        raw = make_model(5.0)
        (tmp_path / "made").write_bytes(raw)
        await links[chosen].send_update(round_number=0, digest=digest(raw), path=tmp_path / "made")
        assert (await links[chosen].report(Report(SESSION, 0, digest(raw), digest(raw), 1, {}))).accepted
        await reached(world, lambda session: session.round == 1)
        await world.stop()
        for path in (tmp_path / "coordinator" / "models").iterdir():
            path.unlink()
        await world.start()
        await reached(world, lambda session: session.phase is Phase.INITIALIZATION)
        assert world.told[-1] == world.told[-1] | {"event": "rolled_back", "round": 0}


async def test_an_update_that_came_whole_and_was_never_judged_is_judged_after_a_restart(tmp_path):
    world = HttpWorld(tmp_path, rounds=1, metrics=())
    await world.start()
    try:
        links = {name: await world.joined(name) for name in (ALICE, BOB)}
        raw = make_model(2.0)
        task = await links[ALICE].next_task(after=0, wait=30)
        await World.upload_part(world, links[ALICE], 1, ALICE, raw, len(raw))
        await world.restart()
        links = {name: await world.joined(name) for name in (ALICE, BOB)}
        assert (await send(world, links[ALICE], raw, task)).accepted
        assert (await send(world, links[BOB], make_model(6.0), task)).accepted
        assert (await world.running).finished
    finally:
        await world.close()
