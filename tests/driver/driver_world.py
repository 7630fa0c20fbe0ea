"""A session of Alice and Bob with a real driver, and participants that train by a formula instead of on data."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import asynccontextmanager

from transport_worlds import ALICE, BOB, SESSION, World, digest, make_model

from nevermined_fl.messages import Evaluate, Evaluated, Finish, Report, Train


def value_of(name, seed):
    """What a participant's training gives: any two differ."""
    return (int(name[7:15], 16) % 89 + seed % 97) / 7


class Acting:
    """Participants of one world; whoever is held answers nothing from a round on."""

    def __init__(self, world):
        self.world = world
        self.trained = []
        self._held = {}
        self._tasks = []

    def hold(self, name, round_number):
        """``name`` takes its task of that round and does not answer it."""
        self._held[name] = round_number

    def begin(self):
        self._tasks = [asyncio.create_task(self._act(name)) for name in (ALICE, BOB)]

    async def end(self):
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _act(self, name):
        link, after = await self.world.joined(name), 0
        while True:
            task = await link.next_task(after=after, wait=30)
            after = task.seq
            if isinstance(task, Finish):
                return
            if isinstance(task, Train | Evaluate) and task.round >= self._held.get(name, 10**6):
                await asyncio.Event().wait()
            if isinstance(task, Train):
                await self._train(link, name, task)
            elif isinstance(task, Evaluate):
                examples = 10 if name == ALICE else 30
                await link.evaluated(Evaluated(SESSION, task.round, task.model, examples, {"accuracy": 0.25}))

    async def _train(self, link, name, task):
        raw = make_model(value_of(name, task.seed))
        path = self.world.folder / digest(raw)[7:]
        path.write_bytes(raw)
        self.trained.append((name, task.round))
        await link.send_update(round_number=task.round, digest=digest(raw), path=path)
        report = Report(SESSION, task.round, task.model, digest(raw), 10 if name == ALICE else 30, {}, task.attempt)
        await link.report(report)


@asynccontextmanager
async def acting(world):
    """The world started, with its participants at work."""
    await world.start()
    actors = Acting(world)
    try:
        yield actors
    finally:
        await actors.end()
        await world.close()


async def reached(world, is_there):
    """Wait until the session is where it should be."""
    while not is_there(world.driver.session):
        await world.driver._conductor.changed().wait()


async def told(world, event, times=1):
    """Wait until an event was told so often."""
    while [line["event"] for line in world.told].count(event) < times:
        world.heard.clear()
        await world.heard.wait()


class Attentive(World):
    """A world in which one can wait for an event."""

    def __init__(self, folder, **plan):
        super().__init__(folder, **plan)
        self.heard = asyncio.Event()
        self.told = Told(self.heard)


class Told(list):
    """A list that says when something was appended."""

    def __init__(self, heard):
        super().__init__()
        self._heard = heard

    def append(self, line):
        super().append(line)
        self._heard.set()


async def run_whole(folder, **plan):
    """An undisturbed session's outcome."""
    folder.mkdir()
    world = Attentive(folder, **plan)
    async with acting(world) as actors:
        actors.begin()
        outcome = await world.running
    assert outcome.finished
    return outcome


def copy_of(world, folder, **plan):
    """Another world where ``world`` stopped."""
    shutil.copytree(world.folder, folder)
    return Attentive(folder, **plan)
