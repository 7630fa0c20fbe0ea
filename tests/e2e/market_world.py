"""A real network and everybody on it: what tests of whole sessions do, in the words of a person who would do it."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import sqlite3
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx
import requests
from federation import ALGORITHM, HYPERPARAMETERS

from nevermined_fl import DataScientist, Provider
from nevermined_fl import assets as ddos
from nevermined_fl.devnet.contracts import development_owner, fund
from nevermined_fl.devnet.processes import alive, command_line, descendants, start_ticks
from nevermined_fl.keys import KeyAccount
from nevermined_fl.marketplace.publishing import PlanSettings
from nevermined_fl.session import Metric
from nevermined_fl.settings import load_network
from nevermined_fl.tokens import make_assertion

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from nevermined_fl.devnet.home import Home, State

TOKEN = 10**18
SERVICES = "/api/v1/gateway/services"
GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
COMPUTE_PRICE, PRICES = 5, (11, 17, 29)
ROWS = (30, 40, 50)
CANARIES = ("3.14159265358", "2.71828182845", "1.41421356237")
"""One cell of each provider's data: where these digits turn up, data has leaked."""

# Prints data; in training number `gate` waits for a file of the test's; raises with data in its text where it is told to.
TRAINER = ALGORITHM.replace(
    "        x, y = self.data()\n        w, b",
    "        import pathlib, time\n        x, y = self.data()\n        h = self.hyperparameters\n"
    "        secret = float(load_table(self.inputs)[1][0, 0])\n        print('secret', secret, flush=True)\n"
    "        self.fits = getattr(self, 'fits', 0) + 1\n        pathlib.Path(f'fit-{self.fits}').touch()\n"
    "        while h['gate'] and self.fits >= h['gate'] and not any(self.inputs.rglob('go')):\n"
    "            time.sleep(0.02)\n"
    "        if self.fits == h['failing_fit'] and len(x) == h['failing_rows']:\n"
    "            raise ValueError(f'{secret}')\n        w, b",
)
RAISING_LINE = TRAINER[: TRAINER.index("raise ValueError")].count("\n") + 1


def eventually(is_so: Callable[[], Any], *, seconds: float = 60.0, what: str = "it") -> Any:
    """Wait for what other processes do; what ``is_so`` returned at last."""
    deadline = time.monotonic() + seconds
    while not (found := is_so()):
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds:.0f} s"
        time.sleep(0.05)
    return found


@dataclass
class Answer:
    """What a gateway said."""

    status: int
    body: dict[str, Any]

    @property
    def refusal(self) -> tuple[int, str]:
        return self.status, self.body.get("check", "")


@dataclass
class Deal:
    """A session, what was bought for it, and what runs."""

    session: str
    workflow: str
    plan: Any
    agreements: dict[str, str] = field(default_factory=dict)
    executions: dict[str, str] = field(default_factory=dict)


