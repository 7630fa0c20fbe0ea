"""Session record: what the compute provider says of a session, so that everybody can find and judge it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from nevermined_fl.errors import Unauthenticated
from nevermined_fl.tokens.provider import provider_sign, verify_provider
from nevermined_fl.tokens.statement import RECORD, check_window, claim

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from nevermined_fl.keys import KeyAccount

__all__ = ["Contributor", "SessionRecord", "verify_record"]


@dataclass(frozen=True, slots=True)
class Contributor:
    """A dataset whose update is in the model, and the agreement that is to be paid for it."""

    did: str
    agreement: str


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """One state of a session; a higher ``seq`` replaces a lower one. Times are Unix seconds.

    ``phase`` is a phase of the session in small letters, at the end ``finished`` or ``failed``; only then ``outcome``
    (``finished`` or ``failed``), ``reason``, ``model`` (DID), ``model_sha256`` and ``contributors`` say something.
    """

    session: str
    seq: int
    issued: float
    expires: float
    phase: str
    endpoints: Mapping[str, str] = field(default_factory=dict)
    fingerprint: str = ""
    certificate: str = ""
    outcome: str = ""
    reason: str = ""
    model: str = ""
    model_sha256: str = ""
    contributors: tuple[Contributor, ...] = ()

    def sign(self, account: KeyAccount) -> str:
        """The record as a JWS of the compute provider."""
        return provider_sign(account, asdict(self), typ=RECORD)

    def is_over(self) -> bool:
        """Whether no further record will come."""
        return bool(self.outcome)


def verify_record(jws: str, *, session: str, expected: Collection[str], now: float | None = None) -> SessionRecord:
    """The record, when one of ``expected`` (owner and providers of the session's compute DID) signed it.

    Raises:
        Unauthenticated: another signer or session, expired, or a field that makes no sense.
    """
    payload = verify_provider(jws, typ=RECORD, expected=expected)
    check_window(payload, now, issued="issued", expires="expires")
    if claim(payload, "session") != session:
        raise Unauthenticated("the record is of another session", check="token_audience")
    return _parse(payload)


def _parse(payload: Mapping[str, Any]) -> SessionRecord:
    values = {f.name: payload[f.name] for f in fields(SessionRecord) if f.name in payload}
    seq, endpoints = values.get("seq"), values.get("endpoints", {})
    texts = [values.get(name, "") for name in _TEXTS]
    if not isinstance(endpoints, dict) or not all(isinstance(t, str) for t in [*texts, *endpoints.values()]):
        raise Unauthenticated("a field of the record is not a text", check="token_claims")
    if not isinstance(seq, int) or isinstance(seq, bool) or not 0 <= seq < 2**53 or not values.get("phase"):
        raise Unauthenticated("the record lacks 'seq' or 'phase'", check="token_claims")
    return SessionRecord(**values | {"contributors": _contributors(values.get("contributors", []))})


def _contributors(found: Any) -> tuple[Contributor, ...]:
    if not isinstance(found, list) or not all(isinstance(c, dict) for c in found):
        raise Unauthenticated("the record's contributors are not a list", check="token_claims")
    return tuple(Contributor(did=claim(c, "did"), agreement=claim(c, "agreement")) for c in found)


_TEXTS = ("phase", "fingerprint", "certificate", "outcome", "reason", "model", "model_sha256")
