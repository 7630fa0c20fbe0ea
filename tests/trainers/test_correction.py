"""What strategies add to training: FedProx and SCAFFOLD, by hand and against FedAvg.

Two participants with one parabola each: A wants 2 and has slope ``w - 2``, B wants 8 and has ``2 (w - 8)``. Together they
want 6. Each takes two steps at rate 0.5, so B, the steeper, always ends at 8: local training drifts.
"""

from __future__ import annotations

import numpy as np
import pytest
from federation import did, make_plan

from nevermined_fl.codecs import safetensors
from nevermined_fl.errors import TrainerError
from nevermined_fl.trainers import Update, correction
from nevermined_fl.trainers.child import Place, TrainerTask

WANTS, STEEPNESS = {"a": 2.0, "b": 8.0}, {"a": 1.0, "b": 2.0}
STEPS, RATE = 2, 0.5


def train(who, corrected, x, steps=STEPS, rate=RATE):
    """The participant's local steps, and what its update has besides the weights."""
    w = x.astype(np.float32)
    for _ in range(steps):
        slope = STEEPNESS[who] * (w - WANTS[who])
        w = w - rate * corrected.gradients({"w": slope}, {"w": w})["w"]
    update = Update({"w": w}, 1, step=steps * rate)
    return w, corrected.extras(update)


def scaffold(rounds, *pace):
    """The algorithm as its paper writes it, with everybody in every round; x, c and each c_i after each round."""
    x, c, own = np.zeros(1, np.float32), np.zeros(1, np.float32), {"a": np.zeros(1), "b": np.zeros(1)}
    told = []
    for number in range(rounds):
        given = {}
        for who in WANTS:
            before = {"w": own[who].astype(np.float32)} if number else None
            given[who] = train(who, correction.make("scaffold", {}, {"w": x}, {"w": c}, before), x, *pace)
        x = np.mean([w for w, _ in given.values()], axis=0)
        c = c + np.mean([extras["control/w"] for _, extras in given.values()], axis=0)
        own = {who: own[who] + given[who][1]["control/w"] for who in WANTS}
        told.append((x[0], c[0], own["a"][0], own["b"][0]))
    return told


def averaged(strategy, options, rounds, *pace):
    x = np.zeros(1, np.float32)
    for _ in range(rounds):
        made = [train(who, correction.make(strategy, options, {"w": x}, {}, None), x, *pace)[0] for who in WANTS]
        x = np.mean(made, axis=0)
    return float(x[0])


def test_two_rounds_of_scaffold_by_hand():
    """Round 1 from x = 0, all control variates 0.

    A: 0 -> 1 -> 1.5, so its c_i is (0 - 1.5) / 1 = -1.5. B: 0 -> 8 -> 8, so -8. x = 4.75, c = -4.75.

    Round 2. A's slope is w - 2 + 1.5 - 4.75 = w - 5.25: 4.75 -> 5 -> 5.125. Its c_i becomes -1.5 + 4.75 + (4.75 - 5.125)
    = 2.875. B's is 2 (w - 8) + 8 - 4.75 = 2 w - 12.75: 4.75 -> 6.375 -> 6.375, and -8 + 4.75 - 1.625 = -4.875.
    x = 5.75, c = (2.875 - 4.875) / 2 = -1.
    """
    assert scaffold(2) == [(4.75, -4.75, -1.5, -8.0), (5.75, -1.0, 2.875, -4.875)]


def test_fedavg_rests_elsewhere_than_where_all_want_to_be():
    """Where x = (2 + (x - 2) / 4 + 8) / 2, at 38/7; SCAFFOLD rests at 6."""
    assert averaged("fedavg", {}, 40) == pytest.approx(38 / 7)
    assert scaffold(40)[-1][0] == pytest.approx(6.0)


def test_the_more_local_steps_the_more_fedprox_and_scaffold_are_worth():
    """With many steps a participant of FedAvg ends where it alone wants to be, and their mean is 5.

    With FedProx it ends at (s * want + mu * x) / (s + mu). All rest where the sum of s * (want - x) / (s + mu) is 0:
    for mu = 4 at (2 / 5 + 16 / 6) / (1 / 5 + 2 / 6) = 5.75, for ever larger mu nearer to 6, where SCAFFOLD rests.
    """
    pace = 100, 0.1
    assert averaged("fedavg", {}, 60, *pace) == pytest.approx(5.0, abs=1e-3)
    assert averaged("fedprox", {"mu": 4.0}, 60, *pace) == pytest.approx(5.75, abs=1e-3)
    assert scaffold(120, *pace)[-1][0] == pytest.approx(6.0, abs=1e-3)


