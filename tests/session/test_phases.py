"""One rule of one phase each, and the mistakes that a peer can make."""

import math

import pytest
from session_world import A, B, C, D, World, agreement, digest, refusal, refused

from nevermined_fl.errors import LocalProtocolError
from nevermined_fl.session import Phase
from nevermined_fl.session.effects import (
    Accept,
    Aggregate,
    AskEvaluation,
    Commit,
    Configure,
    Discard,
    Fail,
    Finish,
    Reject,
)
from nevermined_fl.session.events import (
    Aggregated,
    Evaluated,
    Joined,
    Left,
    Reported,
    Restarted,
    Stopped,
    Ticked,
)

# --- reporting ---


@pytest.mark.parametrize(
    ("event", "code"),
    [
        (Reported(A, 2, digest(0), digest(11), 10), "stale_round"),
        (Reported(A, 0, digest(0), digest(11), 10), "stale_round"),
        (Reported(A, 1, digest(9), digest(11), 10), "other_model"),
        (Reported(D, 1, digest(0), digest(11), 10), "not_joined"),
        (Reported(A, 1, digest(0), digest(11), 0), "bad_weight"),
        (Reported(A, 1, digest(0), digest(11), -3), "bad_weight"),
        (Reported(A, 1, digest(0), digest(11), 10, {"secret": 0.5}), "bad_metric"),
        (Reported(A, 1, digest(0), digest(11), 10, {"accuracy": 1.5}), "bad_metric"),
        (Reported(A, 1, digest(0), digest(11), 10, {"accuracy": math.nan}), "bad_metric"),
        (Evaluated(A, 1, digest(0), 10), "late"),
    ],
)
def test_a_wrong_answer_is_refused_and_the_round_goes_on(event, code):
    world = World(A, B, C)
    effects = refused(world, event, code)
    discarded = (Discard(digest(11), event.participant, event.round),) if isinstance(event, Reported) else ()
    assert effects[1:] == discarded
    assert world.report(A, 11) == (Accept(A, 1),)


@pytest.mark.parametrize(
    "event",
    [
        Joined("\ud800\n", agreement(D)),
        Joined(A, "\ud800\n"),
        Left("\ud800\n"),
        Reported("\ud800\n", 1, digest(0), digest(11), 10),
        Reported(A, 1, "\ud800\n", digest(11), 10),
        Reported(A, 1, digest(0), digest(11), 10, {"\ud800\n": 0.5}),
    ],
)
def test_a_refusal_can_be_printed_and_sent_whatever_came(event):
    reject, *_ = World(A, B, C).say(event)
    assert isinstance(reject, Reject)
    assert reject.message.isascii()
    assert reject.message.isprintable()


def test_the_same_report_again_is_accepted_and_counts_once():
    world = World(A, B, C)
    for _ in range(3):
        assert world.report(A, 11, metrics={"loss": 2.5}) == (Accept(A, 1),)
    assert len(world.session.updates) == 1


@pytest.mark.parametrize("change", [{"update": 12}, {"examples": 11}, {"metrics": {"loss": 1.0}}, {"model": digest(9)}])
def test_another_report_for_the_same_round_is_refused(change):
    world = World(A, B, C)
    world.report(A, 11)
    before = world.session
    effects = world.report(A, **{"update": 11} | change)
    assert refusal(effects) == "other_answer"
    assert world.session == before
    # What counts stays in the spool, what does not goes.
    assert effects[1:] == ((Discard(digest(12), A, 1),) if "update" in change else ())


def test_a_refused_report_never_discards_what_another_one_counts_on():
    world = World(A, B, C)
    world.report(A, 11)
    assert refusal(world.report(B, 11, examples=0)) == "bad_weight"
    assert world.of(Discard) == []


