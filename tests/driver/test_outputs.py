"""What a session publishes: the plan's tensors alone, checkpoints, and why it stopped early."""

from __future__ import annotations

import hashlib
import json
import os

import numpy as np
import pytest
from driver_world import Attentive, acting
from federation import make_plan
from transport_worlds import ALICE, BOB, digest, make_model

from nevermined_fl.codecs import safetensors
from nevermined_fl.driver.card import card, stopped_early
from nevermined_fl.driver.checkpoints import keep_checkpoints
from nevermined_fl.driver.publish import publish
from nevermined_fl.driver.store import Store
from nevermined_fl.errors import DecodeError
from nevermined_fl.session import Metric, Phase, Session
from nevermined_fl.session.plan import EarlyStop
from nevermined_fl.session.state import Round


async def run(folder, **plan):
    world = Attentive(folder, **plan)
    async with acting(world) as actors:
        actors.begin()
        outcome = await world.running
    return outcome, json.loads((folder / "outputs" / "result.json").read_text()), world


async def test_every_second_model_is_kept_and_listed(tmp_path):
    _, result, world = await run(tmp_path, rounds=5, checkpoint_every=2, metrics=())
    kept = sorted(path.name for path in (tmp_path / "outputs" / "checkpoints").iterdir())
    assert kept == ["round-2.safetensors", "round-4.safetensors"]
    card = json.loads((tmp_path / "outputs" / "card.json").read_text())
    for listed in (result["checkpoints"], card["checkpoints"]):
        assert [row["round"] for row in listed] == [2, 4]
        for row in listed:
            raw = (tmp_path / "outputs" / row["file"]).read_bytes()
            assert digest(raw) == row["sha256"] == card["rounds"][row["round"] - 1]["model"]
    assert [line["round"] for line in world.told if line["event"] == "checkpoint_kept"] == [2, 4]


async def test_a_session_that_is_good_enough_says_so(tmp_path):
    early = EarlyStop("accuracy", target=0.25)
    outcome, result, world = await run(tmp_path, rounds=5, early_stop=early, metrics=(Metric("accuracy"),))
    assert (outcome.finished, outcome.reason, result["outcome"], result["reason"]) == (True, "", "finished", "")
    assert result["stopped_early"] == {"round": 1, "metric": "accuracy", "value": 0.25, "code": "target"}
    told = [line for line in world.told if line["event"] in {"stopped_early", "finished"}]
    assert [(line["event"], line.get("code")) for line in told] == [("stopped_early", "target"), ("finished", None)]


def test_the_card_says_which_attempt_made_a_round_that_was_begun_again():
    plan = make_plan((ALICE, BOB), make_model(1.0), repeats=3)
    model = "sha256:" + "0" * 64
    history = (Round(1, model, (), (), ()), Round(2, model, (), (), (), attempt=3))
    session = Session("did:nv:" + "1" * 64, plan, Phase.FINISHED, model, None, history=history)
    rounds = card(session, model, [])["rounds"]
    assert [(row["round"], row.get("attempt")) for row in rounds] == [(1, None), (2, 3)]


@pytest.mark.parametrize(
    ("stop", "values", "code"),
    [
        (EarlyStop("loss", "min", target=0.3), (0.5, 0.2), "target"),
        (EarlyStop("loss", "min", target=0.1, tolerance=0.01), (0.5, 0.495), "tolerance"),
        (EarlyStop("loss", "max", target=0.5), (0.1, 0.6), "target"),
        (None, (0.5, 0.2), None),
    ],
)
def test_why_it_stopped(stop, values, code):
    plan = make_plan((ALICE, BOB), make_model(1.0), rounds=9, metrics=(Metric("loss"),), early_stop=stop)
    history = tuple(Round(n, "sha256:" + "0" * 64, (), (), (("loss", v),)) for n, v in enumerate(values, 1))
    session = Session("did:nv:" + "1" * 64, plan, Phase.FINISHED, history[-1].model, None, history=history)
    found = stopped_early(session)
    assert (found and (found["code"], found["value"], found["round"])) == (code and (code, values[-1], 2))


def test_what_a_strategy_carries_beside_the_model_is_not_published(tmp_path):
    tensors = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "z": np.arange(4) / 8, "d": np.float32([7, 9])}
    initial = safetensors.dump(tensors)
    plan = make_plan((ALICE, BOB), initial, strategy="scaffold")
    beside = {f"control/{name}": np.full(tensor.shape, 5, tensor.dtype) for name, tensor in tensors.items()}
    carried = safetensors.dump(tensors | beside)
    assert safetensors.schema_of(safetensors.load(carried)) != plan.schema
    model = tmp_path / f"{digest(carried)[7:]}.safetensors"
    model.write_bytes(carried)
    found = publish(model, plan, tmp_path / "published")
    assert (tmp_path / "published").read_bytes() == initial
    assert found == "sha256:" + hashlib.sha256(initial).hexdigest()


@pytest.mark.parametrize("damage", [lambda path: os.truncate(path, 9000), lambda path: path.unlink()])
async def test_a_model_that_is_published_stays_whatever_becomes_of_the_stores_copy(tmp_path, damage):
    outcome, result, world = await run(tmp_path, rounds=1, metrics=())
    damage(world.driver._store.path(outcome.model))
    again = Attentive(tmp_path, rounds=1, metrics=())
    async with acting(again):
        assert (await again.running).model == outcome.model == result["model"]
    assert digest((tmp_path / "outputs" / "model.safetensors").read_bytes()) == outcome.model


@pytest.mark.parametrize("strategy", ["fedavg", "scaffold"])
def test_a_damaged_model_is_not_published(tmp_path, strategy):
    initial = safetensors.dump({"w": np.arange(50, dtype=np.float32)})
    model = tmp_path / f"{'0' * 64}.safetensors"
    plan = make_plan((ALICE, BOB), initial, strategy=strategy)
    model.write_bytes(safetensors.dump(dict.fromkeys(safetensors.load(initial), np.zeros(50, np.float32))) * 3)
    with pytest.raises(DecodeError, match="damaged"):
        publish(model, plan, tmp_path / "published")
    assert not (tmp_path / "published").exists()


def test_a_checkpoint_of_a_damaged_model_is_left_out(tmp_path, caplog):
    plan = make_plan((ALICE, BOB), make_model(1.0), checkpoint_every=1)
    store = Store(tmp_path)
    done = Round(1, "sha256:" + "0" * 64, (), (), ())
    store.path(done.model).write_bytes(make_model(1.0))
    session = Session("did:nv:" + "1" * 64, plan, Phase.FINISHED, done.model, None, history=(done,))
    keep_checkpoints(session, store, tmp_path)
    assert list((tmp_path / "checkpoints").iterdir()) == []
    assert "no checkpoint of round 1" in caplog.text