class World:
    """The network, its providers, a data scientist, and a stranger who has ether, tokens and ideas of his own."""

    def __init__(self, home: Home, state: State) -> None:
        self.home, self.state = home, state
        folder = home.data_scientist
        self.network = load_network(home.network_file)
        self.buyer = DataScientist(folder / "key.json", self.network, password_file=folder / "password", name="buyer")
        self.stranger = DataScientist(KeyAccount.create(), self.network, name="stranger")
        fund(self.network, development_owner(), [self.stranger.address], ether=TOKEN, tokens=100 * TOKEN)
        self.chain = self.buyer.market.chain
        self.compute = Provider(home.provider("compute"))
        self.sellers = [Provider(entry.home) for entry in state.providers if entry.kind == "data"]
        self.service = self.compute.publish_compute(price=COMPUTE_PRICE * TOKEN, name="coordinators", timeout_blocks=1)
        self.files = [write_table(seller.home / "data" / "table.csv", n) for n, seller in enumerate(self.sellers)]
        self.datasets = [
            seller.publish_dataset(file, price=price * TOKEN, name="tables", timeout_blocks=1)
            for seller, file, price in zip(self.sellers, self.files, PRICES, strict=True)
        ]
        self.prices = dict(zip((self.service, *self.datasets), (COMPUTE_PRICE, *PRICES), strict=True))
        self.trainer = home.root / "trainer.py"
        self.trainer.write_text(TRAINER)
        self.algorithm = self.buyer.publish_algorithm(
            self.trainer, gateway=self.gateway(self.datasets[0]), settings=plan_settings()
        )

    def close(self) -> None:
        """Let go of every connection; web3 has no other way than to find its own."""
        markets = [each.market for each in (self.buyer, self.stranger, self.compute, *self.sellers)]
        for market in markets:
            market.close()
            market.metadata.close()
        for session in [found for found in gc.get_objects() if isinstance(found, requests.Session)]:
            session.close()

    # --- buying and running

    def publish(self, *members: str, buyer: DataScientist | None = None, algorithm: Any = None, **changes: Any) -> Deal:
        """A session over these datasets, default all, and its workflow."""
        buyer, algorithm = buyer or self.buyer, algorithm or self.algorithm
        datasets, settings = members or tuple(self.datasets), plan_settings(**changes)
        session = buyer.publish_session(algorithm, datasets=datasets, compute=self.service, settings=settings)
        workflow = buyer.publish_workflow(session, algorithm=algorithm.did)
        return Deal(session, workflow, settings.plan(algorithm, datasets))

    def approve(self, algorithm: Any = None) -> None:
        """Every seller allows the buyer's algorithm; those who were not asked yet are asked."""
        digest = (algorithm or self.algorithm).digest()
        for seller in self.sellers:
            eventually(lambda seller=seller: seller.reviews(), what="the request for a review")
            seller.approve(digest)

    def order(self, deal: Deal, *dids: str) -> None:
        for did in dids or (self.service, *deal.plan.members):
            # Deals run side by side: none takes what was bought for another.
            deal.agreements[did] = self.buyer.order(did, session=deal.session, again=True)

    def start(self, deal: Deal, *dids: str) -> None:
        for did in dids or deal.agreements:
            workflow = deal.session if did == self.service else deal.workflow
            deal.executions[did] = self.buyer.start(deal.agreements[did], workflow=workflow)

    def status(self, deal: Deal, did: str) -> dict[str, Any]:
        return self.buyer.status(deal.agreements[did], deal.executions[did])

    def over(self, deal: Deal) -> dict[str, dict[str, Any]]:
        """Wait until all jobs of a deal are over; their last status by DID."""
        for did, execution in deal.executions.items():
            # Asked of the provider's own store: each question to a gateway is one to the chain, too.
            seller = self.seller(did)
            eventually(lambda seller=seller, execution=execution: is_over(seller, execution), what=f"the end of {did}")
        return {did: self.status(deal, did) for did in deal.executions}

    def events(self, deal: Deal, did: str, name: str = "") -> list[dict[str, Any]]:
        """What the buyer is told of an execution."""
        found = [json.loads(pod["content"]) for pod in self.buyer.logs(deal.agreements[did], deal.executions[did])]
        return [event for event in found if name in {"", event["event"]}]

    def states(self, deal: Deal) -> dict[str, str]:
        return {payment.did: payment.state for payment in self.buyer.payments(deal.agreements.values())}

    def assets(self) -> set[str]:
        return {summary.did for summary in self.buyer.search("")}

    # --- asking as anybody could

    def gateway(self, did: str) -> str:
        return self.buyer.gateway_url(did)

    def url_of(self, provider: str) -> str:
        return self.state.provider(provider).gateway_url()

    def assertion(self, url: str, service: str, *, account: Any = None, aud: str = "", **claims: Any) -> str:
        account = account or self.buyer.market.account
        return make_assertion(account, aud=aud or f"{url}{SERVICES}/{service}", **claims)

    def trade(self, url: str, assertion: str) -> Answer:
        return answer_of(httpx.post(f"{url}{SERVICES}/oauth/token", data={"grant_type": GRANT, "assertion": assertion}))

    def call(self, url: str, method: str, path: str, service: str, *, account: Any = None, **claims: Any) -> Answer:
        """Trade an assertion and, with what was given for it, ask; the first refusal."""
        traded = self.trade(url, self.assertion(url, service, account=account, **claims))
        if traded.status != 200:
            return traded
        bearer = {"Authorization": f"Bearer {traded.body['access_token']}"}
        return answer_of(httpx.request(method, f"{url}{SERVICES}/{path}", headers=bearer, timeout=30))

    def execute(self, url: str, agreement: str, workflow: str, *, account: Any = None) -> Answer:
        return self.call(url, "POST", f"execute/{agreement}", "execute", account=account, sub=agreement, did=workflow)

    def compute_call(self, verb: str, url: str, agreement: str, execution: str, *, account: Any = None) -> Answer:
        method = "DELETE" if verb == "stop" else "GET"
        path = f"compute/{verb}/{agreement}/{execution}"
        return self.call(url, method, path, "compute", account=account, sub=agreement, execution_id=execution)

    # --- what no marketplace offers

    def buy(self, did: str, *, buyer: DataScientist | None = None, pay: bool = True, **terms: Any) -> str:
        """An agreement with whatever its buyer would like to write into it."""
        buyer = buyer or self.buyer
        found = buyer.show(did).terms
        price = {"amounts": found.amounts, "receivers": found.receivers}
        chain, account = buyer.market.chain, buyer.market.account
        agreement = chain.create_agreement(account, did=did, **{"timeout": 5000} | price | terms)
        if pay:
            chain.lock_payment(account, agreement, did=did, **price)
        return agreement

    @contextlib.contextmanager
    def edited(self, did: str, edit: Callable[[dict[str, Any]], object]) -> Iterator[None]:
        """Somebody edits a DDO in the metadata API's database."""
        honest = self._body(did)
        ddo = json.loads(honest)
        edit(ddo)
        self._write("UPDATE ddos SET body = ? WHERE did = ?", json.dumps(ddo), did)
        try:
            yield
        finally:
            self._write("UPDATE ddos SET body = ? WHERE did = ?", honest, did)

    def smuggle(self, ddo: dict[str, Any]) -> str:
        """Put a DDO into the metadata API's database that the API itself would refuse; registered by the buyer."""
        url = ddo["service"][0]["serviceEndpoint"]
        seed, checksum = ddos.did_seed(ddo), ddos.registry_checksum(ddo)
        self.chain.register(self.buyer.market.account, seed=seed, checksum=checksum, url=url)
        row = (ddo["id"], "workflow", self.buyer.address.lower(), "", ddo["created"], "0", 0.0, json.dumps(ddo))
        self._write("INSERT INTO ddos VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?)", *row)
        return str(ddo["id"])

    def written_dids(self) -> list[str]:
        """What the metadata API lists, whatever it is."""
        url = f"{self.network.metadata_url}/api/v1/metadata/assets"
        return list(httpx.get(url).json())

    def mine(self, blocks: int) -> None:
        request = {"jsonrpc": "2.0", "id": 1, "method": "anvil_mine", "params": [hex(blocks)]}
        assert "result" in httpx.post(self.network.rpc_url, json=request, timeout=60).json()

    # --- processes

    def server(self, name: str) -> int:
        """Pid of one of the network's servers."""
        return next(entry.pid for entry in self.home.load().processes if entry.name == name)

    def job(self, execution: str, image: str) -> int:
        """Pid of an execution's own process, inside of whatever shuts it in; 0 when there is none."""
        marked = [pid for pid in descendants(self.state.pid) if any(execution in word for word in command_line(pid))]
        below = {pid for mark in marked for pid in (mark, *descendants(mark))}
        own = [pid for pid in below if command_line(pid)[1:3] == ("-m", image)]
        return min(own, default=0)

    def kill_server(self, name: str) -> None:
        """Kill a server, and wait until the supervisor has started it again and it answers."""
        pid = self.server(name)
        kill(pid)
        eventually(lambda: self.server(name) != pid, what=f"a new {name}")
        url = next(entry.url for entry in self.home.load().processes if entry.name == name)
        eventually(lambda: responds(url), what=f"an answer of {name}")

    @contextlib.contextmanager
    def stopped(self, name: str, seconds: float) -> Iterator[None]:
        """The server stands still for so long, whatever the block does meanwhile."""
        pid = self.server(name)
        os.kill(pid, signal.SIGSTOP)
        timer = threading.Timer(seconds, os.kill, (pid, signal.SIGCONT))
        timer.start()
        try:
            yield
        finally:
            timer.join()

    def work(self, did: str, execution: str) -> Path:
        """A job's own folder, as its provider sees it."""
        return self.seller(did).home / "jobs" / execution / "work"

    def seller(self, did: str) -> Provider:
        return dict(zip((self.service, *self.datasets), (self.compute, *self.sellers), strict=True))[did]

    def open_gate(self, deal: Deal, did: str) -> None:
        inputs = self.work(did, deal.executions[did]) / "inputs"
        eventually(inputs.is_dir, what="a folder with the inputs")
        (inputs / "go").touch()

    def in_fit(self, deal: Deal, did: str, number: int) -> None:
        """Wait until a participant is in its training of that number."""
        mark = self.work(did, deal.executions[did]) / "scratch" / f"fit-{number}"
        eventually(mark.exists, what=f"training {number}")

    def _body(self, did: str) -> str:
        with contextlib.closing(self._database()) as database:
            return str(database.execute("SELECT body FROM ddos WHERE did = ?", (did,)).fetchone()[0])

    def _write(self, statement: str, *values: Any) -> None:
        with contextlib.closing(self._database()) as database, database:
            assert database.execute(statement, values).rowcount == 1

    def _database(self) -> sqlite3.Connection:
        (file,) = (self.home.root / "metadata").glob("*.sqlite")
        return sqlite3.connect(file, timeout=10)


