"""What participants may ask of the coordinator, whatever the transport: join, tasks, models, updates, reports.

Rule 1: a participant is whom its provider's token names *and* who holds the key that the token binds. Rule 2: tasks are
read off the session, never stored: after a restart of either side the same question gets the same answer.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import time
from collections import Counter
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from nevermined_fl.errors import (
    LocalProtocolError,
    PermissionDenied,
    RemoteProtocolError,
    RequestError,
    Unauthenticated,
)
from nevermined_fl.files import size_of
from nevermined_fl.messages import Evaluate, Evaluated, Finish, Initialize, Joined, Report, Train, Verdict, Wait, decode
from nevermined_fl.session import Phase, draw, effects, events
from nevermined_fl.tokens import EVALUATED, REPORT, verify_job, verify_join_proof

if TYPE_CHECKING:
    from pathlib import Path

    from nevermined_fl.driver.conductor import Conductor
    from nevermined_fl.driver.farewell import Farewell
    from nevermined_fl.driver.metrics import Metrics
    from nevermined_fl.driver.store import Store
    from nevermined_fl.driver.uploads import Uploads
    from nevermined_fl.driver.watch import Watch
    from nevermined_fl.messages import JoinRequest, Message, Task
    from nevermined_fl.ports import Admission, Admitted, UpdateSink

__all__ = ["Service"]

logger = logging.getLogger(__name__)

_PROOF_MEMORY = 180.0
"""Seconds for which a proof is remembered: longer than it can be fresh."""

_MOST_LEAVES = 100
"""Each time is written to the journal and to the events: a member that comes and goes for ever must not fill the disk."""


class Service:
    """Implements ports.SessionService for one session."""

    def __init__(
        self,
        conductor: Conductor,
        *,
        store: Store,
        uploads: Uploads,
        admission: Admission,
        fingerprint: str,
        watch: Watch,
        metrics: Metrics,
        farewell: Farewell,
    ) -> None:
        self._conductor = conductor
        self._store = store
        self._uploads = uploads
        self._admission = admission
        self._fingerprint = fingerprint
        self._watch = watch
        self._metrics = metrics
        self._farewell = farewell
        self._keys: dict[str, str] = {}
        self._proofs: dict[str, float] = {}
        self._fetching: dict[str, int] = {}
        self._leaves: Counter[str] = Counter()

    async def join(self, request: JoinRequest) -> Joined:
        """Take part, or take part again after a crash."""
        try:
            admitted = await self._admission.admit(request.token)
            jti = self._judge_proof(request, admitted)
            self._enrol(admitted)
            self._proofs[jti] = time.monotonic()
        except RequestError as error:
            self._conductor.refuse(error.check)
            raise
        self._keys[admitted.participant] = admitted.thumbprint
        self._watch.heard(admitted.participant)
        session = self._conductor.session
        return Joined(admitted.participant, session.id, secrets.token_urlsafe(32), session.plan.to_parameters())

    async def next_task(self, participant: str, *, after: int, wait: float) -> Task:
        """The first task with ``seq > after``; waits up to ``wait`` seconds and then returns a Wait task."""
        until = time.monotonic() + wait
        self._watch.heard(participant)
        while True:
            turned = self._conductor.turned()
            task = self._task(participant)
            if task is not None and task.seq > after:
                self._hand_over(participant, task)
                return task
            if (rest := until - time.monotonic()) <= 0:
                return Wait(after)
            with suppress(TimeoutError):
                async with asyncio.timeout(rest):
                    await turned.wait()

    def model_path(self, digest: str, *, participant: str = "") -> Path:
        """File with the model of that digest. Raises NotFound."""
        return self._hand_out(self._store.find(digest), participant)

    def delta_path(self, base: str, digest: str, *, participant: str = "") -> Path:
        """File with what changes model ``base`` into ``digest``. Raises NotFound."""
        return self._hand_out(self._store.find_delta(base, digest), participant)

    def fetched(self, participant: str) -> None:
        """Its download went out to the last byte."""
        self._watch.fetches(participant, begun=False)
        self._metrics.went(self._fetching.pop(participant, 0))

    def open_update(self, participant: str, *, round_number: int, digest: str, size: int) -> UpdateSink:
        """Start or go on with an upload of ``size`` bytes."""
        session = self._conductor.session
        refused = partial(self._refuse_upload, participant, round_number)
        try:
            if not self._owes_update(participant, round_number):
                text = f"no update of round {round_number} is expected of you in {session.phase}, round {session.round}"
                raise RemoteProtocolError(text, code="late")
            model = self._store.previous(session.model)
            later = partial(asyncio.get_running_loop().call_soon_threadsafe, refused)
            upload = self._uploads.open(participant, round_number, digest, size, model=model, refused=later)
        except RemoteProtocolError as error:
            refused(error.code)
            raise
        self._watch.uploads(participant, upload, size)
        return upload

    async def report(self, participant: str, signed: str) -> Verdict:
        """``signed`` is a Report as a JWS of the key that joined."""
        report = self._open_signed(participant, signed, REPORT, Report)
        assert isinstance(report, Report)
        self._judge_session(report.session)
        if self._owes_update(participant, report.round) and not self._uploads.has(
            participant, report.round, report.update
        ):
            return Verdict(accepted=False, code="no_update", message="upload the update before reporting it")
        return self._verdict(
            events.Reported(
                participant,
                report.round,
                report.model,
                report.update,
                report.examples,
                dict(report.metrics),
                report.attempt,
            ),
            signed,
        )

    async def evaluated(self, participant: str, signed: str) -> Verdict:
        """``signed`` is an Evaluated as a JWS of the key that joined."""
        answer = self._open_signed(participant, signed, EVALUATED, Evaluated)
        assert isinstance(answer, Evaluated)
        self._judge_session(answer.session)
        event = events.Evaluated(participant, answer.round, answer.model, answer.examples, dict(answer.metrics))
        return self._verdict(event, signed)

    async def leave(self, participant: str) -> None:
        """It will not answer any more, until it joins again: do not wait for it."""
        if self._leaves[participant] >= _MOST_LEAVES:
            raise RemoteProtocolError(f"nobody leaves a session more than {_MOST_LEAVES} times", code="too_often")
        self._watch.heard(participant)
        self._conductor.handle(events.Left(participant))
        self._leaves[participant] += 1

    def _judge_proof(self, request: JoinRequest, admitted: Admitted) -> str:
        """The proof's id, which counts as used when the join was done: where the disk was full it may come again."""
        jti = verify_join_proof(
            request.proof,
            thumbprint=admitted.thumbprint,
            session=self._conductor.session.id,
            fingerprint=self._fingerprint,
            token=request.token,
        )
        now = time.monotonic()
        while self._proofs and now - next(iter(self._proofs.values())) >= _PROOF_MEMORY:
            del self._proofs[next(iter(self._proofs))]  # the oldest comes first
        if jti in self._proofs:
            raise Unauthenticated("the proof was used before", check="proof_replayed", hint="make a new one")
        return jti

    def _enrol(self, admitted: Admitted) -> None:
        session = self._conductor.session
        member = session.member(admitted.participant)
        if session.is_over() and member is not None and member.agreement == admitted.agreement:
            return  # it comes back to hear how it ended
        verdict = self._conductor.handle(events.Joined(admitted.participant, admitted.agreement))
        if isinstance(verdict, effects.Reject):
            raise PermissionDenied(verdict.message, check=verdict.code)

    def _hand_over(self, participant: str, task: Task) -> None:
        if isinstance(task, Finish):
            self._farewell.tell(participant)
        else:
            self._watch.asked(participant, task.seq)

    def _hand_out(self, path: Path, participant: str) -> Path:
        if participant:
            self._watch.fetches(participant, begun=True)
            self._fetching[participant] = size_of(path)
        return path

    def _task(self, participant: str) -> Task | None:
        session = self._conductor.session
        if not self._conductor.is_ready():
            return None  # what remains of a deadline that passed while nobody was here would end the task at once
        if session.is_over():
            return Finish(session.turn + 1, str(session.phase), session.reason)
        if not session.owes(participant):
            return None
        turn, remaining = session.turn, max(0.0, (session.deadline or 0.0) - self._conductor.clock())
        if session.phase is Phase.INITIALIZATION:
            return Initialize(turn, session.plan.seed, remaining)
        if session.phase is Phase.REPORTING:
            seed = draw.training_seed(session.plan, session.round, participant, session.attempt)
            return Train(turn, session.round, session.model, seed, remaining, session.attempt)
        return Evaluate(turn, session.round, session.model, remaining)

    def _owes_update(self, participant: str, round_number: int) -> bool:
        return self._conductor.session.welcomes(participant, round_number)

    def _open_signed(self, participant: str, signed: str, typ: str, kind: type[Message]) -> Message:
        if (thumbprint := self._keys.get(participant)) is None:
            raise LocalProtocolError("a transport let somebody in who did not join")
        return decode(json.dumps(verify_job(signed, typ=typ, thumbprint=thumbprint)), kind)

    def _judge_session(self, session_did: str) -> None:
        if session_did != self._conductor.session.id:
            raise RemoteProtocolError("this is about another session", code="other_session")

    def _refuse_upload(self, participant: str, round_number: int, code: str) -> None:
        session = self._conductor.session
        if round_number == session.round:
            self._watch.refused(participant, session.turn, code)
        self._conductor.refuse_upload(participant, round_number, code)

    def _verdict(self, event: events.Reported | events.Evaluated, signed: str) -> Verdict:
        self._watch.heard(event.participant)
        kind = "report" if isinstance(event, events.Reported) else "evaluation"
        answer = self._conductor.handle(event, signed=signed)
        self._metrics.answered(kind, answer.code if isinstance(answer, effects.Reject) else "accepted")
        if isinstance(answer, effects.Reject):
            session = self._conductor.session
            if event.round == session.round:  # of an earlier one it only asks how that ended
                self._watch.refused(event.participant, session.turn, answer.code)
            return Verdict(accepted=False, code=answer.code, message=answer.message)
        return Verdict(accepted=True)
