"""Statements: open a compact JWS without trusting any of it.

Rule 1: the caller says which algorithm, type and header fields it expects; the token has no say in that.
"""

from __future__ import annotations

import json
import math
import time
from typing import TYPE_CHECKING, Any

from joserfc import jws
from joserfc.errors import JoseError

from nevermined_fl.errors import Unauthenticated

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from joserfc.jwk import ECKey, OKPKey

__all__ = [
    "CLOCK_SKEW",
    "EVALUATED",
    "JOIN",
    "MAX_TOKEN_CHARACTERS",
    "PROOF",
    "RECORD",
    "REPORT",
    "check_window",
    "claim",
    "open_statement",
    "sign_statement",
]

JOIN = "nvm-fl-join+jwt"
RECORD = "nvm-fl-record+jwt"
PROOF = "nvm-fl-proof+jwt"
REPORT = "nvm-fl-report+jwt"
EVALUATED = "nvm-fl-evaluated+jwt"

MAX_TOKEN_CHARACTERS = 128_000
CLOCK_SKEW = 60.0
"""Seconds that two honest clocks may differ."""


_LATEST = 2.0**53


def sign_statement(payload: Mapping[str, Any] | bytes, header: Mapping[str, Any], key: ECKey | OKPKey) -> str:
    """A compact JWS of JSON."""
    raw = (
        payload if isinstance(payload, bytes) else json.dumps(payload, separators=(",", ":"), allow_nan=False).encode()
    )
    return jws.serialize_compact(dict(header), raw, key, [header["alg"]])


def open_statement(
    token: str,
    *,
    alg: str,
    typ: str,
    header: frozenset[str],
    key: Callable[[Mapping[str, Any]], ECKey | OKPKey],
) -> dict[str, Any]:
    """The payload of a token whose header has exactly the fields ``header`` and whose signature ``key(header)`` made.

    Raises:
        Unauthenticated: whatever is wrong with it.
    """
    if not isinstance(token, str) or len(token) > MAX_TOKEN_CHARACTERS:
        raise Unauthenticated(f"a token has at most {MAX_TOKEN_CHARACTERS} characters", check="token_malformed")
    try:
        opened = jws.extract_compact(token.encode("ascii"))
        found = opened.headers()
        if found.get("alg") != alg or found.get("typ") != typ or set(found) != header:
            raise Unauthenticated(f"the token is not a {typ} signed with {alg}", check="token_type")
        if not jws.validate_compact(opened, key(found), [alg]):
            raise Unauthenticated("the token's signature is wrong", check="token_signature")
        payload = json.loads(opened.payload)
    except (JoseError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise Unauthenticated("the token cannot be read", check="token_malformed") from error
    if not isinstance(payload, dict):
        raise Unauthenticated("the token's payload is not a JSON object", check="token_malformed")
    return payload


def claim(payload: Mapping[str, Any], name: str) -> str:
    """A claim that must be a string and not empty."""
    value = payload.get(name)
    if not isinstance(value, str) or not value:
        raise Unauthenticated(f"the token lacks {name!r}", check="token_claims")
    return value


def check_window(
    payload: Mapping[str, Any],
    now: float | None,
    *,
    longest: float = math.inf,
    issued: str = "iat",
    expires: str = "exp",
) -> None:
    """Refuse what is over, what comes from the future, and what claims to last longer than ``longest`` seconds."""
    now = time.time() if now is None else now
    start, end = _time(payload, issued), _time(payload, expires)
    if end <= now:
        raise Unauthenticated("the token has expired", check="token_expired")
    if start > now + CLOCK_SKEW or end > now + longest + CLOCK_SKEW:
        raise Unauthenticated("the token's times lie too far in the future", check="token_expired")


def _time(payload: Mapping[str, Any], name: str) -> float:
    value = payload.get(name)
    # Compared, not asked whether it is finite: that raises for an integer which no float can hold.
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < _LATEST:
        raise Unauthenticated(f"the token lacks {name!r}", check="token_expired")
    return value
