"""The participant, against a coordinator that forgets, cheats or changes its mind."""

from __future__ import annotations

import json

import pytest
from federation import did

from nevermined_fl.errors import RemoteProtocolError, TrainerError, Unauthenticated
from nevermined_fl.messages import Evaluate, Finish, Joined, Train, Verdict, Wait
from nevermined_fl.participant import Credentials, Participant
from nevermined_fl.tokens import JobKey
from nevermined_fl.trainers.child import Measured, Trained

from transport_worlds import SESSION, World, digest, make_model  # isort: skip

ME = did("me")
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
        self.fits, self.error = 0, error

    async def fit(self, model, seed, into, seconds, *, control=None):
        self.fits += 1
        if self.error:
            raise self.error
        into.write_bytes(UPDATE)
        return Trained(digest(UPDATE), 9, {"accuracy": 0.5})

    async def evaluate(self, model, seconds):
        return Measured(9, {"accuracy": 0.75})

    async def close(self):
        pass


@pytest.fixture
def plan(tmp_path):
    return World(tmp_path).plan


def train(number):
    return Train(2 * number, number, digest(make_model(1.0)), 7, 60.0)


END = Finish(99, "finished")
LOST = Unauthenticated("the bearer is not known here", check="bearer")


def participant(plan, link, trainer, folder):
    who = Credentials(SESSION, ME, token="token", key=JobKey.create(), fingerprint="memory")
    return Participant(plan, who, link=link, trainer=trainer, folder=folder / "job")


def told(folder):
    return [json.loads(line)["event"] for line in (folder / "job" / "events.jsonl").read_text().splitlines()]


async def test_a_round_is_trained_sent_reported_and_evaluated(plan, tmp_path):
    link = Script(plan, [Wait(0), train(1), Evaluate(3, 1, digest(make_model(1.0)), 60.0), END])
    assert await participant(plan, link, Trainer(), tmp_path).run() == END
    assert [heard if isinstance(heard, str | tuple) else type(heard).__name__ for heard in link.heard] == [
        "fetch",
        ("update", 1, digest(UPDATE)),
        "Report",
        "Evaluated",
    ]
    assert told(tmp_path) == ["joined", "round_trained", "update_sent", "refused", "over"]


async def test_who_is_asked_again_after_a_restart_offers_what_it_kept(plan, tmp_path):
    trainer = Trainer()
    link = Script(plan, [train(1), LOST, train(1), END])
    await participant(plan, link, trainer, tmp_path).run()
    await participant(plan, Script(plan, [train(1), END]), trainer, tmp_path).run()
    assert trainer.fits == 1
    assert len(link.joins) == len(set(link.joins)) == 2


async def test_a_kept_update_that_is_damaged_or_of_another_round_is_trained_again(plan, tmp_path):
    trainer = Trainer()
    await participant(plan, Script(plan, [train(1), END]), trainer, tmp_path).run()
    (tmp_path / "job" / "kept" / "1-7.update").write_bytes(UPDATE[:-1])
    await participant(plan, Script(plan, [train(1), END]), trainer, tmp_path).run()
    await participant(plan, Script(plan, [train(2), END]), trainer, tmp_path).run()
    (tmp_path / "job" / "kept" / "kept.json").write_text("{}")
    await participant(plan, Script(plan, [train(2), END]), trainer, tmp_path).run()
    assert trainer.fits == 4


async def test_an_update_that_comes_too_late_is_not_the_end(plan, tmp_path):
    link = Script(plan, [train(1), RemoteProtocolError("too late", code="late"), train(2), END])
    trainer = Trainer()
    await participant(plan, link, trainer, tmp_path).run()
    assert trainer.fits == 2
    assert told(tmp_path).count("refused") == 1


async def test_a_coordinator_that_forgets_for_ever_is_given_up(plan, tmp_path):
    with pytest.raises(Unauthenticated):
        await participant(plan, Script(plan, [LOST] * 20), Trainer(), tmp_path).run()


async def test_a_coordinator_with_another_plan_or_session_is_refused(plan, tmp_path):
    for change in ({"parameters": plan.to_parameters() | {"rounds": 9}}, {"session": did("x")}, {"parameters": {}}):
        link = Script(plan, [train(1)])
        link.__dict__.update(change)
        with pytest.raises(RemoteProtocolError):
            await participant(plan, link, Trainer(), tmp_path).run()
        assert not link.heard


async def test_training_that_took_too_long_costs_the_round_alone(plan, tmp_path):
    slow = Trainer(TrainerError("too long", kind="TimeoutError"))
    assert await participant(plan, Script(plan, [train(1), END]), slow, tmp_path).run() == END
    assert told(tmp_path) == ["joined", "round_missed", "over"]


async def test_an_algorithm_that_failed_is_told_to_the_coordinator_as_leaving(plan, tmp_path):
    link = Script(plan, [train(1)])
    broken = Trainer(TrainerError("the algorithm raised KeyError in line 3", kind="KeyError", line=3))
    with pytest.raises(TrainerError):
        await participant(plan, link, broken, tmp_path).run()
    assert link.heard == ["fetch", "leave"]
    assert told(tmp_path) == ["joined", "algorithm_failed"]
