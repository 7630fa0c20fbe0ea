"""Generations: what differs between the Nevermined contracts 1.x and 2.x, and what an agreement's ids hash.

In 1.x the buyer gives the agreement's id and its conditions' ids. Since 2.x he gives a seed and the conditions' value hashes,
the store derives the ids, and an escrow says to whom a refund goes. Timelocks and timeouts are in none of these hashes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eth_abi.abi import encode

from nevermined_fl.keys import keccak

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Generation", "Ids", "Parties", "Terms", "generation_of"]


@dataclass(frozen=True, slots=True)
class Parties:
    """Addresses of the contracts that an agreement's conditions name."""

    compute: str
    lock: str
    escrow: str
    token: str


@dataclass(frozen=True, slots=True)
class Terms:
    """What is sold to whom at what price."""

    did: bytes
    consumer: str
    amounts: tuple[int, ...]
    receivers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ids:
    """Value hashes and ids of an agreement's conditions, each (compute, lock, escrow)."""

    values: tuple[bytes, bytes, bytes]
    ids: tuple[bytes, bytes, bytes]


@dataclass(frozen=True, slots=True)
class Generation:
    """One generation of the contracts: 1, or 2 for everything later."""

    number: int

    def agreement_id(self, seed: bytes, creator: str) -> bytes:
        """Id of the agreement that ``creator`` makes with this seed."""
        return seed if self.number == 1 else keccak(encode(["bytes32", "address"], [seed, creator]))

    def created_with(self, ids: Ids) -> tuple[bytes, bytes, bytes]:
        """What createAgreement takes for the conditions."""
        return ids.ids if self.number == 1 else ids.values

    def refund_to(self, consumer: str) -> tuple[str, ...]:
        """The argument of the escrow that 1.x does not have."""
        return () if self.number == 1 else (consumer,)

    def conditions(self, agreement: bytes, terms: Terms, parties: Parties) -> Ids:
        """Hash the terms as the contracts do."""
        amounts, receivers = list(terms.amounts), list(terms.receivers)
        compute = _hash(["bytes32", "address"], [terms.did, terms.consumer])
        lock = _hash(
            ["bytes32", "address", "address", "uint256[]", "address[]"],
            [terms.did, parties.escrow, parties.token, amounts, receivers],
        )
        compute_id = _id(agreement, parties.compute, compute)
        lock_id = _id(agreement, parties.lock, lock)
        refund = self.refund_to(terms.consumer)
        # The contract hashes a list of release conditions, even of this one. A wrong id would pass createAgreement and
        # lock the money for ever, so a test compares all of these with the contracts' own.
        types = ["bytes32", "uint256[]", "address[]", *("address" for _ in refund)]
        escrow = _hash(
            [*types, "address", "address", "bytes32", "bytes32[]"],
            [terms.did, amounts, receivers, *refund, parties.escrow, parties.token, lock_id, [compute_id]],
        )
        return Ids((compute, lock, escrow), (compute_id, lock_id, _id(agreement, parties.escrow, escrow)))


def generation_of(*, has_seeds: bool) -> Generation:
    """The generation of contracts whose agreement store derives ids from seeds, or does not."""
    return Generation(2 if has_seeds else 1)


def _hash(types: Sequence[str], values: Sequence[Any]) -> bytes:
    return keccak(encode(types, values))


def _id(agreement: bytes, condition: str, value: bytes) -> bytes:
    return _hash(["bytes32", "address", "bytes32"], [agreement, condition, value])
