"""A checkpoint that is damaged after it was kept is made again while its model is here; else it is dropped, and said to be."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from federation import make_plan
from transport_worlds import ALICE, BOB, digest

from nevermined_fl.codecs import safetensors
from nevermined_fl.driver import checkpoints, outputs
from nevermined_fl.driver.store import Store
from nevermined_fl.session import Phase, Session
from nevermined_fl.session.state import Round


def tensors(value, beside):
    own = {"w": np.full((7, 3), value, np.float32)}
    return own | ({"control/w": np.full((7, 3), 5, np.float32)} if beside else {})


@pytest.fixture(params=["fedavg", "scaffold"])
def kept(request, tmp_path):
    """Two rounds are over; the model of the second is here twice, that of the first went when its checkpoint was kept."""
    plan = make_plan(
        (ALICE, BOB), safetensors.dump(tensors(1.0, beside=False)), strategy=request.param, checkpoint_every=1
    )
    store, history = Store(tmp_path), ()
    for number in (1, 2):
        raw = safetensors.dump(tensors(number / 3, beside=request.param == "scaffold"))
        store.path(digest(raw)).write_bytes(raw)
        store.secure(digest(raw), number)
        history = (*history, Round(number, digest(raw), (), (), ()))
        session = Session("did:nv:" + "1" * 64, plan, Phase.FINISHED, digest(raw), None, history=history)
        checkpoints.keep_checkpoints(session, store, tmp_path)
        store.clean({number}, {digest(raw)})
    files = [tmp_path / "checkpoints" / f"round-{number}.safetensors" for number in (1, 2)]
    return SimpleNamespace(folder=tmp_path, session=session, store=store, files=files)


def tear(path):
    raw = path.read_bytes()
    path.write_bytes(raw[:-5] + bytes([raw[-5] ^ 4]) + raw[-4:])


def written(kept):
    """What the result says of the checkpoints, after it was held against the files."""
    outputs.write(kept.session, kept.store, kept.folder)
    result = json.loads((kept.folder / "result.json").read_text())
    there = {
        row["round"]: digest((kept.folder / row["file"]).read_bytes()) == row["sha256"] for row in result["checkpoints"]
    }
    return there, result["checkpoints_lost"]


def test_what_nobody_touched_is_published(kept):
    before = [path.read_bytes() for path in kept.files]
    assert [safetensors.load(raw)["w"][0, 0] for raw in before] == [np.float32(1 / 3), np.float32(2 / 3)]
    checkpoints.drop_damaged(kept.session, kept.folder)
    assert written(kept) == ({1: True, 2: True}, [])
    assert [path.read_bytes() for path in kept.files] == before


def test_the_newest_is_made_again_even_of_its_models_second_copy(kept):
    before = kept.files[1].read_bytes()
    tear(kept.files[1])
    tear(kept.store.path(kept.session.model))
    checkpoints.drop_damaged(kept.session, kept.folder)
    assert not kept.files[1].exists()
    checkpoints.keep_checkpoints(kept.session, kept.store, kept.folder)
    assert kept.files[1].read_bytes() == before


def test_one_whose_model_is_gone_is_dropped_and_said_to_be_lost(kept, caplog):
    tear(kept.files[0])
    assert written(kept) == ({2: True}, [1])
    assert not kept.files[0].exists()
    assert "the checkpoint of round 1 is damaged, and dropped" in caplog.text


def test_one_whose_seal_a_killed_process_did_not_write_is_made_again(kept):
    for seal in kept.folder.glob("checkpoints/*.sha256"):
        seal.unlink()
    is_whole = kept.session.plan.carried() == kept.session.plan.schema
    assert written(kept) == (({1: True, 2: True}, []) if is_whole else ({2: True}, [1]))