def test_a_repeat_after_the_round_closed_is_accepted_and_anything_else_refused():
    world = World(A, B, C, rounds=3)
    world.rounds(1)
    first = Reported(A, 1, digest(0), digest(1000), 10)
    assert world.say(first) == (Accept(A, 1),)
    refused(world, Reported(A, 1, digest(0), digest(1000), 11), "other_answer")
    refused(world, Reported(A, 1, digest(1), digest(1000), 10), "other_answer")
    assert world.say(Evaluated(A, 1, digest(1), 10, {"accuracy": 0.5})) == (Accept(A, 1),)
    refused(world, Evaluated(A, 1, digest(1), 10, {"accuracy": 0.6}), "other_answer")
    refused(world, Evaluated(A, 1, digest(0), 10, {"accuracy": 0.5}), "other_answer")
    world.rounds(1)
    assert world.say(first) == (Accept(A, 1),)


def test_a_repeat_during_aggregation_evaluation_and_configuration_is_accepted():
    world = World(A, B, C)
    for participant in (A, B, C):
        world.report(participant, 11)
    again = Reported(A, 1, digest(0), digest(11), 10)
    assert world.say(again) == (Accept(A, 1),)
    world.aggregate(1)
    assert world.say(again) == (Accept(A, 1),)
    world.say(Left(B))
    world.say(Left(C))
    world.evaluate(A, 0.5)
    assert world.session.phase is Phase.CONFIGURATION
    assert world.say(again) == (Accept(A, 1),)
    assert world.say(Evaluated(A, 1, digest(1), 10, {"accuracy": 0.5})) == (Accept(A, 1),)


def test_the_round_closes_when_those_who_are_left_have_reported():
    world = World(A, B, C)
    world.report(A, 11)
    assert world.say(Left(C)) == (Accept(C, 1),)
    accept, aggregate = world.report(B, 12)
    assert accept == Accept(B, 1)
    assert aggregate == Aggregate(1, digest(0), ((A, digest(11), 10), (B, digest(12), 10)))


def test_the_round_closes_when_the_last_one_that_was_waited_for_leaves():
    world = World(A, B, C)
    world.report(A, 11)
    world.report(B, 12)
    accept, aggregate = world.say(Left(C))
    assert accept == Accept(C, 1)
    assert [row[0] for row in aggregate.updates] == [A, B]


def test_an_update_counts_although_its_participant_left():
    world = World(A, B, C)
    world.report(A, 11)
    world.say(Left(A))
    world.report(B, 12)
    world.report(C, 13)
    assert [row[0] for row in world.of(Aggregate)[0].updates] == [A, B, C]


def test_with_too_few_updates_the_round_waits_for_a_rejoin_until_the_deadline():
    world = World(A, B, C)
    world.report(A, 11)
    world.say(Left(B))
    assert world.say(Left(C)) == (Accept(C, 1),)
    assert world.session.phase is Phase.REPORTING
    world.say(Joined(C, agreement(C)))
    world.report(C, 13)
    assert world.session.phase is Phase.AGGREGATION


# --- aggregation and evaluation ---


def test_the_driver_may_not_aggregate_another_round_or_out_of_turn():
    world = World(A, B, C)
    with pytest.raises(LocalProtocolError, match="Aggregated has no place in reporting, round 1"):
        world.say(Aggregated(1, digest(1)))
    for participant in (A, B, C):
        world.report(participant, 11)
    with pytest.raises(LocalProtocolError, match="round 2 was aggregated during round 1"):
        world.say(Aggregated(2, digest(1)))
    assert world.say(Ticked(), after=1e6) == ()


def test_a_plan_without_metrics_has_no_evaluation():
    world = World(A, B, C, metrics=[])
    for participant in (A, B, C):
        world.report(participant, 11)
    effects = world.aggregate(1)
    assert effects[-2] == Commit(1, digest(1), {})
    assert isinstance(effects[-1], Configure)


