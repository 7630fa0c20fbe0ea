"""Identity: how a DDO's DID and proof follow from its publisher's key.

eth_keys is imported where it is used: it takes 0.7 s, which a reader of DDOs need not spend.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from nevermined_fl.assets import Publisher, creator, kind, proof_message, verify_integrity
from nevermined_fl.errors import InvalidRequest
from nevermined_fl.keys import keccak

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nevermined_fl.keys import KeyAccount

__all__ = ["certify", "hash_did", "publisher", "verify_proof"]

_SIGNATURE = re.compile(r"0x[0-9a-fA-F]{128}(?:00|01|1b|1c)")


def hash_did(seed: str, owner: str) -> str:
    """``keccak256(abi.encode(seed, owner))`` as a DID: ``DIDRegistry.hashDID`` without a chain."""
    words = bytes.fromhex(seed.removeprefix("0x")) + bytes(12) + bytes.fromhex(owner.removeprefix("0x"))
    return "did:nv:" + keccak(words).hex()


def publisher(account: KeyAccount, *, name: str, metadata_url: str) -> Publisher:
    """Who publishes with ``account``; ``metadata_url`` is the metadata API's, without path."""

    def sign(message: bytes) -> str:
        from eth_keys.datatypes import PrivateKey  # noqa: PLC0415  as said above

        # Not a personal signature: the SDK puts a wrong length into the prefix, see assets.proof_message.
        raw = PrivateKey(account.secret).sign_msg_hash(keccak(message)).to_bytes()
        return "0x" + (raw[:64] + bytes([raw[64] + 27])).hex()

    return Publisher(
        address=account.address, name=name, metadata_url=metadata_url.rstrip("/"), hash_did=hash_did, sign=sign
    )


def verify_proof(ddo: Mapping[str, Any]) -> None:
    """Check that ``proof.creator`` signed the DID, so that nobody fills the listings in another's name.

    Raises:
        InvalidRequest: ``check`` is ``ddo_proof``.
    """
    from eth_keys.datatypes import Signature  # noqa: PLC0415  as said above
    from eth_keys.exceptions import BadSignature  # noqa: PLC0415  as said above
    from eth_utils.exceptions import ValidationError  # noqa: PLC0415  as said above

    address = creator(ddo)
    signature = ddo["proof"].get("signatureValue")
    if not isinstance(signature, str) or not _SIGNATURE.fullmatch(signature):
        raise InvalidRequest("proof.signatureValue should be 65 bytes in hex", check="ddo_proof")
    raw = bytes.fromhex(signature.removeprefix("0x"))
    try:
        key = Signature(raw[:64] + bytes([raw[64] % 27])).recover_public_key_from_msg_hash(
            keccak(proof_message(ddo["id"]))
        )
    except (BadSignature, ValidationError) as error:
        raise InvalidRequest("proof.signatureValue is not a signature", check="ddo_proof") from error
    if key.to_address() != address.lower():
        raise InvalidRequest("proof.signatureValue was not made by proof.creator", check="ddo_proof")


def certify(ddo: Any) -> dict[str, Any]:
    """What a store demands before it keeps a DDO: a known kind, whole, and published by its creator.

    Raises:
        InvalidRequest: ``check`` names what does not hold.
    """
    kind(ddo)
    verify_integrity(ddo, hash_did)
    verify_proof(ddo)
    body: dict[str, Any] = ddo
    return body
