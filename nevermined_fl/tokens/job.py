"""Job's statements: signed with the Ed25519 key that a launcher makes for one job."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import time
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from joserfc.errors import JoseError
from joserfc.jwk import OKPKey

from nevermined_fl.errors import SettingsError, Unauthenticated
from nevermined_fl.tokens.statement import CLOCK_SKEW, PROOF, claim, open_statement, sign_statement

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ALGORITHM", "JobKey", "make_join_proof", "verify_job", "verify_join_proof"]

ALGORITHM = "Ed25519"  # RFC 9864: the algorithm by its full name
_HEADER = frozenset({"alg", "typ", "jwk"})
_PUBLIC_FIELDS = frozenset({"kty", "crv", "x"})


@dataclass(frozen=True, slots=True)
class JobKey:
    """The key of one job. A participant that starts again reads it again, so it stays the same participant."""

    _key: OKPKey = field(repr=False)

    @classmethod
    def create(cls) -> JobKey:
        """A new random key."""
        return cls(OKPKey.generate_key("Ed25519"))

    @classmethod
    def load(cls, path: Path | str) -> JobKey:
        """Read a private JWK.

        Raises:
            SettingsError: no such file, or not a private Ed25519 key.
        """
        try:
            key = OKPKey.import_key(json.loads(Path(path).read_text()))
        except (OSError, ValueError, TypeError, JoseError) as error:
            raise SettingsError(f"{path} is not the key of a job") from error
        if not key.is_private or key.curve_name != "Ed25519":
            raise SettingsError(f"{path} is not a private Ed25519 key")
        return cls(key)

    def save(self, path: Path | str) -> None:
        """Write the private JWK (0600), whole or not at all."""
        temporary = Path(f"{path}.{secrets.token_hex(4)}")
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(self._key.as_dict(private=True), file)
        temporary.replace(path)

    @property
    def thumbprint(self) -> str:
        """RFC 7638, as in a join token's ``cnf.jkt``."""
        return self._key.thumbprint()

    def sign(self, payload: Mapping[str, Any] | bytes, *, typ: str) -> str:
        """A JWS that carries the public key; ``payload`` is a JSON object, or its bytes as ``messages.encode`` made them."""
        header = {"alg": ALGORITHM, "typ": typ, "jwk": self._key.as_dict(private=False)}
        return sign_statement(payload, header, self._key)


def verify_job(jws: str, *, typ: str, thumbprint: str) -> dict[str, Any]:
    """The payload, when the key with this thumbprint signed it. The caller judges its times.

    Raises:
        Unauthenticated: another key, another type, a wrong signature.
    """

    def key(header: Mapping[str, Any]) -> OKPKey:
        jwk = header["jwk"]
        if not isinstance(jwk, dict) or set(jwk) != _PUBLIC_FIELDS or (jwk["kty"], jwk["crv"]) != ("OKP", "Ed25519"):
            raise Unauthenticated("the token's key is not a public Ed25519 key", check="token_type")
        found, signer = _public_key(jwk["x"])
        if signer != thumbprint:
            raise Unauthenticated("the token is signed by another key than was admitted", check="token_signer")
        return found

    return open_statement(jws, alg=ALGORITHM, typ=typ, header=_HEADER, key=key)


@lru_cache(maxsize=4096)
def _public_key(x: str) -> tuple[OKPKey, str]:
    """The key and its thumbprint; a participant signs every report with the same."""
    key = OKPKey.import_key({"kty": "OKP", "crv": "Ed25519", "x": x})
    return key, key.thumbprint()


def make_join_proof(key: JobKey, *, session: str, fingerprint: str, token: str, now: float | None = None) -> str:
    """Proof that who presents ``token`` holds its key, good for one connection to one certificate."""
    claims = {
        "session": session,
        "fingerprint": fingerprint,
        "token": _digest(token),
        "iat": int(time.time() if now is None else now),
        "jti": secrets.token_urlsafe(16),
    }
    return key.sign(claims, typ=PROOF)


def verify_join_proof(
    jws: str, *, thumbprint: str, session: str, fingerprint: str, token: str, now: float | None = None
) -> str:
    """The proof's ``jti``; the caller refuses one that it has seen within the last two minutes."""
    payload = verify_job(jws, typ=PROOF, thumbprint=thumbprint)
    wanted = {"session": session, "fingerprint": fingerprint, "token": _digest(token)}
    for name, value in wanted.items():
        if payload.get(name) != value:
            raise Unauthenticated(f"the proof is for another {name}", check="token_audience")
    issued, now = payload.get("iat"), time.time() if now is None else now
    if not isinstance(issued, int) or isinstance(issued, bool) or not now - CLOCK_SKEW <= issued <= now + CLOCK_SKEW:
        raise Unauthenticated("the proof is not fresh", check="token_expired")
    return claim(payload, "jti")


def _digest(token: str) -> str:
    return "sha256:" + hashlib.sha256(token.encode()).hexdigest()
