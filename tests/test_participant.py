"""The participant, against a coordinator that forgets, cheats or changes its mind."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import numpy as np
import pytest
from federation import did, make_plan

from nevermined_fl import precision
from nevermined_fl.codecs import safetensors
from nevermined_fl.errors import NotFound, RemoteProtocolError, TrainerError, TransportError, Unauthenticated
from nevermined_fl.files import sha256_file
from nevermined_fl.messages import Evaluate, Evaluated, Finish, Initialize, Joined, Report, Train, Verdict, Wait
from nevermined_fl.participant import Credentials, Participant
from nevermined_fl.participant.beside import Overtaken, work_on
from nevermined_fl.participant.keep import Keep, Kept
from nevermined_fl.participant.models import Models
from nevermined_fl.session import draw
from nevermined_fl.tokens import JobKey
from nevermined_fl.trainers.child import Measured, Trained

from transport_worlds import ALICE, BOB, SESSION, WORLDS, World, digest, make_model  # isort: skip

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

    async def initialize(self, seed, into, seconds):
        self.fits += 1
        into.write_bytes(UPDATE)
        return Trained(digest(UPDATE), 1, {})

    async def evaluate(self, model, seconds):
        return Measured(9, {"accuracy": 0.75})

    async def close(self):
        pass


@pytest.fixture
def plan(tmp_path):
    return World(tmp_path).plan


def seed(number, attempt=0):
    return draw.training_seed(make_plan((ALICE, BOB), make_model(1.0)), number, ME, attempt)


def train(number, attempt=0, model=1.0):
    return Train(2 * number, number, digest(make_model(model)), seed(number, attempt), 60.0, attempt)


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
    (tmp_path / "job" / "kept" / f"1-{seed(1)}.update").write_bytes(UPDATE[:-1])
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


async def test_the_same_round_again_is_answered_from_what_is_kept_and_another_attempt_trained(tmp_path):
    trainer, plan = Trainer(), World(tmp_path, repeats=1).plan
    link = Script(plan, [train(1), train(1), train(1, 1), train(1, 1), END])
    await participant(plan, link, trainer, tmp_path).run()
    assert trainer.fits == 2
    assert len([heard for heard in link.heard if isinstance(heard, tuple)]) == 4


async def test_a_coordinator_that_lost_its_newest_model_costs_no_training(tmp_path):
    """It asks one round back, and then for the next one once more."""
    trainer, plan = Trainer(), World(tmp_path, rounds=3).plan
    link = Script(plan, [train(1), train(2), LOST, train(1), train(2), train(3), END])
    await participant(plan, link, trainer, tmp_path).run()
    assert trainer.fits == 3


async def test_more_than_was_bought_is_not_done(plan, tmp_path):
    """The plan has two rounds and names its first model: more answers would be more looks at the data."""
    trainer = Trainer()
    asked = [train(3), Evaluate(7, 3, digest(UPDATE), 60.0), Initialize(8, 11, 60.0)]
    link = Script(plan, [*asked, END])
    assert await participant(plan, link, trainer, tmp_path).run() == END
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


class Many(Script):
    """Has every model."""

    async def fetch_model(self, name, into):
        into.write_bytes(next(raw for raw in map(make_model, range(1, 9)) if digest(raw) == name))


async def test_a_round_is_asked_for_with_other_models_a_few_times_alone(plan, tmp_path):
    """A coordinator that lost models may ask so; one that wants more looks at the data may not, restarted or not."""
    trainer, models = Trainer(), [float(number) for number in range(1, 9)]
    measure = [Evaluate(3, 1, digest(make_model(value)), 60.0) for value in models]
    for asked in (models[:2], models[:5], models):
        tasks = [task for value in asked for task in (train(1, model=value), measure[int(value) - 1])]
        await participant(plan, link := Many(plan, [*tasks, END]), trainer, tmp_path).run()
        assert len([heard for heard in link.heard if isinstance(heard, Evaluated)]) == min(3, len(asked))
    assert len({report.model for report in link.heard if isinstance(report, Report)}) == 3


async def test_the_first_model_is_made_once_and_travels_as_an_update_of_round_0(tmp_path):
    plan = World(tmp_path, initial_model="participant").plan
    trainer, asked = Trainer(), Initialize(1, 11, 60.0)
    link = Script(plan, [asked, LOST, asked, END])
    await participant(plan, link, trainer, tmp_path).run()
    report = link.heard[-1]
    assert trainer.fits == 1
    assert link.heard[:2] == [("update", 0, digest(UPDATE)), link.heard[1]]
    assert (report.round, report.model, report.update, report.examples) == (0, digest(UPDATE), digest(UPDATE), 1)


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


class Polled:
    """A link of which only the next task is asked; ``None`` never comes."""

    def __init__(self, *tasks):
        self.tasks, self.afters = list(tasks), []

    async def next_task(self, *, after, wait):
        self.afters.append(after)
        task = self.tasks.pop(0)
        if task is None:
            await asyncio.Event().wait()
        if isinstance(task, Exception):
            raise task
        return task


class Work:
    """What ends when it is told to."""

    def __init__(self):
        self.ended, self.cancelled = asyncio.Event(), False

    async def run(self):
        try:
            await self.ended.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return "done"


@pytest.mark.parametrize("other", [END, train(2), train(1, 1), Evaluate(3, 1, digest(UPDATE), 60.0)])
async def test_work_that_nobody_waits_for_is_ended(other):
    """The round closed without us, or began again, or everything is over."""
    work, link = Work(), Polled(Wait(0), other)
    with pytest.raises(Overtaken) as caught:
        await work_on(train(1), work.run(), link, grace=0)
    assert (caught.value.task, work.cancelled) == (other, True)


async def test_work_goes_on_when_the_same_is_asked_again_or_the_coordinator_is_away():
    """It asks again when it lost somebody else's update."""
    work = Work()
    same = Train(9, 1, digest(make_model(1.0)), seed(1), 30.0)

    class Away(Polled):
        async def next_task(self, *, after, wait):
            if not self.tasks[1:]:
                work.ended.set()
            return await super().next_task(after=after, wait=wait)

    link = Away(same, TransportError("no answer"))
    assert await work_on(train(1), work.run(), link, grace=0) == "done"
    assert link.afters == [2, 9]


