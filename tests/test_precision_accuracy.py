"""What precision costs: handwritten digits, whole sessions with children, changes and error feedback, judged on test rows."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from federation import did, make_plan

import nevermined_fl.devnet.algorithms.softmax
from nevermined_fl.codecs import delta, safetensors
from nevermined_fl.devnet import demo_data
from nevermined_fl.devnet.algorithms.softmax import Softmax
from nevermined_fl.session import Metric
from nevermined_fl.simulation import simulate
from nevermined_fl.trainers import initial_model

ALGORITHM = Path(nevermined_fl.devnet.algorithms.softmax.__file__)
ROUNDS = 10


@pytest.fixture
def digits(tmp_path):
    """The demo's digits at three providers, each with most rows of some classes; ``measure(precision)`` on test rows."""
    table = demo_data.load("digits")
    split = demo_data.split(table, providers=3, seed=0)
    known = demo_data.hyperparameters(table, split.test)
    datasets = {
        did(f"part {n}"): demo_data.write_csv(tmp_path / f"{n}.csv", table.columns, rows)
        for n, rows in enumerate(split.parts)
    }
    demo_data.write_csv(tmp_path / "test" / "test.csv", table.columns, split.test)
    judge = Softmax(inputs=tmp_path / "test", hyperparameters=known)
    initial, _ = initial_model(ALGORITHM, known, 0)
    words = {"metrics": (Metric("accuracy"), Metric("loss", 0, 100)), "hyperparameters": tuple(sorted(known.items()))}
    plan = make_plan(datasets, initial, rounds=ROUNDS, evaluate_every=ROUNDS, **words)

    def measure(precision, **changes):
        folder = tmp_path / precision
        result = simulate(replace(plan, precision=precision, **changes), ALGORITHM, datasets, folder, initial=initial)
        return result.digest, judge.evaluate(safetensors.load(result.model)).metrics

    return measure


def test_digits_are_read_as_well_with_small_changes_as_with_whole_weights(digits, record_property):
    models, found = zip(*(digits(precision) for precision in delta.PRECISIONS), strict=True)
    told = dict(zip(delta.PRECISIONS, found, strict=True))
    record_property("digits", json.dumps(told))
    assert len(set(models)) == len(models)
    assert told["f32"]["accuracy"] > 0.93
    for precision, metrics in told.items():
        assert metrics["accuracy"] == pytest.approx(told["f32"]["accuracy"], abs=0.01), precision
        assert metrics["loss"] == pytest.approx(told["f32"]["loss"], rel=0.02), precision
