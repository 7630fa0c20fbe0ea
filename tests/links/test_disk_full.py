"""The coordinator's disk is full for a while: it says so, publishes nothing, and goes on by itself when there is room."""

from __future__ import annotations

import json
import shutil
from contextlib import contextmanager

import pytest
from forks import wait_any
from networks import run
from soak_world import Ground, World

ROWS = 3000
"""A model of half a megabyte, on a disk of 24; the server state takes four times the model."""
DISK = "24m"


@contextmanager
def small_disk(path):
    """A disk of its own, in memory."""
    path.mkdir(parents=True)
    run("mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(path))
    try:
        yield path
    finally:
        run("umount", "--lazy", str(path))


def fill(disk, left):
    """Leave room for ``left`` bytes."""
    with (disk / "filler").open("wb", buffering=0) as file:
        while (more := shutil.disk_usage(disk).free - left) > 0 and file.write(bytes(more)):
            pass


def until(world, holds, seconds=30.0):
    """Wait until something holds of the world's files."""
    for _ in range(int(seconds / 0.02)):
        if holds():
            return
        wait_any(world.processes, 0.02)
    raise AssertionError(f"waited for {seconds} s: {world.tail()}")


def told(world, event, number=0):
    """Whether the coordinator has told that event, of that round."""
    return any(line["event"] == event and line.get("round", 0) == number for line in world.events())


MOMENTS = {
    "before it begins": None,
    "while they join": lambda world: told(world, "joined"),
    "in the first round": lambda world: told(world, "round_started", 1),
    "between rounds": lambda world: told(world, "round_committed", 1),
    "in the last round": lambda world: told(world, "round_started", 3),
}


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    return Ground.make(tmp_path_factory.mktemp("disk") / "ground", "fedadam", rows=ROWS)


@pytest.fixture(scope="module")
def outcome(ground, tmp_path_factory):
    world = World(ground, tmp_path_factory.mktemp("roomy") / "world", 0)
    with world.all_ended():
        coordinator, participants = world.coordinator(), world.participants()
        world.finish(coordinator, world.coordinator)
        world.await_all(participants)
    return world.outcome()


@pytest.mark.parametrize(("moment", "left"), list(zip(MOMENTS, [0, 100_000, 700_000, 0, 100_000], strict=True)))
def test_it_waits_for_room_and_goes_on(ground, outcome, moment, left, tmp_path):
    world = World(ground, tmp_path / "world", 0)
    with small_disk(world.folder / "coordinator") as disk, world.all_ended():
        is_there = MOMENTS[moment]
        if is_there is None:
            fill(disk, left)
        coordinator, participants = world.coordinator(), world.participants(pause=0.2)
        if is_there is not None:
            until(world, lambda: is_there(world))
            fill(disk, left)
        until(world, lambda: "disk full" in (world.folder / "coordinator.log").read_text())
        assert coordinator.wait(1.0) is None, world.tail()
        assert not (world.outputs / "result.json").exists()
        assert not (world.outputs / "model.safetensors").exists()
        (disk / "filler").unlink()
        world.finish(coordinator, world.coordinator)
        world.await_all(participants)
        world.judge(outcome)


def test_killed_while_its_disk_is_full_it_goes_on_all_the_same(ground, outcome, tmp_path):
    world = World(ground, tmp_path / "world", 0)
    with small_disk(world.folder / "coordinator") as disk, world.all_ended():
        coordinator = world.coordinator()
        participants = world.participants(pause=0.2)
        until(world, lambda: told(world, "round_committed", 1))
        fill(disk, 700_000)
        log = world.folder / "coordinator.log"
        until(world, lambda: "disk full" in log.read_text())
        coordinator.end()
        log.rename(world.folder / "first.log")
        second = world.coordinator()
        until(world, lambda: log.exists() and "disk full" in log.read_text())
        status = json.loads((world.folder / "coordinator" / "status.json").read_text())
        assert status["phase"]
        (disk / "filler").unlink()
        world.finish(second, world.coordinator)
        world.await_all(participants)
        world.judge(outcome)
