"""A launcher is killed at every line at which it can be: one asset, paid once, nothing runs twice, running jobs go on."""

from __future__ import annotations

import pytest
import tracer
from launcher_soak import live
from matrix import judge
from tracer import Tracer

NAMES = ("publish", "settlement", "outcome", "coordinator_job", "participant_job", "records", "store", "database")
MORE = ("jobs", "orders", "order", "attempts", "admission", "events", "watch", "content", "inputs", "fetch", "initial")
FILES = tracer.files_of(*(f"launcher/{name}.py" for name in (*NAMES, *MORE)))
SHARE = 8


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("which", ["cloud", "hospital"])
def test_at_every_boundary(which, reach):
    """``cloud`` publishes, transfers and fulfils; ``hospital`` runs a participant and is paid."""
    deaths, wanted = live(reach.folder / "undisturbed", which, 0, Tracer(FILES), reach.folder / "met.json")
    assert deaths == 0
    assert set(map(tuple, wanted["ends"].values())) == {("Succeeded", "paid")}
    assert (wanted["models"], wanted["jobs"], wanted["runs"], wanted["edges"]) == (1, 1, 1, [4, 4])
    assert wanted["owned by the buyer"]
    assert wanted["paid"] == wanted["prices"]
    assert wanted["left to the buyer"] == 1000
    boundaries = tracer.load(reach.folder / "met.json")
    kills = reach.kills(boundaries, SHARE)

    def session(kill, slot, folder):
        died, found = live(folder, which, slot, Tracer(FILES, kill.boundary, kill.nth))
        assert found == wanted
        return died

    tried = reach.tried(f"launcher killed, {which}")
    judge(tried, kills, session, boundaries=len(boundaries))
