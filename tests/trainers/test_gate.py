"""The gate, against a buyer's process that does what it likes with its scratch folder."""

from __future__ import annotations

import os

import numpy as np
import pytest
from federation import did, make_plan

from nevermined_fl.codecs import safetensors
from nevermined_fl.errors import TrainerError
from nevermined_fl.session import Metric
from nevermined_fl.trainers import gate

MODEL = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(2)}
RAW = safetensors.dump(MODEL)
SCHEMA = safetensors.schema_of(MODEL)
PLAN = make_plan([did("a")], RAW, metrics=(Metric("accuracy", digits=3), Metric("loss", -2.0, 5.0, 1)), max_weight=500)


def test_an_update_of_the_schema_passes_with_its_digest(tmp_path):
    (tmp_path / "out").write_bytes(RAW)
    digest = gate.copy_update(tmp_path / "out", tmp_path / "kept", SCHEMA)
    assert digest == PLAN.initial_model
    assert (tmp_path / "kept").read_bytes() == RAW


@pytest.mark.parametrize(
    "tensors",
    [
        {"w": MODEL["w"]},
        MODEL | {"canary": np.zeros(1)},
        {"w": MODEL["w"], "c": MODEL["b"]},
        MODEL | {"w": MODEL["w"].T},
        MODEL | {"w": MODEL["w"].astype(np.float64)},
        MODEL | {"b": np.array([1.0, np.nan])},
    ],
)
def test_any_other_tensors_are_refused_in_our_words(tmp_path, tensors):
    (tmp_path / "out").write_bytes(safetensors.dump(tensors))
    with pytest.raises(TrainerError) as caught:
        gate.copy_update(tmp_path / "out", tmp_path / "kept", SCHEMA)
    assert caught.value.kind == gate.REFUSED
    assert "canary" not in str(caught.value)
    assert not (tmp_path / "kept").exists()


def test_a_link_a_pipe_a_folder_or_nothing_is_no_update(tmp_path):
    (tmp_path / "secret").write_bytes(RAW)
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe", "", "nothing"):
        with pytest.raises(TrainerError):
            gate.copy_update(tmp_path / name, tmp_path / "kept", SCHEMA)


@pytest.mark.parametrize("value", [0, -1, 7.0, True, "7", None])
def test_examples_are_a_whole_number_of_at_least_one(value):
    with pytest.raises(TrainerError, match="number of rows"):
        gate.judge_examples(value, PLAN, None)


def test_examples_are_at_most_the_datasets_rows_where_they_are_known():
    """Who holds rows out trains on fewer and evaluates on the others."""
    assert [gate.judge_examples(value, PLAN, 100) for value in (1, 20, 80, 100)] == [1, 20, 80, 100]
    with pytest.raises(TrainerError, match="number of rows"):
        gate.judge_examples(101, PLAN, 100)


@pytest.mark.parametrize("rows", [None, 800])
def test_more_examples_than_the_plan_counts_are_no_fault_and_leave_as_what_counts(rows):
    assert [gate.judge_examples(value, PLAN, rows) for value in (499, 500, 501, 800)] == [499, 500, 500, 500]


def test_metrics_are_rounded_to_the_digits_declared():
    judged = gate.judge_metrics({"accuracy": 0.123456, "loss": -1.26}, PLAN)
    assert judged == {"accuracy": 0.123, "loss": -1.3}


@pytest.mark.parametrize(
    "metrics",
    [
        {"canary": 0.5},
        {"accuracy": 1.5},
        {"accuracy": float("nan")},
        {"accuracy": 10**400},
        {"accuracy": "0.5"},
        {"accuracy": True},
        [0.5],
        None,
    ],
)
def test_other_metrics_are_refused_without_repeating_them(metrics):
    with pytest.raises(TrainerError) as caught:
        gate.judge_metrics(metrics, PLAN)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("body", "kind", "line"),
    [
        ({"kind": "KeyError", "line": 7}, "KeyError", 7),
        ({"kind": "LinAlgError", "line": 9}, "LinAlgError", 9),
        ({"kind": "Canary73194682", "line": 3}, "Exception", 3),
        ({"kind": "KeyError", "line": 73194682}, "KeyError", 0),
        ({"kind": "KeyError", "line": -1}, "KeyError", 0),
        ({"kind": ["KeyError"], "line": True}, "Exception", 0),
        ("KeyError", "Exception", 0),
    ],
)
def test_of_a_failure_leaves_a_well_known_type_and_a_line_of_the_file(body, kind, line):
    error = gate.judge_failure(body, 10)
    assert (error.kind, error.line) == (kind, line)
    assert str(error) == f"the algorithm raised {kind} " + (f"in line {line}" if line else "outside of its own lines")


def test_a_file_without_exactly_one_trainer_is_told_so():
    assert "exactly one Trainer subclass" in str(gate.judge_failure({"kind": "NotOneTrainer", "line": 0}, 10))
