"""A participant is killed at every line at which it can be, and comes back without training anything twice."""

from __future__ import annotations

import json
import random
import time

import pytest
from forks import wait_any
from matrix import judge
from soak_world import PATIENT, World
from tracer import Tracer
from undisturbed import PARTICIPANT as FILES

SHARE, MOMENTS = 8, 2


def run(undisturbed, ground, folder, slot, begin):
    """A session whose first participant is begun by ``begin(world)``, which returns it and how often it died."""
    world = World(ground, folder, slot)
    first, *others = ground.members
    with world.all_ended():
        coordinator = world.coordinator()
        rest = [world.participant(member) for member in others]
        process, deaths, finished = begin(world, first)
        until = time.monotonic() + PATIENT
        while coordinator.wait(0) is None and time.monotonic() < until:
            wait_any([coordinator, process], until - time.monotonic())
            if process.wait(0) == -9:
                deaths += 1
                finished = kept(world, first) | finished
                process = world.participant(first)
            elif process.code is not None:
                coordinator.wait(until - time.monotonic())
        assert coordinator.wait(PATIENT) == 0, world.tail()
        world.await_all(rest)
        # If it died after it was told of the end, there may be nobody left whom it could ask.
        assert process.wait(0) in (0, None, -9), world.tail()
    judge_world(world, undisturbed.outcome, first, finished)
    return deaths


def kept(world, member):
    """The seeds of the updates that were durable when it died, and how often each was trained by then."""
    path, seeds = world.place(member) / "kept" / "kept.json", world.trainings(member)
    return {row["seed"]: seeds.count(row["seed"]) for row in json.loads(path.read_text())} if path.exists() else {}


def judge_world(world, outcome, first, finished):
    """The coordinator's outcome is the undisturbed one; what was finished was not trained again."""
    assert world.outcome() == outcome
    seeds = world.trainings(first)
    assert len(set(seeds)) == world.ground.plan.rounds
    assert {seed: seeds.count(seed) for seed in finished} == finished
    for member in world.ground.members[1:]:
        others = world.trainings(member)
        assert len(others) == len(set(others)) == world.ground.plan.rounds
    world.judge_story()
    spool = sorted(path.name for path in (world.folder / "coordinator" / "spool").iterdir())
    assert spool == [], f"in the spool: {spool}"


@pytest.mark.timeout(7200)
def test_at_every_boundary(ground, undisturbed, reach):
    boundaries = undisturbed.participant
    kills = reach.kills(boundaries, SHARE)

    def session(kill, slot, folder):
        def begin(world, first):
            return world.participant(first, Tracer(FILES, kill.boundary, kill.nth)), 0, {}

        return run(undisturbed, ground, folder, slot, begin)

    tried = reach.tried(f"participant killed, {ground.kind}")
    judge(tried, kills, session, boundaries=len(boundaries))


@pytest.mark.timeout(7200)
def test_at_random_moments(ground, undisturbed, reach):
    """Three lives, each ended from outside after a random while; its training takes a while too."""
    chance = random.Random(f"participant {reach.seed} {ground.kind}")
    moments = [
        tuple(round(chance.uniform(0.02, undisturbed.seconds), 3) for _ in range(3))
        for _ in range(50 if reach.full else MOMENTS)
    ]

    def session(moment, slot, folder):
        def begin(world, first):
            finished = {}
            for deaths, seconds in enumerate(moment):
                process = world.participant(first, pause=0.1)
                if process.wait(seconds) is not None:
                    return process, deaths, finished
                process.end()
                finished = kept(world, first) | finished
            return world.participant(first), len(moment), finished

        return run(undisturbed, ground, folder, slot, begin)

    tried = reach.tried(f"participant killed at random, {ground.kind}")
    judge(tried, moments, session, may_miss=0.7)
