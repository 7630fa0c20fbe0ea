"""What can a data scientist do on the marketplace, from search to fetched model?

Every method is one step that a person would name; ``run`` does all of them from a session file.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nevermined_fl import assets
from nevermined_fl.errors import Conflict, InvalidRequest, NotFound, SessionFailed, SettingsError
from nevermined_fl.marketplace import publishing, purchase, results
from nevermined_fl.marketplace.earlier import earlier_model
from nevermined_fl.marketplace.market import Market, open_market
from nevermined_fl.marketplace.publishing import PlanSettings
from nevermined_fl.marketplace.quote import tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from nevermined_fl.assets import Summary
    from nevermined_fl.keys import KeyAccount
    from nevermined_fl.marketplace.publishing import Algorithm
    from nevermined_fl.marketplace.quote import Quote
    from nevermined_fl.marketplace.results import Fetched, Payment
    from nevermined_fl.marketplace.running import Outcome
    from nevermined_fl.marketplace.session_file import SessionFile
    from nevermined_fl.ports import ProvenanceEdge
    from nevermined_fl.session.plan import Plan
    from nevermined_fl.settings import Network
    from nevermined_fl.tokens import SessionRecord

__all__ = ["Asset", "DataScientist"]

logger = logging.getLogger(__name__)

_SETTLED = {"paid", "refunded", "aborted"}


@dataclass(frozen=True, slots=True)
class Asset:
    """A DDO and what it says in plain values; ``terms`` and ``schema`` are None where the kind has none."""

    summary: Summary
    owner: str
    ddo: dict[str, Any]
    terms: assets.Terms | None
    schema: assets.Schema | None
    sample: dict[str, Any] | None


class DataScientist:
    """A buyer of compute.

    Args:
        key: key file, or an account.
        network: a network.json, or what was read from one.
        password_file: file with the key's password; default $NEVERMINED_FL_PASSWORD.
        name: what DDOs call you; default your address.
    """

    def __init__(
        self,
        key: KeyAccount | Path | str,
        network: Network | Path | str,
        *,
        password_file: Path | str | None = None,
        name: str = "",
    ) -> None:
        self.market = open_market(key, network, password_file=password_file, name=name)

    @classmethod
    def over(cls, market: Market) -> DataScientist:
        """A buyer over connections that are there already."""
        found = cls.__new__(cls)
        found.market = market
        return found

    @property
    def address(self) -> str:
        """The address that buys."""
        return self.market.account.address

    def balance(self) -> int:
        """Your tokens, in the smallest unit."""
        return self.market.chain.balance(self.address)

    # finding

    def search(self, text: str, *, kind: str = "") -> list[Summary]:
        """Assets that match the words, best first; ``kind`` is e.g. ``dataset`` or ``compute``."""
        found = filter(None, map(_summary, self.market.metadata.search(text)))
        return [summary for summary in found if kind in {"", summary.kind}]

    def show(self, did: str) -> Asset:
        """An asset: price, schema, mock sample, whether it accepts inbound connections, owner on chain."""
        ddo = self.market.metadata.resolve(did)
        found = assets.kind(ddo)
        return Asset(
            summary=assets.summary(ddo),
            owner=self.market.owner(did),
            ddo=ddo,
            terms=assets.compute_terms(ddo) if found in {"dataset", "compute"} else None,
            schema=assets.dataset_schema(ddo) if found == "dataset" else None,
            sample=assets.sample(ddo) if found == "dataset" else None,
        )

    def gateway_url(self, did: str) -> str:
        """The gateway that an asset's DDO names."""
        return self.market.gateway_of(did).url

    # preparing

    def publish_algorithm(
        self, file: Path | str, *, gateway: str, settings: PlanSettings | None = None, name: str = ""
    ) -> Algorithm:
        """Make the first model locally, upload it (if sessions begin with it) and the algorithm, publish the algorithm."""
        prepared = publishing.prepare_algorithm(file, settings or PlanSettings())
        did = publishing.publish_algorithm(self.market, prepared, gateway=gateway, name=name or Path(file).stem)
        return replace(prepared, did=did)

    def check_plan(
        self, algorithm: Algorithm, *, datasets: Sequence[str], compute: str, settings: PlanSettings | None = None
    ) -> Plan:
        """The plan of a session, before anything is published.

        Raises:
            InvalidRequest: a parameter is out of bounds, one of the DIDs sells nothing that a session needs, or the
                earlier model has other tensors than the algorithm.
            PermissionDenied: the earlier model may not be downloaded.
        """
        chosen = settings or PlanSettings()
        earlier = ""
        if chosen.continue_from:
            earlier = earlier_model(self.market, chosen.continue_from, algorithm.schema, compute=compute)
        plan = chosen.plan(algorithm, datasets, earlier=earlier)
        purchase.quote(self.market, plan, datasets=plan.members, compute=compute)
        return plan

    def publish_session(
        self,
        algorithm: Algorithm,
        *,
        datasets: Sequence[str],
        compute: str,
        settings: PlanSettings | None = None,
        name: str = "federated session",
    ) -> str:
        """Publish the coordinator's workflow with the plan, if all of it can be bought; returns the session's DID."""
        plan = self.check_plan(algorithm, datasets=datasets, compute=compute, settings=settings)
        return publishing.publish_session(self.market, plan, algorithm, compute=compute, name=name)

    def publish_workflow(self, session: str, *, algorithm: str, name: str = "participants' workflow") -> str:
        """Grant the providers the download of the algorithm and publish the participants' workflow; its DID."""
        return publishing.publish_workflow(self.market, session=session, algorithm=algorithm, name=name)

    def request_review(self, workflow: str) -> dict[str, dict[str, Any]]:
        """Ask every data provider of a workflow to look at its algorithm; what each decided so far, by dataset DID."""
        ddo = self.market.metadata.resolve(workflow)
        algorithm = assets.algorithm_did(ddo)
        return {
            did: self.market.gateway_of(did).review(algorithm=algorithm, workflow=workflow)
            for did in assets.workflow_inputs(ddo)
        }

    # buying

    def quote(self, session: str) -> Quote:
        """What a session will cost, item by item, against your balance."""
        plan, compute = purchase.plan_of(self.market, session)
        return purchase.quote(self.market, plan, datasets=plan.members, compute=compute)

    def order(self, did: str, *, session: str, again: bool = False) -> str:
        """Buy compute on a dataset of the session, or its coordinator's compute service; the agreement's id.

        What is paid and was never started is taken as it is, unless ``again`` asks for another purchase.
        """
        plan, compute = purchase.plan_of(self.market, session)
        if did not in {*plan.members, compute}:
            raise SettingsError(f"{did} is no dataset of session {session}, nor its compute service")
        return purchase.order(self.market, did, plan, again=again)

    def order_all(self, session: str, *, again: bool = False) -> dict[str, str]:
        """Buy all that a session needs, after checking that the balance suffices for the whole; agreements by DID.

        What is paid and was never started is taken as it is, unless ``again`` asks for another purchase.
        """
        plan, compute = purchase.plan_of(self.market, session)
        dids = (compute, *plan.members)
        total = purchase.quote(self.market, plan, datasets=plan.members, compute=compute)
        held = [found for did in dids if (found := purchase.held(self.market, did, plan, again=again))]
        paid = {found.did for found in held if found.state() == "locked"}
        due = sum(position.price for position in total.positions if position.did not in paid)
        if due > total.balance:
            cost, has, missing = (
                tokens(amount, total.decimals) for amount in (due, total.balance, due - total.balance)
            )
            raise SettingsError(
                f"the session costs {cost} tokens and {self.address} has {has}; nothing was sent",
                hint=f"{missing} more are needed",
            )
        return {did: purchase.order(self.market, did, plan, again=again) for did in dids}

    def refund(self, agreement: str) -> str:
        """Take the money of a timed-out agreement back; its state afterwards.

        Raises:
            SettingsError: it is paid or refunded already, unpaid, or can never time out.
            ChainError: it has not timed out yet.
        """
        return purchase.refund(self.market, agreement)

    # running

    def start(self, agreement: str, *, workflow: str) -> str:
        """Run what was bought: the participants' workflow, or for a coordinator the session; the execution's id.

        Started again while it runs, it is the same execution: the answer to the first order may have got lost.
        """
        try:
            return self.market.gateway_of(self._did_of(agreement)).execute(agreement, workflow=workflow)
        except Conflict as error:
            if error.check == "one_live_execution":
                for execution in reversed(self.executions(agreement)):
                    if self.status(agreement, execution).get("workflowDid") == workflow:
                        return execution
            raise

    def status(self, agreement: str, execution: str) -> dict[str, Any]:
        """How an execution is doing, in the words of the compute API."""
        found: dict[str, Any] = self._compute("status", agreement, execution)
        return found

    def logs(self, agreement: str, execution: str) -> list[Any]:
        """The structured events of an execution; raw output stays with its provider."""
        found: list[Any] = self._compute("logs", agreement, execution)
        return found

    def stop(self, agreement: str, execution: str) -> str:
        """Stop an execution; what it cost is refundable when its agreement has timed out."""
        return str(self._compute("stop", agreement, execution))

    def executions(self, agreement: str) -> list[str]:
        """Ids of the executions of an agreement."""
        found: list[str] = self._compute("list", agreement, "*")
        return found

    def record(self, session: str, *, after: int = 0, wait: float = 0.0) -> SessionRecord | None:
        """The session's newest signed record, its signature checked; None when there is none within ``wait`` seconds."""
        return results.newest_record(self.market, session, after=after, wait=wait)

    def wait(
        self,
        session: str,
        *,
        progress: Callable[[SessionRecord], None] = lambda _: None,
        look: Callable[[], None] = lambda: None,
        every: float = 25.0,
    ) -> SessionRecord:
        """Wait until a session is over and return its last record; ``look`` is called at least ``every`` seconds.

        Raises:
            SessionFailed: it ended without a model; the message is the reason.
        """
        seen = 0
        while True:
            record = self.record(session, after=seen, wait=every)
            if record is None:
                look()
                continue
            seen = record.seq
            progress(record)
            if record.is_over():
                break
        if not record.model:
            raise SessionFailed(f"session {session} ended without a model: {record.reason or 'no reason given'}")
        return record

    # results

    def fetch(self, did: str, into: Path | str) -> Fetched:
        """Download a model with its card; its digest is the published one or nothing is kept."""
        return results.fetch(self.market, did, into)

    def payments(self, agreements: Iterable[str]) -> tuple[Payment, ...]:
        """What became of the money of each agreement."""
        return results.payments(self.market, agreements)

    def provenance(self, model: str) -> tuple[ProvenanceEdge, ...]:
        """Where a model comes from, as far as its session's own parties say so."""
        return results.provenance(self.market, model)

    def run(self, file: SessionFile | Path | str, *, progress: Callable[[str], None] = lambda _: None) -> Outcome:
        """All of it from one declarative file: publish, review, order, start, wait, fetch.

        Run again after an interruption: what its receipt lists as done is not done twice.
        """
        from nevermined_fl.marketplace.running import run  # noqa: PLC0415  it imports this module

        return run(self, file, progress=progress)

    def _did_of(self, agreement: str) -> str:
        found = self.market.chain.agreement(agreement)
        if found is None:
            raise NotFound(f"no agreement {agreement} on chain", check="agreement_exists")
        return found.did

    def _compute(self, verb: str, agreement: str, execution: str) -> Any:
        return self.market.gateway_of(self._did_of(agreement)).compute(verb, agreement, execution)


def _summary(ddo: dict[str, Any]) -> Summary | None:
    """None for what somebody else's software published: one such asset must not hide all others."""
    try:
        return assets.summary(ddo)
    except InvalidRequest as error:
        logger.debug("%s is left out: %s", ddo.get("id"), error)
        return None
