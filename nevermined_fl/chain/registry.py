"""Registry: who owns which DID, who may download it, and what was made of it."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

from nevermined_fl.chain.deployment import Deployment
from nevermined_fl.chain.identifiers import checked_address, did_text, id_text, words
from nevermined_fl.keys import keccak
from nevermined_fl.ports import ProvenanceEdge, Registration

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nevermined_fl.ports import Account

__all__ = ["Registry"]

_NOBODY = "0x" + "00" * 20
_RELATIONS = {"Used": "used", "WasDerivedFrom": "wasDerivedFrom", "WasAssociatedWith": "wasAssociatedWith"}


class Registry(Deployment):
    """DIDRegistry and AccessCondition."""

    def registration(self, did: str) -> Registration | None:
        """The DID's entry, or None."""
        entry = self.read("DIDRegistry", "getDIDRegister", words(did))
        if entry["owner"] == _NOBODY:
            return None
        return Registration(
            did=did_text(words(did)),
            owner=entry["owner"],
            checksum=id_text(entry["lastChecksum"]),
            url=entry["url"],
            providers=tuple(entry["providers"]),
            block=entry["blockNumberUpdated"],
        )

    def compute_did(self, seed: str, owner: str) -> str:
        """``keccak256(abi.encode(seed, owner))`` as a DID, as DIDRegistry.hashDID makes it."""
        return did_text(keccak(words(seed) + bytes(12) + bytes.fromhex(checked_address(owner)[2:])))

    def register(self, account: Account, *, seed: str, checksum: str, url: str, providers: Sequence[str] = ()) -> str:
        """registerAttribute, unless the chain says the same already, even of a DID that has been given away since."""
        did = self.compute_did(seed, account.address)
        listed = [checked_address(p) for p in providers]
        held = self.registration(did)
        same = held is not None and (words(held.checksum), held.url) == (words(checksum), url)
        if held is None or not same or not set(listed) <= set(held.providers):
            self.write(account, "DIDRegistry", "registerAttribute", words(seed), words(checksum), listed, url)
        return did

    def transfer_ownership(self, account: Account, did: str, new_owner: str) -> None:
        """transferDIDOwnership, unless it is the new owner's already."""
        if self.read("DIDRegistry", "getDIDOwner", words(did)) != checked_address(new_owner):
            self.write(account, "DIDRegistry", "transferDIDOwnership", words(did), checked_address(new_owner))

    def grant_permission(self, account: Account, did: str, grantee: str) -> None:
        """Download alone, unless granted already."""
        if not self.read("DIDRegistry", "getPermission", words(did), checked_address(grantee)):
            self.write(account, "DIDRegistry", "grantPermission", words(did), checked_address(grantee))

    def may_download(self, did: str, address: str) -> bool:
        """AccessCondition.checkPermissions: owner, provider, grantee or a fulfilled access agreement."""
        return bool(self.read("AccessCondition", "checkPermissions", checked_address(address), words(did)))

    def used(self, account: Account, *, did: str, activity: str) -> None:
        """Provenance: the activity used ``did``; by its owner or provider alone."""
        arguments = (words(did), account.address, words(activity))
        self._note(account, "used", *arguments, b"", "")

    def was_derived_from(self, account: Account, *, new: str, source: str, activity: str) -> None:
        """Provenance: ``new`` derives from ``source``; by the owner or provider of ``source`` alone."""
        arguments = (words(new), words(source), account.address, words(activity))
        self._note(account, "wasDerivedFrom", *arguments, "")

    def was_associated_with(self, account: Account, *, did: str, activity: str) -> None:
        """Provenance: the account took part in making ``did``; by its owner alone, so before a transfer."""
        arguments = (words(did), account.address, words(activity))
        self._note(account, "wasAssociatedWith", *arguments, "")

    def provenance(self, did: str) -> tuple[ProvenanceEdge, ...]:
        """All edges in which ``did`` stands on either side, oldest first."""
        # The new DID is an event's first topic after its name, the source of a derivation its second.
        wanted = id_text(words(did))
        kinds = [self.topic("DIDRegistry", name) for name in _RELATIONS]
        derived = self.topic("DIDRegistry", "WasDerivedFrom")
        found = self.logs("DIDRegistry", [kinds, wanted]) + self.logs("DIDRegistry", [derived, None, wanted])
        unique = {(log["blockNumber"], log["logIndex"]): log for log in found}
        return tuple(_edge(log) for _, log in sorted(unique.items()))

    def _note(self, account: Account, relation: str, *arguments: bytes | str) -> None:
        """Write a provenance entry, unless the account wrote it before.

        Its id follows from its content, so that writing it again finds it; and as anybody can take an id for an entry of
        his own, it is the first such id that no stranger has.
        """
        content = relation.encode() + b"".join(a if isinstance(a, bytes) else a.encode() for a in arguments)
        for number in count():
            digest = keccak(content + account.address.encode() + number.to_bytes(4))
            author = self.read("DIDRegistry", "getProvenanceEntry", digest)["createdBy"]
            if author == account.address:
                return
            if author == _NOBODY:
                self.write(account, "DIDRegistry", relation, digest, *arguments)
                return


def _edge(log: Mapping[str, Any]) -> ProvenanceEdge:
    values = log["args"]
    did = values.get("_did", values.get("_entityDid", values.get("_newEntityDid")))
    other = values.get("_usedEntityDid")
    return ProvenanceEdge(
        relation=_RELATIONS[log["event"]],
        did=did_text(did),
        other=did_text(other) if other is not None else "",
        agent=values["_agentId"],
        activity=did_text(values["_activityId"]),
        block=log["blockNumber"],
    )
