"""What both sides of HTTP agree on: header names, and which error is which status.

An error's body is JSON with ``error`` (a code for programs), ``message`` and perhaps ``check`` and ``hint``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nevermined_fl.errors import (
    Conflict,
    DecodeError,
    InvalidRequest,
    NeverminedFLError,
    NotFound,
    PermissionDenied,
    RemoteProtocolError,
    RequestError,
    StorageFull,
    TransportError,
    Unauthenticated,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ERROR", "LENGTH", "MAX_WAIT", "OFFSET", "error_answer", "error_of"]

OFFSET = "Upload-Offset"
LENGTH = "Upload-Length"
ERROR = "Error"
"""Header that says an error where there is no body: in answers to HEAD."""
MAX_WAIT = 30.0
"""Seconds that a request for a task is held at most."""

_REQUEST_ERRORS = {k.__name__: k for k in (InvalidRequest, Unauthenticated, PermissionDenied, NotFound, Conflict)}
_TOO_LARGE = frozenset({"size", "too_large"})


def error_answer(error: NeverminedFLError) -> tuple[int, dict[str, str]]:
    """Status and body that say ``error``."""
    if isinstance(error, RequestError):
        return error.status, error.to_json()
    if isinstance(error, RemoteProtocolError):
        body = {"error": error.code, "message": error.message} | ({"hint": error.hint} if error.hint else {})
        if isinstance(error, DecodeError):
            return (413 if error.code in _TOO_LARGE else 400), body
        return 422, body
    if isinstance(error, StorageFull):
        return 507, {"error": "storage_full", "message": "the coordinator has no room now; try again"}
    # The rest is the world's or ours: the peer may try again, its text is not for the peer.
    return 503, {"error": type(error).__name__, "message": "the coordinator cannot answer now"}


def error_of(status: int, body: Mapping[str, Any]) -> NeverminedFLError:
    """The error that an answer says; TransportError when it may pass."""
    code, message = _text(body.get("error")) or "refused", _text(body.get("message")) or f"the answer was HTTP {status}"
    hint, check = _text(body.get("hint")), _text(body.get("check"))
    if status >= 500:
        return TransportError(message, hint=hint)
    if code in _REQUEST_ERRORS:
        return _REQUEST_ERRORS[code](message, check=check or "request", hint=hint)
    if status in {400, 413}:
        return DecodeError(message, code=code, hint=hint)
    return RemoteProtocolError(message, code=code, hint=hint)


def _text(value: Any) -> str:
    return value[:500] if isinstance(value, str) else ""
