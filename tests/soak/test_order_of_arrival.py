"""For a given set of accepted updates the model is the same to the bit, whatever the order in which they came."""

from __future__ import annotations

import asyncio
import itertools
import json
import random

import numpy as np
import pytest
from federation import did
from soak_world import Ground, World, make_link
from transport_worlds import SESSION

from nevermined_fl import precision
from nevermined_fl.codecs import safetensors
from nevermined_fl.files import sha256_bytes
from nevermined_fl.messages import Evaluate, Evaluated, Finish, JoinRequest, Report, Train
from nevermined_fl.tokens import make_join_proof
from nevermined_fl.transports.http.client import fingerprint_of

FOUR = tuple(sorted(did(name) for name in ("north", "east", "south", "west")))
ORDERS = list(itertools.permutations(range(4)))
"""All 24 of them."""


class Body:
    """One participant without a trainer: its updates are made beforehand, of numbers whose float sum depends on the order."""

    def __init__(self, world, number):
        self._world, self._number, self.member = world, number, FOUR[number]
        self.link = make_link(world, self.member)
        self._after = 0

    async def join(self):
        ground = self._world.ground
        proof = {"session": SESSION, "fingerprint": fingerprint_of(ground.certificate), "token": self.member}
        await self.link.join(JoinRequest(self.member, make_join_proof(ground.key(self.member), **proof)))

    async def task(self):
        """The next thing that is asked of it."""
        while True:
            task = await self.link.next_task(after=self._after, wait=10)
            self._after = max(self._after, task.seq)
            if isinstance(task, Train | Evaluate | Finish):
                return task

    def update(self, number):
        """Of a round: magnitudes from 1e-6 to 1e6."""
        rng = np.random.default_rng([self._number, number])
        shapes = {tensor.name: tensor.shape for tensor in self._world.ground.plan.schema}
        tensors = {
            name: (rng.normal(0, 1, shape) * 10.0 ** rng.integers(-6, 7, shape)).astype(np.float32)
            for name, shape in shapes.items()
        }
        path = self._world.folder / f"{self._number}-{number}.safetensors"
        path.write_bytes(safetensors.dump(tensors))
        return path

    async def train(self, task):
        path, plan = self.update(task.round), self._world.ground.plan
        if plan.precision != "f32":
            path = await self.change(task, path, plan)
        digest = sha256_bytes(path.read_bytes())
        await self.link.send_update(round_number=task.round, digest=digest, path=path)
        examples = 3 + 7 * self._number
        report = Report(SESSION, task.round, task.model, digest, examples, {"accuracy": 0.5})
        assert (await self.link.report(report)).accepted

    async def change(self, task, updated, plan):
        """What travels of an update whose plan compresses."""
        model, residual, into = (updated.with_suffix(f".{kind}") for kind in ("model", "residual", "change"))
        await self.link.fetch_model(task.model, model)
        files = {"residual_in": None, "residual_out": residual, "into": into}
        precision.encode_change(model, updated, **files, schema=plan.schema, precision=plan.precision)
        return into

    async def evaluate(self, task):
        answer = Evaluated(
            SESSION, task.round, task.model, 3 + 7 * self._number, {"accuracy": 0.1 * self._number + 1 / 3}
        )
        assert (await self.link.evaluated(answer)).accepted


async def conduct(world, order, pauses):
    """All join in that order; in every round they answer in it, or each after its own pause."""
    everybody = [Body(world, number) for number in order]
    for body in everybody:
        await body.join()
    while True:
        tasks = [await body.task() for body in everybody]
        if isinstance(tasks[0], Finish):
            break
        if pauses:
            await asyncio.gather(
                *(
                    later(answer(body, task), pauses[place])
                    for place, (body, task) in enumerate(zip(everybody, tasks, strict=True))
                )
            )
            continue
        for body, task in zip(everybody, tasks, strict=True):
            await answer(body, task)
    for body in everybody:
        await body.link.close()


async def later(work, pause):
    """All at once, with a head start for some: so that uploads overlap."""
    await asyncio.sleep(pause)
    await work


async def answer(body, task):
    await (body.train(task) if isinstance(task, Train) else body.evaluate(task))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["fedadam", "int8", "float"])
def test_the_model_is_the_same_whatever_the_order(kind, reach):
    ground = Ground.make(reach.folder / "ground", kind, members=FOUR, rounds=2 if reach.full else 1)
    chance = random.Random(f"order {reach.seed}")
    overlapping = [[chance.uniform(0, 0.01) for _ in FOUR] for _ in range(6)]
    sessions = [(order, None) for order in ORDERS] + [(ORDERS[n * 5 % 24], each) for n, each in enumerate(overlapping)]

    def session(each, slot, folder):
        order, pauses = each
        world = World(ground, folder, slot)
        with world.all_ended():
            coordinator = world.coordinator()
            asyncio.run(conduct(world, order, pauses))
            world.finish(coordinator, world.coordinator)
        (reach.folder / "models" / sha256_bytes(json.dumps(each).encode())[7:]).write_bytes(
            world.model() + json.dumps(world.outcome()).encode()
        )
        return 1

    (reach.folder / "models").mkdir()
    tried = reach.tried(f"orders of arrival, {kind}", 500)
    failed, _ = tried.run(sessions, session)
    found = {path.read_bytes() for path in (reach.folder / "models").iterdir()}
    tried.tell(different_models=len(found))
    assert failed == []
    assert len(found) == 1