async def test_short_work_asks_nobody():
    async def work():
        return 5

    link = Polled()
    assert await work_on(train(1), work(), link) == 5
    assert link.afters == []


async def test_what_is_to_be_done_instead_is_done_next(plan, tmp_path):
    """The end of the session is told to each participant once: it must not be asked for again."""
    trainer = Trainer(Overtaken(END))
    assert await participant(plan, Script(plan, [train(1)]), trainer, tmp_path).run() == END
    assert told(tmp_path) == ["joined", "round_missed", "over"]


def kept(number, seed, **digests):
    return Kept(number, digest(UPDATE), seed, digest(UPDATE), 9, {}, **digests)


def keep_all(folder, *rows):
    keep = Keep(folder)
    for row in rows:
        for kind in ("update", "residual", "control"):
            keep.path(row.round, row.seed, kind).write_bytes(UPDATE)
        keep.add(row)
    return keep


def test_the_newest_update_is_kept_and_the_one_of_the_round_before_it(tmp_path):
    rest = {"residual": digest(UPDATE)}
    keep = keep_all(tmp_path, kept(1, 4, **rest), kept(3, 5, **rest), kept(3, 6, **rest), kept(8, 7))
    assert keep.find(1, digest(UPDATE), 4) is keep.find(3, digest(UPDATE), 5) is None
    assert keep.earlier(4) == (keep.find(3, digest(UPDATE), 6),) == (kept(3, 6, **rest),)
    assert keep.earlier(9) == keep.earlier(4)  # round 8 left nothing behind
    assert keep.earlier(3) == ()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["3-6.residual", "3-6.update", "8-7.update", "kept.json"]
    assert Keep(tmp_path).find(8, digest(UPDATE), 7) == kept(8, 7)


def test_what_the_next_one_builds_on_stays_until_another_counts(tmp_path):
    rest = {"residual": digest(UPDATE)}
    one, two, three, four = (kept(number, 5, **rest) for number in (1, 2, 3, 4))
    keep = keep_all(tmp_path, one, two)
    keep.note(two, refused=True)
    assert Keep(tmp_path).earlier(3) == keep.earlier(3) == (one,)
    for late in (three, four):
        for kind in ("update", "residual"):
            keep.path(late.round, 5, kind).write_bytes(UPDATE)
        keep.add(late, one)
    assert [row["round"] for row in json.loads((tmp_path / "kept.json").read_text())] == [4, 3, 1]
    assert keep.earlier(5) == (four, three, one)


def test_who_hears_another_word_on_an_update_forgets_those_that_came_after_it(tmp_path):
    """A coordinator that lost a model asked for the round once more, and this time took the update, or not."""
    rest = {"control": digest(UPDATE)}
    for refused in (True, False):
        keep = keep_all(tmp_path / str(refused), kept(1, 5, **rest))
        keep.note(kept(1, 5, **rest), refused=refused)
        first = keep.find(1, digest(UPDATE), 5)
        for kind in ("update", "control"):
            keep.path(2, 6, kind).write_bytes(UPDATE)
        keep.add(kept(2, 6, **rest))
        keep.note(first, refused=refused)
        assert keep.find(2, digest(UPDATE), 6)
        keep.note(first, refused=not refused)
        assert keep.find(2, digest(UPDATE), 6) is None
        assert len(keep.earlier(2)) == refused


