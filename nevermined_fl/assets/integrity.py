"""Integrity: how a DDO's DID, checksums and digest follow from its content, so that an edited one is noticed.

The Nevermined SDK computes a checksum over each service's ``main`` and the DID over those checksums and the publisher;
we do the same. That leaves holes: blanks count for nothing, and nothing outside of ``main`` is covered. So the first
``main`` carries ``integrity``, an exact digest over all services, and the DID covers everything through it.
"""

from __future__ import annotations

import hashlib
import json
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nevermined_fl.assets.document import check_json, envelope
from nevermined_fl.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    HashDID = Callable[[str, str], str]
    """``keccak256(abi.encode(seed, owner))`` as a DID: ``Chain.compute_did`` or ``metadata.hash_did``."""

__all__ = [
    "Publisher",
    "checksum",
    "creator",
    "did_seed",
    "proof_message",
    "registry_checksum",
    "seal",
    "verify_integrity",
]

_UNCOVERED = frozenset({"proof", "userId"})
_KEYS = frozenset({"@context", "id", "created", "publicKey", "authentication", "service"}) | _UNCOVERED


@dataclass(frozen=True, slots=True)
class Publisher:
    """Who publishes, and how its DIDs and proofs are made.

    ``sign`` gets a message and returns the 65-byte signature over its keccak256 as 0x-hex; ``metadata_url`` is where
    the DDOs will be found.
    """

    address: str
    name: str
    metadata_url: str
    hash_did: HashDID
    sign: Callable[[bytes], str]


def checksum(main: Mapping[str, Any]) -> str:
    """The SDK's checksum: SHA3-256 (not keccak) of the JSON with sorted outer keys and all blanks removed."""
    text = json.dumps(dict(sorted(main.items()))).replace(" ", "")
    return hashlib.sha3_256(text.encode()).hexdigest()


def did_seed(ddo: Mapping[str, Any]) -> str:
    """The seed that the DIDRegistry hashes with the owner into the DID, 0x<64 hex>."""
    return "0x" + checksum(envelope(ddo)["proof"]["checksum"])


def registry_checksum(ddo: Mapping[str, Any]) -> str:
    """The checksum that we register on chain, 0x<64 hex>: exact, over everything but proof, userId and curation."""
    kept = {key: value for key, value in check_json(ddo).items() if key not in _UNCOVERED}
    kept["service"] = [_without_curation(service) for service in envelope(ddo)["service"]]
    return "0x" + hashlib.sha3_256(_canonical(kept)).hexdigest()


def creator(ddo: Mapping[str, Any]) -> str:
    """Address of who published it; who owns it today is the DIDRegistry's to say."""
    address: str = envelope(ddo)["proof"]["creator"]
    return address


def proof_message(did: str) -> bytes:
    """What the proof signs the keccak256 of. The SDK signs Python's repr of the DID's bytes, so we must, too."""
    raw = bytes.fromhex(did.removeprefix("did:nv:"))
    return f"\x19Ethereum Signed Message:\n32{raw!r}".encode()


# --- making ------------------------------------------------------------------------------------------------------


def seal(document: Mapping[str, Any], publisher: Publisher) -> dict[str, Any]:
    """Give a rendered document its digest, checksums, DID and proof."""
    body = deepcopy(dict(document))
    services = body["service"]
    services[0]["attributes"]["main"]["integrity"] = _content_digest(services)
    checksums = _checksums(services)
    did = publisher.hash_did("0x" + checksum(checksums), publisher.address)
    _name_did(services, did)
    proof = {
        "type": "DDOIntegritySignature",
        "created": body["created"],
        "creator": publisher.address,
        "signatureValue": publisher.sign(proof_message(did)),
        "checksum": checksums,
    }
    return {"@context": body["@context"], "id": did, "created": body["created"]} | {
        **_keys_of(did, publisher.address),
        "service": services,
        "proof": proof,
    }


def _keys_of(did: str, address: str) -> dict[str, Any]:
    return {
        "publicKey": [{"id": did, "type": "EthereumECDSAKey", "owner": address}],
        "authentication": [{"type": "RsaSignatureAuthentication2018", "publicKey": did}],
    }


def _checksums(services: list[dict[str, Any]]) -> dict[str, str]:
    return {str(service["index"]): checksum(service["attributes"]["main"]) for service in services}