def test_an_evaluation_is_judged_like_a_report():
    world = World(A, B)
    world.say(Ticked(), after=30.0)
    world.say(Joined(C, agreement(C)))
    world.report(A, 11)
    world.report(B, 12)
    world.aggregate(1)
    refused(world, Evaluated(A, 1, digest(0), 10), "other_model")
    refused(world, Evaluated(A, 2, digest(1), 10), "stale_round")
    refused(world, Evaluated(C, 1, digest(1), 10), "not_in_cohort")
    refused(world, Evaluated(A, 1, digest(1), 0), "bad_weight")
    refused(world, Evaluated(A, 1, digest(1), 10, {"loss": -0.1}), "bad_metric")
    assert world.evaluate(A, 0.5) == (Accept(A, 1),)
    assert world.evaluate(A, 0.5) == (Accept(A, 1),)
    assert refusal(world.evaluate(A, 0.6)) == "other_answer"
    accept, commit, _ = world.evaluate(B, 0.2, examples=900)
    assert accept == Accept(B, 1)
    assert commit.metrics == {"accuracy": (10 * 0.5 + 100 * 0.2) / 110}


def test_an_evaluation_without_answers_commits_at_the_deadline():
    world = World(A, B, C, rounds=1)
    for participant in (A, B, C):
        world.report(participant, 11)
    world.aggregate(1)
    assert world.say(Ticked(), after=59.0) == ()
    assert world.say(Ticked(), after=1.0) == (Commit(1, digest(1), {}), Finish(digest(1)))


def test_the_last_evaluator_leaves():
    world = World(A, B, C)
    for participant in (A, B, C):
        world.report(participant, 11)
    world.aggregate(1)
    world.evaluate(A, 0.5)
    world.evaluate(B, 0.7)
    accept, commit, _ = world.say(Left(C))
    assert accept == Accept(C, 1)
    assert commit.metrics == {"accuracy": 0.6}


# --- the end, and restarts ---


def test_a_stopped_session_fails_for_that_reason_and_late_work_does_nothing():
    world = World(A, B, C)
    for participant in (A, B, C):
        world.report(participant, 11)
    effects = world.say(Stopped("the buyer stopped it"))
    assert effects[-1] == Fail("the buyer stopped it")
    assert len(world.of(Discard)) == 3
    over = world.session
    for event in (Aggregated(1, digest(1)), Ticked(), Stopped("again")):
        assert world.say(event) == ()
    refused(world, Joined(A, agreement(A)), "over")
    refused(world, Reported(A, 1, digest(0), digest(11), 10), "over")
    refused(world, Left(A), "over")
    assert world.session == over


def test_a_restart_orders_again_and_gives_everybody_the_time_anew():
    world = World(A, B, C, rounds=3)
    world.rounds(1)
    world.report(A, 21)
    (*done, configure) = world.say(Restarted(), after=500.0)
    assert done == [
        *(Discard(digest(1000 + n), participant, 1) for n, participant in enumerate((A, B, C))),
        Commit(1, digest(1), {"accuracy": 0.5}),
    ]
    assert (configure.cohort, configure.deadline) == ((B, C), 1560.0)
    world.report(B, 22)
    world.report(C, 23)
    (*_, aggregate) = world.say(Restarted())
    assert aggregate == Aggregate(2, digest(1), ((A, digest(21), 10), (B, digest(22), 10), (C, digest(23), 10)))
    assert world.session.deadline is None
    world.aggregate(2)
    effects = world.say(Restarted(), after=7.0)
    assert Discard(digest(22), B, 2) in effects
    assert effects[-1] == AskEvaluation(2, digest(2), (A, B, C), deadline=1567.0)


def test_a_restart_during_selection_and_at_either_end():
    world = World(A)
    assert world.say(Restarted(), after=20.0) == ()
    assert world.session.deadline == 1050.0
    world.say(Ticked(), after=30.0)
    assert world.say(Restarted()) == (Fail("too few participants: 1 of at least 2 by the deadline"),)
    world = World(A, B, C, rounds=1)
    world.rounds(1)
    assert world.say(Restarted())[-2:] == (Commit(1, digest(1), {"accuracy": 0.5}), Finish(digest(1)))
