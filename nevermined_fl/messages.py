"""What crosses the wire between participant and coordinator: small JSON messages, versioned.

Tensors never travel in messages: they are bodies of their own in safetensors layout, named here by digest.
Rule 1: every message has one row in MESSAGES. Rule 2: decoding refuses what it does not know, field by field.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from nevermined_fl.errors import DecodeError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "MAX_MESSAGE_BYTES",
    "MESSAGES",
    "MODEL_DIGEST",
    "UPDATE_DIGEST",
    "VERSION",
    "Evaluate",
    "Evaluated",
    "Finish",
    "Initialize",
    "JoinRequest",
    "Joined",
    "Message",
    "Report",
    "Task",
    "Train",
    "Verdict",
    "Wait",
    "decode",
    "encode",
]

VERSION = 1
MAX_MESSAGE_BYTES = 1024 * 1024  # Joined carries a plan, whose parameters may take 512 KiB
MODEL_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
UPDATE_DIGEST = re.compile(r"(?:sha256|blake3):[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class JoinRequest:
    """A participant asks to take part.

    ``token`` is the join token (JWS of the data provider); ``proof`` a JWS of the job's key over this connection's
    session and certificate fingerprint, so that a stolen token alone is useless.
    """

    token: str
    proof: str


@dataclass(frozen=True, slots=True)
class Joined:
    """The answer: who you are here, the bearer for further requests, and the plan."""

    participant: str
    session: str
    bearer: str
    parameters: Mapping[str, Any]


# A task's ``seq`` is the session's ``turn``, which grows whenever participants are asked something, so the newest task
# is the one with the highest ``seq``. Finish, which is no turn, comes after the last one.


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do yet: ask again."""

    seq: int


@dataclass(frozen=True, slots=True)
class Initialize:
    """Make the initial model of ``seed`` within ``remaining`` seconds, upload it and report it as the update of round 0.

    The report's ``model`` and ``update`` are both its digest, and its ``examples`` 1.
    """

    seq: int
    seed: int
    remaining: float


@dataclass(frozen=True, slots=True)
class Train:
    """Train ``model`` on your data and report within ``remaining`` seconds.

    ``attempt`` counts from 0 how often the round was begun again; the report names it too.
    """

    seq: int
    round: int
    model: str
    seed: int
    remaining: float
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class Evaluate:
    """Evaluate ``model`` on your data and answer within ``remaining`` seconds."""

    seq: int
    round: int
    model: str
    remaining: float


@dataclass(frozen=True, slots=True)
class Finish:
    """The session is over: ``outcome`` is ``finished`` or ``failed`` and ``reason`` says why it failed."""

    seq: int
    outcome: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """An update was uploaded: its digest, the number of examples it was trained on, declared metrics, its task's attempt.

    Sent as a JWS of the job's key, so that the coordinator can prove later who contributed what.
    """

    session: str
    round: int
    model: str
    update: str
    examples: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class Evaluated:
    """Metrics of ``model`` on the participant's own data, weighted by ``examples``. Sent as a JWS like Report."""

    session: str
    round: int
    model: str
    examples: int
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Accepted, or refused with a code for programs and a sentence for people."""

    accepted: bool
    code: str = "accepted"
    message: str = ""


Task = Wait | Initialize | Train | Evaluate | Finish
Message = JoinRequest | Joined | Wait | Initialize | Train | Evaluate | Finish | Report | Evaluated | Verdict
MESSAGES: dict[str, type[Message]] = {
    "join": JoinRequest,
    "joined": Joined,
    "wait": Wait,
    "initialize": Initialize,
    "train": Train,
    "evaluate": Evaluate,
    "finish": Finish,
    "report": Report,
    "evaluated": Evaluated,
    "verdict": Verdict,
}
_NAMES = {kind: name for name, kind in MESSAGES.items()}
_DIGESTS = {"model": MODEL_DIGEST, "update": UPDATE_DIGEST}
_COUNTS = frozenset({"seq", "round", "seed", "examples", "attempt"})


def encode(message: Message) -> bytes:
    """JSON with ``v`` (protocol version) and ``type``; keys sorted, no blanks, so that equal messages are equal bytes."""
    body = {"v": VERSION, "type": _NAMES[type(message)]} | asdict(message)
    return json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def decode(raw: bytes | str, *expected: type[Message]) -> Message:
    """Parse one message and check every field.

    Args:
        raw: the JSON, at most MAX_MESSAGE_BYTES.
        expected: the kinds that may come here; none means any.

    Raises:
        DecodeError: too long, not JSON, another version, an unknown or unexpected type, a missing, unknown or
            ill-typed field, a number that is not finite.
    """
    if len(raw) > MAX_MESSAGE_BYTES:
        raise DecodeError(f"message of {len(raw)} bytes; at most {MAX_MESSAGE_BYTES} are read", code="too_large")
    try:
        body = json.loads(raw, parse_constant=_refuse_constant, object_pairs_hook=_unique)
        json.dumps(body, ensure_ascii=False).encode()  # a lone surrogate could be neither stored nor sent on
    except (ValueError, RecursionError) as error:
        raise DecodeError("the message is not JSON") from error
    if not isinstance(body, dict):
        raise DecodeError(f"a message is a JSON object, not {type(body).__name__}")
    if body.pop("v", None) != VERSION:
        raise DecodeError(f"this side speaks protocol version {VERSION}", code="version", hint="upgrade the older side")
    name = body.pop("type", None)
    kind = MESSAGES.get(name) if isinstance(name, str) else None
    if kind is None or (expected and kind not in expected):
        wanted = " or ".join(_NAMES[k] for k in expected) or "a known type"
        raise DecodeError(f"message type {name!r} where {wanted} was expected", code="unexpected_message")
    return _build(kind, body)


def _refuse_constant(word: str) -> float:
    raise ValueError(f"{word} is not JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    body = dict(pairs)
    if len(body) != len(pairs):
        raise ValueError("a name twice in one object")
    return body


def _build(kind: type[Message], body: dict[str, Any]) -> Message:
    known = {f.name: f for f in fields(kind)}
    if unknown := sorted(set(body) - set(known)):
        raise DecodeError(f"{_NAMES[kind]} has no field {unknown[0]!r}")
    for name, value in body.items():
        _check(kind, name, value, known[name].type)
    try:
        return kind(**body)
    except TypeError as error:
        raise DecodeError(f"{_NAMES[kind]} lacks a field: expected {', '.join(known)}") from error


def _check(kind: type[Message], name: str, value: Any, annotation: Any) -> None:
    ok = {
        "str": isinstance(value, str),
        "bool": isinstance(value, bool),
        "int": isinstance(value, int) and not isinstance(value, bool),
        "float": _is_number(value),
        "Mapping[str, float]": isinstance(value, dict) and all(_is_number(v) for v in value.values()),
        "Mapping[str, Any]": isinstance(value, dict),
    }[str(annotation)]
    if not ok:
        raise DecodeError(f"{_NAMES[kind]}.{name} should be {annotation}, got {type(value).__name__}")
    if name in _DIGESTS and not _DIGESTS[name].fullmatch(value):
        raise DecodeError(f"{_NAMES[kind]}.{name} should be {_DIGESTS[name].pattern}")
    if name in _COUNTS and not 0 <= value < 2**63:
        raise DecodeError(f"{_NAMES[kind]}.{name} should be in 0 .. 2^63-1, got {value}")


def _is_number(value: Any) -> bool:
    if isinstance(value, int):
        return not isinstance(value, bool) and abs(value) < 2**1023  # what a float can hold
    return isinstance(value, float) and math.isfinite(value)
