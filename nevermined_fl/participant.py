"""The participant: asks the coordinator what to do, lets the buyer's code do it, and hands over what the gate let pass.

Rule 1: it only ever connects outward. Rule 2: an update is kept until another round is asked for, so that a coordinator
that dies loses nothing and nobody trains twice. Rule 3: whoever restarts joins again and asks from the beginning; the
answers say where things stand.
"""

from __future__ import annotations

import json
import logging
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from nevermined_fl.codecs import safetensors
from nevermined_fl.errors import (
    InvalidRequest,
    NeverminedFLError,
    NotFound,
    RemoteProtocolError,
    TrainerError,
    Unauthenticated,
)
from nevermined_fl.files import append_line, sha256_file, write_json
from nevermined_fl.messages import Evaluate, Evaluated, Finish, JoinRequest, Report, Train
from nevermined_fl.session import Plan
from nevermined_fl.tokens import make_join_proof

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from nevermined_fl.messages import Task
    from nevermined_fl.ports import CoordinatorLink
    from nevermined_fl.tokens import JobKey
    from nevermined_fl.trainers.child import TrainerTask

__all__ = ["Credentials", "Participant"]

logger = logging.getLogger(__name__)

_WAIT = 25.0
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


@dataclass(frozen=True, slots=True)
class _Kept:
    """The update that is kept, and what it answers."""

    round: int
    model: str
    seed: int
    digest: str
    examples: int
    metrics: dict[str, float]


class Participant:
    """One participant of one session.

    Args:
        plan: what was bought; a coordinator that says otherwise is refused.
        credentials: who it is.
        link: to the coordinator.
        trainer: the buyer's code behind the gate.
        folder: its own: kept update, models, events.
        on_event: hears every structured event.
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
    ) -> None:
        self._plan = plan
        self._who = credentials
        self._link = link
        self._trainer = trainer
        self._folder = folder
        self._on_event = on_event
        self._models = folder / "models"
        self._models.mkdir(parents=True, exist_ok=True)

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
        while True:
            task = await self._link.next_task(after=after, wait=_WAIT)
            if isinstance(task, Finish):
                return task
            if isinstance(task, Train | Evaluate):
                self._idle = False
                after = task.seq
                await self._answer(task)

    async def _answer(self, task: Task) -> None:
        """Do it; what comes too late or is refused is not the end, the next task may do better."""
        try:
            if isinstance(task, Train):
                await self._train(task)
            elif isinstance(task, Evaluate):
                await self._evaluate(task)
        except (RemoteProtocolError, NotFound) as error:
            self._tell("refused", round=getattr(task, "round", 0), code=getattr(error, "code", "not_found"))
            logger.warning("the coordinator refused: %s", error)
        except TrainerError as error:
            if error.kind == "TimeoutError" and not error.line:
                self._tell("round_missed", round=getattr(task, "round", 0))
                return
            self._tell("algorithm_failed", kind=error.kind, line=error.line)
            await self.leave()
            raise

    async def _train(self, task: Train) -> None:
        kept = self._kept(task)
        if kept is None:
            model = await self._model(task.model)
            trained = await self._trainer.fit(model, task.seed, self._update, task.remaining)
            kept = _Kept(task.round, task.model, task.seed, trained.digest, trained.examples, trained.metrics)
            write_json(self._folder / "kept.json", asdict(kept))
            self._tell("round_trained", round=task.round, examples=kept.examples)
        await self._link.send_update(round_number=task.round, digest=kept.digest, path=self._update)
        self._tell("update_sent", round=task.round)
        report = Report(self._who.session, task.round, task.model, kept.digest, kept.examples, kept.metrics)
        verdict = await self._link.report(report)
        if not verdict.accepted:
            raise RemoteProtocolError(verdict.message, code=verdict.code)

    async def _evaluate(self, task: Evaluate) -> None:
        measured = await self._trainer.evaluate(await self._model(task.model), task.remaining)
        answer = Evaluated(self._who.session, task.round, task.model, measured.examples, measured.metrics)
        verdict = await self._link.evaluated(answer)
        if not verdict.accepted:
            raise RemoteProtocolError(verdict.message, code=verdict.code)
        self._tell("evaluated", round=task.round, metrics=measured.metrics)

    @property
    def _update(self) -> Path:
        return self._folder / "update.safetensors"

    def _kept(self, task: Train) -> _Kept | None:
        """The update that this task asks for, if it was made before."""
        try:
            kept = _Kept(**json.loads((self._folder / "kept.json").read_text()))
        except (OSError, ValueError, TypeError):
            return None
        asked = (kept.round, kept.model, kept.seed) == (task.round, task.model, task.seed)
        whole = asked and self._update.exists() and sha256_file(self._update) == kept.digest
        return kept if whole else None

    async def _model(self, digest: str) -> Path:
        """The model of that digest, from the coordinator unless it is here; older ones go."""
        path = self._models / f"{digest.removeprefix('sha256:')}.safetensors"
        if not path.exists():
            for old in self._models.glob("*.safetensors"):
                old.unlink()
            await self._link.fetch_model(digest, path)
            if path.stat().st_size != safetensors.file_size(self._plan.schema):
                path.unlink()
                raise RemoteProtocolError("the model has not the plan's schema", code="schema")
        return path

    def _tell(self, event: str, **scalars: Any) -> None:
        who = {"session": self._who.session, "participant": self._who.participant}
        line = {"time": round(time.time(), 3), "event": event} | who | scalars
        append_line(self._folder / "events.jsonl", json.dumps(line, sort_keys=True))
        if self._on_event is not None:
            self._on_event(line)
