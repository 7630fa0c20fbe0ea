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

SHARE, WHOLE = 6, 400
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
        path = found[self.draw % len(found)]
        path.write_bytes(DAMAGES[self.damage](path.read_bytes()))
        return str(path.relative_to(coordinator))


def may_tear(path):
    """All but SQLite's index of the log, which is never on disk."""
    return not path.name.endswith("-shm")


def judge_loss(world, outcome):
    """The same model; every checkpoint that is there is whole, and the others are named."""
    found = world.outcome()
    assert found["model.safetensors"] == outcome["model.safetensors"]
    result, card = (json.loads((world.outputs / name).read_text()) for name in ("result.json", "card.json"))
    whole = {name: digest for name, digest in found.items() if name.endswith(".safetensors") and "/" in name}
    assert {row["file"]: row["sha256"] for row in result["checkpoints"]} == whole
    assert whole.items() <= outcome.items()
    assert card["checkpoints"] == result["checkpoints"]
    every = world.ground.plan.checkpoint_every
    rounds = {*range(every, world.ground.plan.rounds + 1, every)}
    assert set(result["checkpoints_lost"]) == rounds - {row["round"] for row in result["checkpoints"]} != set()


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

    A checkpoint whose model is gone cannot be made again: it is not published, and the result says so.
    """
    if lost_checkpoint and world.outcome() != outcome:
        judge_loss(world, outcome)
    else:
        assert world.outcome() == outcome
    for member in world.ground.members:
        seeds = world.trainings(member)
        rounds = world.ground.plan.rounds
        assert len(set(seeds)) == rounds, f"{member[7:15]} trained {len(set(seeds))} of {rounds} rounds"
        assert len(seeds) <= rounds + 1, f"{member[7:15]} trained {len(seeds)} times"
    world.judge_rest()
