"""The coordinator is killed at every line at which it can be, and comes back as if nothing had happened."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
import tracer
from matrix import Tried, later, sample
from soak_world import KINDS, Ground, World
from tracer import Boundary, Tracer

FILES = tracer.files_of("driver/*.py", "journal.py", "spool.py", "files.py", "precision.py")
SHARE = 40
"""Boundaries of each kind of session that the short form tries."""


@dataclass(frozen=True)
class Kill:
    """At the ``nth`` time of a boundary."""

    boundary: Boundary
    nth: int = 1

    def __str__(self):
        return f"{self.boundary} x{self.nth}"


@pytest.fixture(scope="module", params=KINDS)
def ground(request, tmp_path_factory):
    return Ground.make(tmp_path_factory.mktemp(request.param) / "ground", request.param)


def undisturbed(ground, folder):
    """A session that nobody disturbs: what it leaves, and the boundaries of its coordinator."""
    world = World(ground, folder, slot=0)
    with world.all_ended():
        coordinator = world.coordinator(Tracer(FILES), folder / "met.json")
        participants = world.participants()
        world.finish(coordinator, world.coordinator)
        world.await_all(participants)
    outcome = world.outcome()
    world.judge(outcome)
    return outcome, tracer.load(folder / "met.json")


def killed(ground, outcome):
    """A session whose coordinator is killed once, as a function of the kill."""

    def session(kill, slot, folder):
        world = World(ground, folder, slot)
        with world.all_ended():
            coordinator = world.coordinator(Tracer(FILES, kill.boundary, kill.nth))
            participants = world.participants()
            deaths = world.finish(coordinator, world.coordinator)
            world.await_all(participants)
        world.judge(outcome)
        return deaths

    return session


@pytest.mark.timeout(7200)
def test_the_coordinator_is_killed_at_every_boundary(ground, tmp_path, full, seed, record_property):
    outcome, boundaries = undisturbed(ground, tmp_path / "undisturbed")
    kills = [Kill(boundary) for boundary in sample(boundaries, None if full else SHARE, seed)]
    if full:
        kills += [Kill(boundary, later(boundary, seed)) for boundary in boundaries if boundary.times > 1]
    tried = Tried(f"coordinator killed, {ground.kind}", tmp_path / "killed", record_property, 7000)
    failed, missed = tried.run(kills, killed(ground, outcome))
    tried.tell(boundaries=len(boundaries))
    assert failed == []
    assert len(missed) < len(kills) / 10, missed
