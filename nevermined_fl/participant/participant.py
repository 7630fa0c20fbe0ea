"""The participant: asks the coordinator what to do, lets the buyer's code do it, and hands over what the gate let pass.

Rule 1: it only ever connects outward. Rule 2: a finished update is kept until two newer rounds were trained for, so that
a coordinator that dies loses nothing and nobody trains twice. Rule 3: whoever restarts joins again and asks from the
beginning; the answers say where things stand.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nevermined_fl.errors import (
    InvalidRequest,
    NeverminedFLError,
    NotFound,
    RemoteProtocolError,
    TrainerError,
    Unauthenticated,
)
from nevermined_fl.files import append_line, storage
from nevermined_fl.messages import Evaluate, Evaluated, Finish, Initialize, JoinRequest, Report, Train, Wait
from nevermined_fl.participant.asking import Asking
from nevermined_fl.participant.beside import Overtaken, work_on
from nevermined_fl.participant.bought import Bought
from nevermined_fl.participant.keep import Keep, Kept
from nevermined_fl.participant.making import finish
from nevermined_fl.participant.models import Models
from nevermined_fl.session import Plan
from nevermined_fl.tokens import make_join_proof

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from nevermined_fl.messages import Task, Verdict
    from nevermined_fl.ports import CoordinatorLink
    from nevermined_fl.tokens import JobKey
    from nevermined_fl.trainers.child import Measured, TrainerTask

__all__ = ["Credentials", "Participant"]

logger = logging.getLogger(__name__)

_OVER = "over"
"""Code of a verdict that says nothing of what was reported: a session that lost its model goes on after its end."""
_REJOINS = 5
"""How often it joins again without being asked anything in between."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who it is in which session: what its provider's launcher gave it."""

    session: str
    participant: str
    token: str
    key: JobKey
    fingerprint: str


