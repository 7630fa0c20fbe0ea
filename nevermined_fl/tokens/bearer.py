"""Bearer tokens: how a user proves to a gateway who he is, as in the upstream stack (RFC 7523, ES256K).

An *assertion* is signed by the user and traded once for an *access token*, which the gateway signs for itself. Upstream
assertions carry no key, so the signer is recovered from the signature; JavaScript wallets sign the same text as a personal
message (``eths: personal``, or 65 bytes), which is taken too.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey
from joserfc.util import urlsafe_b64decode

from nevermined_fl.errors import Unauthenticated
from nevermined_fl.keys import address_of_point, recover_candidates, recover_message
from nevermined_fl.tokens.provider import ALGORITHM, chain_key
from nevermined_fl.tokens.statement import MAX_TOKEN_CHARACTERS, check_window, claim, open_statement, sign_statement

if TYPE_CHECKING:
    from collections.abc import Collection

    from nevermined_fl.keys import KeyAccount

__all__ = [
    "ACCESS_SECONDS",
    "ASSERTION_SECONDS",
    "issue_access_token",
    "make_assertion",
    "replay_id",
    "verify_access_token",
    "verify_assertion",
]

ASSERTION_SECONDS = 3600.0
ACCESS_SECONDS = 600.0
_HEADER = frozenset({"alg", "typ"})


def make_assertion(
    account: KeyAccount,
    *,
    aud: str,
    sub: str = "",
    did: str = "",
    execution_id: str = "",
    ttl: float = 300.0,
    now: float | None = None,
) -> str:
    """An assertion for one use.

    Args:
        account: the user's key.
        aud: path of the service, e.g. ``/api/v1/gateway/services/execute``.
        sub: agreement id, where there is one.
        did: asset to download, or workflow to execute.
        execution_id: the execution that is asked about.
        ttl: seconds until it expires; gateways take at most an hour.
        now: Unix seconds; the clock's when not given.
    """
    optional = {"sub": sub, "did": did, "execution_id": execution_id}
    claims = _window(now, ttl) | {"iss": account.address, "aud": aud} | {k: v for k, v in optional.items() if v}
    return sign_statement(claims, {"alg": ALGORITHM, "typ": "JWT"}, chain_key(account))


def verify_assertion(
    assertion: str, *, audiences: Collection[str] | None = None, now: float | None = None
) -> dict[str, Any]:
    """The claims, with ``iss`` proved to have signed them.

    Replays are the caller's: remember its :func:`replay_id` until ``exp``.

    Args:
        assertion: the JWT.
        audiences: paths that are served here; None for a login, which has no audience.
        now: Unix seconds; the clock's when not given.

    Raises:
        Unauthenticated: malformed, expired, another audience, or not signed by ``iss``.
    """
    opened, claims = _extract(assertion)
    issuer = claim(claims, "iss")
    signing_input = assertion.rpartition(".")[0]
    signature = _signature(opened)
    if len(signature) == 65 or claims.get("eths") == "personal":
        signed = issuer in _personal_signers(signing_input.encode(), signature)
    else:
        signed = _verified_by(opened, issuer, hashlib.sha256(signing_input.encode()).digest(), signature)
    if not signed:
        raise Unauthenticated(f"the assertion is not signed by its issuer {issuer[:60]}", check="token_signature")
    check_window(claims, now, longest=ASSERTION_SECONDS)
    if audiences is not None and claims.get("aud") not in audiences:
        raise Unauthenticated(
            f"the assertion is for {claims.get('aud')!r:.80}, not for this service", check="token_audience"
        )
    return claims


def replay_id(token: str) -> str:
    """What to remember of a token that is good for one use.

    The hash of what was signed, not of the token: whoever holds a token can change its signature to another valid one.
    """
    return hashlib.sha256(token.rpartition(".")[0].encode()).hexdigest()


def issue_access_token(
    account: KeyAccount,
    *,
    client_id: str,
    aud: str,
    sub: str = "",
    did: str = "",
    execution_id: str = "",
    ttl: float = ACCESS_SECONDS,
    now: float | None = None,
) -> str:
    """An access token of this gateway for ``client_id``, the address whose assertion it checked."""
    claims = {"iss": account.address, "client_id": client_id, "aud": aud, "sub": sub}
    optional = {k: v for k, v in {"did": did, "execution_id": execution_id}.items() if v}
    return sign_statement(
        _window(now, ttl) | claims | optional, {"alg": ALGORITHM, "typ": "at+jwt"}, chain_key(account)
    )


def verify_access_token(account: KeyAccount, token: str, *, aud: str, now: float | None = None) -> dict[str, Any]:
    """The claims of an access token that this gateway issued for ``aud``.

    Raises:
        Unauthenticated: not ours, expired, or for another audience.
    """
    key = chain_key(account)
    claims = open_statement(token, alg=ALGORITHM, typ="at+jwt", header=_HEADER, key=lambda _: key)
    check_window(claims, now)
    if claims.get("aud") != aud:
        raise Unauthenticated("the access token is for another service", check="token_audience")
    claim(claims, "client_id")
    return claims


def _window(now: float | None, ttl: float) -> dict[str, Any]:
    start = time.time() if now is None else now
    return {"iat": int(start), "exp": int(start + ttl), "jti": secrets.token_urlsafe(16)}


def _extract(assertion: str) -> tuple[jws.CompactSignature, dict[str, Any]]:
    if not isinstance(assertion, str) or len(assertion) > MAX_TOKEN_CHARACTERS:
        raise Unauthenticated("the assertion is not a JWT", check="token_malformed")
    try:
        opened = jws.extract_compact(assertion.encode("ascii"))
        claims = json.loads(opened.payload)
    except (JoseError, ValueError, TypeError, RecursionError) as error:
        raise Unauthenticated("the assertion is not a JWT", check="token_malformed") from error
    header = opened.headers()
    # The type, too: else the buyer of a gateway could pass its access token off as that provider's assertion elsewhere
    if header != {"alg": ALGORITHM, "typ": "JWT"} or not isinstance(claims, dict):
        raise Unauthenticated(f"the assertion is not a JWT signed with {ALGORITHM}", check="token_type")
    return opened, claims


def _signature(opened: jws.CompactSignature) -> bytes:
    try:
        return urlsafe_b64decode(opened.segments["signature"])
    except ValueError as error:
        raise Unauthenticated("the assertion's signature cannot be read", check="token_malformed") from error


def _personal_signers(message: bytes, signature: bytes) -> set[str]:
    """Who may have signed ``message`` as a personal message, with or without the recovery byte."""
    tails = [b""] if len(signature) == 65 else [b"\x00", b"\x01"]
    found = set()
    for tail in tails:
        with suppress(ValueError):
            found.add(recover_message(message, signature + tail))
    return found


def _verified_by(opened: jws.CompactSignature, issuer: str, digest: bytes, signature: bytes) -> bool:
    """Whether joserfc verifies the assertion with one of the two keys that fit the signature and have this address."""
    for candidate in recover_candidates(digest, signature):
        numbers = candidate.public_numbers()
        if address_of_point(numbers.x, numbers.y) == issuer:
            return jws.validate_compact(opened, ECKey.import_key(candidate), [ALGORITHM])
    return False
