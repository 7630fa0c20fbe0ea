"""Events and sessions survive the journal, and nothing else does."""

import pytest
from session_world import SESSION, A, B, C, World, digest

from nevermined_fl.errors import DecodeError
from nevermined_fl.session import snapshot, start
from nevermined_fl.session.events import (
    EVENTS,
    Adopted,
    Aggregated,
    Evaluated,
    Joined,
    Left,
    Lost,
    Reported,
    Restarted,
    RolledBack,
    Stopped,
    Ticked,
    from_json,
    to_json,
)


@pytest.mark.parametrize(
    "event",
    [
        Joined(A, "0x1"),
        Left(A),
        Reported(A, 1, digest(0), digest(1), 5, {"loss": 0.25}),
        Reported(A, 2, digest(0), digest(1), 5, attempt=3),
        Adopted(digest(1)),
        Aggregated(1, digest(1)),
        Evaluated(A, 1, digest(1), 5),
        Ticked(),
        Stopped("why"),
        Restarted(),
        Lost(A, 1, digest(1)),
        RolledBack(2),
    ],
)
def test_events_survive_json(event):
    assert from_json(to_json(event)) == event
    assert EVENTS[to_json(event)["type"]] is type(event)


@pytest.mark.parametrize(
    "body", [{}, {"type": "exploded"}, {"type": "left"}, {"type": "ticked", "at": 1}, {"type": []}]
)
def test_what_is_no_event_is_refused(body):
    with pytest.raises(DecodeError):
        from_json(body)


@pytest.mark.parametrize("change", [{"phase": "lunch"}, {"members": [{}]}, {"plan": {}}, {"surplus": 1}])
def test_what_is_no_session_is_refused(change):
    session, _ = start(World().plan, SESSION, 0.0)
    with pytest.raises(DecodeError):
        snapshot.from_json(snapshot.to_json(session) | change)


def test_a_session_with_everything_in_it_survives_json():
    world = World(A, B, C, initialModel="participant", repeats=1, lateUpdates="use", rounds=3)
    (maker,) = world.session.cohort
    world.report(maker, 5, model=digest(5))
    assert world.restored() == world.session
    world.say(Adopted(digest(5)))
    world.rounds(1)
    world.report(A, 21, metrics={"loss": 2.5})
    world.say(Ticked(), after=60.0)
    assert (world.session.attempt, world.session.initial.participant) == (1, maker)
    assert world.restored() == world.session
