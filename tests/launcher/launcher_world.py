"""A small world: three providers with launchers over HTTP, tiny gateways, real processes, a memory chain."""

import asyncio
import json
import shutil
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path

import aiohttp
from aiohttp import web

from nevermined_fl import assets
from nevermined_fl.backends.process import ProcessBackend
from nevermined_fl.chain.memory import MemoryChain
from nevermined_fl.errors import NotFound
from nevermined_fl.files import sha256_bytes
from nevermined_fl.keys import KeyAccount
from nevermined_fl.launcher.app import COMPUTE, JOBS, create_app
from nevermined_fl.launcher.approvals import Approvals
from nevermined_fl.launcher.content import Content
from nevermined_fl.launcher.launcher import GATEWAY_PREFIX, Launcher, Pace
from nevermined_fl.launcher.records import Records
from nevermined_fl.launcher.store import Store
from nevermined_fl.launcher.web import Web
from nevermined_fl.metadata import MemoryMetadata, publisher
from nevermined_fl.session.plan import Plan, TensorSchema
from nevermined_fl.settings import (
    CoordinatorSettings,
    GatewaySettings,
    LauncherSettings,
    LimitSettings,
    PolicySettings,
    ProviderSettings,
)
from nevermined_fl.tokens import verify_assertion

TINY = Path(__file__).parent / "tiny"
CLOUD, HOSPITAL, CLINIC, BUYER, STRANGER = (KeyAccount.from_secret(bytes([n]) * 32) for n in range(1, 6))
METADATA_URL = "http://127.0.0.1:5000"
SECRET = "a secret of the gateway's"
PACE = Pace(poll=0.02, chain=0.05, backoff=0.02, longest=0.1, record_wait=1, record_valid=30, grace=5, listening=10)
NOW = 1_769_860_800.0
INITIAL = b"initial model"
SCHEMA = (TensorSchema("weights", "F32", (3,)),)
TRAINER = b"class Anything(Trainer): ...\n"
TIMEOUT = 400
PORTS = 41 + 3
"""Ports of a world: those that coordinators may take, and one for each provider's gateway."""
PRICES = {CLOUD.address: 7, HOSPITAL.address: 12, CLINIC.address: 20}
IMAGE = assets.Container("nevermined-fl/participant")
_CERTIFIED = set()
_PUBLISHERS = {}


