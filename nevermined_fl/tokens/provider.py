"""Provider's statements: signed with a chain key, verified by its address alone."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric import ec
from joserfc.jwk import ECKey

from nevermined_fl.errors import Unauthenticated
from nevermined_fl.keys import address_of_point
from nevermined_fl.tokens.statement import JOIN, check_window, claim, open_statement, sign_statement

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from nevermined_fl.keys import KeyAccount

__all__ = [
    "ALGORITHM",
    "JoinToken",
    "chain_key",
    "make_join_token",
    "provider_sign",
    "verify_join_token",
    "verify_provider",
]

ALGORITHM = "ES256K"
_HEADER = frozenset({"alg", "typ", "jwk"})
_PUBLIC_FIELDS = frozenset({"kty", "crv", "x", "y"})


@dataclass(frozen=True, slots=True)
class JoinToken:
    """What a data provider says of a job of his: it may take part in ``session`` for ``did`` under ``agreement``."""

    issuer: str
    session: str
    did: str
    agreement: str
    thumbprint: str
    expires: float


def chain_key(account: KeyAccount) -> ECKey:
    """The account's key as joserfc takes it."""
    return ECKey.import_key(ec.derive_private_key(int.from_bytes(account.secret), ec.SECP256K1()))


def provider_sign(account: KeyAccount, payload: Mapping[str, Any], *, typ: str) -> str:
    """A JWS that carries the public key; ``iss`` is always the signer's address."""
    key = chain_key(account)
    header = {"alg": ALGORITHM, "typ": typ, "jwk": key.as_dict(private=False)}
    return sign_statement({**payload, "iss": account.address}, header, key)


def verify_provider(jws: str, *, typ: str, expected: Collection[str]) -> dict[str, Any]:
    """The payload, when one of the addresses ``expected`` signed it. The caller judges its times.

    Raises:
        Unauthenticated: another signer, another type, a wrong signature.
    """
    payload = _open(jws, typ)
    _check_signer(payload, expected)
    return payload


def make_join_token(
    account: KeyAccount,
    *,
    session: str,
    did: str,
    agreement: str,
    thumbprint: str,
    ttl: float,
    now: float | None = None,
) -> str:
    """A join token for a job's key, valid for ``ttl`` seconds."""
    start = time.time() if now is None else now
    claims = {
        "session": session,
        "did": did,
        "agreement": agreement,
        "cnf": {"jkt": thumbprint},
        "iat": int(start),
        "exp": int(start + ttl),
    }
    return provider_sign(account, claims, typ=JOIN)


def verify_join_token(
    jws: str, *, signers: Callable[[str], Collection[str]], session: str, now: float | None = None
) -> JoinToken:
    """The join token, when it is for this session and one of ``signers(did)`` made it.

    Args:
        jws: the token.
        signers: addresses that may speak for a DID: its owner and its providers, by the chain.
        session: DID of the session that is to be joined.
        now: Unix seconds; the clock's when not given.
    """
    payload = _open(jws, JOIN)
    check_window(payload, now)
    if claim(payload, "session") != session:
        raise Unauthenticated("the join token is for another session", check="token_audience")
    did, binding = claim(payload, "did"), payload.get("cnf")
    _check_signer(payload, signers(did))
    return JoinToken(
        issuer=claim(payload, "iss"),
        session=session,
        did=did,
        agreement=claim(payload, "agreement"),
        thumbprint=claim(binding if isinstance(binding, dict) else {}, "jkt"),
        expires=float(payload["exp"]),
    )


def _open(jws: str, typ: str) -> dict[str, Any]:
    """The payload with ``iss`` proved to be the address of the key that signed."""
    addresses: list[str] = []

    def key(header: Mapping[str, Any]) -> ECKey:
        found, address = _public_key(header["jwk"])
        addresses.append(address)
        return found

    payload = open_statement(jws, alg=ALGORITHM, typ=typ, header=_HEADER, key=key)
    if payload.get("iss") not in addresses:
        raise Unauthenticated("the token names another issuer than its signer", check="token_signer")
    return payload


def _check_signer(payload: Mapping[str, Any], expected: Collection[str]) -> None:
    if payload["iss"] not in expected:
        raise Unauthenticated(f"the token is signed by {payload['iss']}, who has no say here", check="token_signer")


def _public_key(jwk: Any) -> tuple[ECKey, str]:
    if not isinstance(jwk, dict) or set(jwk) != _PUBLIC_FIELDS or jwk["crv"] != "secp256k1":
        raise Unauthenticated("the token's key is not a public key of secp256k1", check="token_type")
    key = ECKey.import_key(jwk)
    numbers = key.public_key.public_numbers()
    return key, address_of_point(numbers.x, numbers.y)
