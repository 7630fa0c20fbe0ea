"""No more is given than was bought, and what was asked for is remembered, over restarts and full disks."""

from __future__ import annotations

import errno
import os
from dataclasses import replace

import pytest
from participant_world import END, ME, PLAN, UPDATE, Script, Trainer, participant, seed, told, train
from transport_worlds import World, digest, make_model

from nevermined_fl.errors import RemoteProtocolError
from nevermined_fl.messages import Evaluate, Evaluated, Initialize, Report
from nevermined_fl.participant import asking
from nevermined_fl.participant.bought import Bought
from nevermined_fl.trainers.child import Measured


@pytest.fixture
def in_no_time(monkeypatch):
    """It never pauses, however much it has to refuse."""
    monkeypatch.setattr(asking, "_LONGEST", 0.0)


class Many(Script):
    """Has every model."""

    async def fetch_model(self, name, into):
        into.write_bytes(next(raw for raw in map(make_model, range(1, 9)) if digest(raw) == name))


class Killed(BaseException):
    """The process ends now."""


class Restless(Trainer):
    """Gives something else each time."""

    async def evaluate(self, model, seconds):
        self.evaluations += 1
        return Measured(9, {"accuracy": self.evaluations / 4})


async def test_more_than_was_bought_is_not_done(tmp_path):
    """The plan has two rounds and names its first model: more answers would be more looks at the data."""
    trainer = Trainer()
    asked = [train(3), Evaluate(7, 3, digest(UPDATE), 60.0), Initialize(8, 11, 60.0)]
    link = Script(PLAN, [*asked, END])
    assert await participant(PLAN, link, trainer, tmp_path).run() == END
    assert (trainer.fits, link.heard) == (0, [])
    assert told(tmp_path) == ["joined", "refused", "refused", "refused", "over"]


@pytest.mark.parametrize(
    "asked",
    [
        replace(train(1), seed=8),
        replace(train(1), attempt=1, seed=seed(1, 1)),
        replace(train(1), round=0, seed=seed(0)),
        Evaluate(3, 1, digest(UPDATE), 60.0),  # every second round is evaluated
    ],
)
async def test_another_seed_attempt_or_evaluation_than_the_plans_is_refused(tmp_path, asked):
    trainer, plan = Trainer(), World(tmp_path, evaluate_every=2).plan
    link = Script(plan, [asked, END])
    await participant(plan, link, trainer, tmp_path).run()
    assert (trainer.fits, link.heard) == (0, [])
    assert told(tmp_path) == ["joined", "refused", "over"]


@pytest.mark.usefixtures("in_no_time")
async def test_a_round_is_done_again_with_other_models_a_few_times_alone(tmp_path):
    """A coordinator that lost models may ask so; one that wants more looks at the data may not, restarted or not."""
    trainer, models = Trainer(), [float(number) for number in range(1, 9)]
    for asked in (models[:2], models[1:5], models):
        tasks = [task for value in asked for task in (train(1, model=value), measured(value))]
        await participant(PLAN, link := Many(PLAN, [*tasks, END]), trainer, tmp_path).run()
    assert (trainer.fits, trainer.evaluations) == (3, 3)
    assert [heard.model for heard in link.heard if isinstance(heard, Evaluated)] == models_of(1, 2, 3)
    assert [heard.model for heard in link.heard if isinstance(heard, Report)] == models_of(3)


@pytest.mark.usefixtures("in_no_time")
async def test_rounds_that_are_asked_for_in_a_circle_are_not_done_ever_again(tmp_path):
    """Only the newest updates are kept, so each of these would be trained anew, with new chance in it."""
    trainer, plan = Restless(), World(tmp_path, rounds=3, initial_model="participant").plan
    circle = [train(1), train(2), train(3), measured(1), Initialize(8, 11, 60.0)]
    for _ in range(2):
        await participant(plan, link := Script(plan, [*circle * 10, END]), trainer, tmp_path).run()
    assert trainer.fits == 3 * 4
    assert trainer.evaluations == 1
    assert {heard.metrics["accuracy"] for heard in link.heard if isinstance(heard, Evaluated)} == {0.25}


async def test_who_is_killed_at_work_may_do_it_again_as_often_as_it_takes(tmp_path):
    for _ in range(5):
        with pytest.raises(Killed):
            await participant(PLAN, Script(PLAN, [train(1)]), Trainer(Killed()), tmp_path).run()
    trainer = Trainer()
    await participant(PLAN, Script(PLAN, [train(1), END]), trainer, tmp_path).run()
    assert trainer.fits == 1


@pytest.fixture
def bought(tmp_path):
    """What a process that was just started remembers."""
    return lambda: Bought(tmp_path / "asked.jsonl", PLAN, ME)


def measured(value):
    return Evaluate(3, 1, digest(make_model(float(value))), 60.0)


def models_of(*values):
    return [digest(make_model(float(value))) for value in values]


def gave(value):
    return Measured(9, {"accuracy": value / 8})


def test_three_times_and_no_fourth_however_often_it_is_started(bought):
    for value in (1, 2, 3):
        bought().judge_work(measured(value))
        bought().note(measured(value), gave(value))
    with pytest.raises(RemoteProtocolError, match="ever again"):
        bought().judge_work(measured(4))
    assert [bought().measured(measured(value)) for value in (1, 2, 3, 4)] == [gave(1), gave(2), gave(3), None]


def test_half_a_line_of_a_full_disk_swallows_no_other(bought, tmp_path, monkeypatch):
    def full(handle, raw, write=os.write):
        if len(raw) < 50:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(handle, raw[:50])

    bought().note(measured(1), gave(1))
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space"):
            bought().note(measured(2), gave(2))
    assert bought().measured(measured(2)) is None
    bought().note(measured(3), gave(3))
    bought().note(measured(2), gave(2))
    with pytest.raises(RemoteProtocolError, match="ever again"):
        bought().judge_work(measured(4))
    assert [bought().measured(measured(value)) for value in (1, 2, 3)] == [gave(1), gave(2), gave(3)]
    assert len((tmp_path / "asked.jsonl").read_text().splitlines()) > 3


def test_what_an_earlier_version_wrote_still_counts(bought, tmp_path):
    """Its lines have no answers."""
    lines = [f'\n["evaluate 1", "{model}"]\n' for model in models_of(1, 2, 3)]
    (tmp_path / "asked.jsonl").write_text("".join(lines))
    assert bought().measured(measured(1)) is None
    with pytest.raises(RemoteProtocolError, match="ever again"):
        bought().judge_work(measured(1))
