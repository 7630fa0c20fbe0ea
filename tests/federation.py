"""What several tests need: a small softmax regression as an algorithm file, datasets, a plan, and the same in plain numpy."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from nevermined_fl.codecs import safetensors
from nevermined_fl.session import Metric, Plan, draw

if TYPE_CHECKING:
    from pathlib import Path

ALGORITHM = """
import numpy as np
from nevermined_fl.trainers import Evaluation, Trainer, Update, load_table


class Softmax(Trainer):
    def __init__(self, *, inputs, hyperparameters):
        super().__init__(inputs=inputs, hyperparameters=hyperparameters)
        self.table = None

    def data(self):
        if self.table is None:
            columns, table = load_table(self.inputs)
            assert columns[-1] == "label"
            self.table = table[:, :-1].astype(np.float32) / 16, table[:, -1].astype(int)
        return self.table

    def initialize(self, seed):
        rng = np.random.default_rng(seed)
        h = self.hyperparameters
        return {"w": rng.normal(0, 0.1, (h["features"], h["classes"])).astype(np.float32),
                "b": np.zeros(h["classes"], np.float32)}

    def fit(self, model, seed):
        x, y = self.data()
        w, b = model["w"].copy(), model["b"].copy()
        for start in range(0, len(x), 32):
            rows = np.random.default_rng(seed).permutation(len(x))[start:start + 32]
            g = probabilities(x[rows], w, b)
            g[np.arange(len(rows)), y[rows]] -= 1
            w -= self.hyperparameters["lr"] * x[rows].T @ g / len(rows)
            b -= self.hyperparameters["lr"] * g.mean(0)
        return Update({"w": w, "b": b}, len(x))

    def evaluate(self, model):
        x, y = self.data()
        guessed = probabilities(x, model["w"], model["b"]).argmax(1)
        return Evaluation(len(x), {"accuracy": float((guessed == y).mean())})


def probabilities(x, w, b):
    z = x @ w + b
    z = np.exp(z - z.max(1, keepdims=True))
    return z / z.sum(1, keepdims=True)
"""

HYPERPARAMETERS = {"lr": 0.5, "features": 6, "classes": 3}


def did(name: str) -> str:
    return "did:nv:" + hashlib.sha256(name.encode()).hexdigest()


def write_algorithm(folder: Path, text: str = ALGORITHM) -> Path:
    path = folder / "algorithm.py"
    path.write_text(text)
    return path


def write_datasets(folder: Path, rows: tuple[int, ...] = (40, 70, 100)) -> dict[str, Path]:
    """Digits-like tables of different sizes and different shares of labels."""
    rng = np.random.default_rng(5)
    centres = rng.uniform(0, 16, (3, 6))
    found = {}
    for index, count in enumerate(rows):
        shares = np.roll([0.6, 0.3, 0.1], index)
        labels = rng.choice(3, count, p=shares)
        table = np.clip(centres[labels] + rng.normal(0, 3, (count, 6)), 0, 16).round()
        path = folder / f"data-{index}.csv"
        header = ",".join([f"p{n}" for n in range(6)] + ["label"])
        np.savetxt(path, np.column_stack([table, labels]), "%g", ",", header=header, comments="")
        found[did(f"data {index}")] = path
    return found


def make_plan(members, initial: bytes, **changes) -> Plan:
    fields = {
        "members": tuple(members),
        "rounds": 3,
        "min_participants": len(tuple(members)),
        "initial_model": "sha256:" + hashlib.sha256(initial).hexdigest(),
        "schema": safetensors.schema_of(safetensors.load(initial)),
        "seed": 11,
        "selection_timeout": 60.0,
        "round_timeout": 60.0,
        "metrics": (Metric("accuracy"),),
        "hyperparameters": tuple(HYPERPARAMETERS.items()),
    }
    plan = Plan(**fields | changes)
    return Plan.from_parameters(plan.to_parameters(), plan.members)


def plain_fedavg(plan: Plan, algorithm: Path, datasets: dict[str, Path], tmp_path: Path) -> bytes:
    """The whole session as the loop that a textbook would write."""
    space: dict = {}
    exec(compile(algorithm.read_text(), str(algorithm), "exec"), space)
    model = space["Softmax"](inputs=tmp_path, hyperparameters=HYPERPARAMETERS).initialize(plan.seed)
    for number in range(1, plan.rounds + 1):
        sums, total = dict.fromkeys(model, 0.0), 0
        for member in sorted(datasets):
            inputs = tmp_path / "plain" / member[7:]
            inputs.mkdir(parents=True, exist_ok=True)
            (inputs / "data.csv").write_bytes(datasets[member].read_bytes())
            trainer = space["Softmax"](inputs=inputs, hyperparameters=HYPERPARAMETERS)
            update = trainer.fit(model, draw.training_seed(plan, number, member))
            total += update.examples
            for name, tensor in update.tensors.items():
                sums[name] = sums[name] + tensor.astype(np.float64) * update.examples
        model = {name: (value / total).astype(np.float32) for name, value in sums.items()}
    return safetensors.dump(model)
