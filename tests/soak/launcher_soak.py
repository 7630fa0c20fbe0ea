"""A market in which one provider's launcher is a process that may be killed; everything else outlives it.

The market process plays chain, metadata API, gateways and the other two launchers (tests/launcher). The one launcher runs
in a process of its own with all its state on disk, started again with the same words whenever it was killed.
"""

from __future__ import annotations

import asyncio
import json
import signal
import time
from contextlib import suppress
from types import SimpleNamespace

import aiohttp
import launcher_world
from aiohttp import web
from distant import Distant, Shared
from forks import Forked, all_ended, free_ports, wait_any
from launcher_world import BUYER, GATEWAY_PREFIX, METADATA_URL, PACE, PORTS, PRICES, SECRET, Provider, TinyJobs

from nevermined_fl import logs
from nevermined_fl.backends.process import ProcessBackend
from nevermined_fl.files import write_json
from nevermined_fl.launcher.app import create_app
from nevermined_fl.launcher.approvals import Approvals
from nevermined_fl.launcher.content import Content
from nevermined_fl.launcher.launcher import Launcher
from nevermined_fl.launcher.records import Records
from nevermined_fl.launcher.store import Store
from nevermined_fl.launcher.web import Web
from nevermined_fl.settings import (
    CoordinatorSettings,
    GatewaySettings,
    LauncherSettings,
    LimitSettings,
    PolicySettings,
    ProviderSettings,
)

PATIENT = 60.0


class DistantProvider(Provider):
    """A provider whose launcher is another process: asked over HTTP, its files read where they are."""

    async def start(self):
        self.launcher = SimpleNamespace(
            content=Content(self.home / "content"), approvals=Approvals(self.home / "provider.sqlite")
        )

    async def open(self):
        application = web.Application()
        application.router.add_get(f"{GATEWAY_PREFIX}/fl/sessions/{{did}}/record", self._record)
        port = self.world.first_port + 41 + self.world.providers.index(self)
        inner = await launcher_world.serve_gateway(self, 0)  # token and download are as in the other gateways
        application.router.add_route("*", "/{rest:.*}", lambda request: self._forward(request, inner))
        self.gateway = await launcher_world.serve(application, port)
        self.inner = inner
        await self.start()

    async def close(self):
        await self.gateway.cleanup()
        await self.inner.cleanup()

    async def _record(self, request):
        query = request.rel_url.query_string
        try:
            status, body = await self.ask("GET", f"/fl/sessions/{request.match_info['did']}/record?{query}")
        except aiohttp.ClientError:
            return web.json_response({"message": "the launcher does not answer"}, status=503)
        return web.Response(status=204) if status == 204 else web.json_response(body, status=status)

    async def _forward(self, request, inner):
        url = f"http://127.0.0.1:{launcher_world.port_of(inner)}{request.rel_url}"
        headers = {key: value for key, value in request.headers.items() if key in ("Authorization", "Content-Type")}
        body = await request.read()
        async with (
            aiohttp.ClientSession() as session,
            session.request(request.method, url, data=body, headers=headers) as answer,
        ):
            return web.Response(status=answer.status, body=await answer.read(), content_type=answer.content_type)

    def jobs(self):
        """The jobs in its store."""
        store = Store(self.home / "provider.sqlite")
        try:
            return store.all()
        finally:
            store.close()

    async def begin(self, agreement, workflow):
        """As often as it takes: a launcher that died over the order has it or has it not."""
        async with asyncio.timeout(PATIENT):
            while True:
                with suppress(aiohttp.ClientError):
                    status, text = await self.init(agreement, workflow)
                    if status == 200:
                        return text
                if found := self.jobs():
                    return found[0].id
                await asyncio.sleep(0.05)

    async def wait(self, job, seconds=PATIENT):
        async with asyncio.timeout(seconds):
            while True:
                with suppress(aiohttp.ClientError):
                    status = await self.status(job)
                    if status["stage"] == "over":
                        return status
                await asyncio.sleep(0.02)


def market(folder, which, first_port, port):
    """The whole session; what was wrong with its end is in ``market.json``."""
    logs.configure("warning")
    asyncio.run(_market(folder, which, first_port, port))


async def _market(folder, which, first_port, port):
    world = launcher_world.World(folder, first_port)
    world.providers = tuple(_made_distant(each) if each.home.name == which else each for each in world.providers)
    world.cloud, world.hospital, world.clinic = world.providers
    distant = getattr(world, which)
    distant.url = f"http://127.0.0.1:{port}"
    shared = Shared(folder / "market.sock", chain=world.chain, metadata=world.metadata)
    await world.open()
    try:
        write_json(folder / "ready.json", {"datasets": distant.datasets})
        world.begin_session(participant_0="join")
        jobs = {each: await world.begin(each) for each in world.providers}
        ends = {each.home.name: await each.wait(job, PATIENT) for each, job in jobs.items()}
        write_json(folder / "market.json", found_in(world, ends, distant))
    finally:
        for each in world.providers:
            await each.close()
        shared.close()


