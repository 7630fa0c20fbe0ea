"""What was durable is gone: updates are asked for again, and rounds made again."""

import pytest
from session_world import A, B, C, D, E, World, agreement, digest, refused

from nevermined_fl.errors import LocalProtocolError
from nevermined_fl.session import Phase, draw
from nevermined_fl.session.effects import (
    Accept,
    Aggregate,
    AskInitialModel,
    Commit,
    Configure,
    Discard,
    Fail,
    Finish,
)
from nevermined_fl.session.events import Adopted, Joined, Left, Lost, Restarted, RolledBack, Ticked


def seeds(world, *participants):
    return tuple(draw.training_seed(world.plan, world.session.round, name) for name in participants)


# --- a lost update ---


def test_a_lost_update_is_asked_for_again_in_a_turn_of_its_own():
    world = World(A, B, C)
    world.report(A, 11)
    world.report(B, 12)
    discard, configure = world.say(Lost(A, 1, digest(11)), after=7.0)
    assert discard == Discard(digest(11), A, 1)
    assert configure == Configure(1, digest(0), (A, C), seeds(world, A, C), deadline=1067.0)
    assert (world.session.turn, world.session.waits_for()) == (2, (A, C))
    assert world.report(A, 11) == (Accept(A, 1),)
    world.report(C, 13)
    assert world.session.phase is Phase.AGGREGATION


def test_a_round_that_was_complete_is_open_again():
    world = World(A, B, C)
    for number, participant in enumerate((A, B, C)):
        world.report(participant, 11 + number)
    discard, configure = world.say(Lost(B, 1, digest(12)), after=5.0)
    assert discard == Discard(digest(12), B, 1)
    assert (configure.cohort, configure.deadline) == ((B,), 1065.0)
    assert world.session.phase is Phase.REPORTING
    _, aggregate = world.report(B, 22)
    assert aggregate == Aggregate(1, digest(0), ((A, digest(11), 10), (B, digest(22), 10), (C, digest(13), 10)))


def test_a_round_closes_without_it_when_its_sender_is_gone():
    world = World(A, B, C)
    for participant in (A, B, C):
        world.report(participant, 11)
    world.say(Left(B))
    discard, aggregate = world.say(Lost(B, 1, digest(11)))
    assert discard == Discard(digest(11), B, 1)
    assert [row[0] for row in aggregate.updates] == [A, C]
    assert (world.session.turn, world.session.deadline) == (1, None)


def test_with_too_few_left_it_waits_for_whoever_comes_back():
    world = World(A, B, minParticipants=2, members=(A, B, C))
    world.say(Ticked(), after=30.0)
    world.report(A, 11)
    world.report(B, 12)
    world.say(Left(B))
    assert world.say(Lost(B, 1, digest(12))) == (Discard(digest(12), B, 1),)
    assert (world.session.phase, world.session.turn, world.session.deadline) == (Phase.REPORTING, 1, 1090.0)
    accept, configure = world.say(Joined(B, agreement(B)))
    assert accept == Accept(B, 1)
    assert configure.cohort == (B,)


def test_the_over_selected_get_another_chance():
    members = (A, B, C, D, E)
    world = World(*members, members=members, participantsRatio=0.4, overSelection=1.5)
    one, two, three = world.session.cohort
    world.report(one, 11)
    world.report(two, 12)
    (_, configure) = world.say(Lost(one, 1, digest(11)))
    assert configure.cohort == (one, three)
    _, aggregate = world.report(three, 13)
    assert [row[0] for row in aggregate.updates] == [two, three]


def test_a_kept_update_may_be_lost_while_the_round_waits():
    world = World(A, B, C, minParticipants=3, repeats=1, lateUpdates="use")
    world.report(A, 11)
    world.say(Left(A))
    world.say(Left(B))
    world.say(Ticked(), after=60.0)
    before = world.session
    assert world.say(Lost(A, 1, digest(11)), after=5.0) == (Discard(digest(11), A, 1),)
    assert (world.session.phase, world.session.updates) == (Phase.CONFIGURATION, ())
    assert (world.session.deadline, world.session.turn) == (before.deadline, before.turn)


def test_a_lost_initial_model_is_made_again():
    world = World(A, B, C, initialModel="participant")
    (first,) = world.session.cohort
    world.report(first, 5, model=digest(5))
    lost = Lost(first, 0, digest(5))
    assert world.say(lost, after=9.0) == (
        Discard(digest(5), first, 0),
        AskInitialModel(first, 7, deadline=1069.0),
    )
    assert world.session.turn == 2
    world.report(first, 5, model=digest(5))
    world.say(Left(first))
    discard, ask = world.say(lost)
    assert world.session.turn == 3
    assert discard == Discard(digest(5), first, 0)
    assert ask.participant == draw.initializer(world.plan, (A, B, C), (first,))


