"""How many are asked, how many answers are enough, and what happens to a round that gets too few of them."""

import sys

import pytest
from session_world import A, B, C, D, E, World, agreement, digest, refusal, refused

from nevermined_fl.session import Phase, draw
from nevermined_fl.session.effects import (
    Accept,
    Aggregate,
    AskEvaluation,
    Commit,
    Configure,
    Discard,
    Fail,
    Finish,
)
from nevermined_fl.session.events import Evaluated, Joined, Left, Reported, Ticked
from nevermined_fl.session.ledger import contributions

MEMBERS = (A, B, C, D, E)


def open_world(**changes):
    return World(*MEMBERS, members=MEMBERS, **changes)


# --- over-selection ---


@pytest.mark.parametrize(
    ("ratio", "over", "minimum", "target", "size"),
    [
        (0.4, 1.5, 1, 2, 3),
        (0.4, 1.0, 1, 2, 2),
        (0.4, 1.01, 1, 2, 3),
        (0.3, 1.5, 1, 2, 3),  # ceil(2.25)
        (0.21, 2.0, 1, 2, 3),  # ceil(2.1), though twice the target is 4
        (0.2, 1.5, 3, 3, 5),  # the minimum is over-selected too
        (1.0, 9.0, 1, 5, 5),
    ],
)
def test_a_cohort_is_larger_than_its_target(ratio, over, minimum, target, size):
    world = open_world(participantsRatio=ratio, overSelection=over, minParticipants=minimum)
    assert (world.session.target, len(world.session.cohort)) == (target, size)


def test_the_over_selected_are_those_who_would_be_drawn_next():
    small, large = open_world(participantsRatio=0.4), open_world(participantsRatio=0.4, overSelection=2.0)
    assert set(small.session.cohort) < set(large.session.cohort)


def test_a_round_closes_at_its_target_and_the_others_are_late():
    world = open_world(participantsRatio=0.4, overSelection=2.0, metrics=[])
    one, two, three, four = world.session.cohort
    assert world.report(three, 13) == (Accept(three, 1),)
    accept, aggregate = world.report(one, 11)
    assert accept == Accept(one, 1)
    assert aggregate == Aggregate(1, digest(0), ((one, digest(11), 10), (three, digest(13), 10)))
    effects = refused(world, Reported(two, 1, digest(0), digest(12), 10), "late")
    assert effects[1:] == (Discard(digest(12), two, 1),)
    world.aggregate(1)
    assert world.session.round == 2
    # The next round runs, and it is still no fault of theirs.
    refused(world, Reported(four, 1, digest(0), digest(14), 10), "late")
    refused(world, Evaluated(four, 1, digest(0), 10), "late")
    refused(world, Reported(four, 3, digest(1), digest(14), 10), "stale_round")
    assert [c.participant for c in contributions(world.session)] == [one, three]


def test_evaluation_too_waits_for_no_more_than_the_target():
    world = open_world(participantsRatio=0.4, overSelection=2.0)
    one, two, three, four = world.session.cohort
    world.report(three, 13)
    world.report(one, 11)
    assert world.aggregate(1)[-1] == AskEvaluation(1, digest(1), (one, two, three, four), deadline=1060.0)
    world.evaluate(four, 0.2, examples=30)
    _, commit, configure = world.evaluate(two, 0.6, examples=10)
    assert commit == Commit(1, digest(1), {"accuracy": 0.3})
    assert configure.round == 2
    refused(world, Evaluated(one, 1, digest(1), 10, {"accuracy": 0.9}), "late")


def test_a_round_below_its_target_closes_when_nobody_is_left_to_wait_for():
    world = open_world(participantsRatio=0.6, overSelection=1.4)
    assert world.session.target == 3
    one, two, three, four, five = world.session.cohort
    world.report(one, 11)
    world.report(two, 12)
    world.say(Left(three))
    world.say(Left(four))
    assert world.session.phase is Phase.REPORTING
    _, aggregate = world.say(Left(five))
    assert [row[0] for row in aggregate.updates] == [one, two]


# --- turns ---


