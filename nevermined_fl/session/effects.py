"""What is to be done: the orders that a session gives its driver, in the imperative.

Doing an order twice is doing it once: after a restart the driver gets those of the current phase again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "Accept",
    "Adopt",
    "Aggregate",
    "AskEvaluation",
    "AskInitialModel",
    "Commit",
    "Configure",
    "Discard",
    "Effect",
    "Fail",
    "Finish",
    "Reject",
]


@dataclass(frozen=True, slots=True)
class Accept:
    """Tell a participant that its event counts, or counted already. Round 0 is before the first."""

    participant: str
    round: int


@dataclass(frozen=True, slots=True)
class Reject:
    """Tell a participant that its event changed nothing, with a code for programs and a sentence for people."""

    participant: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class AskInitialModel:
    """Let a participant make the initial model of ``seed`` until ``deadline``."""

    participant: str
    seed: int
    deadline: float


@dataclass(frozen=True, slots=True)
class Adopt:
    """Make that participant's update of round 0 the initial model, durably, and say Adopted."""

    update: str
    participant: str


@dataclass(frozen=True, slots=True)
class Configure:
    """Let ``cohort`` train ``model`` until ``deadline``; ``seeds`` stand in the cohort's order.

    ``attempt`` counts from 0 how often the round was begun again.
    """

    round: int
    model: str
    cohort: tuple[str, ...]
    seeds: tuple[int, ...]
    deadline: float
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class Aggregate:
    """Fold updates, each (participant, digest, weight), in this order, and say Aggregated."""

    round: int
    model_before: str
    updates: tuple[tuple[str, str, int], ...]


@dataclass(frozen=True, slots=True)
class AskEvaluation:
    """Let ``cohort`` evaluate ``model`` until ``deadline``."""

    round: int
    model: str
    cohort: tuple[str, ...]
    deadline: float


@dataclass(frozen=True, slots=True)
class Discard:
    """Delete what this participant uploaded for this round: refused, dropped, or folded into a durable model."""

    update: str
    participant: str
    round: int


@dataclass(frozen=True, slots=True)
class Commit:
    """The round is over: participants may forget their updates."""

    round: int
    model: str
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Finish:
    """The session is over; this is its model."""

    model: str


@dataclass(frozen=True, slots=True)
class Fail:
    """The session is over without a model."""

    reason: str


Effect = (
    Accept | Reject | AskInitialModel | Adopt | Configure | Aggregate | AskEvaluation | Discard | Commit | Finish | Fail
)
