"""A participant with its coordinator played by a script, and its trainer without a child."""

from __future__ import annotations

import json

from federation import did, make_plan
from transport_worlds import ALICE, BOB, SESSION, digest, make_model

from nevermined_fl.errors import RemoteProtocolError, Unauthenticated
from nevermined_fl.messages import Finish, Joined, Train, Verdict
from nevermined_fl.participant import Credentials, Participant
from nevermined_fl.session import draw
from nevermined_fl.tokens import JobKey
from nevermined_fl.trainers.child import Measured, Trained

ME = did("me")
PLAN = make_plan((ALICE, BOB), make_model(1.0), rounds=2)
UPDATE = make_model(4.0)


class Script:
    """A coordinator's side of a link: says what it is told to, and remembers what it heard."""

    def __init__(self, plan, tasks):
        self.plan, self.tasks, self.heard = plan, list(tasks), []
        self.parameters, self.session, self.joins = plan.to_parameters(), SESSION, []

    async def join(self, request):
        self.joins.append(request.proof)
        return Joined(ME, self.session, "bearer", self.parameters)

    async def next_task(self, *, after, wait):
        task = self.tasks.pop(0)
        if isinstance(task, Exception):
            raise task
        return task

    async def fetch_model(self, name, into):
        self.heard.append("fetch")
        into.write_bytes(make_model(1.0))

    async def send_update(self, *, round_number, digest, path):
        self.heard.append(("update", round_number, digest))
        if self.tasks and isinstance(self.tasks[0], Unauthenticated | RemoteProtocolError):
            raise self.tasks.pop(0)

    async def report(self, report):
        self.heard.append(report)
        return Verdict(accepted=True)

    async def evaluated(self, evaluated):
        self.heard.append(evaluated)
        return Verdict(accepted=False, code="late", message="too late")

    async def leave(self):
        self.heard.append("leave")

    async def close(self):
        pass


class Trainer:
    """The trainer behind the gate, without a child."""

    def __init__(self, error=None):
        self.fits, self.evaluations, self.error = 0, 0, error

    async def fit(self, model, seed, into, seconds, *, control=None):
        self.fits += 1
        if self.error:
            raise self.error
        into.write_bytes(UPDATE)
        return Trained(digest(UPDATE), 9, {"accuracy": 0.5})

    async def initialize(self, seed, into, seconds):
        self.fits += 1
        into.write_bytes(UPDATE)
        return Trained(digest(UPDATE), 1, {})

    async def evaluate(self, model, seconds):
        self.evaluations += 1
        return Measured(9, {"accuracy": 0.75})

    async def close(self):
        pass


def seed(number, attempt=0):
    return draw.training_seed(PLAN, number, ME, attempt)


def train(number, attempt=0, model=1.0):
    return Train(2 * number, number, digest(make_model(model)), seed(number, attempt), 60.0, attempt)


END = Finish(99, "finished")
LOST = Unauthenticated("the bearer is not known here", check="bearer")


def participant(plan, link, trainer, folder):
    who = Credentials(SESSION, ME, token="token", key=JobKey.create(), fingerprint="memory")
    return Participant(plan, who, link=link, trainer=trainer, folder=folder / "job")


def told(folder):
    return [json.loads(line)["event"] for line in (folder / "job" / "events.jsonl").read_text().splitlines()]