def test_gradients_of_some_tensors_alone_are_corrected_alone():
    start = {"w": np.array([1.0]), "v": np.array([2.0])}
    there = {"w": np.array([4.0]), "v": np.array([2.0])}
    for corrected, expected in (
        (correction.make("fedavg", {}, start, {}, None), 5.0),
        (correction.make("fedprox", {"mu": 0.5}, start, {}, None), 6.5),
        (correction.make("scaffold", {}, start, {"w": np.array([3.0])}, {"w": np.array([7.0])}), 1.0),
        (correction.make("scaffold", {}, start, {"w": np.array([3.0])}, None), 8.0),
    ):
        found = corrected.gradients({"w": np.array([5.0])}, there)
        assert {name: tensor.tolist() for name, tensor in found.items()} == {"w": [expected]}


def test_the_trainer_may_write_into_the_model_that_it_gets():
    model = {"w": np.array([1.0, 2.0])}
    corrected = correction.make("fedprox", {"mu": 1.0}, model, {}, None)
    model["w"] += 5
    assert corrected.gradients({"w": np.zeros(2)}, model)["w"].tolist() == [5.0, 5.0]


def test_a_model_may_have_tensors_that_are_called_like_control_variates():
    names = ("w", "control/w2", "control/w", "control/control/w2")
    tensors = {name: np.array([float(n)]) for n, name in enumerate(names)}
    own, server = correction.split(tensors, ("control",))
    assert {name: value[0] for name, value in own.items()} == {"w": 0.0, "control/w2": 1.0}
    assert {name: value[0] for name, value in server.items()} == {"w": 2.0, "control/w2": 3.0}
    assert correction.split(tensors, ()) == (tensors, {})


ALGORITHM = """
import numpy as np
from nevermined_fl.trainers import Evaluation, Trainer, Update

class Parabola(Trainer):
    def initialize(self, seed):
        return {"w": np.array([1.5, -2.5], np.float32)}
    def fit(self, model, seed):
        assert set(model) == {"w"}, model
        slope = self.corrected({"w": np.array([10.0, 20.0])}, {"w": model["w"] + AWAY})["w"]
        model["w"] -= np.float32(0.5) * slope.astype(np.float32)
        return Update(model, 3, step=STEP)
    def evaluate(self, model):
        assert set(model) == {"w"}, model
        return Evaluation(3, {})
"""


def task(tmp_path, strategy, step="0.5", away="0", **options):
    (tmp_path / "algorithm.py").write_text(ALGORITHM.replace("STEP", step).replace("AWAY", away))
    for name in ("inputs", "scratch", "models"):
        (tmp_path / name).mkdir(exist_ok=True)
    initial = safetensors.dump({"w": np.array([1.5, -2.5], np.float32)})
    plan = make_plan([did("a")], initial, metrics=(), strategy=strategy, strategy_options=tuple(options.items()))
    place = Place(tmp_path / "algorithm.py", tmp_path / "inputs", tmp_path / "scratch", tmp_path / "log")
    return TrainerTask(place, plan)


async def fit(trainer, tmp_path, model, control=None):
    (tmp_path / "model").write_bytes(safetensors.dump(model))
    if control is not None:
        (tmp_path / "control").write_bytes(safetensors.dump(control))
    try:
        path = None if control is None else tmp_path / "control"
        await trainer.evaluate(tmp_path / "model", 60)
        await trainer.fit(tmp_path / "model", 1, tmp_path / "update", 60, control=path)
    finally:
        await trainer.close()
    return {name: value.tolist() for name, value in safetensors.load((tmp_path / "update").read_bytes()).items()}


async def test_a_child_under_scaffold_gets_and_gives_control_variates(tmp_path):
    model = {"w": np.array([1.5, -2.5], np.float32), "control/w": np.array([3.0, 1.0], np.float32)}
    own = {"w": np.array([1.0, 5.0], np.float32)}
    update = await fit(task(tmp_path, "scaffold"), tmp_path, model, own)
    # Slopes 10 + 3 - 1 and 20 + 1 - 5, half of it down; the change of c_i is -c + (x - y) / 0.5.
    assert update == {"w": [-4.5, -10.5], "control/w": [9.0, 15.0]}


async def test_without_mu_fedprox_uses_its_own(tmp_path):
    model = {"w": np.array([1.5, -2.5], np.float32)}
    # Slopes 10 + 0.01 * 800 and 20 + 0.01 * 800, half of it down.
    assert await fit(task(tmp_path, "fedprox", away="800"), tmp_path, model) == {"w": [-7.5, -16.5]}


async def test_a_child_under_fedprox_is_pulled_back_to_the_rounds_model_and_gives_weights_alone(tmp_path):
    model = {"w": np.array([1.5, -2.5], np.float32)}
    assert await fit(task(tmp_path, "fedprox", away="8", mu=0.5), tmp_path, model) == {"w": [-5.5, -14.5]}


@pytest.mark.parametrize("step", ["0.0", "-1.0", "float('nan')"])
async def test_an_algorithm_that_does_not_say_its_step_cannot_be_used_with_scaffold(tmp_path, step):
    model = {"w": np.array([1.5, -2.5], np.float32), "control/w": np.zeros(2, np.float32)}
    with pytest.raises(TrainerError, match="step") as caught:
        await fit(task(tmp_path, "scaffold", step), tmp_path, model)
    assert caught.value.kind == "Refused"
