"""Who takes part: joining, leaving, coming back, waiting for each other, and being drawn."""

import pytest
from session_world import A, B, C, D, E, World, agreement, digest, refused

from nevermined_fl.session import Phase, draw
from nevermined_fl.session.effects import (
    Accept,
    AskEvaluation,
    Commit,
    Configure,
    Fail,
)
from nevermined_fl.session.events import (
    Joined,
    Left,
    Reported,
    Ticked,
)

# --- who takes part ---


def test_a_stranger_is_refused():
    refused(World(A), Joined(D, agreement(D)), "not_a_member")


def test_another_agreement_for_the_same_dataset_is_refused_even_after_it_left():
    world = World(A, B)
    refused(world, Joined(A, "0xother"), "other_agreement")
    world.say(Left(A))
    refused(world, Joined(A, "0xother"), "other_agreement")


def test_one_agreement_admits_one_participant():
    refused(World(A), Joined(B, agreement(A)), "other_agreement")


def test_joining_twice_counts_once():
    world = World(A, A, A)
    assert world.session.phase is Phase.SELECTION
    assert world.session.present() == (A,)


def test_leaving_during_selection_keeps_the_door_open():
    world = World(A, B)
    assert world.say(Left(A)) == (Accept(A, 0),)
    world.say(Joined(C, agreement(C)))
    assert world.session.phase is Phase.SELECTION
    world.say(Joined(A, agreement(A)))
    assert world.session.phase is Phase.REPORTING


def test_who_left_has_no_say_until_it_joins_again():
    world = World(A, B, C)
    world.say(Left(A))
    refused(world, Reported(A, 1, digest(0), digest(11), 10), "not_joined")
    refused(world, Left(A), "not_joined")
    refused(World(), Left(A), "not_joined")
    world.say(Joined(A, agreement(A)))
    assert world.report(A, 11) == (Accept(A, 1),)


def test_a_rejoin_is_asked_again_alone_and_only_if_it_owes_an_answer():
    world = World(A, B, C)
    world.report(B, 12)
    assert world.say(Joined(B, agreement(B))) == (Accept(B, 1),)
    accept, configure = world.say(Joined(A, agreement(A)), after=3.0)
    assert accept == Accept(A, 1)
    assert configure == Configure(1, digest(0), (A,), (draw.training_seed(world.plan, 1, A),), deadline=1060.0)
    world.report(A, 11)
    world.report(C, 13)
    assert world.say(Joined(C, agreement(C))) == (Accept(C, 1),)
    world.aggregate(1)
    assert world.say(Joined(C, agreement(C)))[1:] == (AskEvaluation(1, digest(1), (C,), deadline=1063.0),)


def test_a_latecomer_waits_for_the_next_round():
    world = World(A, B)
    world.say(Ticked(), after=30.0)
    assert world.say(Joined(C, agreement(C))) == (Accept(C, 1),)
    refused(world, Reported(C, 1, digest(0), digest(13), 10), "not_in_cohort")
    world.rounds(1)
    assert world.session.cohort == (A, B, C)


# --- configuration ---


def test_a_round_waits_for_members_to_come_back_and_the_waiting_counts():
    world = World(A, B, C)
    for participant in (A, B, C):
        world.report(participant, 11)
    world.aggregate(1)
    for participant in (A, B):
        world.say(Left(participant))
    world.now += 10.0
    world.evaluate(C, 0.5)
    assert world.session.phase is Phase.CONFIGURATION
    assert world.session.round == 2
    assert world.say(Ticked(), after=50.0) == ()
    accept, configure = world.say(Joined(B, agreement(B)))
    assert accept == Accept(B, 2)
    assert (configure.cohort, configure.deadline) == ((B, C), 1070.0)


def test_nobody_comes_back():
    world = World(A, B, C)
    for participant in (A, B, C):
        world.report(participant, 11)
    world.say(Left(A))
    world.say(Left(B))
    world.say(Left(C))
    effects = world.aggregate(1)
    assert effects[-1] == Commit(1, digest(1), {})
    assert world.say(Ticked(), after=60.0) == (Fail("round 2: too few participants: 0 of at least 2 by the deadline"),)


# --- cohorts ---


@pytest.mark.parametrize(
    ("ratio", "minimum", "size"), [(1.0, 1, 5), (0.5, 1, 3), (0.4, 1, 2), (0.41, 1, 3), (0.2, 4, 4), (1e-9, 1, 1)]
)
def test_a_cohort_is_the_ratio_of_those_present_and_at_least_the_minimum(ratio, minimum, size):
    members = (A, B, C, D, E)
    world = World(*members, members=members, participantsRatio=ratio, minParticipants=minimum)
    assert len(world.session.cohort) == size
    assert world.session.cohort == tuple(sorted(world.session.cohort))


def test_a_ratio_is_the_decimal_of_the_plan():
    members = tuple(f"did:nv:{n:064x}" for n in range(100))
    world = World(*members, members=members, participantsRatio=0.07)
    assert len(world.session.cohort) == 7  # ceil(0.07 * 100) is 8 in floating point


def test_every_member_has_its_turn_and_another_seed_draws_others():
    members = (A, B, C, D, E)
    drawn = {seed: [] for seed in (7, 8)}
    for seed, cohorts in drawn.items():
        world = World(*members, members=members, participantsRatio=0.4, rounds=12, seed=seed)
        for _ in range(12):
            cohorts.append(world.session.cohort)
            world.rounds(1)
        assert {participant for cohort in cohorts for participant in cohort} == set(members)
        assert len(set(cohorts)) > 3
    assert drawn[7] != drawn[8]