def _made_distant(provider):
    provider.__class__ = DistantProvider
    return provider


def found_in(world, ends, distant):
    """What must be the same whenever the launcher died."""
    models = world.models()
    edges = [(edge.relation, edge.did, edge.other, edge.agent) for edge in world.chain.provenance(models[0]["id"])]
    return {
        "ends": {name: [end["status"], end["payment"]] for name, end in ends.items()},
        "models": len(models),
        "owned by the buyer": world.chain.registration(models[0]["id"]).owner == BUYER.address,
        "paid": {each.home.name: world.chain.balance(each.account.address) for each in world.providers},
        "prices": {each.home.name: PRICES[each.account.address] for each in world.providers},
        "left to the buyer": world.chain.balance(BUYER.address) + sum(PRICES.values()),
        "jobs": len(distant.jobs()),
        "runs": _runs(distant),
        "edges": [len(edges), len(set(edges))],
    }


def _runs(provider):
    """How often a job's process was begun: each leaves one line in what it told."""
    told = [json.loads(line) for path in provider.home.rglob("events.jsonl") for line in path.read_text().splitlines()]
    return [line["event"] for line in told].count("selection_opened" if provider.home.name == "cloud" else "joined")


ACCOUNTS = {"cloud": launcher_world.CLOUD, "hospital": launcher_world.HOSPITAL}


def launcher(folder, which, ports, tracer, met):
    """The launcher's whole life, until it is told to end."""
    logs.configure("warning")
    if tracer is not None:
        tracer.start()
    asyncio.run(_launcher(folder, which, *ports))
    if met is not None:
        tracer.save(met)


async def _launcher(folder, which, first_port, port):
    home, address = folder / which, folder / "market.sock"
    store = Store(home / "provider.sqlite")
    settings = ProviderSettings(
        home=home,
        name=which,
        network="network.json",
        datasets=json.loads((folder / "ready.json").read_text())["datasets"],
        gateway=GatewaySettings(port=first_port + 41 + ["cloud", "hospital", "clinic"].index(which)),
        launcher=LauncherSettings(restarts=2),
        coordinator=CoordinatorSettings(first_port=first_port, last_port=first_port + 40),
        policy=PolicySettings(buyers=("*",), allow_private_targets=True, allow_no_isolation=True),
        limits=LimitSettings(),
    )
    processes = ProcessBackend(home / "jobs", hide=(home,), bwrap="", allow_no_isolation=True)
    made = Launcher(
        settings=settings,
        account=ACCOUNTS[which],
        chain=Distant(address, "chain", attributes=("generation",)),
        metadata=Distant(address, "metadata"),
        metadata_url=METADATA_URL,
        backend=TinyJobs(processes),
        store=store,
        approvals=Approvals(home / "provider.sqlite"),
        content=Content(home / "content"),
        records=Records(store, ACCOUNTS[which]),
        web=Web(private=True),
        pace=PACE,
    )
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    runner = await launcher_world.serve(create_app(made, secret=SECRET), port)
    await ended.wait()
    await runner.cleanup()
    processes.close()


def live(folder, which, slot, tracer=None, met=None):
    """A session whose launcher begins with ``tracer``; the number of its deaths, and what the market found."""
    folder.mkdir(parents=True)
    port, first_port, *_ = free_ports(slot, 1 + PORTS)
    deaths, until = 0, time.monotonic() + PATIENT
    with all_ended([]) as processes:

        def start(*traced):
            process = Forked(lambda: launcher(folder, which, (first_port, port), *traced), folder / "launcher.log")
            processes.append(process)
            return process

        played = Forked(lambda: market(folder, which, first_port, port), folder / "market.log")
        processes.append(played)
        while not (folder / "ready.json").exists() and played.wait(0) is None and time.monotonic() < until:
            wait_any([played], 0.02)
        process = start(tracer, met)
        while played.wait(0) is None and time.monotonic() < until:
            wait_any([played, process], until - time.monotonic())
            if process.wait(0) == -9:
                process, deaths = start(None, None), deaths + 1
            assert process.code is None, (folder / "launcher.log").read_text()[-3000:]
        assert played.code == 0, (folder / "market.log").read_text()[-3000:] + (folder / "launcher.log").read_text()[
            -2000:
        ]
        process.signal(signal.SIGTERM)
        # -9: killed at its end. -15: killed just before the market's end, and not yet listening to signals again.
        assert process.wait(20) in (0, -9, -15), f"{process.code}: {(folder / 'launcher.log').read_text()[-3000:]}"
    return deaths, json.loads((folder / "market.json").read_text())
