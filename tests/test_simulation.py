"""A whole session on one machine, with real trainer processes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from federation import ALGORITHM, HYPERPARAMETERS, did, make_plan, plain_fedavg, write_algorithm, write_datasets

from nevermined_fl.codecs import safetensors
from nevermined_fl.errors import SessionFailed, SettingsError, TrainerError
from nevermined_fl.session import draw
from nevermined_fl.session.plan import EarlyStop
from nevermined_fl.simulation import simulate
from nevermined_fl.trainers import initial_model

SLOW = """        if len(self.data()[0]) == 100:
            import time
            time.sleep(600)
"""
# The seed of the second attempt is another one; only the first one's training takes for ever.
SEEDED = """        if seed in SLOW_SEEDS:
            import time
            time.sleep(600)
"""


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


@pytest.mark.parametrize("precision", ["f32", "int8"])
def test_the_same_session_again_gives_the_same_bits(tmp_path, world, precision):
    algorithm, datasets, initial = world
    plan = make_plan(
        datasets, initial, rounds=2, strategy="fedadam", participants_ratio=0.5, min_participants=1, precision=precision
    )

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


PARABOLA = """
import numpy as np
from nevermined_fl.trainers import Evaluation, Trainer, Update, load_table


class Parabola(Trainer):
    \"\"\"Whoever has the row (want, steepness) wants the weight to be there.\"\"\"

    def initialize(self, seed):
        return {"w": np.zeros(1, np.float32)}

    def fit(self, model, seed):
        (want, steepness), = load_table(self.inputs)[1]
        w = model["w"]
        steps, rate = self.hyperparameters["steps"], self.hyperparameters["rate"]
        for _ in range(steps):
            slope = {"w": np.float32(steepness) * (w - np.float32(want))}
            w = w - np.float32(rate) * self.corrected(slope, {"w": w})["w"]
        return Update({"w": w}, 1, step=steps * rate)

    def evaluate(self, model):
        return Evaluation(1, {})
"""


@pytest.fixture
def parabolas(tmp_path):
    """Two participants that together want 6; tests/trainers/test_correction.py has the arithmetic."""
    algorithm, datasets = write_algorithm(tmp_path, PARABOLA), {}
    for name, row in (("a", "2,1"), ("b", "8,2")):
        path = datasets[did(name)] = tmp_path / f"{name}.csv"
        path.write_text(f"want,steepness\n{row}\n")
    initial, _ = initial_model(algorithm, {}, 11)

    def run(strategy, rounds, steps=2, rate=0.5, options=(), **changes):
        hyperparameters = (("rate", rate), ("steps", steps))
        changes |= {"rounds": rounds, "strategy": strategy, "strategy_options": options, "metrics": ()}
        plan = make_plan(datasets, initial, hyperparameters=hyperparameters, **changes)
        folder = tmp_path / f"{strategy} {rounds} {plan.precision}"
        tensors = safetensors.load(simulate(plan, algorithm, datasets, folder, initial=initial).model)
        assert list(tensors) == ["w"]
        return float(tensors["w"][0])

    return run


def test_two_rounds_of_scaffold_give_what_was_computed_by_hand(parabolas):
    assert [parabolas("scaffold", rounds) for rounds in (1, 2)] == [4.75, 5.75]


def test_where_data_pull_apart_fedprox_and_scaffold_come_nearer_to_what_all_want(parabolas):
    """All want 6. The numbers are those of the same loops in tests/trainers/test_correction.py."""
    pace = 12, 20, 0.1
    assert parabolas("fedavg", *pace) == pytest.approx(5.17684, abs=1e-5)
    assert parabolas("fedprox", *pace, (("mu", 4.0),)) == pytest.approx(5.61091, abs=1e-5)
    assert parabolas("scaffold", *pace) == pytest.approx(5.99319, abs=1e-5)
    assert parabolas("scaffold", *pace, precision="int8") == pytest.approx(5.99319, abs=2e-3)


def run(world, folder, **changes):
    """A session of the three datasets; its result and the names of its events."""
    algorithm, datasets, initial = world
    plan = make_plan(datasets, initial, **changes)
    told = []
    given = None if plan.initial_model == "participant" else initial
    result = simulate(plan, algorithm, datasets, folder, initial=given, on_event=told.append)
    return result, [line["event"] for line in told]


def test_a_participant_makes_the_first_model_that_the_buyer_would_have_made(tmp_path, world):
    bought, _ = run(world, tmp_path / "one", rounds=1)
    made, told = run(world, tmp_path / "two", rounds=1, initial_model="participant")
    assert made.digest == bought.digest
    assert told.count("initialized") == 1


def test_a_session_ends_early_evaluates_now_and_then_and_keeps_checkpoints(tmp_path, world):
    stop = EarlyStop("accuracy", target=0.8)
    result, told = run(world, tmp_path, rounds=9, early_stop=stop, evaluate_every=2, checkpoint_every=2)
    assert [bool(done.evaluations) for done in result.history] == [False, True, False, True]
    assert [dict(done.metrics).get("accuracy", 0) > 0.8 for done in result.history] == [False, False, False, True]
    assert sorted(path.name for path in (result.outputs / "checkpoints").iterdir()) == [
        "round-2.safetensors",
        "round-4.safetensors",
    ]
    assert (result.outputs / "checkpoints" / "round-4.safetensors").read_bytes() == result.model
    assert "stopped_early" in told


def test_whoever_has_more_examples_than_the_plan_counts_takes_part_and_counts_as_so_many(tmp_path, world):
    result, _ = run(world, tmp_path, rounds=1, max_weight=50)
    assert sorted(update.weight for update in result.history[0].updates) == [40, 50, 50]


HELD_OUT = """
import numpy as np
from nevermined_fl.trainers import Evaluation, Trainer, Update, load_table


