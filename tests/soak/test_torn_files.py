"""A machine that lost what it had not written yet: files of a killed coordinator are damaged before it is started again.

What is damaged costs at most the current round: participants answer from what they kept, and the model is the same.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass

import pytest
from matrix import Kill, judge
from soak_world import World
from tracer import Tracer
from undisturbed import COORDINATOR as FILES

from nevermined_fl.files import sha256_bytes

SHARE, WHOLE = 8, 400
_PAGE = 4096


def _shorter_by_one(raw):
    return raw[:-1]


def _half(raw):
    return raw[: len(raw) // 2]


def _without_last_page(raw):
    return raw[: max(0, len(raw) - 1) // _PAGE * _PAGE]


def _last_page_of_zeros(raw):
    kept = _without_last_page(raw)
    return kept + bytes(len(raw) - len(kept))


def _flipped(raw):
    """One bit, in the middle of what the file says."""
    place = len(raw) * 2 // 3
    return raw[:place] + bytes([raw[place] ^ 4]) + raw[place + 1 :]


def _empty(raw):
    return b""


DAMAGES = {
    each.__name__.strip("_"): each
    for each in (_shorter_by_one, _half, _without_last_page, _last_page_of_zeros, _flipped, _empty)
}


@dataclass(frozen=True)
class Torn:
    """A kill, then a damage to one of the files that were there."""

    kill: Kill
    draw: int
    damage: str

    def __str__(self):
        return f"{self.kill}, file {self.draw}, {self.damage}"

    def strike(self, coordinator):
        """Damage one file; its name."""
        found = sorted(
            path for path in coordinator.rglob("*") if path.is_file() and path.stat().st_size and may_tear(path)
        )
        if not found:
            return ""  # it was killed before it wrote anything
        if not found:
            return "nothing yet"
        path = found[self.draw % len(found)]
        path.write_bytes(DAMAGES[self.damage](path.read_bytes()))
        return str(path.relative_to(coordinator))


def may_tear(path):
    """All but SQLite's index of the log, which is never on disk, and published checkpoints, which are kept once."""
    return not path.name.endswith("-shm") and path.parent.name != "checkpoints"


@pytest.mark.timeout(7200)
def test_what_is_torn_costs_at_most_the_current_round(ground, undisturbed, reach):
    chance = random.Random(f"torn {reach.seed} {ground.kind}")
    torn = []
    for number in range(WHOLE if reach.full else SHARE):
        boundary = chance.choice(undisturbed.boundaries)
        kill = Kill(boundary, chance.randint(1, boundary.times))
        torn.append(Torn(kill, chance.randrange(1000), list(DAMAGES)[number % len(DAMAGES)]))

    def session(each, slot, folder):
        world = World(ground, folder, slot)
        with world.all_ended():
            participants = world.participants()
            process = world.coordinator(Tracer(FILES, each.kill.boundary, each.kill.nth))
            deaths = int(process.wait(20) == -9)
            name = each.strike(world.folder / "coordinator") if deaths else ""
            try:
                world.finish(world.coordinator() if deaths else process, world.coordinator)
                world.await_all(participants)
                judge_world(world, undisturbed.outcome, "checkpoints" in name)
            except AssertionError as error:
                raise AssertionError(f"{name}: {error}") from error
        return deaths

    tried = reach.tried(f"torn files, {ground.kind}")
    judge(tried, torn, session)


def judge_world(world, outcome, lost_checkpoint):
    """The same model; each participant trained at most one round again.

    A checkpoint of an earlier round cannot be made again: it is not published, and the card does not list it.
    """
    if lost_checkpoint:
        assert {**outcome, **world.outcome()}["model.safetensors"] == outcome["model.safetensors"]
        card = json.loads((world.outputs / "card.json").read_text())
        there = {sha256_bytes(path.read_bytes()) for path in (world.outputs / "checkpoints").iterdir()}
        assert {row["sha256"] for row in card["checkpoints"]} == there
    else:
        assert world.outcome() == outcome
    for member in world.ground.members:
        seeds = world.trainings(member)
        rounds = world.ground.plan.rounds
        assert len(set(seeds)) == rounds, f"{member[7:15]} trained {len(set(seeds))} of {rounds} rounds"
        assert len(seeds) <= rounds + 1, f"{member[7:15]} trained {len(seeds)} times"
    world.judge_rest()
