"""A market in which one provider's gateway is a process that may be killed; chain, launchers and buyer outlive it.

The gateway is the real one (gateway_plugin: Flask and waitress) in front of that provider's real launcher; who speaks with it
is the Python API's buyer, and the other providers' launchers, which look for the session's record and fetch the algorithm.
"""

from __future__ import annotations

import asyncio
import json
import signal
import time
from types import SimpleNamespace

from distant import Distant, Shared
from flask import Flask
from forks import Forked, all_ended, free_ports, wait_any
from launcher_soak import found_in
from launcher_world import BUYER, CLOUD, INITIAL, METADATA_URL, PORTS, SECRET, TRAINER, Provider, World

from gateway_plugin import register
from gateway_plugin.launcher import Launcher
from gateway_plugin.server import serve
from nevermined_fl import DataScientist, logs
from nevermined_fl.files import sha256_bytes, write_json
from nevermined_fl.marketplace.market import Market
from nevermined_fl.settings import GatewaySettings, PolicySettings, ProviderSettings

PATIENT = 60.0


class Gated(Provider):
    """A provider whose gateway is another process, on a port that was chosen for it."""

    async def open(self):
        self.gateway = SimpleNamespace(addresses=[("127.0.0.1", self.port)], cleanup=_nothing)
        await self.start()

    def jobs(self):
        """The jobs in its store."""
        return self.launcher.store.all()


async def _nothing():
    pass


def market(folder, first_port, port):
    """The whole session; what was found at its end is in ``market.json``."""
    logs.configure("warning")
    asyncio.run(_market(folder, first_port, port))


async def _market(folder, first_port, port):
    world = World(folder, first_port)
    world.cloud.__class__, world.cloud.port = Gated, port
    shared = Shared(folder / "market.sock", chain=world.chain, metadata=world.metadata)
    await world.open()
    try:
        write_json(folder / "ready.json", {"launcher": world.cloud.url})
        world.begin_session()
        buyer = DataScientist.over(Market(BUYER, world.chain, world.metadata, METADATA_URL))
        started, bought = await asyncio.to_thread(_order, buyer, world)
        jobs = {each: await world.begin(each) for each in (world.hospital, world.clinic)}
        seen = await asyncio.to_thread(_wait_and_fetch, buyer, world, bought, started)
        jobs[world.cloud] = started
        ends = {each.home.name: await each.wait(job, PATIENT) for each, job in jobs.items()}
        write_json(folder / "market.json", found_in(world, ends, world.cloud) | seen)
    finally:
        for each in world.providers:
            await each.close()
        shared.close()


def _order(buyer, world):
    """The buyer's side: what he brings, and the order that begins the coordinator; its execution and its agreement."""
    client = buyer.market.gateway(world.cloud.gateway_url)
    for content in (TRAINER, INITIAL):
        assert client.upload(content) == sha256_bytes(content).removeprefix("sha256:")
    agreement = world.agreements[CLOUD.address]
    return buyer.start(agreement, workflow=world.session), agreement


def _wait_and_fetch(buyer, world, agreement, execution):
    """How the session looks from the buyer's chair, from the first look at its job to the model in his hands."""
    assert buyer.status(agreement, execution)["id"] == execution
    record = buyer.wait(world.session)
    fetched = buyer.fetch(record.model, world.folder / "fetched")
    told = [json.loads(line["content"])["event"] for line in buyer.logs(agreement, execution)]
    return {
        "executions": len(buyer.executions(agreement)),
        "told": told.count("finished"),
        "fetched": sorted(path.name for path in (world.folder / "fetched").rglob("*") if path.is_file()),
        "model": record.model_sha256,
        "is the published one": bool(fetched),
    }


def gateway(folder, port, tracer, met):
    """The gateway's whole life, until it is told to end."""
    logs.configure("warning")
    if tracer is not None:
        tracer.start()
    settings = ProviderSettings(
        home=folder / "cloud",
        name="cloud",
        network="network.json",
        gateway=GatewaySettings(port=port),
        policy=PolicySettings(buyers=("*",)),
    )
    app = Flask("gateway_plugin", static_folder=None)
    made = register(
        app,
        settings,
        account=CLOUD,
        chain=Distant(folder / "market.sock", "chain", attributes=("generation",)),
        metadata=Distant(folder / "market.sock", "metadata"),
        launcher=Launcher(json.loads((folder / "ready.json").read_text())["launcher"], SECRET),
    )
    try:
        serve(app, made)
    except SystemExit as end:
        assert end.code == 0  # noqa: PT017  it is how a server ends that is told to
    if met is not None:
        tracer.save(met)


def live(folder, slot, tracer=None, met=None, moments=()):
    """A session whose gateway begins with ``tracer``, or is killed after each of some times; its deaths, and what was found."""
    folder.mkdir(parents=True)
    port, first_port, *_ = free_ports(slot, 1 + PORTS)
    deaths, until = 0, time.monotonic() + PATIENT
    with all_ended([]) as processes:

        def start(*traced):
            process = Forked(lambda: gateway(folder, port, *traced), folder / "gateway.log")
            processes.append(process)
            return process

        played = Forked(lambda: market(folder, first_port, port), folder / "market.log")
        processes.append(played)
        while not (folder / "ready.json").exists() and played.wait(0) is None and time.monotonic() < until:
            wait_any([played], 0.02)
        process = start(tracer, met)
        for moment in moments:
            if played.wait(moment) is None:
                process.end()
                process, deaths = start(None, None), deaths + 1
        while played.wait(0) is None and time.monotonic() < until:
            wait_any([played, process], until - time.monotonic())
            if process.wait(0) == -9:
                process, deaths = start(None, None), deaths + 1
            assert process.code is None, (folder / "gateway.log").read_text()[-3000:]
        words = "\n".join((folder / name).read_text()[-2500:] for name in ("market.log", "gateway.log"))
        assert played.code == 0, words
        process.signal(signal.SIGTERM)
        # -9: killed at its end. -15: it had only just begun, and did not listen to signals yet.
        assert process.wait(20) in (0, -9, -15), f"{process.code}: {words}"
    return deaths, json.loads((folder / "market.json").read_text())
