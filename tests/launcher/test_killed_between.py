"""A launcher that dies between any two of its writes: one asset, paid once, whenever it was.

The writes are enumerated from what an undisturbed session does, so a new one is tried without anybody naming it.
"""

import asyncio
import os
from contextlib import suppress

import aiohttp
import pytest
from launcher_world import BUYER, CLOUD, HOSPITAL, PRICES, World

from nevermined_fl.errors import StorageFull
from nevermined_fl.launcher.store import Store

CHAIN = {"register", "transfer_ownership", "was_associated_with", "fulfill_compute", "release", "used"} | {
    "was_derived_from"
}
WRITES = CHAIN | {"publish", "add", "change", "keep_record", "admit"}


class Killed(BaseException):
    """Nothing catches it, and nothing is done after it."""


class FullOnce:
    """A life in which each kind of write to the provider's database finds the disk full at first."""

    def __init__(self):
        self.labels = set()

    def brittle(self, thing):
        return Brittle(self, thing) if isinstance(thing, Store) else thing

    def moment(self, label):
        if label.startswith("before ") and label not in self.labels:
            self.labels.add(label)
            raise StorageFull("no room")


class Life:
    """A launcher's life: the moments before and after what it writes, at one of which it ends."""

    def __init__(self, end=None):
        self.end, self.moments, self.labels = end, 0, []
        self.over, self.loop = asyncio.Event(), asyncio.get_running_loop()

    def brittle(self, thing):
        return Brittle(self, thing)

    def moment(self, label):
        if self.end is not None and self.moments >= self.end:
            self.loop.call_soon_threadsafe(self.over.set)
            raise Killed(label)
        self.moments += 1
        self.labels.append(label)


class Brittle:
    """A store, chain or metadata API in the hands of somebody who may die."""

    def __init__(self, life, inner):
        self._life, self._inner = life, inner

    def __getattr__(self, name):
        found = getattr(self._inner, name)
        if name not in WRITES:
            return found

        def write(*arguments, **named):
            label = f"{name} stage {named['stage']}" if "stage" in named else f"{name} {' '.join(named)}".strip()
            self._life.moment(f"before {label}")
            answer = found(*arguments, **named)
            if "stage" in named:  # after all others nothing is done that lasts until the next write
                self._life.moment(f"after {label}")
            return answer

        return write


async def live(world, provider, end=None):
    """A whole session in which this provider's launcher dies once and is started again; its life."""
    await provider.stop()
    life = Life(end)
    provider.brittle = life.brittle
    await provider.start()
    provider.brittle = lambda thing: thing
    world.begin_session()
    jobs = {}
    for each in world.providers:
        jobs[each] = ""
        with suppress(aiohttp.ClientError):  # it died over the order
            jobs[each] = await world.begin(each)
    if end is not None:
        await asyncio.wait_for(life.over.wait(), 30)
        await provider.stop()
        await provider.start()
        if not jobs[provider]:
            # The buyer, who was told nothing, asks again; or it is there and runs.
            found = provider.launcher.store.all()
            jobs[provider] = found[0].id if found else await world.begin(provider)
    for each, job in jobs.items():
        status = await each.wait(job, 30)
        assert (status["status"], status["payment"]) == ("Succeeded", "paid"), (each.home.name, status)
    return life


def check_once(world):
    (model,) = world.models()
    assert world.chain.registration(model["id"]).owner == BUYER.address
    for provider in world.providers:
        assert world.chain.balance(provider.account.address) == PRICES[provider.account.address]
        # One job each, and no agreement's money was moved twice.
        assert len(provider.launcher.store.all()) == 1
    assert world.chain.balance(BUYER.address) == 1000 - sum(PRICES.values())
    edges = [(e.relation, e.did, e.other, e.agent) for e in world.chain.provenance(model["id"])]
    assert len(edges) == len(set(edges)) == 4


async def every_moment(folder, first_port, which, shard):
    """Live the session once for each moment at which the launcher can die."""
    end, total = None, 1
    while end is None or end < total:
        world = World(folder / str(end), first_port)
        await world.open()
        try:
            life = await live(world, getattr(world, which), end)
            check_once(world)
        finally:
            for provider in world.providers:
                await provider.close()
        if end is None:
            total, end = life.moments, shard
            yield life.labels
        else:
            end += SHARDS


SHARDS = 4


@pytest.mark.parametrize("shard", range(SHARDS))
@pytest.mark.parametrize("which", ["cloud", "hospital"])
async def test_one_asset_paid_once_whenever_the_launcher_dies(tmp_path, first_port, which, shard):
    async for labels in every_moment(tmp_path, first_port, which, shard):
        wanted = CHAIN - ({"used", "was_derived_from"} if which == "cloud" else set())
        wanted -= {"register", "transfer_ownership", "was_associated_with"} if which == "hospital" else set()
        assert wanted <= {label.split()[1] for label in labels}


async def test_a_full_disk_costs_no_job(world):
    """Whatever could not be written is written when there is room; a buyer is told to come again."""
    lives = {}
    for provider in world.providers:
        await provider.stop()
        lives[provider] = FullOnce()
        provider.brittle = lives[provider].brittle
        await provider.start()
    world.begin_session()
    jobs = {}
    for provider in world.providers:
        agreement = world.agreements[provider.account.address]
        workflow = world.session if provider is world.cloud else world.workflow
        status, body = await provider.init(agreement, workflow)
        assert (status, body["check"]) == (503, "unreachable")
        jobs[provider] = await provider.begin(agreement, workflow)
    for provider, job in jobs.items():
        assert (await provider.wait(job, 30))["payment"] == "paid"
    check_once(world)
    assert {"before change stage running", "before keep_record", "before admit"} <= {
        label for life in lives.values() for label in life.labels
    }


async def test_a_running_job_of_a_killed_launcher_goes_on_and_is_taken_over(world):
    """The process is the same before and after: nobody trains again."""
    world.begin_session(participant_0="join")
    job, cloud = await world.begin(world.hospital), await world.begin(world.cloud)
    for provider, each in ((world.hospital, job), (world.cloud, cloud)):
        await provider.until(each, lambda now: now["status"] == "Running")
    runs = {provider: await crash(provider) for provider in (world.hospital, world.cloud)}
    for provider, run in runs.items():
        await provider.start()
        assert run.popen.poll() is None
    other = await world.begin(world.clinic)
    for provider, each in ((world.hospital, job), (world.cloud, cloud), (world.clinic, other)):
        assert (await provider.wait(each))["payment"] == "paid"
    for provider, run in runs.items():
        assert run.popen.wait(20) == 0
        (one,) = provider.launcher.store.all()
        assert one.attempts == 0
    assert world.chain.balance(HOSPITAL.address) == PRICES[HOSPITAL.address]
    assert world.chain.balance(CLOUD.address) == PRICES[CLOUD.address]


async def crash(provider):
    """End a launcher as SIGKILL does: its jobs are told nothing, and their lifelines hang loose."""
    (run,) = provider.processes._runs.values()
    provider.launcher.backend.stop = lambda *_, **__: None
    runner, provider.runner = provider.runner, None
    launcher, provider.launcher = provider.launcher, None
    await runner.cleanup()
    os.close(run.fd)
    launcher.store.close()
    launcher.approvals.close()
    return run
