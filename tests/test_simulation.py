"""A whole session on one machine, with real trainer processes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from federation import ALGORITHM, HYPERPARAMETERS, make_plan, plain_fedavg, write_algorithm, write_datasets

from nevermined_fl.codecs import safetensors
from nevermined_fl.errors import SessionFailed, SettingsError, TrainerError
from nevermined_fl.simulation import simulate
from nevermined_fl.trainers import initial_model


@pytest.fixture
def world(tmp_path):
    algorithm, datasets = write_algorithm(tmp_path), write_datasets(tmp_path)
    initial, _ = initial_model(algorithm, HYPERPARAMETERS, 11)
    return algorithm, datasets, initial


def test_three_participants_give_the_textbooks_model_and_tell_a_story(tmp_path, world):
    algorithm, datasets, initial = world
    plan = make_plan(datasets, initial)
    told = []

    result = simulate(plan, algorithm, datasets, tmp_path / "work", on_event=told.append)

    expected = safetensors.load(plain_fedavg(plan, algorithm, datasets, tmp_path))
    for name, tensor in safetensors.load(result.model).items():
        np.testing.assert_allclose(tensor, expected[name], rtol=0, atol=1e-7)
    assert [done.number for done in result.history] == [1, 2, 3]
    assert dict(result.history[-1].metrics)["accuracy"] > 0.8
    assert [line["event"] for line in told][:2] == ["selection_opened", "joined"]
    assert [line["event"] for line in told if line["event"] in {"round_committed", "finished"}] == [
        "round_committed"
    ] * 3 + ["finished"]
    card = json.loads((result.outputs / "card.json").read_text())
    assert {c["participant"]: c["examples"] for c in card["contributors"]} == dict(
        zip(datasets, (40, 70, 100), strict=True)
    )
    assert json.loads((result.outputs / "result.json").read_text())["model"] == result.digest


def test_the_same_session_again_gives_the_same_bits(tmp_path, world):
    algorithm, datasets, initial = world
    plan = make_plan(datasets, initial, rounds=2, strategy="fedadam", participants_ratio=0.5, min_participants=1)

    first = simulate(plan, algorithm, datasets, tmp_path / "one", initial=initial)
    second = simulate(plan, algorithm, datasets, tmp_path / "two", initial=initial)

    assert first.model == second.model
    assert [len(done.updates) for done in first.history] == [2, 2]


def test_an_algorithm_that_raises_ends_the_session_with_its_line(tmp_path, world):
    _, datasets, initial = world
    broken = write_algorithm(
        tmp_path, ALGORITHM.replace("x, y = self.data()\n        w, b", "raise KeyError(1)\n        w, b")
    )
    line = broken.read_text().splitlines().index("        raise KeyError(1)") + 1

    with pytest.raises(TrainerError, match="KeyError") as caught:
        simulate(make_plan(datasets, initial), broken, datasets, tmp_path / "work", initial=initial)

    assert (caught.value.kind, caught.value.line) == ("KeyError", line)


def test_another_initial_model_than_the_plans_is_refused(tmp_path, world):
    algorithm, datasets, initial = world
    with pytest.raises(SettingsError, match="initial model"):
        simulate(make_plan(datasets, initial), algorithm, datasets, tmp_path / "work", initial=initial + b" ")


def test_an_overflowing_aggregate_fails_the_session_with_a_reason(tmp_path, world):
    _, datasets, initial = world
    wild = write_algorithm(
        tmp_path, ALGORITHM.replace('"w": w, "b": b}, len', '"w": w + np.float32(3e38), "b": b}, len')
    )
    plan = make_plan(datasets, initial, strategy="fedavgm", strategy_options=(("learning_rate", 5.0),))
    with pytest.raises(SessionFailed, match="round 1: the aggregated model"):
        simulate(plan, wild, datasets, tmp_path / "work", initial=initial)