def plan_settings(*, gate: int = 0, failing_fit: int = 0, failing_rows: int = 0, **changes: Any) -> PlanSettings:
    """Two short rounds; ``gate``, ``failing_fit`` and ``failing_rows`` are the trainer's."""
    told = {"gate": gate, "failing_fit": failing_fit, "failing_rows": failing_rows}
    defaults = {
        "rounds": 2,
        "seed": 11,
        "selection_timeout": 60.0,
        "round_timeout": 60.0,
        "metrics": (Metric("accuracy"),),
        "hyperparameters": HYPERPARAMETERS | told,
    }
    return PlanSettings(**defaults | changes)


def write_table(path: Path, number: int) -> Path:
    """A provider's data: separable, of a size of its own, with the canary in its first cell."""
    rows = [[(7 * n + 3 * column + number) % 17 for column in range(6)] + [n % 3] for n in range(ROWS[number])]
    lines = [",".join(map(str, row)) for row in rows]
    lines[0] = ",".join([CANARIES[number], *lines[0].split(",")[1:]])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([",".join([*(f"p{n}" for n in range(6)), "label"]), *lines]) + "\n")
    return path


def is_over(provider: Provider, execution: str) -> bool:
    return any(job.id == execution and job.stage == "over" for job in provider.jobs())


def answer_of(response: httpx.Response) -> Answer:
    return Answer(response.status_code, response.json())


def responds(url: str) -> bool:
    try:
        return httpx.get(url).status_code < 500
    except httpx.TransportError:
        return False


def kill(pid: int) -> None:
    """Kill this very process, and wait until it is gone."""
    assert pid > 1
    ticks = start_ticks(pid)
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not alive(pid, ticks), what=f"the end of {pid}")
