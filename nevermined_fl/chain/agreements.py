"""Agreements: create, pay, fulfil, release and abort those of the EscrowComputeExecutionTemplate."""

from __future__ import annotations

import secrets
from functools import cached_property
from typing import TYPE_CHECKING, Any

from nevermined_fl.chain.contracts import load_artifact
from nevermined_fl.chain.deployment import Deployment
from nevermined_fl.chain.generations import Generation, Parties, Terms, generation_of
from nevermined_fl.chain.identifiers import checked_address, did_text, id_text, words
from nevermined_fl.errors import ChainError, NotFound
from nevermined_fl.ports import Agreement, Condition, ConditionState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nevermined_fl.ports import Account

__all__ = ["Agreements"]

_TEMPLATE = "EscrowComputeExecutionTemplate"
_CREATE = "createAgreement(bytes32,bytes32,bytes32[],uint256[],uint256[],address)"


class Agreements(Deployment):
    """Template, agreement store, condition store and the three conditions."""

    @cached_property
    def _generation(self) -> Generation:
        store = load_artifact("AgreementStoreManager", self._network.artifacts)
        return generation_of(has_seeds=store.has("agreementId"))

    @property
    def generation(self) -> int:
        """1 for contracts 1.x, 2 for 2.x and later."""
        return self._generation.number

    @cached_property
    def _parties(self) -> Parties:
        names = ("ComputeExecutionCondition", "LockPaymentCondition", "EscrowPaymentCondition", "NeverminedToken")
        return Parties(*(self.contract_address(name) for name in names))

    @cached_property
    def _order(self) -> tuple[int, int, int]:
        """Where (compute, lock, escrow) stand in the template's lists."""
        listed = self.read(_TEMPLATE, "getConditionTypes")
        parties = self._parties
        try:
            return listed.index(parties.compute), listed.index(parties.lock), listed.index(parties.escrow)
        except ValueError as error:
            raise ChainError(f"{_TEMPLATE} has other conditions than this network's") from error

    def agreement(self, agreement_id: str) -> Agreement | None:
        """The agreement with its conditions; None for no agreement, or one of another template."""
        number = words(agreement_id)
        template = self.contract_address(_TEMPLATE)
        entry = self._entry(number)
        if entry is None or entry["templateId"] != template:
            return None
        compute, lock, escrow = (self._condition(entry["conditionIds"][place]) for place in self._order)
        return Agreement(
            id=id_text(number),
            did=did_text(entry["did"]),
            consumer=self.read(_TEMPLATE, "getAgreementData", number)["accessConsumer"],
            template=template,
            template_approved=bool(self.read("TemplateStoreManager", "isTemplateApproved", template)),
            compute=compute,
            lock=lock,
            escrow=escrow,
        )

    def expected_conditions(
        self, agreement_id: str, *, did: str, consumer: str, amounts: Sequence[int], receivers: Sequence[str]
    ) -> tuple[str, str, str]:
        """Ids of (compute, lock, escrow) recomputed from a DDO's terms."""
        terms = _terms(did, consumer, amounts, receivers)
        compute, lock, escrow = self._generation.conditions(words(agreement_id), terms, self._parties).ids
        return id_text(compute), id_text(lock), id_text(escrow)

    def create_agreement(
        self,
        account: Account,
        *,
        did: str,
        amounts: Sequence[int],
        receivers: Sequence[str],
        timeout: int,
        consumer: str | None = None,
        timelocks: tuple[int, int, int] = (0, 0, 0),
        timeouts: tuple[int, int, int] | None = None,
    ) -> str:
        """createAgreement; returns its id. ``timeout`` is the compute condition's, in blocks."""
        seed, buyer = secrets.token_bytes(32), checked_address(consumer or account.address)
        number = self._generation.agreement_id(seed, account.address)
        ids = self._generation.conditions(number, _terms(did, buyer, amounts, receivers), self._parties)
        lists = (self._generation.created_with(ids), timelocks, timeouts or (timeout, 0, 0))
        self.write(account, _TEMPLATE, _CREATE, seed, words(did), *(self._listed(v) for v in lists), buyer)
        return id_text(number)

    def lock_payment(
        self, account: Account, agreement_id: str, *, did: str, amounts: Sequence[int], receivers: Sequence[str]
    ) -> None:
        """Approve the token and LockPaymentCondition.fulfill. Locking again is no error."""
        if self._known(agreement_id).lock.state == ConditionState.FULFILLED:
            return
        parties, total = self._parties, sum(amounts)
        places = (parties.escrow, parties.token)
        # Allowances of one account overwrite each other, so nobody may come between.
        with self.node.exclusive(account.address):
            if self.read("NeverminedToken", "allowance", account.address, parties.lock) < total:
                self.write(account, "NeverminedToken", "approve", parties.lock, total)
            arguments = (
                words(agreement_id),
                words(did),
                *places,
                list(amounts),
                [checked_address(r) for r in receivers],
            )
            self.write(account, "LockPaymentCondition", "fulfill", *arguments)

    def fulfill_compute(self, account: Account, agreement_id: str, *, did: str, consumer: str) -> ConditionState:
        """ComputeExecutionCondition.fulfill; the state it left: ABORTED when it came too late."""
        state = self._known(agreement_id).compute.state
        if state in {ConditionState.FULFILLED, ConditionState.ABORTED}:
            return state
        arguments = (words(agreement_id), words(did), checked_address(consumer))
        self.write(account, "ComputeExecutionCondition", "fulfill", *arguments)
        return self._known(agreement_id).compute.state

    def release(
        self,
        account: Account,
        agreement_id: str,
        *,
        did: str,
        amounts: Sequence[int],
        receivers: Sequence[str],
        consumer: str,
    ) -> None:
        """EscrowPaymentCondition.fulfill: pays the receivers, or refunds the consumer after an abort."""
        if self._known(agreement_id).escrow.state == ConditionState.FULFILLED:
            return
        number, terms, parties = words(agreement_id), _terms(did, consumer, amounts, receivers), self._parties
        compute, lock, _ = self._generation.conditions(number, terms, parties).ids
        price = (list(terms.amounts), list(terms.receivers), *self._generation.refund_to(terms.consumer))
        arguments = (number, terms.did, *price, parties.escrow, parties.token, lock, compute)
        self.write(account, "EscrowPaymentCondition", "fulfill", *arguments)

    def abort_by_timeout(self, account: Account, agreement_id: str) -> None:
        """ComputeExecutionCondition.abortByTimeOut, unless aborted already."""
        compute = self._known(agreement_id).compute
        if compute.state != ConditionState.ABORTED:
            self.write(account, "ComputeExecutionCondition", "abortByTimeOut", words(compute.id))

    def agreements_of(self, consumer: str) -> tuple[str, ...]:
        """Ids of the agreements that name ``consumer``, oldest first."""
        buyer = id_text(bytes(12) + bytes.fromhex(checked_address(consumer)[2:]))
        logs = self.logs(_TEMPLATE, [self.topic(_TEMPLATE, "AgreementCreated"), None, buyer])
        return tuple(id_text(log["args"]["_agreementId"]) for log in logs)

    def _known(self, agreement_id: str) -> Agreement:
        found = self.agreement(agreement_id)
        if found is None:
            raise NotFound(f"no agreement {agreement_id}", check="agreement_exists")
        return found

    def _entry(self, number: bytes) -> dict[str, Any] | None:
        """``did``, ``templateId`` and ``conditionIds``; the store of 2.x holds no such entry, its events do."""
        if self.generation == 1:
            entry: dict[str, Any] = self.read("AgreementStoreManager", "getAgreement", number)
            return entry if any(entry["did"]) else None
        logs = self.logs(_TEMPLATE, [self.topic(_TEMPLATE, "AgreementCreated"), id_text(number)])
        if not logs:
            return None
        values = logs[0]["args"]
        found = {"did": values["_did"], "conditionIds": values["_conditionIds"]}
        return found | {"templateId": self.contract_address(_TEMPLATE)}

    def _condition(self, number: bytes) -> Condition:
        entry = self.read("ConditionStoreManager", "getCondition", number)
        return Condition(
            id=id_text(number),
            state=ConditionState(entry["state"]),
            timelock=entry["timeLock"],
            timeout=entry["timeOut"],
            created=entry["blockNumber"],
        )

    def _listed(self, values: Sequence[Any]) -> list[Any]:
        """(compute, lock, escrow) in the template's order."""
        placed = dict(zip(self._order, values, strict=True))
        return [placed[n] for n in range(len(placed))]


def _terms(did: str, consumer: str, amounts: Sequence[int], receivers: Sequence[str]) -> Terms:
    return Terms(words(did), checked_address(consumer), tuple(amounts), tuple(checked_address(r) for r in receivers))