def test_every_question_is_a_turn_of_its_own():
    world = World(A, B, C)
    assert world.session.turn == 1
    for participant in (A, B):
        world.report(participant, 11)
    world.say(Joined(C, agreement(C)))
    world.say(Left(B))
    assert world.session.turn == 1
    world.report(C, 13)
    assert world.session.turn == 1
    world.aggregate(1)
    assert world.session.turn == 2
    world.evaluate(A, 0.5)
    world.evaluate(C, 0.5)
    assert (world.session.round, world.session.turn) == (2, 3)


# --- begun again ---


def test_without_late_updates_everybody_trains_anew_with_another_seed():
    world = World(A, B, C, repeats=1)
    old = [draw.training_seed(world.plan, 1, participant) for participant in (A, B, C)]
    world.report(B, 12)
    discard, configure = world.say(Ticked(), after=60.0)
    assert discard == Discard(digest(12), B, 1)
    seeds = tuple(draw.training_seed(world.plan, 1, participant, 1) for participant in (A, B, C))
    assert configure == Configure(1, digest(0), (A, B, C), seeds, deadline=1120.0, attempt=1)
    assert not set(seeds) & set(old)
    assert (world.session.turn, world.session.attempt) == (2, 1)
    # What was trained for the first attempt is no answer to the second one.
    effects = refused(world, Reported(B, 1, digest(0), digest(12), 10, {}, attempt=0), "late")
    assert effects[1:] == (Discard(digest(12), B, 1),)
    refused(world, Reported(B, 1, digest(0), digest(12), 10, {}, attempt=2), "stale_round")
    for participant in (A, B, C):
        world.report(participant, 22)
    world.aggregate(1)
    for participant in (A, B, C):
        world.evaluate(participant, 0.5)
    assert world.session.history[0].attempt == 1
    assert (world.session.round, world.session.attempt) == (2, 0)


def test_a_round_is_repeated_as_often_as_the_plan_says_and_then_fails():
    world = World(A, B, C, repeats=2, lateUpdates="use")
    world.report(B, 12)
    for attempt in (1, 2):
        assert world.say(Ticked(), after=59.0) == ()
        (configure,) = world.say(Ticked(), after=1.0)
        assert (configure.attempt, configure.cohort) == (attempt, (A, C))
    assert world.say(Ticked(), after=60.0) == (
        Discard(digest(12), B, 1),
        Fail("round 1: too few updates: 1 of at least 2 by the deadline"),
    )


def test_late_updates_count_when_the_plan_uses_them():
    world = open_world(participantsRatio=0.6, minParticipants=3, repeats=1, lateUpdates="use")
    one, two, three = first = world.session.cohort
    four, five = sorted(set(MEMBERS) - set(first))
    world.report(two, 12)
    assert world.session.cohort == first
    (configure,) = world.say(Ticked(), after=60.0)
    # Who gave an update is of the new cohort and is not asked; the same work is the same in any attempt.
    assert two in world.session.cohort
    assert two not in configure.cohort
    assert configure.seeds == tuple(draw.training_seed(world.plan, 1, name) for name in configure.cohort)
    assert len(world.session.cohort) == world.session.target == 3
    outside = next(name for name in (one, three) if name not in world.session.cohort)
    never = next(name for name in (four, five) if name not in world.session.cohort)
    assert world.session.welcomes(outside, 1)
    assert not world.session.welcomes(never, 1)
    refused(world, Reported(never, 1, digest(0), digest(14), 10, {}, attempt=0), "not_in_cohort")
    refused(world, Reported(outside, 1, digest(9), digest(11), 10, {}, attempt=0), "other_model")
    world.report(outside, 11, attempt=0)
    last = next(name for name in configure.cohort if name != outside)
    accept, aggregate = world.report(last, 15, attempt=1)
    assert accept == Accept(last, 1)
    assert [row[0] for row in aggregate.updates] == sorted([two, outside, last])
    world.aggregate(1)
    assert set(world.session.waits_for()) == set(world.session.cohort) >= {two, outside, last}


def test_late_updates_that_nobody_uses_are_refused_as_late():
    world = open_world(participantsRatio=0.4, repeats=1, seed=7)
    first = world.session.cohort
    world.say(Ticked(), after=60.0)
    (outside, *_) = [name for name in first if name not in world.session.cohort]
    assert not world.session.welcomes(outside, 1)
    for attempt in (0, 1):
        refused(world, Reported(outside, 1, digest(0), digest(11), 10, {}, attempt), "late")


