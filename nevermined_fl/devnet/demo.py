"""What happens from purchase to fetched model, step by step, between real processes on a real chain?

The demo is a client of its network: it does what a person would do with the command line, and measures.
"""

from __future__ import annotations

import hashlib
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from nevermined_fl.devnet import demo_data, network
from nevermined_fl.devnet.cast import Cast
from nevermined_fl.devnet.comparison import accuracies, compare
from nevermined_fl.devnet.home import DEFAULT_HOME
from nevermined_fl.devnet.picture import Curves, draw
from nevermined_fl.devnet.watch import ParticipantWatch
from nevermined_fl.errors import BackendError, NotFound
from nevermined_fl.marketplace.data_scientist import DataScientist
from nevermined_fl.marketplace.publishing import PlanSettings
from nevermined_fl.marketplace.running import wait_approved, wait_settled
from nevermined_fl.trainers.sandbox import isolation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future
    from pathlib import Path

    from nevermined_fl.devnet.comparison import Comparison
    from nevermined_fl.devnet.demo_data import Split, Table
    from nevermined_fl.devnet.home import State
    from nevermined_fl.marketplace.publishing import Algorithm
    from nevermined_fl.marketplace.quote import Quote
    from nevermined_fl.marketplace.results import Fetched, Payment
    from nevermined_fl.ports import ProvenanceEdge
    from nevermined_fl.session.plan import Plan

__all__ = ["Accuracy", "Demo", "Options", "Result"]

