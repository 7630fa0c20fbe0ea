"""Every error of the library, split by who must act.

::

    NeverminedFLError
    ├── LocalProtocolError     our own bug: crash, never caught
    ├── RemoteProtocolError    a peer's mistake: refused, the session goes on
    │   └── DecodeError          bytes that are not what they claim to be
    ├── RequestError           a caller's mistake; ``status`` is the HTTP code that says so
    │   ├── InvalidRequest       400
    │   ├── Unauthenticated      401
    │   ├── PermissionDenied     403, names the check that failed
    │   ├── NotFound             404
    │   ├── Conflict             409
    │   └── TooLarge             413
    ├── TransportError         the world: a peer, a gateway or a socket did not answer; worth a retry
    │   ├── ChainError           the chain's node did not answer, or a transaction reverted
    │   ├── MetadataError        the metadata API did not answer
    │   └── StorageFull          a disk took no more; there may be room later
    ├── BackendError           a job could not be started, watched or stopped
    ├── TrainerError           the buyer's algorithm raised or answered nonsense
    ├── SettingsError          a setting or a file of the user's is missing or wrong
    └── SessionFailed          the session ended without a model; the message is the reason
"""

from __future__ import annotations

__all__ = [
    "BackendError",
    "ChainError",
    "Conflict",
    "DecodeError",
    "InvalidRequest",
    "LocalProtocolError",
    "MetadataError",
    "NeverminedFLError",
    "NotFound",
    "PermissionDenied",
    "RemoteProtocolError",
    "RequestError",
    "SessionFailed",
    "SettingsError",
    "StorageFull",
    "TooLarge",
    "TrainerError",
    "TransportError",
    "Unauthenticated",
]


class NeverminedFLError(Exception):
    """Base of all our errors.

    Args:
        message: what was expected and what came.
        hint: what the user can do about it, one sentence.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class LocalProtocolError(NeverminedFLError):
    """We did something that our own protocol forbids."""


class RemoteProtocolError(NeverminedFLError):
    """A peer did something that the protocol forbids.

    Args:
        message: what was expected and what came.
        code: a short word for programs, e.g. ``stale_round``.
        hint: what the peer can do about it.
    """

    def __init__(self, message: str, *, code: str = "refused", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code


class DecodeError(RemoteProtocolError):
    """Bytes that are not what they claim to be: truncated, oversized, wrong shape, not finite."""

    def __init__(self, message: str, *, code: str = "undecodable", hint: str = "") -> None:
        super().__init__(message, code=code, hint=hint)


class RequestError(NeverminedFLError):
    """A request that is refused.

    Args:
        message: what was expected and what came.
        check: the name of the check that failed, e.g. ``lock_fulfilled``; listed in docs/protocol.md.
        hint: what the caller can do about it.
    """

    status = 400

    def __init__(self, message: str, *, check: str = "request", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.check = check

    def to_json(self) -> dict[str, str]:
        """The body of the HTTP answer."""
        body = {"error": type(self).__name__, "check": self.check, "message": self.message}
        return body | ({"hint": self.hint} if self.hint else {})


class InvalidRequest(RequestError):
    """The request makes no sense whoever sends it."""

    status = 400


class Unauthenticated(RequestError):
    """Nobody, or not who it claims to be."""

    status = 401


class PermissionDenied(RequestError):
    """Known, but not allowed."""

    status = 403


class NotFound(RequestError):
    """No such thing here."""

    status = 404


class Conflict(RequestError):
    """It is there already, or something else is in the way."""

    status = 409


class TooLarge(RequestError):
    """More bytes than are taken here."""

    status = 413


class TransportError(NeverminedFLError):
    """The other side did not answer; trying again may help."""


class ChainError(TransportError):
    """The chain's node did not answer, or a transaction reverted.

    Args:
        message: what was tried and what came.
        reverted: True when the contract itself refused; then a retry is useless.
        hint: what the user can do about it.
    """

    def __init__(self, message: str, *, reverted: bool = False, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.reverted = reverted


class MetadataError(TransportError):
    """The metadata API did not answer."""


class StorageFull(TransportError):
    """A disk took no more. What was to be written is not there, and everything else is as it was.

    Args:
        message: what could not be written, and where.
        needed: bytes that it takes; 0 when nobody knows.
        hint: what the provider can do about it.
    """

    def __init__(self, message: str, *, needed: int = 0, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.needed = needed


class BackendError(NeverminedFLError):
    """A job could not be started, watched or stopped."""


class TrainerError(NeverminedFLError):
    """The buyer's algorithm raised or answered nonsense.

    Args:
        message: safe for the buyer: exception type and line number of the buyer's own file, no text of the exception.
        kind: the exception's type name.
        line: line number in the buyer's file, or 0 when unknown.
    """

    def __init__(self, message: str, *, kind: str = "", line: int = 0) -> None:
        super().__init__(message)
        self.kind = kind
        self.line = line


class SettingsError(NeverminedFLError):
    """A setting or a file of the user's is missing or wrong."""


class SessionFailed(NeverminedFLError):
    """The session ended without a model."""