def test_an_update_stays_although_its_sender_left_and_the_round_waits_for_others():
    world = World(A, B, C, minParticipants=3, repeats=1, lateUpdates="use")
    world.report(A, 11)
    world.say(Left(A))
    world.say(Left(B))
    assert world.say(Ticked(), after=60.0) == ()
    assert (world.session.phase, world.session.cohort) == (Phase.CONFIGURATION, ())
    # C was asked before and is ready: that counts while the round waits.
    assert world.session.welcomes(C, 1)
    assert world.report(C, 13, attempt=0) == (Accept(C, 1),)
    assert (world.session.phase, world.session.cohort) == (Phase.CONFIGURATION, ())
    assert not world.session.welcomes(C, 1)
    assert refusal(world.report(C, 14)) == "other_answer"
    world.say(Left(C))
    accept, configure = world.say(Joined(B, agreement(B)))
    assert accept == Accept(B, 1)
    assert (configure.cohort, world.session.cohort) == ((B,), (A, B, C))
    _, aggregate = world.report(B, 12)
    assert [row[0] for row in aggregate.updates] == [A, B, C]


def test_who_gave_an_update_and_left_is_counted_among_those_who_could():
    world = open_world(participantsRatio=0.5, minParticipants=2, repeats=1, lateUpdates="use")
    one, *_ = world.session.cohort
    world.report(one, 11)
    world.say(Left(one))
    (configure,) = world.say(Ticked(), after=60.0)
    # ceil(0.5 * 5), with the one who left and whose update is here; of the four who are there it would be 2.
    assert world.session.target == 3
    assert len(configure.cohort) == 2
    assert set(world.session.cohort) == {one, *configure.cohort}


def test_waiting_for_members_to_come_back_is_repeated_too():
    world = World(A, B, C, repeats=1)
    world.rounds(1)
    for participant in (A, B):
        world.say(Left(participant))
    assert world.say(Ticked(), after=60.0) == ()
    assert (world.session.phase, world.session.attempt, world.session.deadline) == (Phase.CONFIGURATION, 1, 1120.0)
    assert world.say(Ticked(), after=60.0) == (Fail("round 2: too few participants: 1 of at least 2 by the deadline"),)


# --- evaluation now and then ---


def test_the_model_is_evaluated_every_few_rounds_and_at_the_end():
    world = World(A, B, C, rounds=5, evaluateEvery=2, evaluationTimeout=5.0)
    asked = []
    for number in range(1, 6):
        for participant in (A, B, C):
            world.report(participant, number)
        effects = world.aggregate(number)
        if world.session.phase is Phase.EVALUATION:
            asked.append(number)
            assert effects[-1].deadline == world.session.deadline == world.now + 5.0
            effects = world.say(Ticked(), after=5.0)
        assert Commit(number, digest(number), {}) in effects
    assert asked == [2, 4, 5]
    assert effects[-1] == Finish(digest(5))


# --- speed ---


def calls(count):
    """Python functions called to take in one join, one report and one evaluation among so many."""
    members = tuple(f"did:nv:{number:064x}" for number in range(count))
    world = World(*members[:-1], members=members, minParticipants=count)
    found = []
    last = members[count // 2]

    def counted(said):
        seen = []

        def note(frame, kind, _):
            if kind == "call" and frame.f_globals["__name__"].startswith("nevermined_fl"):
                seen.append(frame.f_code.co_name)

        sys.setprofile(note)
        try:
            said()
        finally:
            sys.setprofile(None)
        found.append(len(seen))

    counted(lambda: world.say(Joined(members[0], agreement(members[0]))))
    world.say(Joined(members[-1], agreement(members[-1])))
    for participant in members[: count // 2]:
        world.report(participant, 11)
    counted(lambda: world.report(last, 11))
    counted(lambda: world.say(Left(members[-1])))
    world.say(Joined(members[-1], agreement(members[-1])))
    for participant in members[count // 2 + 1 :]:
        world.report(participant, 11)
    world.aggregate(1)
    for participant in members[: count // 2]:
        world.evaluate(participant, 0.5)
    counted(lambda: world.evaluate(last, 0.5))
    return found


def test_an_event_takes_no_more_steps_among_many_than_among_few():
    assert calls(300) == calls(30)