_SELECTION_SECONDS, _ROUND_SECONDS = 60.0, 60.0
_APPROVAL_PATIENCE = 20.0


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says. ``rpc_url`` empty: an embedded chain."""

    providers: int = 3
    dataset: str = "digits"
    rounds: int = 10
    strategy: str = "fedavg"
    seed: int = 0
    keep: bool = False
    home: Path = DEFAULT_HOME
    rpc_url: str = ""


@dataclass(frozen=True, slots=True)
class Accuracy:
    """On the held-out rows; ``alone`` by provider. ``replay_identical``: the fetched bytes are those of a replay."""

    federated: float
    pooled: float
    alone: dict[str, float]
    replay_identical: bool


@dataclass(frozen=True, slots=True)
class Result:
    """What the demo has to show. Money is in the token's smallest unit; digests are SHA-256 in hex.

    ``balances`` are the data scientist's, before and after. ``new_assets`` were published by the session itself.
    """

    session_did: str
    model_did: str
    model_sha256: str
    fetched_sha256: str
    fetched_path: str
    rpc_url: str
    rounds: int
    participants: int
    accuracy: Accuracy
    payments: tuple[Payment, ...]
    balances: dict[str, int]
    provenance: tuple[ProvenanceEdge, ...]
    new_assets: int
    listening_participants: int
    seconds: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self)

    def shortcomings(self) -> tuple[str, ...]:
        """What did not come out as it must; empty when all is well."""
        spent = self.balances["before"] - self.balances["after"]
        expected = {
            "the fetched bytes are not the published ones": self.fetched_sha256 == self.model_sha256,
            "the fetched bytes are not those of a replay": self.accuracy.replay_identical,
            "a provider was not paid": all(payment.state == "paid" for payment in self.payments),
            "the balance did not move by the prices": spent == sum(payment.price for payment in self.payments),
            "the session published more or less than one asset": self.new_assets == 1,
            "a participant listened": self.listening_participants == 0,
        }
        return tuple(text for text, fine in expected.items() if not fine)


@dataclass(frozen=True, slots=True)
class _Session:
    """What the data scientist published."""

    did: str
    workflow: str
    plan: Plan
    algorithm: Algorithm
    file: Path
    test: Path


@dataclass(slots=True)
class Demo:
    """One run; ``quote``, ``cast``, ``pictures`` and ``links`` are for people and filled by ``run``."""

    options: Options
    progress: Callable[[str], None] = lambda _: None
    quote: Quote | None = None
    cast: Cast | None = None
    pictures: tuple[Path, ...] = ()
    links: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def run(self) -> Result:
        """Start a network, tell the story on it, and take it down again unless it shall be kept."""
        began = time.monotonic()
        options = self.options
        table = demo_data.load(options.dataset)
        split = demo_data.split(table, providers=options.providers, seed=options.seed)
        with network.start(options.home, providers=options.providers, rpc_url=options.rpc_url) as net:
            with self._step("network", "an embedded Nevermined network starts"):
                state = net.wait_ready()
            if isolation() == "none":
                self.progress("no isolation: bubblewrap does not work here, and a network for trying allows that")
            result = self._tell(state, table, split)
            if options.keep:
                net.release()
        self.seconds["total"] = round(time.monotonic() - began, 2)
        return result

    def _tell(self, state: State, table: Table, split: Split) -> Result:
        with self._step("publish", "providers publish datasets and compute"):
            cast = self.cast = Cast.publish(state, table, split)
        buyer = self._buyer()
        before = buyer.balance()
        with self._step("prepare", "the data scientist finds them, publishes algorithm, session and workflow"):
            session = self._prepare(buyer, cast, table, split)
        with self._step("review", "data providers read the algorithm and approve it"):
            cast.approve(session.algorithm.digest())
            wait_approved(buyer, session.workflow, patience=_APPROVAL_PATIENCE)
        with self._step("order", "compute is bought: agreements, and tokens into escrow"):
            self.quote = buyer.quote(session.did)
            agreements = buyer.order_all(session.did)
        assets_before = _assets(buyer)
        with ExitStack() as stack:
            watch = stack.enter_context(ParticipantWatch(state.pid))
            with self._step("start", "gateways check on chain, launchers start the jobs"):
                self._start(buyer, session, agreements)
            comparison = self._compare(cast, split, table, session)
            with self._step("train", f"{options_text(self.options)}: selection, rounds, evaluation, publishing"):
                record = buyer.wait(session.did)
        with self._step("settle", "providers are paid and write provenance"):
            payments = wait_settled(buyer, agreements.values(), due=set(agreements))
            provenance = self._provenance(buyer, record.model, cast)
        with self._step("fetch", "the data scientist fetches the model"):
            fetched = buyer.fetch(record.model, self.options.home / "results")
        with self._step("compare", "replay, pooled data, each provider alone"):
            accuracy = self._judge(session, cast, fetched, comparison.result())
        if not watch.seen:
            raise BackendError("no participant process was seen, so nothing is known about its sockets")
        published = {"algorithm": session.algorithm.did, "session": session.did, "workflow": session.workflow}
        self._link(buyer, {name: did for did, name in cast.names().items()} | published | {"model": record.model})
        return Result(
            session_did=session.did,
            model_did=record.model,
            model_sha256=record.model_sha256.removeprefix("sha256:"),
            fetched_sha256=hashlib.sha256(fetched.path.read_bytes()).hexdigest(),
            fetched_path=str(fetched.path),
            rpc_url=state.rpc_url,
            rounds=session.plan.rounds,
            participants=len(record.contributors),
            accuracy=accuracy,
            payments=payments,
            balances={"before": before, "after": buyer.balance()},
            provenance=provenance,
            new_assets=len(_assets(buyer) - assets_before),
            listening_participants=watch.listening,
            seconds=self.seconds,
        )

    def _buyer(self) -> DataScientist:
        home = self.options.home.resolve()
        return DataScientist(home / "data-scientist" / "key.json", home / "network.json", name="data scientist")

    def _prepare(self, buyer: DataScientist, cast: Cast, table: Table, split: Split) -> _Session:
        own = self.options.home.resolve() / "data-scientist"
        test = demo_data.write_csv(own / "test" / "test.csv", table.columns, split.test)
        file = own / "softmax.py"
        file.write_bytes(files("nevermined_fl.devnet.algorithms").joinpath("softmax.py").read_bytes())
        settings = PlanSettings(
            rounds=self.options.rounds,
            strategy=self.options.strategy,
            seed=self.options.seed,
            selection_timeout=_SELECTION_SECONDS,
            round_timeout=_ROUND_SECONDS,
            hyperparameters=demo_data.hyperparameters(table, split.test),
        )
        found = {summary.did for summary in buyer.search(table.name, kind="dataset")}
        datasets = tuple(seller.did for seller in cast.sellers if seller.did in found)
        compute = _inbound(buyer)
        algorithm = buyer.publish_algorithm(
            file, gateway=buyer.gateway_url(datasets[0]), settings=settings, name=f"softmax regression on {table.name}"
        )
        did = buyer.publish_session(
            algorithm, datasets=datasets, compute=compute, settings=settings, name=f"{table.name}, federated"
        )
        workflow = buyer.publish_workflow(did, algorithm=algorithm.did)
        buyer.request_review(workflow)
        return _Session(did, workflow, settings.plan(algorithm, datasets), algorithm, file, test)

    def _start(self, buyer: DataScientist, session: _Session, agreements: dict[str, str]) -> None:
        """All at once, as the order does not matter: a participant that is early waits for the session record."""
        workflows = {did: session.workflow if did in session.plan.members else session.did for did in agreements}
        with ThreadPoolExecutor(len(agreements)) as pool:
            starts = [pool.submit(buyer.start, agreements[did], workflow=workflows[did]) for did in agreements]
        for start in starts:
            start.result()

    def _compare(self, cast: Cast, split: Split, table: Table, session: _Session) -> Future[Comparison]:
        folder = self.options.home.resolve() / "comparison"
        pooled = demo_data.write_csv(folder / "pooled.csv", table.columns, split.pooled())
        return compare(
            session.plan,
            session.file,
            parts={seller.name: (seller.did, seller.file) for seller in cast.sellers},
            pooled=pooled,
            initial=session.algorithm.initial,
            folder=folder,
        )

    def _judge(self, session: _Session, cast: Cast, fetched: Fetched, runs: Comparison) -> Accuracy:
        names = [seller.name for seller in cast.sellers]
        groups = [runs.replay.rounds, runs.pooled.rounds, *(runs.alone[name].rounds for name in names)]
        models = [fetched.path, *(model for group in groups for model in group)]
        scratch = self.options.home.resolve() / "comparison" / "scores"
        federated, *rest = accuracies(session.plan, session.file, session.test, models, scratch)
        scores = iter(rest)
        curves = [[next(scores) for _ in group] for group in groups]
        title = f"{self.options.dataset}: {len(names)} providers, {self.options.strategy}, {self.options.rounds} rounds"
        alone = dict(zip(names, curves[2:], strict=True))
        stem = self.options.home.resolve() / "results" / "accuracy"
        self.pictures = draw(Curves(curves[0], curves[1], alone), title, stem)
        identical = runs.replay.model == fetched.path.read_bytes()
        return Accuracy(federated, curves[1][-1], {name: curve[-1] for name, curve in alone.items()}, identical)

    def _provenance(self, buyer: DataScientist, model: str, cast: Cast) -> tuple[ProvenanceEdge, ...]:
        """Once every data provider has written both of its edges; each does so right after it was paid."""
        deadline = time.monotonic() + _APPROVAL_PATIENCE
        while True:
            edges = buyer.provenance(model)
            if len(edges) >= 1 + 2 * len(cast.sellers) or time.monotonic() > deadline:
                return edges
            time.sleep(0.2)

    def _link(self, buyer: DataScientist, dids: dict[str, str]) -> None:
        for name, did in dids.items():
            self.links[name] = buyer.show(did).ddo["service"][0]["serviceEndpoint"]

    @contextmanager
    def _step(self, name: str, text: str) -> Iterator[None]:
        self.progress(text)
        began = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - began, 2)


def _inbound(buyer: DataScientist) -> str:
    """A compute service where a coordinator can be reached."""
    for summary in buyer.search("coordinators", kind="compute"):
        terms = buyer.show(summary.did).terms
        if terms is not None and terms.inbound:
            return summary.did
    raise NotFound("no compute service accepts inbound connections", check="inbound")


def options_text(options: Options) -> str:
    """The session in a few words."""
    return f"{options.rounds} rounds with {options.providers} participants, {options.strategy}"


def _assets(buyer: DataScientist) -> set[str]:
    """Every asset that the network knows."""
    return {summary.did for summary in buyer.search("", kind="")}
