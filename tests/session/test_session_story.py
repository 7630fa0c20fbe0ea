"""Read this first: one session from selection to its model, and what it looks like when somebody does not come."""

import hashlib

from session_world import SESSION, A, B, C, World, agreement, digest

from nevermined_fl.session import Phase, replay
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
from nevermined_fl.session.events import Aggregated, Evaluated, Joined, Reported, Ticked
from nevermined_fl.session.ledger import Contribution, contributions


def seed(round_number, participant):
    lot = hashlib.sha256(f"7:{round_number}:{participant}".encode()).digest()
    return int.from_bytes(lot[:8], "big") // 2


def test_two_rounds_the_second_short_of_a_straggler():
    world = World()
    assert world.session.phase is Phase.SELECTION
    assert world.session.deadline == 1030.0

    # Everybody joins; the last one opens the first round.
    for participant in (C, A):
        assert world.say(Joined(participant, agreement(participant))) == (Accept(participant, 0),)
    assert world.say(Joined(B, agreement(B)), after=5.0) == (
        Accept(B, 0),
        Configure(1, digest(0), (A, B, C), (seed(1, A), seed(1, B), seed(1, C)), deadline=1065.0),
    )

    # Updates come in another order than the cohort's; a claim of 250 examples is capped at 100.
    assert world.say(Reported(C, 1, digest(0), digest(13), 20, {"loss": 2.5})) == (Accept(C, 1),)
    assert world.say(Reported(A, 1, digest(0), digest(11), 250)) == (Accept(A, 1),)
    assert world.say(Reported(B, 1, digest(0), digest(12), 30)) == (
        Accept(B, 1),
        Aggregate(1, digest(0), ((A, digest(11), 100), (B, digest(12), 30), (C, digest(13), 20))),
    )
    assert world.session.deadline is None

    # The model is durable, so the updates may go; then the cohort tries it out.
    assert world.say(Aggregated(1, digest(1)), after=2.0) == (
        Discard(digest(11), A, 1),
        Discard(digest(12), B, 1),
        Discard(digest(13), C, 1),
        AskEvaluation(1, digest(1), (A, B, C), deadline=1067.0),
    )
    assert world.say(Evaluated(A, 1, digest(1), 10, {"accuracy": 0.5})) == (Accept(A, 1),)
    assert world.say(Evaluated(C, 1, digest(1), 30, {"accuracy": 0.9, "loss": 4.0})) == (Accept(C, 1),)
    accept, commit, configure = world.say(Evaluated(B, 1, digest(1), 60, {"accuracy": 0.70004}))
    assert accept == Accept(B, 1)
    # (10 * 0.5 + 60 * 0.7 + 30 * 0.9) / 100, and only C gave a loss.
    assert commit == Commit(1, digest(1), {"accuracy": 0.74, "loss": 4.0})
    assert configure == Configure(2, digest(1), (A, B, C), (seed(2, A), seed(2, B), seed(2, C)), deadline=1067.0)

    # The straggler B misses the deadline of round 2.
    world.report(A, 21, examples=5)
    world.report(C, 23, examples=6)
    assert world.say(Ticked(), after=59.9) == ()
    assert world.say(Ticked(), after=0.1) == (Aggregate(2, digest(1), ((A, digest(21), 5), (C, digest(23), 6))),)
    assert world.report(B, 22) == (
        Reject(B, "late", "round 2 is in aggregation; this came too late"),
        Discard(digest(22), B, 2),
    )

    world.aggregate(2)
    world.evaluate(A, 0.8)
    assert world.say(Ticked(), after=60.0) == (Commit(2, digest(2), {"accuracy": 0.8}), Finish(digest(2)))
    assert world.session.phase is Phase.FINISHED
    assert contributions(world.session) == (
        Contribution(A, agreement(A), (1, 2), 5),
        Contribution(B, agreement(B), (1,), 30),
        Contribution(C, agreement(C), (1, 2), 6),
    )

    # The log alone tells all of it again.
    assert replay(world.plan, SESSION, world.started, world.log) == world.session
    assert world.restored() == world.session


def test_too_few_participants_by_the_deadline():
    world = World(A, B, minParticipants=3)
    assert world.say(Ticked(), after=29.0) == ()
    assert world.say(Ticked(), after=1.0) == (Fail("too few participants: 2 of at least 3 by the deadline"),)
    assert world.session.phase is Phase.FAILED
    assert contributions(world.session) == ()


def test_enough_participants_by_the_deadline_begin_without_the_third():
    world = World(C, B)
    (configure,) = world.say(Ticked(), after=30.0)
    assert configure == Configure(1, digest(0), (B, C), (seed(1, B), seed(1, C)), deadline=1090.0)


def test_too_few_updates_by_the_deadline():
    world = World(A, B, C)
    world.rounds(1)
    world.report(B, 22)
    assert world.say(Ticked(), after=60.0) == (
        Discard(digest(22), B, 2),
        Fail("round 2: too few updates: 1 of at least 2 by the deadline"),
    )
