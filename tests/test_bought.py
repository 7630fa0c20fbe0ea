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
from nevermined_fl.participant.bought import Bought


class Many(Script):
    """Has every model."""

    async def fetch_model(self, name, into):
        into.write_bytes(next(raw for raw in map(make_model, range(1, 9)) if digest(raw) == name))


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


async def test_a_round_is_asked_for_with_other_models_a_few_times_alone(tmp_path):
    """A coordinator that lost models may ask so; one that wants more looks at the data may not, restarted or not."""
    trainer, models = Trainer(), [float(number) for number in range(1, 9)]
    measure = [Evaluate(3, 1, digest(make_model(value)), 60.0) for value in models]
    for asked in (models[:2], models[:5], models):
        tasks = [task for value in asked for task in (train(1, model=value), measure[int(value) - 1])]
        await participant(PLAN, link := Many(PLAN, [*tasks, END]), trainer, tmp_path).run()
        assert len([heard for heard in link.heard if isinstance(heard, Evaluated)]) == min(3, len(asked))
    assert len({report.model for report in link.heard if isinstance(report, Report)}) == 3


@pytest.fixture
def bought(tmp_path):
    """What a process that was just started remembers."""
    return lambda: Bought(tmp_path / "asked.jsonl", PLAN, ME)


def evaluate(value):
    return Evaluate(3, 1, digest(make_model(float(value))), 60.0)


def test_three_models_and_no_fourth_however_often_it_is_started(bought):
    for value in (1, 2, 2, 3, 1):
        bought().judge(evaluate(value))
    with pytest.raises(RemoteProtocolError, match="other models"):
        bought().judge(evaluate(4))


def test_half_a_line_of_a_full_disk_swallows_no_other(bought, tmp_path, monkeypatch):
    def full(handle, raw, write=os.write):
        if len(raw) < 50:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(handle, raw[:50])

    bought().judge(evaluate(1))
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space"):
            bought().judge(evaluate(2))
    bought().judge(evaluate(3))
    bought().judge(evaluate(2))
    with pytest.raises(RemoteProtocolError, match="other models"):
        bought().judge(evaluate(4))
    assert len((tmp_path / "asked.jsonl").read_text().split()) > 3
