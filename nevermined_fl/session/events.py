"""What happened: the facts that a session hears about, in past tense.

Peers' events name a ``participant`` and may be refused; the others are our own driver's, and wrong ones are our bug.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from nevermined_fl.errors import DecodeError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "EVENTS",
    "Adopted",
    "Aggregated",
    "Evaluated",
    "Event",
    "Joined",
    "Left",
    "Lost",
    "PeerEvent",
    "Reported",
    "Restarted",
    "RolledBack",
    "Stopped",
    "Ticked",
    "from_json",
    "to_json",
]


@dataclass(frozen=True, slots=True)
class Joined:
    """An admitted participant takes part, or takes part again after a crash."""

    participant: str
    agreement: str


@dataclass(frozen=True, slots=True)
class Left:
    """A participant will not answer any more, until it joins again."""

    participant: str


@dataclass(frozen=True, slots=True)
class Reported:
    """A participant trained ``model``; the update of digest ``update`` is in the spool, whole and verified.

    In round 0 it made the initial model: ``model`` and ``update`` are the same. ``attempt`` is that of its task.
    """

    participant: str
    round: int
    model: str
    update: str
    examples: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class Adopted:
    """The driver made a participant's model the initial one, durably."""

    model: str


@dataclass(frozen=True, slots=True)
class Aggregated:
    """The driver wrote the round's new model, durably."""

    round: int
    model: str


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A participant evaluated ``model`` on its own data."""

    participant: str
    round: int
    model: str
    examples: int
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ticked:
    """Time went by; the driver says so at ``session.deadline``."""


@dataclass(frozen=True, slots=True)
class Stopped:
    """The owner or the driver gives up, for a reason that the buyer may read."""

    reason: str


@dataclass(frozen=True, slots=True)
class Restarted:
    """The coordinator's process came back; what was ordered may not have been done."""


@dataclass(frozen=True, slots=True)
class Lost:
    """The body of an update that counts is gone or damaged, as its digest shows."""

    participant: str
    round: int
    update: str


@dataclass(frozen=True, slots=True)
class RolledBack:
    """The model that ``round`` made is gone or damaged, or the server's state that belongs to it; 0 is the initial one."""

    round: int


PeerEvent = Joined | Left | Reported | Evaluated
Event = PeerEvent | Adopted | Aggregated | Ticked | Stopped | Restarted | Lost | RolledBack
EVENTS: dict[str, type[Event]] = {
    "joined": Joined,
    "left": Left,
    "reported": Reported,
    "adopted": Adopted,
    "aggregated": Aggregated,
    "evaluated": Evaluated,
    "ticked": Ticked,
    "stopped": Stopped,
    "restarted": Restarted,
    "lost": Lost,
    "rolled_back": RolledBack,
}
_NAMES = {kind: name for name, kind in EVENTS.items()}


def to_json(event: Event) -> dict[str, Any]:
    """The event as the journal keeps it: its fields and ``type``."""
    return {"type": _NAMES[type(event)]} | asdict(event)


def from_json(body: Mapping[str, Any]) -> Event:
    """The event that ``to_json`` wrote. Raises DecodeError for anything else."""
    try:
        return EVENTS[body["type"]](**{name: value for name, value in body.items() if name != "type"})
    except (KeyError, TypeError) as error:
        raise DecodeError(f"the journal holds no event of ours: {body!r:.80}") from error
