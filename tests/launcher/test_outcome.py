"""What a coordinator left behind: the model is what was bought, checkpoints are extra."""

from __future__ import annotations

import json

import pytest
from federation import did, make_plan
from transport_worlds import ALICE, BOB, digest, make_model

from nevermined_fl.errors import SessionFailed
from nevermined_fl.launcher.order import Order
from nevermined_fl.launcher.outcome import read_outcome

ADMITTED = {(ALICE, "0x1"), (BOB, "0x2")}
ROUNDS = {1: make_model(1.0), 2: make_model(2.0), 3: make_model(3.0)}


@pytest.fixture
def order():
    plan = make_plan((ALICE, BOB), make_model(0.5), checkpoint_every=1)
    whose = [did(name) for name in ("compute", "session", "compute", "workflow")]
    return Order("coordinator", "0x9", *whose, "0x8", plan.members, plan.to_parameters(), (), (), None)


@pytest.fixture
def left(tmp_path):
    """The outputs of three rounds, and what their result says of them."""
    (tmp_path / "checkpoints").mkdir()
    for number, raw in ROUNDS.items():
        (tmp_path / "checkpoints" / f"round-{number}.safetensors").write_bytes(raw)
    (tmp_path / "model.safetensors").write_bytes(ROUNDS[3])
    (tmp_path / "card.json").write_text("{}")
    said = {"outcome": "finished", "model": digest(ROUNDS[3])}
    said["contributors"] = [{"participant": who, "agreement": agreement} for who, agreement in sorted(ADMITTED)]
    said["checkpoints"] = [{"round": number, "sha256": digest(raw)} for number, raw in ROUNDS.items()]
    return tmp_path, said


def read(left, order):
    folder, said = left
    (folder / "result.json").write_text(json.dumps(said))
    return read_outcome(folder, order, ADMITTED)


def link(path):
    path.rename(path.with_suffix(".elsewhere"))
    path.symlink_to(path.with_suffix(".elsewhere"))


def directory(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "damage", [lambda path: path.write_bytes(b"torn"), lambda path: path.unlink(), link, directory]
)
def test_a_damaged_checkpoint_is_left_out_and_named(left, order, damage, caplog):
    damage(left[0] / "checkpoints" / "round-2.safetensors")
    found = read(left, order)
    assert found.model == digest(ROUNDS[3])
    assert found.checkpoints == ("round-1.safetensors", "round-3.safetensors")
    assert found.checkpoints_lost == (2,)
    assert "the checkpoint of round 2 of " in caplog.text


def test_a_folder_that_is_a_link_has_no_checkpoints(left, order):
    (left[0] / "checkpoints").rename(left[0] / "elsewhere")
    (left[0] / "checkpoints").symlink_to(left[0] / "elsewhere")
    found = read(left, order)
    assert (found.checkpoints, found.checkpoints_lost) == ((), (1, 2, 3))


def test_those_that_the_coordinator_lost_are_named_too(left, order):
    del left[1]["checkpoints"][0]
    left[1]["checkpoints_lost"] = [1, 77, "2", [3], None]
    found = read(left, order)
    assert (found.checkpoints, found.checkpoints_lost) == (("round-2.safetensors", "round-3.safetensors"), (1,))


def test_a_damaged_model_fails_the_session(left, order):
    (left[0] / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(SessionFailed, match="not the one that its result names"):
        read(left, order)
