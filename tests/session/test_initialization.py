"""One participant makes the initial model: who, what counts, and what if it does not come."""

import pytest
from session_world import A, B, C, World, agreement, digest, refused

from nevermined_fl.errors import LocalProtocolError
from nevermined_fl.session import Phase, draw
from nevermined_fl.session.effects import Accept, Adopt, AskInitialModel, Configure, Discard, Fail
from nevermined_fl.session.events import (
    Adopted,
    Evaluated,
    Joined,
    Left,
    Reported,
    Restarted,
    Stopped,
    Ticked,
)
from nevermined_fl.session.ledger import contributions


def opened(**changes):
    """A world in initialization, and its members in the order of the lots."""
    world = World(A, B, initialModel="participant", **changes)
    world.say(Joined(C, agreement(C)), after=5.0)
    present, order = (A, B, C), []
    while (chosen := draw.initializer(world.plan, present, order)) is not None:
        order.append(chosen)
    return world, order


def made(participant, number, **changes):
    fields = {"round": 0, "model": digest(number), "update": digest(number), "examples": 1} | changes
    return Reported(participant, **fields)


def test_the_first_drawn_makes_the_model_and_the_rounds_begin():
    world, (first, *others) = opened(metrics=[])
    assert world.effects == (Accept(C, 0), AskInitialModel(first, 7, deadline=1065.0))
    assert (world.session.phase, world.session.round, world.session.turn) == (Phase.INITIALIZATION, 0, 1)
    assert world.session.model == ""
    assert world.session.waits_for() == (first,)
    assert [world.session.welcomes(name, 0) for name in (first, *others)] == [True, False, False]
    assert world.say(made(first, 5)) == (Accept(first, 0), Adopt(digest(5), first))
    assert world.session.deadline is None
    assert world.say(made(first, 5)) == (Accept(first, 0),)
    discard, configure = world.say(Adopted(digest(5)), after=3.0)
    assert discard == Discard(digest(5), first, 0)
    seeds = tuple(draw.training_seed(world.plan, 1, name) for name in (A, B, C))
    assert configure == Configure(1, digest(5), (A, B, C), seeds, deadline=1068.0)
    assert world.session.model_before(1) == digest(5)
    # Its sender did not hear the verdict; nobody else made it, and making it is no contribution to a round.
    assert world.say(made(first, 5)) == (Accept(first, 0),)
    refused(world, made(first, 6), "other_answer")
    refused(world, made(others[0], 5), "late")
    world.rounds(1)
    assert world.say(made(first, 5)) == (Accept(first, 0),)
    assert [c.rounds for c in contributions(world.session)] == [(1,)] * 3


def test_an_initial_model_is_judged():
    world, (first, second, _) = opened()
    refused(world, made(second, 5), "not_in_cohort")
    refused(world, made(first, 5, model=digest(6)), "other_model")
    refused(world, made(first, 5, round=1), "stale_round")
    refused(world, made(first, 5, examples=0), "bad_weight")
    refused(world, made(first, 5, metrics={"canary": 1.0}), "bad_metric")
    refused(world, Evaluated(first, 0, digest(5), 1), "wrong_phase")
    world.say(made(first, 5))
    refused(world, made(first, 6), "other_answer")
    refused(world, made(second, 5), "not_in_cohort")
    with pytest.raises(LocalProtocolError, match="was adopted and not ordered"):
        world.say(Adopted(digest(6)))


def test_nothing_is_adopted_before_it_came():
    world, _ = opened()
    with pytest.raises(LocalProtocolError, match="was adopted and not ordered"):
        world.say(Adopted(digest(5)))


def test_who_leaves_or_takes_too_long_is_followed_by_the_next_until_all_were_asked():
    world, (first, second, third) = opened()
    assert world.say(Left(second)) == (Accept(second, 0),)
    world.say(Joined(second, agreement(second)))
    assert world.say(Left(first), after=10.0) == (Accept(first, 0), AskInitialModel(second, 7, deadline=1075.0))
    assert world.session.turn == 2
    # It is back, and is not asked again: it had its turn.
    assert world.say(Joined(first, agreement(first))) == (Accept(first, 0),)
    refused(world, made(first, 5), "late")
    assert world.say(Ticked(), after=59.0) == ()
    assert world.say(Ticked(), after=1.0) == (AskInitialModel(third, 7, deadline=1135.0),)
    assert world.say(Joined(third, agreement(third))) == (Accept(third, 0), AskInitialModel(third, 7, deadline=1135.0))
    assert world.say(Ticked(), after=60.0) == (Fail("none of 3 participants made the initial model"),)


def test_it_fails_when_the_last_one_leaves():
    world, (first, second, third) = opened()
    world.say(Left(third))
    world.say(Left(first))
    assert world.say(Left(second)) == (Accept(second, 0), Fail("none of 2 participants made the initial model"))


def test_a_model_stays_although_its_maker_left():
    world, (first, *_) = opened()
    world.say(made(first, 5))
    assert world.say(Left(first)) == (Accept(first, 0),)
    assert world.say(Ticked(), after=1e6) == ()
    world.say(Adopted(digest(5)))
    assert world.session.phase is Phase.REPORTING


def test_a_restart_asks_again_or_adopts_again():
    world, (first, *_) = opened()
    assert world.say(Restarted(), after=50.0) == (AskInitialModel(first, 7, deadline=1115.0),)
    world.say(made(first, 5))
    assert world.say(Restarted()) == (Adopt(digest(5), first),)
    assert world.session.deadline is None
    world.say(Adopted(digest(5)))
    discard, _ = world.say(Restarted())
    assert discard == Discard(digest(5), first, 0)


def test_the_deadline_of_selection_opens_it_too():
    world = World(A, B, initialModel="participant")
    (ask,) = world.say(Ticked(), after=30.0)
    assert ask == AskInitialModel(draw.initializer(world.plan, (A, B), ()), 7, deadline=1090.0)
    assert world.say(Stopped("why")) == (Fail("why"),)
