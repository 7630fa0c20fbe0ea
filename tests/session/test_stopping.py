"""When a session ends before its last round."""

import pytest
from session_world import A, B, C, World, digest

from nevermined_fl.session import Phase
from nevermined_fl.session.effects import Commit, Finish


def rounds_until_it_stops(accuracies, **changes):
    world = World(A, B, C, rounds=len(accuracies), **changes)
    for accuracy in accuracies:
        if world.session.is_over():
            break
        number = world.session.round
        for participant in (A, B, C):
            world.report(participant, number)
        world.aggregate(number)
        for participant in world.session.waits_for():
            world.evaluate(participant, accuracy)
    assert world.session.phase is Phase.FINISHED
    assert world.session.reason == ""
    return len(world.session.history)


def stop(**fields):
    return {"earlyStop": {"metric": "accuracy"} | fields}


@pytest.mark.parametrize(
    ("accuracies", "rule", "rounds"),
    [
        ([0.1, 0.7, 0.9, 0.9], {"target": 0.9}, 3),  # reached exactly
        ([0.1, 0.7, 0.899, 0.8], {"target": 0.9}, 4),
        ([0.5, 0.3, 0.1, 0.0], {"target": 0.3, "goal": "min"}, 2),
        ([0.5, 0.75, 0.875, 1.0], {"tolerance": 0.125}, 3),  # 0.125 better is not more than 0.125
        ([0.5, 0.75, 0.876, 1.0], {"tolerance": 0.125}, 4),
        ([0.5, 0.5, 0.5, 0.5], {"tolerance": 0.0}, 2),
        ([0.5, 0.4, 0.6, 0.5, 0.4, 0.9], {"tolerance": 0.0, "patience": 2}, 5),
        ([0.5, 0.4, 0.6, 0.5, 0.61, 0.9], {"tolerance": 0.0, "patience": 2}, 6),
        ([0.5, 0.6, 0.55, 0.6, 0.9], {"tolerance": 0.0, "patience": 2}, 4),  # the best before them, not the newest
        ([0.5, 0.25, 0.25, 0.1], {"tolerance": 0.0, "goal": "min"}, 3),
        ([0.1, 0.2, 0.3, 0.4], {"tolerance": 0.0, "patience": 3}, 4),
        ([0.1, 0.9, 0.2, 0.2], {"target": 0.95, "tolerance": 0.0, "patience": 2}, 4),
    ],
)
def test_it_stops_when_it_is_good_enough_or_gets_no_better(accuracies, rule, rounds):
    assert rounds_until_it_stops(accuracies, **stop(**rule)) == rounds


@pytest.mark.parametrize(
    ("accuracies", "tolerance"), [([0.7, 0.8, 0.9], 0.1), ([0.9, 0.91, 0.99], 0.01), ([0.1, 0.3, 0.9], 0.2)]
)
def test_decimals_are_compared_as_they_were_written(accuracies, tolerance):
    # As floats 0.8 - 0.7 is more than 0.1, and 0.91 - 0.9 more than 0.01.
    assert rounds_until_it_stops(accuracies, **stop(tolerance=tolerance)) == 2
    falling = [round(1 - accuracy, 2) for accuracy in accuracies]
    assert rounds_until_it_stops(falling, **stop(tolerance=tolerance, goal="min")) == 2


@pytest.mark.parametrize("target", [0.95, 0.7, 0.99])
def test_a_target_that_everybody_names_is_reached(target):
    world = World(A, B, C, rounds=5, **stop(target=target))
    for participant in (A, B, C):
        world.report(participant, 11)
    world.aggregate(1)
    for participant, examples in zip((A, B, C), (1, 2, 3), strict=True):
        world.evaluate(participant, target, examples=examples)
    assert world.session.phase is Phase.FINISHED


def test_rounds_without_an_evaluation_say_nothing():
    # Evaluated after rounds 2, 4 and 6: 0.5, 0.7, 0.7.
    assert rounds_until_it_stops([0.9, 0.5, 0.9, 0.7, 0.9, 0.7, 1.0, 1.0], **stop(tolerance=0.0), evaluateEvery=2) == 6


def test_a_metric_that_nobody_gave_stops_nothing():
    assert rounds_until_it_stops([0.5] * 3, earlyStop={"metric": "loss", "tolerance": 1.0}) == 3


def test_stopping_early_finishes_with_the_model_there_is():
    world = World(A, B, C, rounds=9, **stop(target=0.5))
    for participant in (A, B, C):
        world.report(participant, 11)
    world.aggregate(1)
    world.evaluate(A, 0.5)
    world.evaluate(B, 0.5)
    _, *effects = world.evaluate(C, 0.5)
    assert effects == [Commit(1, digest(1), {"accuracy": 0.5}), Finish(digest(1))]
    assert world.session.deadline is None