@pytest.mark.parametrize("lost", [Lost(A, 1, digest(99)), Lost(A, 2, digest(11)), Lost(C, 1, digest(11))])
def test_an_update_that_does_not_count_is_no_loss(lost):
    world = World(A, B, C)
    world.report(A, 11)
    before = world.session
    assert world.say(lost, after=3.0) == ()
    assert world.session == before


def test_an_update_that_was_folded_is_no_loss():
    world = World(A, B, C, rounds=1)
    for participant in (A, B, C):
        world.report(participant, 11)
    world.aggregate(1)
    assert world.say(Lost(A, 1, digest(11))) == ()
    assert world.session.phase is Phase.EVALUATION
    world.say(Ticked(), after=60.0)
    assert world.say(Lost(A, 1, digest(11))) == ()
    assert world.session.phase is Phase.FINISHED


# --- a lost model ---


def test_the_newest_model_is_made_again_from_the_one_before():
    world = World(A, B, C, rounds=4)
    world.rounds(2)
    world.report(A, 31)
    discard, configure = world.say(RolledBack(2), after=4.0)
    assert discard == Discard(digest(31), A, 3)
    assert configure == Configure(2, digest(1), (A, B, C), seeds(world, A, B, C), deadline=1064.0)
    assert [done.number for done in world.session.history] == [1]
    assert (world.session.round, world.session.model, world.session.updates) == (2, digest(1), ())
    assert world.session.turn == 6
    world.rounds(3)
    assert [done.model for done in world.session.history] == [digest(n) for n in (1, 2, 3, 4)]
    assert world.session.phase is Phase.FINISHED


def test_it_can_go_back_to_the_first_round():
    world = World(A, B, C, rounds=4)
    world.rounds(3)
    (configure,) = world.say(RolledBack(1))
    assert (configure.round, configure.model, world.session.history) == (1, digest(0), ())


def test_a_model_that_is_being_evaluated_is_made_again():
    world = World(A, B, C)
    for participant in (A, B, C):
        world.report(participant, 11)
    world.aggregate(1)
    world.evaluate(A, 0.5)
    *_, configure = world.say(RolledBack(1))
    assert (configure.round, configure.model) == (1, digest(0))
    assert (world.session.evaluations, world.session.updates) == ((), ())


def test_a_finished_session_whose_model_is_gone_goes_on():
    world = World(A, B, C)
    world.rounds(2)
    assert world.session.phase is Phase.FINISHED
    *_, configure = world.say(RolledBack(2))
    assert (configure.round, configure.model) == (2, digest(1))
    world.rounds(1)
    *_, commit, finish = world.say(Restarted())
    assert (commit, finish) == (Commit(2, digest(2), {"accuracy": 0.5}), Finish(digest(2)))


def test_a_participants_initial_model_is_made_again_too():
    world = World(A, B, C, initialModel="participant")
    (first,) = world.session.cohort
    world.report(first, 5, model=digest(5))
    world.say(Adopted(digest(5)))
    world.rounds(1)
    (ask,) = world.say(RolledBack(0), after=1.0)
    assert ask == AskInitialModel(first, 7, deadline=1061.0)
    assert (world.session.model, world.session.initial, world.session.history) == ("", None, ())
    world.report(first, 6, model=digest(6))
    *_, configure = world.say(Adopted(digest(6)))
    assert (configure.round, configure.model, world.session.model_before(1)) == (1, digest(6), digest(6))


def test_an_attempt_is_forgotten_with_its_round():
    world = World(A, B, C, repeats=1, rounds=3)
    world.rounds(1)
    world.say(Ticked(), after=60.0)
    assert world.session.attempt == 1
    (configure,) = world.say(RolledBack(1))
    assert (configure.attempt, world.session.attempt) == (0, 0)


@pytest.mark.parametrize("number", [0, 2, 3, -1])
def test_a_model_that_was_never_made_cannot_be_lost(number):
    world = World(A, B, C, rounds=4)
    world.rounds(1)
    with pytest.raises(LocalProtocolError, match=f"round {number} made no model that could be lost in round 2"):
        world.say(RolledBack(number))


def test_before_the_first_round_there_is_no_model_to_lose():
    for world in (World(A), World(A, B, C, initialModel="participant")):
        with pytest.raises(LocalProtocolError, match="RolledBack has no place in"):
            world.say(RolledBack(0))


def test_a_failed_session_stays_failed():
    world = World(A, B, C)
    world.rounds(1)
    assert isinstance(world.say(Ticked(), after=60.0)[-1], Fail)
    assert world.say(RolledBack(1)) == ()
    refused(world, Joined(A, agreement(A)), "over")