class Participant:
    """One participant of one session.

    Args:
        plan: what was bought; a coordinator that says otherwise is refused.
        credentials: who it is.
        link: to the coordinator.
        trainer: the buyer's code behind the gate.
        folder: its own: ``kept`` updates, ``models``, what was done of what was ``asked``, events.
        on_event: hears every structured event.
        on_round: hears, before a task is answered, which round it is of; 0 is the first model's.
    """

    def __init__(
        self,
        plan: Plan,
        credentials: Credentials,
        *,
        link: CoordinatorLink,
        trainer: TrainerTask,
        folder: Path,
        on_event: Callable[[dict[str, Any]], None] | None = None,
        on_round: Callable[[int], None] | None = None,
    ) -> None:
        self._plan = plan
        self._who = credentials
        self._link = link
        self._trainer = trainer
        self._folder = folder
        self._on_event = on_event
        self._on_round = on_round
        self._asking = Asking(link)
        self._models = Models(folder / "models", plan, link)
        self._keep = Keep(folder / "kept")
        self._bought = Bought(folder / "asked.jsonl", plan, credentials.participant)

    async def run(self) -> Finish:
        """Take part until the session is over.

        Raises:
            TrainerError: the buyer's code failed.
            TransportError: the coordinator did not answer for too long.
            PermissionDenied, Unauthenticated: the coordinator does not let it in.
            RemoteProtocolError: the coordinator conducts another plan than was bought.
        """
        rejoins = 0
        while True:
            await self._join()
            try:
                finish = await self._work()
            except Unauthenticated:
                # A coordinator that was started again knows no bearer: ask it everything anew.
                rejoins = rejoins + 1 if self._idle else 0
                if rejoins > _REJOINS:
                    raise
            else:
                self._tell("over", outcome=finish.outcome, reason=finish.reason[:500])
                return finish

    async def leave(self) -> None:
        """Tell the coordinator that no answer will come, if it can be told."""
        with suppress(NeverminedFLError):
            await self._link.leave()

    async def _join(self) -> None:
        who = self._who
        for attempt in range(3):
            proof = make_join_proof(who.key, session=who.session, fingerprint=who.fingerprint, token=who.token)
            try:
                joined = await self._link.join(JoinRequest(who.token, proof))
                break
            except Unauthenticated as error:
                # An answer that got lost leaves a proof that was used: make a new one.
                if error.check != "proof_replayed" or attempt == 2:
                    raise
        if (joined.session, joined.participant) != (who.session, who.participant):
            raise RemoteProtocolError("the coordinator conducts another session", code="other_session")
        if not self._is_plan(joined.parameters):
            raise RemoteProtocolError("the coordinator's plan is not the one that was bought", code="other_plan")
        self._tell("joined")

    def _is_plan(self, parameters: Any) -> bool:
        try:
            return Plan.from_parameters(parameters, self._plan.members) == self._plan
        except InvalidRequest:
            return False

    async def _work(self) -> Finish:
        after, self._idle = 0, True
        task = await self._asking.next_task(after)
        while not isinstance(task, Finish):
            instead = None
            if not isinstance(task, Wait):
                self._idle = False
                after = task.seq
                instead = await self._answer(task)
            task = instead or await self._asking.next_task(after)
        return task

    async def _answer(self, task: Train | Evaluate | Initialize) -> Task | None:
        """Do it, or hear of something else to be done instead.

        What comes too late or is refused is not the end: the next task may do better.
        """
        number = getattr(task, "round", 0)
        if self._on_round is not None:
            self._on_round(number)
        try:
            with storage("the participant's disk"):
                self._bought.judge(task)
                await self._do(task)
                self._asking.go_on()
        except Overtaken as overtaken:
            self._tell("round_missed", round=number)
            return overtaken.task
        except (RemoteProtocolError, NotFound) as error:
            self._tell("refused", round=number, code=getattr(error, "code", "not_found"))
            logger.warning("the coordinator refused: %s", error)
            await self._asking.pause()
        except TrainerError as error:
            if error.kind == "TimeoutError" and not error.line:
                self._tell("round_missed", round=number)
                return None
            self._tell("algorithm_failed", kind=error.kind, line=error.line)
            await self.leave()
            raise
        return None

    async def _do(self, task: Train | Evaluate | Initialize) -> None:
        match task:
            case Train():
                await self._train(task)
            case Evaluate():
                await self._evaluate(task)
            case Initialize():
                await self._initialize(task)

    async def _train(self, task: Train) -> None:
        kept = self._keep.find(task.round, task.model, task.seed) or await self._fit(task)
        await self._deliver(kept, task.model, task.attempt)

    async def _fit(self, task: Train) -> Kept:
        self._bought.judge_work(task)
        until = time.monotonic() + task.remaining
        model = await self._models.get(task.model)
        whole = self._keep.path(task.round, task.seed, "whole")
        basis = await self._basis(task.round)
        control = self._keep.left(basis, "control")
        fit = self._trainer.fit(model, task.seed, whole, until - time.monotonic(), control=control)
        trained = await work_on(task, fit, self._asking)
        self._bought.note(task)
        kept = await asyncio.to_thread(
            finish, self._keep, self._plan, task, basis=basis, model=model, whole=whole, trained=trained
        )
        self._tell("round_trained", round=task.round, examples=kept.examples)
        return kept

    async def _basis(self, round_number: int) -> Kept | None:
        """What the update of that round builds on: the newest one of a round before it that counts.

        Whether it does is asked again, by the same report: the answer may never have come, and a coordinator that began
        the round again, or found the update damaged, has dropped what it had accepted.
        """
        for kept in self._keep.earlier(round_number):
            verdict = await self._report(kept, kept.model)
            if verdict.accepted:
                return kept
            if verdict.code == _OVER:
                _heed(verdict)
        return None

    async def _initialize(self, task: Initialize) -> None:
        """Make the first model, which nobody has yet; it travels as an update of round 0."""
        kept = self._keep.find(0, "", task.seed)
        if kept is None:
            self._bought.judge_work(task)
            into = self._keep.path(0, task.seed, "update")
            made = await work_on(task, self._trainer.initialize(task.seed, into, task.remaining), self._asking)
            self._bought.note(task)
            kept = Kept(0, "", task.seed, made.digest, made.examples, made.metrics)
            self._keep.add(kept)
        await self._deliver(kept, kept.update)

    async def _deliver(self, kept: Kept, model: str, attempt: int = 0) -> None:
        path = self._keep.path(kept.round, kept.seed, "update")
        await self._link.send_update(round_number=kept.round, digest=kept.update, path=path)
        self._tell("update_sent", round=kept.round)
        _heed(await self._report(kept, model, attempt))

    async def _report(self, kept: Kept, model: str, attempt: int = 0) -> Verdict:
        report = Report(self._who.session, kept.round, model, kept.update, kept.examples, kept.metrics, attempt)
        verdict = await self._link.report(report)
        if verdict.code != _OVER:
            self._keep.note(kept, refused=not verdict.accepted)
        return verdict

    async def _evaluate(self, task: Evaluate) -> None:
        measured = self._bought.measured(task) or await self._measure(task)
        answer = Evaluated(self._who.session, task.round, task.model, measured.examples, measured.metrics)
        _heed(await self._link.evaluated(answer))
        self._tell("evaluated", round=task.round, metrics=measured.metrics)

    async def _measure(self, task: Evaluate) -> Measured:
        self._bought.judge_work(task)
        until = time.monotonic() + task.remaining
        model = await self._models.get(task.model)
        measured = await work_on(task, self._trainer.evaluate(model, until - time.monotonic()), self._asking)
        self._bought.note(task, measured)
        return measured

    def _tell(self, event: str, **scalars: Any) -> None:
        who = {"session": self._who.session, "participant": self._who.participant}
        line = {"time": round(time.time(), 3), "event": event} | who | scalars
        append_line(self._folder / "events.jsonl", json.dumps(line, sort_keys=True))
        if self._on_event is not None:
            self._on_event(line)


def _heed(verdict: Verdict) -> None:
    if not verdict.accepted:
        raise RemoteProtocolError(verdict.message, code=verdict.code)
