"""Memory: the chain played in this process, by the same rules as the contracts 1.x; for tests without a node.

Rule 1: whatever it allows or refuses, tests/contracts/test_chain.py has seen the real contracts do. Its condition ids are
hashes of its own, no more comparable with the contracts' than any two deployments' are. A transaction is a block here, too.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import threading
from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from nevermined_fl.chain.identifiers import checked_address, did_text, id_text, words
from nevermined_fl.errors import ChainError, NotFound
from nevermined_fl.keys import checksum_address, keccak
from nevermined_fl.ports import Agreement, Condition, ConditionState, ProvenanceEdge, Registration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nevermined_fl.ports import Account

__all__ = ["MemoryChain"]

_TEMPLATE = "EscrowComputeExecutionTemplate"
_TRANSFER = did_text(keccak(b"transferDID"))


@dataclass(slots=True)
class _Deal:
    """An agreement with what the contracts remember beside it; ``conditions`` are (compute, lock, escrow)."""

    id: str
    did: str
    consumer: str
    creator: str
    conditions: list[Condition]


@dataclass(slots=True)
class MemoryChain:
    """``ports.Chain`` without a chain. Safe for several threads.

    Args:
        seconds: what block_seconds says.
    """

    seconds: float = 1.0
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _block: int = 0
    _balances: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    _registrations: dict[str, Registration] = field(default_factory=dict)
    _permissions: set[tuple[str, str]] = field(default_factory=set)
    _deals: dict[str, _Deal] = field(default_factory=dict)
    _edges: list[ProvenanceEdge] = field(default_factory=list)

    # --- what no chain lets anybody do ---

    def mine(self, blocks: int = 1) -> None:
        """Let blocks pass."""
        with self._lock:
            self._block += blocks

    def fund(self, address: str, tokens: int) -> None:
        """Give somebody tokens."""
        self._balances[checked_address(address)] += tokens

    # --- ports.Chain ---

    @property
    def generation(self) -> int:
        """It plays the contracts 1.x."""
        return 1

    def block_number(self) -> int:
        """The newest block."""
        return self._block

    def block_seconds(self) -> float:
        """Seconds between blocks."""
        return self.seconds

    def contract_address(self, name: str) -> str:
        """An address that follows from the name."""
        return checksum_address(keccak(name.encode())[:20])

    def balance(self, address: str) -> int:
        """Tokens of an address, in the smallest unit."""
        return self._balances[checked_address(address)]

    def token_decimals(self) -> int:
        """Decimals of the token."""
        return 18

    def registration(self, did: str) -> Registration | None:
        """The DID's entry, or None."""
        return self._registrations.get(did_text(words(did)))

    def compute_did(self, seed: str, owner: str) -> str:
        """``keccak256(abi.encode(seed, owner))`` as a DID."""
        return did_text(keccak(words(seed) + bytes(12) + bytes.fromhex(checked_address(owner)[2:])))

    def register(self, account: Account, *, seed: str, checksum: str, url: str, providers: Sequence[str] = ()) -> str:
        """registerAttribute, unless the same is registered already."""
        did, listed = self.compute_did(seed, account.address), tuple(checked_address(p) for p in providers)
        checksum = id_text(words(checksum))
        with self._lock:
            held = self._registrations.get(did)
            if held and (held.checksum, held.url) == (checksum, url) and set(listed) <= set(held.providers):
                return did
            if held and held.owner != account.address:
                raise _reverted("Only DID Owners")
            known = held.providers if held else ()
            everybody = known + tuple(p for p in dict.fromkeys(listed) if p not in known)
            self._registrations[did] = Registration(did, account.address, checksum, url, everybody, self._mined())
            return did

    def transfer_ownership(self, account: Account, did: str, new_owner: str) -> None:
        """transferDIDOwnership, unless it is the new owner's already."""
        with self._lock:
            held, heir = self._registered(did), checked_address(new_owner)
            if held.owner == heir:
                return
            if held.owner != account.address:
                raise _reverted("Only owner")
            self._registrations[held.did] = replace(held, owner=heir, block=self._mined())
            # The registry says so by itself.
            self._edges.append(ProvenanceEdge("wasAssociatedWith", held.did, "", heir, _TRANSFER, self._block))

    def grant_permission(self, account: Account, did: str, grantee: str) -> None:
        """Download alone, unless granted already."""
        with self._lock:
            held, entry = self._registered(did), (did_text(words(did)), checked_address(grantee))
            if entry in self._permissions:
                return
            if held.owner != account.address:
                raise _reverted("Only owner")
            self._permissions.add(entry)
            self._mined()

    def may_download(self, did: str, address: str) -> bool:
        """Owner, provider or grantee."""
        who, held = checked_address(address), self.registration(did)
        return held is not None and (self._speaks_for(held, who) or (held.did, who) in self._permissions)

    def agreement(self, agreement_id: str) -> Agreement | None:
        """The agreement with its conditions, or None."""
        with self._lock:
            deal = self._deals.get(id_text(words(agreement_id)))
            if deal is None:
                return None
            template = self.contract_address(_TEMPLATE)
            return Agreement(deal.id, deal.did, deal.consumer, template, True, *deal.conditions)

    def expected_conditions(
        self, agreement_id: str, *, did: str, consumer: str, amounts: Sequence[int], receivers: Sequence[str]
    ) -> tuple[str, str, str]:
        """Ids of (compute, lock, escrow) recomputed from a DDO's terms."""
        number, asset = id_text(words(agreement_id)), did_text(words(did))
        price = [list(amounts), [checked_address(r) for r in receivers]]
        compute = _digest("compute", number, asset, checked_address(consumer))
        lock = _digest("lock", number, asset, price)
        return compute, lock, _digest("escrow", number, asset, price, lock, compute)

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
        number, buyer = id_text(secrets.token_bytes(32)), checked_address(consumer or account.address)
        ids = self.expected_conditions(number, did=did, consumer=buyer, amounts=amounts, receivers=receivers)
        with self._lock:
            held = self._registered(did)
            created, ends = self._mined(), timeouts or (timeout, 0, 0)
            conditions = [
                Condition(ident, ConditionState.UNFULFILLED, timelock, end, created)
                for ident, timelock, end in zip(ids, timelocks, ends, strict=True)
            ]
            self._deals[number] = _Deal(number, held.did, buyer, account.address, conditions)
        return number

    def lock_payment(
        self, account: Account, agreement_id: str, *, did: str, amounts: Sequence[int], receivers: Sequence[str]
    ) -> None:
        """Pay into escrow. Locking again is no error."""
        with self._lock:
            deal = self._known(agreement_id)
            if deal.conditions[1].state == ConditionState.FULFILLED:
                return
            terms = {"did": did, "amounts": amounts, "receivers": receivers}
            ids = self.expected_conditions(agreement_id, consumer=deal.consumer, **terms)  # type: ignore[arg-type]
            _check_id(deal.conditions[1], ids[1])
            self._mined()  # the approval
            if self._balances[account.address] < sum(amounts):
                raise _reverted("ERC20: transfer amount exceeds balance")
            if self._settle(deal, 1) == ConditionState.FULFILLED:
                self._move(account.address, self.contract_address("EscrowPaymentCondition"), sum(amounts))

    def fulfill_compute(self, account: Account, agreement_id: str, *, did: str, consumer: str) -> ConditionState:
        """ComputeExecutionCondition.fulfill; the state it left: ABORTED when it came too late."""
        with self._lock:
            deal = self._known(agreement_id)
            if deal.conditions[0].state != ConditionState.UNFULFILLED:
                return deal.conditions[0].state
            if not self._speaks_for(self._registered(deal.did), account.address):
                raise _reverted("Invalid DID owner/provider")
            _check_id(deal.conditions[0], _digest("compute", deal.id, did_text(words(did)), checked_address(consumer)))
            return self._settle(deal, 0)

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
        """EscrowPaymentCondition.fulfill: pays the receivers, or refunds after an abort."""
        with self._lock:
            deal = self._known(agreement_id)
            compute, lock, escrow = deal.conditions
            if escrow.state == ConditionState.FULFILLED:
                return
            ids = self.expected_conditions(
                agreement_id, did=did, consumer=consumer, amounts=amounts, receivers=receivers
            )
            _check_id(escrow, ids[2])
            if lock.state != ConditionState.FULFILLED:
                raise _reverted("LockCondition needs to be Fulfilled")
            if compute.state == ConditionState.UNFULFILLED:
                raise _reverted("Release conditions unresolved")
            # Late or not: the contract pays and looks at the state afterwards.
            self._settle(deal, 2)
            self._pay_out(deal, amounts, receivers)

    def abort_by_timeout(self, account: Account, agreement_id: str) -> None:
        """ComputeExecutionCondition.abortByTimeOut, unless aborted already."""
        with self._lock:
            deal = self._known(agreement_id)
            compute = deal.conditions[0]
            if compute.state == ConditionState.ABORTED:
                return
            if compute.state != ConditionState.UNFULFILLED or not self._is_late(compute):
                raise _reverted("Timeout not reached")
            self._mined()
            deal.conditions[0] = replace(compute, state=ConditionState.ABORTED)

    def agreements_of(self, consumer: str) -> tuple[str, ...]:
        """Ids of the agreements that name ``consumer``, oldest first."""
        buyer = checked_address(consumer)
        return tuple(deal.id for deal in self._deals.values() if deal.consumer == buyer)

    def used(self, account: Account, *, did: str, activity: str) -> None:
        """Provenance: the activity used ``did``; by its owner or provider alone."""
        self._note(account, "used", did, "", activity, by=did)

    def was_derived_from(self, account: Account, *, new: str, source: str, activity: str) -> None:
        """Provenance: ``new`` derives from ``source``; by the owner or provider of ``source`` alone."""
        self._note(account, "wasDerivedFrom", new, did_text(words(source)), activity, by=source)

    def was_associated_with(self, account: Account, *, did: str, activity: str) -> None:
        """Provenance: the account took part in making ``did``; by its owner alone, so before a transfer."""
        self._note(account, "wasAssociatedWith", did, "", activity, by=did)

    def provenance(self, did: str) -> tuple[ProvenanceEdge, ...]:
        """All edges in which ``did`` stands on either side, oldest first."""
        asset = did_text(words(did))
        return tuple(edge for edge in self._edges if asset in {edge.did, edge.other})

    # --- rules ---

    def _mined(self) -> int:
        self._block += 1
        return self._block

    def _registered(self, did: str) -> Registration:
        held = self.registration(did)
        if held is None:
            raise _reverted("DID not registered")
        return held

    def _speaks_for(self, held: Registration, address: str) -> bool:
        return address == held.owner or address in held.providers

    def _known(self, agreement_id: str) -> _Deal:
        deal = self._deals.get(id_text(words(agreement_id)))
        if deal is None:
            raise NotFound(f"no agreement {agreement_id}", check="agreement_exists")
        return deal

    def _is_late(self, condition: Condition) -> bool:
        """Whether it is over for a transaction in the next block."""
        last = condition.expires()
        return last is not None and self._block + 1 > last

    def _settle(self, deal: _Deal, place: int) -> ConditionState:
        """Fulfil a condition, which aborts one that is late, and refuses one that is locked or settled."""
        condition = deal.conditions[place]
        if condition.state != ConditionState.UNFULFILLED:
            raise _reverted("Invalid state transition")
        if self._block + 1 < condition.created + condition.timelock:
            raise _reverted("TimeLock is not over yet")
        state = ConditionState.ABORTED if self._is_late(condition) else ConditionState.FULFILLED
        self._mined()
        deal.conditions[place] = replace(condition, state=state)
        return state

    def _pay_out(self, deal: _Deal, amounts: Sequence[int], receivers: Sequence[str]) -> None:
        paid = deal.conditions[0].state == ConditionState.FULFILLED
        escrow = self.contract_address("EscrowPaymentCondition")
        for amount, receiver in zip(amounts, receivers, strict=True):
            self._move(escrow, checked_address(receiver) if paid else deal.creator, amount)

    def _move(self, payer: str, payee: str, amount: int) -> None:
        self._balances[payer] -= amount
        self._balances[payee] += amount

    def _note(self, account: Account, relation: str, did: str, other: str, activity: str, *, by: str) -> None:
        asset, deed = did_text(words(did)), did_text(words(activity))
        with self._lock:
            content = (relation, asset, other, account.address, deed)
            if any((e.relation, e.did, e.other, e.agent, e.activity) == content for e in self._edges):
                return
            held = self.registration(by)
            if held is None or not self._speaks_for(held, account.address):
                raise _reverted("Invalid user")
            self._edges.append(ProvenanceEdge(*content, block=self._mined()))


def _check_id(condition: Condition, expected: str) -> None:
    if condition.id != expected:
        raise _reverted("Invalid UpdateRole")


def _digest(*parts: Any) -> str:
    return "0x" + hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _reverted(reason: str) -> ChainError:
    return ChainError(f"execution reverted: {reason}", reverted=True)