class HeldOut(Trainer):
    def initialize(self, seed):
        return {"w": np.zeros(1, np.float32)}

    def fit(self, model, seed):
        return Update(model, len(load_table(self.inputs)[1]) * TRAINED // 100)

    def evaluate(self, model):
        return Evaluation(len(load_table(self.inputs)[1]) * MEASURED // 100, {"accuracy": 0.5})
"""


def held_out(tmp_path, datasets, trained, measured):
    """A round in which so many of a hundred rows are trained on, and measured by."""
    text = HELD_OUT.replace("TRAINED", str(trained)).replace("MEASURED", str(measured))
    algorithm = write_algorithm(tmp_path, text)
    return run((algorithm, datasets, initial_model(algorithm, {}, 11)[0]), tmp_path / "work", rounds=1)


def test_an_algorithm_may_train_on_some_rows_and_measure_by_the_others(tmp_path, world):
    result, _ = held_out(tmp_path, world[1], 80, 20)
    assert sorted(update.weight for update in result.history[0].updates) == [32, 56, 80]
    assert sorted(answer.weight for answer in result.history[0].evaluations) == [8, 14, 20]


@pytest.mark.parametrize("shares", [(110, 20), (80, 110)])
def test_more_examples_than_there_are_rows_are_refused_as_on_the_network(tmp_path, world, shares):
    with pytest.raises(TrainerError, match="number of rows"):
        held_out(tmp_path, world[1], *shares)


def test_more_are_asked_than_are_needed_and_the_round_closes_without_the_slowest(tmp_path, world):
    _, datasets, initial = world
    slow = ALGORITHM.replace(
        "        x, y = self.data()\n        w, b", SLOW + "        x, y = self.data()\n        w, b"
    )
    algorithm = write_algorithm(tmp_path, slow)
    changes = {"participants_ratio": 0.5, "min_participants": 1, "over_selection": 1.5, "rounds": 2, "metrics": ()}
    result, _ = run((algorithm, datasets, initial), tmp_path / "work", **changes)
    # Who has 100 rows trains for ever: it is never among those that count, and its work is ended each time.
    assert [sorted(update.weight for update in done.updates) for done in result.history] == [[40, 70]] * 2


def test_a_round_that_nobody_could_answer_is_begun_again(tmp_path, world):
    _, datasets, initial = world
    plan = make_plan(datasets, initial)
    seeds = {draw.training_seed(plan, 1, member) for member in datasets}
    slow = SEEDED.replace("SLOW_SEEDS", str(seeds))
    slow = ALGORITHM.replace(
        "        x, y = self.data()\n        w, b", slow + "        x, y = self.data()\n        w, b"
    )
    algorithm = write_algorithm(tmp_path, slow)
    result, told = run((algorithm, datasets, initial), tmp_path / "work", rounds=1, repeats=1, round_timeout=4.0)
    assert told.count("round_repeated") == 1
    assert len(result.history[0].updates) == 3