def test_what_is_left_behind_is_used_only_whole(tmp_path):
    keep_all(tmp_path, kept(2, 5, residual=digest(UPDATE), control=digest(UPDATE)))
    (tmp_path / "2-5.residual").write_bytes(UPDATE[:-1])
    keep = Keep(tmp_path)
    (basis,) = keep.earlier(3)
    assert keep.left(basis, "residual") is None
    assert keep.left(basis, "control") == tmp_path / "2-5.control"
    assert keep.left(None, "control") is None


class Changed:
    """A link to whoever has one model, and another one as a change of it."""

    def __init__(self, plan, folder):
        folder.mkdir()
        for name, value in (("one", 1.0), ("to", 2.5)):
            (folder / name).write_bytes(make_model(value))
        rest = {"residual_in": None, "residual_out": folder / "rest", "into": folder / "change"}
        words = {"schema": plan.carried(), "precision": plan.precision}
        precision.encode_change(folder / "one", folder / "to", **rest, **words)
        self.second = precision.apply_change(folder / "one", folder / "change", folder / "two", *words.values())
        self.first, self.folder, self.heard = digest(make_model(1.0)), folder, []

    async def fetch_model(self, name, into):
        self.heard.append("whole")
        into.write_bytes((self.folder / ("one" if name == self.first else "two")).read_bytes())

    async def fetch_delta(self, base, name, into):
        self.heard.append("change")
        if not (self.folder / "change").exists():
            raise NotFound("no such change")
        assert (base, name) == (self.first, self.second)
        into.write_bytes((self.folder / "change").read_bytes())


@pytest.mark.parametrize(
    ("spoil", "heard"),
    [
        (lambda raw: raw, ["whole", "change"]),
        (lambda raw: raw[:-1] + bytes([raw[-1] ^ 3]), ["whole", "change", "whole"]),
        (lambda raw: raw[:-1], ["whole", "change", "whole"]),
        (None, ["whole", "change", "whole"]),
    ],
)
async def test_a_model_is_made_of_the_one_before_it_where_its_digest_comes_out(tmp_path, spoil, heard):
    plan = World(tmp_path, precision="int8").plan
    link = Changed(plan, tmp_path / "there")
    change = tmp_path / "there" / "change"
    if spoil is None:
        change.unlink()
    else:
        change.write_bytes(spoil(change.read_bytes()))
    models = Models(tmp_path / "here", plan, link)

    await models.get(link.first)
    second = await models.get(link.second)

    assert digest(second.read_bytes()) == link.second
    assert link.heard == heard
    assert list((tmp_path / "here").iterdir()) == [second]
    assert await models.get(link.second) == second
    assert link.heard == heard


async def test_a_model_of_another_schema_is_refused(tmp_path):
    plan = World(tmp_path).plan
    link = Changed(World(tmp_path, precision="f16").plan, tmp_path / "there")
    for raw in (make_model(1.0)[:-1], make_model(1.0).replace(b'"w"', b'"v"')):
        (tmp_path / "there" / "one").write_bytes(raw)
        with pytest.raises(RemoteProtocolError):
            await Models(tmp_path / "here", plan, link).get(link.first)
        assert list((tmp_path / "here").iterdir()) == []


class Counted:
    """A link that counts what is fetched."""

    def __init__(self, link):
        self._link, self.fetched = link, []

    def __getattr__(self, name):
        if name.startswith("fetch"):
            self.fetched.append(name)
        return getattr(self._link, name)


class Drift(Trainer):
    """Adds to each number what the seed says."""

    async def fit(self, model, seed, into, seconds, *, control=None):
        chance = np.random.default_rng(seed)
        model = safetensors.load(model.read_bytes())
        moved = {name: (x + 0.1 * chance.normal(size=x.shape)).astype(x.dtype) for name, x in model.items()}
        into.write_bytes(safetensors.dump(moved))
        return Trained(sha256_file(into), 9, {})


@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
@pytest.mark.parametrize("word", ["f32", "int8"])
async def test_a_whole_session_with_changes_both_ways(tmp_path, world, word):
    there = await world(tmp_path, rounds=3, precision=word, strategy="scaffold").start()
    links = []

    async def take_part(name):
        links.append(Counted(there.link(name)))
        (tmp_path / name[-8:]).mkdir()
        who = Credentials(SESSION, name, token=name, key=there.keys[name], fingerprint=there.fingerprint)
        taking = Participant(there.plan, who, link=links[-1], trainer=Drift(), folder=tmp_path / name[-8:])
        return await taking.run()

    assert {end.outcome for end in await asyncio.gather(*map(take_part, there.plan.members))} == {"finished"}
    small = ["fetch_model", "fetch_delta", "fetch_delta", "fetch_delta"]
    assert [link.fetched for link in links] == [small if word == "int8" else ["fetch_model"] * 4] * 2
    await there.close()
