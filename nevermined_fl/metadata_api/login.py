"""Login: who writes, proved by a signed assertion that is traded once for a short-lived token."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING

from flask import request
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

from nevermined_fl.errors import Unauthenticated
from nevermined_fl.files import write_atomic
from nevermined_fl.tokens.bearer import replay_id, verify_assertion
from nevermined_fl.tokens.statement import check_window, claim

if TYPE_CHECKING:
    from pathlib import Path

    from nevermined_fl.metadata_api.store import Store

__all__ = ["ASSERTION_TYPE", "LOGIN", "Logins", "load_secret"]

LOGIN = "/api/v1/auth/login"
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_SECONDS = 3600
_ISSUER = "nevermined-fl-metadata"


class Logins:
    """Issues and checks the bearer tokens of this server.

    Args:
        store: remembers which assertions were used.
        secret: the key that signs the tokens.
    """

    def __init__(self, store: Store, secret: bytes) -> None:
        self._store = store
        self._key = OctKey.import_key(secret)

    def login(self, assertion: str) -> str:
        """A token for who signed the assertion.

        Raises:
            Unauthenticated: not signed by its issuer, expired, used before, or meant for another service.
        """
        claims = verify_assertion(assertion)
        # The SDK's logins have no audience; an assertion for a gateway must not open this door as well.
        if claims.get("aud", LOGIN) != LOGIN:
            raise Unauthenticated("the assertion is for another service", check="token_audience")
        now = time.time()
        if not self._store.use_once(replay_id(assertion), float(claims["exp"]), now):
            raise Unauthenticated("the assertion was used before", check="token_replayed")
        payload = {"iss": _ISSUER, "sub": claims["iss"], "iat": int(now), "exp": int(now) + _SECONDS, "roles": ["user"]}
        return jwt.encode({"alg": "HS256", "typ": "JWT"}, payload, self._key)

    def caller(self) -> str:
        """Address of who sent the current request. Raises Unauthenticated."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthenticated(f"this needs a bearer token of {LOGIN}", check="token_missing")
        try:
            opened = jwt.decode(token.strip(), self._key, ["HS256"])
        except (JoseError, ValueError) as error:
            raise Unauthenticated("the bearer token is not of this server", check="token_signature") from error
        check_window(opened.claims, None)
        return claim(opened.claims, "sub")


def load_secret(path: Path) -> bytes:
    """The server's secret, made when there is none yet, readable by its owner alone."""
    if not path.exists():
        write_atomic(path, secrets.token_bytes(32))
    return path.read_bytes()
