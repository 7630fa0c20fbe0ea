"""How does a whole session run from one file, and where does it go on after an interruption?

Every finished step is written to the receipt before the next begins. What costs money or makes an asset is looked up
there first, and an order that broke off in the middle is taken up again by ``order`` itself.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from nevermined_fl import assets
from nevermined_fl.errors import NeverminedFLError, PermissionDenied, SessionFailed, SettingsError
from nevermined_fl.files import sha256_bytes, write_json
from nevermined_fl.marketplace.progress import NOTEWORTHY, headline, sentence, waiting_for
from nevermined_fl.marketplace.publishing import prepare_algorithm
from nevermined_fl.marketplace.quote import tokens
from nevermined_fl.marketplace.session_file import SessionFile, load_session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from nevermined_fl.marketplace.data_scientist import DataScientist
    from nevermined_fl.marketplace.results import Fetched, Payment

__all__ = ["Outcome", "Receipt", "run", "wait_approved", "wait_settled"]

_LOOK_SECONDS = 5.0
_REVIEW_PAUSE = 2.0
_REVIEW_PATIENCE = 24 * 3600.0
_SETTLEMENT_PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class Receipt:
    """What is done so far; agreements and executions by the DID that was bought.

    ``declared`` is the digest of what the session file and the algorithm said when the first step was done.
    """

    declared: str = ""
    algorithm: str = ""
    session: str = ""
    workflow: str = ""
    agreements: dict[str, str] = field(default_factory=dict)
    executions: dict[str, str] = field(default_factory=dict)
    model: str = ""

    @classmethod
    def load(cls, path: Path) -> Receipt:
        """The receipt of an earlier run, or an empty one."""
        try:
            body = json.loads(path.read_text())
            return cls(**{f.name: body[f.name] for f in fields(cls)})
        except FileNotFoundError:
            return cls()
        except (ValueError, KeyError, TypeError) as error:
            raise SettingsError(f"{path} is no receipt", hint="move it away to start anew") from error

    def save(self, path: Path) -> Receipt:
        """Write it, whole or not at all; returns itself."""
        write_json(path, {f.name: getattr(self, f.name) for f in fields(self)})
        return self


@dataclass(frozen=True, slots=True)
class Outcome:
    """A session that is over and paid as far as it was by then."""

    receipt: Receipt
    fetched: Fetched
    payments: tuple[Payment, ...]


def run(
    buyer: DataScientist, file: SessionFile | Path | str, *, progress: Callable[[str], None] = lambda _: None
) -> Outcome:
    """All steps of a session; those that its receipt lists are not done again.

    Raises:
        SessionFailed: the session ended without a model.
    """
    declared = file if isinstance(file, SessionFile) else load_session(file)
    steps = _Steps(buyer, declared, progress)
    steps.publish()
    steps.buy()
    steps.start()
    return steps.finish()


def wait_approved(
    buyer: DataScientist,
    workflow: str,
    *,
    progress: Callable[[str], None] = lambda _: None,
    patience: float = _REVIEW_PATIENCE,
) -> None:
    """Wait until every data provider of a workflow has approved its algorithm: before any money is locked.

    Raises:
        PermissionDenied: a provider refuses the algorithm, or has not decided within ``patience`` seconds.
    """
    deadline, told = time.monotonic() + patience, ""
    while True:
        states = {did: str(answer.get("state")) for did, answer in buyer.request_review(workflow).items()}
        missing = [did for did, state in states.items() if state != "approved"]
        if not missing:
            return
        if refused := [did for did in missing if states[did] == "revoked"]:
            raise PermissionDenied(f"the provider of {refused[0]} refuses the algorithm", check="algorithm_approved")
        if time.monotonic() > deadline:
            raise PermissionDenied(f"the provider of {missing[0]} has not decided yet", check="algorithm_approved")
        line = f"waiting until the providers of {', '.join(missing)} have approved the algorithm"
        if line != told:
            progress(line)
        told = line
        time.sleep(_REVIEW_PAUSE)


def wait_settled(
    buyer: DataScientist, agreements: Iterable[str], *, due: set[str], patience: float = _SETTLEMENT_PATIENCE
) -> tuple[Payment, ...]:
    """Payments, once those for the DIDs in ``due`` were made: providers settle by themselves, within seconds."""
    wanted, deadline = tuple(agreements), time.monotonic() + patience
    while True:
        found = buyer.payments(wanted)
        if all(payment.state == "paid" for payment in found if payment.did in due) or time.monotonic() > deadline:
            return found
        time.sleep(0.3)


def _receipt(file: SessionFile) -> Receipt:
    """What is done of ``file``.

    Raises:
        SettingsError: the receipt is of what the file said before it was changed.
    """
    found = Receipt.load(file.receipt)
    declared = _declared(file)
    if found.declared not in {"", declared}:
        raise SettingsError(
            f"session or algorithm have changed since {file.receipt} was begun",
            hint="move the receipt away to start anew, or change them back to go on",
        )
    return replace(found, declared=declared)


def _declared(file: SessionFile) -> str:
    try:
        source = file.algorithm.read_bytes()
    except OSError as error:
        raise SettingsError(f"algorithm {file.algorithm} cannot be read: {error.strerror}") from error
    return sha256_bytes(repr((file.datasets, file.compute, file.settings)).encode() + source)


class _Steps:
    """The steps over one receipt."""

    def __init__(self, buyer: DataScientist, file: SessionFile, progress: Callable[[str], None]) -> None:
        self._buyer = buyer
        self._file = file
        self._progress = progress
        self._receipt = _receipt(file)
        self._told = ""

    def publish(self) -> None:
        if not self._receipt.session:
            self._publish_session()
        if not self._receipt.workflow:
            self._progress("publish the participants' workflow")
            workflow = self._buyer.publish_workflow(self._receipt.session, algorithm=self._receipt.algorithm)
            self._note(workflow=workflow)

    def buy(self) -> None:
        missing = [did for did in self._wanted() if did not in self._receipt.agreements]
        if missing:
            wait_approved(self._buyer, self._receipt.workflow, progress=self._progress)
        quote = self._buyer.quote(self._receipt.session)
        due = sum(position.price for position in quote.positions if position.did in missing)
        if due > quote.balance:
            cost, held = (tokens(amount, quote.decimals) for amount in (due, quote.balance))
            raise SettingsError(f"{cost} tokens are due and {self._buyer.address} has {held}; nothing was sent")
        for did in missing:
            self._progress(f"order {did}")
            agreement = self._buyer.order(did, session=self._receipt.session)
            self._note(agreements=self._receipt.agreements | {did: agreement})

    def start(self) -> None:
        for did in self._wanted():
            if did in self._receipt.executions:
                continue
            self._progress(f"start {did}")
            workflow = self._receipt.session if did == self._file.compute else self._receipt.workflow
            agreement = self._receipt.agreements[did]
            execution = self._buyer.start(agreement, workflow=workflow)
            self._note(executions=self._receipt.executions | {did: execution})

    def finish(self) -> Outcome:
        self._progress(f"session {self._receipt.session} runs")
        try:
            record = self._buyer.wait(
                self._receipt.session,
                progress=lambda record: self._progress(f"session: {record.phase}"),
                look=self._look,
                every=_LOOK_SECONDS,
            )
        except SessionFailed:
            self._tell_story()
            raise
        self._tell_story()
        self._note(model=record.model)
        fetched = self._buyer.fetch(record.model, self._file.into)
        due = {self._file.compute, *(contributor.did for contributor in record.contributors)}
        return Outcome(self._receipt, fetched, wait_settled(self._buyer, self._receipt.agreements.values(), due=due))

    def _look(self) -> None:
        """Say how far the session is, when that is news. Nothing depends on it, so nothing fails with it."""
        with suppress(NeverminedFLError):
            found = self._buyer.status(*self._coordinator()).get("progress")
            line = f"{headline(found)} ({waiting_for(found)})" if isinstance(found, dict) else ""
            if line not in {"", self._told}:
                self._progress(line)
            self._told = line

    def _tell_story(self) -> None:
        """Say what made the session take another course than planned."""
        # Upstream's compute API knows no events.
        with suppress(NeverminedFLError, ValueError, LookupError, TypeError):
            for line in self._buyer.logs(*self._coordinator()):
                event = json.loads(line["content"])
                if event["event"] in NOTEWORTHY:
                    self._progress(sentence(event))

    def _coordinator(self) -> tuple[str, str]:
        return self._receipt.agreements[self._file.compute], self._receipt.executions[self._file.compute]

    def _publish_session(self) -> None:
        # The algorithm is prepared again when only the session is missing: equal seeds make equal first models.
        self._progress("make the first model")
        algorithm = prepare_algorithm(self._file.algorithm, self._file.settings)
        self._buyer.check_plan(
            algorithm, datasets=self._file.datasets, compute=self._file.compute, settings=self._file.settings
        )
        if not self._receipt.algorithm:
            self._progress("publish the algorithm")
            gateway = self._file.gateway or self._gateway(self._file.datasets[0])
            published = self._buyer.publish_algorithm(
                self._file.algorithm, gateway=gateway, settings=self._file.settings, name=self._file.algorithm_name
            )
            self._note(algorithm=published.did)
        self._progress("publish the session")
        session = self._buyer.publish_session(
            algorithm,
            datasets=self._file.datasets,
            compute=self._file.compute,
            settings=self._file.settings,
            name=self._file.name,
        )
        self._note(session=session)

    def _gateway(self, did: str) -> str:
        return assets.gateway_url(self._buyer.market.metadata.resolve(did))

    def _wanted(self) -> tuple[str, ...]:
        return (self._file.compute, *self._file.datasets)

    def _note(self, **changes: Any) -> None:
        self._receipt = replace(self._receipt, **changes).save(self._file.receipt)
