"""A gateway is killed at every line at which it can be: one asset, paid once, nothing runs twice, the buyer has his model."""

from __future__ import annotations

import random

import pytest
import tracer
from gateway_soak import live
from matrix import judge
from tracer import Tracer

FILES = tracer.files_of("*.py", package="gateway_plugin")
SHARE, MOMENTS = 8, 2


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gateway")
    deaths, wanted = live(folder / "undisturbed", 0, Tracer(FILES), folder / "met.json")
    assert deaths == 0
    assert set(map(tuple, wanted["ends"].values())) == {("Succeeded", "paid")}
    assert (wanted["models"], wanted["jobs"], wanted["runs"], wanted["edges"]) == (1, 1, 1, [4, 4])
    assert (wanted["executions"], wanted["told"]) == (1, 1)
    assert wanted["owned by the buyer"]
    assert wanted["paid"] == wanted["prices"]
    assert wanted["left to the buyer"] == 1000
    assert wanted["fetched"] == ["card.json", "model.safetensors"]
    return wanted, tracer.load(folder / "met.json")


@pytest.mark.timeout(7200)
def test_at_every_boundary(undisturbed, reach):
    wanted, boundaries = undisturbed

    def session(kill, slot, folder):
        died, found = live(folder, slot, Tracer(FILES, kill.boundary, kill.nth))
        assert found == wanted
        return died

    judge(reach.tried("gateway killed"), reach.kills(boundaries, SHARE), session, boundaries=len(boundaries))


@pytest.mark.timeout(7200)
def test_at_random_moments(undisturbed, reach):
    """Three times in one session."""
    chance = random.Random(f"gateway {reach.seed}")
    moments = [
        tuple(round(chance.uniform(0.02, 0.6), 3) for _ in range(3)) for _ in range(50 if reach.full else MOMENTS)
    ]

    def session(each, slot, folder):
        died, found = live(folder, slot, moments=each)
        assert found == undisturbed[0]
        return died

    judge(reach.tried("gateway killed at random"), moments, session, may_miss=0.7)
