"""What a session is at one moment: ids, digests, weights and deadlines, never tensors.

Tuples sorted by participant, never sets: equal inputs must give equal effects, and the order of arrival leaves no trace.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from nevermined_fl.session import rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nevermined_fl.session.plan import Plan

__all__ = ["ASKING", "OVER", "Evaluation", "Member", "Metrics", "Phase", "Round", "Session", "Update"]

Metrics = tuple[tuple[str, float], ...]
"""Pairs of name and value, sorted by name."""


class Phase(StrEnum):
    """Named as in Bonawitz et al. 2019, arXiv:1902.01046."""

    SELECTION = "selection"
    INITIALIZATION = "initialization"
    CONFIGURATION = "configuration"
    REPORTING = "reporting"
    AGGREGATION = "aggregation"
    EVALUATION = "evaluation"
    FINISHED = "finished"
    FAILED = "failed"


OVER = (Phase.FINISHED, Phase.FAILED)
ASKING = (Phase.INITIALIZATION, Phase.REPORTING, Phase.EVALUATION)
"""Phases in which the cohort owes answers."""


@dataclass(frozen=True, slots=True)
class Member:
    """Who joined, under which agreement; ``present`` until it leaves."""

    participant: str
    agreement: str
    present: bool = True


@dataclass(frozen=True, slots=True)
class Update:
    """One counted update; ``weight`` is its number of examples, capped by the plan."""

    participant: str
    update: str
    weight: int
    metrics: Metrics = ()


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One counted evaluation, weighted like an update."""

    participant: str
    weight: int
    metrics: Metrics = ()


@dataclass(frozen=True, slots=True)
class Round:
    """A committed round: the model it made, of what, and how good it is; ``attempt`` says how often it was repeated."""

    number: int
    model: str
    updates: tuple[Update, ...]
    evaluations: tuple[Evaluation, ...]
    metrics: Metrics
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class Session:
    """One federated session.

    ``round`` counts from 1; 0 before the first. ``turn`` grows whenever participants are asked something, so it names
    what they are asked. ``attempt`` counts from 0 how often the round was begun again. ``model`` is the newest durable
    one, empty until there is one. ``cohort``, ``updates`` and ``evaluations`` belong to the current round, ``asked`` are
    all who were in its cohort in any attempt, and ``target`` answers are enough; ``history`` has the committed rounds.
    ``initial`` is the update that became the initial model, when a participant made it. ``deadline`` (Unix seconds) is
    when the driver should say Ticked; None means never.
    """

    id: str
    plan: Plan
    phase: Phase
    model: str
    deadline: float | None
    round: int = 0
    turn: int = 0
    attempt: int = 0
    target: int = 0
    members: tuple[Member, ...] = ()
    cohort: tuple[str, ...] = ()
    asked: tuple[str, ...] = ()
    updates: tuple[Update, ...] = ()
    evaluations: tuple[Evaluation, ...] = ()
    history: tuple[Round, ...] = ()
    initial: Update | None = None
    reason: str = ""

    def is_over(self) -> bool:
        """Whether it will not change any more; only the loss of its model reopens a finished one."""
        return self.phase in OVER

    def is_due(self, now: float) -> bool:
        """Whether the phase's time is up."""
        return self.deadline is not None and now >= self.deadline

    def member(self, participant: str) -> Member | None:
        """Whoever joined under that id, present or not."""
        return rows.find(self.members, participant)

    def is_present(self, participant: str) -> bool:
        """Whether it joined and did not leave."""
        member = self.member(participant)
        return member is not None and member.present

    def present(self) -> tuple[str, ...]:
        """Members that joined and did not leave, sorted."""
        return tuple(member.participant for member in self.members if member.present)

    def answers(self) -> tuple[Update, ...] | tuple[Evaluation, ...]:
        """What came of what this phase asks for."""
        return self.evaluations if self.phase is Phase.EVALUATION else self.updates

    def owes(self, participant: str) -> bool:
        """Whether this phase waits for an answer of that participant."""
        if self.phase not in ASKING or not rows.has(self.cohort, participant) or not self.is_present(participant):
            return False
        return rows.find(self.answers(), participant) is None

    def waits_for(self) -> tuple[str, ...]:
        """Members of the cohort that are present and owe an answer in this phase, sorted."""
        return tuple(self._owing())

    def is_waiting(self) -> bool:
        """Whether there are any; said after each answer, so it stops at the first."""
        return next(self._owing(), None) is not None

    def _owing(self) -> Iterator[str]:
        if self.phase not in ASKING:
            return
        # Sorted like the cohort, and all of them of its members.
        answers: Iterator[Update | Evaluation] = iter(self.answers())
        answer = next(answers, None)
        for participant in self.cohort:
            if answer is not None and answer.participant == participant:
                answer = next(answers, None)
            elif self.is_present(participant):
                yield participant

    def may_be_late(self, participant: str) -> bool:
        """Whether an update that it trained in an earlier attempt of this round would still count."""
        retrying = self.phase in (Phase.CONFIGURATION, Phase.REPORTING) and self.plan.late_updates == "use"
        return retrying and rows.has(self.asked, participant) and rows.find(self.updates, participant) is None

    def welcomes(self, participant: str, round_number: int) -> bool:
        """Whether that participant may upload an update of that round now."""
        if round_number != self.round or self.phase is Phase.EVALUATION:
            return False
        return self.owes(participant) or (self.is_present(participant) and self.may_be_late(participant))

    def model_before(self, number: int) -> str:
        """The model that round ``number`` trains."""
        if number > 1:
            return self.history[number - 2].model
        return self.plan.initial_model if self.initial is None else self.initial.update
