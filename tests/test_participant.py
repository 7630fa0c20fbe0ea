"""The participant in a session, also of a coordinator that forgets, cheats or changes its mind."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from federation import did
from participant_world import END, LOST, PLAN, UPDATE, Script, Trainer, participant, told, train
from transport_worlds import SESSION, WORLDS, World, digest, make_model

from nevermined_fl.codecs import safetensors
from nevermined_fl.errors import RemoteProtocolError, TrainerError, Unauthenticated
from nevermined_fl.files import sha256_file
from nevermined_fl.messages import Evaluate, Initialize, Wait
from nevermined_fl.participant import Credentials, Participant
from nevermined_fl.trainers.child import Trained


async def test_a_round_is_trained_sent_reported_and_evaluated(tmp_path):
    link = Script(PLAN, [Wait(0), train(1), Evaluate(3, 1, digest(make_model(1.0)), 60.0), END])
    assert await participant(PLAN, link, Trainer(), tmp_path).run() == END
    assert [heard if isinstance(heard, str | tuple) else type(heard).__name__ for heard in link.heard] == [
        "fetch",
        ("update", 1, digest(UPDATE)),
        "Report",
        "Evaluated",
    ]
    assert told(tmp_path) == ["joined", "round_trained", "update_sent", "refused", "over"]


async def test_an_update_that_comes_too_late_is_not_the_end(tmp_path):
    link = Script(PLAN, [train(1), RemoteProtocolError("too late", code="late"), train(2), END])
    trainer = Trainer()
    await participant(PLAN, link, trainer, tmp_path).run()
    assert trainer.fits == 2
    assert told(tmp_path).count("refused") == 1


async def test_a_coordinator_with_another_plan_or_session_is_refused(tmp_path):
    for change in ({"parameters": PLAN.to_parameters() | {"rounds": 9}}, {"session": did("x")}, {"parameters": {}}):
        link = Script(PLAN, [train(1)])
        link.__dict__.update(change)
        with pytest.raises(RemoteProtocolError):
            await participant(PLAN, link, Trainer(), tmp_path).run()
        assert not link.heard


async def test_a_coordinator_that_forgets_for_ever_is_given_up(tmp_path):
    with pytest.raises(Unauthenticated):
        await participant(PLAN, Script(PLAN, [LOST] * 20), Trainer(), tmp_path).run()


async def test_the_first_model_is_made_once_and_travels_as_an_update_of_round_0(tmp_path):
    plan = World(tmp_path, initial_model="participant").plan
    trainer, asked = Trainer(), Initialize(1, 11, 60.0)
    link = Script(plan, [asked, LOST, asked, END])
    await participant(plan, link, trainer, tmp_path).run()
    report = link.heard[-1]
    assert trainer.fits == 1
    assert link.heard[:2] == [("update", 0, digest(UPDATE)), link.heard[1]]
    assert (report.round, report.model, report.update, report.examples) == (0, digest(UPDATE), digest(UPDATE), 1)


async def test_training_that_took_too_long_costs_the_round_alone(tmp_path):
    slow = Trainer(TrainerError("too long", kind="TimeoutError"))
    assert await participant(PLAN, Script(PLAN, [train(1), END]), slow, tmp_path).run() == END
    assert told(tmp_path) == ["joined", "round_missed", "over"]


async def test_an_algorithm_that_failed_is_told_to_the_coordinator_as_leaving(tmp_path):
    link = Script(PLAN, [train(1)])
    broken = Trainer(TrainerError("the algorithm raised KeyError in line 3", kind="KeyError", line=3))
    with pytest.raises(TrainerError):
        await participant(PLAN, link, broken, tmp_path).run()
    assert link.heard == ["fetch", "leave"]
    assert told(tmp_path) == ["joined", "algorithm_failed"]


class Counted:
    """A link that counts what is fetched."""

    def __init__(self, link):
        self._link, self.fetched = link, []

    def __getattr__(self, name):
        if name.startswith("fetch"):
            self.fetched.append(name)
        return getattr(self._link, name)


class Drift(Trainer):
    """Adds to each number what the seed says."""

    async def fit(self, model, seed, into, seconds, *, control=None):
        chance = np.random.default_rng(seed)
        model = safetensors.load(model.read_bytes())
        moved = {name: (x + 0.1 * chance.normal(size=x.shape)).astype(x.dtype) for name, x in model.items()}
        into.write_bytes(safetensors.dump(moved))
        return Trained(sha256_file(into), 9, {})


@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
@pytest.mark.parametrize("word", ["f32", "int8"])
async def test_a_whole_session_with_changes_both_ways(tmp_path, world, word):
    there = await world(tmp_path, rounds=3, precision=word, strategy="scaffold").start()
    links = []

    async def take_part(name):
        links.append(Counted(there.link(name)))
        (tmp_path / name[-8:]).mkdir()
        who = Credentials(SESSION, name, token=name, key=there.keys[name], fingerprint=there.fingerprint)
        taking = Participant(there.plan, who, link=links[-1], trainer=Drift(), folder=tmp_path / name[-8:])
        return await taking.run()

    assert {end.outcome for end in await asyncio.gather(*map(take_part, there.plan.members))} == {"finished"}
    small = ["fetch_model", "fetch_delta", "fetch_delta", "fetch_delta"]
    assert [link.fetched for link in links] == [small if word == "int8" else ["fetch_model"] * 4] * 2
    await there.close()