class TinyJobs:
    """The process backend with our images replaced by tiny ones."""

    def __init__(self, inner):
        self.inner = inner
        self.isolation = inner.isolation
        self.logs, self.state, self.stop = inner.logs, inner.state, inner.stop
        self.submitted = []

    def submit(self, spec):
        self.submitted.append(spec)
        code = spec.folder / "code"
        shutil.copytree(TINY, code, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        name = "tiny_" + spec.entrypoint.removesuffix("_image")
        environment = dict(spec.environment) | {"PYTHONPATH": str(code)}
        return self.inner.submit(replace(spec, entrypoint=name, environment=environment))


class Provider:
    """One provider: its folder, a gateway that stays, and a launcher that may be restarted."""

    def __init__(self, world, account, home, *, isolated=False, tiny=True, **policy):
        self.world, self.account, self.home, self.isolated = world, account, home, isolated
        self.wrap = TinyJobs if tiny else lambda backend: backend
        self.policy = {"buyers": ("*",), "allow_private_targets": True, "allow_no_isolation": True} | policy
        self.datasets = {}
        self.pace = PACE
        self.limits = LimitSettings()
        self.metadata = world.metadata
        self.brittle = lambda thing: thing  # what stands between the launcher and what it writes to
        self.launcher = self.runner = self.application = None
        home.mkdir(parents=True)

    async def open(self):
        # The same port in every test, so that the same DDOs are made, signed and verified but once.
        self.gateway = await serve_gateway(self, self.world.first_port + 41 + self.world.providers.index(self))
        await self.start()

    async def start(self):
        settings = ProviderSettings(
            home=self.home,
            name=self.home.name,
            network="network.json",
            datasets=self.datasets,
            gateway=GatewaySettings(port=port_of(self.gateway)),
            launcher=LauncherSettings(restarts=2),
            coordinator=CoordinatorSettings(first_port=self.world.first_port, last_port=self.world.first_port + 40),
            policy=PolicySettings(**self.policy),
            limits=self.limits,
        )
        mode = {} if self.isolated else {"bwrap": "", "allow_no_isolation": True}
        store = self.brittle(Store(self.home / "provider.sqlite"))
        self.processes = ProcessBackend(self.home / "jobs", hide=(self.home,), **mode)
        self.launcher = Launcher(
            settings=settings,
            account=self.account,
            chain=self.brittle(self.world.chain),
            metadata=self.brittle(self.metadata),
            metadata_url=METADATA_URL,
            backend=self.wrap(self.processes),
            store=store,
            approvals=Approvals(self.home / "provider.sqlite"),
            content=Content(self.home / "content"),
            records=Records(store, self.account),
            web=Web(private=self.policy["allow_private_targets"]),
            pace=self.pace,
        )
        self.application = create_app(self.launcher, secret=SECRET)
        self.runner = await serve(self.application)
        self.url = f"http://127.0.0.1:{port_of(self.runner)}"

    async def stop(self):
        if self.runner:
            runner, self.runner = self.runner, None
            launcher, self.launcher = self.launcher, None
            await runner.cleanup()
            self.processes.close()
            launcher.store.close()
            launcher.approvals.close()

    async def close(self):
        await self.stop()
        await self.gateway.cleanup()

    @property
    def gateway_url(self):
        return f"http://127.0.0.1:{port_of(self.gateway)}"

    async def ask(self, method, path, *, secret=SECRET, **options):
        """Status and body of an answer of the launcher."""
        headers = {"Authorization": f"Bearer {secret}"}
        options |= {"method": method, "url": self.url + path, "headers": headers}
        async with aiohttp.ClientSession() as session, session.request(**options) as answer:
            is_json = answer.content_type == "application/json"
            return answer.status, await (answer.json() if is_json else answer.text())

    async def init(self, agreement, workflow, consumer=BUYER):
        body = {
            "serviceAgreementId": agreement,
            "workflow": self.world.metadata.resolve(workflow),
            "workflowDid": workflow,
            "consumer": consumer.address,
        }
        return await self.ask("POST", f"{COMPUTE}/init", json=body)

    async def begin(self, agreement, workflow):
        status, text = await self.init(agreement, workflow)
        assert status == 200, text
        return text

    async def status(self, job):
        return (await self.ask("GET", f"{COMPUTE}/status/{job}"))[1]

    async def wait(self, job, seconds=20):
        async with asyncio.timeout(seconds):
            await self.application[JOBS].wait(job)
        return await self.status(job)

    async def reach(self, job, stage, seconds=20):
        """Wait until the job is at a stage; returns its status."""
        return await self.until(job, lambda now: now["stage"] == stage, seconds)

    async def until(self, job, is_so, seconds=20):
        """Wait for a status of the job; returns it."""
        async with asyncio.timeout(seconds):
            now = await self.status(job)
            while not is_so(now):
                await asyncio.sleep(0.01)
                now = await self.status(job)
        return now


class World:
    """The market: a session over two datasets, bought by one buyer."""

    def __init__(self, folder, first_port, *, trainer=TRAINER, initial=INITIAL, data=None, **options):
        self.trainer, self.initial, self.data = trainer, initial, data or {}
        self.folder, self.first_port = folder, first_port
        self.chain, self.metadata = MemoryChain(), MemoryMetadata()
        self.chain.fund(BUYER.address, 1000)
        self.cloud = Provider(self, CLOUD, folder / "cloud", **options)
        self.hospital = Provider(self, HOSPITAL, folder / "hospital", **options)
        self.clinic = Provider(self, CLINIC, folder / "clinic", **options)
        self.providers = (self.cloud, self.hospital, self.clinic)
        self.made = 0

    async def open(self):
        for provider in self.providers:
            await provider.open()
        self.cloud.launcher.content.add(self.write("initial.safetensors", self.initial))
        self.hosted = {0: self.trainer, 1: self.initial}
        self.compute = self.publish(CLOUD, assets.build_compute, self.terms(self.cloud, inbound=True), self.cloud)
        for provider in (self.hospital, self.clinic):
            await self.add_dataset(provider)
        self.members = tuple(sorted([self.hospital.did, self.clinic.did]))
        # Hosted by the cloud's gateway, where the buyer uploaded it.
        files = [entry("algorithm.py", self.trainer), entry("initial.safetensors", self.initial)]
        self.algorithm = self.publish_ddo(
            BUYER,
            assets.build_algorithm(
                self.who(BUYER), self.about(), gateway_url=self.cloud.gateway_url, files=files, container=IMAGE
            ),
        )
        for provider in self.providers:
            self.chain.grant_permission(BUYER, self.algorithm, provider.account.address)
            provider.launcher.approvals.approve(sha256_bytes(self.trainer))

    async def add_dataset(self, provider):
        data = provider.home / "data" / "rows.csv"
        data.parent.mkdir()
        data.write_text(self.data.get(provider.home.name, f"x\n{len(provider.home.name)}\n"))
        rows = len(data.read_text().splitlines()) - 1
        ddo = assets.build_dataset(
            self.who(provider.account),
            self.about(),
            gateway_url=provider.gateway_url,
            terms=self.terms(provider),
            files=[entry("rows.csv", data.read_bytes())],
            schema=assets.Schema((assets.Column("x", "int64"),), rows),
        )
        provider.did = self.publish_ddo(provider.account, ddo)
        provider.datasets[provider.did] = "data/rows.csv"

    def begin_session(self, *, timeout=TIMEOUT, plan=None, **hyperparameters):
        """Publish session and workflow, and buy everything."""
        plan = plan or self.plan(hyperparameters=tuple(hyperparameters.items()))
        self.session = self.publish_ddo(
            BUYER,
            assets.build_session(
                self.who(BUYER),
                self.about(),
                datasets=self.members,
                compute=self.compute,
                parameters=plan.to_parameters(),
                container=assets.Container("nevermined-fl/coordinator"),
            ),
        )
        self.workflow = self.publish_ddo(
            BUYER,
            assets.build_workflow(
                self.who(BUYER),
                self.about(),
                session=self.session,
                datasets=self.members,
                algorithm=self.algorithm,
                container=IMAGE,
            ),
        )
        self.agreements = {p.account.address: self.buy(p, timeout=timeout) for p in self.providers}

    def plan(self, **changes):
        """Two rounds over both datasets."""
        values = {
            "members": self.members,
            "rounds": 2,
            "min_participants": 2,
            "initial_model": sha256_bytes(INITIAL),
            "schema": SCHEMA,
            "selection_timeout": 30.0,
            "round_timeout": 60.0,
        }
        return Plan(**values | changes)

    def buy(self, provider, *, timeout=TIMEOUT, pay=True):
        did = self.compute if provider is self.cloud else provider.did
        price = {"did": did, "amounts": (PRICES[provider.account.address],), "receivers": (provider.account.address,)}
        agreement = self.chain.create_agreement(BUYER, timeout=timeout, **price)
        if pay:
            self.chain.lock_payment(BUYER, agreement, **price)
        return agreement

    async def begin(self, provider):
        workflow = self.session if provider is self.cloud else self.workflow
        return await provider.begin(self.agreements[provider.account.address], workflow)

    async def run(self, *order, seconds=30):
        """Begin jobs in this order and wait for all of them; their statuses."""
        jobs = [(provider, await self.begin(provider)) for provider in order or self.providers]
        return [await provider.wait(job, seconds) for provider, job in jobs]

    def state(self, provider):
        return self.chain.agreement(self.agreements[provider.account.address]).state()

    def models(self):
        """Assets that were made."""
        return [ddo for ddo in self.metadata.search("") if assets.kind(ddo) == "model"]

    def write(self, name, body):
        (self.folder / name).write_bytes(body)
        return self.folder / name

    def who(self, account):
        if account not in _PUBLISHERS:
            made = publisher(account, name="somebody", metadata_url=METADATA_URL)
            _PUBLISHERS[account] = replace(made, sign=cache(made.sign))
        return _PUBLISHERS[account]

    def about(self):
        self.made += 1
        return assets.About(f"asset {self.made}", NOW + self.made)

    def terms(self, provider, *, inbound=False):
        return assets.Terms(
            amounts=(PRICES[provider.account.address],),
            receivers=(provider.account.address,),
            token=self.chain.contract_address("NeverminedToken"),
            template=self.chain.contract_address("EscrowComputeExecutionTemplate"),
            escrow=self.chain.contract_address("EscrowPaymentCondition"),
            timeout_blocks=TIMEOUT,
            inbound=inbound,
        )

    def publish(self, account, build, terms, provider):
        ddo = build(self.who(account), self.about(), gateway_url=provider.gateway_url, terms=terms)
        return self.publish_ddo(account, ddo)

    def publish_ddo(self, account, ddo):
        url, checksum = ddo["service"][0]["serviceEndpoint"], assets.registry_checksum(ddo)
        self.chain.register(account, seed=assets.did_seed(ddo), checksum=checksum, url=url)
        text = json.dumps(ddo)
        if text in _CERTIFIED:
            self.metadata._texts[ddo["id"]] = text
        else:
            self.metadata.publish(ddo)
            _CERTIFIED.add(text)
        return ddo["id"]


@asynccontextmanager
async def open_world(folder, first_port, **options):
    world = World(folder, first_port, **options)
    await world.open()
    try:
        yield world
    finally:
        for provider in world.providers:
            await provider.close()


def entry(name, body):
    return assets.FileEntry(name, "text/plain", len(body), sha256_bytes(body).removeprefix("sha256:"))


def port_of(runner):
    return runner.addresses[0][1]


async def serve(application, port=0):
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    return runner


async def serve_gateway(provider, port):
    """What of a gateway another provider's launcher uses: records and downloads."""

    async def record(request):
        if provider.launcher is None:
            return web.json_response({"message": "restarting"}, status=503)
        after, wait = int(request.query["after"]), float(request.query["wait"])
        try:
            found = await provider.launcher.records.newer(request.match_info["did"], after=after, wait=wait)
        except NotFound as error:
            return web.json_response(error.to_json(), status=404)
        return web.json_response({"record": found[1]}) if found else web.Response(status=204)

    async def token(request):
        claims = verify_assertion((await request.post())["assertion"])
        assert claims["aud"] == f"{provider.gateway_url}{GATEWAY_PREFIX}/download"
        assert provider.world.chain.may_download(claims["did"], claims["iss"])
        return web.json_response({"access_token": "opaque", "token_type": "Bearer"})

    async def download(request):
        assert request.headers["Authorization"] == "Bearer opaque"
        return web.Response(body=provider.world.hosted[int(request.match_info["index"])])

    application = web.Application()
    application.router.add_get(f"{GATEWAY_PREFIX}/fl/sessions/{{did}}/record", record)
    application.router.add_post(f"{GATEWAY_PREFIX}/oauth/token", token)
    application.router.add_get(f"{GATEWAY_PREFIX}/download/{{index}}", download)
    return await serve(application, port)