def _name_did(services: list[dict[str, Any]], did: str) -> None:
    """Write the DID to the two places that can only be filled once it is known."""
    services[0]["serviceEndpoint"] = f"{services[0]['serviceEndpoint']}/{did}"
    for parameter in _document_ids(services):
        parameter["value"] = did.removeprefix("did:nv:")


def _document_ids(services: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The condition parameters that hold the DID. Takes any shape: it also reads what strangers wrote."""
    found = []
    for service in services:
        template = service["attributes"].get("serviceAgreementTemplate")
        conditions = template.get("conditions") if isinstance(template, dict) else None
        for condition in conditions if isinstance(conditions, list) else ():
            parameters = condition.get("parameters") if isinstance(condition, dict) else None
            found += [p for p in parameters if _is_document_id(p)] if isinstance(parameters, list) else []
    return found


def _is_document_id(parameter: Any) -> bool:
    return isinstance(parameter, dict) and parameter.get("name") == "_documentId"


# --- checking ----------------------------------------------------------------------------------------------------


def verify_integrity(ddo: Any, hash_did: HashDID) -> None:
    """Check that the DID follows from the content.

    Raises:
        InvalidRequest: ``check`` is ``ddo_shape``, ``ddo_checksum`` (names the service), ``ddo_integrity``, ``ddo_did``
            or ``ddo_creator``.
    """
    body = envelope(ddo)
    services, proof = body["service"], body["proof"]
    _verify_checksums(services, proof["checksum"])
    if services[0]["attributes"]["main"].get("integrity") != _content_digest(services, body["id"]):
        raise InvalidRequest(f"{body['id']}: main.integrity is not the services' digest", check="ddo_integrity")
    if hash_did("0x" + checksum(proof["checksum"]), proof["creator"]) != body["id"]:
        raise InvalidRequest(f"{body['id']} does not follow from proof.checksum and proof.creator", check="ddo_did")
    _verify_names(body)


def _verify_checksums(services: list[dict[str, Any]], stated: dict[str, Any]) -> None:
    computed = _checksums(services)
    for index, value in computed.items():
        if stated.get(index) != value:
            raise InvalidRequest(
                f"proof.checksum of service {index} is not the one of its attributes.main", check="ddo_checksum"
            )
    if set(stated) != set(computed):
        raise InvalidRequest("proof.checksum names a service that is not there", check="ddo_checksum")


def _verify_names(body: dict[str, Any]) -> None:
    """What names the DID or its creator must name these, and nothing may stand beside what is covered."""
    did, address = body["id"], body["proof"]["creator"]
    if unknown := sorted(set(body) - _KEYS):
        raise InvalidRequest(f"{did}: a DDO has no {unknown[0][:80]!r}", check="ddo_shape")
    endpoint = body["service"][0].get("serviceEndpoint")
    values = [parameter.get("value") for parameter in _document_ids(body["service"])]
    if not isinstance(endpoint, str) or not endpoint.endswith("/" + did) or any(v != did[7:] for v in values):
        raise InvalidRequest(f"{did}: the metadata endpoint or a condition names another asset", check="ddo_did")
    expected = _keys_of(did, address) | {"created": body["service"][0]["attributes"]["main"].get("dateCreated")}
    if any(body.get(key) != value for key, value in expected.items()):
        raise InvalidRequest(f"{did}: publicKey, authentication or created is not what it was", check="ddo_creator")
    named = [service["attributes"]["main"].get("creator", address) for service in body["service"]]
    if any(name != address for name in named):
        raise InvalidRequest(f"{did}: a service's creator is not proof.creator", check="ddo_creator")


def _content_digest(services: list[dict[str, Any]], did: str = "") -> str:
    """Exact digest of all services, less what can only be known later: the DID, and curation, which others write."""
    copies = [_without_curation(service) for service in deepcopy(services)]
    if did:
        copies[0]["serviceEndpoint"] = str(copies[0].get("serviceEndpoint")).removesuffix("/" + did)
    copies[0]["attributes"]["main"].pop("integrity", None)
    for parameter in _document_ids(copies):
        parameter.pop("value", None)
    return "sha256:" + hashlib.sha256(_canonical(copies)).hexdigest()


def _without_curation(service: dict[str, Any]) -> dict[str, Any]:
    attributes = {key: value for key, value in service["attributes"].items() if key != "curation"}
    return service | {"attributes": attributes}


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
