"""What an update builds on: the last one that counted, whatever was refused or killed in between."""

from __future__ import annotations

import numpy as np
import pytest
from participant_world import END, Script, Trainer, participant, train
from transport_worlds import World, digest, make_model

from nevermined_fl import precision
from nevermined_fl.codecs import safetensors
from nevermined_fl.messages import Report, Verdict
from nevermined_fl.trainers.child import Trained


class Counting(Script):
    """Remembers what counts, as a session does; ``late`` rounds do not, and after the ``fatal`` ones its answer is lost."""

    def __init__(self, plan, tasks, counted, late, fatal=()):
        super().__init__(plan, tasks)
        self.counted, self.late, self.fatal = counted, late, list(fatal)

    async def report(self, report):
        self.heard.append(report)
        is_current = all(counted.round < report.round for counted in self.counted)
        if report.round not in self.late and is_current:
            self.counted.append(report)
        if report.round in self.fatal:
            raise KeyboardInterrupt  # the process ends now
        accepted = report in self.counted
        return Verdict(accepted=accepted, code="accepted" if accepted else "late")


class Building(Trainer):
    """Each round's change of the control variate is a power of ten, so that the sum says which rounds are in it."""

    def __init__(self, plan, folder):
        super().__init__()
        self.plan, self.folder, self.controls, self.wholes = plan, folder, [], []

    async def fit(self, model, seed, into, seconds, *, control=None):
        self.fits += 1
        rng = np.random.default_rng(self.fits)
        trained = {n: t + rng.normal(size=t.shape) for n, t in safetensors.load(make_model(1.0)).items()}
        tensors = {"w": trained["w"].astype(np.float32), "b": trained["b"]}
        if self.plan.carried() != self.plan.schema:
            tensors |= {f"control/{n}": np.full_like(t, 10.0 ** (self.fits - 1)) for n, t in list(tensors.items())}
        raw = safetensors.dump(tensors)
        into.write_bytes(raw)
        self.controls.append(0.0 if control is None else float(safetensors.load(control.read_bytes())["w"][0, 0]))
        for residual in into.parent.glob("*.residual"):
            (self.folder / residual.name.partition("-")[0]).write_bytes(residual.read_bytes())
        self.wholes.append(raw)
        return Trained(digest(raw), 9, {})


async def ended(plan, link, trainer, folder):
    with pytest.raises(KeyboardInterrupt):
        await participant(plan, link, trainer, folder).run()


@pytest.mark.parametrize(
    ("late", "expected"), [((), [0, 1, 11, 111]), ((2,), [0, 1, 1, 101]), ((1, 3), [0, 0, 10, 10])]
)
@pytest.mark.parametrize("fatal", [0, 1, 2, 3])
async def test_a_control_variate_grows_with_what_counts_alone(tmp_path, late, expected, fatal):
    """Also where the process died between the coordinator's verdict and its own note of it."""
    plan = World(tmp_path, strategy="scaffold", rounds=4).plan
    trainer, counted, tasks = Building(plan, tmp_path), [], [train(number) for number in (1, 2, 3, 4)]
    if fatal:
        await ended(plan, Counting(plan, tasks[:fatal], counted, late, [fatal]), trainer, tmp_path)
    await participant(plan, Counting(plan, [*tasks[fatal:], END], counted, late), trainer, tmp_path).run()
    assert trainer.controls == expected
    assert [report.round for report in counted] == [number for number in (1, 2, 3, 4) if number not in late]


async def test_what_was_accepted_and_then_dropped_does_not_count(tmp_path):
    """The round was begun again without us, or the coordinator found our update damaged."""
    plan = World(tmp_path, strategy="scaffold", rounds=3, repeats=1).plan
    trainer, counted = Building(plan, tmp_path), []
    await participant(plan, Counting(plan, [train(1), train(2), END], counted, ()), trainer, tmp_path).run()
    (dropped,) = [report for report in counted if report.round == 2]
    counted.remove(dropped)
    await participant(plan, Counting(plan, [train(3), END], counted, (2,)), trainer, tmp_path).run()
    assert trainer.controls == [0, 1, 1]


@pytest.mark.parametrize(("late", "basis"), [((), 2), ((2,), 1), ((1, 2), None)])
async def test_what_rounding_left_out_of_a_refused_update_is_not_made_up_for(tmp_path, late, basis):
    plan = World(tmp_path, precision="int8", rounds=3).plan
    trainer = Building(plan, tmp_path)
    link = Counting(plan, [train(1), train(2), train(3), END], [], late)
    await participant(plan, link, trainer, tmp_path).run()
    (tmp_path / "model").write_bytes(make_model(1.0))
    (tmp_path / "whole").write_bytes(trainer.wholes[-1])
    made = precision.encode_change(
        tmp_path / "model",
        tmp_path / "whole",
        residual_in=None if basis is None else tmp_path / str(basis),
        residual_out=tmp_path / "rest",
        into=tmp_path / "change",
        schema=plan.schema,
        precision="int8",
    )
    assert link.heard[-1].update == made.change


async def test_a_session_that_is_over_has_no_last_word_on_an_update(tmp_path):
    """It may be opened again, when the coordinator finds its model damaged."""
    plan = World(tmp_path, strategy="scaffold", rounds=2).plan
    trainer, counted = Building(plan, tmp_path), []
    await participant(plan, Counting(plan, [train(1), END], counted, ()), trainer, tmp_path).run()

    class Over(Script):
        async def report(self, report):
            self.heard.append(report)
            return Verdict(accepted=False, code="over")

    await participant(plan, link := Over(plan, [train(2), END]), trainer, tmp_path).run()
    assert (trainer.fits, [report.round for report in link.heard if isinstance(report, Report)]) == (1, [1])
    await participant(plan, Counting(plan, [train(2), END], counted, ()), trainer, tmp_path).run()
    assert trainer.controls == [0, 1]
