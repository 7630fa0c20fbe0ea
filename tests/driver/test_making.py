"""What a strategy carries beside the initial model is made anew by every process: nothing says whether it is whole."""

from __future__ import annotations

import os

import pytest
from federation import make_plan
from transport_worlds import ALICE, BOB, digest, make_model

from nevermined_fl.driver.making import Workshop
from nevermined_fl.driver.store import Store


def half(path):
    os.truncate(path, path.stat().st_size // 2)


def flip(path):
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 4
    path.write_bytes(raw)


def prepared(folder, damage):
    """The file beside the initial model, as the first process wrote it and as one after the damage does."""
    raw = make_model(1.0)
    plan = make_plan((ALICE, BOB), raw, strategy="scaffold")
    (folder / "initial").write_bytes(raw)
    Store(folder).adopt(folder / "initial", plan)
    Store(folder).secure(digest(raw), 0)
    found = []
    for _ in range(2):
        store = Store(folder)
        Workshop(plan, store, None, None).prepare(digest(raw))
        extended = store.previous(digest(raw))
        found.append(extended.read_bytes())
        damage(store.path(digest(raw)), extended)
    return found


@pytest.mark.parametrize("damage", [half, flip])
def test_what_an_earlier_process_left_torn_is_written_again(tmp_path, damage):
    whole, again = prepared(tmp_path, lambda _, extended: damage(extended))
    assert again == whole


@pytest.mark.parametrize("damage", [half, flip])
def test_a_damaged_initial_model_is_mended_before_it_is_extended(tmp_path, damage):
    def both(model, extended):
        damage(model)
        extended.unlink()

    whole, again = prepared(tmp_path, both)
    assert again == whole
