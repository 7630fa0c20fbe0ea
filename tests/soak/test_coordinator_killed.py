"""The coordinator is killed at every line at which it can be, and comes back as if nothing had happened."""

from __future__ import annotations

import random

import pytest
import tracer
from matrix import Kill, judge, sample
from soak_world import World
from tracer import Tracer
from undisturbed import COORDINATOR as FILES

SHARE, RECOVERY_SHARE, MOMENTS = 12, 4, 3
"""Per kind of session: boundaries, boundaries of the restart, and random moments that the short form tries."""


def run(ground, outcome, folder, slot, begin):
    """A session whose coordinator is begun by ``begin(world)``; the number of its deaths."""
    world = World(ground, folder, slot)
    with world.all_ended():
        participants = world.participants()
        coordinator, deaths = begin(world)
        deaths += world.finish(coordinator, world.coordinator)
        world.await_all(participants)
    world.judge(outcome)
    return deaths


@pytest.mark.timeout(7200)
def test_at_every_boundary(ground, undisturbed, reach):
    boundaries = undisturbed.boundaries
    kills = reach.kills(boundaries, SHARE)

    def session(kill, slot, folder):
        traced = Tracer(FILES, kill.boundary, kill.nth)
        return run(ground, undisturbed.outcome, folder, slot, lambda world: (world.coordinator(traced), 0))

    tried = reach.tried(f"coordinator killed, {ground.kind}")
    judge(tried, kills, session, boundaries=len(boundaries))


@pytest.mark.timeout(7200)
def test_while_it_recovers(ground, undisturbed, reach):
    """It was killed in the middle of the session; now at every boundary of its second life too."""
    half = undisturbed.halfway()

    def halved(world):
        process = world.coordinator(Tracer(FILES, half.boundary, half.nth))
        assert process.wait(30) == -9, world.tail()

    def recorded(world):
        halved(world)
        return world.coordinator(Tracer(FILES), world.folder / "met.json"), 1

    assert run(ground, undisturbed.outcome, reach.folder / "recorded", 0, recorded) == 1
    boundaries = tracer.load(reach.folder / "recorded" / "met.json")
    known = {(boundary.file, boundary.line) for boundary in undisturbed.boundaries}
    new = [boundary for boundary in boundaries if (boundary.file, boundary.line) not in known]
    kills = [Kill(boundary) for boundary in (boundaries if reach.full else sample(new, RECOVERY_SHARE, reach.seed))]

    def session(kill, slot, folder):
        def twice(world):
            halved(world)
            return world.coordinator(Tracer(FILES, kill.boundary)), 0

        return run(ground, undisturbed.outcome, folder, slot, twice)

    tried = reach.tried(f"coordinator killed while it recovers, {ground.kind}")
    judge(tried, kills, session, boundaries=len(boundaries), only_then=len(new))


@pytest.mark.timeout(7200)
def test_at_random_moments(ground, undisturbed, reach):
    """Three lives, each ended from outside after a random while."""
    chance = random.Random(f"{reach.seed} {ground.kind}")
    moments = [
        tuple(round(chance.uniform(0.02, undisturbed.seconds), 3) for _ in range(3))
        for _ in range(50 if reach.full else MOMENTS)
    ]

    def session(moment, slot, folder):
        def begin(world):
            deaths = 0
            for seconds in moment:
                process = world.coordinator()
                if process.wait(seconds) is not None:
                    return process, deaths
                process.end()
                deaths += 1
            return world.coordinator(), deaths

        return run(ground, undisturbed.outcome, folder, slot, begin)

    tried = reach.tried(f"coordinator killed at random, {ground.kind}")
    judge(tried, moments, session, may_miss=0.7)
