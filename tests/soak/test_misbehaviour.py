"""Participants that vanish, freeze, repeat themselves or are two: the round completes and counts each of them once."""

from __future__ import annotations

import asyncio
import json
import signal

import numpy as np
import pytest
from forks import wait_any
from soak_world import MEMBERS, Ground, World, make_link
from transport_worlds import SESSION

from nevermined_fl.codecs import safetensors
from nevermined_fl.errors import RemoteProtocolError
from nevermined_fl.files import sha256_bytes
from nevermined_fl.messages import Evaluate, Evaluated, JoinRequest, Report, Train
from nevermined_fl.tokens import make_join_proof
from nevermined_fl.transports.http.client import fingerprint_of

FIRST, SECOND, THIRD = MEMBERS
DEADLINE = 2.0


@pytest.fixture
def world(request, tmp_path):
    """A session of three; the tests change its plan by a mark."""
    changes = {"rounds": 2, "min_participants": 2, "round_timeout": DEADLINE} | getattr(request, "param", {})
    ground = Ground.make(tmp_path / "ground", "float", **changes)
    world = World(ground, tmp_path / "world", slot=0)
    with world.all_ended():
        yield world


def counted(world):
    """Who was counted in each round, and with which update, as the card says."""
    card = json.loads((world.outputs / "card.json").read_text())
    return [{update["participant"]: update["update"] for update in done["updates"]} for done in card["rounds"]]


def trained(world, member, instance=""):
    """The digests of the updates that a participant made."""
    lines = (world.place(member, instance) / "trainings.jsonl").read_text().splitlines()
    return [json.loads(line)["update"] for line in lines]


def told(world, member, event):
    """Wait until a participant told an event, by its own log."""
    while not any(line["event"] == event for line in world.story(member)):
        wait_any(world.processes, 0.02)


@pytest.mark.parametrize("world", [{"rounds": 1}], indirect=True)
def test_one_that_vanishes_is_not_waited_for_beyond_the_deadline(world):
    coordinator = world.coordinator()
    others = [world.participant(member) for member in (SECOND, THIRD)]
    lost = world.participant(FIRST, pause=60.0)
    told(world, FIRST, "joined")
    told(world, SECOND, "update_sent")
    lost.end()
    world.finish(coordinator, world.coordinator)
    world.await_all(others)
    assert [sorted(each) for each in counted(world)] == [sorted([SECOND, THIRD])]


def test_one_that_freezes_past_the_deadline_comes_back(world):
    coordinator = world.coordinator()
    others = [world.participant(member, pause=0.3) for member in (SECOND, THIRD)]
    frozen = world.participant(FIRST, pause=0.3)
    told(world, FIRST, "joined")
    frozen.signal(signal.SIGSTOP)
    while not any(line["event"] == "round_committed" for line in world.events()):
        wait_any([coordinator], 0.02)
    frozen.signal(signal.SIGCONT)
    world.finish(coordinator, world.coordinator)
    world.await_all([*others, frozen])
    first, second = counted(world)
    assert sorted(first) == sorted([SECOND, THIRD])
    assert sorted(second) == sorted(MEMBERS)
    assert second[FIRST] == trained(world, FIRST)[-1]


@pytest.mark.parametrize("world", [{"round_timeout": 60.0, "min_participants": 3}], indirect=True)
async def test_one_that_sends_twice_is_counted_once(world):
    """The same again is answered the same; another update of the same round is refused."""
    coordinator = world.coordinator()
    others = world.participant(SECOND), world.participant(THIRD, pause=1.0)
    ground = world.ground
    link, key = make_link(world, FIRST), ground.key(FIRST)
    proof = make_join_proof(key, session=SESSION, fingerprint=fingerprint_of(ground.certificate), token=FIRST)
    await link.join(JoinRequest(FIRST, proof))
    bodies = []
    after = 0
    for _ in range(2):
        task = await next_train(link, after)
        after = task.seq
        one, two = (update_file(world, f"{task.round}-{n}", value) for n, value in enumerate((2.0, 6.0)))
        bodies.append(sha256_bytes(one.read_bytes()))
        report = await send(link, task, one)
        assert (await link.report(report)).accepted
        assert (await link.report(report)).accepted
        with pytest.raises(RemoteProtocolError):
            await send(link, task, two)
        other = Report(SESSION, task.round, task.model, sha256_bytes(two.read_bytes()), 10, {"accuracy": 0.5})
        assert not (await link.report(other)).accepted
    await link.leave()
    await link.close()
    await asyncio.to_thread(world.finish, coordinator, world.coordinator)
    world.await_all(others)
    assert [each[FIRST] for each in counted(world)] == bodies


async def next_train(link, after):
    """The next training that is asked for; evaluations are answered."""
    while True:
        task = await link.next_task(after=after, wait=10)
        if isinstance(task, Train):
            return task
        if isinstance(task, Evaluate):
            await link.evaluated(Evaluated(SESSION, task.round, task.model, 10, {"accuracy": 0.5}))
        after = max(after, task.seq)


async def send(link, task, path):
    """Upload; what is to be reported of it."""
    digest = sha256_bytes(path.read_bytes())
    await link.send_update(round_number=task.round, digest=digest, path=path)
    return Report(SESSION, task.round, task.model, digest, 10, {"accuracy": 0.5})


def update_file(world, name, value):
    """An update full of one value."""
    tensors = safetensors.load(world.ground.initial.read_bytes())
    path = world.folder / f"{name}.safetensors"
    path.write_bytes(safetensors.dump({key: np.full_like(tensor, value) for key, tensor in tensors.items()}))
    return path


@pytest.mark.parametrize("world", [{"round_timeout": 60.0, "min_participants": 3}], indirect=True)
def test_two_processes_with_one_identity_are_one_participant(world):
    """Each trains something else; what is counted is wholly the one's or the other's."""
    coordinator = world.coordinator()
    others = [world.participant(member) for member in (SECOND, THIRD)]
    twins = [world.participant(FIRST, instance=name, pause=0.05) for name in ("a", "b")]
    world.finish(coordinator, world.coordinator)
    world.await_all(others)
    mine = set(trained(world, FIRST, "a")) | set(trained(world, FIRST, "b"))
    for done in counted(world):
        assert sorted(done) == sorted(MEMBERS)
        assert done[FIRST] in mine
    assert len(mine) > len(trained(world, FIRST, "a"))
    for twin in twins:
        twin.end()
